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
from trio_asyncwrite._core._lifecycle import lifted
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
        "discarded",
        "error",
        "interrupt",
        "is_over",
        "limit",
        "peer_closed",
        "source",
    )

    def __init__(self, source: trio.abc.ReceiveStream | None, close: Close) -> None:
        self.source = source
        self._close = close
        #: Whether the peer's end was seen; None if this stream cannot see it.
        self.peer_closed: bool | None = None if source is None else False
        self.discarded = 0
        #: Once more than this is discarded, it is enough.
        self.limit: float = math.inf
        self.error: Exception | None = None
        #: What a reader has raised that nobody reports: Ctrl-C. Raised after the release.
        self.interrupt: BaseException | None = None
        #: Whether reading is over, or must not begin.
        self.is_over = False
        self._scope: trio.CancelScope | None = None
        self._done: trio.Event | None = None

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

    async def read(self) -> None:
        """Read until there is nothing more to read."""
        # All in one frame: thousands of connections may wait in it at once.
        source, is_ours = self.source, inherits(self.source, AsyncRead)
        wait: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint_if_cancelled
        try:
            while source is not None and self.discarded <= self.limit:
                try:
                    await wait()
                    data = self._poll() if is_ours else await source.receive_some(self._size())
                except NotReady as not_ready:
                    wait = not_ready.wait
                    continue
                except trio.BusyResourceError:
                    # Another task uses a foreign stream, which cannot be taken from it.
                    wait = _pause
                    continue
                if not data:
                    self.peer_closed = True
                    return
                self.discarded += len(data)
                wait = trio.lowlevel.checkpoint
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
            self._end()

    def _size(self) -> int:
        # One byte beyond the limit tells that there is more. (The limit may come down meanwhile.)
        return max(int(min(self.limit - self.discarded + 1, RECEIVE_SIZE)), 1)

    def _poll(self) -> bytes:
        with lifted(self._close):
            return poll_reader(cast("AsyncRead", self.source), self._size())


async def _pause() -> None:
    await trio.sleep(BUSY_PAUSE)
