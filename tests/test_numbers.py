"""Every number that the library takes: a wrong one is refused at once, by an error that names it.

Whatever is accepted works: an absurd size does not fail later, in an allocation or in C.
"""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from isal import isal_zlib
from zlib_ng import zlib_ng

from trio_asyncwrite import (
    Buf,
    BufReader,
    BufWriter,
    Drain,
    LineWriter,
    Relay,
    Sink,
    TimeoutWriter,
    TokenBucket,
    close_gracefully,
    duplex,
    simplex,
    wrap_stream,
    write_from_thread,
)
from trio_asyncwrite.codecs import DelimiterCodec, LengthDelimitedCodec, LinesCodec
from trio_asyncwrite.compression import (
    brotli_compressor,
    gzip_compressor,
    zlib_compressor,
    zstd_compressor,
)

from ._streams import connected, pipe_pair, tcp_pair

if TYPE_CHECKING:
    from collections.abc import Callable


def reader() -> BufReader[Any]:
    return BufReader(simplex(10)[1])


async def set_rate(number: Any) -> None:
    TokenBucket(1).rate = number


INTEGERS: dict[str, Callable[[Any], Any]] = {
    "size": LengthDelimitedCodec,
    "max_size": lambda number: LengthDelimitedCodec(max_size=number),
    "adjust": lambda number: LengthDelimitedCodec(adjust=number),
    "max_size of lines": LinesCodec,
    "max_size of a delimiter": lambda number: DelimiterCodec(b";", number),
    "level": gzip_compressor,
    "level of zlib": zlib_compressor,
    "level of isal": lambda number: gzip_compressor(number, zlib=isal_zlib),
    "level of zlib-ng": lambda number: gzip_compressor(number, zlib=zlib_ng),
    "level of zstd": zstd_compressor,
    "quality": brotli_compressor,
    "lgwin": lambda number: brotli_compressor(lgwin=number),
    "capacity": lambda number: BufWriter(Sink(), number),
    "capacity of lines": lambda number: LineWriter(Sink(), number),
    "capacity of a reader": lambda number: BufReader(simplex(1)[1], number),
    "capacity of simplex": simplex,
    "count": lambda number: reader().advance(number),
    "count of a poll": lambda number: reader().poll_fill(number),
    "count to fill": lambda number: reader().fill(number),
    "count of a Buf": lambda number: Buf(b"abc").advance(number),
    "size to receive": lambda number: reader().receive_exactly(number),
    "max_bytes": lambda number: reader().receive_some(number),
    "max_bytes until": lambda number: reader().receive_until(b";", number),
    "buffer_size": lambda number: Relay(duplex(1)[0], duplex(1)[0], buffer_size=number),
    "buffer_size of a thread": lambda number: write_from_thread(
        Sink(), lambda _: None, buffer_size=number
    ),
    "linger_bytes": lambda number: close_gracefully(Sink(), linger_bytes=number),
}
NUMBERS: dict[str, Callable[[Any], Any]] = {
    "rate": TokenBucket,
    "rate that is set": set_rate,
    "burst": lambda number: TokenBucket(1, number),
    "idle": lambda number: TimeoutWriter(Sink(), idle=number),
    "min_rate": lambda number: TimeoutWriter(Sink(), min_rate=number),
    "half_open": lambda number: Relay(duplex(1)[0], duplex(1)[0], half_open=number),
    "cancel_grace": lambda number: wrap_stream(
        trio.testing.memory_stream_pair()[0], cancel_grace=number
    ),
    "grace": lambda number: Drain(grace=number),
    "timeout": lambda number: close_gracefully(Sink(), timeout=number),
    "linger": lambda number: close_gracefully(Sink(), linger=number),
}

#: Those for which an absurd size is no more than a size that is never reached.
UNBOUNDED = {
    "max_size", "max_size of lines", "max_size of a delimiter", "linger_bytes", "capacity",
    "capacity of lines", "capacity of a reader", "capacity of simplex",
}  # fmt: skip
#: Those that wait for so many bytes.
WAITING = {
    "count of a poll", "count to fill", "size to receive", "max_bytes", "max_bytes until",
}  # fmt: skip


async def call(function: Callable[[Any], Any], number: Any) -> None:
    result = function(number)
    if inspect.isawaitable(result):
        await result


async def refused(name: str, function: Callable[[Any], Any], number: Any, kinds: Any) -> None:
    with pytest.raises(kinds) as caught:
        await call(function, number)
    assert type(caught.value) in kinds
    text = str(caught.value)
    given = str(number) if type(caught.value) is ValueError else type(number).__name__
    assert given in text or "too large" in text, text
    assert name.partition(" ")[0] in text or "cannot" in text, text


@pytest.mark.parametrize("name", INTEGERS)
async def test_what_is_no_integer_is_refused(name: str) -> None:
    # For receive_some, as for Trio's, True is 1.
    bools = () if name == "max_bytes" else (True, False)
    for wrong in (*bools, 1.5, 4.0, math.nan, math.inf, "4", b"4", [4], 4j):
        await refused(name, INTEGERS[name], wrong, (TypeError,))


@pytest.mark.parametrize("name", NUMBERS)
async def test_what_is_no_number_is_refused(name: str) -> None:
    for wrong in (True, False, "4", b"4", [4], 4j):
        await refused(name, NUMBERS[name], wrong, (TypeError,))
    for wrong in (math.nan, -math.inf, -1, -1.5, 10**400, -(10**400)):
        await refused(name, NUMBERS[name], wrong, (ValueError,))


@pytest.mark.parametrize("name", INTEGERS)
async def test_an_absurd_integer_is_refused_or_works(name: str) -> None:
    if name not in {"adjust", "level", "level of zlib", "level of zlib-ng", "level of zstd"}:
        await refused(name, INTEGERS[name], -1, (ValueError,))
    for absurd in (-(2**40), -(2**64)):
        await refused(name, INTEGERS[name], absurd, (ValueError,))
    for absurd in (2**40, 2**64, 10**30):
        if name in WAITING:
            with trio.move_on_after(0) as scope:
                await call(partial(_wait_for, INTEGERS[name]), absurd)
            assert scope.cancelled_caught
        elif name in UNBOUNDED:
            await call(INTEGERS[name], absurd)
        else:
            await refused(name, INTEGERS[name], absurd, (ValueError,))


async def _wait_for(function: Callable[[Any], Any], number: Any) -> None:
    try:
        await call(function, number)
    except trio.WouldBlock:
        await trio.sleep_forever()


@pytest.mark.parametrize("pair", [tcp_pair, pipe_pair])
async def test_memory_is_taken_for_what_has_arrived(pair: Any) -> None:
    """Not for all that is asked for, which would fail, and break the stream."""
    async with connected(pair) as (stream, other):
        for size in (2**31, 2**40, 2**64):
            await stream.send_all(b"hello")
            assert await other.receive_some(size) == b"hello"
            await stream.send_all(b"hello")
            buffered = BufReader(other, size)
            assert await buffered.fill(5)
            assert buffered.peek() == b"hello"
            buffered.advance(5)


async def test_a_writer_can_be_used_after_a_wrong_buffer_size() -> None:
    writer = BufWriter(Sink())
    for wrong in (0, 2**30 + 1):
        with pytest.raises(ValueError, match="buffer_size must be an integer from 1 to 1073741824"):
            await write_from_thread(writer, lambda _: None, buffer_size=wrong)
    await writer.write_all(b"as before")
    await writer.aclose()
