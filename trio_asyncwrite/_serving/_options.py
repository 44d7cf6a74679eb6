"""What a server is told beside its handler and its listeners, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from trio_asyncwrite._core._checks import not_negative, positive_int

from ._callbacks import check_handler, check_on_error
from ._drain import Drain

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class Options:
    """The options of a server, checked before anything is opened.

    Args:
        handler: what serves a connection; only checked.
        drain: what ends the server; None if nothing does.
        on_error: what is told of a handler's exception; None to let it end the server.
        max_connections: how many may be served at once; None for no limit.
        handshake_timeout: how long a TLS handshake may take, in seconds; None to leave it to the
            handler.

    Raises:
        TypeError: if one of them is of a wrong type.
        ValueError: if a number is too small.
        RuntimeError: if the drain belongs to another ``trio.run``.
    """

    __slots__ = ("drain", "handshake_timeout", "max_connections", "on_error")

    def __init__(
        self,
        handler: object,
        drain: Drain | None,
        on_error: Callable[[Exception, Any], object] | None,
        max_connections: int | None,
        handshake_timeout: float | None,
    ) -> None:
        if drain is not None:
            if not isinstance(drain, Drain):
                raise TypeError(f"drain must be a Drain or None, got {type(drain).__name__}")
            with drain.until_started():  # refuses one of another run
                pass
        check_handler(handler)
        check_on_error(on_error)
        if max_connections is not None:
            positive_int(max_connections, "max_connections")
        if handshake_timeout is not None:
            not_negative(handshake_timeout, "handshake_timeout")
        self.drain = drain
        self.on_error = on_error
        self.max_connections = max_connections
        self.handshake_timeout = handshake_timeout
