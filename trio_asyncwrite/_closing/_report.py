"""What was observed while a stream was closed."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import final

from trio_asyncwrite._core._checks import counted


@final
class CloseOutcome(enum.Enum):
    """How a stream ended, as far as this side could see."""

    #: All was sent, the peer ended properly, and nothing was left unacknowledged where the
    #: system can tell (see :attr:`CloseReport.unacknowledged_bytes`).
    CLEAN = "clean"
    #: All was sent, and the peer's end was not seen: it did not come within the limits, or this
    #: stream has no way to see it (:attr:`CloseReport.peer_closed` is then ``None``).
    PEER_SILENT = "peer silent"
    #: Time was up before all was sent, ours or that of a :class:`TimeoutWriter`.
    TIMED_OUT = "timed out"
    #: The stream failed, or was closed by somebody else; :attr:`CloseReport.error` says how.
    BROKEN = "broken"
    #: A message had been cut short before the close: by a cancelled or failed write, by the end of
    #: a handler, or because the body of :class:`graceful` had raised or was cancelled. All that was
    #: accepted was sent, within the limits, and then the stream ended so that the peer can tell,
    #: where the protocol can show it.
    TRUNCATED = "truncated"
    #: It was closed at once and on purpose, by :func:`abort` in another task.
    ABORTED = "aborted"


@final
@dataclass(frozen=True)
class CloseReport:
    """What :func:`close_gracefully` observed; it claims nothing beyond that.

    As a string it is one line for a log.
    """

    #: How the stream ended.
    outcome: CloseOutcome
    #: Bytes that were accepted and never left the buffers of this process, over all layers.
    unsent_bytes: int = 0
    #: Bytes that the kernel took and the peer's kernel had not acknowledged when the socket was
    #: closed: TCP on Linux and macOS, else ``None``. The kernel goes on sending them, unless it
    #: resets the connection because there is more from the peer that nobody has read.
    unacknowledged_bytes: int | None = None
    #: Bytes from the peer that were read and thrown away.
    discarded_bytes: int = 0
    #: Whether the peer's end-of-file was seen; ``None`` if this stream cannot see it, or did not
    #: look for it.
    peer_closed: bool | None = None
    #: Whether the peer's TLS close_notify was seen; ``None`` without TLS, and for a
    #: :class:`trio.SSLStream` that does not tell.
    close_notify_received: bool | None = None
    #: What failed, if the outcome is ``BROKEN``; and the :exc:`trio.TooSlowError` that has ended
    #: the sending. It is a copy without traceback: that would keep the closed stack alive.
    error: Exception | None = None
    #: How long closing took, in seconds of Trio's clock.
    elapsed: float = 0.0

    def __str__(self) -> str:
        facts = [
            f"{counted(count, 'byte')} {what}"
            for count, what in (
                (self.unsent_bytes, "unsent"),
                (self.unacknowledged_bytes, "unacknowledged"),
                (self.discarded_bytes, "discarded"),
            )
            if count
        ]
        facts.append(_PEER[self.peer_closed])
        if self.close_notify_received is not None:
            facts.append(f"{'a' if self.close_notify_received else 'no'} close_notify received")
        if self.error is not None:
            # Trio often leaves it to the cause to say something.
            said = str(self.error) or str(self.error.__cause__ or "")
            facts.append(f"{type(self.error).__name__}: {said}".rstrip(": "))
        return f"{self.outcome.value} after {self.elapsed:.3f} s: {', '.join(facts)}"


_PEER = {
    True: "the peer closed",
    False: "the peer did not close",
    None: "the peer's end was not seen",
}
