"""Zstandard."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, final

from trio_asyncwrite._core._checks import int_between

from ._compressor import TAKES_VIEWS
from ._zlib_module import MICROSECONDS_PER_UNIT

if TYPE_CHECKING:
    from ._compressor import Compressor

# Bytes in a microsecond, at level 3: measured with JSON in pieces of 32 KiB.
_RATE: Final = 200


def zstd_compressor(level: int = 3) -> Compressor:
    """Make an encoder for Zstandard: ``Content-Encoding: zstd``.

    It needs Python 3.14, or the extra: ``pip install "trio_asyncwrite[zstd]"``.

    An encoder takes 2 MiB of memory at level 3, 11 at level 9, and 640 at level 22. From level 20
    on, its window is larger than browsers accept.

    Args:
        level: from 1 to 22, the smallest output; negative levels are faster.

    Returns:
        An encoder for one :class:`CompressWriter`.

    Raises:
        ImportError: if the extra is not installed.
        TypeError: if ``level`` is not an integer.
        ValueError: if there is no such level.

    Source: ``async_compression::tokio::write::ZstdEncoder``; RFC 8878, RFC 9659.
    """
    return _Zstd(level)


def _module() -> Any:
    if sys.version_info >= (3, 14):  # pragma: no cover on 3.10|3.11|3.12|3.13
        from compression import zstd  # noqa: PLC0415
    else:  # pragma: no cover on 3.14
        try:
            from backports import zstd  # noqa: PLC0415
        except ImportError as exc:
            raise ImportError(
                'zstd_compressor() needs the extra zstd: pip install "trio_asyncwrite[zstd]"'
            ) from exc
    return zstd


@final
class _Zstd:
    bytes_per_budget_unit = MICROSECONDS_PER_UNIT * _RATE
    takes_views = TAKES_VIEWS

    def __init__(self, level: int) -> None:
        zstd = _module()
        least, most = zstd.CompressionParameter.compression_level.bounds()
        encoder = zstd.ZstdCompressor(int_between(least, level, most, "level"))
        self.compress = encoder.compress
        self._flush = encoder.flush
        self._end_of_block = encoder.FLUSH_BLOCK
        self._end_of_frame = encoder.FLUSH_FRAME

    def flush(self) -> bytes:
        output: bytes = self._flush(self._end_of_block)
        return output

    def finish(self) -> bytes:
        output: bytes = self._flush(self._end_of_frame)
        return output
