"""A stream whose truncated close still delivers, and the close of a layer above that meets it.

That layer writes to the stream, and stands over another one as well: a pair, a tee. So its close
is one of its own. Whatever it does, the stream ends truncated.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    CloseReport,
    DuplexStream,
    ReadWritePair,
    TeeWriter,
    close_gracefully,
    duplex,
    graceful,
    simplex,
)
from trio_asyncwrite._core._stack import begin_shutdown, shut_down

from ..core._fakes import Holding, begin, cut_short, each, resource_warnings
from ..core.test_close_sides import Fan
from ..core.test_shutdown_below import read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Trailing(ReadWritePair[Any, Any]):
    """A pair as a user writes one, which ends its data by a trailer."""

    has_ended = False

    def poll_shutdown(self) -> None:
        if begin_shutdown(self):
            if not self.has_ended:
                self.inner.poll_write(b"!")
                self.has_ended = True
            shut_down(self.inner)
            self.lifecycle.end()


PAIRS: dict[str, Callable[[DuplexStream], AsyncWrite]] = {
    "pair": lambda stream: ReadWritePair(simplex(5)[1], stream),
    "pair over a buffer": lambda stream: ReadWritePair(simplex(5)[1], BufWriter(stream)),
    "over a pair": lambda stream: BufWriter(ReadWritePair(simplex(5)[1], stream)),
    "trailing": lambda stream: Trailing(simplex(5)[1], stream),
}


async def body_raises(stream: AsyncWrite) -> CloseReport:
    with contextlib.suppress(KeyError):
        async with graceful(stream, timeout=5, linger=5) as ending:
            raise KeyError
    return ending.report


async def closed(stream: AsyncWrite) -> CloseReport:
    return await close_gracefully(stream, timeout=5, linger=5)


async def aclose(layer: AsyncWrite) -> None:
    with resource_warnings():
        await layer.aclose()


async def gracefully(layer: AsyncWrite) -> None:
    report = await close_gracefully(layer, timeout=5, linger=5)
    assert report.outcome is CloseOutcome.TRUNCATED


@each(PAIRS, "make")
@pytest.mark.parametrize("first", [body_raises, closed])
@pytest.mark.parametrize("then", [aclose, gracefully])
async def test_the_end_stays_truncated(
    make: Callable[[DuplexStream], AsyncWrite],
    first: Callable[[AsyncWrite], Awaitable[CloseReport]],
    then: Callable[[AsyncWrite], Awaitable[None]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And no epilogue gets in."""
    stream, peer = duplex(5)
    layer = make(stream)
    await stream.write_all(b"01")
    if first is closed:
        await cut_short(partial(stream.write_all_buf, Buf(b"0123456789")))
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, partial(first, stream))
        await begin(nursery, partial(then, layer))
        await read(peer, received)
    assert b"".join(received) == (b"01 cut" if first is body_raises else b"01012 cut")
    assert isinstance(closing.result, CloseReport)
    assert closing.result.outcome is CloseOutcome.TRUNCATED
    assert layer.closed


@pytest.mark.parametrize("make", [Fan, TeeWriter])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("then", [AsyncWrite.aclose, close_gracefully])
async def test_the_other_sides_of_a_layer_that_ends_each_for_itself_end_properly(
    make: Callable[..., AsyncWrite],
    place: int,
    then: Callable[[Any], Awaitable[object]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    pairs = [duplex(5), duplex(5)]
    layer = make(*(stream for stream, _ in pairs))
    (stream, peer), (other, other_peer) = pairs[place], pairs[1 - place]
    await layer.write_all(b"012")
    await layer.flush()
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        await begin(nursery, partial(body_raises, stream))
        await begin(nursery, partial(then, other))
        await read(peer, received)
        await read(other_peer, received)
        await other_peer.aclose()
    assert b"".join(received) == b"012 cut012."
    assert layer.closed


@pytest.mark.parametrize("make", [BufWriter, Holding])
async def test_a_report_counts_what_a_close_below_has_lost(
    make: Callable[[AsyncWrite], AsyncWrite], autojump_clock: trio.testing.MockClock
) -> None:
    stream, peer = duplex(4)
    layer: Any = ReadWritePair(simplex(5)[1], make(stream))
    await layer.write_all(b"0123456789")
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        below = await begin(nursery, partial(close_gracefully, stream, timeout=1, linger=1))
        report = await close_gracefully(layer, timeout=5, linger=5)
        await read(peer, received)
    assert b"".join(received) == b"0123 cut"
    assert isinstance(below.result, CloseReport)
    assert below.result.outcome is CloseOutcome.TIMED_OUT
    assert report.outcome is CloseOutcome.TRUNCATED
    assert (report.unsent_bytes, below.result.unsent_bytes) == (6, 6)
