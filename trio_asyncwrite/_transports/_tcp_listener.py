"""Listening for TCP connections."""

from __future__ import annotations

from typing import final

import trio
import trio.abc

from ._tcp import TcpStream


@final
class TcpListener(trio.abc.Listener[TcpStream]):
    """Accepts connections as :class:`TcpStream` objects.

    Args:
        listener: the :class:`trio.SocketListener` to accept from. Closing this listener closes it.

    Source: ``tokio::net::TcpListener``; :class:`trio.SocketListener`.
    """

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        #: The listening Trio socket.
        self.socket: trio.socket.SocketType = listener.socket

    async def accept(self) -> TcpStream:
        """Wait for the next connection.

        Returns:
            The connection.

        Raises:
            OSError: if the system is out of resources, as from :meth:`trio.SocketListener.accept`.
            trio.ClosedResourceError: if the listener is closed, now or meanwhile.

        Cancellation: nothing happened.

        Source: :meth:`trio.abc.Listener.accept`.
        """
        return TcpStream(await self._listener.accept())

    async def aclose(self) -> None:
        """Stop listening. Connections already accepted stay open.

        Cancellation: nothing happened; the listener is closed all the same.

        Source: :meth:`trio.abc.AsyncResource.aclose`.
        """
        await self._listener.aclose()

    def __repr__(self) -> str:
        return f"<TcpListener on {self.socket!r}>"


async def open_tcp_listeners(
    port: int, *, host: str | bytes | None = None, backlog: int | None = None
) -> list[TcpListener]:
    """Listen on a TCP port, as :func:`trio.open_tcp_listeners` does.

    Args:
        port: the port number; 0 lets the system choose one.
        host: the address to listen on; ``None`` for all of them.
        backlog: how many connections may wait to be accepted; ``None`` for a good default.

    Returns:
        The listeners: one for each address that ``host`` has.

    Raises:
        OSError: if the port cannot be listened on.
        TypeError: if ``port`` is not an integer.

    Cancellation: nothing happened; no listener is left behind.

    Source: :func:`trio.open_tcp_listeners`.
    """
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    return [TcpListener(listener) for listener in listeners]
