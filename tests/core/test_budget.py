"""All writes of a run draw on one budget, and a call that finds it spent makes a checkpoint."""

from __future__ import annotations

import threading
from functools import partial
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.lowlevel
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    InspectWriter,
    LineWriter,
    MeteredWriter,
    SharedWriter,
    Sink,
    TeeWriter,
    ThrottledWriter,
    TimeoutWriter,
    TokenBucket,
    duplex,
    simplex,
)
from trio_asyncwrite._core._budget import LIMIT, POLL_COST, current_budget

from .._patience import wait_all_tasks_blocked
from .._streams import drain
from .._tls_helpers import both, open_tls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Steps(trio.abc.Instrument):
    """Counts how often the scheduler has gone on with the current task."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.task


async def checkpoints(call: Callable[[], Awaitable[object]], total: int) -> list[int]:
    """Which of ``total`` calls, counted from 1, were a checkpoint."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    found = []
    for number in range(1, total + 1):
        before = steps.count
        await call()
        if steps.count != before:
            found.append(number)
    trio.lowlevel.remove_instrument(steps)
    return found


def buffered() -> BufWriter[Sink]:
    return BufWriter(Sink(), 1 << 20)


def flush(*writers: AsyncWrite) -> None:
    for writer in writers:
        writer.poll_flush()


def test_every_128th_call_of_a_run_is_a_checkpoint() -> None:
    writer = buffered()

    async def main() -> None:
        assert await checkpoints(lambda: writer.write(b"x"), 400) == [128, 256, 384]

    trio.run(main)
    flush(writer)


@pytest.mark.parametrize(
    "name", ["write", "write_all", "write_vectored", "write_all_vectored", "write_struct"]
)
def test_all_calls_draw_on_the_same_budget(name: str) -> None:
    writer = buffered()
    args: tuple[object, ...] = ([b"x"],) if "vectored" in name else (b"x",)
    if name == "write_struct":
        args = ("B", 7)

    async def main() -> None:
        assert await checkpoints(lambda: writer.write_all(b"x"), 100) == []
        assert await checkpoints(lambda: getattr(writer, name)(*args), 100) == [28]

    trio.run(main)
    flush(writer)


def test_many_writers_share_the_budget() -> None:
    writers = [buffered() for _ in range(7)]
    series = cycle(writers)

    async def main() -> None:
        assert await checkpoints(lambda: next(series).write(b"x"), 300) == [128, 256]

    trio.run(main)
    flush(*writers)


def test_a_fresh_writer_per_message_does_not_escape_it() -> None:
    async def message() -> None:
        writer = buffered()
        await writer.write(b"x")
        flush(writer)

    async def main() -> None:
        assert await checkpoints(message, 300) == [128, 256]

    trio.run(main)


@pytest.mark.parametrize("data", [b"x", memoryview(b"x")], ids=type)
def test_views_and_handles_do_not_escape_it(data: bytes) -> None:
    writer = buffered()
    handle = writer.by_ref()

    async def main() -> None:
        assert await checkpoints(lambda: handle.write(data), 300) == [128, 256]

    trio.run(main)
    flush(writer)


def test_tasks_share_the_budget() -> None:
    """And none of them makes more than 128 calls between two of its own checkpoints."""
    writers = [buffered() for _ in range(3)]

    async def write(writer: BufWriter[Sink]) -> None:
        found = await checkpoints(lambda: writer.write(b"x"), 300)
        assert len(found) >= 2
        assert max(b - a for a, b in zip([0, *found], [*found, 300], strict=True)) <= LIMIT

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for writer in writers:
                nursery.start_soon(write, writer)

    trio.run(main)
    flush(*writers)


def test_a_loop_of_small_writes_is_cancelled_soon() -> None:
    writer = buffered()
    calls = 0

    async def main() -> None:
        nonlocal calls
        with trio.move_on_after(0) as scope:
            while True:
                await writer.write(b"x")
                calls += 1
        assert scope.cancelled_caught

    trio.run(main)
    assert calls == 127
    assert writer.unsent_bytes == calls  # the cancelled call has accepted nothing
    flush(writer)


def test_each_run_has_its_own_budget_and_so_have_threads() -> None:
    writers = [buffered(), buffered()]
    barrier = threading.Barrier(2)
    found: list[list[int]] = []

    async def main(writer: BufWriter[Sink]) -> None:
        first = await checkpoints(lambda: writer.write(b"x"), 100)
        barrier.wait()
        found.append(first + await checkpoints(lambda: writer.write(b"x"), 100))

    threads = [threading.Thread(target=trio.run, args=(main, writer)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [[28], [28]]
    flush(*writers)


def test_a_writer_takes_nothing_of_an_old_budget_into_another_run() -> None:
    writers = [buffered(), buffered()]

    async def main(writer: BufWriter[Sink], calls: int) -> None:
        await checkpoints(lambda: writer.write(b"x"), calls)

    async def last() -> None:
        series = cycle(writers)
        assert await checkpoints(lambda: next(series).write(b"x"), 200) == [128]

    trio.run(main, writers[0], 5)
    trio.run(main, writers[1], 50)
    trio.run(last)
    flush(*writers)


# ---- What a poll costs ---------------------------------------------------------------------------


class Transport(AsyncWrite):
    """Takes everything."""

    bytes_per_budget_unit = 4096

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)


class Slow(Transport):
    bytes_per_budget_unit = 100


class Unknown(AsyncWrite):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)


class PassesOn(AsyncWrite):
    def __init__(self, inner: AsyncWrite) -> None:
        self.inner: AsyncWrite = inner


class Asks(PassesOn):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return self.inner.poll_write(data)


class Roomy(Transport):
    spare_capacity = 1 << 30


KIB = 1024


#: A writer, the size of a write, and what that costs.
COSTS: list[tuple[Callable[[], AsyncWrite], int, int]] = [
    (Roomy, 0, 1),
    (Roomy, 64 * KIB - 1, 1),
    (Roomy, 64 * KIB, 2),
    (Roomy, 1024 * KIB, 17),
    (Transport, 0, 8),
    (Transport, 4 * KIB - 1, 8),
    (Transport, 4 * KIB, 9),
    (Transport, 64 * KIB, 24),
    (Transport, 480 * KIB, 128),
    (Transport, 10_000 * KIB, 128),  # it stops at 0
    (Sink, 64 * KIB, 24),
    (Slow, 1000, 18),
    (Unknown, 1000, 11),
    (Unknown, 64 * KIB, 128),
    (lambda: PassesOn(Slow()), 1000, 18),
    (lambda: PassesOn(PassesOn(Transport())), 64 * KIB, 24),
    (lambda: PassesOn(Roomy()), 64 * KIB, 24),  # it does not say that it has room
    (lambda: Asks(Transport()), 1000, 11),
    (lambda: BufWriter(Transport(), 100), 64 * KIB, 24),
    (lambda: BufWriter(Slow(), 100), 1000, 18),
    (lambda: TimeoutWriter(Slow(), idle=60), 1000, 18),
    (lambda: SharedWriter(Slow()), 1000, 18),
    (lambda: LineWriter(Slow()), 1000, 18),
    (lambda: TeeWriter(Slow(), Sink()), 1000, 28),
    (lambda: MeteredWriter(Slow()), 1000, 18),
    (lambda: ThrottledWriter(Slow(), TokenBucket(1e12)), 1000, 18),
    (lambda: InspectWriter(Slow(), bytes), 1000, 18),
    (lambda: InspectWriter(Transport(), bytes), 4 * KIB, 12),
    (lambda: Slow().by_ref(), 1000, 18),
]


@pytest.mark.parametrize(("make", "size", "cost"), COSTS, ids=range(len(COSTS)))
@pytest.mark.parametrize("name", ["write", "write_all", "write_buf", "write_all_vectored"])
async def test_a_poll_pays_in_proportion_to_its_work(
    make: Callable[[], AsyncWrite], size: int, cost: int, name: str
) -> None:
    """Not only at once, but also in the call that has made a checkpoint first."""
    writer = make()
    data: Any = bytes(size)
    for left in (128, 0):
        argument = Buf(data) if name == "write_buf" else [data] if "vectored" in name else data
        current_budget().left = left
        await getattr(writer, name)(argument)
        assert current_budget().left == 128 - cost
    await writer.flush()
    await writer.aclose()


async def test_a_message_for_a_buffer_below_pays_as_the_buffer_does() -> None:
    writer = SharedWriter(BufWriter(Slow()))
    await writer.write_all(b"x")
    current_budget().left = 128
    await writer.write_all(b"x")
    await writer.write_all(b"x")
    assert current_budget().left == 126
    await writer.aclose()


async def roomy() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return duplex(1 << 22)


async def test_tls_pays_for_its_arithmetic() -> None:
    client, server = await open_tls(roomy)
    for writer in (client, BufWriter(client, 1)):
        current_budget().left = 128
        await writer.write(bytes(16 * KIB))
        assert current_budget().left == 128 - 8 - 8
    await both(client.aclose, server.aclose)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (0, ValueError, "must be an integer of at least 1, got 0"),
        (-4, ValueError, "must be an integer of at least 1, got -4"),
        ("4096", TypeError, "must be an integer of at least 1, got str"),
        (4096.0, TypeError, "must be an integer of at least 1, got float"),
    ],
)
async def test_a_wrong_rate_is_refused_and_breaks_nothing(
    answer: Any, error: type[Exception], text: str
) -> None:
    writer = Transport()
    writer.bytes_per_budget_unit = answer
    for _ in range(2):
        with pytest.raises(error, match=f"Transport.bytes_per_budget_unit {text}"):
            await writer.write_all(b"x")
    writer.bytes_per_budget_unit = 4096
    await writer.write_all(b"x")
    await writer.aclose()


async def test_another_layer_below_may_have_another_rate() -> None:
    writer = PassesOn(Transport())
    await writer.write(b"x")
    writer.inner = Slow()
    current_budget().left = 128
    await writer.write(bytes(1000))
    assert current_budget().left == 128 - 18
    await writer.aclose()


# ---- When it is refilled -------------------------------------------------------------------------


FULL_CHECKPOINTS: dict[str, Callable[[AsyncWrite], Awaitable[object]]] = {
    "send_all": lambda writer: writer.send_all(b"x"),
    "flush": lambda writer: writer.flush(),
    "wait": lambda writer: writer.wait_send_all_might_not_block(),
    "shutdown": lambda writer: writer.shutdown(),
}


@pytest.mark.parametrize("name", FULL_CHECKPOINTS)
@pytest.mark.parametrize("left", [0, 5])
async def test_a_full_checkpoint_refills_it(name: str, left: int) -> None:
    writer = Transport()
    current_budget().left = left
    with trio.testing.assert_checkpoints():
        await FULL_CHECKPOINTS[name](writer)
    assert current_budget().left == 128
    await writer.aclose()


async def test_a_wait_refills_it() -> None:
    pipe, reader = simplex(1)
    await pipe.write(b"x")
    current_budget().left = 5
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe.write, b"y")
        await wait_all_tasks_blocked()
        assert await reader.receive_some() == b"x"
    assert current_budget().left == 128 - 8
    await pipe.aclose()
    await reader.aclose()


async def test_a_call_does_not_check_twice() -> None:
    """Though others have spent it meanwhile: or it might never come to its poll."""
    steps = Steps()
    writer = Transport()

    async def spend() -> None:
        while True:
            current_budget().left = 0
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(spend)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
            current_budget().left = 0
            trio.lowlevel.add_instrument(steps)
            await writer.write(b"x")
            trio.lowlevel.remove_instrument(steps)
        nursery.cancel_scope.cancel()
    assert steps.count == 20
    await writer.aclose()


# ---- Other tasks, and cancellations --------------------------------------------------------------


class Other:
    """A task that is always ready, and how much a first one does between two turns of it."""

    def __init__(self) -> None:
        self.done = self.longest = self._before = 0

    async def __call__(self) -> None:
        while True:
            self.longest = max(self.longest, self.done - self._before)
            self._before = self.done
            await trio.lowlevel.checkpoint()


#: A writer, the size of each of its writes, and after how many of these one must be a checkpoint.
LOOPS: dict[str, tuple[Callable[[], AsyncWrite], int, int]] = {
    "buffered": (buffered, 64, 128),
    "small": (Transport, 64, 16),
    "large": (Transport, 64 * KIB, 6),
    "largest": (Transport, 1024 * KIB, 1),
    "encoded": (Slow, 64, 16),
    "unknown": (Unknown, 16 * KIB, 2),
}


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_loop_of_writes_lets_other_tasks_run(loop: str) -> None:
    """Two batches may come between two turns, since Trio shuffles the tasks that are ready."""
    make, size, most = LOOPS[loop]
    writer, other, data = make(), Other(), bytes(size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(20 * most):
            await writer.write_all(data)
            other.done += 1
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert 0 < other.longest <= 2 * most
    flush(writer)
    await writer.aclose()


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_loop_of_writes_notices_its_cancellation(loop: str) -> None:
    make, size, most = LOOPS[loop]
    writer, data, calls = make(), bytes(size), 0
    await writer.write_all(data)
    with trio.CancelScope() as scope:
        scope.cancel()
        while True:
            await writer.write_all(data)
            calls += 1
    assert scope.cancelled_caught
    assert calls <= most
    flush(writer)
    await writer.aclose()


async def test_a_loop_of_tls_writes_lets_other_tasks_run_and_is_cancelled() -> None:
    other, data, scope = Other(), bytes(4 * KIB), trio.CancelScope()
    client, server = await open_tls(roomy)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        with scope:
            while True:
                await client.write_all(data)
                other.done += 1
                if other.done == 200:
                    scope.cancel()
        nursery.cancel_scope.cancel()
    assert scope.cancelled_caught
    # Each costs 8 + 2 units.
    assert other.done <= 200 + 13
    assert 0 < other.longest <= 2 * 13
    await both(client.aclose, partial(drain, server))
    await server.aclose()


class Picky(Transport):
    """Takes little at a time."""

    taken = 0

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.taken += min(len(data), 10)
        return min(len(data), 10)


@pytest.mark.parametrize("name", ["write_all", "write_all_buf", "send_all"])
async def test_between_two_polls_of_one_call_the_same_rule_holds(name: str) -> None:
    """A poll costs 8 units, so after 16 of them it is the other tasks' turn."""
    writer = Picky()
    seen = [0]

    async def look() -> None:
        while True:
            seen.append(writer.taken)
            await trio.lowlevel.checkpoint()

    data: Any = bytes(4000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await getattr(writer, name)(Buf(data) if name == "write_all_buf" else data)
        nursery.cancel_scope.cancel()
    steps = [after - before for before, after in pairwise([*seen, writer.taken])]
    assert 0 < max(steps) <= 2 * 160
    assert writer.taken == 4000
    await writer.aclose()


async def test_a_message_that_is_cancelled_between_two_polls_tears_the_stream() -> None:
    """Law 3. But after the last accepted byte nothing can be cancelled."""
    writer = Picky()
    current_budget().left = 128
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.write_all(bytes(160))
    assert not scope.cancelled_caught
    assert writer.taken == 160

    current_budget().left = 128
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.write_all(bytes(161))
    assert scope.cancelled_caught
    with pytest.raises(trio.BrokenResourceError, match="only 160 of the 161 bytes"):
        await writer.write(b"x")
    with pytest.warns(ResourceWarning):
        await writer.aclose()


async def test_cancelled_in_its_checkpoint_a_call_pays_nothing() -> None:
    writer = Picky()
    current_budget().left = 0
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.write_all(b"abc")
    assert scope.cancelled_caught
    assert current_budget().left == 0
    assert writer.taken == 0
    await writer.aclose()


async def test_a_close_ends_a_call_in_its_checkpoint() -> None:
    """The poll of a user's writer does not look whether it is closed."""
    writer = Picky()
    found: list[str] = []

    async def write() -> None:
        try:
            await writer.write_all(b"abc")
        except trio.ClosedResourceError:
            found.append("closed")

    for _ in range(10):  # which of the two begins is Trio's choice
        writer = Picky()
        current_budget().left = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(writer.aclose)
        assert found.pop() == "closed"
        assert writer.taken == 0


class ByteByByte(AsyncWrite):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return min(len(data), 1)


@pytest.mark.parametrize(
    ("verb", "left", "turns"),
    [
        (ByteByByte.write_all, POLL_COST, 1),
        (ByteByByte.write_all, LIMIT, 0),
        (ByteByByte.send_all, POLL_COST, 1),
        (ByteByByte.send_all, LIMIT, 1),  # it is a checkpoint in any case
    ],
)
async def test_the_rest_of_a_message_waits_for_a_checkpoint_once_the_budget_is_spent(
    verb: Callable[[AsyncWrite, bytes], Awaitable[None]], left: int, turns: int
) -> None:
    """Also if its first poll was made at once."""
    writer = ByteByByte()
    await writer.write(b"x")
    current_budget().left = left
    task = trio.lowlevel.current_task()
    before = task._schedule_points
    await verb(writer, b"ab")
    assert task._schedule_points - before == turns
