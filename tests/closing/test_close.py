"""The ways to end streams: in a block, many at once, by force."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    BufWriter,
    TcpStream,
    duplex,
    simplex,
    split,
)
from trio_asyncwrite._closing._close import (
    abort,
    close_all_gracefully,
    close_gracefully,
    graceful,
)
from trio_asyncwrite._closing._report import CloseOutcome, CloseReport

from .._endings import Hostile, Result, into, plain, read_and_close, unread_pipe
from .._patience import wait_all_tasks_blocked
from .._streams import (
    clog,
    tcp_pair,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT
BROKEN = CloseOutcome.BROKEN
TRUNCATED = CloseOutcome.TRUNCATED


# ---- graceful ----------------------------------------------------------------------------------


async def test_graceful_closes_at_the_end_of_the_block() -> None:
    left, right = duplex(100)
    async with trio.open_nursery() as nursery:
        received = Result()
        nursery.start_soon(into, received, lambda: read_and_close(right))
        ending = graceful(BufWriter(left))
        with pytest.raises(RuntimeError, match="has ended"):
            _ = ending.report
        async with ending as same:
            assert same is ending
            await ending.stream.write_all(b"hello")

    assert ending.report.outcome is CLEAN
    assert received.value == b"hello"


async def test_what_a_cancelled_block_of_graceful_wrote_arrives_and_is_truncated(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(100)
    with trio.move_on_after(1):
        async with graceful(BufWriter(left), linger=2) as ending:
            await ending.stream.write_all(b"hello")
            # In a nursery Cancelled comes in a group.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)

    assert ending.report == CloseReport(TRUNCATED, peer_closed=False, elapsed=2)
    assert await right.receive_some() == b"hello"
    with pytest.raises(trio.BrokenResourceError):
        await right.receive_some()


@pytest.mark.parametrize("beside", ["alone", "beside a cancellation"])
async def test_what_a_failed_block_of_graceful_wrote_arrives_and_is_truncated(beside: str) -> None:
    left, right = await tcp_pair()
    writer = BufWriter(left)

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True):
        async with graceful(writer) as ending:
            await writer.write_all(b"half a mess")
            if beside == "alone":
                await fail()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    nursery.start_soon(fail)
                    scope.cancel()

    assert ending.report.outcome is TRUNCATED
    assert ending.report.unsent_bytes == 0
    assert await right.receive_some() == b"half a mess"
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await right.receive_some()
    await right.aclose()


async def test_a_group_of_cancellations_and_failures_is_a_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, _ = duplex(100)
    with pytest.RaisesGroup(ZeroDivisionError), trio.CancelScope() as scope:
        async with graceful(left) as ending, trio.open_nursery() as nursery:

            async def fail_when_cancelled() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise ZeroDivisionError

            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)
            await wait_all_tasks_blocked()
            scope.cancel()

    assert ending.report.outcome is TRUNCATED


async def test_graceful_over_a_pipe_that_was_closed_still_reports() -> None:
    pipe = await unread_pipe()
    await pipe.aclose()
    with pytest.raises(ZeroDivisionError):
        async with graceful(pipe) as ending:
            raise ZeroDivisionError

    assert ending.report.outcome is BROKEN
    assert isinstance(ending.report.error, trio.ClosedResourceError)


@pytest.mark.parametrize("leaves", [False, True], ids=["waits", "is cancelled"])
async def test_a_failed_block_of_graceful_only_waits_for_a_close_that_has_begun(
    autojump_clock: trio.testing.MockClock, *, leaves: bool
) -> None:
    """It makes it no harder, truncates nothing, and its exception is the one that is raised."""
    left, right = duplex(10)
    writer = BufWriter(left)
    await writer.write_all(bytes(11))

    async def read_late() -> None:
        await trio.sleep(5)
        assert await read_and_close(right) == bytes(11)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.aclose)
        nursery.start_soon(read_late)
        await wait_all_tasks_blocked()
        with pytest.raises(ZeroDivisionError), trio.move_on_after(1 if leaves else 9):
            async with graceful(writer, timeout=2) as ending:
                raise ZeroDivisionError
        assert trio.current_time() == (1 if leaves else 5)

    if leaves:
        assert ending.report.outcome is BROKEN
        assert isinstance(ending.report.error, trio.ClosedResourceError)
    else:
        assert ending.report == CloseReport(PEER_SILENT, elapsed=5)


# ---- close_all_gracefully ----------------------------------------------------------------------


async def test_many_streams_end_at_once_and_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stuck, _ = duplex(10)
    stuck_writer = BufWriter(stuck)
    await stuck_writer.write_all(bytes(11))
    silent, _ = duplex(10)
    plain_stream, plain_peer = trio.testing.memory_stream_pair()
    prompt, peer = duplex(10)
    await peer.aclose()
    await plain_peer.aclose()

    with trio.CancelScope() as scope:
        scope.cancel()
        reports = await close_all_gracefully(
            iter([stuck_writer, prompt, silent, plain_stream]), timeout=9, linger=5
        )

    assert [(report.outcome, report.elapsed) for report in reports] == [
        (TIMED_OUT, 9),
        (CLEAN, 0),
        (PEER_SILENT, 5),
        (CLEAN, 0),
    ]
    assert trio.current_time() == 9


async def test_no_streams_need_no_time() -> None:
    assert await close_all_gracefully([]) == []


async def test_of_many_streams_none_is_touched_if_one_is_none() -> None:
    left, right = duplex(10)
    for bad in ({"streams": [left, right, "right"]}, {"streams": [left], "timeout": -1}):
        with pytest.raises((TypeError, ValueError)):
            await close_all_gracefully(**bad)  # type: ignore[arg-type]

    await left.send_all(b"x")


# ---- abort -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [lambda stream: stream, BufWriter, plain, lambda stream: BufWriter(plain(stream))],
    ids=["TcpStream", "BufWriter", "SocketStream", "BufWriter-SocketStream"],
)
async def test_abort_resets_a_tcp_connection_at_once(
    make: Callable[[TcpStream], trio.abc.SendStream],
) -> None:
    left, right = await tcp_pair()
    stream = make(left)
    if isinstance(stream, BufWriter):
        await stream.write_all(b"never sent")  # and nothing is said about it

    await abort(stream)

    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await right.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")
    await right.aclose()
    await abort(stream)


async def test_abort_tells_other_tasks() -> None:
    left, right = await tcp_pair()
    clog(left)

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await left.write_all(b"x")

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await left.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await abort(left)
    await trio.aclose_forcefully(right)


async def test_abort_works_in_a_cancelled_task_and_ignores_what_fails() -> None:
    stream = Hostile("release")
    with trio.CancelScope() as scope:
        scope.cancel()
        await abort(stream)
        await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        await stream.write(b"x")


async def test_a_half_that_was_aborted_resets_when_the_other_is_closed() -> None:
    left, right = await tcp_pair()
    reading, writing = split(left)

    await abort(writing)

    await right.send_all(b"still there")
    assert await reading.receive_some() == b"still there"
    await reading.aclose()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await right.receive_some()
    await right.aclose()


async def test_an_aborted_handle_leaves_the_original_open() -> None:
    left, right = await tcp_pair()

    await abort(left.by_ref())

    await left.send_all(b"hello")
    await left.aclose()
    assert await read_and_close(right) == b"hello"


# ---- Arguments ---------------------------------------------------------------------------------

CALLS: dict[str, Callable[..., Any]] = {
    "close_gracefully": close_gracefully,
    "close_all_gracefully": lambda stream, **limits: close_all_gracefully([stream], **limits),
    "graceful": graceful,
    "abort": abort,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_only_streams_that_can_be_sent_to_can_be_ended(call: Callable[..., Any]) -> None:
    _, reader = simplex(10)
    for bad in (None, "stream", reader):
        with pytest.raises(TypeError, match=r"expected a trio\.abc\.SendStream, got"):
            await call(bad)


@pytest.mark.parametrize("call", [*CALLS.values()][:3], ids=[*CALLS][:3])
async def test_limits_are_numbers_and_not_negative(call: Callable[..., Any]) -> None:
    stream, _ = duplex(10)
    for name in ("timeout", "linger", "linger_bytes"):
        is_count = name == "linger_bytes"
        kind = "an integer" if is_count else "a number"
        for bad in (-1, *([] if is_count else [math.nan])):
            with pytest.raises(ValueError, match=f"{name} must be {kind} of at least 0"):
                await call(stream, **{name: bad})
        for bad in (None, "5", True, *([1.5, math.inf] if is_count else [])):
            with pytest.raises(TypeError, match=f"{name} must be {kind}"):
                await call(stream, **{name: bad})
    await stream.send_all(b"x")


async def test_limits_may_be_infinite() -> None:
    left, right = duplex(10)
    await right.aclose()

    assert (await close_gracefully(left, timeout=math.inf, linger=math.inf)).outcome is CLEAN


# ---- Layers that somebody has forgotten --------------------------------------------------------

CLOSES: dict[str, Any] = {
    "aclose": lambda stream: stream.aclose(),
    "aclose_forcefully": trio.aclose_forcefully,
    "close_gracefully": close_gracefully,
}


@pytest.mark.parametrize("close", CLOSES.values(), ids=CLOSES)
async def test_what_a_forgotten_buffer_holds_is_sent(close: Callable[[Any], Any]) -> None:
    left, right = duplex(100)
    await BufWriter(BufWriter(left)).write_all(b"hello")  # and nobody keeps them

    async with trio.open_nursery() as nursery:
        received = Result()
        nursery.start_soon(into, received, lambda: read_and_close(right))
        await close(left)

    assert received.value == b"hello"
