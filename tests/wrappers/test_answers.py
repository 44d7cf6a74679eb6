"""What wrappers and the transports in memory answer when a stack is closed."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    InspectWriter,
    LineWriter,
    MeteredWriter,
    NotReady,
    ReadWritePair,
    SharedWriter,
    Sink,
    TcpStream,
    TeeWriter,
    ThrottledWriter,
    TimeoutWriter,
    TokenBucket,
    duplex,
    simplex,
    split,
    wrap_stream,
)
from trio_asyncwrite._core._epilogue import Epilogue

from .._streams import connected, tcp_pair


class Over(trio.abc.Stream):
    """A foreign layer that shows the stream below it as Trio's do."""

    def __init__(self, below: Any) -> None:
        self.transport_stream = below

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = await self.transport_stream.receive_some(max_bytes)
        return data

    async def aclose(self) -> None:
        await self.transport_stream.aclose()


PLAIN: list[Any] = [
    BufWriter,
    SharedWriter,
    partial(TimeoutWriter, idle=1),
    LineWriter,
    MeteredWriter,
    partial(TeeWriter, copy=Sink()),
    partial(InspectWriter, function=bytes),
    partial(ThrottledWriter, bucket=TokenBucket(1)),
]


def test_epilogues() -> None:
    """None of the library's plain layers writes one; of a foreign duplex stream, nobody knows."""
    writer, _ = simplex(1)
    for layer in (writer, *(make(writer) for make in PLAIN)):
        assert layer.epilogue is Epilogue.NOTHING
    memory, _ = trio.testing.memory_stream_pair()
    assert wrap_stream(memory).epilogue is Epilogue.NOTHING
    assert wrap_stream(Over(memory)).epilogue is Epilogue.WITH_CLOSE


async def test_whether_the_peer_has_ended() -> None:
    """Known once all it sent was read."""
    left, right = duplex(10)
    reader, _ = split(right)
    assert reader.peer_ended is right.peer_ended is False
    await left.send_all(b"data")
    await left.send_eof()
    assert right.peer_ended is False
    assert await reader.receive_some() == b"data"
    assert reader.peer_ended is right.peer_ended is True

    writer, end = simplex(10)
    assert end.peer_ended is False
    await writer.aclose()
    assert end.peer_ended is True


async def test_a_wait_to_read_that_starts_late_does_not_miss_the_bytes() -> None:
    writer, reader = simplex(10)
    with pytest.raises(NotReady) as info:
        reader.poll_read(1)
    await writer.send_all(b"x")
    with trio.testing.assert_checkpoints():
        await info.value.wait()

    assert reader.poll_read(1) == b"x"


@pytest.mark.parametrize("make", PLAIN, ids=range(len(PLAIN)))
def test_a_shutdown_that_is_complete_may_be_polled_again(make: Any) -> None:
    layer: AsyncWrite = make(simplex(1)[0])
    for _ in range(2):
        layer.poll_shutdown()


@pytest.mark.parametrize("ours", [True, False], ids=["TcpStream", "SocketStream"])
@pytest.mark.parametrize("stapled", [True, False])
async def test_a_probe_looks_through_foreign_layers(*, ours: bool, stapled: bool) -> None:
    """So does a reset; the source to drain is the foreign stream itself."""
    async with connected(tcp_pair) as (stream, peer):
        number = stream.fileno()
        below: Any = stream if ours else trio.SocketStream(stream.socket)
        foreign: Any = Over(trio.StapledStream(below, below) if stapled else below)
        writer = wrap_stream(foreign, cancel_grace=0)
        assert writer.drain_source() is foreign
        if not ours:
            assert writer.descriptor == number
        assert writer.descriptor == below.descriptor if ours else True
        if ours:
            assert writer.unacknowledged_bytes == below.unacknowledged_bytes
        else:
            assert writer.unacknowledged_bytes in (0, None)
        writer.poll_write(b"lost")
        with pytest.warns(ResourceWarning, match="4 bytes"):
            await trio.aclose_forcefully(writer)
        assert stream.fileno() == -1
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_some()


async def test_a_stream_without_a_socket_has_nothing_to_probe() -> None:
    left, _ = trio.testing.memory_stream_one_way_pair()
    writer = wrap_stream(left)
    assert writer.descriptor is None
    assert writer.unacknowledged_bytes is None
    assert writer.drain_source() is None
    await writer.aclose()


async def test_halves_of_a_foreign_stream_read_it_too() -> None:
    """What was received and not read is in the way of joining them."""
    left, right = trio.testing.memory_stream_pair()
    reader, writer = split(left)
    await right.send_all(b"data")
    assert await reader.receive_some(2) == b"da"
    with pytest.raises(NotReady) as info:
        reader.poll_read(10)
    await info.value.wait()
    with pytest.raises(ValueError, match="2 bytes were received and not read"):
        reader.unsplit(writer)
    assert reader.poll_read(10) == b"ta"

    assert reader.unsplit(writer) is left


async def test_halves_of_a_socket_of_trios_read_by_our_stream() -> None:
    left, right = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(left))
    reader, writer = split(stream)
    assert isinstance(writer.inner, TcpStream)
    right.send(b"data")
    assert await reader.receive_some() == b"data"
    right.close()
    await reader.aclose()
    await writer.aclose()
    assert stream.socket.fileno() == -1


async def test_a_pair_asks_its_reader() -> None:
    far, reader = simplex(1)
    pair = ReadWritePair(reader, simplex(1)[0])
    assert pair.peer_ended is False
    await far.aclose()
    assert pair.peer_ended is True
