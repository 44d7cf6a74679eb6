"""The limits of graceful closes that unite."""

from __future__ import annotations

import math

import trio
import trio.testing

from trio_asyncwrite._closing._bounds import Bounds
from trio_asyncwrite._closing._limits import Limits
from trio_asyncwrite._core._close import Close


async def test_the_tighter_limits_win(autojump_clock: trio.testing.MockClock) -> None:
    bounds = Bounds(Limits(9, 8, 70))
    await trio.sleep(1)
    bounds.tighten(Limits(2, 9, 80))
    assert (bounds.send_by, bounds.linger, bounds.linger_bytes) == (3, 8, 70)
    bounds.tighten(Limits(9, 5, 60))
    assert (bounds.send_by, bounds.linger, bounds.linger_bytes) == (3, 5, 60)


async def test_what_waits_now_gets_the_tighter_limits_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bounds = Bounds(Limits(9, 9, 0))
    with trio.CancelScope() as scope:
        bounds.bound_sending(scope, Close())
        assert scope.deadline == 9
        bounds.tighten(Limits(3, 9, 0))
        assert scope.deadline == 3
        await trio.sleep(5)
    assert scope.cancelled_caught
    assert trio.current_time() == 3
    with trio.CancelScope() as scope:
        bounds.bound_lingering(scope, Close())
        assert scope.deadline == 12
        await trio.sleep(1)
        bounds.tighten(Limits(9, 4, 0))
        assert scope.deadline == 8
        bounds.tighten(Limits(9, 9, 0, total=3))
        assert scope.deadline == 7


async def test_lingering_begins_once(autojump_clock: trio.testing.MockClock) -> None:
    bounds = Bounds(Limits(math.inf, 4, 0))
    with trio.CancelScope() as scope:
        bounds.bound_lingering(scope, Close())
        await trio.sleep(1)
    bounds.tighten(Limits(9, 1, 0))
    scope = trio.CancelScope()
    bounds.bound_lingering(scope, Close())
    assert scope.deadline == 2
