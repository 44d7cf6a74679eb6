"""Any stream as a writer."""

from __future__ import annotations

import sys
from typing import TypeVar, overload

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncWrite

from ._advice import advice
from ._poll_evented import PollEvented
from ._send_stream import DEFAULT_CANCEL_GRACE, SendStreamWriter
from ._tcp import TcpStream

W = TypeVar("W", bound=AsyncWrite)


@overload
def wrap_stream(stream: W, cancel_grace: float = ...) -> W: ...


if sys.platform != "win32":

    @overload
    def wrap_stream(stream: trio.SocketStream, cancel_grace: float = ...) -> TcpStream: ...
    @overload
    def wrap_stream(stream: trio.lowlevel.FdStream, cancel_grace: float = ...) -> PollEvented: ...


@overload
def wrap_stream(stream: trio.abc.SendStream, cancel_grace: float = ...) -> AsyncWrite: ...


def wrap_stream(
    stream: trio.abc.SendStream, cancel_grace: float = DEFAULT_CANCEL_GRACE
) -> AsyncWrite:
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

    Args:
        stream: the stream to write to; the writer owns it from then on.
        cancel_grace: how long a cancelled task may still be held up to bring a chunk to its end,
            in seconds. Only the last case uses it.

    Returns:
        The writer.

    Raises:
        TypeError: if ``stream`` is not a :class:`trio.abc.SendStream`. The message names the
            constructor that takes the object, if there is one.
        ValueError: if ``cancel_grace`` is negative or not a number.

    Source: ``impl AsyncWrite for Box<T>``.
    """
    if isinstance(stream, AsyncWrite):
        return stream
    if sys.platform != "win32":  # pragma: no branch
        if isinstance(stream, trio.SocketStream):
            return TcpStream(stream)
        if isinstance(stream, trio.lowlevel.FdStream):
            return PollEvented(stream)
    if isinstance(stream, trio.abc.SendStream):
        return SendStreamWriter(stream, cancel_grace)
    raise TypeError(f"expected a trio.abc.SendStream, got {type(stream).__name__}{advice(stream)}")
