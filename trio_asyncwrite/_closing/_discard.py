"""Reading what the peer still sends, and throwing it away."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast, final

import trio
import trio.abc

from trio_asyncwrite._core._async_read import AsyncRead, poll_reader
from trio_asyncwrite._core._checks import RECEIVE_SIZE, inherits
from trio_asyncwrite._core._close import Hardness
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._lifecycle import lift
from trio_asyncwrite._core._waits import BUSY_PAUSE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_asyncwrite._core._close import Close


@final
class Discard:
    """Reads from a stream, and throws away, until the peer's end or a limit.

    Args:
        source: the stream; None if there is none to read from.
        close: the close that runs; its refusals are lifted for the reading.
    """

    __slots__ = (
        "_close",
        "_done",
        "_scope",
        "_wait",
        "discarded",
        "error",
        "interrupt",
        "is_over",
        "limit",
        "peer_closed",
        "source",
    )

    def __init__(self, source: trio.abc.ReceiveStream | None, close: Close) -> None:
        self._close = close
        #: Whether the peer's end was seen; None if this stream cannot see it.
        self.peer_closed: bool | None = None
        self.read_from(source)
        self.discarded = 0
        #: Once more than this is discarded, it is enough.
        self.limit: float = math.inf
        self.error: Exception | None = None
        #: What a reader has raised that nobody reports: Ctrl-C. Raised after the release.
        self.interrupt: BaseException | None = None
        #: Whether reading is over, or must not begin.
        self.is_over = False
        #: What is to be waited for before the next poll.
        self._wait: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint_if_cancelled
        self._scope: trio.CancelScope | None = None
        self._done: trio.Event | None = None

    def read_from(self, source: trio.abc.ReceiveStream | None) -> None:
        """Before reading has begun: read from this stream."""
        self.source = source
        self.peer_closed = None if source is None else False

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read in a task of its own, until :meth:`stop`."""
        if not self.is_over:
            with trio.CancelScope() as self._scope:
                await self.read()

    def stop(self) -> None:
        """Read no more."""
        if self._scope is not None and not self.is_over:
            self._scope.cancel()
        elif self._scope is None:
            self._end()

    async def wait_over(self) -> None:
        """Wait until the task that reads is done; for one task."""
        if not self.is_over:
            self._done = trio.Event()
            await self._done.wait()

    def _end(self) -> None:
        self.is_over = True
        if self._done is not None:
            self._done.set()

    async def read(self, *, waits: bool = True) -> None:
        """Read until there is nothing more to read.

        Args:
            waits: whether it may wait. If not, a layer is polled once, and the next call goes on.
        """
        # All in one frame: thousands of connections may wait in it at once.
        source, is_ours, wait = self.source, inherits(self.source, AsyncRead), self._wait
        if source is not None and not (waits or is_ours):
            return
        is_over = True
        try:
            while source is not None and self.discarded <= self.limit:
                try:
                    await wait()
                    data = self._poll() if is_ours else await source.receive_some(self._size())
                except NotReady as not_ready:
                    wait = not_ready.wait
                except trio.BusyResourceError:
                    # Another task uses a foreign stream, which cannot be taken from it.
                    wait = _pause
                else:
                    if not data:
                        self.peer_closed = True
                        return
                    self.discarded += len(data)
                    wait = trio.lowlevel.checkpoint
                if not waits:
                    self._wait, is_over = wait, False
                    return
        except trio.ClosedResourceError:
            # It can only be written to, or somebody has closed it; the sender will find out.
            self.peer_closed = None
        except Exception as exc:  # noqa: BLE001 - it is reported
            self.error = exc
        except trio.Cancelled:
            raise
        except BaseException as exc:  # noqa: BLE001 - raised after the release
            self.interrupt = exc
            self._close.harden(Hardness.CUT_OFF)
        finally:
            if is_over:
                self._end()

    def _size(self) -> int:
        # One byte beyond the limit tells that there is more. (The limit may come down meanwhile.)
        return max(int(min(self.limit - self.discarded + 1, RECEIVE_SIZE)), 1)

    def _poll(self) -> bytes:
        # Without lifted(), which takes longer than the poll.
        before, lift.by = lift.by, self._close
        try:
            return poll_reader(cast("AsyncRead", self.source), self._size())
        finally:
            lift.by = before


async def _pause() -> None:
    await trio.sleep(BUSY_PAUSE)
