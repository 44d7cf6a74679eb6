"""Frames from a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast, final

import trio
import trio.abc

from trio_asyncwrite._core._async_read import claim_reading, drive_buffered
from trio_asyncwrite._core._checks import counted
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._frames import without_frames
from trio_asyncwrite._core._lifecycle import lifted
from trio_asyncwrite._core._shell import POLLS_PER_TURN
from trio_asyncwrite._wrappers._buf_reader import BufReader

from ._batch_codec import WINDOW, BatchCodec
from ._checks import check_codec, wrong_frame
from ._frame import Frame

if TYPE_CHECKING:
    from types import TracebackType

    from trio_asyncwrite._core._async_read import AsyncRead

    from ._codec import Codec


@final
class FramedReader(trio.abc.ReceiveChannel[bytes]):
    """Receives frames from a stream: ``async for frame in FramedReader(stream, codec)``.

    A cancelled :meth:`receive` has lost nothing: what has arrived of a frame stays in the buffer
    for the next call.

    The end of the stream between two frames is :exc:`trio.EndOfChannel`; within a frame it is
    :exc:`trio.BrokenResourceError`. So is a frame that is too large, or that the codec does not
    understand: nothing more can be received then, since nobody knows where the next one begins.
    What has arrived can still be read from :attr:`reader`.

    The memory that it takes grows with what arrives, and not with what a frame claims to be.

    Args:
        reader: a :class:`BufReader`, or any :class:`trio.abc.ReceiveStream`, which gets one.
        codec: says where a frame lies; see :class:`Codec`.

    Raises:
        TypeError: if ``reader`` is no stream to read from, or ``codec`` no codec.

    Source: ``tokio_util::codec::FramedRead``.
    """

    def __init__(self, reader: trio.abc.ReceiveStream, codec: Codec) -> None:
        check_codec(codec, "locate")
        if isinstance(reader, BufReader):
            self._reader: BufReader[AsyncRead] = cast("BufReader[AsyncRead]", reader)
        else:
            self._reader = BufReader(reader)
        self._codec = codec
        self._locate = codec.locate
        self._lifecycle = self._reader.lifecycle
        self._buffer = self._reader.buffer
        # Frames that were found ahead, in reverse; see ReadBuffer.
        self._ahead: list[bytes] = []
        self._batch_codec = codec if isinstance(codec, BatchCodec) else None
        self._failure: Exception | None = None

    @property
    def reader(self) -> BufReader[AsyncRead]:
        """Where the frames are read from. Between two frames, it gives what is no frame."""
        return self._reader

    @property
    def codec(self) -> Codec:
        """The codec."""
        return self._codec

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> bytes:
        """Receive the next frame.

        Returns:
            Its payload.

        Raises:
            trio.EndOfChannel: if the stream has ended, and there is no further frame.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the channel is closed, or closed while this call waits.
            trio.BrokenResourceError: if the stream ends within a frame, a frame is too large or
                makes no sense to the codec, now or before, or reading fails.
            TypeError: if the codec's answer is not of the right type. Later calls raise
                :exc:`trio.BrokenResourceError`.
            RuntimeError: if the codec's answer makes no sense. Later calls likewise.

        Cancellation: nothing happened; what has arrived stays in the buffer.
        Checkpoints: when it has to wait; else at least one call in 128.

        Source: ``futures::StreamExt::next``.
        """
        # A spent budget unless the reader is open; nobody else is in it, or there were none ahead.
        if (ahead := self._ahead) and (left := (budget := self._lifecycle.fast).left):
            budget.left = left - 1
            return ahead.pop()
        return await self._receive()

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> bytes:
        """Receive the next frame; the end of the stream ends the loop."""
        # The same once more: through receive(), each frame of a loop would cost a quarter more.
        if (ahead := self._ahead) and (left := (budget := self._lifecycle.fast).left):
            budget.left = left - 1
            return ahead.pop()
        try:
            return await self._receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def _receive(self) -> bytes:
        lifecycle = self._lifecycle
        frame = await drive_buffered(self._reader, self._poll)
        if lifecycle.fast is not lifecycle.budget:
            lifecycle.update()
        return frame

    @trio.lowlevel.enable_ki_protection
    def receive_nowait(self) -> bytes:
        """Receive the next frame if it has arrived.

        Returns:
            Its payload.

        Raises:
            trio.WouldBlock: if it has not; what has arrived of it stays in the buffer.
            trio.EndOfChannel: if the stream has ended, and there is no further frame.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the channel is closed.
            trio.BrokenResourceError: as for :meth:`receive`.

        Source: :meth:`trio.MemoryReceiveChannel.receive_nowait`.
        """
        lift = claim_reading(self._reader)
        before = -1
        try:
            while True:
                try:
                    with lifted(lift):
                        return self._poll()
                except NotReady as not_ready:
                    there = len(self._buffer.data)
                    if not_ready.wait is not trio.lowlevel.checkpoint or there == before:
                        raise trio.WouldBlock from None
                # It would let other tasks run, in the middle of what has arrived.
                before = there
        finally:
            self._reader.lifecycle.reading = False

    async def aclose(self) -> None:
        """Close the stream: :meth:`Layer.aclose` of :attr:`reader`.

        Raises:
            trio.BrokenResourceError: if the stream fails, and no earlier call has raised that.
            trio.ClosedResourceError: if another task cut this close short.

        Cancellation: lost, as with :meth:`Layer.aclose`: what the layers that are closed with it
            hold and cannot send at once.
        """
        await self._reader.aclose()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it as a stream is closed."""
        await self._reader.__aexit__(exc_type, exc_value, traceback)  # noqa: ASYNC102

    def _poll(self) -> bytes:
        if self._ahead:
            return self._ahead.pop()
        reader = self._reader
        for _ in range(POLLS_PER_TURN):
            # Nobody asks a codec about nothing: this call would come before each small message.
            found = self._look() if self._buffer.data or self._failure is not None else 1
            if type(found) is bytes:
                return found
            if not reader.poll_fill(found):  # type: ignore[arg-type]
                return self._last()
        raise NotReady(trio.lowlevel.checkpoint)

    def _look(self) -> bytes | int:
        """The payload of the frame at the front of the buffer; or how many bytes to fetch."""
        if self._failure is not None:
            self._refuse()
        buffer = self._buffer
        codec = self._codec
        if buffer.searched_for is not codec:
            buffer.searched_for = codec
            buffer.searched = 0
        data = buffer.data
        try:
            found = self._locate(data, buffer.searched)
        except Exception as exc:
            self._failure = without_frames(exc)
            raise
        if type(found) is Frame:
            return self._take(found, "locate")
        there = len(data)
        if type(found) is not int or found <= there:
            self._refuse_answer("locate", found)
        buffer.searched = there
        return found

    def _take(self, frame: Frame, method: str) -> bytes:
        begin, end, after = frame
        buffer = self._buffer
        if not (
            type(begin) is type(end) is type(after) is int
            and 0 <= begin <= end <= after <= len(buffer.data)
            and after
        ):
            self._refuse_answer(method, frame)
        payload = buffer.take(begin, end, after)
        if self._batch_codec is not None and buffer.allows_ahead and buffer.data:
            self._look_ahead(self._batch_codec)
        return payload

    def _look_ahead(self, codec: BatchCodec) -> None:
        data = self._buffer.data
        frames, size = codec.locate_all(bytes(data if len(data) <= WINDOW else data[:WINDOW]))
        if frames:
            frames.reverse()
            self._buffer.put_ahead(frames, size, codec.size_of_first)
            self._ahead = frames

    def _last(self) -> bytes:
        """The stream has ended, and there is no further frame; unless the codec knows of one."""
        data = self._buffer.data
        if not data:
            raise trio.EndOfChannel
        locate_eof = getattr(self._codec, "locate_eof", None)
        if locate_eof is not None:
            try:
                found = locate_eof(data, self._buffer.searched)
            except Exception as exc:
                self._failure = without_frames(exc)
                raise
            if found is None:
                raise trio.EndOfChannel
            if type(found) is Frame:
                return self._take(found, "locate_eof")
            if type(found) is not int or found <= len(data):
                self._refuse_answer("locate_eof", found)
        raise trio.BrokenResourceError(
            f"{self!r}: the stream has ended within a frame, after {counted(len(data), 'byte')}"
        )

    def _refuse_answer(self, method: str, found: object) -> NoReturn:
        try:
            wrong_frame(self._codec, method, found, len(self._buffer.data))
        except Exception as exc:
            self._failure = without_frames(exc)
            raise

    def _refuse(self) -> NoReturn:
        failure = self._failure
        raise trio.BrokenResourceError(f"{self!r} has failed before: {failure!r}") from failure

    def __repr__(self) -> str:
        return f"<FramedReader of {self._codec!r} over {self._reader.inner!r}>"
