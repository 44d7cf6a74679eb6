"""TLS over TCP: clients and listeners, with Trio's signatures; ``_serve.py`` has the server."""

from __future__ import annotations

import ssl
from typing import Generic, TypeVar, final

import trio
import trio.abc

from trio_asyncwrite._transports._tcp import TcpStream, open_tcp_stream
from trio_asyncwrite._transports._tcp_listener import open_tcp_listeners

from ._server_name import server_name
from ._stream import TlsStream

S = TypeVar("S", bound=trio.abc.Stream)


@final
class TlsListener(trio.abc.Listener[TlsStream[S]], Generic[S]):
    """Accepts connections as :class:`TlsStream` objects, whose handshake is still to come.

    Args:
        transport_listener: the listener below. Closing this listener closes it.
        ssl_context: the context for all connections.
        https_compatible: passed on to :class:`TlsStream`.

    Source: :class:`trio.SSLListener`.
    """

    #: The listener below.
    transport_listener: trio.abc.Listener[S]

    def __init__(
        self,
        transport_listener: trio.abc.Listener[S],
        ssl_context: ssl.SSLContext,
        *,
        https_compatible: bool = False,
    ) -> None:
        self.transport_listener = transport_listener
        self._ssl_context = ssl_context
        self._https_compatible = https_compatible

    async def accept(self) -> TlsStream[S]:
        """Wait for the next connection.

        Returns:
            The connection. Its handshake happens in whatever is done with it first.

        Raises:
            OSError: as the listener below does.
            ssl.SSLError: if the context is not one for servers.
            trio.ClosedResourceError: if the listener is closed, now or meanwhile.

        Cancellation: nothing happened.

        Source: :meth:`trio.abc.Listener.accept`.
        """
        transport = await self.transport_listener.accept()
        try:
            return TlsStream(
                transport,
                self._ssl_context,
                server_side=True,
                https_compatible=self._https_compatible,
            )
        except BaseException:
            await trio.aclose_forcefully(transport)
            raise

    async def aclose(self) -> None:
        """Stop listening. Connections already accepted stay open.

        Cancellation: nothing happened; the listener is closed all the same.

        Source: :meth:`trio.abc.AsyncResource.aclose`.
        """
        await self.transport_listener.aclose()

    def __repr__(self) -> str:
        return f"<TlsListener over {self.transport_listener!r}>"


async def open_tls_over_tcp_stream(
    host: str | bytes,
    port: int,
    *,
    https_compatible: bool = False,
    ssl_context: ssl.SSLContext | None = None,
    happy_eyeballs_delay: float | None = 0.25,
) -> TlsStream[TcpStream]:
    """Connect to a host and port with TLS. The handshake is left to the first operation.

    Args:
        host: the name or address; the server's certificate has to be valid for it, without a
            trailing dot or the zone of an IPv6 address.
        port: the port number.
        https_compatible: passed on to :class:`TlsStream`.
        ssl_context: the context; by default a new :func:`ssl.create_default_context`.
        happy_eyeballs_delay: as for :func:`open_tcp_stream`.

    Returns:
        The stream.

    Raises:
        OSError: if no address could be connected to.
        TypeError: if ``host`` is neither a string nor bytes.
        ValueError: if no certificate can be valid for ``host``. No connection was made.
        ssl.SSLError: if the context is not one for clients. The connection is closed.

    Cancellation: nothing happened; no connection is left behind.

    Source: :func:`trio.open_ssl_over_tcp_stream`.
    """
    name = server_name(host)
    transport = await open_tcp_stream(host, port, happy_eyeballs_delay=happy_eyeballs_delay)
    try:
        return TlsStream(
            transport,
            ssl.create_default_context() if ssl_context is None else ssl_context,
            server_hostname=name,
            https_compatible=https_compatible,
        )
    except BaseException:
        await trio.aclose_forcefully(transport)
        raise


async def open_tls_over_tcp_listeners(
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | bytes | None = None,
    https_compatible: bool = False,
    backlog: int | None = None,
) -> list[TlsListener[TcpStream]]:
    """Listen on a TCP port for connections with TLS.

    Args:
        port: the port number; 0 lets the system choose one.
        ssl_context: the context for all connections.
        host: the address to listen on; ``None`` for all of them.
        https_compatible: passed on to :class:`TlsStream`.
        backlog: how many connections may wait to be accepted; ``None`` for a good default.

    Returns:
        The listeners: one for each address that ``host`` has. The port that the system chose is
        ``listeners[0].transport_listener.socket.getsockname()[1]``.

    Raises:
        OSError: if the port cannot be listened on.
        TypeError: if ``port`` is not an integer.

    Cancellation: nothing happened; no listener is left behind.

    Source: :func:`trio.open_ssl_over_tcp_listeners`.
    """
    return [
        TlsListener(listener, ssl_context, https_compatible=https_compatible)
        for listener in await open_tcp_listeners(port, host=host, backlog=backlog)
    ]
