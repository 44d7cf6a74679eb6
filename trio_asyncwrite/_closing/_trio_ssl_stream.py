"""Ending a :class:`trio.SSLStream`: it cannot be half-closed, but its transport can.

So close_notify is exchanged by its own ``unwrap``, and the end is handed on to the transport.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, cast

import trio
import trio.abc

from trio_asyncwrite._core._checks import inherits
from trio_asyncwrite._transports._send_stream import SendStreamWriter

if TYPE_CHECKING:
    from trio_asyncwrite._core._layer import Layer


def as_ssl_stream(stream: object) -> trio.SSLStream[trio.abc.Stream] | None:
    """``stream``, if it is an SSLStream."""
    if inherits(stream, trio.SSLStream):
        return cast("trio.SSLStream[trio.abc.Stream]", stream)
    return None


def ssl_stream_of(layers: list[Layer]) -> trio.SSLStream[trio.abc.Stream] | None:
    """The SSLStream at the bottom of a stack that is closed; None if there is another transport."""
    for layer in layers:
        if inherits(layer, SendStreamWriter):  # isinstance() takes several times as long
            tls = as_ssl_stream(layer.stream)
            if tls is not None:
                # From now on the close says its end, and not its aclose().
                layer.ends_by_closing = False
                return tls
    return None


def has_session(tls: trio.SSLStream[trio.abc.Stream]) -> bool:
    """Whether the handshake is done: before it, reading would start it."""
    try:
        tls.version()
    except trio.NeedHandshakeError:
        return False
    return True


def exchanges_close_notify(tls: trio.SSLStream[trio.abc.Stream]) -> bool:
    """Whether there is a session, and its end is to be said."""
    # There is no public name for a stream that is told neither to expect close_notify nor to
    # send it.
    return has_session(tls) and not getattr(tls, "_https_compatible", False)


def readable_part(source: trio.abc.ReceiveStream | None) -> trio.abc.ReceiveStream | None:
    """``source``, or the transport of an SSLStream that has no session."""
    while (tls := as_ssl_stream(source)) is not None and not has_session(tls):
        source = tls.transport_stream
    return source


def is_truncation(exc: BaseException) -> bool:
    """Whether the transport's end-of-file came before the end of the TLS session."""
    return isinstance(exc.__cause__, ssl.SSLEOFError)
