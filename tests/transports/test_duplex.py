"""In-memory streams: bounded, half-closeable, and honest about how they end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis
import hypothesis.strategies as st
import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite._core._async_write import AsyncReadWrite, AsyncWrite
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._transports._duplex import duplex, simplex
from trio_asyncwrite._wrappers._buf_writer import BufWriter
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._patience import wait_all_tasks_blocked
from .._streams import clog, drain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

W = TypeVar("W", bound=AsyncWrite)
R = TypeVar("R", bound=trio.abc.ReceiveStream)

CAPACITIES = [1, 7, 4096]

#: The two ends of each kind of pipe; the first one writes.
PAIRS: dict[str, Callable[[int], tuple[AsyncWrite, trio.abc.ReceiveStream]]] = {
    "duplex": duplex,
    "simplex": simplex,
}

capacities = pytest.mark.parametrize("capacity", CAPACITIES)
both_kinds = pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)


async def is_blocked(afn: Callable[..., Any], *args: object) -> bool:
    """Whether a call waits when all is quiet; it is cancelled then."""
    done = False

    async def call() -> None:
        nonlocal done
        await afn(*args)
        done = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return not done


# ---- Trio's own contract -------------------------------------------------------------------


def makers(
    make: Callable[[int], tuple[W, R]], capacity: int, *, both_ways: bool = True
) -> tuple[Callable[[], Awaitable[tuple[W, R]]], Callable[[], Awaitable[tuple[W, R]]]]:
    """What the checkers take: makers of pairs, and of pairs that are full."""

    async def make_pair() -> tuple[W, R]:
        return make(capacity)

    async def make_clogged() -> tuple[W, R]:
        pair = make(capacity)
        for end in pair if both_ways else pair[:1]:
            if isinstance(end, AsyncWrite):
                clog(end)
        return pair

    return make_pair, make_clogged


@pytest.mark.parametrize("capacity", [512, 65536])  # it sends 1 MiB
async def test_duplex_passes_trios_checks(capacity: int, autojump_clock: MockClock) -> None:
    await trio.testing.check_half_closeable_stream(*makers(duplex, capacity))


@both_kinds
@capacities
async def test_each_direction_passes_trios_checks(
    make: Any, capacity: int, autojump_clock: MockClock
) -> None:
    await trio.testing.check_one_way_stream(*makers(make, capacity))


@pytest.mark.outer
@both_kinds
@pytest.mark.parametrize("capacity", [7, 4096])  # it sends 128 KiB
async def test_each_direction_keeps_the_contract(
    make: Any, capacity: int, autojump_clock: MockClock
) -> None:
    # One that is closed with input unread is reset, and its reader does not see a clean end.
    await check_async_write(*makers(make, capacity, both_ways=False))


# ---- The bound -----------------------------------------------------------------------------


@both_kinds
@capacities
async def test_a_pipe_holds_exactly_its_capacity(make: Any, capacity: int) -> None:
    writer, reader = make(capacity)
    assert writer.poll_write(bytes(capacity + 1)) == capacity
    with pytest.raises(NotReady):
        writer.poll_write(b"x")
    with pytest.raises(NotReady):
        writer.poll_write_vectored([b"", b"x"])
    assert writer.poll_write(b"") == 0
    assert await reader.receive_some(1) == b"\0"
    assert writer.poll_write(b"xy") == 1
    with pytest.raises(NotReady):
        writer.poll_write(b"y")


async def test_the_directions_are_bounded_apart() -> None:
    left, right = duplex(3)
    assert left.poll_write(b"abcdef") == right.poll_write(b"ABCDEF") == 3
    assert await right.receive_some() == b"abc"
    assert await left.receive_some() == b"ABC"


@both_kinds
async def test_several_buffers_are_gathered_up_to_the_capacity(make: Any) -> None:
    writer, reader = make(6)
    assert writer.poll_write_vectored([b"ab", b"", bytearray(b"cd"), memoryview(b"efgh")]) == 6
    assert await reader.receive_some() == b"abcdef"
    assert writer.poll_write_vectored([b"", b""]) == 0
    assert writer.poll_write_vectored([]) == 0


@both_kinds
async def test_a_writer_waits_for_the_reader_and_no_longer(make: Any) -> None:
    writer, reader = make(4)
    await writer.send_all(b"abcd")
    assert await is_blocked(writer.write, b"e")
    assert await is_blocked(writer.wait_send_all_might_not_block)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send_all, b"efghij")
        assert await reader.receive_some(3) == b"abc"
        await wait_all_tasks_blocked()
        assert await reader.receive_some() == b"defg"
        await wait_all_tasks_blocked()
        assert await reader.receive_some() == b"hij"
    assert not await is_blocked(writer.wait_send_all_might_not_block)


@both_kinds
async def test_what_the_pipe_has_taken_is_sent(make: Any) -> None:
    writer, _reader = make(4)
    await writer.write(b"abcd")
    assert writer.unsent_bytes == 0
    await writer.flush()


@both_kinds
async def test_data_is_not_kept(make: Any) -> None:
    data = bytearray(b"abc")
    writer, reader = make(3)
    await writer.write_all(data)
    with pytest.raises(NotReady):
        writer.poll_write(data)
    data.clear()
    assert await reader.receive_some() == b"abc"


@both_kinds
async def test_many_megabytes_pass_through_a_small_pipe(make: Any) -> None:
    data = random.Random(0).randbytes(5_000_000)
    writer, reader = make(65536)
    received = bytearray()

    async def receive() -> None:
        received.extend(await drain(reader))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await writer.send_all(data)
        await writer.aclose()
    assert received == data


# ---- Waiting -------------------------------------------------------------------------------


@both_kinds
async def test_a_wait_that_starts_late_does_not_miss_the_room(make: Any) -> None:
    """Between the poll and its wait somebody else may have read everything."""
    writer, reader = make(1)
    writer.poll_write(b"a")
    with pytest.raises(NotReady) as not_ready:
        writer.poll_write(b"b")
    assert await reader.receive_some() == b"a"
    with trio.testing.assert_checkpoints():
        await not_ready.value.wait()
    assert writer.poll_write(b"b") == 1


@both_kinds
@pytest.mark.parametrize("event", ["receive", "close the reader", "shut down", "close the writer"])
async def test_all_who_wait_are_woken(make: Any, event: str) -> None:
    writer, reader = make(1)
    writer.poll_write(b"a")
    with pytest.raises(NotReady) as not_ready:
        writer.poll_write(b"b")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(not_ready.value.wait)
        await wait_all_tasks_blocked()
        if event == "receive":
            await reader.receive_some()
        elif event == "close the reader":
            await reader.aclose()
        elif event == "shut down":
            writer.poll_shutdown()
        else:
            await writer.aclose()


@both_kinds
async def test_a_cancelled_wait_leaves_the_others_waiting(make: Any) -> None:
    writer, reader = make(1)
    writer.poll_write(b"a")
    with pytest.raises(NotReady) as not_ready:
        writer.poll_write(b"b")
    assert await is_blocked(not_ready.value.wait)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(not_ready.value.wait)
        await wait_all_tasks_blocked()
        assert await reader.receive_some() == b"a"


@both_kinds
async def test_two_writing_or_two_receiving_tasks_are_busy(make: Any) -> None:
    writer, reader = make(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await reader.receive_some()
        await writer.send_all(b"a")
    await writer.send_all(b"b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send_all, b"c")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await writer.send_all(b"d")
        assert await reader.receive_some() == b"b"
    assert await reader.receive_some() == b"c"


# ---- Endings -------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("end", ["shutdown", "aclose"])
async def test_after_a_clean_end_the_reader_gets_the_rest_and_then_the_end(
    make: Any, end: str
) -> None:
    writer, reader = make(10)
    await writer.send_all(b"abc")
    await getattr(writer, end)()
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"d")
    await getattr(writer, end)()
    assert await reader.receive_some(2) == b"ab"
    assert await reader.receive_some(2) == b"c"
    for _ in range(2):
        assert await reader.receive_some() == b""


@both_kinds
async def test_a_waiting_reader_learns_of_the_end(make: Any) -> None:
    writer, reader = make(10)
    async with trio.open_nursery() as nursery:

        async def expect_end() -> None:
            assert await reader.receive_some() == b""

        nursery.start_soon(expect_end)
        await wait_all_tasks_blocked()
        await writer.shutdown()


@both_kinds
async def test_bytes_lost_above_are_never_a_clean_end(make: Any) -> None:
    """A cancelled close of a buffered writer: the reader gets the rest, and then an error."""
    writer, reader = make(2)
    buffered = BufWriter(writer)
    await buffered.write_all(b"abcdef")
    with pytest.warns(ResourceWarning, match="4 bytes"):
        await trio.aclose_forcefully(buffered)
    assert await reader.receive_some() == b"ab"
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await reader.receive_some()


@both_kinds
async def test_a_waiting_reader_learns_of_a_truncated_end(make: Any) -> None:
    writer, reader = make(2)
    async with trio.open_nursery() as nursery:

        async def expect_error() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await reader.receive_some()

        nursery.start_soon(expect_error)
        await wait_all_tasks_blocked()
        await writer.release(clean=False)


@both_kinds
async def test_a_complete_end_stays_complete(make: Any) -> None:
    writer, reader = make(2)
    await writer.shutdown()
    await writer.release(clean=False)
    assert await reader.receive_some() == b""


@both_kinds
async def test_a_release_alone_is_an_end_as_well(make: Any) -> None:
    writer, reader = make(2)
    await writer.release(clean=True)
    assert await reader.receive_some() == b""


@both_kinds
async def test_a_cancelled_close_with_nothing_unsent_is_clean(make: Any) -> None:
    writer, reader = make(5)
    await writer.send_all(b"abc")
    await trio.aclose_forcefully(writer)
    assert await drain(reader) == b"abc"


@both_kinds
async def test_without_a_reader_writing_fails_again_and_again(make: Any) -> None:
    writer, reader = make(5)
    await writer.send_all(b"abc")
    await reader.aclose()
    for data in (b"d", b""):
        with pytest.raises(trio.BrokenResourceError):
            await writer.write(data)
    with pytest.raises(trio.BrokenResourceError):
        writer.poll_write(b"d")
    with pytest.raises(trio.BrokenResourceError):
        await writer.flush()
    await writer.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"d")


@both_kinds
async def test_a_waiting_writer_learns_that_the_reader_is_gone(make: Any) -> None:
    writer, reader = make(1)
    async with trio.open_nursery() as nursery:

        async def expect_error() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await writer.send_all(b"abc")

        nursery.start_soon(expect_error)
        await wait_all_tasks_blocked()
        await reader.aclose()


@both_kinds
async def test_a_writer_that_ends_need_not_mind_a_reader_that_is_gone(make: Any) -> None:
    writer, reader = make(1)
    await reader.aclose()
    await writer.wait_send_all_might_not_block()
    await writer.shutdown()
    await writer.aclose()


@both_kinds
async def test_receiving_ends_with_the_reader(make: Any) -> None:
    writer, reader = make(5)
    await writer.send_all(b"abc")
    await reader.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await reader.receive_some()
    with trio.testing.assert_checkpoints():
        await reader.aclose()


@both_kinds
async def test_a_waiting_reader_learns_that_it_was_closed(make: Any) -> None:
    _writer, reader = make(5)
    async with trio.open_nursery() as nursery:

        async def expect_error() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await reader.receive_some()

        nursery.start_soon(expect_error)
        await wait_all_tasks_blocked()
        await reader.aclose()


async def test_a_half_closed_stream_still_receives() -> None:
    left, right = duplex(5)
    await left.send_eof()
    assert await right.receive_some() == b""
    await right.send_all(b"abc")
    assert await left.receive_some() == b"abc"
    await right.aclose()
    assert await left.receive_some() == b""


@both_kinds
async def test_raw_polls_of_a_writer_that_has_ended(make: Any) -> None:
    writer, _reader = make(5)
    writer.poll_write(b"a")
    writer.poll_flush()
    writer.poll_shutdown()
    writer.poll_shutdown()
    with pytest.raises(trio.ClosedResourceError):
        writer.poll_write(b"b")
    with pytest.raises(trio.ClosedResourceError):
        await writer.wait_send_all_might_not_block()


# ---- Bad input -----------------------------------------------------------------------------


@both_kinds
def test_capacity_must_be_a_positive_integer(make: Any) -> None:
    for capacity in (0, -1):
        with pytest.raises(ValueError, match=f"capacity must be .* at least 1, got {capacity}"):
            make(capacity)
    for wrong in ("1", 1.0, None):
        with pytest.raises(TypeError, match=f"capacity must be .*, got {type(wrong).__name__}"):
            make(wrong)


@both_kinds
@pytest.mark.parametrize("data", ["text", None, [1]])
async def test_only_bytes_are_accepted(make: Any, data: Any) -> None:
    writer, reader = make(5)
    for buffers in ([data], [b"ab", data]):
        with pytest.raises(TypeError, match="bytes-like"):
            writer.poll_write_vectored(buffers)
    with pytest.raises(TypeError, match="bytes-like"):
        await writer.send_all(data)
    await writer.aclose()
    assert await drain(reader) == b""


@both_kinds
async def test_max_bytes_must_be_a_positive_integer(make: Any) -> None:
    writer, reader = make(5)
    await writer.send_all(b"abc")
    for number in (0, -1):
        with pytest.raises(ValueError, match="max_bytes"):
            await reader.receive_some(number)
    with pytest.raises(TypeError, match="max_bytes"):
        await reader.receive_some("1")
    assert await reader.receive_some(10) == b"abc"


def test_types_and_names() -> None:
    left, right = duplex(1)
    writer, reader = simplex(1)
    assert isinstance(left, AsyncReadWrite)
    assert isinstance(right, trio.abc.HalfCloseableStream)
    assert isinstance(writer, AsyncWrite)
    assert not isinstance(writer, trio.abc.ReceiveStream)
    assert not isinstance(reader, trio.abc.SendStream)
    assert repr(left).startswith("<DuplexStream at 0x")
    assert repr(writer).startswith("<SimplexWriter at 0x")
    assert repr(reader).startswith("<SimplexReader at 0x")


# ---- Cancellation --------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("capacity", [1, 3])
async def test_writing_cancelled_anywhere_and_resumed_delivers_every_byte_once(
    make: Any, capacity: int
) -> None:
    data = bytes(range(10))

    async def scenario(sweep: Sweep) -> None:
        writer, reader = make(capacity)
        received = bytearray()

        async def receive() -> None:
            while chunk := await reader.receive_some(2):
                received.extend(chunk)

        buf = Buf(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with sweep:
                await writer.write_all_buf(buf)
                await writer.flush()
                await writer.shutdown()
            if buf.remaining:
                await writer.write_all_buf(buf)
            await writer.shutdown()
            await writer.aclose()
        assert received == data

    assert await cancel_everywhere(scenario) > 10


@both_kinds
async def test_receiving_cancelled_anywhere_loses_nothing(make: Any) -> None:
    data = bytes(range(10))

    async def scenario(sweep: Sweep) -> None:
        writer, reader = make(3)
        received = bytearray()

        async def send() -> None:
            await writer.send_all(data)
            await writer.aclose()

        async def receive() -> None:
            while chunk := await reader.receive_some(2):
                received.extend(chunk)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with sweep:
                await receive()
            await receive()
        assert received == data

    assert await cancel_everywhere(scenario) > 10


@hypothesis.given(
    capacity=st.integers(1, 5),
    steps=st.lists(st.lists(st.binary(max_size=8)) | st.integers(1, 8)),
)
def test_any_interleaving_equals_a_bounded_queue(
    capacity: int, steps: list[list[bytes] | int]
) -> None:
    """A step is a write, gathered unless it is of one buffer, or a read of so many bytes."""

    async def main() -> None:
        writer, reader = simplex(capacity)
        queue = b""
        for step in steps:
            if isinstance(step, int):
                if queue:
                    expected, queue = queue[:step], queue[step:]
                    assert await reader.receive_some(step) == expected
                else:
                    assert await is_blocked(reader.receive_some, step)
                continue
            data = b"".join(step)
            taken = data[: capacity - len(queue)]
            if data and not taken:
                with pytest.raises(NotReady):
                    writer.poll_write_vectored(step)
            else:
                gathered = len(step) != 1
                poll: Any = writer.poll_write_vectored if gathered else writer.poll_write
                assert poll(step if gathered else data) == len(taken)
                queue += taken
        await writer.aclose()
        assert await drain(reader) == queue

    trio.run(main)
