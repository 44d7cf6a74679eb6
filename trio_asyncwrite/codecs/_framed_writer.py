"""Frames from many tasks to one stream."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast, final

import trio
import trio.abc

from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._shell import claim, leave
from trio_asyncwrite._core._stack import poll_below
from trio_asyncwrite._wrappers._shared_writer import SharedWriter

from ._batch_codec import BatchCodec
from ._checks import check_codec, frame_view, wrong_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Buffer

    from trio_asyncwrite._core._async_write import AsyncWrite

    from ._codec import Codec

    Parts = Sequence[bytes | bytearray | memoryview]

#: Below it, one copy of the payload costs less than to gather its parts.
_WORTH_GATHERING: Final = 4096


@final
class FramedWriter(trio.abc.SendChannel[bytes]):
    """Sends frames over a stream: a channel that any number of tasks may use.

    A frame is accepted whole or not at all, and frames never mix. When :meth:`send` is cancelled,
    its frame is withdrawn. A frame that was accepted and has not gone entirely is completed by the
    next operation, before all others.

    **Flush before you wait for an answer.** :meth:`send` does not flush: it returns when the frame
    is accepted. Over a :class:`BufWriter`, small frames are collected, until the buffer is full or
    somebody calls :meth:`flush`; and of a large frame, a part may wait here. A close flushes.

    Below it is a :class:`SharedWriter`, :attr:`writer`, which is a layer of the stack. Give it to
    functions that take a stream, such as :func:`close_gracefully`. A close of any layer below, for
    example by a server, flushes the frames that were accepted, and ends this channel as well.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to send to. A :class:`SharedWriter`
            is used as it is; anything else gets one. So two channels over one stream have to be
            given the same :class:`SharedWriter`.
        codec: says how a frame is written; see :class:`Codec`.

    Raises:
        TypeError: if ``inner`` cannot be written to, or ``codec`` is not a codec.

    Source: ``tokio_util::codec::FramedWrite``.
    """

    def __init__(self, inner: trio.abc.SendStream, codec: Codec) -> None:
        check_codec(codec, "encode")
        if isinstance(inner, SharedWriter):
            self._writer: SharedWriter[AsyncWrite] = cast("SharedWriter[AsyncWrite]", inner)
        else:
            self._writer = SharedWriter(inner)
        self._codec = codec
        self._encode = codec.encode
        self._encode_whole: Callable[[bytes], bytes] = functools.partial(_encode_whole, codec)
        self._headers: Mapping[int, bytes] = {}
        self._header_limit = -1
        if isinstance(codec, BatchCodec):
            self._encode_whole = codec.encode_whole
            self._headers, self._header_limit = codec.headers, codec.header_limit
        self._put = self._writer.put
        self._lifecycle = self._writer.lifecycle
        assert self._lifecycle.line is not None
        self._line = self._lifecycle.line

    @property
    def writer(self) -> SharedWriter[AsyncWrite]:
        """The layer that the frames are written to, for all that is no frame."""
        return self._writer

    @property
    def codec(self) -> Codec:
        """The codec."""
        return self._codec

    @trio.lowlevel.enable_ki_protection
    async def send(self, value: Buffer) -> None:
        """Send a frame; it returns when the frame is accepted, and does not flush.

        Args:
            value: the payload: any contiguous bytes-like object.

        Raises:
            TypeError: if ``value`` is not bytes-like, or the codec's answer makes no sense.
            BufferError: if ``value`` is a view with gaps.
            ValueError: if the codec cannot encode it: it is too large, or contains a delimiter.
                Nothing was accepted, and the channel goes on.
            trio.ClosedResourceError: if the channel is closed, or closed before the frame was
                accepted.
            trio.BrokenResourceError: if the stream has failed, now or before.

        Cancellation: nothing happened; the frame was withdrawn.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.

        Source: ``futures::SinkExt::feed``.
        """
        if type(value) is bytes and (size := len(value)) < _WORTH_GATHERING:
            if size <= self._header_limit:
                data = self._headers[size] + value
            else:
                data = self._encode_whole(value)
            if self._put(data):
                return
            budget = self._lifecycle.fast
            if not budget.left and budget.limit and budget is self._lifecycle.budget:
                # Here it costs a fraction of what it costs in the shell.
                await trio.lowlevel.checkpoint()
                budget.left = budget.limit
                if self._put(data):
                    return
            await self._writer.write(data)
        elif type(value) is bytes:
            await self._write(self._encode(value))
        else:
            with frame_view(value) as view:
                await self._write(self._encode(view))

    async def send_many(self, values: Iterable[Buffer]) -> None:
        """Send several frames as one: all are accepted, or none; it does not flush.

        No frame of another task comes between them. For many small frames that are there already,
        it takes a fraction of the time of :meth:`send` for each.

        Args:
            values: the payloads, in order. All of them are encoded before anything is sent.

        Raises:
            TypeError: if a payload is not bytes-like, or the codec's answer makes no sense.
            BufferError: if a payload is a view with gaps.
            ValueError: if the codec cannot encode one. Nothing was accepted.
            trio.ClosedResourceError: if the channel is closed, or closed before the frames were
                accepted.
            trio.BrokenResourceError: if the stream has failed, now or before.

        Cancellation: nothing happened; all of the frames were withdrawn.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.

        Source: ``futures::SinkExt::send_all``.
        """
        if isinstance(values, (str, bytes, bytearray, memoryview)):
            name = type(values).__name__
            raise TypeError(f"expected several frames, got {name}: send() takes one")
        with contextlib.ExitStack() as views:
            pieces: list[bytes | bytearray | memoryview] = []
            gathers = False
            headers, limit = self._headers, self._header_limit
            for value in values:
                if type(value) is bytes and (size := len(value)) < _WORTH_GATHERING:
                    if size <= limit:
                        pieces += (headers[size], value)
                    else:
                        pieces.append(self._encode_whole(value))
                    continue
                gathers = True
                frame = value if type(value) is bytes else views.enter_context(frame_view(value))
                parts = self._encode(frame)
                _check(self._codec, parts)
                pieces.extend(parts)
            if gathers:
                await self._writer.write_vectored(pieces)
            elif pieces:
                await self._writer.write(b"".join(pieces))

    async def _write(self, parts: Parts) -> None:
        _check(self._codec, parts)
        await self._writer.write_vectored(parts)

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, value: Buffer) -> None:
        """Send a frame if it can be accepted at once and no other task is waiting.

        Args:
            value: the payload, as for :meth:`send`.

        Raises:
            trio.WouldBlock: if the stream cannot take a frame now, or other tasks wait for their
                turn. Nothing was accepted.
            TypeError: if ``value`` is not bytes-like, or the codec's answer makes no sense.
            BufferError: if ``value`` is a view with gaps.
            ValueError: if the codec cannot encode it. Nothing was accepted.
            trio.ClosedResourceError: if the channel is closed.
            trio.BrokenResourceError: if the stream has failed, now or before.

        Source: :meth:`trio.MemorySendChannel.send_nowait`.
        """
        if type(value) is bytes:
            self._poll(self._encode(value))
        else:
            with frame_view(value) as view:
                self._poll(self._encode(view))

    def _poll(self, parts: Parts) -> None:
        _check(self._codec, parts)
        writer = self._writer
        claim(writer, writing=True)
        try:
            if self._line.turns:
                raise trio.WouldBlock
            poll_below(writer, writer.poll_write_vectored, parts)
        except NotReady:
            raise trio.WouldBlock from None
        finally:
            leave(writer)

    async def flush(self) -> None:
        """Wait until all frames accepted so far have been handed to the innermost transport.

        Raises:
            trio.ClosedResourceError: if the channel is closed, or closed while this call waits.
            trio.BrokenResourceError: if the stream has failed, now or before.

        Cancellation: resumable; what did not go yet stays queued.

        Source: ``futures::SinkExt::flush``.
        """
        await self._writer.flush()

    async def aclose(self) -> None:
        """Send what was accepted, and close the stream: :meth:`Layer.aclose` of :attr:`writer`.

        Raises:
            trio.BrokenResourceError: if the stream fails, and no earlier call has raised that.
            trio.ClosedResourceError: if another task cut this close short, or had closed the stream
                and lost frames that it had accepted.

        Cancellation: lost, for what could not be sent at once; a :exc:`ResourceWarning` says how
            many bytes. To be able to resume, call :meth:`flush` first.

        Source: ``futures::SinkExt::close``.
        """
        await self._writer.aclose()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it as a stream is closed: if the block raised, without waiting for the peer."""
        await self._writer.__aexit__(exc_type, exc_value, traceback)  # noqa: ASYNC102

    def __repr__(self) -> str:
        return f"<FramedWriter of {self._codec!r} over {self._writer.inner!r}>"


def _encode_whole(codec: Codec, frame: bytes) -> bytes:
    parts = codec.encode(frame)
    _check(codec, parts)
    return b"".join(parts)


def _check(codec: Codec, parts: object) -> None:
    # An iterator would be used up by this look at it, and nothing would be written. (Not
    # isinstance, after which type checkers know less than before.)
    if issubclass(type(parts), Sequence):
        try:
            if sum(len(memoryview(part).cast("B")) for part in cast("Parts", parts)):
                return
        except TypeError:
            pass
    wrong_parts(codec, parts)
