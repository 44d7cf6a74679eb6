"""The tokens of a bucket, and the line of those who wait for some.

Theory of operation
===================

**The level.** Each token is a byte that may be written now. They come in at ``rate`` per second, up
to ``burst``. The level is a number and the time at which it was true. Tokens leave it when bytes
were accepted, and at no other time: a task that is cancelled, or whose writer is not ready, has
taken none.

**The line.** A writer that finds too few tokens waits in line, first come, first served. Only the
first in the line waits for the clock. When there are enough tokens for it, its *turn* has come: it
leaves the line, and takes them by its next poll. While others stand in line, nobody else gets any.
A turn is a *quantum* at most; a writer that wants more stands in line again. So many writers share
the rate in equal parts.

**The clock** is Trio's, and each run has one. A level that was noted in another run, or outside of
any, is worth as much as it was then.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import Final, final

import trio
import trio.abc

from trio_asyncwrite._core._errors import NotReady

#: Shorter than this is a rounding error of the clock, in seconds: to wait for it would take no
#: time at all.
_TICK: Final = 1e-6

#: A turn is this part of a burst, within bounds: smaller than a TCP segment, headers would take
#: the line; larger than what sockets take at once, others would wait for nothing.
_TURNS_PER_BURST: Final = 8
_SMALLEST_TURN: Final = 1460
_LARGEST_TURN: Final = 65536


@final
class Turn:
    """Whether a writer has waited in line, and gets its tokens before those who stand there."""

    __slots__ = ("has_come",)

    def __init__(self) -> None:
        self.has_come: bool = False


@final
class Tokens:
    """See the top of this file.

    Args:
        rate: tokens per second.
        burst: how many there may be.
    """

    __slots__ = ("_clock", "_line", "_since", "_sleeper", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate: float = rate
        self.burst: float = burst
        #: How many there were at ``_since``, by ``_clock``.
        self.level: float = burst
        self._since = 0.0
        self._clock: trio.abc.Clock | None = None
        self._line: deque[trio.Event] = deque()
        #: Around the sleep of the first in the line.
        self._sleeper: trio.CancelScope | None = None

    @property
    def quantum(self) -> float:
        """How many tokens a turn is at most."""
        part = min(self.burst / _TURNS_PER_BURST, _LARGEST_TURN)
        return min(self.burst, max(part, _SMALLEST_TURN))

    @property
    def at_once(self) -> int:
        """How many there are in any case, without a look at the clock."""
        if self._line or self.level < 1:
            return 0
        return int(min(self.level, 2**63))

    def change(self, rate: float, burst: float) -> None:
        """Another rate from now on; those who wait are told."""
        self._note()
        self.rate = rate
        self.burst = burst
        self.level = min(self.level, burst)
        if self._sleeper is not None:
            self._sleeper.cancel()

    def poll(self, turn: Turn, wanted: int) -> int:
        """How many tokens may be used now.

        Args:
            turn: of the writer that asks.
            wanted: how many it can use; at least 1.

        Returns:
            1 to ``wanted``.

        Raises:
            NotReady: if there are fewer than both ``wanted`` and a turn, or others stand in line.
        """
        if self._line and not turn.has_come:
            raise NotReady(functools.partial(self._wait, turn, wanted))
        self._note()
        most = min(wanted, self.quantum) if self._line else wanted
        if self.level >= most:
            return int(most)
        if self._missing(wanted):
            raise NotReady(functools.partial(self._wait, turn, wanted))
        return max(int(min(self.level + self.rate * _TICK, most)), 1)

    def use(self, turn: Turn, count: int) -> None:
        """Take tokens away, after a :meth:`poll`: one for each byte that was accepted."""
        if count:
            self.level -= count
            turn.has_come = False

    def _note(self) -> None:
        """Let come in what has come in since the last time."""
        try:
            clock = trio.lowlevel.current_clock()
        except RuntimeError:
            return  # polls may be made outside of any run
        now = clock.current_time()
        # An infinite rate in no time would not be a number.
        if clock is self._clock and now > self._since:
            self.level = min(self.level + (now - self._since) * self.rate, self.burst)
        self._clock = clock
        self._since = now

    def _missing(self, wanted: int) -> float:
        """For how many seconds to wait, as it looks now; 0 if that is too short to be told."""
        pause = (min(wanted, self.quantum) - self.level) / self.rate
        return pause if pause > _TICK else 0.0

    @trio.lowlevel.enable_ki_protection
    async def _wait(self, turn: Turn, wanted: int) -> None:
        clock = trio.lowlevel.current_clock()
        if not self._line:
            self._note()
        elif clock is not self._clock:
            raise RuntimeError("a TokenBucket serves one trio.run at a time")
        place = trio.Event()
        self._line.append(place)
        self._line[0].set()
        try:
            # Even if it need not wait: it is a checkpoint.
            await trio.lowlevel.checkpoint()
            await place.wait()
            while True:
                self._note()
                pause = self._missing(wanted)
                if not pause:
                    # No checkpoint comes between this and the poll.
                    turn.has_come = True
                    return
                with trio.move_on_after(pause) as self._sleeper:
                    await trio.sleep_forever()
        finally:
            if self._line[0] is place:
                self._sleeper = None
            self._line.remove(place)
            if self._line:
                self._line[0].set()
