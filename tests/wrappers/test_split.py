from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufWriter,
    NotReady,
    ReadHalf,
    ReadWritePair,
    Sink,
    TcpStream,
    WriteHalf,
    split,
    wrap_stream,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._patience import wait_all_tasks_blocked
from .._streams import clog, clogged, connected, drain, drain_while, tcp_pair, unix_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Pair = tuple[TcpStream, TcpStream]


@pytest.fixture
async def tcp() -> AsyncIterator[Pair]:
    async with connected(tcp_pair) as ends:
        yield ends


async def down() -> tuple[WriteHalf[TcpStream], ReadHalf[TcpStream]]:
    """One way through two split streams; the other two halves are closed."""
    left, right = await tcp_pair()
    left_reader, left_writer = split(left)
    right_reader, right_writer = split(right)
    await left_reader.aclose()
    await right_writer.aclose()
    return left_writer, right_reader


async def buffered() -> tuple[WriteHalf[Any], TcpStream]:
    left, right = await unix_pair()
    reader, writer = split(ReadWritePair(left, BufWriter(left, 64)))
    await reader.aclose()
    return writer, right


# ---- Trio's contract, and ours ---------------------------------------------------------------


@pytest.mark.outer
@pytest.mark.parametrize("maker", [down, buffered])
# Both checkers also close what has unsent bytes.
@pytest.mark.filterwarnings("ignore:.*were never sent:ResourceWarning")
async def test_it_keeps_the_contract(
    maker: Callable[[], Awaitable[tuple[WriteHalf[Any], trio.abc.ReceiveStream]]],
) -> None:
    await trio.testing.check_one_way_stream(maker, clogged(maker))
    await check_async_write(maker, clogged(maker))


async def test_no_cancellation_loses_a_byte() -> None:
    """Of one half, while the other one is at work in another task."""
    data = bytes(range(200))

    async def scenario(sweep: Sweep) -> None:
        async with connected(unix_pair) as (stream, peer):
            reader, writer = split(ReadWritePair(stream, BufWriter(stream, 16)))
            buf = Buf(data[:50], data[50:])
            received = []

            async def receive() -> None:
                received.append(await drain(reader))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                with sweep:
                    await writer.write_all_buf(buf)
                    await writer.aclose()
                if sweep.cancelled and not writer.closed:
                    await writer.write_all_buf(buf)
                    await writer.aclose()
                await peer.send_all(b"answer")
                await peer.send_eof()
            assert received == [b"answer"]
            # A cancelled close of one half sends no end-of-file, the close of the second one does.
            await reader.aclose()
            assert await drain(peer) == data[: len(data) - buf.remaining]

    assert await cancel_everywhere(scenario) > 3


# ---- What it is made of ----------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["stream", None, 7, [], object])
def test_only_streams_are_split(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a trio\.abc\.Stream, got \w+"):
        split(wrong)


async def test_a_one_way_stream_is_not_split(tcp: Pair) -> None:
    with pytest.raises(TypeError, match="BufWriter"):
        split(BufWriter(tcp[0]))  # type: ignore[type-var]
    _, reader = trio.testing.memory_stream_one_way_pair()
    with pytest.raises(TypeError, match="MemoryReceiveStream"):
        split(reader)  # type: ignore[type-var]


async def test_the_halves_name_their_stream(tcp: Pair) -> None:
    stream, _ = tcp
    reader, writer = split(stream)
    assert writer.inner is stream
    assert repr(reader) == f"<ReadHalf of {stream!r}>"
    assert repr(writer) == f"<WriteHalf of {stream!r}>"
    await reader.aclose()

    assert repr(reader) == "<ReadHalf, closed>"


async def test_two_tasks_use_the_halves_at_once(tcp: Pair) -> None:
    stream, peer = tcp
    reader, writer = split(stream)
    data = bytes(range(256)) * 4000

    async def echo() -> None:
        async for chunk in peer:
            await peer.send_all(chunk)
        await peer.send_eof()

    async def send() -> None:
        await writer.write_all_vectored([data[:1000], data[1000:]])
        await writer.shutdown()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        assert await drain_while(reader, send) == data


async def test_two_tasks_in_one_half(tcp: Pair) -> None:
    reader, writer = split(tcp[0])
    clog(writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.receive_some)
        nursery.start_soon(writer.write_all, b"x")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await reader.receive_some()
        with pytest.raises(trio.BusyResourceError):
            await writer.write_all(b"x")
        nursery.cancel_scope.cancel()


async def test_nothing_sneaks_into_the_buffer_of_an_ended_half(tcp: Pair) -> None:
    stream, peer = tcp
    _, writer = split(ReadWritePair(stream, BufWriter(stream, 64)))
    assert writer.spare_capacity == 64
    assert await writer.write(b"data") == 4
    assert writer.spare_capacity == 60
    await writer.shutdown()
    for _ in range(2):
        assert not writer.lifecycle.fast.left
        with pytest.raises(trio.ClosedResourceError):
            await writer.write(b"x")
        with pytest.raises(trio.ClosedResourceError):
            writer.poll_write(b"x")
        with pytest.raises(trio.ClosedResourceError):
            writer.poll_write_vectored([b"x", b"y"])

    assert await drain(peer) == b"data"


async def test_a_failure_below_is_the_halfs_own(tcp: Pair) -> None:
    stream, peer = tcp
    _, writer = split(stream)
    await peer.aclose()
    with pytest.raises(trio.BrokenResourceError):
        while True:
            writer.poll_write_vectored([b"x", b"y"])

    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match=r"<WriteHalf.*failed before"):
            await writer.write(b"x")
    await writer.aclose()


# ---- Closing ---------------------------------------------------------------------------------


async def test_the_stream_is_closed_with_the_second_half_read_first(tcp: Pair) -> None:
    stream, peer = tcp
    reader, writer = split(stream)
    await reader.aclose()
    await reader.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await reader.receive_some()
    await writer.send_all(b"still open")
    assert await peer.receive_some() == b"still open"
    assert stream.fileno() >= 0
    await writer.aclose()
    assert stream.fileno() == -1

    assert await drain(peer) == b""


async def test_the_stream_is_closed_with_the_second_half_write_first(tcp: Pair) -> None:
    """Closing the half that writes half-closes the stream."""
    stream, peer = tcp
    reader, writer = split(stream)
    await writer.write_all(b"question")
    await writer.aclose()
    await writer.aclose()
    assert await drain(peer) == b"question"
    assert stream.fileno() >= 0
    await peer.send_all(b"answer")
    await peer.send_eof()
    assert await drain(reader) == b"answer"
    await reader.aclose()

    assert stream.fileno() == -1


async def test_closing_the_read_half_wakes_its_task_only(tcp: Pair) -> None:
    stream, peer = tcp
    reader, writer = split(stream)
    count = clog(writer)

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive_some()

    async def write() -> None:
        await writer.write_all(b"unharmed")
        await writer.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        await reader.aclose()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        assert await drain(peer) == bytes(count) + b"unharmed"


async def test_closing_the_write_half_wakes_its_task_only(tcp: Pair) -> None:
    stream, peer = tcp
    reader, writer = split(stream)
    clog(writer)

    async def receive() -> None:
        assert await reader.receive_some() == b"unharmed"

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.write_all(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        await writer.aclose()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        await peer.send_all(b"unharmed")


@pytest.mark.parametrize("write_first", [True, False])
async def test_an_unclean_close_resets_with_the_second_half(
    tcp: Pair, *, write_first: bool
) -> None:
    stream, peer = tcp
    buffered = ReadWritePair(stream, BufWriter(stream, 64))
    reader, writer = split(buffered)
    clog(writer)
    if not write_first:
        await reader.aclose()
    if write_first:
        await trio.aclose_forcefully(writer)
        assert stream.fileno() >= 0
        with pytest.raises(trio.BrokenResourceError, match="torn: its write half was closed"):
            await buffered.write_all(b"x")
    close = reader.aclose if write_first else partial(trio.aclose_forcefully, writer)
    with pytest.warns(ResourceWarning, match="64 bytes"):
        await close()

    assert stream.fileno() == -1
    with pytest.raises(trio.BrokenResourceError):
        await drain(peer)


async def test_a_cancelled_close_still_closes(tcp: Pair) -> None:
    stream, peer = tcp
    reader, writer = split(stream)
    await trio.aclose_forcefully(writer)
    await trio.aclose_forcefully(reader)

    assert stream.fileno() == -1
    assert await drain(peer) == b""


class Unclosable(trio.abc.HalfCloseableStream):
    """A foreign stream whose close fails."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise AssertionError

    async def send_eof(self) -> None:
        self.log.append("send_eof")

    async def aclose(self) -> None:
        self.log.append("aclose")
        raise OSError("cannot")


async def test_a_stream_that_cannot_be_released_is_told_of_by_the_second_half() -> None:
    stream = Unclosable()
    reader, writer = split(stream)
    await writer.aclose()
    assert stream.log == ["send_eof"]
    with pytest.raises(trio.BrokenResourceError, match="cannot"):
        await reader.aclose()

    assert stream.log == ["send_eof", "aclose"]
    assert reader.closed
    assert wrap_stream(stream).closed is False  # a new one: the old one has been closed


async def test_a_half_that_was_dropped_counts_as_closed(tcp: Pair) -> None:
    """The stream is closed with the one that is left, whichever that is."""
    for stream, other, write_first in zip(tcp, tcp[::-1], (True, False), strict=True):
        if stream.closed:
            continue
        reader, writer = split(stream)
        if write_first:
            del reader
            await writer.send_all(b"data")
            await writer.aclose()
            assert await drain(other) == b"data"
        else:
            del writer
            await reader.aclose()
        assert stream.closed


async def test_a_dropped_write_half_leaves_what_was_written(tcp: Pair) -> None:
    """It stays in the buffer below, and the close of the read half flushes it."""
    stream, peer = tcp
    reader, writer = split(ReadWritePair(stream, BufWriter(stream)))
    await writer.write_all(b"buffered")
    del writer
    await reader.aclose()

    assert await drain(peer) == b"buffered"


async def test_a_torn_write_half_tears_the_whole(tcp: Pair) -> None:
    """It is reset when both are closed; until then the read half goes on."""
    stream, peer = tcp
    reader, writer = split(stream)
    clog(writer)
    with trio.move_on_after(0):
        await writer.write_all(bytes(1000))  # not a byte of it: not torn
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all, bytes(10_000_000))
        await peer.receive_some()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for layer in (writer, stream):
        with pytest.raises(trio.BrokenResourceError, match="torn"):
            await layer.write_all(b"x")
    with pytest.warns(ResourceWarning, match="of a message were accepted"):
        await writer.aclose()
    await peer.send_all(b"answer")
    assert await reader.receive_some() == b"answer"
    assert stream.fileno() >= 0
    with pytest.warns(ResourceWarning):
        await reader.aclose()

    assert stream.fileno() == -1
    with pytest.raises(trio.BrokenResourceError):
        await drain(peer)


# ---- Joining again ---------------------------------------------------------------------------


async def test_joined_halves_give_the_stream_back(tcp: Pair) -> None:
    stream, peer = tcp
    reader, writer = split(stream)
    await writer.send_all(b"by the half,")

    assert reader.unsplit(writer) is stream
    with pytest.raises(trio.ClosedResourceError):
        await reader.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"x")
    with pytest.raises(trio.ClosedResourceError):
        writer.poll_write(b"x")
    with pytest.raises(trio.ClosedResourceError):
        writer.poll_write_vectored([b"x", b"y"])
    await reader.aclose()
    await writer.aclose()
    await stream.send_all(b" by the whole")
    await stream.send_eof()
    assert await drain(peer) == b"by the half, by the whole"


async def test_halves_of_different_streams_are_refused(tcp: Pair) -> None:
    """And both pairs stay usable."""
    left, right = tcp
    left_reader, left_writer = split(left)
    right_reader, right_writer = split(right)
    with pytest.raises(ValueError, match="different streams"):
        left_reader.unsplit(right_writer)
    with pytest.raises(ValueError, match="different streams"):
        right_reader.unsplit(left_writer)
    await left_writer.send_all(b"there")
    assert await right_reader.receive_some() == b"there"
    await right_writer.send_all(b"and back")
    assert await left_reader.receive_some() == b"and back"

    assert left_reader.unsplit(left_writer) is left
    assert right_reader.unsplit(right_writer) is right


async def test_halves_of_the_same_stream_split_twice_are_refused(tcp: Pair) -> None:
    first, _ = split(tcp[0])
    _, second = split(tcp[0])
    with pytest.raises(ValueError, match="different streams"):
        first.unsplit(second)


@pytest.mark.parametrize("wrong", ["half", None, 7])
async def test_what_is_no_half_is_refused(tcp: Pair, wrong: Any) -> None:
    reader, writer = split(tcp[0])
    with pytest.raises(TypeError, match="expected a WriteHalf"):
        reader.unsplit(wrong)

    assert reader.unsplit(writer) is tcp[0]


async def test_closed_or_joined_halves_are_refused(tcp: Pair) -> None:
    reader, writer = split(tcp[0])
    reader.unsplit(writer)
    with pytest.raises(trio.ClosedResourceError):
        reader.unsplit(writer)
    reader, writer = split(tcp[0])
    await reader.aclose()
    with pytest.raises(trio.ClosedResourceError):
        reader.unsplit(writer)
    reader, writer = split(tcp[1])
    await writer.aclose()
    with pytest.raises(trio.ClosedResourceError):
        reader.unsplit(writer)


async def test_halves_in_use_are_refused(tcp: Pair) -> None:
    stream, peer = tcp
    reader, writer = split(stream)
    count = clog(writer)

    async def receive() -> None:
        assert await reader.receive_some() == b"unharmed"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            reader.unsplit(writer)
        await peer.send_all(b"unharmed")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all, b"unharmed")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            reader.unsplit(writer)
        received = bytearray()
        while len(received) < count + 8:
            received += await peer.receive_some()

    assert received == bytes(count) + b"unharmed"
    assert reader.unsplit(writer) is stream


async def test_a_half_that_is_being_closed_is_refused(tcp: Pair) -> None:
    stream, peer = tcp
    reader, writer = split(ReadWritePair(stream, BufWriter(stream, 64)))
    count = clog(writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.aclose)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            reader.unsplit(writer)

        assert await drain(peer) == bytes(count)


async def test_unsent_bytes_that_the_stream_knows_nothing_of_are_refused() -> None:
    """They wait in the writer that was made for the half."""
    left, right = trio.testing.memory_stream_pair()
    reader, writer = split(left)
    await writer.write(b"waiting")
    with pytest.raises(ValueError, match="7 bytes are unsent"):
        reader.unsplit(writer)
    await writer.flush()

    assert reader.unsplit(writer) is left
    assert await right.receive_some() == b"waiting"


async def test_unsent_bytes_of_the_streams_own_stay_in_it(tcp: Pair) -> None:
    stream, peer = tcp
    pair = ReadWritePair(stream, BufWriter(stream, 64))
    reader, writer = split(pair)
    await writer.write(b"waiting")

    assert reader.unsplit(writer) is pair
    assert pair.unsent_bytes == 7
    await pair.flush()
    assert await peer.receive_some() == b"waiting"


async def test_a_stream_of_trios_is_given_back_as_it_was(tcp: Pair) -> None:
    plain = trio.SocketStream(tcp[0].socket)
    reader, writer = split(plain)
    assert isinstance(writer.inner, TcpStream)
    await writer.send_all(b"data")

    assert reader.unsplit(writer) is plain
    await plain.send_all(b" and more")
    await plain.send_eof()
    assert await drain(tcp[1]) == b"data and more"


@pytest.mark.parametrize("trios", [False, True])
async def test_bytes_held_above_a_half_are_refused(tcp: Pair, *, trios: bool) -> None:
    """A join would close the layer that holds them; and it changes nothing."""
    stream = trio.SocketStream(tcp[0].socket) if trios else tcp[0]
    reader, writer = split(stream)
    held = BufWriter(writer)
    await held.write_all(b"precious")
    with pytest.raises(ValueError, match="holds 8 unsent bytes: flush it before you join"):
        reader.unsplit(writer)
    await held.flush()

    assert reader.unsplit(writer) is stream
    with pytest.raises(trio.ClosedResourceError):
        await held.write(b"x")
    await stream.send_eof()
    assert await drain(tcp[1]) == b"precious"


async def test_a_message_under_way_above_a_half_is_refused(tcp: Pair) -> None:
    stream, peer = tcp
    reader, writer = split(stream)
    above = writer.by_ref()
    count = clog(writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ReadWritePair(reader, writer).write_all, b"unharmed")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="is writing a message"):
            reader.unsplit(writer)
        received = bytearray()
        while len(received) < count + 8:
            received += await peer.receive_some()

    assert received == bytes(count) + b"unharmed"
    assert reader.unsplit(writer) is stream
    assert above.closed


@pytest.mark.parametrize("above", [False, True])
async def test_an_unfinished_buf_is_refused(tcp: Pair, *, above: bool) -> None:
    """The stream knows nothing of it, and would end as if it were complete."""
    stream, peer = tcp
    reader, half = split(stream)
    writer = ReadWritePair(reader, half) if above else half
    buf = Buf(bytes(10_000_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all_buf, buf)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        reader.unsplit(half)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, peer)
        await writer.write_all_buf(buf)
        assert reader.unsplit(half) is stream
        await stream.send_eof()


class Awaited(Sink, trio.abc.Stream):
    """A writer of this library's kind that is a foreign reader."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return b"abc"


async def test_bytes_that_a_half_has_received_and_not_given_out_are_refused() -> None:
    stream = Awaited()
    reader, writer = split(stream)
    with pytest.raises(NotReady) as info:
        reader.poll_read(2)
    await info.value.wait()
    with pytest.raises(ValueError, match="3 bytes were received and not read"):
        reader.unsplit(writer)
    assert await reader.receive_some() == b"abc"
    assert reader.unsplit(writer) is stream
