"""The exceptions that Trio has no name for, and the library's own refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class NotReady(trio.WouldBlock):
    """A poll cannot make progress now. Nothing was accepted and nothing is lost.

    It carries its own wait, so a stack of writers needs no knowledge of what its innermost
    transport waits for: a socket, a thread, a clock, a TLS handshake. ::

        while True:
            try:
                n = writer.poll_write(data)
                break
            except NotReady as not_ready:
                await not_ready.wait()

    Args:
        wait: an async callable that takes nothing, is a checkpoint, may be cancelled without
            harm, and returns when polling again may make progress. It may return too early,
            never too late. Several tasks may call it.

    Source: ``Poll::Pending`` and the waker in Rust's ``std::task``.
    """

    def __init__(self, wait: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        #: Waits until it is worth polling again. Spurious wake-ups are allowed.
        self.wait: Callable[[], Awaitable[object]] = wait

    def __str__(self) -> str:
        return "not ready: await .wait(), then poll again"


class WriteZeroError(trio.BrokenResourceError):
    """A writer accepted 0 bytes of a write that was not empty: it is full.

    Trio has no name for it, because its streams never answer with a count. It is a
    :exc:`trio.BrokenResourceError`, so code that handles broken streams handles it.

    Args:
        *args: the message.
        permanent: whether the writer is broken by it. False if there may be room again, as in a
            :class:`Cursor` whose position is set back.

    Source: ``std::io::ErrorKind::WriteZero``.
    """

    def __init__(self, *args: object, permanent: bool = True) -> None:
        super().__init__(*args)
        #: Whether later writes will fail as well.
        self.permanent: bool = permanent


class Refusal(Exception):
    """An operation that the library itself refuses; it breaks no layer that it passes.

    It is mixed into Trio's errors below, so users see Trio's. An error of the same Trio class that
    a foreign stream raises is a failure; these are not.
    """

    def __reduce__(self) -> tuple[type[BaseException], tuple[object, ...]]:
        return type(self).__mro__[2], self.args


class ClosedRefusal(Refusal, trio.ClosedResourceError):
    """The layer is closed, being closed, or shut down."""


class BusyRefusal(Refusal, trio.BusyResourceError):
    """Another task is inside the layer."""


class BrokenRefusal(Refusal, trio.BrokenResourceError):
    """The layer has failed before, is torn, or has an unfinished Buf."""


class CannotSplice(Refusal):
    """The system does not move bytes inside the kernel between these two descriptors."""


class CannotWriteNowait(Refusal):
    """The system has no write to this descriptor that does not block for this call only."""


class CutShort(trio.BrokenResourceError):
    """A send was ended in its middle, by a cancellation of which its caller knows."""

    def __reduce__(self) -> tuple[type[BaseException], tuple[object, ...]]:
        return trio.BrokenResourceError, self.args


# Trio's own classes are what users meet in tracebacks.
for _ours, _shown in (
    (ClosedRefusal, trio.ClosedResourceError),
    (BusyRefusal, trio.BusyResourceError),
    (BrokenRefusal, trio.BrokenResourceError),
    (CutShort, trio.BrokenResourceError),
):
    _ours.__module__, _ours.__qualname__ = "trio", _shown.__name__
    _ours.__name__ = _shown.__name__
