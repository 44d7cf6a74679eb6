"""The limits of a graceful close while it runs, as times on Trio's clock."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Generator

    from ._limits import Limits


@final
class Bounds:
    """How long a graceful close may still take; several that unite share them.

    Args:
        limits: those of the first; they count from now on.
    """

    def __init__(self, limits: Limits) -> None:
        now = trio.current_time()
        #: When sending must be over.
        self.send_by = now + limits.timeout
        #: When all must be over.
        self._end_by = now + limits.total
        #: How long lingering may take, in seconds; and how many bytes it may discard.
        self.linger = limits.linger
        self.linger_bytes = limits.linger_bytes
        #: When lingering must be over, once it has begun.
        self._linger_by: float | None = None
        # Around what is bounded now.
        self._sending: trio.CancelScope | None = None
        self._lingering: trio.CancelScope | None = None

    def tighten(self, limits: Limits) -> None:
        """Keep ``limits`` too, which count from now on: the tighter ones win."""
        now = trio.current_time()
        self.send_by = min(self.send_by, now + limits.timeout)
        self._end_by = min(self._end_by, now + limits.total)
        self.linger = min(self.linger, limits.linger)
        self.linger_bytes = min(self.linger_bytes, limits.linger_bytes)
        if self._sending is not None:
            self._sending.deadline = self.send_by
        if self._linger_by is not None:
            self._linger_by = min(self._linger_by, now + limits.linger, self._end_by)
        if self._lingering is not None and self._linger_by is not None:
            self._lingering.deadline = self._linger_by

    @contextlib.contextmanager
    def sending(self) -> Generator[trio.CancelScope, None, None]:
        """A scope for the rest of the time to send."""
        with trio.CancelScope(deadline=self.send_by) as scope:
            self._sending = scope
            try:
                yield scope
            finally:
                self._sending = None

    @contextlib.contextmanager
    def lingering(self) -> Generator[trio.CancelScope, None, None]:
        """A scope for the time after sending, which begins with the first of them."""
        if self._linger_by is None:
            self._linger_by = min(trio.current_time() + self.linger, self._end_by)
        with trio.CancelScope() as scope:
            # Now, and not before: without any time, what can be done at once still is.
            scope.deadline = self._linger_by
            self._lingering = scope
            try:
                yield scope
            finally:
                self._lingering = None
