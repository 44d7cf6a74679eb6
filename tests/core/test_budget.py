"""Writes that stay in a buffer make a checkpoint in one of every 128 calls of a run."""

from __future__ import annotations

import threading
from itertools import cycle
from typing import TYPE_CHECKING

import pytest
import trio
import trio.abc
import trio.lowlevel
import trio.testing

from trio_asyncwrite import AsyncWrite, BufWriter, Sink
from trio_asyncwrite._core._budget import LIMIT, SPENT, current_budget, spend

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


async def test_spending_is_a_full_checkpoint_when_the_budget_is_spent() -> None:
    budget = current_budget()
    assert current_budget() is budget
    budget.left = 1
    with trio.testing.assert_no_checkpoints():
        assert await spend(SPENT) is budget
    with trio.testing.assert_checkpoints():
        assert await spend(budget) is budget
    assert budget.left == LIMIT - 1
    assert SPENT.left == 0


async def test_cancelled_nothing_is_spent() -> None:
    budget = current_budget()
    budget.left = 0
    with trio.CancelScope() as scope:
        scope.cancel()
        await spend(budget)

    assert scope.cancelled_caught
    assert budget.left == 0
