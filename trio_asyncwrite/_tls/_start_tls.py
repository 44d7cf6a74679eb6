"""TLS on a connection that has spoken plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio
import trio.abc

from trio_asyncwrite._core._checks import byte_view
from trio_asyncwrite._core._stack import above, check_may_encode, detach
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._stream import TlsStream

if TYPE_CHECKING:
    import ssl

S = TypeVar("S", bound=trio.abc.Stream)


async def start_tls(
    stream: S,
    ssl_context: ssl.SSLContext,
    *,
    server_hostname: str | bytes | None = None,
    server_side: bool = False,
    https_compatible: bool = False,
    received: bytes | bytearray | memoryview = b"",
) -> TlsStream[S]:
    """Go over to TLS on a connection that has spoken plain text so far (STARTTLS).

    Args:
        stream: the connection. It belongs to the new stream from now on.
        ssl_context: as for :class:`TlsStream`.
        server_hostname: as for :class:`TlsStream`.
        server_side: as for :class:`TlsStream`.
        https_compatible: as for :class:`TlsStream`.
        received: what was already received beyond the last plain text message. It is taken as
            the beginning of TLS, and never as plain text (which would let an attacker slip
            commands into the session: CVE-2011-0411).

    Returns:
        The encrypted stream, its handshake complete.

    Raises:
        TypeError: as :class:`TlsStream`. Nothing happened.
        ValueError: if ``stream`` or a layer above it still holds unsent plain text: flush it
            first. Or as :class:`TlsStream`. Nothing happened.
        trio.BusyResourceError: if another task writes a message to ``stream``, or to a layer above
            or below it. Nothing happened.
        trio.BrokenResourceError: if a :class:`Buf` is unfinished: finish it first, nothing
            happened. Or if the handshake fails: the connection is closed.

    Cancellation: lost: a handshake has begun, nothing else can be said on the connection, and
        no stream was returned to go on with it. The connection is closed.

    Source: RFC 3207 (SMTP), RFC 2595 (IMAP, POP3).
    """
    writer = wrap_stream(stream)
    if unsent := writer.unsent_bytes:
        raise ValueError(f"{stream!r} holds {unsent} bytes of unsent plain text: flush it first")
    check_may_encode(writer, "start TLS below it")
    older = above(writer)
    tls = TlsStream(
        stream,
        ssl_context,
        server_hostname=server_hostname,
        server_side=server_side,
        https_compatible=https_compatible,
    )
    with byte_view(received) as view:
        if view:
            tls.feed(bytes(view))
    for layer in older:
        # What they would write is plain text.
        detach(layer, f"{layer!r} was made before start_tls(): make a new one over the TLS stream")
    try:
        await tls.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(tls)
        raise
    return tls
