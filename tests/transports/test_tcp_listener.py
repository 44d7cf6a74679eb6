"""Listening for TCP connections."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_asyncwrite import TcpListener, TcpStream, open_tcp_listeners, open_tcp_stream

from .._patience import wait_all_tasks_blocked

LOOPBACK = "127.0.0.1"


async def test_an_accepted_connection_is_a_tcp_stream() -> None:
    (listener,) = await open_tcp_listeners(0, host=LOOPBACK, backlog=5)
    async with listener:
        client = await open_tcp_stream(LOOPBACK, listener.socket.getsockname()[1])
        async with client, await listener.accept() as server:
            assert type(server) is TcpStream
            await server.send_all(b"hello")
            assert await client.receive_some() == b"hello"


@pytest.mark.parametrize("kind", ["socket", "SocketListener"])
async def test_it_is_made_of_what_listens(kind: str) -> None:
    sock = trio.socket.socket()
    await sock.bind((LOOPBACK, 0))
    sock.listen()
    listener = TcpListener(sock if kind == "socket" else trio.SocketListener(sock))
    assert listener.socket is sock
    client = await open_tcp_stream(LOOPBACK, sock.getsockname()[1])
    async with listener, client, await listener.accept() as server:
        await server.send_all(b"hello")
        assert await client.receive_some() == b"hello"


async def test_it_is_made_of_nothing_else() -> None:
    async with (await open_tcp_listeners(0, host=LOOPBACK))[0] as listener:
        with pytest.raises(TypeError, match="expected a trio.SocketListener or .*, got TcpList"):
            TcpListener(listener)  # type: ignore[arg-type]
    packets = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
    with packets, pytest.raises(TypeError, match="got a socket of type SOCK_DGRAM"):
        TcpListener(packets)
    with trio.socket.socket() as sock, pytest.raises(ValueError, match="listening socket"):
        TcpListener(sock)


async def test_accepted_connections_survive_the_listener() -> None:
    (listener,) = await open_tcp_listeners(0, host=LOOPBACK)
    client = await open_tcp_stream(LOOPBACK, listener.socket.getsockname()[1])
    async with client, await listener.accept() as server:
        await listener.aclose()
        assert listener.socket.fileno() == -1
        await server.send_all(b"hello")
        assert await client.receive_some() == b"hello"


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_closed_listener_accepts_nothing(*, waiting: bool) -> None:
    (listener,) = await open_tcp_listeners(0, host=LOOPBACK)

    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        if waiting:
            nursery.start_soon(accept)
            await wait_all_tasks_blocked()
        await listener.aclose()
    await accept()


async def test_every_address_has_a_listener() -> None:
    listeners = await open_tcp_listeners(0)
    assert listeners
    for listener in listeners:
        assert type(listener) is TcpListener
        assert repr(listener) == f"<TcpListener on {listener.socket!r}>"
        await listener.aclose()
    with pytest.raises(TypeError):
        await open_tcp_listeners("80")  # type: ignore[arg-type]
