"""Compression: a writer, and the encoders for it.

gzip and zlib come with Python. Zstandard needs the extra ``zstd`` (before Python 3.14), Brotli the
extra ``brotli``; their packages are imported when they are first used.
"""

from __future__ import annotations

from ._brotli import brotli_compressor as brotli_compressor
from ._compress_writer import CompressWriter as CompressWriter
from ._compressor import Compressor as Compressor
from ._gzip import gzip_compressor as gzip_compressor
from ._zlib import zlib_compressor as zlib_compressor
from ._zlib_module import ZlibModule as ZlibModule
from ._zstd import zstd_compressor as zstd_compressor

__all__ = (
    "CompressWriter",
    "Compressor",
    "ZlibModule",
    "brotli_compressor",
    "gzip_compressor",
    "zlib_compressor",
    "zstd_compressor",
)


def _show_public_path() -> None:
    for name in __all__:
        globals()[name].__module__ = __name__


_show_public_path()
