from __future__ import annotations

import contextlib
import math
import os
import signal
import socket as stdlib_socket
import ssl
import struct
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    NotReady,
    TcpStream,
    TimeoutWriter,
    wrap_stream,
)
from trio_asyncwrite._core._lifecycle import ENDED
from trio_asyncwrite._transports._send_stream import SendStreamWriter
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._patience import wait_all_tasks_blocked
from .._streams import assert_leaves_no_cycle, drain, drain_while

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock


class Line(trio.abc.SendStream):
    """A write-only stream that takes a byte a second, or all at once, and keeps a log."""

    def __init__(self, seconds_per_byte: float = 1) -> None:
        self.seconds_per_byte = seconds_per_byte
        self.log: list[str] = []
        self.sent = bytearray()
        self.sending = False
        self.closed = False
        self.failing: BaseException | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed:
            raise trio.ClosedResourceError
        if self.sending:
            raise trio.BusyResourceError
        self.sending = True
        self.log.append("send_all")
        await trio.lowlevel.checkpoint()
        try:
            if not self.seconds_per_byte:
                self.sent += data
                return
            for byte in bytes(data):
                await trio.sleep(self.seconds_per_byte)
                if self.failing is not None:
                    raise self.failing
                if self.closed:
                    raise trio.ClosedResourceError
                self.sent.append(byte)
        finally:
            self.sending = False

    async def wait_send_all_might_not_block(self) -> None:
        self.log.append("wait")
        await trio.sleep(self.seconds_per_byte / 2)

    async def aclose(self) -> None:
        self.log.append("aclose")
        self.closed = True
        await trio.lowlevel.checkpoint()


class Duplex(Line, trio.abc.Stream):
    """One that can be read from, and not half-closed."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise AssertionError


class HalfCloseable(Duplex, trio.abc.HalfCloseableStream):
    """One that can be half-closed; it takes three seconds."""

    async def send_eof(self) -> None:
        self.log.append("send_eof begins")
        await trio.sleep(3)
        self.log.append("send_eof")


async def lockstep_pair() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
    left, right = trio.testing.lockstep_stream_one_way_pair()
    return wrap_stream(left, 100), right


async def memory_pair() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
    left, right = trio.testing.memory_stream_one_way_pair()
    return wrap_stream(left, 100), right


# ---- Trio's contract, and ours ---------------------------------------------------------------


@pytest.mark.outer
@pytest.mark.parametrize("maker", [memory_pair, lockstep_pair])
# Both checkers also close what has unsent bytes.
@pytest.mark.filterwarnings("ignore:.*were never sent:ResourceWarning")
async def test_it_keeps_the_contract(
    maker: Callable[[], Awaitable[tuple[AsyncWrite, trio.abc.ReceiveStream]]],
    autojump_clock: MockClock,
) -> None:
    """Over a stream with a buffer without bounds, and over one with no buffer at all."""
    await trio.testing.check_one_way_stream(maker, None)
    await check_async_write(maker)


async def test_no_cancellation_loses_a_byte(autojump_clock: MockClock) -> None:
    """As long as the grace does not run out."""

    async def scenario(sweep: Sweep) -> None:
        writer, reader = await lockstep_pair()
        bufs = [Buf(b"header"), Buf(b"body", b"and"), Buf(b"tail")]
        received = bytearray()

        async def receive() -> None:
            while chunk := await reader.receive_some(2):
                received.extend(chunk)

        async def write() -> None:
            for buf in bufs:
                await writer.write_all_buf(buf)
            await writer.flush()
            await writer.shutdown()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with sweep:
                await write()
            for buf in bufs:
                if buf.remaining:
                    await writer.write_all_buf(buf)
            await writer.shutdown()
        await writer.aclose()
        assert received == b"headerbodyandtail"

    assert await cancel_everywhere(scenario) > 20


# ---- What it is made of ----------------------------------------------------------------------


@pytest.mark.parametrize("grace", [-1, -math.inf, math.nan])
def test_a_grace_that_is_no_time(grace: float) -> None:
    with pytest.raises(ValueError, match="cancel_grace"):
        wrap_stream(Line(), cancel_grace=grace)


@pytest.mark.parametrize("grace", ["1", b"", [1]])
def test_a_grace_that_is_no_number(grace: Any) -> None:
    with pytest.raises(TypeError):
        wrap_stream(Line(), cancel_grace=grace)


def test_it_names_its_stream() -> None:
    line = Line()

    assert repr(wrap_stream(line)) == f"<writer over {line!r}>"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("text", TypeError),
        (None, TypeError),
        ([1], TypeError),
        (memoryview(b"abcd")[::2], BufferError),
    ],
    ids=["str", "None", "list", "gaps"],
)
async def test_what_is_not_bytes_is_refused_at_once(
    data: Any, error: type[Exception], autojump_clock: MockClock
) -> None:
    """Also while the chunk before it is still to be sent."""
    line = Line()
    writer = wrap_stream(line)
    for _ in range(2):
        with pytest.raises(error):
            writer.poll_write(data)
        with pytest.raises(error):
            await writer.write(data)
        with pytest.raises(error):
            await writer.send_all(data)
        await writer.write(b"x")
    await writer.aclose()

    assert line.sent == b"xx"


async def test_a_view_of_other_items_counts_as_its_bytes(autojump_clock: MockClock) -> None:
    line = Line()
    async with wrap_stream(line) as writer:
        assert writer.poll_write(memoryview(b"abcdefgh").cast("I")) == 8

    assert line.sent == b"abcdefgh"


async def test_a_chunk_is_64_kib_at_most() -> None:
    """For that much a cancelled task can be held up."""
    line = Line(0)
    writer = wrap_stream(line)

    assert writer.poll_write(bytes(1_000_000)) == 65536
    assert writer.unsent_bytes == 65536
    await writer.write_all(bytes(1_000_000))
    await writer.aclose()
    assert len(line.sent) == 1_065_536
    assert line.log.count("send_all") == 17


async def test_the_caller_may_change_its_buffer_at_once(autojump_clock: MockClock) -> None:
    line = Line()
    data = bytearray(b"before")
    async with wrap_stream(line) as writer:
        writer.poll_write(data)
        data[:] = b"after, and longer"

    assert line.sent == b"before"


async def test_a_poll_takes_and_a_wait_sends(autojump_clock: MockClock) -> None:
    """One chunk at a time; what counts as sent is what send_all has returned for."""
    line = Line()
    writer = wrap_stream(line)
    assert await writer.write(b"abc") == 3
    assert line.log == []
    assert writer.unsent_bytes == 3
    with pytest.raises(NotReady) as info:
        writer.poll_write(b"more")
    await info.value.wait()
    assert line.sent == b"abc"
    assert writer.unsent_bytes == 0
    assert await writer.write(b"") == 0
    await writer.flush()

    assert line.log == ["send_all"]
    await writer.aclose()


async def test_it_is_ready_once_the_chunk_is_through_and_the_stream_says_so(
    autojump_clock: MockClock,
) -> None:
    line = Line()
    async with wrap_stream(line) as writer:
        await writer.wait_send_all_might_not_block()
        assert trio.current_time() == 0.5
        await writer.write(b"abc")
        await writer.wait_send_all_might_not_block()
        assert trio.current_time() == 4
        assert line.sent == b"abc"
        with trio.move_on_after(0.25):
            await writer.wait_send_all_might_not_block()
        await writer.wait_send_all_might_not_block()
        assert trio.current_time() == 4.75
        assert line.log == ["wait", "send_all", "wait", "wait", "wait"]


# ---- Cancellation ----------------------------------------------------------------------------


async def test_what_ends_within_the_grace_is_resumable(autojump_clock: MockClock) -> None:
    line = Line()
    writer = wrap_stream(line, cancel_grace=2)
    buf = Buf(b"abc")
    await writer.write_all_buf(buf)
    with trio.move_on_after(1.5) as scope:  # "abc" takes until 3
        await writer.flush()

    assert scope.cancelled_caught
    assert trio.current_time() == 3
    assert line.sent == b"abc"
    await writer.flush()
    await writer.write_all(b"d")
    await writer.aclose()
    assert line.sent == b"abcd"


async def test_a_cancellation_at_every_second_delivers_each_byte_once(
    autojump_clock: MockClock,
) -> None:
    data = bytes(range(40))
    line = Line()
    writer = wrap_stream(line, cancel_grace=math.inf)
    buf = Buf(data)
    cancelled = 0
    for _ in range(len(data)):
        with trio.move_on_after(0.5) as scope:
            if buf.remaining:
                await writer.write_buf(Buf(buf.chunk()[:1]))
                buf.advance(1)
            await writer.flush()
        cancelled += scope.cancelled_caught
    await writer.aclose()

    assert line.sent == data
    assert cancelled == len(data)


@pytest.mark.parametrize("grace", [0, 1])
async def test_when_the_grace_runs_out_nothing_is_guessed(
    grace: int, autojump_clock: MockClock
) -> None:
    """From then on it is broken, and not a byte more is sent."""
    line = Line()
    writer = wrap_stream(line, cancel_grace=grace)
    await writer.write(b"abcdef")
    with trio.move_on_after(1.5) as scope:
        await writer.flush()

    assert scope.cancelled_caught
    assert trio.current_time() == 1.5 + grace
    sent = bytes(line.sent)
    assert sent == b"ab"[: 1 + grace]
    assert writer.unsent_bytes == 6
    for _ in range(2):
        for call in (
            lambda: writer.write(b"x"),
            lambda: writer.send_all(b"x"),
            writer.flush,
            writer.shutdown,
            writer.wait_send_all_might_not_block,
        ):
            with pytest.raises(trio.BrokenResourceError):
                await call()
    await writer.aclose()
    assert line.log == ["send_all", "aclose"]
    assert line.sent == sent


async def test_aclose_is_the_first_to_tell_of_a_grace_that_ran_out(
    autojump_clock: MockClock,
) -> None:
    line = Line()
    writer = wrap_stream(line, cancel_grace=0)
    await writer.write(b"abc")
    with trio.move_on_after(1.5):
        await writer.flush()

    with pytest.raises(trio.BrokenResourceError, match="unknown part of 3 bytes"):
        await writer.aclose()
    assert line.closed


async def test_a_cancelled_call_sends_nothing() -> None:
    """Cancelled before it began, it does not use the grace to begin."""
    line = Line()
    writer = wrap_stream(line)
    writer.poll_write(b"abc")
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.flush()
    with pytest.raises(NotReady) as info:
        writer.poll_flush()
    with trio.CancelScope() as scope:
        scope.cancel()
        await info.value.wait()

    assert scope.cancelled_caught
    assert line.log == []
    with pytest.warns(ResourceWarning, match="3 bytes"):
        await trio.aclose_forcefully(writer)


async def test_a_failure_while_cancelled_surfaces_with_the_next_operation(
    autojump_clock: MockClock,
) -> None:
    """The task that waited got Cancelled and could not be told."""
    line = Line()
    line.failing = trio.BrokenResourceError("hung up")
    writer = wrap_stream(line, cancel_grace=5)
    await writer.write(b"abc")
    with trio.move_on_after(0.5) as scope:
        await writer.flush()
    assert scope.cancelled_caught

    with pytest.raises(trio.BrokenResourceError, match="hung up"):
        await writer.write(b"d")
    with pytest.raises(trio.BrokenResourceError, match="failed before"):
        await writer.write(b"d")
    assert writer.unsent_bytes == 3
    await writer.aclose()


async def test_a_kept_wait_sends_nothing_twice(autojump_clock: MockClock) -> None:
    """Whoever awaits it again, early or late, the chunk is sent once at most."""
    line = Line()
    writer = wrap_stream(line, cancel_grace=0)
    writer.poll_write(b"abc")
    with pytest.raises(NotReady) as info:
        writer.poll_flush()
    times = []

    async def wait() -> None:
        await info.value.wait()
        times.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
    assert line.sent == b"abc"
    assert times == [3, 3, 3]
    await info.value.wait()
    writer.poll_flush()
    assert line.sent == b"abc"

    writer.poll_write(b"def")
    with trio.move_on_after(1.5):
        await info.value.wait()
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await info.value.wait()
        with pytest.raises(trio.BrokenResourceError):
            writer.poll_flush()
    await writer.aclose()
    with trio.testing.assert_checkpoints():
        await info.value.wait()
    assert line.sent == b"abcd"


async def test_another_task_waits_for_the_send_of_the_first(autojump_clock: MockClock) -> None:
    """By raw polls, two tasks may meet in the middle of a send."""
    line = Line()
    writer = wrap_stream(line)
    writer.poll_write(b"abc")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.flush)
        await trio.sleep(0.5)
        with pytest.raises(NotReady) as info:
            writer.poll_write(b"d")
        await info.value.wait()
        assert trio.current_time() == 3
        assert writer.poll_write(b"d") == 1
    await writer.aclose()
    assert line.sent == b"abcd"


# ---- Ctrl-C ----------------------------------------------------------------------------------


def test_ctrl_c_in_a_wait_lets_the_chunk_end_within_the_grace() -> None:
    """And it comes as it is, not in an ExceptionGroup; the writer can go on."""
    line = Line()

    async def interrupt() -> None:
        await trio.sleep(0.5)
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        writer = wrap_stream(line, cancel_grace=5)
        await writer.write(b"abc")
        trio.lowlevel.spawn_system_task(interrupt)  # these leave Ctrl-C to the main task
        with pytest.raises(KeyboardInterrupt):
            await writer.flush()
        assert trio.current_time() == 3
        assert line.sent == b"abc"
        await writer.send_all(b"d")
        await writer.aclose()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert line.sent == b"abcd"


def test_ctrl_c_in_a_wait_does_not_wait_for_ever() -> None:
    line = Line(math.inf)

    async def interrupt() -> None:
        await trio.sleep(1)
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        writer = wrap_stream(line, cancel_grace=5)
        await writer.write(b"abc")
        trio.lowlevel.spawn_system_task(interrupt)
        with pytest.raises(KeyboardInterrupt):
            await writer.flush()
        assert trio.current_time() == 6
        with pytest.raises(trio.BrokenResourceError, match="unknown part"):
            await writer.flush()
        await writer.aclose()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_ctrl_c_in_the_stream_itself_breaks_the_writer(autojump_clock: MockClock) -> None:
    """Nobody knows how far it came: it must not be sent again."""
    line = Line()
    line.failing = KeyboardInterrupt()
    writer = wrap_stream(line)
    await writer.write(b"abc")
    with pytest.raises(KeyboardInterrupt):
        await writer.flush()
    line.failing = None

    with pytest.raises(trio.BrokenResourceError, match="unknown part of 3 bytes"):
        await writer.flush()
    await writer.aclose()
    assert line.log == ["send_all", "aclose"]


# ---- Failures --------------------------------------------------------------------------------


async def test_a_failure_of_the_stream_stays(autojump_clock: MockClock) -> None:
    line = Line()
    cause = OSError("no carrier")
    line.failing = trio.BrokenResourceError("hung up")
    line.failing.__cause__ = cause
    writer = wrap_stream(line)
    await writer.write(b"abc")
    with pytest.raises(trio.BrokenResourceError, match="hung up"):
        await writer.flush()

    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError) as info:
            await writer.write(b"d")
        assert info.value.__cause__ is cause
    await writer.aclose()


@pytest.mark.parametrize("duplex", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        trio.TooSlowError("its own limit"),
        trio.ClosedResourceError(),
        OSError("gone"),
        ValueError("a mistake"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_the_stream_raises_after_a_part_is_never_sent_again(
    error: Exception, autojump_clock: MockClock, *, duplex: bool
) -> None:
    """Not even if the stream would work again: nobody knows how far it came."""
    line = Duplex() if duplex else Line()
    writer = wrap_stream(line)
    await writer.write(b"abc")
    async with trio.open_nursery() as nursery:

        async def fail() -> None:
            await trio.sleep(1.5)
            line.failing = error

        nursery.start_soon(fail)
        with pytest.raises(trio.BrokenResourceError) as info:
            await writer.flush()
    assert info.value.__cause__ is error
    line.failing = None

    for _ in range(2):
        for call in (writer.flush, lambda: writer.send_all(b"d"), writer.shutdown):
            with pytest.raises(trio.BrokenResourceError) as info:
                await call()
            assert info.value.__cause__ is error
    assert writer.unsent_bytes == 3
    await writer.aclose()
    assert line.sent == b"a"
    assert line.log == ["send_all", "aclose"]


async def test_busy_below_breaks_the_writer(autojump_clock: MockClock) -> None:
    """A stream of several layers can say so after a part: the chunk is not sent twice."""
    line = Line()
    writer = wrap_stream(line)
    await writer.write(b"abc")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.send_all, b"them ")
        await trio.sleep(0.5)
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError) as info:
                await writer.flush()
            assert type(info.value.__cause__) is trio.BusyResourceError
    assert writer.unsent_bytes == 3
    await writer.aclose()

    assert line.sent == b"them "


async def test_a_limit_of_the_streams_own_breaks_the_writer(autojump_clock: MockClock) -> None:
    """Also through layers above: a second flush does not send the chunk again."""

    class Impatient(Line):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            with trio.fail_after(2.5):
                await super().send_all(data)

    line = Impatient()
    writer = BufWriter(line)
    await writer.write_all(b"abcdef")
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await writer.flush()
    await writer.aclose()

    assert line.sent == b"ab"


async def test_a_stream_closed_behind_our_back(autojump_clock: MockClock) -> None:
    """A foreign stream's own error is a failure of it, as any other one."""
    line = Line()
    writer = wrap_stream(line)
    await line.aclose()
    await writer.write(b"abc")
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError) as info:
            await writer.flush()
        assert type(info.value.__cause__) is trio.ClosedResourceError
    await writer.aclose()

    assert writer.unsent_bytes == 3


async def test_no_cycle_is_left(autojump_clock: MockClock) -> None:
    async def scenario() -> None:
        line = Line()
        writer = wrap_stream(line, cancel_grace=1)
        await writer.send_all(b"abc")
        with trio.move_on_after(1):
            await writer.send_all(b"abc")
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await writer.flush()
        await writer.aclose()
        line = Line()
        line.failing = OSError()
        writer = wrap_stream(line)
        with pytest.raises(trio.BrokenResourceError):
            await writer.send_all(b"abc")
        await writer.aclose()
        line.failing = None

    await assert_leaves_no_cycle(scenario)


def test_garbage_with_a_chunk_that_was_never_sent() -> None:
    writers = [wrap_stream(Line())]
    writers[0].poll_write(b"abc")
    with pytest.warns(ResourceWarning, match="3 bytes that it had accepted were never sent"):
        writers.clear()  # it is in no cycle


# ---- Two tasks -------------------------------------------------------------------------------


async def test_two_tasks_at_once(autojump_clock: MockClock) -> None:
    line = Line()
    writer = wrap_stream(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send_all, b"first")
        await trio.sleep(0.5)
        for call in (lambda: writer.send_all(b"second"), writer.flush, writer.shutdown):
            with pytest.raises(trio.BusyResourceError):
                await call()
    await writer.aclose()

    assert line.sent == b"first"


@pytest.mark.parametrize("above", [False, True])
async def test_a_close_in_the_middle_of_another_tasks_send_waits_for_it(
    autojump_clock: MockClock, *, above: bool
) -> None:
    """As long as it takes, since eviction is no cancellation; the task then learns of the close."""
    line = Line()
    inner = wrap_stream(line, cancel_grace=1)
    writer = TimeoutWriter(BufWriter(inner), idle=60) if above else inner

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.send_all(b"abcdef")
        assert trio.current_time() == 6

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(0.5)
        await inner.aclose()
        assert trio.current_time() == 6

    assert line.sent == b"abcdef"
    assert line.log == ["send_all", "aclose"]
    assert writer.unsent_bytes == 0


@pytest.mark.parametrize("who", ["sender", "closer", "both"])
async def test_a_cancellation_starts_the_clock_of_a_send_that_a_close_waits_for(
    autojump_clock: MockClock, who: str
) -> None:
    """Of the task that sends, and of the one that closes."""
    line = Line()
    writer = wrap_stream(line, cancel_grace=2)

    async def send(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            with contextlib.suppress(trio.ClosedResourceError):
                await writer.send_all(b"abcdefghi")

    async def close(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            with contextlib.suppress(trio.BrokenResourceError):
                await writer.aclose()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with trio.open_nursery() as nursery:
            sender = await nursery.start(send)
            await wait_all_tasks_blocked()
            closer = await nursery.start(close)
            await trio.sleep(3.5)
            if who != "closer":
                sender.cancel()
            if who != "sender":
                closer.cancel()

    assert trio.current_time() == 5.5
    assert line.sent == b"abcde"
    assert line.closed
    assert writer.unsent_bytes == 9
    # An uncancelled close raises it; a cancelled one has to warn.
    told = [str(one.message) for one in caught if one.category is ResourceWarning]
    assert len(told) == (who != "sender")


async def test_a_close_whose_grace_is_over_ends_a_send_that_does_not_notice(
    autojump_clock: MockClock,
) -> None:
    """One whose stream sleeps on although it was closed."""
    line = Line(math.inf)
    writer = wrap_stream(line, cancel_grace=2)

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.send_all(b"abc")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        with pytest.warns(ResourceWarning, match="3 bytes"):
            await trio.aclose_forcefully(writer)

    assert trio.current_time() == 2
    assert line.closed


async def test_a_cancelled_close_lets_another_tasks_send_end_within_the_grace(
    autojump_clock: MockClock,
) -> None:
    line = Line()
    writer = wrap_stream(line, cancel_grace=10)

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.send_all(b"abc")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(1.5)
        await trio.aclose_forcefully(writer)
        assert trio.current_time() == 3
        assert line.closed

    assert line.sent == b"abc"
    assert writer.unsent_bytes == 0


# ---- How it ends -----------------------------------------------------------------------------


async def test_shutting_down_a_write_only_stream_closes_it(autojump_clock: MockClock) -> None:
    """There is no other way to give its reader end-of-file."""
    line = Line()
    writer = wrap_stream(line)
    await writer.write(b"abc")
    await writer.shutdown()
    assert line.sent == b"abc"
    assert line.closed
    await writer.shutdown()
    await writer.flush()
    writer.poll_shutdown()
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"d")

    await writer.aclose()


async def test_raw_polls_know_the_end_as_well(autojump_clock: MockClock) -> None:
    line = Line()
    writer = wrap_stream(line)
    handle = writer.by_ref()
    writer.poll_write(b"abc")
    for _ in range(2):  # the chunk, the end
        with pytest.raises(NotReady) as info:
            writer.poll_shutdown()
        for poll in (lambda: writer.poll_write(b"d"), writer.poll_ready):
            with pytest.raises(trio.ClosedResourceError):
                poll()
        await info.value.wait()
    writer.poll_shutdown()
    writer.poll_flush()
    assert writer.lifecycle.phase is ENDED
    with pytest.raises(trio.ClosedResourceError):
        writer.poll_write(b"d")
    with pytest.raises(trio.ClosedResourceError):
        await handle.wait_send_all_might_not_block()
    await writer.aclose()
    for poll in (lambda: writer.poll_write(b"d"), writer.poll_flush, writer.poll_shutdown):
        with pytest.raises(trio.ClosedResourceError):
            poll()

    assert line.sent == b"abc"


async def test_shutting_down_a_half_closeable_stream_sends_eof(autojump_clock: MockClock) -> None:
    stream = HalfCloseable()
    writer = wrap_stream(stream)
    await writer.write(b"abc")
    await writer.shutdown()
    await writer.shutdown()
    assert stream.log == ["send_all", "send_eof begins", "send_eof"]
    assert not stream.closed

    await writer.aclose()
    assert stream.log[3:] == ["aclose"]


async def test_shutting_down_a_duplex_stream_flushes(autojump_clock: MockClock) -> None:
    """It cannot be half-closed, and reading must go on."""
    stream = Duplex()
    writer = wrap_stream(stream)
    await writer.write(b"abc")
    await writer.shutdown()
    assert stream.sent == b"abc"
    assert stream.log == ["send_all"]
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"d")

    await writer.aclose()
    assert stream.closed


async def test_a_cancelled_shutdown_resumes(autojump_clock: MockClock) -> None:
    """Within the grace, the end-of-file is sent once."""
    stream = HalfCloseable()
    writer = wrap_stream(stream, cancel_grace=10)
    await writer.write(b"abc")
    for second in (1, 4, 7):
        with trio.move_on_at(second + 0.5) as scope:
            await writer.shutdown()
        assert scope.cancelled_caught == (second < 7)

    assert stream.log == ["send_all", "send_eof begins", "send_eof"]
    await writer.aclose()


async def test_an_end_of_file_that_takes_too_long_breaks_the_writer(
    autojump_clock: MockClock,
) -> None:
    stream = HalfCloseable()
    writer = wrap_stream(stream, cancel_grace=1)
    with trio.move_on_after(1):
        await writer.shutdown()
    assert trio.current_time() == 2

    with pytest.raises(trio.BrokenResourceError):
        await writer.shutdown()
    await writer.aclose()
    assert stream.log == ["send_eof begins", "aclose"]


class SlowToClose(Duplex):
    """One whose close takes a hundred seconds."""

    async def aclose(self) -> None:
        self.log.append("aclose begins")
        self.closed = True
        await trio.sleep(100)
        self.log.append("aclose")


@pytest.mark.parametrize("shut_down_before", [False, True])
async def test_a_clean_close_waits_for_the_close_of_a_duplex_stream(
    autojump_clock: MockClock, *, shut_down_before: bool
) -> None:
    """Which may write an epilogue: as long as it takes, and after all of the layers above."""
    stream = SlowToClose()
    writer = BufWriter(wrap_stream(stream, cancel_grace=7))
    await writer.write_all(b"abc")
    if shut_down_before:
        await writer.shutdown()
    await writer.aclose()

    assert stream.log == ["send_all", "aclose begins", "aclose"]
    assert trio.current_time() == 3 + 100


async def test_a_cancelled_close_gives_the_close_of_a_duplex_stream_the_grace(
    autojump_clock: MockClock,
) -> None:
    stream = SlowToClose()
    writer = wrap_stream(stream, cancel_grace=7)
    with trio.move_on_after(10) as scope:
        await writer.aclose()

    assert scope.cancelled_caught
    assert stream.log[:1] == ["aclose begins"]
    assert "aclose" not in stream.log
    assert stream.closed
    assert trio.current_time() == 17


async def test_a_stream_that_cannot_be_closed_is_told_of(autojump_clock: MockClock) -> None:
    class Unclosable(Duplex):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("no space left")

    stream = Unclosable()
    writer = wrap_stream(stream)
    with pytest.raises(trio.BrokenResourceError, match="no space left"):
        await writer.aclose()
    assert stream.log == ["aclose"]


@pytest.mark.parametrize("size", [4, 40])
async def test_a_forceful_close_sends_a_chunk_for_no_longer_than_the_grace(
    autojump_clock: MockClock, size: int
) -> None:
    """The send is the poll, so it gets a chance; nothing is lost by it if it succeeds."""
    line = Line()
    writer = wrap_stream(line, cancel_grace=7)
    writer.poll_write(bytes(size))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await trio.aclose_forcefully(writer)

    assert line.closed
    assert len(line.sent) == trio.current_time() == min(size, 7)
    assert [str(one.message).split(": ")[-1] for one in caught] == (
        ["40 bytes that it had accepted were never sent"] if size == 40 else []
    )


@pytest.mark.parametrize("clean", [True, False])
async def test_a_send_all_that_was_given_up_is_not_waited_for(
    autojump_clock: MockClock, *, clean: bool
) -> None:
    """An HTTP client that timed out gets out of a shielded aclose: in the grace, at the latest."""
    line = Line(0.1)
    writer = BufWriter(wrap_stream(line, cancel_grace=2))
    with trio.move_on_after(1) as scope:
        await writer.send_all(bytes(5 if clean else 100))
    assert scope.cancelled_caught is not clean
    began = trio.current_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await writer.aclose()

    # Nobody knows how much of the chunk was sent.
    assert len(caught) == (not clean)
    assert trio.current_time() - began <= 2
    assert line.closed


async def tls_pair() -> tuple[trio.SSLStream[Any], trio.SSLStream[Any]]:
    ca = trustme.CA()
    client_context = ssl.create_default_context()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.configure_trust(client_context)
    ca.issue_cert("example.org").configure_cert(server_context)
    left, right = trio.testing.memory_stream_pair()
    client = trio.SSLStream(left, client_context, server_hostname="example.org")
    server = trio.SSLStream(right, server_context, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client, server


async def test_trios_tls_says_goodbye_after_a_whole_message() -> None:
    client, server = await tls_pair()
    writer = BufWriter(client)
    assert type(writer.inner) is SendStreamWriter
    await writer.write_all(b"request")
    await writer.shutdown()
    assert await server.receive_some() == b"request"
    await server.send_all(b"answer")
    assert await client.receive_some() == b"answer"

    assert await drain_while(server, writer.aclose) == b""
    await server.aclose()


async def test_trios_tls_says_no_goodbye_after_a_truncated_message() -> None:
    client, server = await tls_pair()
    writer = BufWriter(wrap_stream(client, cancel_grace=0))
    await writer.write_all(b"trunca")
    with pytest.warns(ResourceWarning, match="6 bytes"):
        await trio.aclose_forcefully(writer)

    with pytest.raises(trio.BrokenResourceError):
        await drain(server)


# ---- The reset of a socket below ---------------------------------------------------------------


OFF, RESET, SECONDS = (struct.pack("ii", *linger) for linger in ((0, 0), (1, 0), (1, 2)))


def trio_socket(sock: stdlib_socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock.dup()))


BELOW: dict[str, Callable[[stdlib_socket.socket], Any]] = {
    "SocketStream": trio_socket,
    "FdStream": lambda sock: trio.lowlevel.FdStream(sock.dup().detach()),
    "TcpStream": lambda sock: TcpStream(trio_socket(sock)),
    "StapledStream": lambda sock: trio.StapledStream(*[trio_socket(sock)] * 2),
}


class Chunked(HalfCloseable):
    """It takes five seconds to send whatever it is given."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(5)
        self.sent += data


class Below:
    """A socket below a foreign stream, to be asked for SO_LINGER."""

    def __init__(self, kind: str, linger: bytes = OFF) -> None:
        with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
            self.sock = stdlib_socket.create_connection(listener.getsockname())
            self.peer = listener.accept()[0]
        self.sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, linger)
        self.line = Chunked()
        self.line.transport_stream = BELOW[kind](self.sock)  # type: ignore[attr-defined]

    @property
    def linger(self) -> bytes:
        found = self.sock.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, 8)
        return found if any(found[:4]) else OFF  # the kernel keeps the time of what is off

    async def close(self) -> None:
        """Close what the stream below holds: the Line does not."""
        await self.line.transport_stream.aclose()  # type: ignore[attr-defined]
        self.sock.close()
        self.peer.close()


@pytest.mark.parametrize("kind", BELOW)
@pytest.mark.parametrize("before", [OFF, SECONDS], ids=["off", "seconds"])
@pytest.mark.parametrize("finished", [True, False])
async def test_an_unfinished_buf_arms_the_reset_of_a_socket_below(
    kind: str, before: bytes, *, finished: bool, autojump_clock: MockClock
) -> None:
    """For a stream that is dropped; the user's own setting comes back with the rest."""
    below = Below(kind, before)
    writer = wrap_stream(below.line, 100)
    buf = Buf(bytes(100_000))
    with trio.move_on_after(1):
        await writer.write_all_buf(buf)
    assert 0 < buf.remaining < 100_000
    assert below.linger == RESET
    if finished:
        await writer.write_all_buf(buf)
        assert below.linger == before
        await writer.aclose()
        assert below.linger == (before if kind == "TcpStream" else OFF)
    else:
        with pytest.warns(ResourceWarning):
            await writer.aclose()
        assert below.linger == RESET
    await below.close()


@pytest.mark.parametrize("kind", BELOW)
async def test_a_torn_message_arms_the_reset_of_a_socket_below(
    kind: str, autojump_clock: MockClock
) -> None:
    below = Below(kind)
    writer = wrap_stream(below.line, 100)
    with trio.move_on_after(1):
        await writer.write_all(bytes(100_000))
    assert below.linger == RESET
    with pytest.warns(ResourceWarning):
        await writer.aclose()
    await below.close()


@pytest.mark.parametrize("kind", BELOW)
async def test_a_chunk_that_was_cut_short_arms_the_reset_of_a_socket_below(
    kind: str, autojump_clock: MockClock
) -> None:
    """All of the message was accepted, and an unknown part of it was sent."""
    below = Below(kind)
    writer = wrap_stream(below.line, 0)
    with trio.move_on_after(1):
        await writer.send_all(bytes(60_000))
    assert not below.line.sent
    assert below.linger == RESET
    with pytest.warns(ResourceWarning, match="bytes that it had accepted"):
        await writer.aclose()
    await below.close()


@pytest.mark.parametrize("kind", ["SocketStream", "FdStream", "StapledStream"])
@pytest.mark.parametrize("half_closes", [True, False])
async def test_no_close_of_a_foreign_stream_waits_for_the_peer(
    kind: str, *, half_closes: bool, autojump_clock: MockClock
) -> None:
    """SO_LINGER with a time would block the whole run."""
    below = Below(kind, SECONDS)
    seen: list[bytes] = []

    class Watched(HalfCloseable if half_closes else Duplex):  # type: ignore[misc]
        transport_stream = below.line.transport_stream  # type: ignore[attr-defined]

        async def aclose(self) -> None:
            seen.append(below.linger)
            await trio.lowlevel.checkpoint()

    writer = wrap_stream(Watched(0))
    await writer.write_all(b"whole")
    await writer.aclose()
    assert seen == [OFF]
    await below.close()


async def test_a_pipe_below_a_foreign_stream_is_closed_as_it_is(autojump_clock: MockClock) -> None:
    """It has no reset."""
    reading, writing = os.pipe()
    for fd in (reading, writing):
        line = Line()
        line.transport_stream = trio.lowlevel.FdStream(fd)  # type: ignore[attr-defined]
        await wrap_stream(line).aclose()
        await line.transport_stream.aclose()  # type: ignore[attr-defined]
        await wrap_stream(line).aclose()


# ---- A peer without haste --------------------------------------------------------------------


async def test_a_peer_that_reads_a_byte_a_second(autojump_clock: MockClock) -> None:
    """Through no buffer at all; a writer that has no patience gives up and resumes."""
    data = bytes(range(100))
    left, right = trio.testing.lockstep_stream_one_way_pair()
    writer = BufWriter(wrap_stream(left, cancel_grace=math.inf), 10)
    received = bytearray()

    async def read() -> None:
        while chunk := await right.receive_some(1):
            received.extend(chunk)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        cancelled = 0
        for start in range(0, len(data), 7):
            buf = Buf(data[start : start + 7])
            while buf.remaining:
                with trio.move_on_after(3) as scope:
                    await writer.write_all_buf(buf)
                cancelled += scope.cancelled_caught
        await writer.aclose()

    assert received == data
    assert cancelled > 10


async def test_a_peer_that_never_reads(autojump_clock: MockClock) -> None:
    """The grace is all that it can hold us up."""
    left, _right = trio.testing.lockstep_stream_one_way_pair()
    writer = wrap_stream(left, cancel_grace=3)
    with trio.move_on_after(60) as scope:
        await writer.send_all(b"hello?")

    assert scope.cancelled_caught
    assert trio.current_time() == 63
    with pytest.raises(trio.BrokenResourceError):
        await writer.send_all(b"hello?")
    await writer.aclose()


async def test_a_peer_that_closes_in_the_middle(autojump_clock: MockClock) -> None:
    left, right = trio.testing.lockstep_stream_one_way_pair()
    writer = wrap_stream(left)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError):
                    await writer.send_all(b"hello?")

        nursery.start_soon(send)
        assert await right.receive_some(3) == b"hel"
        await right.aclose()
    await writer.aclose()
