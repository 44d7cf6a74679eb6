"""All encoders, each decoded by a decoder that is not ours: one matrix."""

from __future__ import annotations

import gzip
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from isal import isal_zlib

from trio_asyncwrite import Buf, Sink, simplex
from trio_asyncwrite.compression import (
    CompressWriter,
    brotli_compressor,
    gzip_compressor,
    zlib_compressor,
    zstd_compressor,
)
from trio_asyncwrite.testing import OneByteWriter, Sweep, cancel_everywhere

from ..core._fakes import Wire, each, resource_warnings
from ._codecs import CODECS, Codec, Decoding, decoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_asyncwrite.compression import Compressor

every_codec = each(CODECS, "codec")

ONE_OF_EACH = {"gzip", "zlib, isal", "gzip, zlib-ng", "zstd", "brotli"}


def json_like(size: int) -> bytes:
    """What compresses as text does."""
    numbers = random.Random(1)
    row = '{"id": %d, "name": "user-%d", "score": %.5f},\n'
    rows = [row % (n, numbers.randrange(10**6), numbers.random()) for n in range(size // 40)]
    return "".join(rows).encode()[:size]


def noise(size: int) -> bytes:
    return random.Random(2).randbytes(size)


MESSAGES = [b"a", json_like(10), json_like(5_000), noise(70_000), bytes(100_000), json_like(70_000)]


@every_codec
async def test_after_every_flush_all_that_was_written_can_be_decoded(codec: Codec) -> None:
    """Small and large, text and noise; and the whole at the end."""
    wire = Wire(float("inf"))
    writer = CompressWriter(wire, codec.encoder())
    decoder = codec.decoder()
    for message in MESSAGES:
        await writer.send_all(message)
        plain = decoder.decode(bytes(wire.sent))
        wire.sent.clear()
        assert plain == message
        assert writer.unsent_bytes == 0
        assert not decoder.eof
    await writer.aclose()
    assert decoder.decode(bytes(wire.sent)) == b""
    assert decoder.eof


@every_codec
async def test_an_empty_stream_is_a_valid_one(codec: Codec) -> None:
    """Also if it was flushed, for the encoders would write something for that: no more than needed.

    Source: zlib's sync flush before any data is 15 bytes, brotli's 2.
    """
    for flushes in (0, 2):
        wire = Wire(float("inf"))
        writer = CompressWriter(wire, codec.encoder())
        for _ in range(flushes):
            await writer.flush()
        assert wire.sent == b""
        await writer.aclose()
        assert decoded(bytes(wire.sent), codec.decoder()) == b""
        assert len(wire.sent) == codec.empty


@every_codec
async def test_a_flush_with_nothing_new_writes_nothing(codec: Codec) -> None:
    """Source: isal writes 6 bytes every time."""
    wire = Wire(float("inf"))
    writer = CompressWriter(wire, codec.encoder())
    await writer.send_all(b"hello")
    size = len(wire.sent)
    for _ in range(3):
        await writer.flush()
        await writer.send_all(b"")
    assert len(wire.sent) == size
    assert wire.log.count("flush") == 7
    await writer.aclose()


@every_codec
async def test_it_ends_once(codec: Codec, autojump_clock: trio.testing.MockClock) -> None:
    """And may be flushed after its end began, and shut down again.

    Source: ending twice is an error of zlib and isal, and a second, empty frame of zstd;
    async-compression #246 and #308.
    """
    pipe, reader = simplex(3)
    writer = CompressWriter(pipe, codec.encoder())
    await writer.write_all(b"hello")
    received = bytearray()

    async def read() -> None:
        async for chunk in reader:
            received.extend(chunk)

    with trio.move_on_after(1) as scope:
        await writer.shutdown()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await writer.flush()
        await writer.shutdown()
        await writer.shutdown()
        await writer.flush()
        await writer.aclose()
    assert decoded(bytes(received), codec.decoder()) == b"hello"


@every_codec
async def test_one_byte_at_a_time(codec: Codec) -> None:
    """Both what goes in and what comes out."""
    wire = Wire(float("inf"))
    writer = CompressWriter(OneByteWriter(wire), codec.encoder())
    for number in range(300):
        await writer.write_all(bytes([number % 7]))
        if number % 50 == 0:
            await writer.flush()
    await writer.aclose()
    assert decoded(bytes(wire.sent), codec.decoder()) == bytes(n % 7 for n in range(300))


@each({name: codec for name, codec in CODECS.items() if name in ONE_OF_EACH}, "codec")
async def test_cancelled_anywhere_and_resumed_it_delivers_every_byte_once(
    codec: Codec, autojump_clock: trio.testing.MockClock
) -> None:
    """Source: a sweep over an 11-byte pipe."""
    payload = json_like(100) + noise(50)

    async def scenario(sweep: Sweep) -> None:
        pipe, raw = simplex(11)
        reader = Decoding(raw, codec.decoder())
        writer = CompressWriter(pipe, codec.encoder())
        received = bytearray()

        async def read() -> None:
            while chunk := await reader.receive_some(1000):
                received.extend(chunk)

        first, second = Buf(payload[:70]), Buf(payload[70:80], payload[80:])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with sweep:
                await writer.write_all_buf(first)
                await writer.flush()
                await writer.write_all_buf(second)
                await writer.flush()
                await writer.shutdown()
            for buf in (first, second):
                if buf.remaining:
                    await writer.write_all_buf(buf)
            await writer.flush()
            await writer.shutdown()
            await writer.aclose()
        assert received == payload

    assert await cancel_everywhere(scenario) > 8


@pytest.mark.parametrize("what", [json_like, noise, bytes], ids=["text", "noise", "zeros"])
@every_codec
async def test_behind_a_peer_that_does_not_read_memory_is_bounded(
    codec: Codec, what: Callable[[int], bytes]
) -> None:
    """By one output of the encoder, which is hardly more than 128 KiB.

    Source: Brotli, left alone, gives 8.4 MB at once.
    """
    data = what(65536)
    pipe, _ = simplex(16)
    writer = CompressWriter(pipe, codec.encoder())
    taken = 0
    while taken < 3_000_000 and not writer._out:
        try:
            taken += writer.poll_write(data)
        except Exception:  # noqa: BLE001 - NotReady
            break
        assert len(writer._out) < 140_000
    held = len(writer._out)
    if held > 16:
        for _ in range(3):
            with pytest.raises(trio.WouldBlock):
                writer.poll_write(data)
            with pytest.raises(trio.WouldBlock):
                writer.poll_flush()
        assert len(writer._out) == held
    with resource_warnings():
        await trio.aclose_forcefully(writer)


@every_codec
async def test_equal_data_give_equal_output(codec: Codec) -> None:
    """Source: the time in gzip's header is 0."""
    sent = []
    for _ in range(2):
        wire = Wire(float("inf"))
        async with CompressWriter(wire, codec.encoder()) as writer:
            await writer.write_all(json_like(1000))
        sent.append(bytes(wire.sent))
    assert sent[0] == sent[1]
    if sent[0].startswith(b"\x1f\x8b"):
        assert struct.unpack("<I", sent[0][4:8]) == (0,)
        assert gzip.decompress(sent[0]) == json_like(1000)


async def test_compressed_at_once_it_is_as_small_as_by_the_library() -> None:
    """No flush comes before the trailer."""
    wire = Wire(float("inf"))
    async with CompressWriter(wire, zlib_compressor(6)) as writer:
        await writer.write_all(json_like(20_000))
    assert wire.sent == zlib.compress(json_like(20_000), 6)


# ---- Arguments -----------------------------------------------------------------------------------


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a level that zlib has not": (
        lambda: gzip_compressor(12), ValueError, "zlib has no level 12: .* 0 to 9, or None",
    ),
    "a level that isal has not": (
        lambda: zlib_compressor(6, zlib=isal_zlib), ValueError, "isal.* no level 6: .* to 3,",
    ),
    "a level that zstd has not": (lambda: zstd_compressor(23), ValueError, "to 22, got 23"),
    "a quality that brotli has not": (
        lambda: brotli_compressor(12), ValueError, "quality must be .* from 0 to 11, got 12",
    ),
    "a window that brotli has not": (
        lambda: brotli_compressor(lgwin=9), ValueError, "lgwin must be .* from 10 to 24, got 9",
    ),
    "a text for zlib": (lambda: gzip_compressor("6"), TypeError, "level .* got str"),  # type: ignore[arg-type]
    "a text for zstd": (lambda: zstd_compressor("6"), TypeError, "level .* got str"),  # type: ignore[arg-type]
    "a number for brotli": (lambda: brotli_compressor(1.5), TypeError, "quality .* float"),  # type: ignore[arg-type]
    "no zlib": (lambda: gzip_compressor(zlib=gzip), TypeError, "such as zlib, .* got gzip"),  # type: ignore[arg-type]
    "nothing": (lambda: zlib_compressor(zlib=None), TypeError, "got NoneType"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize(("make", "error", "text"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_argument_is_named(
    make: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make()


EXTRAS: dict[str, tuple[Callable[[], Compressor], str]] = {
    "zstd": (zstd_compressor, "backports"),
    "brotli": (brotli_compressor, "brotli"),
}


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(
            "zstd",
            marks=pytest.mark.skipif(sys.version_info >= (3, 14), reason="it comes with Python"),
        ),
        "brotli",
    ],
)
def test_an_extra_that_is_missing_is_named(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, module = EXTRAS[extra]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'pip install "trio_asyncwrite\[{extra}\]"'):
        make()


def test_importing_the_package_imports_no_extra() -> None:
    code = "import sys, trio_asyncwrite.compression; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "trio_asyncwrite.compression" in modules
    assert not {"backports.zstd", "compression.zstd", "brotli", "isal"} & set(modules)


# ---- Idle memory ---------------------------------------------------------------------------------


async def test_a_writer_itself_holds_little() -> None:
    """Beside its encoder."""

    class Nothing:
        def compress(self, data: bytes) -> bytes:
            return b""

        def flush(self) -> bytes:
            return b""

        finish = flush

    sink = Sink()
    encoder = Nothing()
    kept = [CompressWriter(sink, encoder)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(100):
        kept.append(CompressWriter(sink, encoder))
        await kept[-1].send_all(bytes(1000))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / 100 < 4000
    await sink.aclose()
