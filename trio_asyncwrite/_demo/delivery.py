"""One delivery: a sender, a receiver, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
import trio.abc

from trio_asyncwrite import CloseOutcome

from .cancellations import Cancellations
from .tape import Tape
from .wire import Parser

if TYPE_CHECKING:
    from .sender import Resuming, SendingAgain, Skipping
    from .source import Source


@final
class Delivery:
    """Everything that is known of a delivery, while it runs and afterwards.

    Args:
        sender_type: the way of sending.
        stream: what it sends with.
        receiving: the other end.
        places: after how many received bytes to cancel the sender.
    """

    def __init__(
        self,
        sender_type: type[Resuming | SendingAgain | Skipping],
        stream: trio.abc.SendStream,
        receiving: trio.abc.ReceiveStream,
        places: list[int],
    ) -> None:
        self.planned = len(places)
        self.cancellations = Cancellations(places)
        self.tape = Tape()
        self.parser = Parser()
        self.sender = sender_type(stream, self.cancellations, self.tape)
        self._receiving = receiving
        #: What ended it early.
        self.errors: list[str] = []
        self.seconds = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether every byte arrived, once and in order, and both judges say so."""
        return not self.errors and self.parser.is_whole and self.tape.wrong_at is None

    @property
    def ended_clean(self) -> bool:
        """Whether the connection is known to have ended as it should."""
        report = self.sender.report
        return report is not None and report.outcome is CloseOutcome.CLEAN

    async def run(self, source: Source) -> None:
        """Send and receive, to the end of the stream."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, source)
            nursery.start_soon(self._receive)
        self.tape.end()
        self.seconds = trio.current_time() - began

    async def _send(self, source: Source) -> None:
        try:
            await self.sender.run(source)
        except (OSError, trio.BrokenResourceError) as exc:
            self.errors.append(f"the sender stopped: {exc!r}")

    async def _receive(self) -> None:
        try:
            async with self._receiving:
                while data := await self._receiving.receive_some(
                    self.cancellations.read_size(self.tape.received)
                ):
                    self.tape.compare(data)
                    self.parser.feed(data)
                    await self.cancellations.strike_if_due(self.tape.received)
        except trio.BrokenResourceError as exc:
            self.errors.append(f"the receiver stopped: {exc!r}")
