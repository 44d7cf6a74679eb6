"""One duplex stream as two halves, for two tasks."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_read import AsyncRead, poll_foreign_read, poll_reader
from trio_asyncwrite._core._checks import check_duplex, inherits
from trio_asyncwrite._core._lifecycle import ENDED
from trio_asyncwrite._core._stack import (
    check_nothing_held_above,
    detach,
    is_layer,
    register,
    tear,
)
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_asyncwrite._core._async_write import AsyncWrite
    from trio_asyncwrite._core._layer import Layer

S = TypeVar("S", bound=trio.abc.Stream)


class _Whole(Generic[S]):
    """The stream that two halves share. It is closed with the second of them."""

    def __init__(self, stream: S) -> None:
        self.stream: S = stream
        self.writer: AsyncWrite = wrap_stream(stream)
        # Weak: a half that was dropped is not there to be closed.
        self.halves: list[weakref.ref[Layer]] = []

    def is_last(self, half: Layer, is_closing: Callable[[object], bool]) -> bool:
        """Whether the other half is gone, or going."""
        others = [
            other for ref in self.halves if (other := ref()) is not None and other is not half
        ]
        return all(other.closed or is_closing(other) for other in others)


@final
class ReadHalf(AsyncRead, Generic[S]):
    """The reading half of a stream; made by :func:`split`.

    Closing it leaves the other half open. The stream is closed when both halves are.

    Source: ``tokio::io::ReadHalf``.
    """

    announces_held_bytes = True

    def __init__(self, whole: _Whole[S]) -> None:
        self._whole = whole
        register(self, whole.writer)
        whole.halves.append(weakref.ref(self))

    @answer
    def layers_below(self) -> tuple[object, ...]:
        """The stream that was split."""
        return (self._whole.writer,)

    def owns_below(self, is_closing: Callable[[object], bool]) -> bool:
        """The stream is closed when both halves are."""
        return self._whole.is_last(self, is_closing)

    def poll_read(self, size: int, /) -> bytes:
        """Read from the stream. See :meth:`AsyncRead.poll_read`."""
        for reader in (self._whole.stream, self._whole.writer):
            if inherits(reader, AsyncRead):
                return poll_reader(reader, size)
        return poll_foreign_read(self, self._whole.stream, size)

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the peer has ended its direction, as far as was seen."""
        return self._whole.writer.peer_ended

    def unsplit(self, write_half: WriteHalf[S]) -> S:
        """Join the two halves again. They are closed; the stream stays open.

        Args:
            write_half: the half that :func:`split` returned together with this one.

        Returns:
            The stream that was split.

        Raises:
            ValueError: if the halves do not belong together; or if they, or layers above them,
                hold bytes that the stream itself knows nothing of. The halves stay usable.
            TypeError: if ``write_half`` is not a :class:`WriteHalf`.
            trio.ClosedResourceError: if one of them is closed, or was joined before.
            trio.BusyResourceError: if a task is inside one of them, or writes a message to a layer
                above them.
            trio.BrokenResourceError: if a :class:`Buf` is unfinished there. The halves stay usable.

        Source: ``ReadHalf::unsplit``.
        """
        if not isinstance(write_half, WriteHalf):
            raise TypeError(f"expected a WriteHalf, got {type(write_half).__name__}")
        if self.closed or write_half.closed:
            raise trio.ClosedResourceError("one of the halves was closed or joined again")
        whole = self._whole
        if whole is not write_half.whole:
            raise ValueError(f"{self!r} and {write_half!r} are halves of different streams")
        if self.lifecycle.reading or write_half.lifecycle.inside:
            raise trio.BusyResourceError("a task is using one of the halves")
        check_nothing_held_above(write_half, "join the halves again")
        if not is_layer(whole.stream) and whole.writer.unsent_bytes:
            raise ValueError(f"{whole.writer.unsent_bytes} bytes are unsent: flush first")
        if received := len(self.lifecycle.received):
            raise ValueError(f"{received} bytes were received and not read: read them first")
        detach(self)
        detach(write_half)
        return whole.stream

    def __repr__(self) -> str:
        return "<ReadHalf, closed>" if self.closed else f"<ReadHalf of {self._whole.stream!r}>"


@final
class WriteHalf(Wrapper["AsyncWrite"], Generic[S]):
    """The writing half of a stream; made by :func:`split`.

    Shutting it down or closing it half-closes the stream, whose reading half stays open. While
    others have something to write to the stream, such as a buffer beside this half, both raise. A
    close ends this half then, and the stream with the other one.

    Source: ``tokio::io::WriteHalf``.
    """

    #: The stream that was split, as a writer.
    inner: AsyncWrite

    def __init__(self, whole: _Whole[S]) -> None:
        #: The stream, and its other half.
        self.whole = whole
        self.inner = whole.writer
        whole.halves.append(weakref.ref(self))

    def owns_below(self, is_closing: Callable[[object], bool]) -> bool:
        """The stream is closed when both halves are."""
        return self.whole.is_last(self, is_closing)

    async def release(self, *, clean: bool) -> None:
        """Tear a stream that lives on without having sent everything.

        See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        if self.lifecycle.phase is not ENDED and not self.inner.closed and self.unsent_bytes:
            tear(self.inner, "its write half was closed before everything was sent")

    def __repr__(self) -> str:
        return f"<WriteHalf of {self.whole.stream!r}>"


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
    check_duplex(stream)
    whole = _Whole(stream)
    return ReadHalf(whole), WriteHalf(whole)
