from __future__ import annotations

import random
import re
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncWrite, Buf, BufWriter, Cursor, NotReady
from trio_asyncwrite._core import _budget
from trio_asyncwrite.testing import Sweep, _cancel, cancel_everywhere

from .._patience import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

SCHEDULER = sys.modules["trio._core._run"]


class Record:
    """A scenario that notes for each run how far the block came, and where it was cancelled."""

    def __init__(self, block: Callable[[list[str]], Awaitable[object]]) -> None:
        self.block = block
        self.runs: list[tuple[str, bool]] = []
        self.where: list[str] = []

    async def __call__(self, sweep: Sweep) -> None:
        steps: list[str] = []
        with sweep:
            await self.block(steps)
        self.runs.append((" ".join(steps), sweep.cancelled))
        first_line = sweep.where.partition("\n")[0]
        self.where.append(re.sub(r"task .*?( went on)?$", r"task\1", first_line))

    async def sweep(self) -> list[tuple[str, bool]]:
        assert await cancel_everywhere(self) == len(self.runs)
        return self.runs


async def step(steps: list[str], name: str) -> None:
    await trio.lowlevel.checkpoint()
    steps.append(name)


async def wait(steps: list[str], name: str, event: trio.Event) -> None:
    """A wait that can succeed although the task was cancelled: there is no checkpoint behind it."""
    try:
        await event.wait()
    except trio.Cancelled:
        steps.append(f"no-{name}")
        raise
    steps.append(name)


# ---- Which moments -------------------------------------------------------------------------


async def test_each_checkpoint_is_cancelled_in_both_ways() -> None:
    async def block(steps: list[str]) -> None:
        for name in "abc":
            await step(steps, name)

    assert await Record(block).sweep() == [
        ("", True),
        ("", True),
        ("", True),
        ("a", True),
        ("a", True),
        ("a b", True),
        ("a b", True),
        ("a b c", False),
    ]


async def test_a_block_without_a_checkpoint_is_run_twice() -> None:
    async def block(steps: list[str]) -> None:
        steps.append("done")

    assert await Record(block).sweep() == [("done", False), ("done", False)]


async def test_a_wait_is_aborted_and_it_succeeds_before_the_next_checkpoint_raises() -> None:
    async def block(steps: list[str]) -> None:
        event = trio.Event()
        trio.lowlevel.spawn_system_task(set_soon, event)
        await wait(steps, "waited", event)
        await step(steps, "a")

    async def set_soon(event: trio.Event) -> None:
        event.set()

    record = Record(block)

    assert await record.sweep() == [
        ("no-waited", True),
        ("no-waited", True),
        ("waited", True),
        ("waited", True),
        ("waited", True),
        ("waited a", False),
    ]
    assert record.where == [
        "cancelled before the block began",
        "cancelled in suspension 1, which is of task",
        "cancelled after suspension 1, before the resumed task went on",
        "cancelled in suspension 2, which is of task",
        "cancelled after suspension 2, before the resumed task went on",
        "not cancelled",
    ]


async def test_a_cancellation_after_the_last_checkpoint_is_none() -> None:
    async def block(steps: list[str]) -> None:
        event = trio.Event()
        event.set()
        trio.lowlevel.spawn_system_task(trio.sleep, 0)
        await trio.lowlevel.cancel_shielded_checkpoint()
        steps.append("done")

    # Before it, while it yields, and when it has yielded; then undisturbed.
    assert await Record(block).sweep() == [("done", False)] * 4


async def test_shielded_code_is_not_interrupted_but_counted() -> None:
    async def block(steps: list[str]) -> None:
        with trio.CancelScope(shield=True):
            await step(steps, "a")
            await step(steps, "b")
        await step(steps, "c")

    assert await Record(block).sweep() == [*[("a b", True)] * 7, ("a b c", False)]


async def test_tasks_of_nurseries_inside_are_counted_with_their_starts_and_ends() -> None:
    async def block(steps: list[str]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step, steps, "child")

    record = Record(block)
    await record.sweep()

    assert [run[0] for run in record.runs] == [*[""] * 5, *["child"] * 3]
    assert record.where == [
        "cancelled before the block began",
        "cancelled in suspension 1, which is of task",
        "cancelled before the first step of task",
        "cancelled in suspension 2, which is of task",
        "cancelled after suspension 2, before the resumed task went on",
        "cancelled after the end of task",
        "cancelled after suspension 1, before the resumed task went on",
        "not cancelled",
    ]


async def test_tasks_outside_the_block_are_neither_counted_nor_cancelled() -> None:
    outside: list[str] = []

    async def scenario(sweep: Sweep) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step, outside, "before")
            with sweep:
                nursery.start_soon(step, outside, "during")
                await trio.lowlevel.checkpoint()

    assert await cancel_everywhere(scenario) == 4
    assert outside == ["before", "during"] * 4


async def test_a_task_started_into_a_nursery_outside_is_inside_until_it_has_started() -> None:
    lived = []

    async def server(task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()
        task_status.started()
        await trio.lowlevel.checkpoint()
        lived.append(True)

    async def scenario(sweep: Sweep) -> None:
        async with trio.open_nursery() as nursery:
            with sweep:
                await nursery.start(server)
                await trio.lowlevel.checkpoint()

    runs = await cancel_everywhere(scenario)

    # Cancelled before it had started it is gone, and afterwards it lives on.
    assert 3 < len(lived) < runs


async def test_the_clock_may_be_a_mock(autojump_clock: MockClock) -> None:
    async def block(steps: list[str]) -> None:
        for name in "ab":
            await trio.sleep(1000)
            steps.append(name)

    start = trio.current_time()

    assert [run[0] for run in await Record(block).sweep()] == ["", "", "", "a", "a", "a b"]
    assert trio.current_time() - start == 1000 * (0 + 0 + 1 + 1 + 2 + 2)


class AtAnyMoment(trio.abc.Instrument):
    """Cancels a scope at the n-th event of the run loop, whatever it is and of whatever task."""

    def __init__(self, scope: trio.CancelScope, left: int) -> None:
        self.scope = scope
        self.left = left

    def tick(self, _: object) -> None:
        self.left -= 1
        if not self.left:
            self.scope.cancel()

    task_spawned = task_scheduled = before_task_step = after_task_step = task_exited = tick
    before_io_wait = after_io_wait = tick


async def set_later(event: trio.Event) -> None:
    await wait_all_tasks_blocked()
    event.set()


async def one_task(steps: list[str]) -> None:
    for name in "ab":
        event = trio.Event()
        trio.lowlevel.spawn_system_task(set_later, event)
        await wait(steps, name, event)
        # Only who was cancelled between the event and now is stopped here.
        await trio.lowlevel.checkpoint_if_cancelled()
        steps.append("on")


async def one_task_after_another(steps: list[str]) -> None:
    """As in a relay: one direction is through, and then the other waits alone."""
    event = trio.Event()
    trio.lowlevel.spawn_system_task(set_later, event)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(step, steps, "a")
        nursery.start_soon(wait, steps, "b", event)


async def two_tasks_and_a_peer(steps: list[str]) -> None:
    to_peer, from_us = trio.open_memory_channel[str](0)
    to_us, from_peer = trio.open_memory_channel[str](1)

    async def echo() -> None:
        async for message in from_us:
            await to_us.send(message)

    async def send() -> None:
        for name in "abc":
            await to_peer.send(name)
            steps.append(f"sent-{name}")
        to_peer.close()

    async def receive() -> None:
        for _ in range(3):
            message = await from_peer.receive()
            steps.append(f"received-{message}")

    trio.lowlevel.spawn_system_task(echo)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive)
    await step(steps, "end")


@pytest.mark.parametrize("block", [one_task, one_task_after_another, two_tasks_and_a_peer])
async def test_no_other_moment_has_another_effect(
    block: Callable[[list[str]], Awaitable[None]],
) -> None:
    """Whatever comes of cancelling at some event of the run loop comes of the sweep, too."""
    swept = {steps for steps, _ in await Record(block).sweep()}
    found = set()
    with _cancel.fair_scheduler:
        for number in range(1, 1000):
            steps: list[str] = []
            with trio.CancelScope() as scope:
                instrument = AtAnyMoment(scope, number)
                trio.lowlevel.add_instrument(instrument)
                await block(steps)
            trio.lowlevel.remove_instrument(instrument)
            found.add(" ".join(steps))
            if not scope.cancel_called:
                break

    assert 20 < number < 1000
    assert len(swept) >= 3
    assert found <= swept


# ---- Determinism ---------------------------------------------------------------------------


async def race(steps: list[str]) -> None:
    async def racer(name: str) -> None:
        for _ in range(2):
            await step(steps, name)

    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(racer, name)


async def test_runs_do_not_depend_on_the_scheduler_s_dice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweeps = []
    for seed in range(4):
        monkeypatch.setattr(SCHEDULER, "_r", random.Random(seed))
        record = Record(race)
        await record.sweep()
        sweeps.append((record.runs, record.where))

    assert sweeps[1:] == sweeps[:-1]
    assert record.runs[-1] == ("a b c d a b c d", False)


async def test_under_hypothesis_the_order_is_fixed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = []
    for hypothesis in (False, True):
        monkeypatch.setattr(SCHEDULER, "_ALLOW_DETERMINISTIC_SCHEDULING", hypothesis)
        sweeps.append(await Record(race).sweep())

    assert sweeps[0] == sweeps[1]


async def test_the_scheduler_gets_its_dice_back() -> None:
    dice = SCHEDULER._r
    state = dice.getstate()
    seen = []

    async def inner(sweep: Sweep) -> None:
        with sweep:
            seen.append(SCHEDULER._r)

    async def outer(sweep: Sweep) -> None:
        with sweep:
            await cancel_everywhere(inner)
        seen.append(SCHEDULER._r)
        await trio.lowlevel.checkpoint()
        if not sweep.cancelled:
            raise ValueError

    with pytest.raises(ValueError):
        await cancel_everywhere(outer)

    assert SCHEDULER._r is dice
    assert dice.getstate() == state
    assert dice not in seen


async def test_without_trio_s_dice_it_warns_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cancel, "_GENERATOR", "_gone")

    async def block(steps: list[str]) -> None:
        await step(steps, "a")

    with pytest.warns(RuntimeWarning, match="cannot be run in a fixed order"):
        assert len(await Record(block).sweep()) == 4


async def test_every_buffered_write_is_a_checkpoint_and_only_in_a_sweep() -> None:
    written = []
    old = BufWriter(Cursor())
    await old.write(b"it holds a budget of its own")

    async def scenario(sweep: Sweep) -> None:
        new = BufWriter(Cursor())
        count = 0
        with sweep:
            for _ in range(3):
                count += await old.write(b"a")
                count += await new.write(b"b")
        written.append(count)
        await old.flush()
        await new.flush()

    budget = _budget.current_budget()
    left = budget.left
    await cancel_everywhere(scenario)

    assert written == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert _budget.current_budget() is budget
    assert budget.left == left
    with trio.testing.assert_no_checkpoints():
        await old.write(b"a")
    await old.aclose()


# ---- What it is for ------------------------------------------------------------------------


class Safe(AsyncWrite):
    """Is not ready before each byte."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.rested = False

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.rested = not self.rested
        if self.rested:
            raise NotReady(trio.lowlevel.checkpoint)
        self.received += data[:1]
        return 1


class Unsafe(Safe):
    """Waits between what it has accepted and saying so."""

    async def write_all_buf(self, buf: Buf) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        for byte in bytes(buf.chunk()):
            self.received.append(byte)
            await trio.lowlevel.checkpoint()
            buf.advance(1)


async def resume(make: Callable[[], Safe], sweep: Sweep) -> None:
    writer = make()
    buf = Buf(b"hello")
    with sweep:
        await writer.write_all_buf(buf)
    if buf.remaining:
        await writer.write_all_buf(buf)
    assert writer.received == b"hello"


async def test_a_safe_writer_passes() -> None:
    # A wait before each of five bytes, and a checkpoint before each of them that the budget wants:
    # each cancelled twice. And the first and the last run.
    assert await cancel_everywhere(partial(resume, Safe)) == 22


async def test_an_unsafe_writer_is_caught_and_the_place_is_named() -> None:
    with pytest.raises(AssertionError) as caught:
        await cancel_everywhere(partial(resume, Unsafe))

    note = "\n".join(caught.value.__notes__)
    assert note.startswith("cancel_everywhere, run 1: cancelled in suspension 1, which is of task ")
    # The last line of the stack is where the writer waits; there is none around the scenario.
    frames = re.findall(r"line \d+, in (\w+)\n    (.+)\n", note + "\n")
    assert frames[0] == ("resume", "await writer.write_all_buf(buf)")
    assert frames[-1] == ("write_all_buf", "await trio.lowlevel.checkpoint()")


async def test_the_note_is_part_of_the_traceback() -> None:
    with pytest.raises(AssertionError) as caught:
        await cancel_everywhere(partial(resume, Unsafe))

    printed = "".join(traceback.format_exception(None, caught.value, None))
    assert "cancel_everywhere, run 1: cancelled in suspension 1" in printed


async def test_what_fails_without_a_cancellation_says_so() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep:
            await trio.lowlevel.checkpoint()
        if not sweep.cancelled:
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong") as caught:
        await cancel_everywhere(scenario)

    assert caught.value.__notes__ == ["cancel_everywhere, run 3: not cancelled"]


async def test_an_error_in_the_block_comes_through() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep:
            raise KeyError("in the block")

    with pytest.raises(KeyError, match="in the block"):
        await cancel_everywhere(scenario)


# ---- Misuse --------------------------------------------------------------------------------


async def test_a_scenario_without_a_block_is_refused() -> None:
    async def scenario(sweep: Sweep) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match="did not enter `with sweep:`; enter it once per run"):
        await cancel_everywhere(scenario)


async def test_a_scenario_with_two_blocks_is_refused() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep:
            pass
        with sweep:
            pass

    with pytest.raises(
        RuntimeError, match="entered `with sweep:` a second time; enter it once per run"
    ):
        await cancel_everywhere(scenario)


async def test_a_scenario_that_never_completes_is_given_up() -> None:
    runs = []

    async def scenario(sweep: Sweep) -> None:
        runs.append(sweep)
        with sweep:
            while True:
                await trio.lowlevel.checkpoint()

    with pytest.raises(
        RuntimeError, match=r"did not complete in 7 runs; the last one .* suspension 3"
    ):
        await cancel_everywhere(scenario, max_runs=7)

    assert len(runs) == 7


async def test_it_can_be_cancelled_itself() -> None:
    runs = 0

    async def scenario(sweep: Sweep) -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            scope.cancel()
        with sweep:
            for _ in range(10):
                await trio.lowlevel.checkpoint()

    with trio.CancelScope() as scope:
        await cancel_everywhere(scenario)

    assert scope.cancelled_caught
    assert runs == 3


async def test_a_scenario_that_never_waits_can_be_cancelled_all_the_same() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep:
            pass

    with trio.CancelScope() as scope:
        scope.cancel()
        await cancel_everywhere(scenario)

    assert scope.cancelled_caught
