"""What FramedWriter and FramedReader ask of a codec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._frame import Frame


class Codec(Protocol):
    """Says where a frame begins and ends: two methods, for writing and for reading.

    A codec is a pure object. It keeps nothing between two calls, so one may serve any number of
    connections. One that only writes needs no :meth:`locate`, and one that only reads no
    :meth:`encode`.

    If the end of the stream may end a frame, as it ends the last line of a text, give the codec a
    third method, ``locate_eof(buffer, start) -> Frame | int | None``. It is asked instead of
    :meth:`locate` when nothing more will come and the buffer is not empty. ``None`` says that the
    rest is no frame, and that nothing is missing. Without this method, such an end is an error.

    Source: ``tokio_util::codec::Encoder`` and ``Decoder``.
    """

    def encode(self, frame: bytes | memoryview, /) -> Sequence[bytes | bytearray | memoryview]:
        """The parts of an encoded frame, in order: a header, the payload, a trailer.

        Put ``frame`` itself into the answer, and not a copy: the parts leave together.

        Args:
            frame: the payload; a flat view whose length is in bytes, if it is not ``bytes``.

        Returns:
            The parts; together at least one byte.

        Raises:
            ValueError: if the frame cannot be encoded: it is too large, or contains a delimiter.
        """
        ...

    def locate(self, buffer: bytearray, start: int, /) -> Frame | int:
        """Locate the frame at the start of ``buffer``.

        Args:
            buffer: what has arrived, from the first byte of a frame on. Do not change it, and keep
                no view of it.
            start: how many bytes at its front the last call has seen: it found the frame to be
                incomplete, and more has arrived since. 0 for a new frame. A search goes on here.

        Returns:
            The :class:`Frame` if it is complete; else a number greater than ``len(buffer)``: how
            many bytes must be in the buffer before it is worth looking again.

        Raises:
            trio.BrokenResourceError: if no frame can begin like this, or it is too large. Nothing
                more can be received then.
        """
        ...
