"""Any stream as a writer."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, TypeVar, overload

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._checks import inherits
from trio_asyncwrite._core._stack import is_layer, lifecycle_of

from ._advice import advice
from ._poll_evented import PollEvented
from ._send_stream import DEFAULT_CANCEL_GRACE, SendStreamWriter
from ._tcp import TcpStream

if TYPE_CHECKING:
    from trio_asyncwrite._core._layer import Layer

W = TypeVar("W", bound=AsyncWrite)


@overload
def wrap_stream(stream: W, cancel_grace: float | None = ...) -> W: ...


if sys.platform != "win32":

    @overload
    def wrap_stream(stream: trio.SocketStream, cancel_grace: float | None = ...) -> TcpStream: ...
    @overload
    def wrap_stream(
        stream: trio.lowlevel.FdStream, cancel_grace: float | None = ...
    ) -> PollEvented: ...


@overload
def wrap_stream(stream: trio.abc.SendStream, cancel_grace: float | None = ...) -> AsyncWrite: ...


def wrap_stream(stream: trio.abc.SendStream, cancel_grace: float | None = None) -> AsyncWrite:
    """Make a writer of any stream, the best one that there is for it.

    Every constructor of this library that takes a writer passes it through here.

    * An :class:`AsyncWrite` is returned as it is.
    * A :class:`trio.SocketStream` becomes a :class:`TcpStream` and a
      ``trio.lowlevel.FdStream`` a :class:`PollEvented` (not on Windows).
    * Anything else is written to with its own ``send_all``. Trio cannot say how much a cancelled
      ``send_all`` has sent, so this writer takes at most 64 KiB at a time, and sends them while
      it waits in a later :meth:`~AsyncWrite.write` or :meth:`~AsyncWrite.flush`: shielded from
      cancellation for up to ``cancel_grace`` seconds. When even that runs out, the stream is
      broken. Its shutdown is ``send_eof`` where there is one, else ``aclose`` of a write-only
      stream, else (a duplex stream that cannot be half-closed) a flush.

    The same stream gives the same writer while that one lives, so what waits in it is never passed
    over.

    Args:
        stream: the stream to write to; the writer owns it from then on.
        cancel_grace: how long a cancelled task may be held up until a chunk is sent, in seconds;
            only the last case uses it. ``None`` means 1.0 for a new writer. For a stream that has
            a writer already, it means whatever that one has.

    Returns:
        The writer.

    Raises:
        TypeError: if ``stream`` is not a :class:`trio.abc.SendStream`, or its descriptor is a
            packet socket. The message names the constructor that takes the object, if there is one.
        ValueError: if ``cancel_grace`` is negative or not a number, or not that of the writer that
            ``stream`` has already.

    Source: ``impl AsyncWrite for Box<T>``.
    """
    if is_layer(stream) and stream.is_writer:  # type: ignore[attr-defined]
        return stream  # type: ignore[return-value]
    if isinstance(stream, AsyncWrite):
        lifecycle_of(stream)  # a mock has none
    if not isinstance(stream, trio.abc.SendStream):
        raise TypeError(
            f"expected a trio.abc.SendStream, got {type(stream).__name__}{advice(stream)}"
        )
    writer = _writer_of(stream)
    if writer is not None:
        grace = getattr(writer, "cancel_grace", cancel_grace)
        if cancel_grace is not None and cancel_grace != grace:
            raise ValueError(f"{writer!r} exists already, with another cancel_grace: give None")
        return writer
    writer = _new_writer(stream, DEFAULT_CANCEL_GRACE if cancel_grace is None else cancel_grace)
    _writers[id(stream)] = writer
    return writer


def ending_layer(stream: trio.abc.ReceiveStream) -> Layer | None:
    """The layer to end with ``stream``, so that what the stream writes at its end is written.

    Args:
        stream: a stream that is read from, and perhaps written to as well.

    Returns:
        The stream itself, if it is a layer. The writer that it has already, or needs because only
        its own close knows its end. Else None: closing it forcefully will do.
    """
    if is_layer(stream):
        return stream  # type: ignore[return-value]
    writer = _writer_of(stream)
    if writer is not None:
        return writer
    if sys.platform != "win32":  # pragma: no branch
        if inherits(stream, trio.SocketStream) or inherits(stream, trio.lowlevel.FdStream):
            return None
    return wrap_stream(stream) if isinstance(stream, trio.abc.SendStream) else None


def _writer_of(stream: object) -> AsyncWrite | None:
    """The writer that ``stream`` has; None if there is none, or its close is over.

    While that close goes on, it is to be joined: whoever closes ``stream`` by another writer would
    cut it short.
    """
    writer = _writers.get(id(stream))
    return None if writer is None or writer.lifecycle.is_gone() else writer


#: The writers that wrap_stream has made. They keep their streams alive, and so the numbers valid.
_writers: weakref.WeakValueDictionary[int, AsyncWrite] = weakref.WeakValueDictionary()


def _new_writer(stream: trio.abc.SendStream, cancel_grace: float) -> AsyncWrite:
    if sys.platform != "win32":  # pragma: no branch
        if inherits(stream, trio.SocketStream):
            return TcpStream(stream)
        if inherits(stream, trio.lowlevel.FdStream):
            return PollEvented(stream)
    return SendStreamWriter(stream, cancel_grace)
