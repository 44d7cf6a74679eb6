"""Calls of a file in a worker thread.

A job keeps its outcome until a poll collects it, so it does not matter whether the task that
waited for it is still there.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._std_file import StdFile


#: No bytes.
NOTHING: Final = memoryview(b"")


class Job:
    """One call of the file in a worker thread, and what came of it."""

    def __init__(self, file: StdFile, rest: memoryview = NOTHING) -> None:
        self._file = file
        #: How much was to be written, and what still is.
        self.size = len(rest)
        self.rest = rest
        self._error: BaseException | None = None
        #: For polls and other threads; a poll may see the end before the run is told of it.
        self.ended = threading.Event()
        #: For tasks.
        self.done = trio.Event()

    def start(self, call: Callable[[], None], *, after: Job | None = None) -> None:
        token = trio.lowlevel.current_trio_token()

        def run() -> None:
            try:
                if after is not None:
                    after.ended.wait()
                call()
            except BaseException as exc:  # noqa: ASYNC103, BLE001 - for the next poll to raise
                self._error = exc

        def deliver(_: object) -> None:
            self.ended.set()
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self.done.set)

        trio.lowlevel.start_thread_soon(run, deliver)

    def write(self) -> None:
        """Write all of ``rest``, or as much of it as goes without blocking."""
        while self.rest:
            self.rest = self.rest[self._file.write(self.rest) :]

    def raise_error(self) -> None:
        """Raise what the call has raised, and let go of it."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # or this frame and the exception would keep each other alive
