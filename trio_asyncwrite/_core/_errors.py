"""The two exceptions that Trio has no name for; every other error is Trio's own."""

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
            never too late.

    Source: ``Poll::Pending`` and the waker in Rust's ``std::task``.
    """

    def __init__(self, wait: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        #: Waits until it is worth polling again. Spurious wake-ups are allowed.
        self.wait: Callable[[], Awaitable[object]] = wait

    def __str__(self) -> str:
        return "not ready: await .wait(), then poll again"


class WriteZeroError(trio.BrokenResourceError):
    """A writer accepted 0 bytes of a write that was not empty: it is full for good.

    Trio has no name for it, because its streams never answer with a count. It is a
    :exc:`trio.BrokenResourceError`, so code that handles broken streams handles it.

    Source: ``std::io::ErrorKind::WriteZero``.
    """
