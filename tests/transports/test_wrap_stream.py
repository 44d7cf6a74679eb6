from __future__ import annotations

import gc
import os
import unittest.mock
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncRead,
    AsyncWrite,
    BufReader,
    BufWriter,
    PollEvented,
    ReadWritePair,
    Sink,
    TcpStream,
    close_all_gracefully,
    close_gracefully,
    duplex,
    split,
    wrap_stream,
)
from trio_asyncwrite._transports._send_stream import SendStreamWriter

from .._patience import wait_all_tasks_blocked
from .._streams import connected, drain, drain_while, tcp_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Minimal(AsyncWrite):
    """A hand-written writer."""

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)


@pytest.mark.parametrize(
    "make",
    [Sink, Minimal, lambda: BufWriter(Sink()), lambda: Sink().by_ref()],
    ids=["Sink", "hand-written", "BufWriter", "ByRef"],
)
def test_a_writer_is_returned_as_it_is(make: Callable[[], AsyncWrite]) -> None:
    writer = make()

    assert wrap_stream(writer) is writer
    assert wrap_stream(writer, cancel_grace=5) is writer


async def test_a_socket_stream_becomes_a_tcp_stream() -> None:
    left, right = (trio.SocketStream(sock) for sock in trio.socket.socketpair())
    writer = wrap_stream(left)

    assert type(writer) is TcpStream
    assert writer.socket is left.socket
    await writer.send_all(b"data")
    await writer.aclose()
    assert await drain(right) == b"data"
    await right.aclose()


async def test_an_fd_stream_becomes_a_poll_evented() -> None:
    reading, writing = (trio.lowlevel.FdStream(fd) for fd in os.pipe())
    writer = wrap_stream(writing)

    assert type(writer) is PollEvented
    assert writer.fileno() == writing.fileno()
    await writer.send_all(b"data")
    await writer.aclose()
    assert writing.fileno() == -1
    assert await drain(reading) == b"data"
    await reading.aclose()


async def test_any_other_stream_is_written_to_with_its_own_send_all() -> None:
    left, right = trio.testing.memory_stream_one_way_pair()
    writer = wrap_stream(left)

    assert type(writer) is SendStreamWriter
    assert await drain_while(right, writer.aclose) == b""


async def test_a_stapled_stream_is_an_other_stream() -> None:
    """Also when its halves are known: its own methods may do more than theirs."""
    async with connected(tcp_pair) as (stream, _):
        stapled = trio.StapledStream(stream, stream)

        assert type(wrap_stream(stapled)) is SendStreamWriter


@pytest.mark.parametrize("wrong", ["stream", None, 7, [], open, Sink])
@pytest.mark.parametrize("constructor", [wrap_stream, BufWriter])
def test_what_is_no_stream_is_refused(constructor: Callable[[Any], object], wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a trio\.abc\.SendStream, got \w+"):
        constructor(wrong)


async def test_a_stream_to_read_from_is_refused() -> None:
    _, reader = trio.testing.memory_stream_one_way_pair()
    with pytest.raises(TypeError, match="MemoryReceiveStream"):
        wrap_stream(reader)  # type: ignore[call-overload]


async def test_every_constructor_that_takes_a_writer_wraps_it() -> None:
    left, right = trio.testing.memory_stream_pair()

    assert type(BufWriter(left).inner) is SendStreamWriter
    assert type(ReadWritePair(right, left).inner) is SendStreamWriter
    assert type(split(left)[1].inner) is SendStreamWriter


class Foreign(trio.abc.SendStream):
    """One that cannot be hashed, and not be referred to weakly."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Delegating(trio.abc.Stream):
    """A wrapper as it is usually written: what it does not have, the stream below has."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.calls.append("send_all")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self.calls.append("receive_some")
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.calls.append("aclose")
        await self._stream.aclose()


class Disguised(Delegating):
    """One that also claims to be of the class of what it wraps."""

    @property
    def __class__(self) -> type:
        return type(self._stream)

    @__class__.setter
    def __class__(self, kind: type) -> None:
        raise AssertionError


@pytest.mark.parametrize("kind", [Delegating, Disguised])
@pytest.mark.parametrize("way", [BufWriter, split, lambda proxy: ReadWritePair(proxy, proxy)])
async def test_a_foreign_stream_that_delegates_to_one_of_ours_is_not_passed_over(
    kind: type[Delegating], way: Any
) -> None:
    ours, theirs = duplex(100)
    await theirs.send_all(b"hello")
    proxy = kind(ours)
    made = way(proxy)
    reader, writer = made if isinstance(made, tuple) else (made, made)
    expected = ["send_all", "aclose"]
    await writer.send_all(b"abc")
    if isinstance(reader, AsyncRead):
        assert await reader.receive_some() == b"hello"
        expected.insert(1, "receive_some")
        await reader.aclose()
    await writer.aclose()
    assert list(dict.fromkeys(proxy.calls)) == expected
    assert await theirs.receive_some() == b"abc"


@pytest.mark.parametrize("kind", [Delegating, Disguised])
async def test_a_foreign_stream_that_delegates_is_not_a_layer_to_pass_writes_on_to(
    kind: type[Delegating],
) -> None:
    class Wrapper(AsyncWrite):
        def __init__(self, stream: object) -> None:
            self.inner = stream

    for poll in ("flush", "write"):
        wrapper = Wrapper(kind(duplex(100)[0]))
        with pytest.raises(TypeError, match=f"it is a {kind.__name__}: use wrap_stream"):
            await (wrapper.flush() if poll == "flush" else wrapper.write(b"a"))


@pytest.mark.parametrize("make", [Foreign, trio.testing.MemorySendStream])
async def test_the_same_stream_has_one_writer_while_that_lives(make: Any) -> None:
    """So the bytes that wait in it are not passed over by a second one."""
    stream = make()
    writer = wrap_stream(stream)
    assert wrap_stream(stream) is writer
    assert BufWriter(stream).inner is writer
    assert wrap_stream(make()) is not writer
    await writer.aclose()
    other = wrap_stream(stream)
    assert other is not writer
    await trio.aclose_forcefully(other)


def test_a_living_writer_keeps_its_grace() -> None:
    """None is any for it, and one second for a new writer."""
    stream = Foreign()
    writer = wrap_stream(stream)
    assert isinstance(writer, SendStreamWriter)
    assert writer.cancel_grace == 1.0
    assert wrap_stream(stream, 1.0) is wrap_stream(stream, None) is writer
    with pytest.raises(ValueError, match="exists already, with another cancel_grace"):
        wrap_stream(stream, 2.0)
    del writer
    assert wrap_stream(stream, 2.0).cancel_grace == 2.0  # type: ignore[attr-defined]


def test_a_mock_of_a_writer_is_no_working_layer() -> None:
    with pytest.raises(TypeError, match="was not created by its class"):
        wrap_stream(unittest.mock.Mock(spec=AsyncWrite))


async def test_a_writer_that_goes_does_not_take_its_successor_along() -> None:
    """Once closed, a writer is replaced; when it is collected, the new one stays known."""
    stream = trio.testing.memory_stream_one_way_pair()[0]
    before = wrap_stream(stream)
    await before.aclose()
    writer = wrap_stream(stream)
    del before
    gc.collect()

    assert wrap_stream(stream) is writer
    await writer.aclose()


async def socket_stream() -> tuple[Any, Any]:
    left, right = await tcp_pair()
    return trio.SocketStream(left.socket), right


async def fd_stream() -> tuple[Any, Any]:
    reader, writer = os.pipe()
    return trio.lowlevel.FdStream(writer), PollEvented(trio.lowlevel.FdStream(reader))


async def foreign_stream() -> tuple[Any, Any]:
    left, right = trio.testing.lockstep_stream_pair()
    return left, right


FOREIGN_CLOSES: dict[str, Callable[[Any], Awaitable[object]]] = {
    "aclose": lambda stream: wrap_stream(stream).aclose(),
    "a new layer": lambda stream: BufWriter(stream).aclose(),
    "close_gracefully": close_gracefully,
    "close_all_gracefully": lambda stream: close_all_gracefully([stream]),
}


@pytest.mark.parametrize("close", FOREIGN_CLOSES.values(), ids=FOREIGN_CLOSES)
@pytest.mark.parametrize("make", [socket_stream, fd_stream, foreign_stream])
async def test_a_close_of_a_stream_joins_that_of_its_writer(
    make: Callable[[], Awaitable[tuple[Any, Any]]], close: Callable[[Any], Awaitable[object]]
) -> None:
    """Or it would close the stream under bytes that are still on their way."""
    stream, reader = await make()
    data = bytes(range(256)) * 4000
    writer = BufWriter(wrap_stream(stream), len(data) + 1)
    await writer.write_all(data)
    received: list[bytes] = []

    async def read() -> None:
        received.append(await drain(reader))
        await reader.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.aclose)
        await wait_all_tasks_blocked()
        nursery.start_soon(close, stream)
        await wait_all_tasks_blocked()
        nursery.start_soon(read)
    assert received == [data]
    assert writer.unsent_bytes == 0


async def test_a_stream_that_is_being_closed_gets_no_second_reader() -> None:
    stream, peer = trio.testing.lockstep_stream_pair()
    reader = BufReader(stream)
    await wrap_stream(stream).write(b"sent at the end")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.aclose)
        await wait_all_tasks_blocked()
        another = BufReader(stream)
        assert another.inner is reader.inner
        with pytest.raises(trio.ClosedResourceError):
            await another.receive_some()
        assert await drain(peer) == b"sent at the end"
    assert BufReader(stream).inner is not reader.inner


async def test_once_the_close_is_over_a_stream_gets_a_new_writer() -> None:
    stream, _peer = trio.testing.memory_stream_pair()
    writer = wrap_stream(stream)
    await writer.aclose()
    assert wrap_stream(stream) is not writer
