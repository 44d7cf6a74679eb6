"""A call whose polls are made at once does what one does that goes through the loop.

Every script of the layer below, every way to interfere, and both ways: all that can be seen of them
is the same.
"""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from trio_asyncwrite import AsyncWrite, Buf, BufWriter, NotReady, close_gracefully
from trio_asyncwrite._core._budget import POLL_COST, SPENT, current_budget
from trio_asyncwrite._core._close import Close

from .._patience import wait_all_tasks_blocked
from .._scheduling import scheduled_by
from ._fakes import resource_warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_asyncwrite._core._layer import Layer

    Operation = Callable[[AsyncWrite], Awaitable[object]]

DATA: Final = b"message"

# What one poll does: a number is how many bytes it accepts; else it waits, or raises.
Step = Any
ALL: Final = 100
WAIT: Final = "wait"


class Scripted(AsyncWrite):
    """Does what its script says, and everything at once where that says nothing."""

    announces_held_bytes = True

    def __init__(self) -> None:
        self.writes: deque[Step] = deque()
        self.flushes: deque[Step] = deque()
        self.shutdowns: deque[Step] = deque()
        self.releases: deque[Step] = deque()
        self.log: list[object] = []
        self.room = trio.lowlevel.ParkingLot()

    def _do(self, poll: str, script: deque[Step]) -> Any:
        step = script.popleft() if script else ALL
        self.log.append((poll, repr(step)))
        if step == WAIT:
            raise NotReady(self.room.park)
        if isinstance(step, BaseException):
            raise step
        return step

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return min(len(data), self._do("write", self.writes))

    def poll_flush(self) -> None:
        self._do("flush", self.flushes)

    def poll_shutdown(self) -> None:
        self._do("shutdown", self.shutdowns)

    release_waits = False

    async def release(self, *, clean: bool) -> None:
        self._do(f"release {clean}", self.releases)

    def __repr__(self) -> str:
        return "<Scripted>"


def bare(wire: Scripted) -> AsyncWrite:
    return wire


def buffered(wire: Scripted) -> AsyncWrite:
    return BufWriter(wire, 3)


def buffer_with_room(wire: Scripted) -> AsyncWrite:
    return BufWriter(wire, 100)


STACKS = [bare, buffered, buffer_with_room]


async def write(writer: AsyncWrite) -> object:
    return await writer.write(DATA)


async def write_all(writer: AsyncWrite) -> object:
    return await writer.write_all(DATA)  # type: ignore[func-returns-value]


async def send_all(writer: AsyncWrite) -> object:
    return await writer.send_all(DATA)  # type: ignore[func-returns-value]


async def flush(writer: AsyncWrite) -> object:
    return await writer.flush()  # type: ignore[func-returns-value]


OPERATIONS = [write, write_all, send_all, flush]

WRITES = [(), (2,), (WAIT,), (2, WAIT), (2, "error"), ("error",), ("refusal",), ("interrupt",)]
FLUSHES = [(), (WAIT,), (WAIT, "error"), ("error",), ("refusal",), ("interrupt",)]


def steps(script: tuple[Step, ...]) -> deque[Step]:
    errors = {
        "error": OSError("gone"),
        "refusal": trio.BusyResourceError("busy below"),
        "interrupt": KeyboardInterrupt("now"),
    }
    return deque(errors.get(step, step) for step in script)


# ---- Ways to interfere ---------------------------------------------------------------------------


async def nothing(writer: AsyncWrite, scope: trio.CancelScope) -> object:
    return None


async def cancel(writer: AsyncWrite, scope: trio.CancelScope) -> object:
    scope.cancel()
    return None


async def use(writer: AsyncWrite, scope: trio.CancelScope) -> object:
    return await writer.send_all(b"other")  # type: ignore[func-returns-value]


async def close(writer: AsyncWrite, scope: trio.CancelScope) -> object:
    return (await close_gracefully(writer, linger=0)).outcome


INTERFERENCES = [nothing, cancel, use, close]


async def outcome(awaitable: Awaitable[object]) -> object:
    try:
        return await awaitable
    except trio.Cancelled:
        raise  # its text names a task
    except BaseException as exc:  # noqa: BLE001
        return repr(exc), repr(exc.__cause__)


def state(writer: AsyncWrite) -> list[object]:
    found: list[object] = []
    one: Any = writer
    while one is not None:
        life = one.lifecycle
        found.append(
            (
                one.held_bytes,
                life.refusal,
                life.inside,
                repr(life.failure),
                life.told,
                life.untold,
                life.torn,
                life.torn_text,
                life.abandoned,
                len(life.calls),
                len(life.waits),
                life.holding,
            )
        )
        one = life.inner
    return found


async def observe(
    stack: Callable[[Scripted], AsyncWrite],
    operation: Operation,
    script: tuple[tuple[Step, ...], tuple[Step, ...]],
    interfere: Callable[[AsyncWrite, trio.CancelScope], Awaitable[object]],
    *,
    budget: int,
    early: bool,
    at_once: bool,
) -> dict[str, object]:
    """Make a call, interfere, and close; return all that can be seen of the three.

    Args:
        stack: makes the layers.
        operation: the call.
        script: what the polls of the innermost layer do: those that write, and those that flush.
        interfere: what another task does meanwhile.
        budget: how much of it is left.
        early: whether that comes as soon as the call yields or waits, in an order that the seed
            decides; else once the call waits.
        at_once: whether the call may go at once.
    """
    wire = Scripted()
    writer = stack(wire)
    await writer.send_all(b"first")  # the rate and the budget are known from here on
    await writer.write(b"!")
    wire.writes, wire.flushes = map(steps, script)
    wire.log.clear()
    seen: dict[str, object] = {}
    begun = trio.Event()
    scope = trio.CancelScope()

    async def operate() -> None:
        begun.set()
        if not at_once:
            writer.lifecycle.fast = SPENT
        task = trio.lowlevel.current_task()
        before = task._schedule_points
        with scope:
            seen["operation"] = await outcome(operation(writer))
        seen["has yielded"] = task._schedule_points > before
        seen["budget"] = current_budget().left

    async def come_between() -> None:
        await begun.wait()
        seen["in between"] = await outcome(interfere(writer, scope))

    writer.lifecycle.abandoned = wire.lifecycle.abandoned = True  # by an earlier call
    current_budget().left = budget
    async with trio.open_nursery() as nursery:
        nursery.start_soon(operate)
        if early:
            nursery.start_soon(come_between)
        await wait_all_tasks_blocked()
        if not early:
            nursery.start_soon(come_between)
        for _ in range(6):
            await wait_all_tasks_blocked()
            wire.room.unpark_all()
    seen["cancelled"] = scope.cancelled_caught
    seen["state"] = state(writer)
    wire.writes, wire.flushes = deque(), deque()
    report = await close_gracefully(writer, linger=0)
    seen["report"] = report.outcome, repr(report.error), report.unsent_bytes
    return {**seen, "polls": wire.log}


@pytest.mark.outer
@pytest.mark.parametrize("interfere", INTERFERENCES)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stack", STACKS)
async def test_at_once_or_through_the_loop_is_the_same(
    stack: Callable[[Scripted], AsyncWrite],
    operation: Operation,
    interfere: Callable[[AsyncWrite, trio.CancelScope], Awaitable[object]],
) -> None:
    cases = itertools.product(WRITES, FLUSHES, [POLL_COST, 100], [None, 0, 1])
    for writes, flushes, budget, seed in cases:
        seen: list[dict[str, object]] = []
        for at_once in (True, False):
            with scheduled_by(seed or 0):
                seen.append(
                    await observe(
                        stack,
                        operation,
                        (writes, flushes),
                        interfere,
                        budget=budget,
                        early=seed is not None,
                        at_once=at_once,
                    )
                )
        first, second = seen
        assert first == second, (writes, flushes, budget, seed)


# ---- Closing -------------------------------------------------------------------------------------

SHUTDOWNS = FLUSHES
RELEASES = [(), ("error",), ("interrupt",)]


async def aclose(writer: AsyncWrite) -> object:
    return await writer.aclose()  # type: ignore[func-returns-value]


async def close_by_force(writer: AsyncWrite, scope: trio.CancelScope) -> object:
    return await trio.aclose_forcefully(writer)  # type: ignore[func-returns-value]


async def use_in_block(writer: AsyncWrite) -> object:
    async with writer:
        return await writer.write(b"?")


async def observe_close(
    writer: AsyncWrite,
    operation: Operation,
    interfere: Callable[[AsyncWrite, trio.CancelScope], Awaitable[object]],
    wire: Scripted,
    *,
    is_cancelled: bool,
) -> dict[str, object]:
    """Close a stack, interfere while the close waits, and return all that can be seen of it."""
    seen: dict[str, object] = {}
    scope = trio.CancelScope()
    if is_cancelled:
        scope.cancel()

    async def operate() -> None:
        task = trio.lowlevel.current_task()
        before = task._schedule_points
        with scope:
            seen["operation"] = await outcome(operation(writer))
        if not isinstance(seen.get("operation"), tuple):  # what raises need not be a checkpoint
            seen["has yielded"] = task._schedule_points > before

    async def come_between() -> None:
        seen["in between"] = await outcome(interfere(writer, scope))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(operate)
            await wait_all_tasks_blocked()
            nursery.start_soon(come_between)
            for _ in range(6):
                await wait_all_tasks_blocked()
                wire.room.unpark_all()
    seen["cancelled"] = scope.cancelled_caught
    seen["warnings"] = [str(one.message) for one in caught]
    seen["again"] = await outcome(aclose(writer))
    return {**seen, "state": state(writer), "unsent": writer.unsent_bytes, "polls": wire.log}


@pytest.mark.parametrize("interfere", [*INTERFERENCES, close_by_force])
@pytest.mark.parametrize("operation", [aclose, use_in_block])
@pytest.mark.parametrize("stack", STACKS)
async def test_a_close_at_once_or_in_stages_is_the_same(
    stack: Callable[[Scripted], AsyncWrite],
    operation: Operation,
    interfere: Callable[[AsyncWrite, trio.CancelScope], Awaitable[object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_line = Close.take_line

    def take_unquietly(close: Close, layers: list[Layer]) -> None:
        take_line(close, layers)
        close.is_quiet = False

    for script in itertools.product(FLUSHES, SHUTDOWNS, RELEASES, [False, True]):
        seen: list[dict[str, object]] = []
        for take in (take_line, take_unquietly):
            monkeypatch.setattr(Close, "take_line", take)
            wire = Scripted()
            writer = stack(wire)
            await writer.write(b"!")
            *polls, is_cancelled = script
            wire.flushes, wire.shutdowns, wire.releases = map(steps, polls)
            wire.log.clear()
            seen.append(
                await observe_close(writer, operation, interfere, wire, is_cancelled=is_cancelled)
            )
        assert seen[0] == seen[1], script


@pytest.mark.parametrize("place", [0, 1])
async def test_what_a_server_says_to_be_cut_short_has_no_proper_end(place: int) -> None:
    """Though nothing else is wrong with it, and nobody is inside."""
    wire = Scripted()
    writer = BufWriter(wire)
    (writer, wire)[place].lifecycle.marked_truncated = True
    await writer.aclose()
    assert ("shutdown", "100") not in wire.log
    assert wire.log[-1] == ("release False", "100")


async def test_a_buf_that_somebody_is_about_to_finish_makes_no_proper_end() -> None:
    """The budget is spent, so that task is in a checkpoint, and in no wait."""
    wire = Scripted()
    writer = BufWriter(wire, 1)
    buf = Buf(DATA)
    wire.writes = deque([2, WAIT])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all_buf, buf)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert buf.remaining == len(DATA) - 2
    seen: list[object] = []

    async def finish() -> None:
        seen.append(await outcome(writer.write_all_buf(buf)))

    with scheduled_by(0), resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(finish)
            current_budget().left = 0
            while not writer.lifecycle.calls:
                await trio.lowlevel.cancel_shielded_checkpoint()
                current_budget().left = 0
            assert not writer.lifecycle.waits
            await writer.aclose()
    assert "ClosedResourceError" in str(seen)
    assert "a Buf was begun and not finished" in messages[0]
    assert wire.log[-1] == ("release False", "100")
