"""The addresses of both ends, asked through any layer."""

from __future__ import annotations

import socket as stdlib_socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncRead,
    AsyncWrite,
    BufReader,
    BufWriter,
    Layer,
    PollEvented,
    ReadWritePair,
    TcpListener,
    TcpStream,
    TeeWriter,
    TlsListener,
    TlsStream,
    duplex,
    open_tcp_listeners,
    open_tcp_stream,
    open_unix_stream,
    simplex,
    split,
    wrap_stream,
)

from .._streams import pipe_pair, reset, tcp_pair, tcp_sockets
from .._tls_helpers import client_context, server_context

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "127.0.0.1"


def addresses(layer: Layer) -> tuple[Any, Any]:
    return layer.local_address, layer.peer_address


@pytest.mark.parametrize("host", [LOOPBACK, "::1"])
async def test_each_end_knows_both(host: str) -> None:
    try:
        (listener,) = await open_tcp_listeners(0, host=host)
    except OSError:
        pytest.skip("no IPv6 here")
    async with listener:
        here = listener.socket.getsockname()
        client = await open_tcp_stream(host, here[1])
        async with client, await listener.accept() as server:
            assert addresses(client) == (client.socket.getsockname(), here)
            assert addresses(server) == addresses(client)[::-1]


async def test_of_several_streams_that_a_layer_writes_to_the_main_one_is_meant() -> None:
    """Another one, such as a copy, says nothing of the peer."""

    class Twice(AsyncWrite):
        def __init__(self, inner: AsyncWrite, other: AsyncWrite) -> None:
            self.inner = inner
            self.layers_below = (other, inner)

    (stream, other), (main, _) = await tcp_pair(), simplex(1)
    for make in (Twice, TeeWriter):
        assert addresses(make(main, stream)) == (None, None)
        assert addresses(make(stream, main)) == addresses(stream)
    await stream.aclose()
    await other.aclose()


async def test_unix_sockets_have_paths(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    listener = TcpListener(sock)
    async with listener, await open_unix_stream(path) as client, await listener.accept() as server:
        assert addresses(client) == ("", str(path))
        assert addresses(server) == (str(path), "")


async def test_every_layer_passes_the_question_on() -> None:
    left, right = await tcp_pair()
    known = addresses(left)
    tls = TlsStream(left, client_context(), server_hostname="localhost")
    reader, writer = split(tls)
    foreign = trio.SSLStream(trio.SocketStream(right.socket), server_context(), server_side=True)
    layers: list[Layer] = [
        tls,
        reader,
        writer,
        BufWriter(BufWriter(tls)),
        BufReader(tls),
        ReadWritePair(tls, BufWriter(tls)),
        ReadWritePair(trio.testing.MemoryReceiveStream(), tls),
        tls.by_ref(),
    ]
    for layer in layers:
        assert addresses(layer) == known
    assert addresses(wrap_stream(foreign)) == known[::-1]
    assert addresses(wrap_stream(trio.StapledStream(foreign, foreign))) == known[::-1]
    for layer in layers:
        await trio.aclose_forcefully(layer)
    right.socket.close()
    assert tls.peer_address == known[1]
    assert addresses(wrap_stream(foreign)) == (None, None)


async def test_where_there_is_no_socket_it_is_unknown() -> None:
    class Mine(AsyncRead):
        pass

    class Endless(trio.abc.SendStream):
        @property
        def transport_stream(self) -> Endless:
            return self

        async def send_all(self, data: object) -> None: ...
        async def wait_send_all_might_not_block(self) -> None: ...
        async def aclose(self) -> None: ...

    left, right = duplex(10)
    writing, reading = await pipe_pair()
    memory, other = trio.testing.memory_stream_pair()
    for layer in (left, writing, reading, Mine(), wrap_stream(memory), wrap_stream(Endless())):
        assert addresses(layer) == (None, None)
    for each in (left, right, writing, reading, memory, other):
        await each.aclose()


async def test_a_descriptor_knows_its_addresses_while_it_is_open() -> None:
    left, right = await tcp_sockets()
    known = (left.getsockname(), left.getpeername())
    stream = PollEvented(left.detach())
    assert addresses(stream) == known
    await stream.aclose()
    assert addresses(stream) == (None, None)
    right.close()


async def test_what_was_known_stays_known_when_the_peer_has_reset_and_after_the_close() -> None:
    left, right = await tcp_pair()
    known = addresses(left)
    reset(right)
    with pytest.raises(trio.BrokenResourceError):
        await left.receive_some()
    with pytest.raises(OSError, match="not connected"):
        left.socket.getpeername()
    assert addresses(left) == known
    await trio.aclose_forcefully(left)
    assert addresses(left) == known


async def test_made_too_late_it_is_unknown() -> None:
    left, right = await tcp_sockets()
    linger = struct.pack("ii", 1, 0)
    right.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, linger)
    right.close()
    await trio.lowlevel.wait_readable(left)
    stream = TcpStream(left)
    assert stream.peer_address is None
    left.close()
    assert addresses(stream) == (None, None)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_listener_knows_a_peer_that_has_gone_before_it_was_accepted(*, tls: bool) -> None:
    """A scanner: it is what an error log is read for."""
    (listener,) = await open_tcp_listeners(0, host=LOOPBACK)
    async with listener:
        client = stdlib_socket.create_connection(listener.socket.getsockname())
        address = client.getsockname()
        linger = struct.pack("ii", 1, 0)
        client.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, linger)
        client.close()
        server: Any = listener
        stream = await (TlsListener(server, server_context()) if tls else server).accept()
        assert stream.peer_address == address
        await trio.aclose_forcefully(stream)
