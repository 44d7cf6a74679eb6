"""What the codecs of this library do for many small frames, beside what every codec does."""

from __future__ import annotations

import abc
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How many bytes to look at ahead, at most; a read brings as many.
WINDOW: Final = 65536


class BatchCodec(metaclass=abc.ABCMeta):
    """A codec that can encode in one piece, and find many frames at once.

    It gives the same results as its ``encode`` and ``locate``.
    """

    # For a codec that only puts a length in front: what it is, by the number of bytes. And for how
    # many bytes at most; none, by default.
    headers: Mapping[int, bytes] = MappingProxyType({})
    header_limit: int = -1

    @abc.abstractmethod
    def encode_whole(self, frame: bytes, /) -> bytes:
        """The encoded frame in one piece: for a small one, a copy costs less than to gather."""

    @abc.abstractmethod
    def locate_all(self, data: bytes, /) -> tuple[list[bytes], int]:
        """All complete frames at the front of ``data``.

        It stops before a frame that is incomplete or wrong, and never raises.

        Args:
            data: what has arrived, from the first byte of a frame on.

        Returns:
            Their payloads, and where in ``data`` the last of them ends.
        """

    @abc.abstractmethod
    def size_of_first(self, data: bytearray, /) -> int:
        """How many bytes the first frame of ``data`` is; a complete one."""
