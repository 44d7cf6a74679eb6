"""A log of what goes wrong with single connections."""

from __future__ import annotations

import logging
from typing import Any, Final

import trio
import trio.abc

from trio_asyncwrite._core._checks import consists_of
from trio_asyncwrite._core._layer import Layer
from trio_asyncwrite._transports._address import foreign_address

#: Where servers say what goes wrong.
LOGGER: Final = logging.getLogger("trio_asyncwrite")

# What a peer can cause.
_OF_THE_CONNECTION: Final = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)


def peer_of(stream: object) -> str:
    """The peer's address, for a log: "192.0.2.1:50000", "[2001:db8::1]:50000", a path."""
    address: Any = (
        stream.peer_address if isinstance(stream, Layer) else foreign_address(stream, "getpeername")
    )
    if not address:
        return "an unnamed peer"
    if isinstance(address, (str, bytes)) or not hasattr(address, "__len__"):
        return address if isinstance(address, str) else repr(address)
    # As of IPv4 and IPv6; other families have other tuples.
    if len(address) == 2:
        return f"{address[0]}:{address[1]}"
    if len(address) == 4:
        return f"[{address[0]}]:{address[1]}"
    return repr(address)


def log_errors(exc: Exception, stream: trio.abc.AsyncResource) -> None:
    """Log what a handler has raised, with the peer's address: for ``on_error=``.

    It goes to the logger ``"trio_asyncwrite"``. Failures of the connection
    (:exc:`trio.BrokenResourceError`, :exc:`trio.ClosedResourceError`, :exc:`trio.TooSlowError`)
    are one line at the level INFO: any client can cause them. Everything else is an ERROR with its
    traceback.

    Args:
        exc: what the handler has raised.
        stream: the connection's stream.
    """
    if consists_of(exc, _OF_THE_CONNECTION):
        said = str(exc) or str(exc.__cause__ or "")
        LOGGER.info(
            "connection from %s: %s", peer_of(stream), f"{type(exc).__name__}: {said}".rstrip(": ")
        )
    else:
        LOGGER.error("connection from %s: the handler failed", peer_of(stream), exc_info=exc)
