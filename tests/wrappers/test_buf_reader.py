"""What is read ahead: bounds, the end, failures, and what a search costs."""

from __future__ import annotations

import sys
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import (
    AsyncRead,
    BufReader,
    NotReady,
    ReadWritePair,
    close_gracefully,
    duplex,
    simplex,
)
from trio_asyncwrite._wrappers._read_buffer import end_of_first

from .._interrupts import interrupt_as_trio_would
from .._patience import wait_all_tasks_blocked
from ..core._fakes import Source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


READS: dict[str, Callable[[BufReader[Any]], Awaitable[object]]] = {
    "fill": lambda reader: reader.fill(),
    "receive_some": lambda reader: reader.receive_some(),
    "receive_exactly": lambda reader: reader.receive_exactly(1),
    "receive_until": lambda reader: reader.receive_until(b"\n", 9),
}
each_read = pytest.mark.parametrize("read", READS.values(), ids=READS)


# ---- What it gives out ---------------------------------------------------------------------------


async def test_filling_leaves_the_bytes_in_the_buffer() -> None:
    reader = BufReader(Source(b"ab", b"cd"))
    assert await reader.fill()
    assert reader.peek() == b"ab"
    assert await reader.fill(3)
    assert reader.peek() == b"abcd"
    assert (reader.remaining, reader.position) == (4, 0)

    reader.advance(3)
    assert (reader.peek(), reader.remaining, reader.position) == (b"d", 1, 3)
    assert await reader.fill(0)
    assert repr(reader) == "<BufReader over <Source>>"


@pytest.mark.parametrize("cut", range(8))
@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"c\r\n", b"\n\n"])
async def test_a_message_may_be_split_anywhere(cut: int, delimiter: bytes) -> None:
    """Tokio's read_until; h11: "\\r\\n" split over two reads is one end."""
    data = b"abc" + delimiter + b"\r\n"
    for chunks in ([data[:cut], data[cut:]], bytewise(data)):
        reader = BufReader(Source(*filter(None, chunks)))
        expected = data.partition(delimiter)
        assert await reader.receive_until(delimiter, 9) == expected[0] + delimiter
        assert await reader.receive_exactly(len(expected[2])) == expected[2]


async def test_a_delimiter_is_given_out_and_an_empty_message_is_no_end() -> None:
    """Tokio's read_until."""
    reader = BufReader(Source(b"\n\na", b"\n", b""))
    assert [await reader.receive_until(b"\n", 9) for _ in range(4)] == [b"\n", b"\n", b"a\n", b""]


@pytest.mark.parametrize("data", [b"\n\r\n", b"\n" * 40 + b"\r\n\r\n", b"\n" * 33 + b"a"])
async def test_the_last_byte_alone_is_no_delimiter(data: bytes) -> None:
    for chunks in ([data], bytewise(data)):
        reader = BufReader(Source(*chunks))
        expected, found, _ = data.partition(b"\r\n")
        if found:
            assert await reader.receive_until(b"\r\n", 99) == expected + found
        else:
            reader.inner.feed(b"")
            with pytest.raises(trio.BrokenResourceError, match="ended after 34 bytes without"):
                await reader.receive_until(b"\r\n", 99)


async def test_another_delimiter_is_looked_for_from_the_beginning() -> None:
    reader = BufReader(Source(b"a;b"))
    with trio.move_on_after(0) as scope:
        await reader.receive_until(b"\n", 9)
    assert scope.cancelled_caught
    assert await reader.receive_until(bytearray(b";"), 9) == b"a;"


async def test_a_message_that_comes_byte_by_byte_is_searched_once() -> None:
    """Tokio's next_index (LinesCodec): or the time is quadratic."""
    searched = 0

    class Counting(bytearray):
        def find(self, *args: Any) -> int:
            nonlocal searched
            found = super().find(*args)
            searched += (len(self) if found < 0 else found + 1) - args[1]
            return found

    data = bytes(1000) + b"\n"
    reader = BufReader(Source(*bytewise(data)))
    reader.buffer.data = Counting()
    assert await reader.receive_until(b"\n", 2000) == data
    assert searched == len(data)


@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"abc"])
def test_a_delimiter_is_found_wherever_it_begins(delimiter: bytes) -> None:
    """Near, far, and in between; the first of two; and not what only begins like it."""
    for at in (0, 1, 2, *range(120, 135), 1000):
        for before in (b"x" * at, (delimiter[1:] * at)[:at]):
            data = before + delimiter + b"yy" + delimiter
            expected = data.index(delimiter) + len(delimiter)
            for searched in (0, len(before) // 2, len(before)):
                assert end_of_first(delimiter, data, searched) == expected
            assert end_of_first(delimiter, data[: expected - 1], 0) == 0


async def test_what_another_protocol_has_read_too_much_is_read_first() -> None:
    """HTTP upgrade, STARTTLS."""
    reader = BufReader(Source(b"cd\n", b""))
    reader.unread(b"ab")
    assert (reader.position, reader.remaining) == (-2, 2)
    assert await reader.receive_until(b"\n", 9) == b"abcd\n"
    assert reader.position == 3
    assert await reader.receive_some() == b""
    reader.unread(memoryview(b"e\n"))
    assert await reader.receive_some(1) == b"e"
    assert await reader.receive_until(b"\n", 9) == b"\n"
    assert await reader.receive_some() == b""
    reader.unread(b"")
    assert await reader.receive_some() == b""


async def test_a_delimiter_that_was_put_back_is_found() -> None:
    reader = BufReader(Source(b"ab"))
    with trio.move_on_after(0):
        await reader.receive_until(b"\n", 9)
    reader.unread(b"c\n")
    assert await reader.receive_until(b"\n", 9) == b"c\n"


# ---- Bounds --------------------------------------------------------------------------------------


async def test_it_reads_ahead_no_more_than_its_capacity() -> None:
    reader = BufReader(Source(b"abcdef"), capacity=4)
    assert reader.capacity == 4
    assert await reader.receive_exactly(1) == b"a"
    assert reader.peek() == b"bcd"
    assert await reader.fill(3)
    assert reader.inner.sizes == [4]


async def test_or_as_much_as_one_call_asks_for() -> None:
    reader = BufReader(Source(b"abcdefgh"), capacity=2)
    assert await reader.fill(5)
    assert reader.peek() == b"abcde"
    assert await reader.receive_until(b"g", 7) == b"abcdefg"
    assert reader.peek() == b""


async def test_memory_grows_with_what_arrives_and_not_with_what_a_header_claims() -> None:
    """Tokio #3555."""
    reader = BufReader(Source(b"abc", b""))
    assert not await reader.fill(1 << 40)
    assert max(reader.inner.sizes) == reader.capacity
    assert reader.peek() == b"abc"


async def test_an_empty_reader_holds_no_memory() -> None:
    reader = BufReader(Source(bytes(60_000)))
    await reader.fill()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    reader.advance(60_000)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert reader.buffer.data.__alloc__() == 0
    assert after - before < 1000


async def test_the_end_is_the_end_however_little_is_wanted() -> None:
    assert await BufReader(Source(b"")).receive_some(1) == b""


async def test_a_large_part_is_taken_out_of_a_larger_one() -> None:
    data = bytes(i % 251 for i in range(20_000))
    reader = BufReader(Source(data))
    assert await reader.receive_exactly(15_000) == data[:15_000]
    assert reader.peek() == data[15_000:]


async def test_an_empty_reader_is_passed_when_as_much_is_wanted_as_it_may_hold() -> None:
    """Tokio's BufReader::poll_read."""
    reader = BufReader(Source(b"abcdef", b""), capacity=4)
    assert await reader.receive_some(5) == b"abcde"
    assert (reader.inner.sizes, reader.position) == ([5], 5)
    assert await reader.receive_some(3) == b"f"
    assert reader.inner.sizes == [5, 4]
    assert [await reader.receive_some(size) for size in (4, 4, 1)] == [b"", b"", b""]


@pytest.mark.parametrize("max_bytes", [3, 4, 5])
@pytest.mark.parametrize("delimiter", [b"\n", b"d\n"])
async def test_a_message_has_at_most_max_bytes(max_bytes: int, delimiter: bytes) -> None:
    """asyncio's LimitOverrunError: the bytes stay."""
    for chunks in ([b"abd\nefg"], bytewise(b"abd\nefg")):
        reader = BufReader(Source(*chunks))
        if max_bytes >= 4:
            assert await reader.receive_until(delimiter, max_bytes) == b"abd\n"
            continue
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="in 3 bytes, as many as max_bytes"):
                await reader.receive_until(delimiter, max_bytes)
        assert await reader.receive_exactly(7) == b"abd\nefg"


async def test_a_source_that_is_always_ready_lets_others_run() -> None:
    reader = BufReader(Source(*bytewise(bytes(100) + b"\n")))
    with pytest.raises(NotReady):
        reader.poll_fill(101)
    assert reader.remaining == 16
    assert await reader.fill(32)
    assert await reader.receive_until(b"\n", 200) == bytes(100) + b"\n"


async def test_reading_from_the_buffer_overlooks_no_cancellation_for_long() -> None:
    reader = BufReader(Source(b"\n" * 1000))
    await reader.fill()
    count = 0
    with trio.CancelScope() as scope:
        scope.cancel()
        while True:
            await reader.receive_until(b"\n", 1)
            count += 1
    assert count <= 128
    assert reader.position == count


@pytest.mark.parametrize(
    "take",
    [lambda r: r.receive_until(b"\r\n", 100), lambda r: r.receive_exactly(6)],
    ids=["receive_until", "receive_exactly"],
)
def test_a_short_message_in_the_buffer_goes_a_short_way(take: Any) -> None:
    """Six frames of the library at most, and no wait; it takes about two microseconds."""
    names: list[str] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_globals["__name__"].startswith("trio_asyncwrite."):
            names.append(frame.f_code.co_name)

    async def main() -> None:
        reader = BufReader(Source(b"line\r\n" * 10))
        await take(reader)  # the first one looks for the budget of the run
        sys.setprofile(profile)
        try:
            await take(reader)
        finally:
            sys.setprofile(None)
        assert reader.position == 12

    trio.run(main)
    assert len(names) <= 6, names


@each_read
def test_ctrl_c_does_not_fall_between_the_bytes_and_the_position(read: Any) -> None:
    """Where Trio lets it through, nothing is consumed that the caller does not get."""
    data = b"abc\n" * 4

    def call() -> None:
        given = bytearray()
        source: Any = Source(data)
        reader = BufReader(source)

        async def main() -> None:
            await reader.fill()
            while reader.remaining > 4:
                before = reader.position
                found = await read(reader)
                given.extend(found if isinstance(found, bytes) else b"")
                if reader.position == before:
                    break

        try:
            trio.run(main)
        finally:
            assert bytes(given) + reader.peek() + b"".join(source.chunks) == data
            assert reader.position == len(given)

    interrupt_as_trio_would(call, ["_wrappers/_buf_reader.py", "_wrappers/_read_buffer.py"])


# ---- The end, and failures -----------------------------------------------------------------------


async def test_the_end_where_bytes_were_promised_is_broken_and_they_stay() -> None:
    """Tokio's UnexpectedEof; here nothing is consumed."""
    reader = BufReader(Source(b"abc", b"", b"never"))
    with pytest.raises(trio.BrokenResourceError, match="has ended after 3 of 4 bytes"):
        await reader.receive_exactly(4)
    with pytest.raises(trio.BrokenResourceError, match=r"after 3 bytes without b'\\n'"):
        await reader.receive_until(b"\n", 9)
    assert not await reader.fill(4)
    assert await reader.fill(3)
    assert await reader.receive_some() == b"abc"
    assert await reader.receive_until(b"\n", 9) == b""
    assert await reader.receive_exactly(0) == b""
    assert not await reader.fill()
    assert await reader.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError, match="has ended after 0 of 1 byte"):
        await reader.receive_exactly(1)


async def test_what_came_before_a_failure_can_be_read() -> None:
    """Tokio's poll_copy dropped it."""
    reader = BufReader(Source(b"abc", OSError("odd"), b"never"))
    for wait in (reader.receive_exactly(4), reader.receive_until(b"\n", 9), reader.fill(4)):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await wait
        assert isinstance(caught.value.__cause__, OSError)
    assert await reader.receive_some() == b"abc"
    for read in READS.values():
        with pytest.raises(trio.BrokenResourceError):
            await read(reader)
    reader.unread(b"d")
    assert await reader.receive_some() == b"d"
    with pytest.raises(trio.BrokenResourceError):
        await reader.receive_some()


async def test_a_mistake_of_the_reader_below_passes_through() -> None:
    reader = BufReader(Source(ZeroDivisionError("odd"), b"never"))
    with pytest.raises(ZeroDivisionError):
        await reader.receive_exactly(1)
    with pytest.raises(trio.BrokenResourceError):
        await reader.receive_exactly(1)


# ---- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["text", None, 1.5, b"1"])
async def test_a_count_is_an_integer(wrong: Any) -> None:
    reader = BufReader(Source(b"abc"))
    for call in (reader.advance, reader.poll_fill):
        with pytest.raises(TypeError, match="count must be an integer"):
            call(wrong)
    with pytest.raises(TypeError, match="count"):
        await reader.fill(wrong)
    with pytest.raises(TypeError, match="size"):
        await reader.receive_exactly(wrong)
    with pytest.raises(TypeError, match="max_bytes"):
        await reader.receive_until(b"\n", wrong)
    with pytest.raises(TypeError, match="capacity"):
        BufReader(Source(), wrong)
    assert await reader.receive_some() == b"abc"


async def test_a_count_is_within_its_bounds() -> None:
    reader = BufReader(Source(b"abc"))
    await reader.fill()
    with pytest.raises(ValueError, match="cannot consume 4 bytes: 3 are in the buffer"):
        reader.advance(4)
    for call in (reader.advance, reader.poll_fill):
        with pytest.raises(ValueError, match="at least 0, got -1"):
            call(-1)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        await reader.fill(-1)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        await reader.receive_exactly(-1)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        await reader.receive_until(b"\r\n", 1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        BufReader(Source(), 0)
    assert await reader.receive_some() == b"abc"


@pytest.mark.parametrize("wrong", ["text", None, 7, [b"a"], memoryview(b"abcd")[::2]])
async def test_bytes_are_bytes_like(wrong: Any) -> None:
    reader = BufReader(Source(b"abc"))
    with pytest.raises((TypeError, BufferError), match="bytes-like"):
        await reader.receive_until(wrong, 9)
    with pytest.raises((TypeError, BufferError), match="bytes-like"):
        reader.unread(wrong)
    with pytest.raises(ValueError, match="at least one byte"):
        await reader.receive_until(b"", 9)
    assert await reader.receive_some() == b"abc"


@pytest.mark.parametrize("wrong", ["text", None, 7, trio.testing.MemorySendStream()])
def test_it_reads_from_a_stream(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a trio\.abc\.ReceiveStream, got"):
        BufReader(wrong)


# ---- Two tasks, and a close ----------------------------------------------------------------------


@each_read
async def test_a_second_task_is_refused_and_the_first_goes_on(read: Any) -> None:
    reader = BufReader(Source())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, reader)
        await wait_all_tasks_blocked()
        for other in READS.values():
            with pytest.raises(trio.BusyResourceError):
                await other(reader)
        with pytest.raises(trio.BusyResourceError):
            reader.advance(0)
        with pytest.raises(trio.BusyResourceError):
            reader.unread(b"abc")
        assert reader.peek() == b""
        reader.inner.feed(b"a\n")


@each_read
async def test_a_close_of_either_ends_a_call_and_refuses_the_next(read: Any) -> None:
    for at in (0, 1):
        reader = BufReader(Source())
        closing: AsyncRead = (reader, reader.inner)[at]
        outcomes = []

        async def run(reader: BufReader[Any] = reader, outcomes: list[str] = outcomes) -> None:
            try:
                await read(reader)
            except trio.ClosedResourceError as exc:
                outcomes.append(type(exc).__name__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            await closing.aclose()
        assert outcomes == ["ClosedResourceError"]
        for other in READS.values():
            with pytest.raises(trio.ClosedResourceError):
                await other(reader)
        for call in (partial(reader.advance, 0), partial(reader.unread, b"a"), reader.poll_fill):
            with pytest.raises(trio.ClosedResourceError):
                call()


async def test_after_a_close_it_shows_what_nobody_has_read() -> None:
    reader = BufReader(Source(b"abc"))
    await reader.fill()
    await reader.aclose()
    assert reader.peek() == b"abc"


async def test_whoever_closes_it_from_above_may_drain_it() -> None:
    rest = []

    class Above(AsyncRead):
        def __init__(self, inner: AsyncRead) -> None:
            self.inner = inner

        async def release(self, *, clean: bool) -> None:
            rest.append(await self.inner.receive_until(b"\n", 9))  # type: ignore[attr-defined]
            rest.append(await self.inner.receive_some())

    await Above(BufReader(Source(b"a\nb"))).aclose()
    assert rest == [b"a\n", b"b"]


async def test_it_is_as_good_a_stream_as_the_one_below() -> None:
    left, right = duplex(10)
    reader = BufReader(left, 4)
    assert reader.drain_source() is reader
    assert reader.peer_ended is False
    await right.send_all(b"ab")
    await right.send_eof()
    assert await reader.receive_some() == b"ab"
    assert await reader.receive_some() == b""
    assert reader.peer_ended is True
    await reader.aclose()
    assert left.closed
    await right.aclose()


@pytest.mark.parametrize("closes", ["the stream below", "a pair above"])
async def test_a_report_counts_what_nobody_has_read_of_its_buffer(closes: str) -> None:
    left, right = duplex(100)
    reader = BufReader(left)
    await right.send_all(b"abcdef")
    assert await reader.fill(6)
    assert await reader.receive_exactly(2) == b"ab"
    await right.send_all(b"gh")
    await right.send_eof()
    report = await close_gracefully(
        left if closes == "the stream below" else ReadWritePair(reader, left)
    )
    assert report.discarded_bytes == len(b"cdef") + len(b"gh")
    await right.aclose()


async def test_what_is_left_to_somebody_else_is_not_drained() -> None:
    class Borrowed(Source):
        def drain_source(self) -> trio.abc.ReceiveStream | None:
            return None

    assert BufReader(Borrowed()).drain_source() is None


async def test_polling_it_is_reading_from_it() -> None:
    writer, below = simplex(10)
    reader = BufReader(below, 4)
    with pytest.raises(NotReady):
        reader.poll_fill()
    with pytest.raises(NotReady):
        reader.poll_read(1)
    await writer.send_all(b"abcdef")
    buffer = bytearray(3)
    assert reader.poll_read_into(buffer) == 3
    assert buffer == b"abc"
    assert reader.poll_fill(2)
    assert reader.peek() == b"def"
    await reader.aclose()
    await trio.aclose_forcefully(writer)
