"""Timeouts for progress, not for the length of a transfer.

Theory of operation
===================

**What moves.** Bytes count when they have left this process and its kernel: what was accepted,
less what the layers below still hold, less what a TCP peer's kernel has not acknowledged. The last
matters: Linux reports a socket as writable only when a third of its send buffer is free, so over a
slow link a writer may wait for minutes in which every second something arrives.

**When the clock runs.** Only while an operation waits. The time waited since something moved last
is a field, so a peer that has stalled does not get away with it because the waiting task was
cancelled and came again; and a writer that nobody uses does not time out.

**The limits.** ``idle`` bounds the time waited without movement. ``min_rate`` is an account in
seconds: waiting spends them, and every ``min_rate`` bytes that move earn one, up to
``_RATE_GRACE`` of them; the writer is too slow when they are spent.

The wait raises TooSlowError between two polls, where no state is half-changed, so the operation is
resumable as if it had been cancelled.
"""

from __future__ import annotations

import functools
import math
import sys
from typing import TYPE_CHECKING, Final, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._checks import above_zero, check_buffers, check_data, counted
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._file_not_ready import FileNotReady
from trio_asyncwrite._core._file_part import check_part
from trio_asyncwrite._core._stack import (
    begin_shutdown,
    poll_below,
    poll_step,
    shut_down,
    writing_chain,
)
from trio_asyncwrite._core._waits import OneForAll
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import TypeVarTuple, Unpack

    from trio_asyncwrite._core._file_part import FilePart
    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
W = TypeVar("W", bound=AsyncWrite)

#: How many seconds a transfer may be behind ``min_rate``; the grace period that Kestrel (ASP.NET
#: Core) has by default in its MinDataRate.
_RATE_GRACE: Final = 5.0

# No system wakes a task when an acknowledgement arrives: look this often in each period.
_LOOKS: Final = 8

# Less than this is a rounding error, in seconds: to wait for it would take no time at all.
_TICK: Final = 1e-6


@final
class TimeoutWriter(Wrapper[W]):
    """Gives up on a peer that takes nothing, or too little, but not on a slow one.

    A deadline over a whole transfer has to fit the slowest peer and the largest message. This
    bounds progress instead. The operation that waits (a write, a flush, a shutdown, ``aclose``)
    raises :exc:`trio.TooSlowError` when

    * no byte has moved for ``idle`` seconds, or
    * fewer bytes move than ``min_rate`` per second. A transfer may fall 5 seconds behind. A slow
      start and a stall both use up this allowance; moving faster than ``min_rate`` restores it.

    A byte has moved when it has left this process, and, where the system can tell (TCP on Linux
    and macOS), when the peer's kernel has acknowledged it. The clock is Trio's, and runs only while
    an operation waits. If that operation is cancelled, the next one continues the same period.

    After :exc:`trio.TooSlowError` an operation is as resumable as after a cancellation, and a new
    period begins. With :meth:`write_all_buf` you know how much was accepted. ``aclose`` raises it
    when everything is closed.

    It is write-only. Layers above it pass the error on, and stay resumable. Put a buffer there:
    with ``BufWriter(TimeoutWriter(stream))``, a write that only fills the buffer does not pass the
    timeouts. ``TimeoutWriter(BufWriter(stream))`` has the same timeouts, but is slower.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to; it goes through
            :func:`wrap_stream`. (Over a stream that only has ``send_all`` the timeout is a
            cancellation of that, and ``cancel_grace`` applies.)
        idle: how long to wait while nothing moves, in seconds; ``None`` for any time.
        min_rate: bytes per second that have to move; ``None`` for any.

    Raises:
        TypeError: if ``inner`` cannot be written to, or a limit is not a number.
        ValueError: if a limit is not greater than 0, or no limit is given.

    Source: python-trio/trio#414; ``tokio_io_timeout::TimeoutWriter``.
    """

    #: The writer below.
    inner: W

    @overload
    def __init__(
        self, inner: W, *, idle: float | None = ..., min_rate: float | None = ...
    ) -> None: ...
    @overload
    def __init__(
        self: TimeoutWriter[TcpStream],
        inner: trio.SocketStream,
        *,
        idle: float | None = ...,
        min_rate: float | None = ...,
    ) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(
            self: TimeoutWriter[PollEvented],
            inner: trio.lowlevel.FdStream,
            *,
            idle: float | None = ...,
            min_rate: float | None = ...,
        ) -> None: ...

    @overload
    def __init__(
        self: TimeoutWriter[AsyncWrite],
        inner: trio.abc.SendStream,
        *,
        idle: float | None = ...,
        min_rate: float | None = ...,
    ) -> None: ...

    def __init__(
        self,
        inner: trio.abc.SendStream,
        *,
        idle: float | None = None,
        min_rate: float | None = None,
    ) -> None:
        self._idle = idle if idle is None else above_zero(idle, "idle", "None")
        self._min_rate = min_rate if min_rate is None else above_zero(min_rate, "min_rate", "None")
        if idle is None and min_rate is None:
            raise ValueError("TimeoutWriter has no limit: give idle, min_rate, or both")
        self._accepted = 0
        self._shared_wait = OneForAll()
        #: How much had moved when it was looked at last. Others may write to the stream, too:
        #: then it falls.
        self._moved: int | None = None
        #: Seconds waited since it rose.
        self._waited = 0.0
        #: What is left of ``_RATE_GRACE``.
        self._credit = _RATE_GRACE
        self.inner = wrap_stream(inner)  # type: ignore[assignment]

    @property
    def idle(self) -> float | None:
        """How long to wait while nothing moves, in seconds."""
        return self._idle

    @property
    def min_rate(self) -> float | None:
        """Bytes per second that have to move."""
        return self._min_rate

    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Pass ``data`` on. See :meth:`AsyncWrite.poll_write`."""
        self.lifecycle.check_write(self)
        check_data(data)
        count = self._poll_timed(self.inner.poll_write, data)
        self._accepted += count
        return count

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Pass the buffers on, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self.lifecycle.check_write(self)
        check_buffers(buffers)
        count = self._poll_timed(self.inner.poll_write_vectored, buffers)
        self._accepted += count
        return count

    @trio.lowlevel.enable_ki_protection
    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Pass the file on. See :meth:`AsyncWrite.poll_write_file`."""
        self.lifecycle.check_write(self)
        check_part(part, limit)
        count = self._poll_timed(self.inner.poll_write_file, part, limit)
        self._accepted += count
        return count

    def poll_flush(self) -> None:
        """Pass the flush on. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        self._poll_timed(poll_step, self.inner, "poll_flush")

    def poll_shutdown(self) -> None:
        """Pass the shutdown on. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self._poll_timed(shut_down, self.inner)
            self.lifecycle.end()

    def poll_close(self) -> None:
        """Time the closes of those below. See :meth:`AsyncWrite.poll_close`."""
        for layer in writing_chain(self.inner):
            if layer.lifecycle.close is self.lifecycle.close:
                self._poll_timed(poll_step, layer, "poll_close")

    def poll_ready(self) -> None:
        """Pass the question on. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        self._poll_timed(poll_step, self.inner, "poll_ready")

    def _poll_timed(self, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
        """Poll the writer below; if that is not ready, its wait is timed."""
        try:
            return poll_below(self.inner, poll, *args)
        except FileNotReady:
            raise  # the disk is slow, and not the peer
        except NotReady as not_ready:
            wait = functools.partial(self._wait_timed, not_ready.wait)
            # One task for all: time that two tasks wait at once must not count twice.
            raise NotReady(functools.partial(self._shared_wait.wait, wait)) from None

    async def _wait_timed(self, wait: Callable[[], Awaitable[object]]) -> None:
        while True:
            unacknowledged = self.inner.unacknowledged_bytes
            self._note_movement(unacknowledged or 0)
            left = self._time_left()
            if left < _TICK:
                raise self._too_slow()
            pause = left if unacknowledged is None else min(left, self._period / _LOOKS)
            began = trio.current_time()
            try:
                with trio.move_on_after(pause) as scope:
                    await wait()
            finally:
                # For longer than that, other tasks have kept us from looking: not the peer's doing.
                spent = min(trio.current_time() - began, pause)
                self._waited += spent
                self._credit -= spent
            if not scope.cancelled_caught:
                return

    def _note_movement(self, unacknowledged: int) -> None:
        moved = self._accepted - self.inner.unsent_bytes - unacknowledged
        news = 0 if self._moved is None else moved - self._moved
        self._moved = moved
        if news > 0:
            self._waited = 0.0
            if self._min_rate is not None:
                self._credit = min(self._credit + news / self._min_rate, _RATE_GRACE)

    @property
    def _period(self) -> float:
        """The longest wait that the limits allow."""
        return min(
            math.inf if self._idle is None else self._idle,
            math.inf if self._min_rate is None else _RATE_GRACE,
        )

    def _time_left(self) -> float:
        return min(
            math.inf if self._idle is None else self._idle - self._waited,
            math.inf if self._min_rate is None else self._credit,
        )

    def _too_slow(self) -> trio.TooSlowError:
        """The error; the operation that comes next has a new period."""
        if self._idle is not None and self._idle - self._waited < _TICK:
            waited = counted(self._waited, "second")
            error = trio.TooSlowError(f"{self!r}: nothing has moved for {waited}")
        else:
            error = trio.TooSlowError(
                f"{self!r}: fewer than {self._min_rate} bytes per second have moved"
            )
        self._waited = 0.0
        self._credit = _RATE_GRACE
        return error

    def __repr__(self) -> str:
        return f"<TimeoutWriter over {self.inner!r}>"
