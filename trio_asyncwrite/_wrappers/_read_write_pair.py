"""A reader and a writer as one duplex stream."""

from __future__ import annotations

from typing import Generic, TypeVar, cast, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_read import AsyncRead, poll_foreign_read, poll_reader
from trio_asyncwrite._core._async_write import AsyncReadWrite, AsyncWrite
from trio_asyncwrite._core._checks import connection_advice, inherits
from trio_asyncwrite._core._stack import register
from trio_asyncwrite._transports._wrap_stream import ending_layer, wrap_stream

from ._wrapper import Wrapper

R = TypeVar("R", bound=trio.abc.ReceiveStream)
R2 = TypeVar("R2", bound=trio.abc.ReceiveStream)
W = TypeVar("W", bound=AsyncWrite)


@final
class ReadWritePair(  # pyright: ignore[reportIncompatibleVariableOverride]
    Wrapper[W], AsyncReadWrite, Generic[R, W]
):
    """Joins a stream to read from and a writer into one half-closeable stream.

    The two need not be related. ``ReadWritePair(stream, BufWriter(stream))`` is a buffered duplex
    stream. Closing the pair closes both.

    Args:
        reader: where :meth:`receive_some` reads.
        writer: the writer, or any :class:`trio.abc.SendStream`; it goes through
            :func:`wrap_stream`.
        send_stream: another name for ``writer``, which it has in :class:`trio.StapledStream`. By
            keyword only, since it is the first argument there.
        receive_stream: another name for ``reader``, likewise.

    Raises:
        TypeError: if ``reader`` cannot be read from, or ``writer`` cannot be written to.

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
    @overload
    def __init__(self, *, send_stream: W, receive_stream: R) -> None: ...
    @overload
    def __init__(
        self: ReadWritePair[R2, AsyncWrite],
        *,
        send_stream: trio.abc.SendStream,
        receive_stream: R2,
    ) -> None: ...

    def __init__(
        self,
        reader: trio.abc.ReceiveStream | None = None,
        writer: trio.abc.SendStream | None = None,
        *,
        send_stream: trio.abc.SendStream | None = None,
        receive_stream: trio.abc.ReceiveStream | None = None,
    ) -> None:
        if send_stream is not None or receive_stream is not None:
            if reader is not None or writer is not None:
                raise TypeError(
                    "give reader and writer, or send_stream and receive_stream, and not both"
                )
            reader, writer = receive_stream, send_stream
        if not isinstance(reader, trio.abc.ReceiveStream):
            raise TypeError(
                f"expected a trio.abc.ReceiveStream, got {type(reader).__name__} (the order is "
                f"reader, writer){connection_advice(reader)}"
            )
        self.reader = reader  # type: ignore[assignment]
        self._ending = ending_layer(reader)
        self._send_stream = cast("trio.abc.SendStream", writer)
        self.inner = wrap_stream(writer)  # type: ignore[arg-type, assignment]
        if self._ending is not None:
            register(self, self._ending)

    @answer
    def layers_below(self) -> tuple[object, ...]:
        """The reader (as a writer, if it is one, too), and the writer."""
        return (self.reader if self._ending is None else self._ending, self.inner)

    @answer
    def writes_below(self) -> tuple[object, ...]:
        """The writer."""
        return (self.inner,)

    @property
    def writer(self) -> W:
        """The writer; the same as ``inner``."""
        return self.inner

    @property
    def send_stream(self) -> trio.abc.SendStream:
        """The stream to write to, as it was given. See :class:`trio.StapledStream`."""
        return self._send_stream

    @property
    def receive_stream(self) -> R:
        """The same as ``reader``. See :class:`trio.StapledStream`."""
        return self.reader

    def poll_read(self, size: int, /) -> bytes:
        """Read from the reader. See :meth:`AsyncRead.poll_read`."""
        reader: trio.abc.ReceiveStream = self.reader
        if inherits(reader, AsyncRead):
            return poll_reader(reader, size)
        return poll_foreign_read(self, reader, size)

    def drain_source(self) -> trio.abc.ReceiveStream | None:
        """This pair, unless its reader is left to somebody else."""
        reader: object = self.reader
        is_left = inherits(reader, AsyncRead) and reader.drain_source() is None
        return None if is_left else self

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the peer of the reader has ended its direction, as far as was seen."""
        reader: object = self.reader
        return reader.peer_ended if inherits(reader, AsyncRead) else self.lifecycle.at_end or None

    async def release(self, *, clean: bool) -> None:
        """Close a reader that has nothing to say at its end. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        """
        if self._ending is None:
            await trio.aclose_forcefully(self.reader)

    def __repr__(self) -> str:
        return f"<ReadWritePair of {self.reader!r} and {self.inner!r}>"
