"""Reading what the peer still sends, and throwing it away."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, final

import trio
import trio.abc

from trio_asyncwrite._core._async_read import AsyncRead, poll_reader
from trio_asyncwrite._core._checks import RECEIVE_SIZE, inherits
from trio_asyncwrite._core._close import Hardness
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._lifecycle import lifted
from trio_asyncwrite._core._waits import persist

if TYPE_CHECKING:
    from trio_asyncwrite._core._close import Close


@final
class Discard:
    """Reads from a stream, and throws away, until the peer's end or a limit.

    Args:
        source: the stream; None if there is none to read from.
        close: the close that runs; its refusals are lifted for the reading.
    """

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
        self.scope = trio.CancelScope()
        self.done = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read until there is nothing more to read, or ``scope`` is cancelled."""
        try:
            with self.scope:
                if self.source is not None:
                    await self._read(self.source)
        finally:
            self.done.set()

    async def _read(self, source: trio.abc.ReceiveStream) -> None:
        try:
            while self.discarded <= self.limit:
                data = await self._receive(source)
                if not data:
                    self.peer_closed = True
                    return
                self.discarded += len(data)
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

    def _size(self) -> int:
        # One byte beyond the limit tells that there is more. (The limit may come down meanwhile.)
        return max(int(min(self.limit - self.discarded + 1, RECEIVE_SIZE)), 1)

    async def _receive(self, source: trio.abc.ReceiveStream) -> bytes | bytearray:
        if not inherits(source, AsyncRead):

            async def receive() -> bytes | bytearray:
                return await source.receive_some(self._size())

            return await persist(receive)
        while True:
            try:
                with lifted(self._close):
                    data = poll_reader(source, self._size())
            except NotReady as not_ready:
                wait = not_ready.wait
            else:
                await trio.lowlevel.checkpoint()
                return data
            await persist(wait)
