"""In-memory streams with a bound: what Trio's own memory streams have not.

One :class:`_Pipe` carries the bytes of one direction. Its two ends belong to different tasks,
but all that changes it is synchronous, so it needs no lock; who waits for the other end is
parked and looks again when woken.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, final

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncReadWrite, AsyncWrite
from trio_asyncwrite._core._checks import byte_view, positive_int
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._phase import CLOSED, ENDED

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
        self._receiving = False
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

    async def receive(self, max_bytes: int | None) -> bytes:
        """See :meth:`DuplexStream.receive_some`."""
        size = self._capacity if max_bytes is None else positive_int(max_bytes, "max_bytes")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while not (self._bytes or self._reader_closed or self._end is not _End.OPEN):
                await self._readers.park()
            return self._take(size)
        finally:
            self._receiving = False

    @trio.lowlevel.enable_ki_protection
    def _take(self, size: int) -> bytes:
        if self._reader_closed:
            raise trio.ClosedResourceError("this stream was closed")
        if not self._bytes and self._end is _End.TRUNCATED:
            raise trio.BrokenResourceError("the writer was closed before it had sent everything")
        with memoryview(self._bytes) as view:
            data = bytes(view[:size])
        del self._bytes[:size]
        self._writers.unpark_all()
        return data

    def close_reader(self) -> None:
        """Read nothing more; what nobody has read is gone."""
        self._reader_closed = True
        self._bytes.clear()
        self._readers.unpark_all()
        self._writers.unpark_all()


class _PipeWriter(AsyncWrite):
    """The polls over a pipe. What the pipe has taken has reached its transport."""

    _outgoing: _Pipe

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Put into the pipe what it has room for. See :meth:`AsyncWrite.poll_write`."""
        return self.poll_write_vectored((data,))

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Put into the pipe what it has room for. See :meth:`AsyncWrite.poll_write_vectored`."""
        self._check_open()
        views = [byte_view(data) for data in buffers]
        try:
            return self._poll_inner(self._outgoing.put, views)
        finally:
            for view in views:
                view.release()

    def poll_shutdown(self) -> None:
        """End the stream behind what is in the pipe. See :meth:`AsyncWrite.poll_shutdown`."""
        if self._begin_shutdown():
            self._outgoing.end(_End.COMPLETE)
            self._enter(ENDED)

    async def release(self, *, clean: bool) -> None:
        """Let the reader know. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        self._enter(CLOSED)
        self._outgoing.end(_End.COMPLETE if clean else _End.TRUNCATED)

    def _poll_ready(self) -> None:
        self._check_open()
        if self._outgoing.is_full():
            raise NotReady(self._outgoing.wait_writable)


@final
class SimplexWriter(_PipeWriter):
    """The writing end of :func:`simplex`."""

    def __init__(self, pipe: _Pipe) -> None:
        self._outgoing = pipe

    def __repr__(self) -> str:
        return f"<SimplexWriter at {id(self):#x}>"


@final
class SimplexReader(trio.abc.ReceiveStream):
    """The reading end of :func:`simplex`."""

    def __init__(self, pipe: _Pipe) -> None:
        self._incoming = pipe

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is in the pipe, or wait for some. See :meth:`DuplexStream.receive_some`.

        Raises:
            trio.BrokenResourceError: at the end, if the writer had to leave bytes behind.

        Cancellation: nothing happened.
        """
        return await self._incoming.receive(max_bytes)

    async def aclose(self) -> None:
        """Close this end: what is still in the pipe is dropped, and writing to it fails.

        Cancellation: lost, for what is still in the pipe, as without a cancellation: this end
            is closed in any case.

        Source: :meth:`trio.abc.AsyncResource.aclose`.
        """
        self._incoming.close_reader()
        await trio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        return f"<SimplexReader at {id(self):#x}>"


@final
class DuplexStream(_PipeWriter, AsyncReadWrite):
    """One of the two connected streams that :func:`duplex` makes."""

    def __init__(self, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is in the pipe, or wait for some.

        Args:
            max_bytes: the most to return, in bytes; at least 1. By default, all that is there.

        Returns:
            The bytes received; empty at the end of the stream.

        Raises:
            TypeError: if ``max_bytes`` is not an integer.
            ValueError: if ``max_bytes`` is less than 1.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the stream is closed, or is closed while this call waits.
            trio.BrokenResourceError: at the end, if the writer had to leave bytes behind: its
                close was cancelled or failed.

        Cancellation: nothing happened.

        Source: :meth:`trio.abc.ReceiveStream.receive_some`.
        """
        return await self._incoming.receive(max_bytes)

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
    test double for a network connection: half-closeable, and full when they are full.

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
