"""Waits that several tasks share."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar, final

import trio

from ._errors import BusyRefusal, NotReady

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

#: Nobody wakes us when another task has left a foreign stream: look again, in seconds.
BUSY_PAUSE: Final = 0.01


@final
class OneForAll:
    """One task makes a wait; others that come meanwhile wait until it is done.

    Most transports bear one waiting task only, yet an ``aclose`` must get in while another task
    waits. When the first task leaves, by whatever way, the others return and poll again.
    """

    __slots__ = ("_done", "_is_under_way")

    def __init__(self) -> None:
        self._is_under_way = False
        # Made when a second task comes, which is seldom.
        self._done: trio.Event | None = None

    def is_under_way(self) -> bool:
        """Whether a task makes the wait now."""
        return self._is_under_way

    @trio.lowlevel.enable_ki_protection
    async def wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Make ``wait``, or wait for the task that does.

        Cancellation: nothing happened.
        """
        if self._is_under_way:
            if self._done is None:
                self._done = trio.Event()
            await self._done.wait()
            return
        self._is_under_way = True
        try:
            await wait()
        finally:
            self._is_under_way = False
            done, self._done = self._done, None
            if done is not None:
                done.set()


async def persist(operation: Callable[[], Awaitable[T]]) -> T:
    """Try until other tasks have left a foreign stream, which cannot be taken from them."""
    while True:
        try:
            return await operation()
        except trio.BusyResourceError:
            await trio.sleep(BUSY_PAUSE)


async def first_of(
    here: Callable[[], Awaitable[object]], beside: Callable[[], Awaitable[object]]
) -> None:
    """Make two waits at once, until one of them returns or raises.

    Args:
        here: is made by this task, and begins at once.
        beside: is made by a task of its own, which begins at the next turn of the run loop.

    Cancellation: nothing happened.
    """
    here_error: BaseException | None = None
    beside_error: BaseException | None = None
    # This task is cancelled as others are; the other one is ended by us only.
    beside_scope = trio.CancelScope(shield=True)

    async def run_beside() -> None:
        nonlocal beside_error
        try:
            with beside_scope:
                await beside()
        except BaseException as exc:  # noqa: ASYNC103, BLE001 - raised below
            beside_error = exc
        here_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_beside)
        try:
            with trio.CancelScope() as here_scope:
                await here()
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            # Raised below: out of the nursery it would come in an ExceptionGroup.
            here_error = exc
        beside_scope.cancel()
    try:
        if beside_error is not None and isinstance(here_error, (Exception, type(None))):
            raise beside_error
        if here_error is not None:
            raise here_error
    finally:
        here_error = beside_error = None  # they refer to this frame


@final
class Line:
    """Tasks that use one writer, in the order of their coming: only the first in the line polls."""

    __slots__ = ("_has_rest", "busy", "holder", "turns")

    def __init__(self) -> None:
        #: How many go before somebody who comes now. A short cut past the line needs 0.
        self.busy: int = 0
        self._has_rest = False
        #: The task that keeps the first place over several polls.
        self.holder: trio.lowlevel.Task | None = None
        #: The places that are taken, in order.
        self.turns: OrderedDict[trio.Event, None] = OrderedDict()

    def enter(self) -> trio.Event:
        """Take the last place; the event is set when its turn has come.

        Raises:
            trio.BusyResourceError: if the task would wait for itself.
        """
        if self.holder is not None and self.holder is trio.lowlevel.current_task():
            raise BusyRefusal("this task is in the middle of a message to this writer")
        turn = trio.Event()
        self.turns[turn] = None
        self._count()
        return turn

    def keep_rest(self, *, has_rest: bool) -> None:
        """Say whether the rest of a message waits, which has to go before all others."""
        self._has_rest = has_rest
        self._count()

    def _count(self) -> None:
        # Not step by step: an interrupted task would leave it wrong for ever.
        self.busy = len(self.turns) + self._has_rest

    def check(self, turn: trio.Event) -> None:
        """Return if it is the place's turn.

        Raises:
            NotReady: if it is not.
        """
        if next(iter(self.turns)) is not turn:
            raise NotReady(turn.wait)

    async def until_free(self) -> None:
        """Stand in line, and leave when the turn has come: for polls that have no place.

        Cancellation: nothing happened.
        """
        turn = self.enter()
        try:
            await trio.lowlevel.checkpoint()
            if next(iter(self.turns)) is not turn:
                await turn.wait()
        finally:
            self.leave(turn)

    def poll(self, turn: trio.Event, poll: Callable[[], T]) -> T:
        """Poll, if it is the place's turn; and leave once that has succeeded.

        Raises:
            NotReady: as the poll does, or because it is not the turn.
        """
        self.check(turn)
        result = poll()
        # Not only after the caller's checkpoint: while one task is in it, all the others would
        # come to stand in line, and from then on each of their messages would cost one.
        self.leave(turn)
        return result

    def leave(self, turn: trio.Event) -> None:
        """Give the place up, if it is still held."""
        self.turns.pop(turn, None)
        self._count()
        for first in self.turns:
            first.set()
            break
