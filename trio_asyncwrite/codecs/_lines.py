"""Lines of text, as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from trio_asyncwrite._core._checks import int_at_least

from ._batch_codec import BatchCodec
from ._checks import frame_view
from ._frame import Frame
from ._search import contains, count_up_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

DEFAULT_MAX_SIZE: Final = 64 * 1024

_NEWLINE: Final = b"\n"
_LF: Final = ord("\n")
_CR: Final = ord("\r")


@final
class LinesCodec(BatchCodec):
    r"""Each frame is a line, as bytes, without its end.

    It reads lines that end with ``b"\n"`` or ``b"\r\n"``, and writes ``b"\n"``. For a protocol that
    wants ``b"\r\n"``, there is ``DelimiterCodec(b"\r\n")``. The last line of a stream need not have
    an end.

    Args:
        max_size: how long a line may be, in bytes, its end not included; 64 KiB by default.

    Raises:
        TypeError: if ``max_size`` is not an integer.
        ValueError: if ``max_size`` is negative.

    Source: ``tokio_util::codec::LinesCodec``.
    """

    def __init__(self, max_size: int = DEFAULT_MAX_SIZE) -> None:
        self._max_size = int_at_least(0, max_size, "max_size")

    @property
    def max_size(self) -> int:
        """How long a line may be, in bytes, its end not included."""
        return self._max_size

    def encode(self, frame: Buffer, /) -> Sequence[bytes | memoryview]:
        r"""The line as it is, and ``b"\n"``. See :meth:`Codec.encode`.

        Args:
            frame: the line, bytes-like.

        Raises:
            TypeError: if ``frame`` is not bytes-like.
            BufferError: if ``frame`` is a view with gaps.
            ValueError: if it is longer than :attr:`max_size`, contains ``b"\n"``, or ends with
                ``b"\r"``, which a reader would take for a part of the line's end.
        """
        line = frame if type(frame) is bytes else frame_view(frame)
        size = len(line)
        if size > self._max_size:
            raise ValueError(f"a line of {size} bytes is longer than max_size, {self._max_size}")
        if contains(line, _NEWLINE):
            raise ValueError(r"the line contains b'\n': send each line by itself")
        if size and line[size - 1] == _CR:
            raise ValueError(r"the line ends with b'\r', which a reader would drop: leave it out")
        return (line, _NEWLINE)

    def locate(self, buffer: bytes | bytearray, start: int = 0, /) -> Frame | int:
        """Where the line lies. See :meth:`Codec.locate`.

        Args:
            buffer: what has arrived.
            start: how many bytes at its front hold no end of a line.

        Raises:
            trio.BrokenResourceError: if the line is longer than :attr:`max_size`.
        """
        found = buffer.find(_LF, start)
        size = self._size(buffer, len(buffer) if found < 0 else found)
        return len(buffer) + 1 if found < 0 else Frame(0, size, found + 1)

    def locate_eof(self, buffer: bytes | bytearray, start: int = 0, /) -> Frame | None:
        r"""The last line, which has no end. A lone ``b"\r"`` is not a line. See :class:`Codec`.

        Args:
            buffer: the rest of the stream, which has no end of a line.
            start: of no use here.
        """
        size = self._size(buffer, len(buffer))
        return Frame(0, size, len(buffer)) if size else None

    def encode_whole(self, frame: bytes, /) -> bytes:
        """The encoded line in one piece. See :meth:`Codec.encode`."""
        if len(frame) > self._max_size or _LF in frame or (frame and frame[-1] == _CR):
            self.encode(frame)  # raises
        return frame + _NEWLINE

    def locate_all(self, data: bytes, /) -> tuple[list[bytes], int]:
        """All complete lines at the front of ``data``. See :meth:`Codec.locate`."""
        ended = data.split(_NEWLINE)
        size = len(data) - len(ended.pop())
        lines = ended
        if b"\r" in data:
            lines = [line[:-1] if line.endswith(b"\r") else line for line in ended]
        if size > self._max_size and (count := count_up_to(self._max_size, lines)) < len(lines):
            return lines[:count], sum(map(len, ended[:count])) + count
        return lines, size

    def size_of_first(self, data: bytearray, /) -> int:
        """How many bytes the first line is. See :meth:`Codec.locate`."""
        return data.index(_LF) + 1

    def _size(self, buffer: bytes | bytearray, size: int) -> int:
        r"""How long a line of ``size`` bytes is, which may end with ``b"\r"``."""
        if size and buffer[size - 1] == _CR:
            size -= 1
        if size > self._max_size:
            raise trio.BrokenResourceError(
                f"a line is longer than max_size, {self._max_size} bytes"
            )
        return size

    def __repr__(self) -> str:
        return f"<LinesCodec: max_size={self._max_size}>"
