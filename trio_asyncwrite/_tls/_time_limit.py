"""A time limit that one ``trio.run`` sets and another one does not wait for."""

from __future__ import annotations

import math
from typing import final

import trio


@final
class TimeLimit:
    """A number of seconds from now, within this ``trio.run``; over in every other one."""

    __slots__ = ("_run", "deadline")

    def __init__(self, seconds: float) -> None:
        self._run = trio.lowlevel.current_trio_token()
        #: The time on the clock of the run.
        self.deadline = trio.current_time() + seconds

    def is_over(self) -> bool:
        """Whether it is over."""
        # The clock of another run says nothing about this deadline.
        return (
            self._run is not trio.lowlevel.current_trio_token()
            or trio.current_time() >= self.deadline
        )

    def end(self) -> None:
        """Let it be over."""
        self.deadline = -math.inf
