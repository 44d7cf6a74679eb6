"""Frames with a delimiter behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from trio_asyncwrite._core._checks import byte_view, int_at_least
from trio_asyncwrite._wrappers._read_buffer import end_of_first

from ._batch_codec import BatchCodec
from ._checks import frame_view
from ._frame import Frame
from ._search import contains, count_up_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

DEFAULT_MAX_SIZE: Final = 64 * 1024


@final
class DelimiterCodec(BatchCodec):
    r"""Each frame is followed by a delimiter, such as ``b"\r\n"`` or ``b"\0"``.

    The end of the stream does not end a frame: without its delimiter, it is incomplete.

    Args:
        delimiter: the bytes between two frames, at least one.
        max_size: how large a frame may be, in bytes, the delimiter not included; 64 KiB by default.

    Raises:
        TypeError: if ``delimiter`` is not bytes-like, or ``max_size`` no integer.
        ValueError: if ``delimiter`` is empty, or ``max_size`` negative.

    Source: ``tokio_util::codec::AnyDelimiterCodec``.
    """

    def __init__(self, delimiter: Buffer, max_size: int = DEFAULT_MAX_SIZE) -> None:
        with byte_view(delimiter) as view:
            self._delimiter = bytes(view)
        if not self._delimiter:
            raise ValueError("the delimiter must have at least one byte")
        self._max_size = int_at_least(0, max_size, "max_size")

    @property
    def delimiter(self) -> bytes:
        """The bytes between two frames."""
        return self._delimiter

    @property
    def max_size(self) -> int:
        """How large a frame may be, in bytes, the delimiter not included."""
        return self._max_size

    def encode(self, frame: Buffer, /) -> Sequence[bytes | memoryview]:
        """The frame as it is, and the delimiter. See :meth:`Codec.encode`.

        Args:
            frame: the payload, bytes-like.

        Raises:
            TypeError: if ``frame`` is not bytes-like.
            BufferError: if ``frame`` is a view with gaps.
            ValueError: if it is larger than :attr:`max_size`, or a reader would find the delimiter
                in it: as a whole, or begun at its end and completed by the delimiter itself.
        """
        payload = frame if type(frame) is bytes else frame_view(frame)
        size, delimiter = len(payload), self._delimiter
        if size > self._max_size:
            raise ValueError(f"a frame of {size} bytes is larger than max_size, {self._max_size}")
        if contains(payload, delimiter):
            raise ValueError(f"the frame contains the delimiter, {delimiter!r}")
        if len(delimiter) > 1:
            tail = bytes(payload[max(size - len(delimiter) + 1, 0) :])
            if (tail + delimiter).find(delimiter) < len(tail):
                raise ValueError(
                    f"the frame ends with {tail!r}: with the delimiter, {delimiter!r}, behind it, "
                    f"a reader would find that too early"
                )
        return (payload, delimiter)

    def locate(self, buffer: bytes | bytearray, start: int = 0, /) -> Frame | int:
        """Where the payload lies. See :meth:`Codec.locate`.

        Args:
            buffer: what has arrived.
            start: how many bytes at its front hold no delimiter.

        Raises:
            trio.BrokenResourceError: if the frame is larger than :attr:`max_size`.
        """
        after = end_of_first(self._delimiter, buffer, start)
        there = len(buffer)
        if (after or there + 1) - len(self._delimiter) > self._max_size:
            raise trio.BrokenResourceError(
                f"a frame is larger than max_size, {self._max_size} bytes, without "
                f"{self._delimiter!r}"
            )
        return Frame(0, after - len(self._delimiter), after) if after else there + 1

    def encode_whole(self, frame: bytes, /) -> bytes:
        """The encoded frame in one piece. See :meth:`Codec.encode`."""
        whole = frame + self._delimiter
        size = len(frame)
        # Where a reader would find it; earlier also if it begins at the frame's end.
        if size > self._max_size or whole.find(self._delimiter) != size:
            self.encode(frame)  # raises
        return whole

    def locate_all(self, data: bytes, /) -> tuple[list[bytes], int]:
        """All complete frames at the front of ``data``. See :meth:`Codec.locate`."""
        frames = data.split(self._delimiter)
        size = len(data) - len(frames.pop())
        if size > self._max_size and (count := count_up_to(self._max_size, frames)) < len(frames):
            del frames[count:]
            size = sum(map(len, frames)) + len(self._delimiter) * count
        return frames, size

    def size_of_first(self, data: bytearray, /) -> int:
        """How many bytes the first frame is. See :meth:`Codec.locate`."""
        return data.index(self._delimiter) + len(self._delimiter)

    def __repr__(self) -> str:
        return f"<DelimiterCodec: {self._delimiter!r}, max_size={self._max_size}>"
