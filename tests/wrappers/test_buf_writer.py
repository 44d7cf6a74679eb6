from __future__ import annotations

import itertools
import pickle
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from trio_asyncwrite import AsyncWrite, Buf, BufWriter, NotReady, Sink, WriteZeroError
from trio_asyncwrite._core._phase import OPEN
from trio_asyncwrite._wrappers._buf_writer import DEFAULT_CAPACITY
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._streams import (
    assert_leaves_no_cycle,
    clog,
    clogged,
    connected,
    drain_while,
    tcp_pair,
    unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from trio.testing import MockClock

    from trio_asyncwrite import TcpStream


class Inner(AsyncWrite):
    """A writer that takes at most ``most`` bytes a call, and is ready when ``ready`` says so."""

    def __init__(self, most: int = 2**30, ready: Iterator[bool] | None = None) -> None:
        self.most = most
        self.ready = itertools.repeat(True) if ready is None else ready
        self.taken = bytearray()
        #: What every write offered, in how many pieces.
        self.offers: list[list[bytes]] = []
        self.dirty = False
        self.flushes = 0
        self.shutdowns = 0
        self.waits = 0

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return self.poll_write_vectored([data])

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        self._check_open()
        self.require_ready()
        self.offers.append([bytes(data) for data in buffers])
        some = b"".join(buffers)[: self.most]
        self.taken += some
        self.dirty = True
        return len(some)

    def poll_flush(self) -> None:
        super().poll_flush()
        if self.dirty:
            self.require_ready()
            self.dirty = False
            self.flushes += 1

    def poll_shutdown(self) -> None:
        if self._begin_shutdown():
            self.require_ready()
            self.shutdowns += 1
            super().poll_shutdown()

    def require_ready(self) -> None:
        if not next(self.ready):
            raise NotReady(self.wait)

    async def wait(self) -> None:
        self.waits += 1
        await trio.lowlevel.checkpoint()


class NotGathering(Inner):
    """One that knows nothing of gathered writes."""

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return Inner.poll_write_vectored(self, [data])

    poll_write_vectored = AsyncWrite.poll_write_vectored


class Gate(Inner):
    """One that is ready once somebody opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = trio.Event()

    def require_ready(self) -> None:
        if not self.gate.is_set():
            raise NotReady(self.gate.wait)


def every_second() -> Iterator[bool]:
    """Not ready, ready, not ready ..."""
    return itertools.cycle([False, True])


def never() -> Iterator[bool]:
    return itertools.repeat(False)


def check_room(writer: BufWriter[Any]) -> None:
    """What ``_room`` promises: so much of the capacity is free, and behind what waits."""
    store = writer._store
    used = 0 if store is None else store.tell()
    waiting = used - writer._start
    assert 0 <= writer._start <= used <= writer.capacity
    assert waiting == writer.unsent_bytes - writer.inner.unsent_bytes
    assert writer._room == (writer.capacity - used if writer._phase is OPEN else 0)


# ---- Trio's contract, and ours ---------------------------------------------------------------


async def tcp_maker() -> tuple[BufWriter[TcpStream], TcpStream]:
    stream, peer = await tcp_pair()
    return BufWriter(stream, 1000), peer


async def small_maker() -> tuple[BufWriter[TcpStream], TcpStream]:
    stream, peer = await unix_pair()
    return BufWriter(stream, 16), peer


@pytest.mark.parametrize("maker", [tcp_maker, small_maker])
# Both checkers also close what has unsent bytes.
@pytest.mark.filterwarnings("ignore:.*were never sent:ResourceWarning")
async def test_it_keeps_the_contract(
    maker: Callable[[], Awaitable[tuple[BufWriter[TcpStream], TcpStream]]],
) -> None:
    await trio.testing.check_one_way_stream(maker, clogged(maker))
    await check_async_write(maker, clogged(maker))


# ---- What it is made of ----------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, -1, -65536])
def test_a_capacity_of_nothing(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"capacity must be .* at least 1, got {capacity}"):
        BufWriter(Sink(), capacity)


@pytest.mark.parametrize("capacity", [1.0, "1", None, [1]])
def test_a_capacity_that_is_no_integer(capacity: Any) -> None:
    with pytest.raises(TypeError, match="capacity must be an integer"):
        BufWriter(Sink(), capacity)


def test_a_capacity_that_only_behaves_like_an_integer() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    assert BufWriter(Sink(), Three()).capacity == 3  # type: ignore[call-overload]


def test_it_names_its_capacity_and_its_inner_writer() -> None:
    sink = Sink()
    writer = BufWriter(sink)

    assert writer.inner is sink
    assert writer.capacity == DEFAULT_CAPACITY == 65536
    assert repr(writer) == "<BufWriter of 65536 bytes over <Sink>>"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("text", TypeError),
        (None, TypeError),
        ([1], TypeError),
        (1, TypeError),
        (memoryview(b"abcd")[::2], BufferError),
    ],
    ids=["str", "None", "list", "int", "gaps"],
)
async def test_what_is_not_bytes_is_refused(data: Any, error: type[Exception]) -> None:
    """At once, with nothing accepted: whether it would fit or not."""
    for capacity in (1, 64):
        inner = Inner()
        writer = BufWriter(inner, capacity)
        for poll in (
            lambda w=writer: w.poll_write(data),
            lambda w=writer: w.poll_write_vectored([b"never", data]),
        ):
            with pytest.raises(error):
                poll()
        for call in (
            lambda w=writer: w.write(data),
            lambda w=writer: w.write_all(data),
            lambda w=writer: w.send_all(data),
            lambda w=writer: w.write_vectored([b"never", data]),
        ):
            with pytest.raises(error):
                await call()
        check_room(writer)
        await writer.send_all(b"good")
        assert inner.taken == b"good"
        await writer.aclose()


async def test_a_view_of_other_items_counts_as_its_bytes() -> None:
    square = memoryview(bytes(range(16))).cast("B", (4, 4))
    words = memoryview(bytes(range(16))).cast("I")
    for capacity in (8, 64):
        inner = Inner()
        writer = BufWriter(inner, capacity)
        assert writer.poll_write(square) == 16
        assert await writer.write(words) == 16
        assert writer.poll_write_vectored([words, square]) == 32
        await writer.aclose()

        assert inner.taken == bytes(range(16)) * 4


async def test_empty_data_is_accepted_as_nothing() -> None:
    for capacity in (1, 64):
        inner = Inner()
        writer = BufWriter(inner, capacity)
        assert writer.poll_write(b"") == 0
        assert writer.poll_write(bytearray()) == 0
        assert writer.poll_write_vectored([]) == 0
        assert writer.poll_write_vectored([b"", b""]) == 0
        assert await writer.write(b"") == 0
        await writer.send_all(b"")
        check_room(writer)
        await writer.aclose()

        assert inner.offers == []


async def test_many_megabytes_arrive_in_order() -> None:
    """Large and small mixed, over the real thing."""
    pieces = [
        bytes([n % 251]) * (1, 100, 65_535, 65_536, 65_537, 500_000)[n % 6] for n in range(60)
    ]
    async with connected(unix_pair) as (stream, peer):
        writer = BufWriter(stream)

        async def write() -> None:
            for piece in pieces:
                await writer.write_all(piece)
            await writer.aclose()

        assert await drain_while(peer, write) == b"".join(pieces)


# ---- The table: buffer size x write size x hostile inner writer ------------------------------

INNERS: dict[str, Callable[[], Inner]] = {
    "takes all": Inner,
    "takes a byte": lambda: Inner(most=1),
    "takes five": lambda: Inner(most=5),
    "ready every second time": lambda: Inner(ready=every_second()),
    "takes five every second time": lambda: Inner(5, every_second()),
    "gathers not": NotGathering,
    "gathers not, takes five every second time": lambda: NotGathering(5, every_second()),
}


async def by_write_all(writer: AsyncWrite, data: bytes) -> None:
    await writer.write_all(data)


async def by_write(writer: AsyncWrite, data: bytes) -> None:
    """With the counts that it returns."""
    view = memoryview(data)
    while view:
        view = view[await writer.write(view) :]


async def by_polls(writer: AsyncWrite, data: bytes) -> None:
    while data:
        try:
            data = data[writer.poll_write(data) :]
        except NotReady as not_ready:
            await not_ready.wait()


async def by_gathered_write(writer: AsyncWrite, data: bytes) -> None:
    await writer.write_all_vectored([data[:1], b"", data[1:3], data[3:]])


async def by_send_all(writer: AsyncWrite, data: bytes) -> None:
    await writer.send_all(data)
    assert writer.unsent_bytes == 0


@pytest.mark.parametrize(
    "write", [by_write_all, by_write, by_polls, by_gathered_write, by_send_all]
)
@pytest.mark.parametrize("inner", INNERS)
@pytest.mark.parametrize("capacity", [1, 2, 16])
async def test_every_size_through_every_buffer(
    capacity: int, inner: str, write: Callable[[AsyncWrite, bytes], Awaitable[None]]
) -> None:
    """Every byte once, in order; never more kept than the capacity."""
    sizes = sorted({0, 1, 2, capacity - 1, capacity, capacity + 1, 3 * capacity})
    for size, follow in itertools.product(sizes, sizes):
        below = INNERS[inner]()
        writer = BufWriter(below, capacity)
        sent = b""
        for length in (size, size, follow, 1):
            message = bytes((len(sent) + n) % 256 for n in range(length))
            await write(writer, message)
            check_room(writer)
            sent += message
            assert len(below.taken) + writer.unsent_bytes == len(sent)
        await writer.flush()
        check_room(writer)
        assert below.taken == sent
        await writer.aclose()
        assert below.taken == sent
        assert below.shutdowns == 1


# ---- What leaves when ------------------------------------------------------------------------


async def test_small_writes_are_collected() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    for _ in range(3):
        await writer.write_all(b"abc")
    assert inner.offers == []
    assert writer.unsent_bytes == 9
    await writer.write_all(b"def")
    assert inner.offers == [[b"abcabcabc"]]
    assert writer.unsent_bytes == 3

    await writer.flush()
    assert inner.offers == [[b"abcabcabc"], [b"def"]]
    assert inner.flushes == 1


async def test_a_write_that_fills_the_buffer_exactly_stays_in_it() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    await writer.write_all(b"12345")
    await writer.write_all(b"67890")
    assert inner.offers == []
    await writer.write_all(b"x")

    assert inner.offers == [[b"1234567890"]]
    check_room(writer)
    await writer.flush()


async def test_a_large_write_bypasses_the_buffer() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    await writer.write_all(b"0123456789")
    await writer.write_all(bytearray(b"0123456789abc"))

    assert inner.offers == [[b"0123456789"], [b"0123456789abc"]]
    assert writer._store is None


async def test_what_waits_and_a_large_write_leave_in_one_call() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    await writer.write_all(b"head")
    await writer.write_all(b"0123456789abc")
    await writer.write_all(b"head")
    await writer.write_all_vectored([b"012345", b"6789"])

    assert inner.offers == [[b"head", b"0123456789abc"], [b"head", b"012345", b"6789"]]


async def test_small_buffers_that_are_large_together_are_not_copied() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    assert await writer.write_vectored([b"0123", b"4567"]) == 8
    assert inner.offers == []
    assert await writer.write_vectored([b"abcd", b"efghij"]) == 10

    assert inner.offers == [[b"01234567", b"abcd", b"efghij"]]


def test_a_large_write_is_counted_without_what_waited() -> None:
    inner = Inner(most=6)
    writer = BufWriter(inner, 10)
    writer.poll_write(b"head")

    assert writer.poll_write(b"0123456789") == 2
    assert inner.taken == b"head01"
    assert writer.poll_write(b"23456789..") == 6
    assert writer.unsent_bytes == 0


def test_a_large_write_that_only_pushes_what_waited_out_accepts_nothing() -> None:
    inner = Inner(ready=iter([True, False]))
    inner.most = 4
    writer = BufWriter(inner, 10)
    writer.poll_write(b"head")
    with pytest.raises(NotReady):
        writer.poll_write(b"0123456789")

    assert inner.taken == b"head"
    assert writer.unsent_bytes == 0
    check_room(writer)


def test_the_order_stays_whatever_is_mixed() -> None:
    inner = Inner(most=3)
    writer = BufWriter(inner, 8)
    sent = b""
    for message in (b"a", b"bc", b"0123456789", b"de", b"0123456789", b"fghijkl", b"m"):
        while message:
            count = writer.poll_write_vectored([message[:2], message[2:]])
            sent += message[:count]
            message = message[count:]
        assert inner.taken + b"." * writer.unsent_bytes == sent[: len(inner.taken)] + b"." * (
            len(sent) - len(inner.taken)
        )
    writer.poll_flush()

    assert inner.taken == sent == b"abc0123456789de0123456789fghijklm"


def test_an_idle_buffer_holds_no_memory() -> None:
    writer = BufWriter(Inner())
    assert writer._store is None
    for _ in range(2):
        writer.poll_write(b"data")
        assert writer._store is not None
        writer.poll_flush()
        assert writer._store is None
        assert "_append" not in vars(writer)
        writer.poll_flush()


def test_it_is_ready_while_there_is_room() -> None:
    inner = Inner(ready=never())
    writer = BufWriter(inner, 4)
    for _ in range(4):
        writer._poll_ready()
        writer.poll_write(b"x")
    with pytest.raises(NotReady):
        writer._poll_ready()
    inner.ready = iter([True])
    writer._poll_ready()

    assert inner.taken == b"xxxx"
    check_room(writer)


async def test_a_buffer_of_one_byte_is_as_ready_as_its_inner_writer() -> None:
    """Every write bypasses it."""
    async with connected(unix_pair) as (stream, peer):
        writer = BufWriter(stream, 1)
        writer._poll_ready()
        count = clog(writer)
        with pytest.raises(NotReady):
            writer._poll_ready()
        await peer.receive_some(count)
        writer._poll_ready()


async def test_an_unfinished_flush_goes_on_where_it_was() -> None:
    inner = Inner(2, iter([True, False, True, True, False, True]))
    writer = BufWriter(inner, 10)
    writer.poll_write(b"12345")
    with pytest.raises(NotReady):
        writer.poll_flush()
    assert inner.taken == b"12"
    check_room(writer)
    writer.poll_write(b"6")
    check_room(writer)
    with pytest.raises(NotReady):
        writer.poll_flush()

    assert inner.taken == b"123456"
    writer.poll_flush()
    assert inner.flushes == 1


def test_what_waits_is_moved_to_the_front_when_its_place_is_needed() -> None:
    """Also when the two places overlap."""
    for pushed in range(1, 8):
        inner = Inner(pushed, iter([True, False]))
        writer = BufWriter(inner, 8)
        writer.poll_write(b"abcdefg")
        with pytest.raises(NotReady):
            writer.poll_flush()
        assert writer._start == pushed % 7
        assert writer.poll_write(b"h" * pushed) == pushed
        check_room(writer)
        inner.ready = itertools.repeat(True)
        writer.poll_flush()

        assert inner.taken == b"abcdefg" + b"h" * pushed


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
        await trio.testing.wait_all_tasks_blocked()
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
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(writer.aclose)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            await writer.write(b"x")
        with pytest.raises(trio.ClosedResourceError):
            writer.poll_write(b"x")
        inner.gate.set()

    assert inner.taken == b"<first>"


# ---- The end ---------------------------------------------------------------------------------


async def assert_refuses(writer: BufWriter[Any], error: type[Exception], *, flush: bool) -> None:
    """Every way to write is refused, twice, and what waits stays as it is."""
    waiting = writer.unsent_bytes
    for _ in range(2):
        for data in (b"", b"x", bytes(writer.capacity)):
            for poll in (
                lambda data=data: writer.poll_write(data),
                lambda data=data: writer.poll_write(bytearray(data)),
                lambda data=data: writer.poll_write_vectored([data]),
                writer._poll_ready,
            ):
                with pytest.raises(error):
                    poll()
            for call in (
                lambda data=data: writer.write(data),
                lambda data=data: writer.write_all(data),
                lambda data=data: writer.write_all_buf(Buf(data)),
                lambda data=data: writer.write_all_vectored([data]),
                lambda data=data: writer.send_all(data),
                writer.wait_send_all_might_not_block,
            ):
                with pytest.raises(error):
                    await call()
        if flush:
            with pytest.raises(error):
                writer.poll_flush()
            with pytest.raises(error):
                await writer.flush()
            with pytest.raises(error):
                writer.poll_shutdown()
            with pytest.raises(error):
                await writer.shutdown()
    check_room(writer)
    assert writer.unsent_bytes == waiting


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


async def test_an_inner_writer_closed_behind_our_back() -> None:
    """A mistake, and no failure: nothing is dropped, and every attempt to send says so."""
    inner = Inner()
    writer = BufWriter(inner, 16)
    await writer.write_all(b"data")
    await inner.aclose()
    for _ in range(2):
        with pytest.raises(trio.ClosedResourceError):
            await writer.flush()
        with pytest.raises(trio.ClosedResourceError):
            await writer.write_all(bytes(16))
        check_room(writer)
    with pytest.raises(trio.ClosedResourceError):
        await writer.aclose()

    assert writer.unsent_bytes == 4


async def test_busy_below_goes_with_its_reason() -> None:
    class Busy(Inner):
        busy = True

        def require_ready(self) -> None:
            if self.busy:
                raise trio.BusyResourceError

    inner = Busy()
    writer = BufWriter(inner, 16)
    await writer.write_all(b"data")
    for _ in range(2):
        with pytest.raises(trio.BusyResourceError):
            await writer.flush()
        check_room(writer)
    inner.busy = False
    await writer.write_all(bytes(16))

    assert inner.taken == b"data" + bytes(16)
    await writer.aclose()


def test_garbage_with_unflushed_bytes_is_reported_by_the_one_who_had_them() -> None:
    inner = BufWriter(Inner(), 100)
    writers = [BufWriter(inner, 10)]
    inner.poll_write(b"inner")
    writers[0].poll_write(b"outer!")
    assert writers[0].unsent_bytes == 11
    with pytest.warns(ResourceWarning) as warnings:
        writers.clear()  # it is in no cycle
    inner.poll_flush()

    assert [str(warning.message).split(": ")[1] for warning in warnings] == [
        "6 bytes that it had accepted were never sent"
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
    """It passes through unchanged, and nothing of what waits goes out after it."""
    inner = Failing(at, error, most=7)
    writer = BufWriter(inner, 10)
    accepted = 0
    with pytest.raises(type(error)) as info:
        for n in itertools.count():
            accepted += writer.poll_write(bytes([n]) * (4, 9, 25)[n % 3])
    assert info.value is error
    taken = bytes(inner.taken)
    assert writer.unsent_bytes == accepted - len(taken)

    await assert_refuses(writer, trio.BrokenResourceError, flush=True)
    await writer.aclose()
    assert inner.taken == taken
    assert inner.shutdowns == 0
    assert writer.unsent_bytes == accepted - len(taken)


@pytest.mark.parametrize("poll", ["poll_flush", "poll_shutdown"])
async def test_a_failure_in_a_flush_or_shutdown_stays(poll: str) -> None:
    for at in (1, 2, 3):
        inner = Failing(at, OSError("gone"))
        writer = BufWriter(inner, 10)
        writer.poll_write(b"data")
        if poll == "poll_flush" and at == 3:
            writer.poll_flush()
            continue
        with pytest.raises(OSError, match="gone"):
            getattr(writer, poll)()

        assert len(inner.taken) == 4 - writer.unsent_bytes == (0 if at == 1 else 4)
        await assert_refuses(writer, trio.BrokenResourceError, flush=True)
        await writer.aclose()


async def test_a_failure_that_aclose_is_the_first_to_find() -> None:
    inner = Failing(1, OSError("gone"))
    writer = BufWriter(inner, 10)
    await writer.write_all(b"data")
    with pytest.raises(OSError, match="gone"):
        await writer.aclose()
    assert inner._released
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
        (None, TypeError, "NoneType"),
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


# ---- Views -----------------------------------------------------------------------------------


class Keeper(Inner):
    """One that breaks the contract: it keeps what it was lent."""

    def __init__(self, most: int, keep: Callable[[Any], object]) -> None:
        super().__init__(most)
        self.keep = keep
        self.kept: list[object] = []

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        self.kept.append([self.keep(data) for data in buffers])
        return super().poll_write_vectored(buffers)


def keeper_of_a_slice() -> BufWriter[Keeper]:
    """One whose inner writer has taken 3 of 7 bytes, and kept a slice of all 7."""
    inner = Keeper(3, lambda data: data[:])
    inner.ready = iter([True, False])
    writer = BufWriter(inner, 8)
    writer.poll_write(b"abcdefg")
    with pytest.raises(NotReady):
        writer.poll_flush()
    inner.ready = itertools.repeat(True)
    return writer


async def test_an_inner_writer_that_keeps_a_slice_is_loud_and_loses_nothing() -> None:
    """What is kept cannot be added to; all that was accepted goes out."""
    writer = keeper_of_a_slice()
    for data in (b"h", b"hi", b"hij", bytearray(b"hi")):
        with pytest.raises(BufferError):
            writer.poll_write(data)
        with pytest.raises(BufferError):
            writer.poll_write_vectored([data, b"x"])
        check_room(writer)
        assert writer.unsent_bytes == 4
    await writer.flush()
    assert writer.inner.taken == b"abcdefg"
    await writer.write_all(b"hi")
    await writer.aclose()

    assert writer.inner.taken == b"abcdefghi"


async def test_a_buffer_that_cannot_be_added_to_fails_in_an_await() -> None:
    """There, every exception of a poll is a failure; what waits is counted still."""
    writer = keeper_of_a_slice()
    with pytest.raises(BufferError):
        await writer.write(bytearray(b"hi"))

    await assert_refuses(writer, trio.BrokenResourceError, flush=True)
    assert writer.unsent_bytes == 4
    await writer.aclose()


@pytest.mark.parametrize("how", ["flush", "bypass"])
async def test_an_inner_writer_that_keeps_an_export_breaks_the_buffer(how: str) -> None:
    """How much it took is forgotten on the way: it must not be sent again."""
    inner = Keeper(6, pickle.PickleBuffer)
    writer = BufWriter(inner, 8)
    writer.poll_write(b"abcd")
    with pytest.raises(BufferError):
        writer.poll_flush() if how == "flush" else writer.poll_write(bytes(8))

    taken = bytes(inner.taken)
    await assert_refuses(writer, trio.BrokenResourceError, flush=True)
    inner.kept.clear()
    await assert_refuses(writer, trio.BrokenResourceError, flush=True)
    assert inner.taken == taken
    await writer.aclose()


class Slicing(Inner):
    """One whose frames hold a slice of what it was lent, and are kept by its exceptions."""

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        slices = [memoryview(data)[:] for data in buffers]
        exports = [pickle.PickleBuffer(data) for data in slices]
        try:
            self.most //= next(self.ready)
        except ZeroDivisionError:
            raise NotReady(self.wait)  # noqa: B904 - the context is under test
        assert exports
        some = b"".join(slices)[: self.most]
        self.taken += some
        return len(some)


async def test_a_kept_not_ready_does_not_lock_the_buffer() -> None:
    inner = Slicing(3, iter([True, False, False, False, *[True] * 20]))
    writer = BufWriter(inner, 8)
    writer.poll_write(b"abcdefg")
    with pytest.raises(NotReady) as flushing:
        writer.poll_flush()
    assert writer.poll_write(b"hijk") == 4  # after it was moved to the front
    with pytest.raises(NotReady) as writing:
        writer.poll_write(b"l")
    with pytest.raises(NotReady) as gathering:
        writer.poll_write(bytes(8))
    check_room(writer)
    await writer.flush()

    assert inner.taken == b"abcdefghijk"
    assert flushing.value
    assert writing.value
    assert gathering.value
    await writer.aclose()


@pytest.mark.parametrize("size", [3, 8, 30])
async def test_the_callers_buffer_is_free_after_the_call(size: int) -> None:
    """Accepted or not, and whoever keeps the exception: it can be resized."""
    inner = Slicing(ready=never())
    writer = BufWriter(inner, 8)
    data = bytearray(size)
    writer.poll_write(b"abcdefg")
    with pytest.raises(NotReady) as writing:
        writer.poll_write(data)
    data.append(1)
    with pytest.raises(NotReady) as gathering:
        writer.poll_write_vectored([b"xx", data])
    data.append(2)
    with trio.move_on_after(0):
        await writer.write(data)
    data.append(3)
    with trio.move_on_after(0):
        await writer.write_all(data)
    data.append(4)
    with trio.move_on_after(0):
        await writer.send_all(data)
    data.append(5)
    with trio.move_on_after(0):
        await writer.write_all_vectored([b"xx", data])
    data.append(6)
    inner.ready = itertools.repeat(True)
    writer.poll_write_vectored([b"xx", data])
    data.append(7)
    await writer.write_all(data)
    data.append(8)
    await writer.aclose()

    assert writing.value
    assert gathering.value


async def test_no_cycle_is_left() -> None:
    """Of exceptions, their frames, and the writer: its memory is free when it is let go."""

    async def scenario() -> None:
        async with connected(unix_pair) as (stream, peer):
            writer = BufWriter(stream, 100)
            clog(writer)
            for data in (b"x", bytes(500)):
                with pytest.raises(NotReady):
                    writer.poll_write(data)
                with pytest.raises(NotReady):
                    writer.poll_write_vectored([data, data])
            with trio.move_on_after(0):
                await writer.flush()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.flush)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await peer.aclose()
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError):
                    await writer.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError):
                writer.poll_write(b"x")
            await writer.aclose()

    await assert_leaves_no_cycle(scenario)


def test_the_callers_buffer_may_be_changed_once_it_is_accepted() -> None:
    inner = Inner()
    writer = BufWriter(inner, 16)
    data = bytearray(b"before")
    writer.poll_write(data)
    writer.poll_write_vectored([data])
    data[:] = b"after!"
    writer.poll_flush()

    assert inner.taken == b"beforebefore"


# ---- Any interleaving ------------------------------------------------------------------------


class Modelled(Inner):
    """One with a drawn mind, whose n-th wait is cancelled from here on."""

    def __init__(self, minds: list[tuple[bool, int]]) -> None:
        super().__init__()
        # It is ready at some time, or nothing would ever end.
        self.minds = itertools.cycle([*minds, (True, 3)])
        self.scope = trio.CancelScope()
        self.patience = 0

    def require_ready(self) -> None:
        ready, self.most = next(self.minds)
        if not ready:
            raise NotReady(self.wait)

    async def wait(self) -> None:
        self.patience -= 1
        if not self.patience:
            self.scope.cancel()
        await trio.lowlevel.checkpoint()


pieces = st.integers(0, 20)
operations = st.one_of(
    st.tuples(st.sampled_from(["poll_write", "write", "write_buf", "write_all_buf"]), pieces),
    st.tuples(
        st.sampled_from(["poll_write_vectored", "write_vectored", "write_parts"]),
        st.lists(pieces, max_size=4),
    ),
    st.tuples(st.sampled_from(["poll_flush", "flush", "send_all", "poll_ready"]), st.just(0)),
)


class Model:
    """What a BufWriter must do, in its simplest form: one bytearray of what it accepted."""

    def __init__(self, writer: BufWriter[Modelled]) -> None:
        self.writer = writer
        self.accepted = bytearray()
        self.written = 0

    def fresh(self, size: int) -> bytes:
        """Bytes that tell where they belong."""
        self.written += size
        return bytes(n % 251 for n in range(self.written - size, self.written))

    async def run(self, operation: str, argument: Any, patience: int) -> None:
        writer, inner = self.writer, self.writer.inner
        sizes = argument if isinstance(argument, list) else [argument]
        parts = [self.fresh(size) for size in sizes]
        data = b"".join(parts)
        buf = Buf(*parts)
        count: int | None = None
        inner.patience = patience
        with trio.CancelScope() as inner.scope:
            try:
                if operation == "poll_write":
                    count = writer.poll_write(data)
                elif operation == "poll_write_vectored":
                    count = writer.poll_write_vectored(parts)
                elif operation == "poll_flush":
                    writer.poll_flush()
                    assert not writer.unsent_bytes
                elif operation == "poll_ready":
                    writer._poll_ready()
                elif operation == "write":
                    count = await writer.write(data)
                elif operation == "write_vectored":
                    count = await writer.write_vectored(parts)
                elif operation == "write_buf":
                    count = await writer.write_buf(buf)
                elif operation in {"write_all_buf", "write_parts"}:
                    await writer.write_all_buf(buf)
                    assert not buf.remaining
                else:
                    await (writer.flush() if operation == "flush" else writer.send_all(b""))
                    assert not writer.unsent_bytes
            except NotReady:
                assert operation.startswith("poll_")
        if operation in {"write_buf", "write_all_buf", "write_parts"}:
            assert count in {None, len(data) - buf.remaining}
            count = len(data) - buf.remaining
        if count is not None and 0 < len(data) < writer.capacity and "write" in operation:
            assert count in {0, len(data)}, "a message that fits was torn"
        self.accepted += data[: count or 0]
        self.written -= len(data) - (count or 0)

    def check(self) -> None:
        taken = self.writer.inner.taken
        check_room(self.writer)
        assert taken == self.accepted[: len(taken)]
        assert len(taken) + self.writer.unsent_bytes == len(self.accepted)


@given(
    capacity=st.integers(1, 16),
    minds=st.lists(st.tuples(st.booleans(), st.integers(1, 24)), max_size=8),
    script=st.lists(st.tuples(operations, st.integers(0, 3)), max_size=25),
)
def test_any_interleaving_delivers_every_byte_once_and_in_order(
    capacity: int,
    minds: list[tuple[bool, int]],
    script: list[tuple[tuple[str, Any], int]],
) -> None:
    """Polls, awaits, gathered writes, flushes, cancelled anywhere, over any readiness."""

    async def main() -> None:
        writer = BufWriter(Modelled(minds), capacity)
        model = Model(writer)
        for (operation, argument), patience in script:
            await model.run(operation, argument, patience)
            model.check()
        await writer.aclose()
        assert writer.inner.taken == model.accepted

    trio.run(main)
