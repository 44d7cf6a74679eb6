"""One large file, sent by its writer or by a loop that reads and sends, and cancelled meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, final

import trio
import trio.abc

from trio_asyncwrite import FilePart, wrap_stream

from .cancellations import Cancellations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from .source import Source

#: How much the loop reads at once: as much as Trio's streams receive.
PIECE: Final = 65536


@contextlib.contextmanager
def one_file(source: Source) -> Generator[IO[bytes]]:
    """All files of ``source`` in a temporary one; those that have vanished are left out."""
    with tempfile.TemporaryFile() as file:
        for each in source.files:
            # Another part of the demo tells about those.
            with contextlib.suppress(OSError), each.path.open("rb") as part:
                shutil.copyfileobj(part, file)
        file.flush()
        yield file


@dataclass(frozen=True)
class FileWay:
    """A way to send a file."""

    #: Two lines to head a column of the table with.
    title: tuple[str, str]
    #: Whether it uses our writer.
    is_ours: bool
    #: Sends the file; is cancelled, and says how often by the last argument.
    send: Callable[[trio.abc.SendStream, IO[bytes], Cancellations], Awaitable[None]]


async def _write_all_file(
    stream: trio.abc.SendStream, file: IO[bytes], cancellations: Cancellations
) -> None:
    async with wrap_stream(stream) as writer:
        part = FilePart(file)

        async def go_on() -> None:
            await writer.write_all_file(part)
            await writer.flush()

        while not await cancellations.expose(go_on):
            pass


async def _read_and_send(
    stream: trio.abc.SendStream, file: IO[bytes], cancellations: Cancellations
) -> None:
    file.seek(0)
    while piece := await trio.to_thread.run_sync(file.read, PIECE):
        # It guesses that a cancelled one was sent; the other guess makes bytes arrive twice.
        await cancellations.expose(stream.send_all, piece)


RESUMED: Final = FileWay(("write_all_file", "resumed"), True, _write_all_file)
LOOP: Final = FileWay(("read, send_all", "skipped"), False, _read_and_send)


@final
class FileTransfer:
    """Everything that is known of the transfer of a file, while it runs and afterwards.

    Args:
        way: how it is sent.
        stream: what it is sent with.
        receiving: the other end.
        file: the file.
        places: after how many received bytes to cancel the sender.
    """

    def __init__(
        self,
        way: FileWay,
        stream: trio.abc.SendStream,
        receiving: trio.abc.ReceiveStream,
        file: IO[bytes],
        places: list[int],
    ) -> None:
        self.way = way
        self.planned = len(places)
        self.cancellations = Cancellations(places)
        self._stream = stream
        self._receiving = receiving
        self._file = file
        file.seek(0)
        #: What should arrive.
        self.size = 0
        expected = hashlib.sha256()
        while data := file.read(1 << 20):
            expected.update(data)
            self.size += len(data)
        self._expected = expected.digest()
        self._arrived = hashlib.sha256()
        self.received = 0
        #: What ended it early.
        self.errors: list[str] = []
        self.seconds = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether the file arrived as it is, by its SHA-256."""
        return not self.errors and self._arrived.digest() == self._expected

    async def run(self) -> None:
        """Send and receive, to the end of the stream."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            nursery.start_soon(self._receive)
        self.seconds = trio.current_time() - began

    async def _send(self) -> None:
        try:
            async with self._stream:
                await self.way.send(self._stream, self._file, self.cancellations)
        except (OSError, trio.BrokenResourceError) as exc:
            self.errors.append(f"the sender stopped: {exc!r}")

    async def _receive(self) -> None:
        try:
            async with self._receiving:
                while data := await self._receiving.receive_some(
                    self.cancellations.read_size(self.received)
                ):
                    self.received += len(data)
                    self._arrived.update(data)
                    await self.cancellations.strike_if_due(self.received)
        except trio.BrokenResourceError as exc:
            self.errors.append(f"the receiver stopped: {exc!r}")
