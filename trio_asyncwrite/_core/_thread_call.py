"""A call in a worker thread, which belongs to no run and to no task.

It keeps its outcome until somebody collects it, so it does not matter whether the task that waited
for it is still there.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


class ThreadCall:
    """One call in a worker thread, and its outcome.

    It may begin in one run, and be waited for in another.
    """

    def __init__(self) -> None:
        self._error: BaseException | None = None
        #: For polls and other threads; tasks use :meth:`wait`.
        self.ended = threading.Event()
        # Tasks of any run. The lock: none is added between the end and the look at who waits.
        self._lock = threading.Lock()
        self._waiting: dict[trio.Event, trio.lowlevel.TrioToken] = {}

    def start(self, call: Callable[[], None], *, after: Self | None = None) -> None:
        """Call ``call`` in a thread, once ``after`` has ended."""

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

    def raise_error(self) -> None:
        """Raise what the call has raised, and let go of it."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # or this frame and the exception would keep each other alive
