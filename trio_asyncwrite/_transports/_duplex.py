"""In-memory streams with a bound: what Trio's own memory streams have not.

One :class:`_Pipe` carries the bytes of one direction. Its two ends belong to different tasks,
but all that changes it is synchronous, so it needs no lock; who waits for the other end is
parked and looks again when woken.
"""

from __future__ import annotations

import enum
import errno
import os
from typing import TYPE_CHECKING, final

import trio

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_read import AsyncRead
from trio_asyncwrite._core._async_write import AsyncReadWrite, AsyncWrite
from trio_asyncwrite._core._budget import TRANSPORT_RATE
from trio_asyncwrite._core._checks import byte_view, positive_int
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._stack import begin_shutdown, fail

if TYPE_CHECKING:
    from collections.abc import Sequence


class _End(enum.Enum):
    """How the writer left a pipe; it is decided once."""

    OPEN = "open"
    COMPLETE = "complete"
    TRUNCATED = "truncated"


class _Pipe:
    """At most ``capacity`` bytes on their way from a writer to a reader."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._bytes = bytearray()
        self._end = _End.OPEN
        self._reader_closed = False
        #: Whether the reader was closed with bytes in the pipe.
        self.was_discarded: bool = False
        self._writers = trio.lowlevel.ParkingLot()
        self._readers = trio.lowlevel.ParkingLot()

    # ---- The writer's end ------------------------------------------------------------------

    def is_full(self) -> bool:
        """Whether a writer has something to wait for."""
        return (
            len(self._bytes) >= self._capacity
            and self._end is _End.OPEN
            and not self._reader_closed
        )

    @trio.lowlevel.enable_ki_protection
    def put(self, views: Sequence[memoryview]) -> int:
        """Take as many bytes from the front of ``views`` as there is room for."""
        if self._reader_closed:
            raise trio.BrokenResourceError("the reader has closed its end")
        before = len(self._bytes)
        for view in views:
            self._bytes += view[: self._capacity - len(self._bytes)]
        count = len(self._bytes) - before
        if count:
            self._readers.unpark_all()
        elif any(views):
            raise NotReady(self.wait_writable)
        return count

    async def wait_writable(self) -> None:
        """Wait until the pipe is not full, or one of its ends is closed."""
        # The reader may have been there between the poll and its wait.
        if self.is_full():
            await self._writers.park()
        else:
            await trio.lowlevel.checkpoint()

    def end(self, end: _End) -> None:
        """Write nothing more; only the first call decides how it ended."""
        if self._end is _End.OPEN:
            self._end = end
        self._readers.unpark_all()
        self._writers.unpark_all()

    # ---- The reader's end ------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def take(self, size: int | None) -> bytes:
        """Take at most ``size`` bytes of those in the pipe; all of them if it is None."""
        if not self._bytes:
            if self._end is _End.TRUNCATED:
                raise trio.BrokenResourceError(
                    "the writer was closed before it had sent everything"
                )
            if self._end is _End.OPEN:
                raise NotReady(self._wait_readable)
        with memoryview(self._bytes) as view:
            data = bytes(view[:size])
        del self._bytes[: len(data)]
        self._writers.unpark_all()
        return data

    async def _wait_readable(self) -> None:
        if self._bytes or self._reader_closed or self._end is not _End.OPEN:
            await trio.lowlevel.checkpoint()
        else:
            await self._readers.park()

    def close_reader(self) -> None:
        """Read nothing more; what nobody has read is gone."""
        self._reader_closed = True
        self.was_discarded = self.was_discarded or bool(self._bytes)
        self._bytes.clear()
        self._readers.unpark_all()
        self._writers.unpark_all()

    def has_ended(self) -> bool:
        """Whether the writer has ended properly, and everything was read."""
        return self._end is _End.COMPLETE and not self._bytes


class _PipeWriter(AsyncWrite):
    """The polls over a pipe. What the pipe has taken has reached its transport."""

    announces_held_bytes = True
    bytes_per_budget_unit: int | None = TRANSPORT_RATE

    _outgoing: _Pipe

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Put into the pipe what it has room for. See :meth:`AsyncWrite.poll_write`."""
        return self.poll_write_vectored((data,))

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Put into the pipe what it has room for. See :meth:`AsyncWrite.poll_write_vectored`."""
        self.lifecycle.check_write(self)
        views = [byte_view(data) for data in buffers]
        try:
            return self._outgoing.put(views)
        finally:
            for view in views:
                view.release()

    def poll_shutdown(self) -> None:
        """End the stream behind what is in the pipe. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self._outgoing.end(_End.COMPLETE)
            self.lifecycle.end()

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing: the end of the pipe says all."""
        return Epilogue.NOTHING

    release_waits = False

    async def release(self, *, clean: bool) -> None:
        """Let the reader know. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        self._outgoing.end(_End.COMPLETE if clean else _End.TRUNCATED)

    def poll_ready(self) -> None:
        """Return if the pipe is not full. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        if self._outgoing.is_full():
            raise NotReady(self._outgoing.wait_writable)


@final
class SimplexWriter(_PipeWriter):
    """The writing end of :func:`simplex`."""

    def __init__(self, pipe: _Pipe) -> None:
        self._outgoing = pipe

    def __repr__(self) -> str:
        return f"<SimplexWriter at {id(self):#x}>"


class _PipeReader(AsyncRead):
    """What both readers have in common."""

    announces_held_bytes = True

    _incoming: _Pipe

    def poll_read(self, size: int, /) -> bytes:
        """Take what is in the pipe. See :meth:`AsyncRead.poll_read`."""
        return self._incoming.take(size)

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the peer has ended its direction properly, and all was read."""
        return self._incoming.has_ended()


@final
class SimplexReader(_PipeReader):
    """The reading end of :func:`simplex`.

    At the end, if the writer had to leave bytes behind, reading raises
    :exc:`trio.BrokenResourceError`. Closing it drops what is still in the pipe, and writing to it
    fails from then on.
    """

    def __init__(self, pipe: _Pipe) -> None:
        self._incoming = pipe

    release_waits = False

    async def release(self, *, clean: bool) -> None:
        """Close this end: what nobody has read is dropped. See :meth:`AsyncRead.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        self._incoming.close_reader()

    def __repr__(self) -> str:
        return f"<SimplexReader at {id(self):#x}>"


@final
class DuplexStream(_PipeWriter, _PipeReader, AsyncReadWrite):
    """One of the two connected streams that :func:`duplex` makes.

    At the end, if the peer had to leave bytes behind because its close was cancelled or failed,
    reading raises :exc:`trio.BrokenResourceError`. So it does if the peer was closed before it had
    read all that was sent to it: as over a socket, the connection was reset.
    """

    def __init__(self, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    def poll_read(self, size: int, /) -> bytes:
        """Take what is in the pipe. See :meth:`AsyncRead.poll_read`."""
        data = super().poll_read(size)
        if not data and self._outgoing.was_discarded:
            # It ends both directions, as a kernel's reset does.
            fail(self, ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        return data

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the peer has ended its direction properly, and all was read, by it as well."""
        return self._incoming.has_ended() and not self._outgoing.was_discarded

    @answer
    def was_reset(self) -> bool:
        """Whether the peer was closed with unread bytes, and no read will tell, or one has told."""
        is_read = self.lifecycle.at_end or self.lifecycle.read_failure is not None
        return is_read and self._outgoing.was_discarded

    release_waits = False

    async def release(self, *, clean: bool) -> None:
        """Close both directions. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        await super().release(clean=clean)
        self._incoming.close_reader()

    def __repr__(self) -> str:
        return f"<DuplexStream at {id(self):#x}>"


def simplex(capacity: int) -> tuple[SimplexWriter, SimplexReader]:
    """Make a one-way stream in memory that holds at most ``capacity`` bytes.

    What the writer has sent, the reader receives; when the pipe is full the writer waits, as it
    would on a real connection. A writer that was shut down or closed gives the reader the rest
    and then the end of the stream; one whose close was cancelled or failed, so that bytes may be
    missing, gives it the rest and then :exc:`trio.BrokenResourceError`. When the reader is
    closed, writing raises :exc:`trio.BrokenResourceError`.

    Args:
        capacity: how many bytes may be under way, exactly; at least 1.

    Returns:
        The writer and the reader.

    Raises:
        TypeError: if ``capacity`` is not an integer.
        ValueError: if ``capacity`` is less than 1.

    Source: ``tokio::io::simplex``.
    """
    pipe = _Pipe(positive_int(capacity, "capacity"))
    return SimplexWriter(pipe), SimplexReader(pipe)


def duplex(capacity: int) -> tuple[DuplexStream, DuplexStream]:
    """Make two connected streams in memory, each direction holding at most ``capacity`` bytes.

    What one sends, the other receives, as by :func:`simplex` in each direction. They are the
    test double for a network connection: half-closeable, full when they are full, and reset when
    one is closed before it has read everything.

    Args:
        capacity: how many bytes may be under way in each direction, exactly; at least 1.

    Returns:
        The two streams.

    Raises:
        TypeError: if ``capacity`` is not an integer.
        ValueError: if ``capacity`` is less than 1.

    Source: ``tokio::io::duplex``.
    """
    capacity = positive_int(capacity, "capacity")
    there, back = _Pipe(capacity), _Pipe(capacity)
    return DuplexStream(there, back), DuplexStream(back, there)
