"""Cancellation at every place where it can strike.

A task meets a cancellation at a checkpoint only, and what a checkpoint finds can have changed
only while its task was suspended. So these are all the moments at which a cancellation of a block
can make a difference: after each step of a task inside the block (it is suspended now, and its
wait is aborted), and before each step (its wait has succeeded, and the *next* checkpoint raises).
An instrument of Trio's sees both.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any, final

import trio
import trio.abc

from trio_asyncwrite._core._budget import current_budget
from trio_asyncwrite._core._checks import counted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, MutableSequence
    from types import FrameType, TracebackType

    from typing_extensions import Self

# Where Trio keeps the generator with which it shuffles; Hypothesis' plugin seeds the same one.
_SCHEDULER, _GENERATOR = "trio._core._run", "_r"


class _InOrder(random.Random):
    """Makes Trio's scheduler fair: first come, first served.

    Trio reverses a batch of tasks at the toss of a coin (under Hypothesis it shuffles it), and
    then takes them from its end. A seed would not do: the coin is tossed whenever the run loop
    wakes up, and how often it does is, over real sockets, a matter of time.
    """

    def random(self) -> float:
        return 0.0

    def shuffle(self, x: MutableSequence[Any], random: object = None) -> None:
        x.reverse()


class _FairScheduler:
    """While somebody is inside, Trio's scheduler is fair.

    In all threads, since they share one generator.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._original: random.Random | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._original = getattr(sys.modules.get(_SCHEDULER), _GENERATOR, None)
                if self._original is not None:
                    setattr(sys.modules[_SCHEDULER], _GENERATOR, _InOrder())
        if self._original is None:
            warnings.warn(
                f"trio {trio.__version__} has no {_SCHEDULER}.{_GENERATOR}: tasks cannot be run "
                "in a fixed order, so one run may differ from another",
                RuntimeWarning,
                stacklevel=3,
            )

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._original is not None:
                setattr(sys.modules[_SCHEDULER], _GENERATOR, self._original)
                self._original = None


fair_scheduler = _FairScheduler()


@contextlib.contextmanager
def _no_budget() -> Generator[None]:
    """Every write makes a checkpoint, and between any two polls: more places to cancel at."""
    budget = current_budget()
    limit, left = budget.limit, budget.left
    budget.limit = budget.left = 0
    try:
        yield
    finally:
        budget.limit, budget.left = limit, left


class _Block:
    """What one run knows of the block that it cancels."""

    def __init__(self, run: int) -> None:
        self.where: str = "not cancelled"
        self.scope: trio.CancelScope = trio.CancelScope()
        # How many moments are still to pass before the one to cancel at.
        self._left = run
        self._task: trio.lowlevel.Task | None = None
        self._outside: list[trio.Nursery] = []
        if not run:
            self.strike("cancelled before the block began")

    def begin(self) -> None:
        """Note who has entered the block, and which nurseries are not in it."""
        if self._task is not None:
            raise RuntimeError(
                "the scenario entered `with sweep:` a second time; enter it once per run"
            )
        self._task = trio.lowlevel.current_task()
        self._outside = list(self._task.child_nurseries)

    def require_begun(self) -> None:
        """Raise if the scenario has ended and never entered the block."""
        if self._task is None:
            raise RuntimeError("the scenario did not enter `with sweep:`; enter it once per run")

    def strike(self, where: str) -> None:
        """Cancel the block; ``where`` says in words at which moment."""
        self.where = where
        self.scope.cancel()

    def contains(self, task: trio.lowlevel.Task) -> bool:
        """Whether ``task`` has entered the block, or lives in a nursery opened in it."""
        # Asked anew each time: nursery.start() moves a task from one nursery to another.
        while task is not self._task:
            nursery = task.parent_nursery
            if nursery is None or nursery in self._outside:
                return False
            task = nursery.parent_task
        return True

    def is_due(self) -> bool:
        """Count a moment; whether it is the one to cancel at."""
        self._left -= 1
        return not self._left


@final
class Sweep:
    """One run of :func:`cancel_everywhere`. It cancels the code in ``with sweep:``.

    Enter the block exactly once per run. A cancellation ends the block, as with a
    :class:`trio.CancelScope`; the code after the block always runs.
    """

    def __init__(self, block: _Block) -> None:
        self._block = block
        self._instrument = _Instrument(block)

    @property
    def where(self) -> str:
        """Where the block was cancelled, in words, for messages."""
        return self._block.where

    @property
    def cancelled(self) -> bool:
        """Whether the block was cut short. False if a cancellation came too late for that."""
        return self._block.scope.cancelled_caught

    def __enter__(self) -> Self:
        self._block.begin()
        self._block.scope.__enter__()
        trio.lowlevel.add_instrument(self._instrument)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        trio.lowlevel.remove_instrument(self._instrument)
        return self._block.scope.__exit__(exc_type, exc_value, traceback)


class _Instrument(trio.abc.Instrument):
    """Counts the moments of a block, and cancels it when one is due."""

    def __init__(self, block: _Block) -> None:
        self._block = block
        self._suspensions = 0
        # Which suspension each task is in.
        self._latest: dict[trio.lowlevel.Task, int] = {}
        self._exited: trio.lowlevel.Task | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._block.contains(task) and self._block.is_due():
            number = self._latest.get(task)
            if number is None:
                self._strike("before the first step of task {}", task)
            else:
                self._strike(
                    f"after suspension {number}, before the resumed task {{}} went on", task
                )

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._exited = task

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._block.contains(task):
            ended = task is self._exited
            if not ended:
                self._suspensions += 1
                self._latest[task] = self._suspensions
            if self._block.is_due():
                if ended:
                    self._strike("after the end of task {}", task)
                else:
                    self._strike(f"in suspension {self._suspensions}, which is of task {{}}", task)

    def _strike(self, where: str, task: trio.lowlevel.Task) -> None:
        # Older versions of Trio cannot walk the frames of a task that has none left.
        stack = "" if task is self._exited else _stack(task)
        self._block.strike(f"cancelled {where.format(task.name)}\n{stack}".rstrip())


def _stack(task: trio.lowlevel.Task) -> str:
    """Where ``task`` stands, as in a traceback: its frames inside the scenario, but not Trio's."""
    frames: list[tuple[FrameType, int]] = []
    for frame, line in task.iter_await_frames():
        if frame.f_code is cancel_everywhere.__code__:
            frames = []
        elif not frame.f_globals.get("__name__", "").startswith("trio."):
            frames.append((frame, line))
    return "".join(traceback.StackSummary.extract(iter(frames)).format())


async def cancel_everywhere(
    scenario: Callable[[Sweep], Awaitable[object]], *, max_runs: int = 10_000
) -> int:
    """Run a scenario again and again, and cancel it somewhere else each time, until it completes.

    The scenario has one block that is cancelled. The set-up before it and the checks after it are
    ordinary code::

        async def scenario(sweep):
            writer = MyWriter(Cursor())
            buf = Buf(b"hello world")
            with sweep:
                await writer.write_all_buf(buf)
            await writer.write_all_buf(buf)  # goes on where it was cancelled
            await writer.aclose()
            assert writer.inner.getvalue() == b"hello world"

        await cancel_everywhere(scenario)

    The first run is cancelled before the block begins. Then each suspension of a task in the block
    (the task that entered it, and those of nurseries opened in it) gets two runs. One is cancelled
    while the task is suspended: its wait is aborted. The other is cancelled when the task was woken
    and before it continues: its wait has succeeded, and the next checkpoint raises. The last run is
    not cancelled. That is exhaustive: a cancellation at any other time has the effect of one of
    these.

    It is deterministic if the scenario is. While it runs, Trio takes tasks in their order instead
    of shuffling them, and the budget of this library's writes is always spent: each makes a
    checkpoint first, and a long message between any two polls. It works with any clock.

    Args:
        scenario: an async callable that takes the :class:`Sweep`, enters ``with sweep:`` exactly
            once, and raises if it finds something wrong.
        max_runs: how many runs to make at most.

    Returns:
        How many runs were made, the last included.

    Raises:
        RuntimeError: if a run enters the block not at all or more than once, or if ``max_runs`` is
            too small.
        Exception: if the scenario raises it; a note says at which point the run was cancelled.

    Cancellation: lost; the next call starts over with the first run.
    """
    block = _Block(0)
    with fair_scheduler, _no_budget():
        for run in range(max_runs):
            await trio.lowlevel.checkpoint()
            block = _Block(run)
            try:
                await scenario(Sweep(block))
                block.require_begun()
            except BaseException as exc:
                # Python 3.10 has no add_note(), yet Trio brings what prints notes there (PEP 678).
                notes = vars(exc).setdefault("__notes__", [])
                notes.append(f"cancel_everywhere, run {run}: {block.where}")
                raise
            if not block.scope.cancel_called:
                return run + 1
    raise RuntimeError(
        f"the scenario did not complete in {counted(max_runs, 'run')}; the last one was "
        f"{block.where}"
    )
