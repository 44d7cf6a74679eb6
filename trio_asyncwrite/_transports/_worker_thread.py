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
    """One call of the file in a worker thread, and its outcome.

    It belongs to no run: it may begin in one, and be waited for in another.
    """

    def __init__(self, file: StdFile, rest: memoryview = NOTHING) -> None:
        self._file = file
        #: How many bytes were to be written.
        self.size = len(rest)
        #: The bytes that are still to be written, and their number.
        self.rest = rest
        self.left = self.size
        self._error: BaseException | None = None
        #: For polls and other threads; tasks use :meth:`wait`.
        self.ended = threading.Event()
        # Tasks of any run. The lock: none is added between the end and the look at who waits.
        self._lock = threading.Lock()
        self._waiting: dict[trio.Event, trio.lowlevel.TrioToken] = {}

    def start(self, call: Callable[[], None], *, after: Job | None = None) -> None:
        """Call ``call`` in a thread, once the job ``after`` has ended."""

        def run() -> None:
            try:
                if after is not None:
                    after.ended.wait()
                call()
            except BaseException as exc:  # noqa: ASYNC103, BLE001 - for the next poll to raise
                self._error = exc

        def deliver(_: object) -> None:
            with self._lock:
                self.ended.set()
                waiting = list(self._waiting.items())
            for event, token in waiting:
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(event.set)

        trio.lowlevel.start_thread_soon(run, deliver)

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Wait until the call has ended.

        Cancellation: nothing happened; the call goes on.
        """
        event = trio.Event()
        with self._lock:
            if self.ended.is_set():
                event.set()
            else:
                self._waiting[event] = trio.lowlevel.current_trio_token()
        try:
            await event.wait()
        finally:
            with self._lock:
                self._waiting.pop(event, None)

    def write(self) -> None:
        """Write all of ``rest``, or as much of it as goes without blocking."""
        while self.rest:
            count = self._file.write(self.rest)
            self.rest = self.rest[count:]
            self.left -= count

    def raise_error(self) -> None:
        """Raise what the call has raised, and let go of it."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # or this frame and the exception would keep each other alive
