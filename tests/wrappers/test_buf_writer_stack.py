"""What a BufWriter and the layers below it owe to each other."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    ReadWritePair,
    SharedWriter,
    TimeoutWriter,
    duplex,
)
from trio_asyncwrite._core._stack import above

from .._streams import drain
from ._buffered import Inner, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Whatever is freed is freed by reference counting."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_its_count_survives_the_finaliser_of_its_memory() -> None:
    """In a reference cycle, the collector may close the BytesIO first."""
    writers = [BufWriter(Inner(), 10)]
    writers[0].poll_write(b"abc")
    for store in memory(writers[0]):
        store.close()  # type: ignore[attr-defined]
    assert writers[0].held_bytes == 3
    assert type(writers[0].held_bytes) is int
    writers.clear()
    with pytest.warns(ResourceWarning, match="3 bytes that it had accepted were never sent"):
        gc.collect()


LAYERS: dict[str, Callable[[AsyncWrite], AsyncWrite]] = {
    "directly": lambda stream: stream,
    "over a pair": lambda stream: ReadWritePair(duplex(1)[0], stream),
    "over a shared writer": SharedWriter,
    "over two": lambda stream: TimeoutWriter(SharedWriter(stream), idle=5),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
async def test_a_forgotten_one_is_flushed_by_the_close_of_the_stream_below(
    layer: Callable[[AsyncWrite], AsyncWrite],
) -> None:
    """Together with all layers between, that keep each other alive."""
    stream, peer = duplex(100)
    writer = BufWriter(layer(stream))
    await writer.write_all(b"data")
    reference = weakref.ref(writer)
    del writer
    gc.collect()
    assert reference() is not None

    await stream.aclose()
    assert await drain(peer) == b"data"
    gc.collect()
    assert reference() is None


@pytest.mark.usefixtures("no_collector")
async def test_one_that_holds_nothing_is_freed_at_once() -> None:
    """By reference counting, before and after it held bytes, and after its close."""
    stream, _ = duplex(100)
    writer = BufWriter(stream)
    reference = weakref.ref(writer)
    del writer
    assert reference() is None

    writer = BufWriter(stream)
    reference = weakref.ref(writer)
    await writer.write_all(b"")
    await writer.write_all(b"data")
    await writer.flush()
    del writer
    assert reference() is None

    writer = BufWriter(stream)
    reference = weakref.ref(writer)
    await writer.write_all(b"data")
    await writer.aclose()
    del writer
    assert reference() is None


@pytest.mark.usefixtures("no_collector")
async def test_a_thousand_short_lived_layers_leave_nothing() -> None:
    stream, _ = duplex(2000)
    for number in range(1000):
        writer = (BufWriter, SharedWriter, partial(TimeoutWriter, idle=1))[number % 3](stream)
        await writer.send_all(b"x")
        del writer

    assert above(stream) == []
    assert len(stream.lifecycle.above) < 4  # those of the last ones, until the next comes
    assert stream.lifecycle.holders == ()
    assert stream.lifecycle.holding == 0


@pytest.mark.parametrize("first_is_older", [True, False])
async def test_two_over_one_stream_end_in_the_order_in_which_they_began_to_hold(
    *, first_is_older: bool
) -> None:
    stream, peer = duplex(100)
    older, younger = BufWriter(stream), BufWriter(stream)
    first, second = (older, younger) if first_is_older else (younger, older)
    await first.write_all(b"flushed before, ")
    await first.flush()
    await second.write_all(b"second was first, ")
    await first.write_all(b"first was second")
    await stream.aclose()

    assert await drain(peer) == b"flushed before, second was first, first was second"
    assert older.closed
    assert younger.closed


async def test_a_cut_off_close_below_tells_what_a_forgotten_one_loses() -> None:
    stream, peer = duplex(2)
    await BufWriter(stream).write_all(b"data")
    with pytest.warns(ResourceWarning, match="2 bytes that it had accepted were never sent"):
        await trio.aclose_forcefully(stream)

    assert await peer.receive_some() == b"da"
    with pytest.raises(trio.BrokenResourceError):
        await peer.receive_some()
