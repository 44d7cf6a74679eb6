"""Listening for TCP connections."""

from __future__ import annotations

from typing import Any, final

import trio
import trio.abc

from trio_asyncwrite._core._checks import inherits

from ._fd import check_byte_stream
from ._tcp import TcpStream


@final
class _Accepting:
    """One accept, in the place of a SocketListener and its socket, that keeps the peer's address.

    SocketListener.accept() drops it, and if the peer has reset the connection meanwhile, the kernel
    has forgotten it.
    """

    __slots__ = ("_listening", "address")

    def __init__(self, listening: trio.socket.SocketType) -> None:
        self._listening = listening
        self.address: Any = None

    @property
    def socket(self) -> _Accepting:
        return self

    async def accept(self) -> tuple[trio.socket.SocketType, Any]:
        sock, self.address = await self._listening.accept()
        return sock, self.address


@final
class TcpListener(trio.abc.Listener[TcpStream]):
    """Accepts connections as :class:`TcpStream` objects.

    Args:
        listener: a :class:`trio.SocketListener`, or a Trio socket that listens. Closing
            this listener closes it.

    Raises:
        TypeError: if ``listener`` is neither, or the socket is of another type.
        ValueError: if the socket does not listen.

    Source: ``tokio::net::TcpListener``; :class:`trio.SocketListener`.
    """

    def __init__(self, listener: trio.SocketListener | trio.socket.SocketType) -> None:
        if not inherits(listener, trio.SocketListener):
            if not isinstance(listener, trio.socket.SocketType):
                raise TypeError(
                    "expected a trio.SocketListener or a Trio socket that listens, "
                    f"got {type(listener).__name__}"
                )
            check_byte_stream(listener)
            listener = trio.SocketListener(listener)
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
        accepting = _Accepting(self.socket)
        # Trio's own code decides which errors are waited out.
        stream = TcpStream(await trio.SocketListener.accept(accepting))  # type: ignore[arg-type]
        stream.accepted_from(accepting.address)
        return stream

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
