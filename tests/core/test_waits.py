"""Waits that several tasks share."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from trio_asyncwrite import NotReady
from trio_asyncwrite._core._waits import Line, OneForAll, first_of

from .._patience import wait_all_tasks_blocked
from ._fakes import Run, begin


class Counted:
    """A wait that counts who makes it."""

    def __init__(self) -> None:
        self.makers = 0
        self.error: Exception | None = None
        self.event = trio.Event()

    async def __call__(self) -> None:
        self.makers += 1
        await self.event.wait()
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("end", ["returns", "is cancelled", "raises"])
async def test_one_task_waits_for_all(end: str) -> None:
    """The others return when it leaves, by whatever way, and may make the wait themselves."""
    shared, wait = OneForAll(), Counted()
    assert not shared.is_under_way()
    async with trio.open_nursery() as nursery:
        runs: list[Run] = [await begin(nursery, partial(shared.wait, wait)) for _ in range(3)]
        assert shared.is_under_way()
        assert wait.makers == 1
        if end == "is cancelled":
            runs[0].scope.cancel()
        else:
            wait.error = ValueError("wait") if end == "raises" else None
            wait.event.set()
        await wait_all_tasks_blocked()
        outcomes = [run.outcome for run in runs]
        assert not shared.is_under_way()
        nursery.start_soon(shared.wait, trio.lowlevel.checkpoint)

    first = {"returns": "returned None", "is cancelled": "cancelled", "raises": "ValueError"}[end]
    assert outcomes == [first, "returned None", "returned None"]


async def test_who_waits_for_another_may_be_cancelled_alone() -> None:
    shared, wait = OneForAll(), Counted()
    async with trio.open_nursery() as nursery:
        runs: list[Run] = [await begin(nursery, partial(shared.wait, wait)) for _ in range(2)]
        runs[1].scope.cancel()
        await wait_all_tasks_blocked()
        assert [run.outcome for run in runs] == ["returned not finished", "cancelled"]
        wait.event.set()


async def test_only_the_first_in_the_line_polls() -> None:
    line = Line()
    assert not line.turns
    first, second, third = (line.enter() for _ in range(3))
    with pytest.raises(NotReady) as not_ready:
        line.poll(second, lambda: 2)
    assert line.poll(first, lambda: 1) == 1
    await not_ready.value.wait()
    with pytest.raises(NotReady):
        line.poll(third, lambda: 3)
    line.leave(second)
    line.leave(second)
    assert line.poll(third, lambda: 3) == 3
    assert not line.turns


async def test_a_line_is_busy_while_somebody_or_something_goes_first() -> None:
    line = Line()
    assert not line.busy
    first, second = line.enter(), line.enter()
    line.keep_rest(has_rest=True)
    for turn in (first, second, second):
        assert line.busy
        line.leave(turn)
    assert line.busy
    line.keep_rest(has_rest=False)
    assert not line.busy


def test_a_poll_that_fails_keeps_its_place_in_the_line() -> None:
    line = Line()
    place = line.enter()
    with pytest.raises(ZeroDivisionError):
        line.poll(place, lambda: 1 // 0)
    assert line.turns


@pytest.mark.parametrize("first", ["here", "beside"])
@pytest.mark.parametrize("error", [None, ValueError("wait"), KeyboardInterrupt()])
async def test_the_first_of_two_waits_ends_both(first: str, error: BaseException | None) -> None:
    """It raises what that one raises, and not in a group."""

    async def ends() -> None:
        await wait_all_tasks_blocked()
        if error is not None:
            raise error

    waits = (ends, trio.sleep_forever) if first == "here" else (trio.sleep_forever, ends)
    seen: BaseException | None = None
    try:
        await first_of(*waits)
    except (ValueError, KeyboardInterrupt) as exc:
        seen = exc
    assert seen is error


async def test_a_cancellation_ends_both_waits() -> None:
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(first_of, trio.sleep_forever, trio.sleep_forever))
        run.scope.cancel()
    assert run.outcome == "cancelled"


async def test_of_two_errors_that_beside_comes_first() -> None:
    async def fails(error: Exception) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    async def fails_first(error: Exception) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    errors = ValueError("here"), KeyError("beside")
    with pytest.raises(KeyError, match="beside"):
        await first_of(partial(fails, errors[0]), partial(fails_first, errors[1]))


async def test_who_has_no_place_waits_until_the_line_is_free() -> None:
    line = Line()
    await line.until_free()
    first = line.enter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.until_free)
        await wait_all_tasks_blocked()
        assert len(line.turns) == 2
        line.leave(first)
    assert not line.turns
    first = line.enter()
    with trio.move_on_after(0):
        await line.until_free()
    assert list(line.turns) == [first]
