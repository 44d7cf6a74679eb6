"""One direction of a relay, and what its end means."""

from __future__ import annotations

import contextlib
import enum
import math
from typing import TYPE_CHECKING, Final, final

import trio
import trio.abc

from trio_asyncwrite._core._close import abort_layer
from trio_asyncwrite._core._frames import without_frames
from trio_asyncwrite._core._lifecycle import Refusal
from trio_asyncwrite._core._stack import is_refusal, tear
from trio_asyncwrite._transports._wrap_reader import wrap_reader
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._pump import Pump

if TYPE_CHECKING:
    from trio_asyncwrite._core._async_read import AsyncRead

# What a stream raises that has failed or was closed. Anything else is somebody's mistake.
_FAILURES: Final = (
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)


@final
class LaneOutcome(enum.Enum):
    """How far one direction of a :class:`Relay` has come."""

    #: It has not ended: it runs, or was cancelled and can go on.
    RUNNING = "running"
    #: The source has ended, and the target has everything, the end included. (A target that cannot
    #: be half-closed, such as :class:`trio.SSLStream`, was only flushed: closing it is its end.)
    ENDED = "ended"
    #: The source has failed, or was closed. The target got all that had arrived before, and was
    #: aborted then, so that it does not look complete.
    READ_FAILED = "read failed"
    #: The target has failed, or was closed. It is torn, so its end does not look complete.
    WRITE_FAILED = "write failed"
    #: The other direction was over, and in this one no byte moved for ``half_open`` seconds. The
    #: target was aborted, so that it does not look complete.
    TIMED_OUT = "timed out"


class LaneRun:
    """What runs one direction.

    Args:
        source: where to receive.
        target: where to send.
        half_open: how long no byte may move once the other direction is over, in seconds.
        size: how many bytes to read at once.
    """

    def __init__(
        self,
        source: trio.abc.ReceiveStream,
        target: trio.abc.SendStream,
        half_open: float,
        size: int,
    ) -> None:
        #: The source, which the relay claims.
        self.source: AsyncRead = wrap_reader(source)
        self._target = wrap_stream(target)
        #: What moves the bytes.
        self.pump: Pump = Pump(self.source, self._target, size, is_kept=True)
        #: How far it has come.
        self.outcome: LaneOutcome = LaneOutcome.RUNNING
        #: What has failed.
        self.error: Exception | None = None
        self._has_failed_writing = False
        self._half_open = half_open

    @property
    def is_circular(self) -> bool:
        """Whether the target is over the transport of the source: each byte would come back."""
        descriptor = self.source.descriptor
        return descriptor is not None and descriptor == self._target.descriptor

    def limit(self) -> None:
        """The other direction is over: from now on ``half_open`` holds."""
        if self._half_open < math.inf:
            self.pump.patience = self._half_open
            self.pump.note_progress()

    async def run(self) -> None:
        """Run until there is an outcome; raise only what is no failure of a stream.

        Raises:
            trio.BusyResourceError: if another task uses the target.
            trio.BrokenResourceError: if the target has an unfinished Buf of somebody else.
            ValueError: if a layer above the target holds bytes that an end would cut off.

        Cancellation: resumable.
        """
        with trio.CancelScope() as scope:
            self.pump.scope = scope
            self.pump.note_progress()
            if self.error is None:
                try:
                    await self.pump.move()
                    self.limit()
                    await self.pump.flush()
                    await self._target.shutdown()
                except trio.BusyResourceError:
                    raise
                except Exception as exc:
                    self._has_failed_writing = self.pump.is_writing
                    if self._has_failed_writing and self._is_refused(exc):
                        raise
                    self.error = without_frames(exc)
                    self.limit()
                    if not isinstance(exc, _FAILURES):
                        await self._settle()  # noqa: ASYNC120
                        raise
            await self._settle()
        if scope.cancelled_caught:
            await self._abort(
                LaneOutcome.TIMED_OUT if self.error is None else LaneOutcome.READ_FAILED
            )

    def _is_refused(self, exc: Exception) -> bool:
        """Whether the target is well, and only has to be asked again when its user has cleared up.

        It has an unfinished Buf, or a layer above it holds bytes.
        """
        lifecycle = self._target.lifecycle
        if lifecycle.failure is not None:
            return False
        if isinstance(exc, ValueError):
            return True
        return lifecycle.refusal is Refusal.UNFINISHED and is_refusal(exc)

    async def _settle(self) -> None:
        """Decide what the end, or a failure, means for the target."""
        if self.error is None:
            self.outcome = LaneOutcome.ENDED
        elif self._has_failed_writing:
            self.pump.drop()
            self.outcome = LaneOutcome.WRITE_FAILED
            lifecycle = self._target.lifecycle
            if lifecycle.failure is None and (lifecycle.original or lifecycle).unfinished is None:
                # It may work again, and its end would look complete.
                tear(self._target, f"a relay has stopped to write to it: {self.error!r}")
        else:
            # What had arrived before the failure goes first.
            with contextlib.suppress(Exception):
                await self.pump.flush()
            await self._abort(LaneOutcome.READ_FAILED)

    async def _abort(self, outcome: LaneOutcome) -> None:
        self.pump.drop()
        self.outcome = outcome
        with trio.CancelScope(shield=True):
            await abort_layer(self._target, tells_users=True)


@final
class Lane:
    """One direction of a :class:`Relay`: what it has done, at any time.

    Args:
        run: what runs it.
    """

    __slots__ = ("_run",)

    def __init__(self, run: LaneRun) -> None:
        self._run = run

    @property
    def bytes(self) -> int:
        """How many bytes the target has accepted."""
        return self._run.pump.moved

    @property
    def outcome(self) -> LaneOutcome:
        """How far it has come."""
        return self._run.outcome

    @property
    def error(self) -> Exception | None:
        """What has failed; ``None`` if nothing has.

        It is a copy without traceback: that would keep the streams alive.
        """
        return self._run.error

    def __repr__(self) -> str:
        said = "" if self.error is None else f": {self.error!r}"
        return f"<Lane: {self.bytes} bytes, {self.outcome.value}{said}>"
