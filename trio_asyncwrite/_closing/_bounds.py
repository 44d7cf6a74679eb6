"""The limits of a graceful close while it runs, as times on Trio's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from trio_asyncwrite._core._close import Close

    from ._limits import Limits


@final
class Bounds:
    """How long a graceful close may still take; several that unite share them.

    Args:
        limits: those of the first; they count from now on.
    """

    def __init__(self, limits: Limits) -> None:
        #: When it began.
        self.started: float = trio.current_time()
        #: When sending must be over.
        self.send_by: float = self.started + limits.timeout
        #: When all must be over.
        self._end_by = self.started + limits.total
        #: How long lingering may take, in seconds; and how many bytes it may discard.
        self.linger = limits.linger
        self.linger_bytes = limits.linger_bytes
        #: When lingering must be over, once it has begun.
        self._linger_by: float | None = None
        # Around what is bounded now, or was last.
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

    def bound_sending(self, scope: trio.CancelScope, close: Close) -> None:
        """Let ``scope`` end when the time to send is over, or when ``close`` is hurried."""
        scope.deadline = self.send_by
        self._sending = scope
        close.on_hurry(scope)

    def bound_lingering(self, scope: trio.CancelScope, close: Close) -> None:
        """Let ``scope`` end when the time after sending is over, or when ``close`` is hurried.

        That time begins with the first call.

        Args:
            scope: entered already: without any time, what can be done at once still is.
            close: the close.
        """
        if self._linger_by is None:
            self._linger_by = min(trio.current_time() + self.linger, self._end_by)
        scope.deadline = self._linger_by
        self._lingering = scope
        close.on_hurry(scope)
