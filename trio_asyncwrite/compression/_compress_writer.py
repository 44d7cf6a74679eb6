"""Compression on the way down.

Theory of operation
===================

**One output at a time.** ``_out`` is what the encoder has given and the layer below has not taken
yet. While there is some, nothing is accepted: each poll passes it on first. So the memory is that
of the encoder and one output, a flush that was begun ends before more input, and all that must
survive a wait is in fields.

**What the encoder holds** is told by ``_held``, and not by the encoder: a second flush would write
an empty block with some of them, and ending twice would raise, or begin a second stream. So it is
flushed only if there was input since the last flush, and ended once.

**In a thread.** With ``offload=True`` a large piece is accepted, and encoded in a thread that no
task waits for; the poll that finds it done takes the output. Until then nothing else calls the
encoder. A thread costs 56 us, so small pieces are encoded at once.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._checks import (
    byte_view,
    check_buffers,
    check_data,
    describe_answer,
)
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._shell import poll_data
from trio_asyncwrite._core._stack import (
    begin_shutdown,
    check_may_encode,
    fail,
    hold,
    is_refusal,
    let_go,
    poll_step,
    shut_down,
    writing_chain,
)
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._compressor import TAKES_VIEWS
from ._encoding import Encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

    from ._compressor import Compressor

W = TypeVar("W", bound=AsyncWrite)

#: How much to encode at once: at most a millisecond of work, with the encoders that we make.
_PIECE: Final = 32768

#: How much to encode at once in a thread: enough to make the trip free.
_THREAD_PIECE: Final = 8 * _PIECE

#: From how much on to encode in a thread. Fewer bytes take less time than the trip, with zstd-3
#: 12 KiB, or no more than what a piece without a thread takes.
_WORTH_A_THREAD: Final = _PIECE

#: How many seconds a cancelled close waits for a thread, which has 256 KiB at most to encode.
_THREAD_CLOSE_TIMEOUT: Final = 1.0


@final
class CompressWriter(AsyncWrite, Generic[W]):
    """Compresses all that is written.

    A write may end in the encoder. :meth:`flush` and :meth:`send_all` send all of it, so that the
    peer can decode every byte written before; each costs some compression. For many small writes,
    put a :class:`BufWriter` above it.

    :meth:`shutdown` and closing write the trailer, by which the peer knows that it has everything.
    A stream that was cut short has none: after a message that was begun and not finished, a
    failure, or a cancelled close.

    It is write-only. ``ReadWritePair(stream, CompressWriter(stream, gzip_compressor()))`` is a
    duplex stream that compresses one direction.

    It holds the encoder (for zlib 0.26 MiB, for zstd 2) and one output of it. A write of more than
    32 KiB is accepted in pieces of that size.

    **With offload=True**, a worker thread compresses what is written in pieces of 32 KiB or more,
    up to 256 KiB at once, so that other tasks go on. It is not faster.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to; it goes through
            :func:`wrap_stream`.
        compressor: a new encoder, for this writer alone: of :func:`gzip_compressor`,
            :func:`zlib_compressor`, :func:`zstd_compressor`, :func:`brotli_compressor`, or one of
            yours (:class:`Compressor`).
        offload: whether large writes are compressed in a worker thread.

    Raises:
        TypeError: if ``inner`` cannot be written to, or ``compressor`` is not an encoder.
        ValueError: if a layer above ``inner`` holds bytes. Flush it first.
        trio.BusyResourceError: if another task writes a message to ``inner``, or to a layer above
            or below it.
        trio.BrokenResourceError: if a :class:`Buf` is unfinished there. Finish it first.

    Source: ``async_compression::tokio::write``.
    """

    #: The writer below.
    inner: W

    @overload
    def __init__(self, inner: W, compressor: Compressor, *, offload: bool = ...) -> None: ...
    @overload
    def __init__(
        self: CompressWriter[TcpStream],
        inner: trio.SocketStream,
        compressor: Compressor,
        *,
        offload: bool = ...,
    ) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(
            self: CompressWriter[PollEvented],
            inner: trio.lowlevel.FdStream,
            compressor: Compressor,
            *,
            offload: bool = ...,
        ) -> None: ...

    @overload
    def __init__(
        self: CompressWriter[AsyncWrite],
        inner: trio.abc.SendStream,
        compressor: Compressor,
        *,
        offload: bool = ...,
    ) -> None: ...

    def __init__(
        self, inner: trio.abc.SendStream, compressor: Compressor, *, offload: bool = False
    ) -> None:
        # Before a wrong argument can raise: the finaliser asks how much is held.
        self._plain = 0
        _check_compressor(compressor)
        self._compressor = compressor
        self._compress: Callable[..., bytes] = compressor.compress
        self._takes_views = getattr(compressor, "takes_views", None) is TAKES_VIEWS
        self._offload = offload
        self._piece = _THREAD_PIECE if offload else _PIECE
        # What the encoder has given, and how much of it the layer below has.
        self._out = b""
        self._passed = 0
        # Plain bytes since the encoder was flushed; _plain counts those since nothing was left.
        self._held = 0
        self._finished = False
        # The call that a thread makes, until a poll has taken its answer.
        self._encoding: Encoding | None = None
        self._has_begun = False
        writer = wrap_stream(inner)
        check_may_encode(writer, "make a CompressWriter over what is below it")
        self.inner = writer  # type: ignore[assignment]

    encodes = True
    announces_held_bytes = True

    @property
    def held_bytes(self) -> int:
        """The plain bytes that were accepted since everything was passed on.

        How much of its output an encoder has given for which of its input, nobody knows.
        """
        return self._plain

    @property
    def bytes_per_budget_unit(self) -> int | None:  # type: ignore[override]
        """That of the encoder, if it has one."""
        rate: int | None = getattr(self._compressor, "bytes_per_budget_unit", None)
        return rate

    # ---- The polls -------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Compress up to 32 KiB of ``data``. See :meth:`AsyncWrite.poll_write`.

        Raises:
            TypeError: if the encoder does not return bytes.
        """
        lifecycle = self.lifecycle
        if lifecycle.refusal is not None:
            lifecycle.check_write(self)
        if type(data) is not bytes:
            check_data(data)
        if self._out or self._encoding is not None:
            self._push()
        if type(data) is bytes and len(data) <= self._piece:
            return self._take(data)
        with byte_view(data) as view, view[: self._piece] as piece:
            return self._take(piece)

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Compress up to 32 KiB of ``buffers``. See :meth:`AsyncWrite.poll_write_vectored`."""
        self.lifecycle.check_write(self)
        check_buffers(buffers)
        self._push()
        pieces: list[bytes] = []
        room = self._piece
        for data in buffers:
            if not room:
                break
            with byte_view(data) as view, view[:room] as piece:
                pieces.append(bytes(piece))
            room -= len(pieces[-1])
        return self._take(b"".join(pieces))

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Flush the encoder, and the layers below. See :meth:`AsyncWrite.poll_flush`."""
        lifecycle = self.lifecycle
        if lifecycle.refusal is not None:
            lifecycle.check_flush(self)
        self._push()
        if self._held:
            # A close that must not wait flushes once.
            self._take_rest(self._compressor.flush, in_thread=lifecycle.close is None)
            self._push()
        poll_step(self.inner, "poll_flush")

    @trio.lowlevel.enable_ki_protection
    def poll_shutdown(self) -> None:
        """Write the trailer and shut down what is below. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self._push()
            if not self._finished:
                self._take_rest(self._compressor.finish)
                self._finished = True
                self._push()
            shut_down(self.inner)
            self.lifecycle.end()

    def poll_ready(self) -> None:
        """Return if nothing waits to be passed on. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        self._push()

    # ---- What closing asks -----------------------------------------------------------------

    @answer
    def epilogue(self) -> Epilogue:
        """The trailer."""
        return Epilogue.DATA

    @answer
    def shows_truncation(self) -> bool:
        """Yes, once output was passed on: without its trailer it is not complete.

        Before that, nothing tells it from an empty stream.
        """
        return self._has_begun

    @answer
    def keeps_messages(self) -> bool:
        """It takes 32 KiB of a message at a time, whatever the layer below does."""
        return False

    @answer
    def close_patience(self) -> float:
        """A second while a thread compresses; else the layer below answers."""
        patience = self.inner.close_patience
        if self._encoding is not None and not self._encoding.ended.is_set():
            return max(patience, _THREAD_CLOSE_TIMEOUT)
        return patience

    # ---- The encoder -----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def _push(self) -> None:
        """Pass all of the output on, or raise NotReady."""
        encoding = self._encoding
        if encoding is not None:
            if not encoding.ended.is_set():
                raise NotReady(encoding.wait)
            self._encoding = None
            self._out = self._call(encoding.collect)
        if out := self._out:
            inner = self.inner
            size = len(out)
            while (passed := self._passed) < size:
                try:
                    passed += poll_data(inner, memoryview(out)[passed:] if passed else out)
                except NotReady:
                    raise
                except BaseException as exc:
                    fail(inner, exc)
                    raise
                self._passed = passed
                if not self._has_begun:
                    self._begin_to_show()
            self._out, self._passed = b"", 0
        if self._plain and not self._held:
            self._plain = 0
            let_go(self)

    def _begin_to_show(self) -> None:
        """From now on the missing trailer shows a truncated end, and a reset need not."""
        self._has_begun = True
        if self.lifecycle.torn is not None or self.lifecycle.unfinished is not None:
            for lower in writing_chain(self.inner):
                lower.arm_reset(on=False)

    @trio.lowlevel.enable_ki_protection
    def _take(self, data: bytes | memoryview) -> int:
        """Encode ``data``, when nothing else is under way."""
        size = len(data)
        if not size:
            return 0
        in_thread = self._offload and size >= _WORTH_A_THREAD
        if not (in_thread and self._begin(self._compress, bytes(data))):
            # An encoder of a user's may keep what it gets, and a view must not be kept.
            self._out = self._call(self._compress, data if self._takes_views else bytes(data))
        if not self._plain:
            hold(self)
        self._plain += size
        self._held += size
        return size

    @trio.lowlevel.enable_ki_protection
    def _take_rest(self, function: Callable[[], bytes], *, in_thread: bool = True) -> None:
        """Flush or end the encoder, when nothing else is under way."""
        is_large = in_thread and self._held >= _WORTH_A_THREAD
        if not (is_large and self._begin(function)):
            self._out = self._call(function)
        self._held = 0

    def _begin(self, function: Callable[..., bytes], *data: bytes) -> bool:
        """Call the encoder in a thread, if that is wanted."""
        if self._offload:
            # There may be no more threads to be had.
            with contextlib.suppress(RuntimeError):
                self._encoding = Encoding(function, *data)
                return True
        return False

    def _call(self, function: Callable[..., bytes], *data: bytes | memoryview) -> bytes:
        """Call the encoder; if it fails, this layer has failed."""
        try:
            output: object = function(*data)
            return output if type(output) is bytes else self._checked(output)
        except BaseException as exc:
            if isinstance(exc, NotReady) or is_refusal(exc):
                # From a writer that the encoder uses. From here it would be taken for our own, as
                # if nothing had happened; but the encoder has gone on.
                error = trio.BrokenResourceError(f"{self!r}: its encoder raised {exc!r}")
                error.__cause__ = exc
                fail(self, error)
                raise error from exc  # noqa: ASYNC104 - no Cancelled is one
            fail(self, exc)
            raise

    def _checked(self, output: object) -> bytes:
        if isinstance(output, bytes):
            return output
        name = type(self._compressor).__name__
        raise TypeError(
            f"compress(), flush() and finish() of {name} must return bytes, one has returned "
            f"{describe_answer(output)}"
        )

    def __repr__(self) -> str:
        return f"<CompressWriter over {self.inner!r}>"


def _check_compressor(compressor: object) -> None:
    if isinstance(compressor, type) or not all(
        callable(getattr(compressor, name, None)) for name in ("compress", "flush", "finish")
    ):
        name = getattr(compressor, "__name__", type(compressor).__name__)
        raise TypeError(
            f"expected an encoder with compress(), flush() and finish(), such as "
            f"gzip_compressor(), got {name}"
        )
