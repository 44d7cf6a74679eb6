"""Brotli."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from trio_asyncwrite._core._checks import int_between

from ._compressor import TAKES_VIEWS
from ._zlib_module import MICROSECONDS_PER_UNIT

if TYPE_CHECKING:
    from ._compressor import Compressor

# Bytes in a microsecond, at quality 4: measured with JSON in pieces of 32 KiB.
_RATE: Final = 70

#: How much to encode without a flush. Left alone, Brotli collects 8 MB and then needs 48 ms for the
#: call that encodes them; with flushes its output is larger by less than 1 %.
_BLOCK: Final = 65536


def brotli_compressor(quality: int = 4, lgwin: int = 18) -> Compressor:
    """Make an encoder for Brotli: ``Content-Encoding: br``.

    It needs an extra: ``pip install "trio_asyncwrite[brotli]"``.

    After every 64 KiB it flushes, so that no call takes long.

    Args:
        quality: from 0 to 11, the smallest output. From 10 on, it is a hundred times slower.
        lgwin: the logarithm of the window's size, from 10 to 24: 18 is 256 KiB.

    Returns:
        An encoder for one :class:`CompressWriter`.

    Raises:
        ImportError: if the extra is not installed.
        TypeError: if ``quality`` or ``lgwin`` is not an integer.
        ValueError: if one is out of its range.

    Source: ``async_compression::tokio::write::BrotliEncoder``; RFC 7932.
    """
    return _Brotli(int_between(0, quality, 11, "quality"), int_between(10, lgwin, 24, "lgwin"))


def _module() -> Any:
    try:
        # It has no types.
        import brotli  # type: ignore[import-untyped]  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as exc:
        raise ImportError(
            'brotli_compressor() needs the extra brotli: pip install "trio_asyncwrite[brotli]"'
        ) from exc
    return brotli


@final
class _Brotli:
    bytes_per_budget_unit = MICROSECONDS_PER_UNIT * _RATE
    takes_views = TAKES_VIEWS

    def __init__(self, quality: int, lgwin: int) -> None:
        encoder = _module().Compressor(quality=quality, lgwin=lgwin)
        self._process = encoder.process
        self.flush = encoder.flush
        self.finish = encoder.finish
        self._unflushed = 0

    def compress(self, data: bytes, /) -> bytes:
        output: bytes = self._process(data)
        self._unflushed += len(data)
        if self._unflushed >= _BLOCK:
            self._unflushed = 0
            output += self.flush()
        return output
