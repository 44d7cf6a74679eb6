from __future__ import annotations

import contextlib
import math
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    Cursor,
    NotReady,
    SharedWriter,
    SimplexReader,
    TcpStream,
    simplex,
    wrap_stream,
)
from trio_asyncwrite._wrappers._timeout_writer import TimeoutWriter
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._streams import (
    assert_leaves_no_cycle,
    clog,
    connected,
    drain,
    pipe_pair,
    tcp_pair,
    unix_pair,
)
from .._tls_helpers import duplex_1, duplex_7, open_tls, plain_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import TypeAlias

    from trio.testing import MockClock

    Layers: TypeAlias = Callable[[Any], AsyncWrite]


def pair(
    *, idle: float | None = None, min_rate: float | None = None, capacity: int = 10
) -> tuple[TimeoutWriter[Any], SimplexReader]:
    writer, reader = simplex(capacity)
    return TimeoutWriter(writer, idle=idle, min_rate=min_rate), reader


async def read_slowly(reader: trio.abc.ReceiveStream, size: int, every: float) -> None:
    while True:
        await trio.sleep(every)
        if not await reader.receive_some(size):
            return


async def discard(*ends: trio.abc.AsyncResource) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for end in ends:
            await trio.aclose_forcefully(end)


async def test_a_stalled_peer_is_given_up_after_idle_seconds(autojump_clock: MockClock) -> None:
    writer, reader = pair(idle=3)
    buf = Buf(b"0123456789abcdef")
    with pytest.raises(trio.TooSlowError, match="nothing has moved for 3 seconds"):
        await writer.write_all_buf(buf)

    assert trio.current_time() == 3
    assert buf.remaining == 6
    await discard(writer, reader)


async def test_one_second_is_told_in_the_singular(autojump_clock: MockClock) -> None:
    writer, reader = pair(idle=1)
    with pytest.raises(trio.TooSlowError, match="nothing has moved for 1 second$"):
        await writer.write_all_buf(Buf(b"0123456789abcdef"))

    await discard(writer, reader)


async def test_a_slow_peer_is_not(autojump_clock: MockClock) -> None:
    writer, reader = pair(idle=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly, reader, 1, 2.9)
        await writer.send_all(bytes(100))
        assert trio.current_time() > 200
        await writer.write_all_vectored([bytes(50), bytes(50)])
        assert trio.current_time() > 500
        await writer.aclose()


async def test_the_idle_period_begins_with_the_last_movement(autojump_clock: MockClock) -> None:
    writer, reader = pair(idle=3)

    async def read_once() -> None:
        await trio.sleep(2)
        await reader.receive_some(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_once)
        with pytest.raises(trio.TooSlowError):
            await writer.write_all(bytes(100))
    assert trio.current_time() == 5
    await discard(writer, reader)


async def test_what_others_write_has_not_moved(autojump_clock: MockClock) -> None:
    inner, reader = simplex(10)
    inner.poll_write(bytes(10))
    writer = TimeoutWriter(BufWriter(inner), idle=3)
    await writer.write_all(b"ours")

    async def write() -> None:
        for _ in range(5):
            await trio.sleep(1)
            await writer.inner.write(b"theirs")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        with pytest.raises(trio.TooSlowError):
            await writer.flush()
        assert trio.current_time() == 3
        nursery.cancel_scope.cancel()
    await discard(writer, reader)


async def test_what_was_not_sent_is_resumable_with_a_new_period(autojump_clock: MockClock) -> None:
    writer, reader = pair(idle=3, min_rate=1)
    data = bytes(range(30))
    buf = Buf(data)
    for times in (1, 2, 3):
        with pytest.raises(trio.TooSlowError):
            await writer.write_all_buf(buf)
        assert trio.current_time() == 3 * times

    async with trio.open_nursery() as nursery:

        async def go_on() -> None:
            await writer.write_all_buf(buf)
            await writer.aclose()

        nursery.start_soon(go_on)
        assert await drain(reader) == data


async def test_time_counts_only_while_an_operation_waits(autojump_clock: MockClock) -> None:
    writer, reader = pair(idle=3, min_rate=1)
    await writer.write_all(bytes(10))
    await trio.sleep(100)
    for _ in range(2):
        with trio.move_on_after(1):
            await writer.write(b"x")
        await trio.sleep(100)
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await writer.write(b"x")
    assert trio.current_time() - began == 1
    await discard(writer, reader)


async def test_a_peer_below_min_rate_is_given_up(autojump_clock: MockClock) -> None:
    """At half the rate, 5 seconds of credit last 10."""
    writer, reader = pair(min_rate=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly, reader, 5, 1)
        with pytest.raises(trio.TooSlowError, match="fewer than 10 bytes per second"):
            await writer.write_all(bytes(1000))
        assert 9 <= trio.current_time() <= 10
        nursery.cancel_scope.cancel()
    await discard(writer, reader)


async def test_a_peer_at_min_rate_is_not(autojump_clock: MockClock) -> None:
    writer, reader = pair(min_rate=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly, reader, 5, 1)
        await writer.send_all(bytes(1000))
        await writer.aclose()
    assert trio.current_time() >= 198


async def test_the_account_goes_over_all_calls(autojump_clock: MockClock) -> None:
    """A peer that takes each of many messages too slowly is too slow."""
    writer, reader = pair(min_rate=10)
    await writer.write_all(bytes(10))
    sent = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly, reader, 5, 1)
        with pytest.raises(trio.TooSlowError, match="fewer than 10 bytes per second"):
            while True:
                await writer.write_all(bytes(5))
                sent += 5
        assert 9 <= trio.current_time() <= 10
        assert 40 <= sent <= 50
        nursery.cancel_scope.cancel()
    await discard(writer, reader)


class Stalling(AsyncWrite):
    """Takes every other write, and each wait takes a second of the peer's time."""

    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.stall = 0.0
        self.ready = False

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.ready = not self.ready
        if self.ready:
            raise NotReady(self.wait)
        return len(data)

    async def wait(self) -> None:
        await trio.sleep(1)
        self.clock.jump(self.stall)


async def test_it_is_not_the_peers_fault_when_other_tasks_block_the_loop(
    autojump_clock: MockClock,
) -> None:
    async with TimeoutWriter(Stalling(autojump_clock), min_rate=10) as writer:
        for writer.inner.stall in (0, 100, 0):
            for _ in range(10):
                await writer.write_all(bytes(20))


async def test_a_cancellation_at_the_same_instant_goes_first(autojump_clock: MockClock) -> None:
    """And the next operation finds that time is up."""
    writer, reader = pair(idle=3)
    buf = Buf(bytes(range(20)))
    with trio.move_on_after(3) as scope:
        await writer.write_all_buf(buf)
    assert scope.cancelled_caught
    assert buf.remaining == 10
    with pytest.raises(trio.TooSlowError):
        await writer.write_all_buf(buf)
    assert trio.current_time() == 3
    await discard(writer, reader)


async def test_a_fast_start_earns_no_more_than_the_grace(autojump_clock: MockClock) -> None:
    writer, reader = pair(min_rate=1, capacity=1000)
    await writer.write_all(bytes(1000))
    with trio.move_on_after(4):
        await writer.write_all(b"x")
    await reader.receive_some()
    await writer.write_all(bytes(1000))
    with pytest.raises(trio.TooSlowError):
        await writer.write_all(b"x")
    assert trio.current_time() == 4 + 5
    await discard(writer, reader)


@pytest.mark.parametrize("operation", ["flush", "shutdown", "aclose", "wait", "vectored"])
async def test_every_operation_that_waits_is_bounded(
    operation: str, autojump_clock: MockClock
) -> None:
    inner, reader = simplex(10)
    inner.poll_write(bytes(10))
    is_write = operation in ("wait", "vectored")
    writer = TimeoutWriter[Any](inner if is_write else BufWriter(inner), idle=3)
    call = {
        "wait": writer.wait_send_all_might_not_block,
        "vectored": partial(writer.write_vectored, [b"a", b"b"]),
    }.get(operation) or getattr(writer, operation)
    if not is_write:
        await writer.write_all(b"x")
    with pytest.raises(trio.TooSlowError):
        await call()
    assert trio.current_time() == 3
    await discard(writer, reader)


async def test_what_stays_in_a_buffer_has_not_moved(autojump_clock: MockClock) -> None:
    inner, reader = simplex(10)
    writer = TimeoutWriter(BufWriter(inner), idle=3)
    await writer.write_all(bytes(20))
    with trio.move_on_after(2) as scope:
        await writer.flush()
    assert scope.cancelled_caught
    await writer.write_all(bytes(20))
    assert writer.unsent_bytes == 30
    with pytest.raises(trio.TooSlowError):
        await writer.flush()
    assert trio.current_time() == 3
    await discard(writer, reader)


async def test_without_limits_it_is_refused() -> None:
    with pytest.raises(ValueError, match="has no limit: give idle, min_rate, or both"):
        TimeoutWriter(Cursor())


async def test_small_writes_into_a_buffer_below_need_no_checkpoint() -> None:
    cursor = Cursor()
    async with TimeoutWriter(BufWriter(cursor), idle=1) as writer:
        await writer.write(b"a")
        with trio.testing.assert_no_checkpoints():
            await writer.write(b"b")
            await writer.write_all(b"c")
        await writer.flush()
        assert cursor.getvalue() == b"abc"
    assert not writer.lifecycle.fast.left


@pytest.mark.parametrize("maker", [tcp_pair, unix_pair])
async def test_a_real_peer_that_never_reads_and_then_does(
    maker: Callable[[], Awaitable[tuple[TcpStream, TcpStream]]], impatient_clock: MockClock
) -> None:
    async with connected(maker) as (stream, peer):
        writer = TimeoutWriter(BufWriter(stream), idle=3)
        clogging = clog(stream)
        buf = Buf(b"y" * 100_000)
        with pytest.raises(trio.TooSlowError):
            await writer.write_all_buf(buf)
        # What the peer's kernel acknowledged first, the clock did not count.
        assert 3 <= trio.current_time() <= 3 + 3 / 8
        received = bytearray()

        async def go_on() -> None:
            await writer.write_all_buf(buf)
            await writer.shutdown()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            received += await drain(peer)
        assert len(received) == clogging + 100_000
        assert received.endswith(b"y" * 100_000)


class Kernel(AsyncWrite):
    """A writer that is never ready, over a TCP stream whose kernel has its own pace."""

    def __init__(self, inner: AsyncWrite, held: Iterator[int | None]) -> None:
        self.inner = inner
        self.held = held

    @property
    def unacknowledged_bytes(self) -> int | None:  # type: ignore[override]
        return next(self.held)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        raise NotReady(trio.sleep_forever)


async def test_bytes_that_leave_the_kernel_have_moved(impatient_clock: MockClock) -> None:
    """Long before the socket is writable again."""
    held = iter([*range(100, 0, -1), *[0] * 100])
    async with connected(tcp_pair) as (stream, _):
        writer = TimeoutWriter(Kernel(stream, held), idle=8)
        with pytest.raises(trio.TooSlowError):
            await writer.write_all(b"x")
        # A look each second, of which 100 saw something move.
        assert 107 <= trio.current_time() <= 109


async def test_a_kernel_that_cannot_tell_is_not_asked_in_between(
    autojump_clock: MockClock,
) -> None:
    """One wait as long as the limit."""
    held = iter([None, None])
    async with connected(unix_pair) as (stream, _):
        writer = TimeoutWriter(Kernel(stream, held), idle=8)
        with pytest.raises(trio.TooSlowError):
            await writer.write_all(b"x")
        assert trio.current_time() == 8
        assert list(held) == []


async def test_a_failure_is_none_of_time(autojump_clock: MockClock) -> None:
    writer, reader = pair(idle=3)

    async def close() -> None:
        await trio.sleep(1)
        await reader.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        with pytest.raises(trio.BrokenResourceError):
            await writer.write_all(bytes(100))
    with pytest.raises(trio.BrokenResourceError):
        await writer.flush()
    await trio.aclose_forcefully(writer)


async def test_it_leaves_no_cycle(autojump_clock: MockClock) -> None:
    async def scenario() -> None:
        writer, reader = pair(idle=3)
        for _ in range(2):
            with contextlib.suppress(trio.TooSlowError):
                await writer.write(bytes(20))
        await reader.aclose()
        with contextlib.suppress(trio.BrokenResourceError):
            await writer.write_all(bytes(20))
        await writer.aclose()

    await assert_leaves_no_cycle(scenario)


async def test_after_shutdown_nothing_is_written() -> None:
    writer, _ = pair(idle=1)
    await writer.shutdown()
    with pytest.raises(trio.ClosedResourceError):
        writer.poll_write(b"x")
    with pytest.raises(trio.ClosedResourceError):
        writer.poll_write_vectored([b"x"])
    with pytest.raises(trio.ClosedResourceError):
        writer.poll_ready()
    await writer.aclose()


@pytest.mark.parametrize("limit", ["idle", "min_rate"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (math.nan, ValueError), ("1", TypeError)],
)
async def test_a_limit_is_a_number_greater_than_zero(
    limit: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=limit):
        TimeoutWriter(Cursor(), **{limit: value})


def timed(stream: Any) -> TimeoutWriter[Any]:
    # A stream that only has send_all must not be cut off in it.
    return TimeoutWriter(wrap_stream(stream, cancel_grace=100), idle=3, min_rate=2)


#: Where bytes go, the layers over it, and how many bytes fill it several times.
STACKS: dict[str, tuple[Callable[[], Awaitable[Any]], Layers, int]] = {
    "duplex, 1": (duplex_1, timed, 6),
    "duplex, 7": (duplex_7, timed, 30),
    "TcpStream": (tcp_pair, timed, 100_000),
    "pipe": (pipe_pair, timed, 200_000),
    "only send_all": (plain_pair, timed, 20_000),
    "over TlsStream": (partial(open_tls, tcp_pair), timed, 100_000),
    "over BufWriter": (duplex_7, lambda stream: timed(BufWriter(stream, 5)), 30),
    "under BufWriter": (duplex_7, lambda stream: BufWriter(timed(stream), 5), 30),
    "under SharedWriter": (duplex_7, lambda stream: SharedWriter(timed(stream)), 30),
}


@pytest.mark.outer
@pytest.mark.parametrize(("maker", "layers", "size"), STACKS.values(), ids=STACKS)
async def test_cancelled_or_timed_out_anywhere_it_delivers_every_byte_once(
    maker: Callable[[], Awaitable[Any]], layers: Layers, size: int, impatient_clock: MockClock
) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    timeouts = 0

    async def persist(call: Callable[[], Awaitable[object]]) -> None:
        nonlocal timeouts
        while True:
            try:
                await call()
            except trio.TooSlowError:
                timeouts += 1
            else:
                return

    async def scenario(sweep: Sweep) -> None:
        stream, peer = await maker()
        writer = layers(stream)
        received = bytearray()

        async def read() -> None:
            while chunk := await peer.receive_some(max(size // 5, 1)):
                received.extend(chunk)
                await trio.sleep(4)  # for longer than is allowed

        buf = Buf(data)

        async def write() -> None:
            await persist(partial(writer.write_all_buf, buf))
            await persist(writer.flush)
            await persist(writer.shutdown)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with sweep:
                await write()
            if buf.remaining:
                await persist(partial(writer.write_all_buf, buf))
            await persist(writer.flush)
            await persist(writer.shutdown)
            await writer.aclose()
        await peer.aclose()
        assert received == data

    assert await cancel_everywhere(scenario) > 10
    assert timeouts or maker is plain_pair


@pytest.mark.outer
async def test_the_contract(autojump_clock: MockClock) -> None:
    async def maker() -> tuple[TimeoutWriter[Any], trio.abc.ReceiveStream]:
        return pair(idle=1e6, min_rate=1e-6)

    async def clogged_maker() -> tuple[TimeoutWriter[Any], trio.abc.ReceiveStream]:
        writer, reader = pair(idle=1e6, min_rate=1e-6)
        writer.inner.poll_write(bytes(10))
        return writer, reader

    await check_async_write(maker, clogged_maker)
    await trio.testing.check_one_way_stream(maker, clogged_maker)


async def test_what_it_wraps() -> None:
    writer, _ = pair(idle=1)
    assert (writer.idle, writer.min_rate) == (1, None)
    assert repr(writer) == f"<TimeoutWriter over {writer.inner!r}>"
    await writer.aclose()
    with pytest.raises(TypeError):
        TimeoutWriter(object(), idle=1)  # type: ignore[call-overload]
