"""What bounds a close: limits, those who take over, and waits that do the work."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio
import trio.testing

from trio_asyncwrite._core._close import Close, Hardness, enter

from .._patience import wait_all_tasks_blocked
from ._fakes import (
    Layer,
    Wire,
    begin,
    cut_short,
    resource_warnings,
    run_cancelled,
)


class Logged(Layer):
    """Remembers its own release, and is not released twice."""

    releases = 0

    async def release(self, *, clean: bool) -> None:
        self.releases += 1


# ---- Limits, and who takes over ------------------------------------------------------------------


async def test_a_bounded_caller_goes_on_with_the_close_of_a_cancelled_task() -> None:
    """And nothing was cut short by that."""
    wire = Wire()
    wire.held = 3
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, wire.aclose)
        close = wire.lifecycle.close
        assert isinstance(close, Close)

        async def take_over() -> None:
            with close.bounded():
                while close.is_running:
                    await close.next_news()
            await close.run(linger)

        async def linger() -> None:
            assert close.sent
            assert not wire.releases

        bounded = await begin(nursery, take_over)
        joined = await begin(nursery, wire.aclose)
        run.scope.cancel()
        await wait_all_tasks_blocked()
        assert run.outcome == "cancelled"
        assert not wire.releases
        wire.give(math.inf)

    assert bounded.outcome == joined.outcome == "returned None"
    assert wire.releases == ["release True"]


@pytest.mark.parametrize("hurry", ["not", "before", "meanwhile"])
async def test_a_bounded_caller_holds_the_release_back_unless_it_is_hurried(hurry: str) -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, wire.aclose)
        close = wire.lifecycle.close
        assert isinstance(close, Close)
        with close.bounded():
            scope = trio.CancelScope()
            close.on_hurry(scope)
            if hurry == "before":
                close.harden(Hardness.CUT_OFF)
                close.on_hurry(scope)
            wire.give(1)
            await wait_all_tasks_blocked()
            assert bool(wire.releases) == (hurry == "before")
            if hurry == "meanwhile":
                close.harden(Hardness.ABORTED)
                await wait_all_tasks_blocked()
                assert wire.releases
        assert scope.cancel_called == (hurry != "not")

    assert run.outcome == ("ClosedResourceError" if hurry == "before" else "returned None")


@pytest.mark.parametrize("hardness", [Hardness.CUT_OFF, Hardness.ABORTED])
@pytest.mark.parametrize("branches", [1, 2])
async def test_nobody_lingers_in_a_close_that_was_hard_from_the_first(
    hardness: Hardness, branches: int, autojump_clock: trio.testing.MockClock
) -> None:
    wire = Wire(math.inf)
    uppers = [Layer(wire) for _ in range(branches)]
    for upper in uppers:
        await upper.flush()
    close, _ = enter(wire, hardness)

    with trio.fail_after(1), close.bounded():
        await close.run()

    assert wire.releases


async def test_a_limit_makes_a_close_late(autojump_clock: trio.testing.MockClock) -> None:
    for limit_first in (True, False):
        wire = Wire()
        async with trio.open_nursery() as nursery:
            start = trio.current_time()
            close, others = enter(wire, Hardness.CLEAN)
            assert not others
            if limit_first:
                close.limit(start + 3)
            nursery.start_soon(close.run)
            await wait_all_tasks_blocked()
            close.limit(start + 3)
        assert close.was_late
        assert trio.current_time() == start + 3
        assert wire.releases == ["release True"]


async def test_a_close_at_once_is_one_that_needs_no_waiting() -> None:
    for room, done in ((1, True), (0, False)):
        wire = Wire(room)
        close, _ = enter(wire, Hardness.CLEAN)
        assert close.try_at_once() == done
        wire.room = 1
        await close.run()
        assert wire.log == ["shutdown"] * (2 - done) + ["release True"]


async def test_a_truncated_stack_is_delivered_if_somebody_waits_for_that() -> None:
    wire = Wire(room=1)
    await cut_short(partial(wire.write_all, b"abc"))
    close, _ = enter(wire, Hardness.CLEAN)
    close.delivers = True
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, close.run)
        assert run.outcome == "returned not finished"
        wire.give(1)

    assert wire.log[-2:] == ["flush", "release False"]


async def test_a_foreign_stream_that_is_busy_is_looked_at_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Busy(Wire):
        async def wait_for_room(self) -> None:
            if trio.current_time() < start + 1:
                raise trio.BusyResourceError("somebody uses the stream directly")
            self.room = 1

    start = trio.current_time()
    wire = Busy()
    await wire.aclose()

    assert wire.releases == ["release True"]


async def test_an_aborted_close_polls_nothing() -> None:
    wire = Wire(math.inf)
    layer = Logged(wire)
    close, _ = enter(layer, Hardness.ABORTED)
    await close.run()

    assert wire.log == ["release False"]


# ---- Waits that do the work ----------------------------------------------------------------------


class Patient(Wire):
    """Its wait sends what a poll has taken, as over a foreign stream."""

    close_patience = 1.0
    wait_error: Exception | None = None
    needs = 0.0

    async def wait_for_room(self) -> None:
        await trio.sleep(self.needs)
        if self.wait_error is not None:
            raise self.wait_error
        self.room = 1


@pytest.mark.parametrize("state", ["abandoned", "torn", "cut off", "begun"])
@pytest.mark.parametrize("needs", [0.5, 2.0])
async def test_where_a_wait_does_the_work_polling_once_includes_it(
    state: str, needs: float, autojump_clock: trio.testing.MockClock
) -> None:
    """For as long as the layer says."""
    wire = Patient(room=1 if state == "torn" else 0)
    wire.needs = math.inf
    if state == "abandoned":
        wire.held = 1
        await cut_short(partial(wire.send_all, b""))
    elif state == "torn":
        await cut_short(partial(wire.write_all, b"abc"))
    elif state == "begun":
        await cut_short(wire.shutdown)
    wire.needs = needs
    wire.held = 1
    with resource_warnings() as messages:
        if state in ("cut off", "begun"):
            assert (await run_cancelled(wire.aclose)).outcome == "cancelled"
        else:
            await wire.aclose()

    assert wire.held == (needs > 1)
    assert len(messages) == (needs > 1 or state == "torn")
    if state == "begun" and needs < 1:
        assert wire.log[-2:] == ["shutdown", "release True"]


@pytest.mark.parametrize("state", ["abandoned", "torn", "cut off", "begun"])
@pytest.mark.parametrize("needs", [0.5, 2.0])
async def test_a_busy_wait_that_does_the_work_is_tried_again(
    state: str, needs: float, autojump_clock: trio.testing.MockClock
) -> None:
    """For as long as the layer says; then the stack ends, and nobody hears of Busy."""

    class Busy(Patient):
        async def wait_for_room(self) -> None:
            if trio.current_time() < free_at:
                raise trio.BusyResourceError("somebody uses the stream directly")
            self.room = 1

    free_at = math.inf
    wire = Busy(room=1 if state == "torn" else 0)
    wire.held = 1
    if state == "abandoned":
        with pytest.raises(trio.BusyResourceError):
            await wire.send_all(b"")
    elif state == "torn":
        with pytest.raises(trio.BusyResourceError):
            await wire.write_all(b"abc")
    elif state == "begun":
        with pytest.raises(trio.BusyResourceError):
            await wire.shutdown()
    free_at = trio.current_time() + needs
    with resource_warnings() as messages:
        if state in ("cut off", "begun"):
            assert (await run_cancelled(wire.aclose)).outcome == "cancelled"
        else:
            await wire.aclose()

    assert wire.held == (needs > 1)
    assert len(messages) == (needs > 1 or state == "torn")
    assert len(wire.releases) == 1


async def test_the_wait_that_does_the_work_may_raise(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wire = Patient()
    wire.wait_error = ValueError("wait")
    wire.held = 1
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, wire.aclose)
    assert run.error is wire.wait_error
    assert wire.releases == ["release False"]


async def test_an_aborted_close_that_is_cancelled_polls_nothing() -> None:
    wire = Wire(math.inf)
    close, _ = enter(wire, Hardness.ABORTED)
    assert (await run_cancelled(close.run)).outcome == "cancelled"

    assert wire.log == ["release False"]
