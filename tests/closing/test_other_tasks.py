"""Endings that other tasks are in the way of, or that come too late."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    DuplexStream,
    ReadWritePair,
    TcpStream,
    duplex,
    split,
)
from trio_asyncwrite._closing._close import (
    abort,
    close_gracefully,
)
from trio_asyncwrite._closing._report import CloseOutcome, CloseReport
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._endings import (
    Pair,
    Result,
    into,
    over_duplex,
    over_memory,
    plain,
    read_and_close,
    unread_pipe,
)
from .._patience import wait_all_tasks_blocked
from .._streams import (
    connected,
    drain,
    tcp_pair,
    unix_pair,
)
from ..core._fakes import SlowlyReleased

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT
BROKEN = CloseOutcome.BROKEN
ABORTED = CloseOutcome.ABORTED


# ---- Cancellation ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_a_cancelled_task_ends_its_streams_as_every_other_does(
    autojump_clock: trio.testing.MockClock, how: str
) -> None:
    left, right = duplex(100)
    writer = BufWriter(left)
    await writer.write_all(bytes(1000))
    received = Result()

    async def peer() -> None:
        await trio.sleep(3)
        received.value = await read_and_close(right)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        with trio.CancelScope() as scope:
            if how == "cancelled":
                scope.cancel()
            else:
                scope.deadline = -math.inf
            try:
                await trio.sleep_forever()
            finally:
                report = await close_gracefully(writer)
                finished = True
    assert finished
    assert scope.cancelled_caught  # it is delivered afterwards, by the next checkpoint or here

    assert report == CloseReport(CLEAN, peer_closed=True, elapsed=3)
    assert received.value == bytes(1000)


async def test_a_cancellation_is_delivered_after_the_end() -> None:
    left, right = duplex(100)
    with trio.CancelScope() as scope:
        scope.cancel()
        report = await close_gracefully(left, linger=0)
        await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert report.outcome is PEER_SILENT
    assert await drain(right) == b""


async def test_wherever_it_is_cancelled_the_end_is_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def scenario(sweep: Sweep) -> None:
        left, right = duplex(7)
        writer = BufWriter(left, capacity=100)
        await writer.write_all(b"an answer that fills the pipe")
        received = Result()

        async def peer() -> None:
            await right.send_all(b"an upload that does, too")
            received.value = await read_and_close(right)

        report = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            with sweep:
                report = await close_gracefully(writer)

        assert received.value == b"an answer that fills the pipe"
        assert report == CloseReport(CLEAN, discarded_bytes=24, peer_closed=True)

    assert await cancel_everywhere(scenario) > 10


# ---- Other tasks -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [TcpStream, plain], ids=["ours", "plain"])
async def test_a_task_that_reads_is_told_that_the_stream_is_closed(
    make: Callable[[Any], trio.abc.Stream],
) -> None:
    left, right = await tcp_pair()
    stream = left if make is TcpStream else make(left)
    closing = Result()

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        # Not a moment later than the first.
        assert closing.value is None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        nursery.start_soon(into, closing, lambda: close_gracefully(BufWriter(stream)))
        await wait_all_tasks_blocked()
        await right.send_all(b"for nobody")
        await read_and_close(right)

    assert closing.value.outcome is CLEAN
    assert closing.value.discarded_bytes == len(b"for nobody")


@pytest.mark.parametrize("make", [lambda stream: stream, plain], ids=["ours", "plain"])
async def test_a_task_that_comes_back_to_read_gets_no_rest_with_a_hole(
    make: Callable[[TcpStream], trio.abc.Stream],
) -> None:
    """It was busy with its last chunk when the close began, so nobody has woken it."""
    left, right = await tcp_pair()
    stream = make(left)
    await right.send_all(b"first, ")
    assert await stream.receive_some() == b"first, "
    await right.send_all(b"second, ")
    closing = Result()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(into, closing, lambda: close_gracefully(stream))
        await wait_all_tasks_blocked()
        await right.send_all(b"third")
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        await read_and_close(right)

    assert closing.value.outcome is CLEAN
    assert closing.value.discarded_bytes == len(b"second, third")


async def test_a_task_that_writes_is_told_that_the_stream_is_closed() -> None:
    left, right = duplex(10)
    writer = BufWriter(left, capacity=20)
    await writer.write_all(bytes(15))

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.write_all(bytes(19))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        closing = Result()
        nursery.start_soon(into, closing, lambda: close_gracefully(writer))
        await wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            await writer.write(b"later")
        assert await read_and_close(right) == bytes(15)

    assert closing.value.outcome is CLEAN


@pytest.mark.parametrize("through", ["the stream", "a half"])
async def test_a_task_that_reads_from_memory_is_told_too(through: str) -> None:
    left, right = duplex(10)
    reader: trio.abc.ReceiveStream = left
    stream: AsyncWrite = left
    if through == "a half":
        reader, writer = split(left)
        stream = ReadWritePair(reader, writer)

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        nursery.start_soon(right.send_all, b"for no one")
        nursery.start_soon(read_and_close, right)
        report = await close_gracefully(stream)

    assert report.outcome is CLEAN
    assert report.discarded_bytes == len(b"for no one")


class Slow(trio.abc.SendStream):
    """Takes a second to send, and cannot be shared."""

    def __init__(self) -> None:
        self.sent = b""
        self.sending = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sending = True
        await trio.sleep(1)
        self.sent += data
        self.sending = False

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.sending:
            raise trio.BusyResourceError


async def test_a_task_that_writes_to_a_plain_stream_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream = Slow()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"hello")
        await wait_all_tasks_blocked()
        report = await close_gracefully(stream)

    assert stream.sent == b"hello"
    assert report.outcome is PEER_SILENT
    assert 1 <= report.elapsed < 1.1


async def test_two_tasks_that_close_get_a_report_each(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The tighter limits count for all: each returns in time, and the stream is closed then."""
    left, _ = duplex(10)
    reports: list[CloseReport] = []

    async def close(linger: float) -> None:
        reports.append(await close_gracefully(left, linger=linger))

    async with trio.open_nursery() as nursery:
        for linger in (3, 2, 4):
            nursery.start_soon(close, linger)

    assert reports == [CloseReport(PEER_SILENT, peer_closed=False, elapsed=2)] * 3


async def test_a_graceful_close_goes_on_for_an_aclose_that_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And no byte is lost that there is time for."""
    left, right = duplex(10)
    writer = BufWriter(left)
    await writer.write_all(bytes(30))
    received = Result()
    reports: list[CloseReport] = []

    async def close() -> None:
        reports.append(await close_gracefully(writer, timeout=9))

    async def read_late() -> None:
        await trio.sleep(3)
        received.value = await read_and_close(right)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as closer:
                closer.start_soon(writer.aclose)
                await wait_all_tasks_blocked()
                for _ in range(2):
                    nursery.start_soon(close)
                await wait_all_tasks_blocked()
                scope.cancel()

    assert received.value == bytes(30)
    assert reports == [CloseReport(CLEAN, peer_closed=True, elapsed=3)] * 2


async def test_the_close_of_a_stream_waits_for_those_of_its_handles(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each of them has begun before, with limits of its own; and no byte is lost."""
    left, right = duplex(10)
    writers = [BufWriter(left.by_ref()) for _ in range(2)]
    for writer in writers:
        await writer.write_all(bytes(20))
    reports: list[CloseReport] = []

    async def close(stream: trio.abc.SendStream) -> None:
        reports.append(await close_gracefully(stream))

    async def read_late() -> None:
        await trio.sleep(3)
        assert await read_and_close(right) == bytes(40)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        for stream in (*writers, left):
            nursery.start_soon(close, stream)
            await wait_all_tasks_blocked()

    assert len(reports) == 3
    assert all(report.unsent_bytes == 0 for report in reports)
    assert reports[-1].outcome is CLEAN


async def test_aclose_waits_for_a_graceful_close(autojump_clock: trio.testing.MockClock) -> None:
    left, _ = duplex(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: close_gracefully(left, linger=3))
        await wait_all_tasks_blocked()
        await left.aclose()

        assert trio.current_time() == 3


@pytest.mark.parametrize("closers", [1, 2])
@pytest.mark.parametrize("size", [10, 11], ids=["lingering", "sending"])
@pytest.mark.parametrize("how", ["aclose", "abort"])
async def test_a_graceful_close_can_be_cut_short(
    autojump_clock: trio.testing.MockClock, size: int, how: str, closers: int
) -> None:
    """By whoever cannot wait: its report says so."""
    left, right = duplex(10)
    writer = BufWriter(left)
    await writer.write_all(bytes(size))
    reports: list[CloseReport] = []

    async def close() -> None:
        reports.append(await close_gracefully(writer))

    async with trio.open_nursery() as nursery:
        for _ in range(closers):
            nursery.start_soon(close)
        await wait_all_tasks_blocked()
        await (abort if how == "abort" else trio.aclose_forcefully)(writer)

    assert len(reports) == closers
    for report in reports:
        assert report.elapsed == 0
        assert report.unsent_bytes == size - 10
        if how == "abort":
            assert report.outcome is ABORTED
            assert report.error is None
        elif size == 10:
            assert report.outcome is PEER_SILENT
        else:
            assert report.outcome is BROKEN
            assert isinstance(report.error, trio.ClosedResourceError)
    assert len(await right.receive_some()) == 10
    if size == 11:  # else the end was said already
        with pytest.raises(trio.BrokenResourceError):
            await right.receive_some()


async def test_a_close_without_limits_gets_those_of_a_graceful_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, _ = duplex(10)
    writer = BufWriter(left)
    await writer.write_all(bytes(11))

    async def close() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await wait_all_tasks_blocked()
        report = await close_gracefully(writer, timeout=2, linger=3)

        assert trio.current_time() == 2
    assert report == CloseReport(TIMED_OUT, unsent_bytes=1, peer_closed=False, elapsed=2)


# ---- Closed before -----------------------------------------------------------------------------


CLOSED: dict[str, Callable[[], Awaitable[trio.abc.SendStream]]] = {
    "BufWriter": lambda: first_of(over_duplex(BufWriter)),
    "memory": lambda: first_of(over_memory(lambda stream: stream)),
    "FdStream": unread_pipe,
}


async def first_of(pair: Awaitable[Pair]) -> trio.abc.SendStream:
    stream, _ = await pair
    return stream


@pytest.mark.parametrize("maker", CLOSED.values(), ids=CLOSED)
async def test_of_a_stream_that_was_closed_before_nothing_is_claimed(
    maker: Callable[[], Awaitable[trio.abc.SendStream]],
) -> None:
    stream = await maker()
    await stream.aclose()

    report = await close_gracefully(stream)

    assert report.peer_closed is None
    if not isinstance(stream, trio.StapledStream):  # which does not mind to be closed twice
        assert report.outcome is BROKEN
        assert isinstance(report.error, trio.ClosedResourceError)
    await abort(stream)


async def test_of_a_socket_that_was_closed_before_nothing_is_claimed() -> None:
    async with connected(tcp_pair) as (left, _):
        stream = plain(left)
        await stream.aclose()

        report = await close_gracefully(stream)

        assert report.outcome is BROKEN
        assert isinstance(report.error, trio.ClosedResourceError)
        await abort(stream)


async def memory_pair() -> tuple[DuplexStream, DuplexStream]:
    return duplex(100)


@pytest.mark.parametrize("make", [tcp_pair, unix_pair, memory_pair])
@pytest.mark.parametrize("first", ["forcefully", "cleanly"])
async def test_closes_of_two_tasks_both_return_if_nothing_is_missing(make: Any, first: str) -> None:
    """One of them forcefully: the end is the same as a clean one."""
    left, right = await make()
    await left.send_all(b"abc")
    closes: list[Any] = [partial(trio.aclose_forcefully, left), left.aclose]
    async with trio.open_nursery() as nursery:
        for close in closes if first == "forcefully" else reversed(closes):
            nursery.start_soon(close)
    assert await drain(right) == b"abc"
    await right.aclose()


async def test_of_a_close_that_was_cut_off_before_nothing_is_claimed() -> None:
    """It is at its release, and nothing can be sent any more."""
    wire = SlowlyReleased(math.inf)
    result = Result()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.aclose_forcefully, wire)
        await wait_all_tasks_blocked()
        nursery.start_soon(into, result, partial(close_gracefully, wire))
        await wait_all_tasks_blocked()
        wire.let_go.set()

    assert result.value.outcome is BROKEN
