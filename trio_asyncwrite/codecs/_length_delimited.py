"""Frames with their length in front."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast, final

import trio

from trio_asyncwrite._core._checks import counted, int_at_least, int_between

from ._batch_codec import BatchCodec
from ._checks import frame_view
from ._frame import Frame
from ._search import count_up_to

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Buffer

#: As Tokio's codec.
DEFAULT_MAX_SIZE: Final = 8 * 1024 * 1024

#: The letters of struct.
_LETTERS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_ORDERS: Final = {"big": ">", "little": "<"}
_MAX_FIELD: Final = 8

# From how many frames on it is worth a look whether all have one size; the look costs one frame.
_ALIKE: Final = 8

# How many to cut at once: to make a format for all of them would take as long as to use it.
_GROUP: Final = 16

# How many fields a codec keeps: some 30 KB.
_KEPT: Final = 256

# By the constructor of its base, which takes a third of the time.
_new_frame: Final[Callable[[type[Frame], tuple[int, int, int]], Frame]] = cast("Any", tuple).__new__


@final
class LengthDelimitedCodec(BatchCodec):
    """Each frame begins with a field that says how long it is.

    ``LengthDelimitedCodec()`` is the format of Tokio's codec of that name: the length of the
    payload in four bytes, big-endian, then the payload.

    Args:
        size: how large the field is, in bytes; 1 to 8.
        byteorder: of the field.
        max_size: how large a payload may be, in bytes; 8 MiB by default. If the field cannot say
            so much, it is as much as the field can say. A frame above it is refused, also in
            reading, before any memory is taken for it.
        adjust: what to add to the field to get the length of the payload, in bytes. If the length
            counts the field itself, which has four bytes, it is -4.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if ``size`` or ``byteorder`` is out of range, ``max_size`` is negative, or the
            field cannot say the length of any payload.

    Source: ``tokio_util::codec::LengthDelimitedCodec``.
    """

    def __init__(
        self,
        size: int = 4,
        byteorder: Literal["big", "little"] = "big",
        max_size: int = DEFAULT_MAX_SIZE,
        adjust: int = 0,
    ) -> None:
        size = int_between(1, size, _MAX_FIELD, "size")
        if byteorder not in _ORDERS:
            raise ValueError(f'byteorder must be "big" or "little", got {byteorder!r}')
        most = 256**size - 1
        # Below it, no payload has a length.
        self._adjust = adjust = int_at_least(-most, adjust, "adjust")
        self._max_size: int = min(int_at_least(0, max_size, "max_size"), most + adjust)
        if adjust > self._max_size:
            raise ValueError(
                f"with adjust={adjust} no payload has fewer than {adjust} bytes, yet max_size is "
                f"{self._max_size}"
            )
        self._size = size
        self._byteorder: Literal["big", "little"] = byteorder
        # With it, an offset in the buffer is one in the stream: where the payload ends.
        self._to_end = size + adjust
        self._limit = size + self._max_size
        self._pack: Callable[[int], bytes]
        # Of a field alone, and at a place in a buffer.
        self._unpack: Callable[[bytes], tuple[int]]
        self._unpack_from: Callable[[bytes | bytearray, int], tuple[int]]
        if size in _LETTERS:
            field = struct.Struct(_ORDERS[byteorder] + _LETTERS[size])
            self._pack, self._unpack, self._unpack_from = (
                field.pack,
                field.unpack,
                field.unpack_from,
            )
            if not adjust:
                self.headers: Mapping[int, bytes] = _Headers(field.pack)
                self.header_limit: int = self._max_size
        else:
            self._pack = self._pack_odd
            self._unpack = self._unpack_from = self._unpack_odd

    @property
    def max_size(self) -> int:
        """How large a payload may be, in bytes."""
        return self._max_size

    def encode(self, frame: Buffer, /) -> Sequence[bytes | memoryview]:
        """The field, and the payload as it is. See :meth:`Codec.encode`.

        Args:
            frame: the payload, bytes-like.

        Raises:
            TypeError: if ``frame`` is not bytes-like.
            BufferError: if ``frame`` is a view with gaps.
            ValueError: if it is larger than :attr:`max_size`, or, by ``adjust``, too small.
        """
        payload = frame if type(frame) is bytes else frame_view(frame)
        size = len(payload)
        if size > self._max_size:
            raise ValueError(f"a frame of {size} bytes is larger than max_size, {self._max_size}")
        length = size - self._adjust
        if length < 0:
            raise ValueError(f"with adjust={self._adjust}, a frame of {size} bytes has no length")
        return (self._pack(length), payload)

    def locate(self, buffer: bytes | bytearray, start: int = 0, /) -> Frame | int:
        """Where the payload lies. See :meth:`Codec.locate`.

        Args:
            buffer: what has arrived.
            start: of no use here.

        Raises:
            trio.BrokenResourceError: if the frame is larger than :attr:`max_size`, or its length
                makes no sense with ``adjust``.
        """
        there, size = len(buffer), self._size
        if there < size:
            return size
        end: int = self._unpack_from(buffer, 0)[0] + self._to_end
        if not size <= end <= self._limit:
            self._refuse(end - size)
        if end > there:
            return end
        return _new_frame(Frame, (size, end, end))

    def encode_whole(self, frame: bytes, /) -> bytes:
        """The encoded frame in one piece. See :meth:`Codec.encode`."""
        size = len(frame)
        if size > self._max_size or size < self._adjust:
            self.encode(frame)  # raises
        return self._pack(size - self._adjust) + frame

    def locate_all(self, data: bytes, /) -> tuple[list[bytes], int]:
        """All complete frames at the front of ``data``. See :meth:`Codec.locate`."""
        frames, end = self._locate_alike(data) or self._locate_each(data)
        if end > self._max_size and (count := count_up_to(self._max_size, frames)) < len(frames):
            del frames[count:]
            end = sum(map(len, frames)) + self._size * count
        return frames, end

    def _locate_alike(self, data: bytes) -> tuple[list[bytes], int] | None:
        """All frames, if they have one size: struct cuts them in a fifth of the time."""
        size = self._size
        field = data[:size]
        if len(field) < size:
            return None
        step = self._unpack(field)[0] + self._to_end
        count = len(data) // step if step >= size else 0
        end = step * count
        # First the last one: where sizes differ, that is all that it costs.
        if (
            count < _ALIKE
            or not data.startswith(field, end - step)
            or any(data[i:end:step] != field[i : i + 1] * count for i in range(size))
        ):
            return None
        one = f"{size}x{step - size}s"
        rest = count % _GROUP
        whole = end - step * rest
        frames: list[bytes] = []
        for group in struct.iter_unpack(one * _GROUP, memoryview(data)[:whole]):
            frames += group
        frames += struct.unpack_from(one * rest, data, whole)
        return frames, end

    def _locate_each(self, data: bytes) -> tuple[list[bytes], int]:
        """All frames, one after the other."""
        size, adjust, unpack = self._size, self._adjust, self._unpack
        file = io.BytesIO(data)
        read, field = file.read, b""
        frames: list[bytes] = []
        try:
            while True:
                field = read(size)
                frames.append(read(unpack(field)[0] + adjust))
        except struct.error:  # the field is incomplete
            end = len(data) - len(field)
        except OverflowError:  # nothing can be so long
            end = file.tell() - size
        if frames:
            # The last one was cut short, or has a negative length, if it is not as long as it says.
            last = len(frames[-1])
            begin = end - last
            if unpack(data[begin - size : begin])[0] + adjust != last:
                del frames[-1]
                end = begin - size
        return frames, end

    def size_of_first(self, data: bytearray, /) -> int:
        """How many bytes the first frame is. See :meth:`Codec.locate`."""
        return self._unpack_from(data, 0)[0] + self._to_end

    def _refuse(self, size: int) -> NoReturn:
        if size < 0:
            raise trio.BrokenResourceError(
                f"the length of a frame is {size} bytes, with adjust={self._adjust}"
            )
        raise trio.BrokenResourceError(
            f"a frame of {size} bytes is larger than max_size, {self._max_size}"
        )

    def _pack_odd(self, length: int) -> bytes:
        return length.to_bytes(self._size, self._byteorder)

    def _unpack_odd(self, buffer: bytes | bytearray, start: int = 0) -> tuple[int]:
        field = buffer[start : start + self._size]
        if len(field) < self._size:
            raise struct.error  # as a Struct does
        return (int.from_bytes(field, self._byteorder),)

    def __repr__(self) -> str:
        return (
            f"<LengthDelimitedCodec: {counted(self._size, 'byte')}, {self._byteorder}-endian, "
            f"max_size={self._max_size}, adjust={self._adjust}>"
        )


@final
class _Headers(dict[int, bytes]):
    """Fields by the lengths that they say. Some are kept: to make one takes as long as to send."""

    def __init__(self, pack: Callable[[int], bytes]) -> None:
        super().__init__()
        self._pack = pack

    def __missing__(self, length: int) -> bytes:
        field = self._pack(length)
        if len(self) < _KEPT:
            self[length] = field
        return field
