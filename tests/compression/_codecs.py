"""Every encoder, and for each an independent decoder."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import brotli
import trio
from isal import isal_zlib
from zlib_ng import zlib_ng

from trio_asyncwrite import AsyncRead
from trio_asyncwrite.compression import (
    brotli_compressor,
    gzip_compressor,
    zlib_compressor,
    zstd_compressor,
)
from trio_asyncwrite.compression._zstd import _module as zstd_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_asyncwrite.compression import Compressor


class Decoder(Protocol):
    """What a test needs of a decoder."""

    def decode(self, data: bytes) -> bytes: ...

    @property
    def eof(self) -> bool: ...


class Inflate:
    """The standard library's decoder, for one stream with nothing after it."""

    def __init__(self, wbits: int) -> None:
        self.decoder = zlib.decompressobj(wbits)

    def decode(self, data: bytes) -> bytes:
        plain = self.decoder.decompress(data)
        assert self.decoder.unused_data == b""
        return plain

    @property
    def eof(self) -> bool:
        return self.decoder.eof


class Unzstd:
    def __init__(self) -> None:
        self.decoder = zstd_module().ZstdDecompressor()

    def decode(self, data: bytes) -> bytes:
        if not data:
            return b""
        plain: bytes = self.decoder.decompress(data)
        assert self.decoder.unused_data == b""
        return plain

    @property
    def eof(self) -> bool:
        return bool(self.decoder.eof)


class Unbrotli:
    """Its ``process`` gives out only a part: it is called until it has nothing more."""

    def __init__(self) -> None:
        self.decoder = brotli.Decompressor()

    def decode(self, data: bytes) -> bytes:
        assert not (data and self.eof)
        plain = bytearray(self.decoder.process(data))
        while not self.eof and (more := self.decoder.process(b"")):
            plain += more
        return bytes(plain)

    @property
    def eof(self) -> bool:
        return bool(self.decoder.is_finished())


class EagerZlib:
    """zlib that neither collects nor compresses: what it takes comes out."""

    def __init__(self) -> None:
        self.encoder = zlib.compressobj(0)

    def compress(self, data: bytes) -> bytes:
        return self.encoder.compress(data) + self.flush()

    def flush(self) -> bytes:
        return self.encoder.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self.encoder.flush()


@dataclass
class Codec:
    """An encoder and its decoder.

    Args:
        encoder: makes the encoder.
        decoder: makes the decoder.
        empty: how many bytes an empty stream takes.
    """

    encoder: Callable[[], Compressor]
    decoder: Callable[[], Decoder]
    empty: int


GZIP, ZLIB = partial(Inflate, 31), partial(Inflate, 15)

CODECS = {
    "gzip": Codec(gzip_compressor, GZIP, 20),
    "zlib": Codec(zlib_compressor, ZLIB, 8),
    "zlib-9": Codec(partial(zlib_compressor, 9), ZLIB, 8),
    "gzip, isal": Codec(partial(gzip_compressor, zlib=isal_zlib), GZIP, 20),
    "zlib, isal": Codec(partial(zlib_compressor, zlib=isal_zlib), ZLIB, 8),
    "gzip, zlib-ng": Codec(partial(gzip_compressor, zlib=zlib_ng), GZIP, 20),
    "zlib, zlib-ng": Codec(partial(zlib_compressor, zlib=zlib_ng), ZLIB, 8),
    "zstd": Codec(zstd_compressor, Unzstd, 9),
    "zstd-1": Codec(partial(zstd_compressor, 1), Unzstd, 9),
    "brotli": Codec(brotli_compressor, Unbrotli, 1),
    "eager zlib": Codec(EagerZlib, ZLIB, 11),
    "brotli, small": Codec(partial(brotli_compressor, 1, lgwin=10), Unbrotli, 1),
}


class Decoding(AsyncRead):
    """The other end of a CompressWriter."""

    def __init__(self, inner: AsyncRead, decoder: Decoder) -> None:
        self.inner = inner
        self.decoder = decoder
        self.plain = b""

    def poll_read(self, size: int, /) -> bytes:
        while not self.plain:
            data: bytes = self.inner.poll_read(size)
            if not data:
                if not self.decoder.eof:
                    raise trio.BrokenResourceError("the stream was cut short")
                return b""
            self.plain = self.decoder.decode(data)
        part, self.plain = self.plain[:size], self.plain[size:]
        return part


def decoded(data: bytes, decoder: Decoder) -> bytes:
    """All of a complete stream."""
    plain = decoder.decode(data)
    assert decoder.eof
    return plain


class Stored:
    """The simplest encoder: it keeps what it gets, counts calls, and says where it ends.

    Args:
        trailer: what it ends with.
    """

    def __init__(self, trailer: bytes = b".") -> None:
        self.trailer = trailer
        self.kept = b""
        self.calls: list[str] = []

    def compress(self, data: bytes) -> Any:
        assert type(data) is bytes
        assert data
        self.calls.append(f"compress {len(data)}")
        out, self.kept = self.kept, data
        return out

    def flush(self) -> Any:
        self.calls.append("flush")
        out, self.kept = self.kept, b""
        return out

    def finish(self) -> Any:
        self.calls.append("finish")
        out, self.kept = self.kept, b""
        return out + self.trailer
