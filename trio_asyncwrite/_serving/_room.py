"""How many connections a server has, and may have."""

from __future__ import annotations

import math
from typing import final

import trio


@final
class Room:
    """Counts a server's connections.

    With several listeners, each may be waiting inside ``accept`` when the last place is taken. What
    it accepts then waits to be served.

    Args:
        size: how many may be served at once; None for no limit.
    """

    __slots__ = ("_size", "_to_accept", "_to_serve", "accepted", "served")

    def __init__(self, size: int | None) -> None:
        self._size: float = math.inf if size is None else size
        #: Connections that were accepted and have not ended.
        self.accepted = 0
        #: Those of them that are served.
        self.served = 0
        self._to_accept = trio.lowlevel.ParkingLot()
        self._to_serve = trio.lowlevel.ParkingLot()

    async def wait_to_accept(self) -> None:
        """Wait until there is room for one more.

        Checkpoints: only if there is none.
        """
        while self.accepted >= self._size:
            await self._to_accept.park()

    async def wait_to_serve(self) -> None:
        """Wait until one more may be served, first come, first served; and count it.

        Checkpoints: only if there is no room.
        """
        if self.served < self._size:
            self.served += 1
        else:
            # leave() hands its place over: nobody can come in between.
            await self._to_serve.park()

    def leave(self, *, was_served: bool) -> None:
        """A connection has ended."""
        self.accepted -= 1
        if was_served:
            if self._to_serve:
                self._to_serve.unpark()
            else:
                self.served -= 1
        self._to_accept.unpark_all()
