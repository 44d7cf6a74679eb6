"""The ways of sending: with a writer that is resumed, and with guesses."""

from __future__ import annotations

import abc
import hashlib
import struct
from typing import TYPE_CHECKING, ClassVar, final

from trio_asyncwrite import Buf, BufWriter, graceful

from .source import RECORD_SIZE, read_record
from .wire import END_PAYLOAD, HEADER, Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import trio.abc
    from typing_extensions import ParamSpec

    from trio_asyncwrite import CloseReport

    from .cancellations import Cancellations
    from .source import File, Source
    from .tape import Tape

    P = ParamSpec("P")


class Sender(abc.ABC):
    """Sends files as messages, whatever happens to its writes.

    Args:
        ending: what closes the connection, as a context manager.
        cancellations: what happens to the writes.
        tape: told what the receiver should see.
    """

    #: Two lines to head a column of the table with.
    title: ClassVar[tuple[str, str]]

    def __init__(
        self,
        ending: AbstractAsyncContextManager[object],
        cancellations: Cancellations,
        tape: Tape,
    ) -> None:
        self._ending = ending
        self._cancellations = cancellations
        self._tape = tape
        #: How many messages there were to send.
        self.messages = 0
        #: How many files.
        self.files = 0

    @property
    def report(self) -> CloseReport | None:
        """How the connection ended; None if the way to close it does not tell."""
        return None

    async def run(self, source: Source) -> None:
        """Send everything, and end the stream.

        Raises:
            OSError: if a file cannot be read.
            trio.BrokenResourceError: if the stream fails.

        Cancellation: lost; the ones that count are in ``cancellations``.
        """
        content = 0
        async with self._ending:
            for file in source.files:
                content += await self._send_file(file)
            await self._send(Kind.END, struct.pack(END_PAYLOAD, self.files, content))
            await self._finish()

    async def _send_file(self, file: File) -> int:
        name = file.name.encode(errors="surrogateescape")
        digest = hashlib.sha256(name)
        await self._send(Kind.FILE, name)
        offset = 0
        while True:
            record = await read_record(file.path, offset)
            digest.update(record)
            await self._send(Kind.RECORD, record)
            offset += len(record)
            if len(record) < RECORD_SIZE:
                break
        await self._send(Kind.DIGEST, digest.digest())
        await self._flush()
        self.files += 1
        return offset

    async def _send(self, kind: Kind, payload: bytes) -> None:
        self.messages += 1
        self._tape.expect(struct.pack(HEADER, kind, len(payload)))
        self._tape.expect(payload)
        await self._write(kind, payload)

    @abc.abstractmethod
    async def _write(self, kind: Kind, payload: bytes) -> None:
        """Write a message."""

    async def _flush(self) -> None:  # noqa: B027 - send_all has nothing to flush
        """Make sure that what was written is on its way."""

    async def _finish(self) -> None:  # noqa: B027 - nor to end: closing does
        """End the stream."""


@final
class Resuming(Sender):
    """What this library is for: a cancelled operation is simply called again.

    ``write_struct`` of what fits into the buffer was not begun when it was cancelled;
    ``write_all_buf``, ``flush`` and ``shutdown`` go on where they were. The connection ends
    gracefully, with a report.
    """

    title = ("BufWriter", "resumed")

    def __init__(
        self, stream: trio.abc.SendStream, cancellations: Cancellations, tape: Tape
    ) -> None:
        self._writer = BufWriter(stream)
        self._graceful = graceful(self._writer)
        super().__init__(self._graceful, cancellations, tape)

    @property
    def report(self) -> CloseReport:
        """See :meth:`Sender.report`."""
        return self._graceful.report

    async def _write(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.FILE:
            await self._until_done(self._writer.write_struct, HEADER, kind, len(payload))
            await self._until_done(self._writer.write_all_buf, Buf(payload))
        else:
            message = Buf(struct.pack(HEADER, kind, len(payload)), payload)
            await self._until_done(self._writer.write_all_buf, message)

    async def _flush(self) -> None:
        await self._until_done(self._writer.flush)

    async def _finish(self) -> None:
        await self._until_done(self._writer.shutdown)

    async def _until_done(
        self, operation: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        while not await self._cancellations.expose(operation, *args, **kwargs):
            pass


class Guessing(Sender):
    """Trio's own contract: nobody knows how much a cancelled ``send_all`` has sent."""

    def __init__(
        self, stream: trio.abc.SendStream, cancellations: Cancellations, tape: Tape
    ) -> None:
        self._stream = stream
        super().__init__(stream, cancellations, tape)

    async def _write(self, kind: Kind, payload: bytes) -> None:
        message = struct.pack(HEADER, kind, len(payload)) + payload
        while not await self._cancellations.expose(self._stream.send_all, message):
            if not self._sends_again():
                return

    @abc.abstractmethod
    def _sends_again(self) -> bool:
        """Whether to take it that a cancelled message was not sent."""


@final
class SendingAgain(Guessing):
    """Guesses that a cancelled message was not sent."""

    title = ("send_all", "sent again")

    def _sends_again(self) -> bool:
        return True


@final
class Skipping(Guessing):
    """Guesses that a cancelled message was sent."""

    title = ("send_all", "skipped")

    def _sends_again(self) -> bool:
        return False
