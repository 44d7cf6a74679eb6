"""Sources that fail, and targets that remember."""

from __future__ import annotations

from typing import Any

import trio

from trio_asyncwrite import AsyncReadWrite, AsyncWrite, NotReady

from ..core._fakes import Source


class Target(AsyncWrite):
    """Takes so many bytes as there is room for, and remembers what was called."""

    def __init__(self, room: float = 1 << 20) -> None:
        self.room = room
        self.taken = bytearray()
        self.log: list[str] = []
        self.error: BaseException | None = None
        self.waiters = trio.lowlevel.ParkingLot()
        self.flushed = 0

    def give(self, room: int) -> None:
        self.room += room
        self.waiters.unpark_all()

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.lifecycle.check_write(self)
        if self.error is not None:
            raise self.error
        if not self.room:
            raise NotReady(self.waiters.park)
        count = min(len(data), int(self.room))
        self.taken += data[:count]
        self.room -= count
        return count

    def poll_flush(self) -> None:
        if self.flushed < len(self.taken):
            self.log.append(f"flush {len(self.taken)}")
        self.flushed = len(self.taken)

    def poll_shutdown(self) -> None:
        self.log.append("shutdown")

    async def release(self, *, clean: bool) -> None:
        self.log.append("closed" if clean else "aborted")

    def __repr__(self) -> str:
        return "<Target>"


class Both(Target, Source, AsyncReadWrite):
    """A stream whose two directions are told what to do."""

    def __init__(self, *chunks: bytes | BaseException, room: float = 1 << 20) -> None:
        Source.__init__(self, *chunks)
        Target.__init__(self, room)

    def __repr__(self) -> str:
        return "<Both>"


def foreign(stream: Any) -> Any:
    """The same as a stream of another library."""
    return trio.StapledStream(stream, stream)
