"""Any stream as a reader: what ``wrap_stream`` is for writers."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, final

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_read import AsyncRead, poll_foreign_read
from trio_asyncwrite._core._checks import connection_advice, inherits
from trio_asyncwrite._core._stack import is_layer, lifecycle_of, register

from ._fd import FdWriter
from ._wrap_stream import ending_layer, wrap_stream

if TYPE_CHECKING:
    from trio_asyncwrite._core._layer import Layer


@final
class ReceiveStreamReader(AsyncRead):
    """A reader over the ``receive_some`` of any stream; closing it closes the stream.

    If the stream can be written to as well, its writer is the layer below, so that what that one
    holds is sent at the end.

    Args:
        stream: the stream.
    """

    announces_held_bytes = True

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        #: The stream.
        self.stream = stream
        self._ending: Layer | None = ending_layer(stream)
        if self._ending is not None:
            register(self, self._ending)

    @answer
    def layers_below(self) -> tuple[object, ...]:
        """The writer of the same stream, if there is one."""
        return () if self._ending is None else (self._ending,)

    @answer
    def foreign_below(self) -> tuple[object, ...]:
        """The stream, if its writer does not close it."""
        return (self.stream,) if self._ending is None else ()

    def poll_read(self, size: int, /) -> bytes:
        """Take what a wait has received. See :meth:`AsyncRead.poll_read`."""
        return poll_foreign_read(self, self.stream, size)

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the stream has ended, as far as was seen."""
        return self.lifecycle.at_end or None

    async def release(self, *, clean: bool) -> None:
        """Close a stream that has nothing to say at its end. See :meth:`AsyncRead.release`.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        """
        if self._ending is None:
            await trio.aclose_forcefully(self.stream)

    def __repr__(self) -> str:
        return f"<reader of {self.stream!r}>"


def wrap_reader(stream: trio.abc.ReceiveStream) -> AsyncRead:
    """Make a reader of any stream, the best one that there is for it.

    An :class:`AsyncRead` is returned as it is, unless it is a :class:`TcpStream` or
    :class:`PollEvented` with a ``receive_some`` of its own. A :class:`trio.SocketStream` becomes a
    :class:`TcpStream` and a ``trio.lowlevel.FdStream`` a :class:`PollEvented` (not on Windows).
    Over anything else, the wait calls the stream's own ``receive_some``. The same stream gives the
    same reader while that one lives, so what has arrived there is never passed over.

    Args:
        stream: the stream to read from; the reader owns it from then on.

    Raises:
        TypeError: if ``stream`` is not a :class:`trio.abc.ReceiveStream`.
    """
    if inherits(stream, AsyncRead):
        lifecycle_of(stream)  # a mock has none
        # A poll would go past what a subclass does in its receive_some().
        if not (isinstance(stream, FdWriter) and stream.has_own_receive_some):
            return stream
    if not isinstance(stream, trio.abc.ReceiveStream):
        raise TypeError(
            f"expected a trio.abc.ReceiveStream, got {type(stream).__name__}"
            f"{connection_advice(stream)}"
        )
    if sys.platform != "win32" and not is_layer(stream):  # pragma: no branch
        if inherits(stream, trio.SocketStream):
            return wrap_stream(stream)
        if inherits(stream, trio.lowlevel.FdStream):
            return wrap_stream(stream)
    reader = _readers.get(id(stream))
    if reader is None or reader.lifecycle.is_gone():
        reader = ReceiveStreamReader(stream)
        _readers[id(stream)] = reader
    return reader


#: The readers that wrap_reader has made. They keep their streams alive, and so the numbers valid.
_readers: weakref.WeakValueDictionary[int, ReceiveStreamReader] = weakref.WeakValueDictionary()
