"""The cooperative budget: how much work the writes of a run may do without a checkpoint.

A write that stays in a buffer costs a small memcpy; a trip through the scheduler costs a hundred
times that. Yet a tight loop of writes must not starve the other tasks nor overlook a cancellation.
So all writers of one ``trio.run`` draw on one budget, each poll in proportion to its work, and the
call that finds the budget spent makes a full checkpoint first. One unit is about a microsecond of
work. No clock is read, so it is deterministic.

Source: ``tokio::task::coop``, whose budget is 128 as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
import trio.abc

from ._checks import positive_int

if TYPE_CHECKING:
    from ._layer import Layer

LIMIT: Final = 128

#: Data of fewer bytes that stays in a buffer costs one unit; larger data one more for as many.
FAST_SIZE: Final = 65536

#: What a poll costs that may reach a transport, beside its bytes: about one system call.
POLL_COST: Final = 8

#: How many bytes a transport takes for one unit: about the kernel's memcpy.
TRANSPORT_RATE: Final = 4096

#: The same of what moves inside the kernel: sendfile and splice.
KERNEL_RATE: Final = 16384

#: The same of a layer that does not say, and may do anything: 32 KiB use up the whole budget.
UNKNOWN_RATE: Final = 256


class Budget(trio.abc.Instrument):
    """Counts down from ``limit`` to 0. Each writer keeps a reference: a look-up costs more."""

    __slots__ = ("left", "limit")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        # The call that refills it has made a checkpoint, and then takes its own share.
        self.left: int = max(limit - 1, 0)

    def after_run(self) -> None:
        """Take back what is left: in another run, a writer draws on that one's budget."""
        self.left = self.limit = 0


#: What a writer holds before its first call, and never refilled.
SPENT: Final = Budget(0)

_budget: trio.lowlevel.RunVar[Budget] = trio.lowlevel.RunVar("trio_asyncwrite budget")


def current_budget() -> Budget:
    """The budget of this ``trio.run``."""
    try:
        return _budget.get()
    except LookupError:
        budget = Budget(LIMIT)
        _budget.set(budget)
        trio.lowlevel.add_instrument(budget)
        return budget


def rate_of(layer: Layer) -> int:
    """How many bytes of a write to ``layer`` cost one unit; kept in its lifecycle.

    Raises:
        TypeError: if its answer is no integer.
        ValueError: if it is less than 1.
    """
    rate: int | None = getattr(layer, "bytes_per_budget_unit")  # noqa: B009 - a writer has it
    if rate is None:
        inner = layer.lifecycle.inner
        if layer.overrides_poll_write:
            rate = UNKNOWN_RATE
        elif inner is None:
            rate = TRANSPORT_RATE
        else:
            rate = inner.lifecycle.rate or rate_of(inner)
    number = positive_int(rate, f"{type(layer).__name__}.bytes_per_budget_unit")
    layer.lifecycle.rate = number
    return number


async def spend(budget: Budget, cost: int = 1) -> Budget:
    """Take ``cost`` from this run's budget; return the budget for the next calls.

    No debt is kept.

    Cancellation: nothing happened.
    Checkpoints: when ``budget`` and this run's budget are both spent.
    """
    if not budget.left:
        budget = current_budget()
        if not budget.left:
            await trio.lowlevel.checkpoint()
            budget.left = budget.limit
    budget.left = max(budget.left - cost, 0)
    return budget
