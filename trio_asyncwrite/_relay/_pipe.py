"""Pipes that a lane moves bytes through without seeing them.

The kernel splices between a pipe and a descriptor only, so two sockets need a pipe in between. A
lane has one only while much comes through; then it gives it back, if it is empty. Pipes are scarce:
an ordinary user gets 64 of this size, and then EPERM. So whoever gets none does without.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import trio
import trio.abc

if sys.platform == "linux":  # pragma: no branch
    import fcntl

#: As large as Linux lets an ordinary user make one. It holds a number of pages, whether they are
#: full or not, and so may take fewer bytes, or many more: the lane counts.
PIPE_SIZE: Final = 1 << 20

#: How many are kept for the next lane that needs one. Four moving at once saturate a core.
_KEPT: Final = 4


class Pipe:
    """The two ends of a pipe. Closed when it is dropped, for nobody else knows it.

    Raises:
        OSError: if the system gives none, or none so large.
    """

    __slots__ = ("reading", "writing")

    def __init__(self) -> None:
        #: The descriptors; -1 once they are closed. Before anything can raise: see ``__del__``.
        self.reading = self.writing = -1
        if sys.platform == "linux":  # pragma: no branch
            self.reading, self.writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def read_back(self, size: int) -> bytes:
        """Take ``size`` bytes out, as many as it holds."""
        parts: list[bytes] = []
        while size:
            parts.append(os.read(self.reading, size))
            size -= len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Close both ends; what is in it is gone."""
        for fd in (self.reading, self.writing):
            if fd >= 0:
                os.close(fd)
        self.reading = self.writing = -1

    def __del__(self) -> None:
        self.close()


class _Pool(trio.abc.Instrument):
    """The pipes of one run that nobody uses now."""

    def __init__(self) -> None:
        self.pipes: list[Pipe] = []

    def after_run(self) -> None:
        """Close them: what a run leaves behind waits for the garbage collector."""
        while self.pipes:
            self.pipes.pop().close()


_pool: trio.lowlevel.RunVar[_Pool] = trio.lowlevel.RunVar("trio_asyncwrite pipes")


def take_pipe() -> Pipe | None:
    """An empty pipe, for the caller alone until it gives it back; None if there is none to have."""
    pipes = _free_pipes()
    if pipes:
        return pipes.pop()
    try:
        return Pipe()
    except OSError:  # EMFILE, ENFILE, EPERM
        return None


def give_pipe(pipe: Pipe) -> None:
    """Let others have ``pipe``, which must be empty."""
    pipes = _free_pipes()
    if len(pipes) < _KEPT:
        pipes.append(pipe)
    else:
        pipe.close()


def _free_pipes() -> list[Pipe]:
    try:
        return _pool.get().pipes
    except LookupError:
        pool = _Pool()
        _pool.set(pool)
        trio.lowlevel.add_instrument(pool)
        return pool.pipes
