"""One duplex stream as two halves, for two tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncWrite, release_once
from trio_asyncwrite._core._phase import CLOSED, OPEN
from trio_asyncwrite._transports._wrap_stream import wrap_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

S = TypeVar("S", bound=trio.abc.Stream)


class _Whole(Generic[S]):
    """What two halves share. The stream is closed with the second of them."""

    def __init__(self, stream: S) -> None:
        self.stream: S = stream
        self.writer: AsyncWrite = wrap_stream(stream)
        self.halves: int = 2
        self.clean: bool = True

    async def drop(self, *, clean: bool) -> None:
        """One half is closed."""
        self.halves -= 1
        self.clean &= clean
        if not self.halves:
            try:
                await release_once(self.writer, clean=self.clean)
            finally:
                await trio.aclose_forcefully(self.stream)


@final
class ReadHalf(trio.abc.ReceiveStream, Generic[S]):
    """The reading half of a stream; made by :func:`split`.

    Source: ``tokio::io::ReadHalf``.
    """

    def __init__(self, whole: _Whole[S]) -> None:
        self._whole: _Whole[S] | None = whole
        self._receiving: trio.CancelScope | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive from the stream.

        Args:
            max_bytes: the most to return, in bytes; at least 1. The default is the stream's.

        Returns:
            The bytes received; empty at the end of the stream.

        Raises:
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if this half is closed or joined again, now or meanwhile.
            trio.BrokenResourceError: if the stream has failed.

        Cancellation: nothing happened, if the stream keeps Trio's contract.

        Source: :meth:`trio.abc.ReceiveStream.receive_some`.
        """
        if self._whole is None:
            raise trio.ClosedResourceError(f"{self!r} was closed or joined again")
        if self._receiving is not None:
            raise trio.BusyResourceError(f"another task is receiving from {self!r}")
        with trio.CancelScope() as self._receiving:
            try:
                return await self._whole.stream.receive_some(max_bytes)
            finally:
                self._receiving = None
        raise trio.ClosedResourceError(f"another task closed {self!r}")

    async def aclose(self) -> None:
        """Close this half; with the second of the two, the stream is closed.

        Cancellation: nothing happened; the half is closed all the same.

        Source: dropping a ``ReadHalf``.
        """
        whole, self._whole = self._whole, None
        if whole is not None:
            if self._receiving is not None:
                self._receiving.cancel()
            with trio.CancelScope(shield=True):
                await whole.drop(clean=True)
        await trio.lowlevel.checkpoint()

    def unsplit(self, write_half: WriteHalf[S]) -> S:
        """Join the two halves again; they are closed by it, and the stream is not.

        Args:
            write_half: the half that :func:`split` returned together with this one.

        Returns:
            The stream that was split.

        Raises:
            ValueError: if the halves do not belong together, or hold unsent bytes that the stream
                itself knows nothing of. The halves stay usable.
            TypeError: if ``write_half`` is not a :class:`WriteHalf`.
            trio.ClosedResourceError: if one of them is closed, or was joined before.
            trio.BusyResourceError: if a task is inside one of them.

        Source: ``ReadHalf::unsplit``.
        """
        if not isinstance(write_half, WriteHalf):
            raise TypeError(f"expected a WriteHalf, got {type(write_half).__name__}")
        whole = self._whole
        if whole is None or write_half._phase is CLOSED:
            raise trio.ClosedResourceError("one of the halves was closed or joined again")
        if whole is not write_half._whole:
            raise ValueError(f"{self!r} and {write_half!r} are halves of different streams")
        if self._receiving is not None or write_half._busy or write_half._closing is not None:
            raise trio.BusyResourceError("a task is using one of the halves")
        stream: object = whole.stream
        if stream is not whole.writer and whole.writer.unsent_bytes:
            raise ValueError(f"{whole.writer.unsent_bytes} bytes are unsent: flush first")
        self._whole = None
        write_half._enter(CLOSED)
        return whole.stream

    def __repr__(self) -> str:
        return (
            "<ReadHalf, closed>" if self._whole is None else f"<ReadHalf of {self._whole.stream!r}>"
        )


@final
class WriteHalf(AsyncWrite, Generic[S]):
    """The writing half of a stream; made by :func:`split`.

    Shutting it down or closing it half-closes the stream, whose reading half stays open.

    Source: ``tokio::io::WriteHalf``.
    """

    #: The stream that was split, as a writer.
    inner: AsyncWrite

    def __init__(self, whole: _Whole[S]) -> None:
        self._whole = whole
        self.inner = whole.writer

    @property
    def _room(self) -> int:  # type: ignore[override]
        return self.inner._room if self._phase is OPEN else 0

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Pass the buffers on, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self._check_open()
        return self._poll_inner(self.inner.poll_write_vectored, buffers)

    async def release(self, *, clean: bool) -> None:
        """Close this half; with the second of the two, the stream is closed.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        """
        self._enter(CLOSED)
        await self._whole.drop(clean=clean)

    def __repr__(self) -> str:
        return f"<WriteHalf of {self._whole.stream!r}>"


def split(stream: S) -> tuple[ReadHalf[S], WriteHalf[S]]:
    """Split a duplex stream into two halves that two tasks may own.

    The stream is closed when both halves are; :meth:`ReadHalf.unsplit` gives it back instead.

    Args:
        stream: any :class:`trio.abc.Stream`. It is written to through :func:`wrap_stream`.

    Returns:
        The half to read from and the half to write to.

    Raises:
        TypeError: if ``stream`` is not a :class:`trio.abc.Stream`.

    Source: ``tokio::io::split``.
    """
    if not isinstance(stream, trio.abc.Stream):
        raise TypeError(f"expected a trio.abc.Stream, got {type(stream).__name__}")
    whole = _Whole(stream)
    return ReadHalf(whole), WriteHalf(whole)
