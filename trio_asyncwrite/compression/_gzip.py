"""gzip."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from ._zlib_module import GZIP_WINDOW, Deflate

if TYPE_CHECKING:
    from ._compressor import Compressor
    from ._zlib_module import ZlibModule


def gzip_compressor(level: int | None = None, *, zlib: ZlibModule = zlib) -> Compressor:
    """Make an encoder for gzip: ``Content-Encoding: gzip``, and files that ``gunzip`` reads.

    The header has no name and no time, so equal data give equal output.

    Args:
        level: from 0, which does not compress, to 9, the smallest output. ``None`` is the default
            of the module: 6 for zlib and zlib-ng. isal has levels 0 to 3, and 2 by default.
        zlib: a module with zlib's interface. ``isal.isal_zlib`` takes a tenth of the time, at a
            slightly larger output; ``zlib_ng.zlib_ng`` three fifths.

    Returns:
        An encoder for one :class:`CompressWriter`.

    Raises:
        TypeError: if ``level`` is not an integer, or ``zlib`` is not such a module.
        ValueError: if the module does not have the level.

    Source: ``async_compression::tokio::write::GzipEncoder``; RFC 1952.
    """
    return Deflate(zlib, level, GZIP_WINDOW)
