"""Cancels the sender in the middle of its waits, at places drawn beforehand."""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import ParamSpec

    P = ParamSpec("P")

#: How much the receiver takes at once.
_READ_SIZE: Final = 65536

#: How much more it takes when a cancellation was due and the sender was not in a write.
_STEP: Final = 1024


def draw_places(size: int, count: int, seed: int) -> list[int]:
    """Draw where in a stream of about ``size`` bytes to cancel, up to ``count`` times."""
    everywhere = range(1, size)
    return sorted(random.Random(seed).sample(everywhere, min(count, len(everywhere))))  # noqa: S311


class Cancellations:
    """Lets the receiver cancel what the sender is doing.

    The receiver reads up to the next place and then waits until the sender can do nothing
    more: all buffers between them are full, and it is stuck in a write or flush. There the
    cancellation strikes. So it does not depend on the speed of the machine, and every one that
    is counted has hit.

    Args:
        places: after how many received bytes to strike.
    """

    def __init__(self, places: list[int]) -> None:
        self._places = deque(places)
        self._scope: trio.CancelScope | None = None
        #: How many have hit, by the name of the operation that was cancelled.
        self.hits: Counter[str] = Counter()

    async def expose(
        self, operation: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs
    ) -> bool:
        """Call an async operation, in which the sender may be cancelled.

        Returns:
            Whether it came to its end; if not, a cancellation hit it.
        """
        with trio.CancelScope() as scope:
            self._scope = scope
            try:
                await operation(*args, **kwargs)
            finally:
                self._scope = None
        if scope.cancelled_caught:
            self.hits[operation.__name__] += 1
        return not scope.cancelled_caught

    @property
    def total(self) -> int:
        """How many have hit."""
        return sum(self.hits.values())

    def read_size(self, received: int) -> int:
        """How much to read, so as to stop at the next place."""
        if not self._places:
            return _READ_SIZE
        return min(_READ_SIZE, max(_STEP, self._places[0] - received))

    async def strike_if_due(self, received: int) -> None:
        """Cancel the sender, if the next place is reached and it is in an operation.

        Cancellation: nothing happened.
        Checkpoints: only if the next place is reached.
        """
        if self._places and self._places[0] <= received:
            await trio.testing.wait_all_tasks_blocked()
            if self._scope is not None:
                self._places.popleft()
                self._scope.cancel()
