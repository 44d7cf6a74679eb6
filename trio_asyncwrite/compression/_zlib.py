"""zlib."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from ._zlib_module import ZLIB_WINDOW, Deflate

if TYPE_CHECKING:
    from ._compressor import Compressor
    from ._zlib_module import ZlibModule


def zlib_compressor(level: int | None = None, *, zlib: ZlibModule = zlib) -> Compressor:
    """Make an encoder for zlib, which HTTP calls ``Content-Encoding: deflate``.

    Args:
        level: as for :func:`gzip_compressor`.
        zlib: as for :func:`gzip_compressor`.

    Returns:
        An encoder for one :class:`CompressWriter`.

    Raises:
        TypeError: if ``level`` is not an integer, or ``zlib`` is not such a module.
        ValueError: if the module does not have the level.

    Source: ``async_compression::tokio::write::ZlibEncoder``; RFC 1950.
    """
    return Deflate(zlib, level, ZLIB_WINDOW)
