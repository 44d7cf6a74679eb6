"""The cooperative budget: how many calls of a run may pass without a checkpoint.

A write that stays in a buffer costs a small memcpy; a trip through the scheduler costs a
hundred times that. Yet a tight loop of such writes must not starve the other tasks nor
overlook a cancellation, so all writers of one ``trio.run`` draw on one budget, and the call
that finds it spent makes a full checkpoint first.

Source: ``tokio::task::coop``, whose budget is 128 as well.
"""

from __future__ import annotations

from typing import Final

import trio
import trio.abc

LIMIT: Final = 128


class Budget(trio.abc.Instrument):
    """Counts down; each writer keeps a reference, for a look-up per call would cost more."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left: int = left

    def after_run(self) -> None:
        """Take back what is left: in another run, a writer draws on that one's budget."""
        self.left = 0


#: What a writer holds before its first call, and never refilled.
SPENT: Final = Budget(0)

_budget: trio.lowlevel.RunVar[Budget] = trio.lowlevel.RunVar("trio_asyncwrite budget")


def current_budget() -> Budget:
    """The budget of this ``trio.run``."""
    try:
        return _budget.get()
    except LookupError:
        budget = Budget(LIMIT - 1)
        set_budget(budget)
        trio.lowlevel.add_instrument(budget)
        return budget


def set_budget(budget: Budget) -> None:
    """Make ``budget`` that of this ``trio.run``; writers that hold another one still draw on it."""
    _budget.set(budget)


async def spend(budget: Budget) -> Budget:
    """Take one call from this run's budget; return the budget for the next ones.

    Cancellation: nothing happened.
    Checkpoints: when ``budget`` and this run's budget are both spent.
    """
    if not budget.left:
        budget = current_budget()
        if not budget.left:
            await trio.lowlevel.checkpoint()
            budget.left = LIMIT
    budget.left -= 1
    return budget


def spend_at_once() -> tuple[Budget, bool]:
    """Take one call from this run's budget; whether it was not spent yet.

    If it was, the caller owes a full checkpoint.
    """
    budget = current_budget()
    was_left = budget.left > 0
    budget.left = (budget.left or LIMIT) - 1
    return budget, was_left


async def pay(cost: int) -> None:
    """Take so much from this run's budget, for a poll that has moved bytes; no debt is kept.

    Cancellation: nothing happened.
    Checkpoints: when the budget is spent.
    """
    budget = current_budget()
    if not budget.left:
        await trio.lowlevel.checkpoint()
        budget.left = LIMIT
    budget.left = max(budget.left - cost, 0)
