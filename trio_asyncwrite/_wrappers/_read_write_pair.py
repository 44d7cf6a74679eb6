"""A reader and a writer as one duplex stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncReadWrite, AsyncWrite
from trio_asyncwrite._core._phase import OPEN
from trio_asyncwrite._transports._wrap_stream import wrap_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

R = TypeVar("R", bound=trio.abc.ReceiveStream)
R2 = TypeVar("R2", bound=trio.abc.ReceiveStream)
W = TypeVar("W", bound=AsyncWrite)


@final
class ReadWritePair(AsyncReadWrite, Generic[R, W]):
    """Joins a stream to read from and a writer into one half-closeable stream.

    The two need not be related. ``ReadWritePair(stream, BufWriter(stream))`` is a buffered duplex
    stream. Closing the pair closes both.

    Args:
        reader: where :meth:`receive_some` reads.
        writer: the writer, or any :class:`trio.abc.SendStream`; it goes through
            :func:`wrap_stream`.

    Raises:
        TypeError: if ``reader`` is no stream to read from, or ``writer`` none to write to.

    Source: ``tokio_io::join`` and ``Join<R, W>``; :class:`trio.StapledStream`.
    """

    #: The stream that is read from.
    reader: R
    #: The writer.
    inner: W

    @overload
    def __init__(self, reader: R, writer: W) -> None: ...
    @overload
    def __init__(
        self: ReadWritePair[R2, AsyncWrite], reader: R2, writer: trio.abc.SendStream
    ) -> None: ...

    def __init__(self, reader: trio.abc.ReceiveStream, writer: trio.abc.SendStream) -> None:
        if not isinstance(reader, trio.abc.ReceiveStream):
            raise TypeError(f"expected a trio.abc.ReceiveStream, got {type(reader).__name__}")
        self.reader = reader  # type: ignore[assignment]
        self.inner = wrap_stream(writer)  # type: ignore[assignment]

    @property
    def writer(self) -> W:
        """The writer; the same as ``inner``."""
        return self.inner

    @property
    def _room(self) -> int:  # type: ignore[override]
        return self.inner._room if self._phase is OPEN else 0

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Pass the buffers on, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self._check_open()
        return self._poll_inner(self.inner.poll_write_vectored, buffers)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive from the reader.

        Args:
            max_bytes: the most to return, in bytes; at least 1. The default is the reader's.

        Returns:
            The bytes received; empty at the end of the stream.

        Raises:
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the reader is closed, or is closed meanwhile.
            trio.BrokenResourceError: if the reader has failed.

        Cancellation: nothing happened, if the reader keeps Trio's contract.

        Source: :meth:`trio.abc.ReceiveStream.receive_some`.
        """
        return await self.reader.receive_some(max_bytes)

    async def release(self, *, clean: bool) -> None:
        """Release the writer and close the reader, whatever comes of the first.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        """
        try:
            await super().release(clean=clean)
        finally:
            await trio.aclose_forcefully(self.reader)

    def __repr__(self) -> str:
        return f"<ReadWritePair of {self.reader!r} and {self.inner!r}>"
