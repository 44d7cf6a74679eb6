"""What the files are sent over."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
import trio.abc

from trio_asyncwrite import TlsStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    Connect: TypeAlias = Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]
    AnyTls: TypeAlias = TlsStream[trio.SocketStream] | trio.SSLStream[trio.SocketStream]

#: The kernel's buffers, in bytes; it doubles them. Its own grow to megabytes, and then a small
#: folder would be sent without a single wait. Any smaller, and TCP stalls on the loopback
#: interface, whose packets are of 64 KiB.
_KERNEL_BUFFER: Final = 32768


@dataclass(frozen=True)
class Transport:
    """A kind of connection, and how each side of the comparison makes one."""

    name: str
    #: For BufWriter. Each call gives both ends, the client's first.
    connect: Connect
    #: For BufWriter at the server's end; the client's is Trio's.
    connect_server: Connect
    #: For plain ``send_all``. Both ends are Trio's.
    connect_plain: Connect
    #: What a cancelled plain ``send_all`` leads to.
    plain_note: str
    #: Whether its ends say goodbye with a close_notify.
    is_tls: bool = False


class MissingExtraError(Exception):
    """A package is not installed; the message says which, and how to get it."""


async def connect_tcp() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Make a TCP connection over the loopback interface; return both ends."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        # Accepted sockets inherit it, and TCP settles its window when it connects.
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BUFFER)
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
        return client, await listener.accept()


TCP: Final = Transport(
    "TCP",
    connect_tcp,
    connect_tcp,
    connect_tcp,
    "send_all is trio.SocketStream's. A cancelled one does not say how much it has sent, so the "
    "caller has to guess: sent again, a message may arrive in part twice; skipped, it may arrive "
    "only in part. (Its seconds are fewer because nothing is left to verify once the receiver has "
    "lost step.)",
)


def tls() -> Transport:
    """TLS over TCP, with a certificate authority that lives no longer than the process.

    Raises:
        MissingExtraError: if trustme, which makes it, is not installed.
    """
    try:
        import trustme  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtraError(
            "TLS needs trustme, for its certificates: pip install 'trio_asyncwrite[demo]', or "
            "leave it out with --transport tcp"
        ) from None
    authority = trustme.CA()
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    return Transport(
        "TLS",
        partial(_connect_tls, TlsStream, TlsStream, client_context, server_context),
        partial(_connect_tls, trio.SSLStream, TlsStream, client_context, server_context),
        partial(_connect_tls, trio.SSLStream, trio.SSLStream, client_context, server_context),
        "send_all is trio.SSLStream's. A cancelled one may have sent a part of a record, after "
        "which nothing else can be sent: the session is lost, and with it the connection "
        "(python-trio/trio#198). The seconds are those until then.",
        is_tls=True,
    )


async def _connect_tls(
    client_kind: type[AnyTls],
    server_kind: type[AnyTls],
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    tcp_client, tcp_server = await connect_tcp()
    client = client_kind(tcp_client, client_context, server_hostname="localhost")
    server = server_kind(tcp_server, server_context, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client, server


#: What can be chosen; each is made when it is.
TRANSPORTS: Final[dict[str, Callable[[], Transport]]] = {"tcp": lambda: TCP, "tls": tls}
