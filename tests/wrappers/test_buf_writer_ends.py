from __future__ import annotations

import gc
import itertools
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import Buf, BufWriter, NotReady, WriteZeroError
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._patience import wait_all_tasks_blocked
from .._streams import (
    clog,
    connected,
    drain_while,
    tcp_pair,
)
from ._buffered import (
    Gate,
    Inner,
    assert_refuses,
    check_room,
    every_second,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio.testing import MockClock


# ---- Cancellation ----------------------------------------------------------------------------


async def test_a_message_that_fits_is_taken_whole_or_not_at_all() -> None:
    """Wherever its write is cancelled."""

    async def scenario(sweep: Sweep) -> None:
        inner = Inner(2, every_second())
        writer = BufWriter(inner, 8)
        await writer.write_all(b"<first>")
        with sweep:
            await writer.write_all(b"<2nd>")
        whole = len(inner.taken) + writer.unsent_bytes
        assert whole in {7, 12}
        if not sweep.cancelled:
            assert whole == 12
        check_room(writer)
        await writer.aclose()
        assert inner.taken == b"<first><2nd>"[:whole]

    assert await cancel_everywhere(scenario) > 5


@pytest.mark.parametrize("write", ["write", "write_vectored", "write_buf"])
async def test_a_cancelled_write_has_accepted_nothing(write: str) -> None:
    async def scenario(sweep: Sweep) -> None:
        inner = Inner(3, every_second())
        writer = BufWriter(inner, 8)
        await writer.write_all(b"<first>")
        data = b"0123456789"
        count = 0
        buf = Buf(data)
        with sweep:
            if write == "write":
                count = await writer.write(data)
            elif write == "write_vectored":
                count = await writer.write_vectored([data[:5], data[5:]])
            else:
                count = await writer.write_buf(buf)
        assert len(inner.taken) + writer.unsent_bytes == 7 + count
        if write == "write_buf":
            assert buf.remaining == 10 - count
        await writer.aclose()
        assert inner.taken == b"<first>" + data[:count]

    assert await cancel_everywhere(scenario) > 5


async def test_whatever_is_cancelled_the_resumed_run_delivers_every_byte_once() -> None:
    messages = [b"header", b"x" * 20, b"a", b"tail of it", b"y" * 40, b"end"]

    async def scenario(sweep: Sweep) -> None:
        inner = Inner(7, every_second())
        writer = BufWriter(inner, 8)
        bufs = [Buf(message[:1], message[1:]) for message in messages]

        async def run() -> None:
            for buf in bufs:
                await writer.write_all_buf(buf)
            await writer.flush()
            await writer.shutdown()

        with sweep:
            await run()
        for buf in bufs:
            if buf.remaining:
                await writer.write_all_buf(buf)
        await writer.flush()
        await writer.shutdown()
        await writer.aclose()
        assert inner.taken == b"".join(messages)
        assert inner.shutdowns == 1

    assert await cancel_everywhere(scenario) > 30


async def test_a_peer_that_never_reads_and_then_does(autojump_clock: MockClock) -> None:
    """Over a real socket: given up and resumed, with messages that fit and some that do not."""
    async with connected(tcp_pair) as (stream, peer):
        writer = BufWriter(stream, 1000)
        clogging = clog(writer)
        data = b""
        bufs = []
        for n in range(50):
            message = bytes([n]) * (n * 100)
            data += message
            bufs.append(Buf(message))
        cancelled = 0
        for buf in bufs:
            with trio.move_on_after(1) as scope:
                await writer.write_all_buf(buf)
            cancelled += scope.cancelled_caught
        assert cancelled > 40

        async def go_on() -> None:
            for buf in bufs:
                await writer.write_all_buf(buf)
            await writer.aclose()

        assert await drain_while(peer, go_on) == bytes(clogging) + data


# ---- Two tasks -------------------------------------------------------------------------------


async def test_two_tasks_at_once() -> None:
    """While one is inside, no other one gets its bytes in, not even those that would fit."""
    inner = Gate()
    writer = BufWriter(inner, 16)
    await writer.write_all(b"<first>")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.flush)
        await wait_all_tasks_blocked()
        for call in (
            lambda: writer.write(b"x"),
            lambda: writer.write_all(b"x"),
            lambda: writer.write_all_vectored([b"x", b"y"]),
            lambda: writer.send_all(b"x"),
            writer.flush,
            writer.shutdown,
        ):
            with pytest.raises(trio.BusyResourceError):
                await call()
        inner.gate.set()

    assert inner.taken == b"<first>"


async def test_closing_ends_another_tasks_wait() -> None:
    inner = Gate()
    writer = BufWriter(inner, 16)
    await writer.write_all(b"<first>")

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.write_all(bytes(16))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        nursery.start_soon(writer.aclose)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            await writer.write(b"x")
        with pytest.raises(trio.ClosedResourceError):
            writer.poll_write(b"x")
        inner.gate.set()

    assert inner.taken == b"<first>"


# ---- The end ---------------------------------------------------------------------------------


async def test_nothing_is_written_once_a_shutdown_has_begun() -> None:
    inner = Gate()
    writer = BufWriter(inner, 16)
    await writer.write_all(b"data")
    with pytest.raises(NotReady):
        writer.poll_shutdown()
    await assert_refuses(writer, trio.ClosedResourceError, flush=False)
    with pytest.raises(NotReady):
        writer.poll_flush()
    inner.gate.set()
    writer.poll_flush()
    check_room(writer)
    await assert_refuses(writer, trio.ClosedResourceError, flush=False)
    await writer.shutdown()
    await assert_refuses(writer, trio.ClosedResourceError, flush=False)
    await writer.flush()
    await writer.shutdown()

    assert inner.taken == b"data"
    assert inner.shutdowns == 1
    await writer.aclose()


def test_a_completed_shutdown_touches_the_inner_writer_no_more() -> None:
    class Once(Inner):
        def poll_shutdown(self) -> None:
            assert not self.shutdowns
            super().poll_shutdown()

    inner = Once()
    writer = BufWriter(inner, 16)
    writer.poll_write(b"data")
    for _ in range(2):
        writer.poll_shutdown()

    assert inner.taken == b"data"
    assert inner.shutdowns == 1


async def test_nothing_is_written_after_a_close() -> None:
    inner = Inner()
    writer = BufWriter(inner, 16)
    await writer.write_all(b"data")
    await writer.aclose()
    await assert_refuses(writer, trio.ClosedResourceError, flush=True)

    assert inner.taken == b"data"
    await writer.aclose()


async def test_nothing_is_written_after_a_close_that_lost_bytes() -> None:
    """They are counted still; what the transport took at once is not among them."""
    inner = Inner(3, iter([True, False]))
    writer = BufWriter(inner, 16)
    await writer.write_all(b"truncated")
    with pytest.warns(ResourceWarning, match="6 bytes that it had accepted were never sent"):
        await trio.aclose_forcefully(writer)
    await assert_refuses(writer, trio.ClosedResourceError, flush=True)

    assert inner.taken == b"tru"
    assert inner.shutdowns == 0
    assert writer.unsent_bytes == 6


async def test_closing_the_inner_writer_flushes_and_closes_it() -> None:
    inner = Inner()
    writer = BufWriter(inner, 16)
    await writer.write_all(b"data")
    await inner.aclose()
    assert inner.taken == b"data"
    assert writer.closed
    await assert_refuses(writer, trio.ClosedResourceError, flush=True)
    await writer.aclose()

    assert writer.unsent_bytes == 0


async def test_an_error_of_trios_that_a_poll_below_raises_is_a_failure() -> None:
    """Only the library's own refusals break nothing; nobody knows the reason of this one."""

    class Busy(Inner):
        busy = True

        def require_ready(self) -> None:
            if self.busy:
                raise trio.BusyResourceError

    inner = Busy()
    writer = BufWriter(inner, 16)
    await writer.write_all(b"data")
    with pytest.raises(trio.BusyResourceError):
        await writer.flush()
    inner.busy = False
    await assert_refuses(writer, trio.BrokenResourceError, flush=True)
    await writer.aclose()

    assert inner.taken == b""


def test_garbage_with_unflushed_bytes_is_reported_by_each_who_had_some() -> None:
    """Of two layers, that keep each other alive, each counts its own bytes."""
    writers = [BufWriter(Inner(), 100)]
    writers.append(BufWriter(writers[0], 10))
    writers[0].poll_write(b"inner")
    writers[1].poll_write(b"outer!")
    assert writers[1].unsent_bytes == 11
    writers.clear()
    with pytest.warns(ResourceWarning) as warnings:
        gc.collect()

    assert sorted(str(warning.message).split(": ")[1] for warning in warnings) == [
        "5 bytes that it had accepted were never sent",
        "6 bytes that it had accepted were never sent",
    ]


# ---- An inner writer that fails --------------------------------------------------------------


class Failing(Inner):
    """One that fails at its n-th poll, and not again."""

    def __init__(self, at: int, error: BaseException, most: int = 2**30) -> None:
        super().__init__(most)
        self.at = at
        self.error = error

    def require_ready(self) -> None:
        self.at -= 1
        if not self.at:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        trio.BrokenResourceError("gone"),
        OSError("gone"),
        WriteZeroError("full"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("at", range(1, 8))
async def test_a_failure_at_the_nth_call_stays(at: int, error: BaseException) -> None:
    """Nothing of what waits goes out after it.

    It passes through unchanged; but an error of the system is told in Trio's words.
    """
    inner = Failing(at, error, most=7)
    writer = BufWriter(inner, 10)
    accepted = 0
    is_system = isinstance(error, OSError)
    with pytest.raises(trio.BrokenResourceError if is_system else type(error)) as info:
        for n in itertools.count():
            accepted += writer.poll_write(bytes([n]) * (4, 9, 25)[n % 3])
    assert (info.value.__cause__ if is_system else info.value) is error
    taken = bytes(inner.taken)
    assert writer.unsent_bytes == accepted - len(taken)

    await assert_refuses(writer, trio.BrokenResourceError, flush=True)
    await writer.aclose()
    assert inner.taken == taken
    assert inner.shutdowns == 0
    assert writer.unsent_bytes == accepted - len(taken)
    error.__traceback__ = None


@pytest.mark.parametrize("poll", ["poll_flush", "poll_shutdown"])
async def test_a_failure_in_a_flush_or_shutdown_stays(poll: str) -> None:
    for at in (1, 2, 3):
        inner = Failing(at, OSError("gone"))
        writer = BufWriter(inner, 10)
        writer.poll_write(b"data")
        if poll == "poll_flush" and at == 3:
            writer.poll_flush()
            continue
        with pytest.raises(trio.BrokenResourceError, match="gone"):
            getattr(writer, poll)()

        assert len(inner.taken) == 4 - writer.unsent_bytes == (0 if at == 1 else 4)
        await assert_refuses(writer, trio.BrokenResourceError, flush=True)
        await writer.aclose()


async def test_a_failure_that_aclose_is_the_first_to_find() -> None:
    inner = Failing(1, OSError("gone"))
    writer = BufWriter(inner, 10)
    await writer.write_all(b"data")
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await writer.aclose()
    assert inner.lifecycle.released
    await writer.aclose()

    assert writer.unsent_bytes == 4


class Liar(Inner):
    """One that answers anything."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        super().poll_write_vectored(buffers)
        answer: int = self.answer
        return answer


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (0, WriteZeroError, "accepted 0 of"),
        (-1, RuntimeError, "claims to have accepted -1 of"),
        (1000, RuntimeError, "claims to have accepted 1000 of"),
        (None, TypeError, "returned None"),
    ],
)
@pytest.mark.parametrize("how", ["flush", "room", "bypass", "both"])
async def test_an_inner_writer_that_lies_is_found_out(
    answer: Any, error: type[Exception], text: str, how: str
) -> None:
    """And believed nothing from then on."""
    writer = BufWriter(Liar(answer), 10)
    if how != "bypass":
        writer.poll_write(b"data")
    calls: dict[str, Callable[[], object]] = {
        "flush": writer.poll_flush,
        "room": lambda: writer.poll_write(b"1234567"),
        "bypass": lambda: writer.poll_write(b"0123456789"),
        "both": lambda: writer.poll_write(b"0123456789"),
    }
    with pytest.raises(error, match=text):
        calls[how]()

    await assert_refuses(writer, trio.BrokenResourceError, flush=True)
    await writer.aclose()


def test_ctrl_c_does_not_fall_into_a_poll() -> None:
    """Pressed in the midst of an inner poll, it waits for the next checkpoint."""

    class Pressed(Inner):
        def require_ready(self) -> None:
            signal.raise_signal(signal.SIGINT)

    inner = Pressed(most=7)
    writer = BufWriter(inner, 8)

    async def main() -> None:
        writer.poll_write(b"abcde")
        assert writer.poll_write(b"0123456789") == 2
        assert writer.poll_write_vectored([b"234", b"567"]) == 6
        assert writer.poll_write(bytearray(b"89")) == 2
        writer.poll_flush()
        assert inner.taken == b"abcde0123456789"
        with pytest.raises(KeyboardInterrupt):
            await trio.lowlevel.checkpoint()

    trio.run(main)
    check_room(writer)


def test_ctrl_c_in_an_await_loses_nothing() -> None:
    class Pressed(Inner):
        def require_ready(self) -> None:
            super().require_ready()
            if len(self.offers) == 3:
                signal.raise_signal(signal.SIGINT)

    inner = Pressed(3, every_second())
    writer = BufWriter(inner, 8)
    data = bytes(range(100))

    async def main() -> None:
        buf = Buf(data)
        with pytest.raises(KeyboardInterrupt):
            await writer.write_all_buf(buf)
        assert 0 < buf.remaining < 100
        await writer.write_all_buf(buf)
        await writer.aclose()

    trio.run(main)
    assert inner.taken == data
