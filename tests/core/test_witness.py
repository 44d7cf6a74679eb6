"""What only a dropped layer knows: the end of the streams below it shows it all the same."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    FilePart,
    InspectWriter,
    MeteredWriter,
    ReadWritePair,
    Sink,
    TeeWriter,
    TimeoutWriter,
    close_gracefully,
    duplex,
    simplex,
    split,
)
from trio_asyncwrite._core._stack import above

from .._streams import drain
from ._fakes import Layer, Wire, cut_short, each, resource_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path


class Recoding(AsyncWrite):
    """Writes other bytes than it accepts, and nothing at its end."""

    encodes = True

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.lifecycle.check_write(self)
        return self.inner.poll_write(bytes(data).upper())  # type: ignore[no-any-return]

    poll_write_vectored = AsyncWrite.poll_write_vectored


class Watched(Layer):
    """Is asked after each call whether it holds bytes."""

    @property
    def held_bytes(self) -> int:
        return 0


LAYERS: dict[str, Callable[[Any], Any]] = {
    "Layer": Layer,
    "Layer over Layer": lambda inner: Layer(Layer(inner)),
    "Recoding": Recoding,
    "Watched": Watched,
    "MeteredWriter": MeteredWriter,
    "TimeoutWriter": lambda inner: TimeoutWriter(inner, idle=60),
    "ReadWritePair": lambda inner: ReadWritePair(simplex(1)[1], inner),
    "TeeWriter": lambda inner: TeeWriter(inner, Sink()),
    "WriteHalf": lambda inner: split(inner)[1],
    "BufWriter": lambda inner: BufWriter(inner, 1),
    "by_ref of a layer": lambda inner: Layer(inner).by_ref(),
}


@pytest.fixture(autouse=True)
def no_collector() -> Generator[None, None, None]:
    """What is dropped is freed at once, or it is kept."""
    gc.disable()
    yield
    gc.enable()


async def assert_ends_truncated(stream: Any, reader: Any, *, graceful: bool) -> None:
    with resource_warnings():
        if graceful:
            report = await close_gracefully(stream, timeout=1, linger=0)
            assert report.outcome is CloseOutcome.TRUNCATED
        else:
            await stream.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await drain(reader)


@pytest.mark.parametrize("graceful", [False, True])
@each(LAYERS, "make")
async def test_an_unfinished_buf_outlives_the_layer(
    make: Callable[[Any], Any], *, graceful: bool
) -> None:
    stream, reader = duplex(5)
    await cut_short(partial(make(stream).write_all_buf, Buf(b"0123456789")))
    await assert_ends_truncated(stream, reader, graceful=graceful)


async def test_an_unfinished_part_of_a_file_outlives_the_layer(tmp_path: Path) -> None:
    stream, reader = duplex(5)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        await cut_short(partial(Layer(stream).write_all_file, FilePart(file)))
    await assert_ends_truncated(stream, reader, graceful=False)


@each(LAYERS, "make")
async def test_once_the_buf_is_finished_nothing_is_kept(make: Callable[[Any], Any]) -> None:
    stream, reader = duplex(5)
    layer = make(stream)
    gone = weakref.ref(layer)
    buf = Buf(b"0123456789")
    await cut_short(partial(layer.write_all_buf, buf))
    await cut_short(partial(layer.write_all_buf, buf))
    await reader.receive_some()
    await layer.write_all_buf(buf)
    await reader.receive_some()
    await layer.flush()
    del layer
    assert gone() is None
    assert (stream.lifecycle.holders, stream.lifecycle.holding) == ((), 0)


@each(LAYERS, "make")
async def test_a_layer_with_an_unfinished_buf_is_freed_with_its_stack(
    make: Callable[[Any], Any],
) -> None:
    stream, _ = duplex(5)
    layer = make(stream)
    gone = weakref.ref(layer)
    await cut_short(partial(layer.write_all_buf, Buf(b"0123456789")))
    del layer
    assert above(stream)
    with resource_warnings():
        await stream.aclose()
    assert gone() is None


@pytest.mark.parametrize("make", [Layer, Watched])
async def test_a_flush_finishes_no_buf(make: Callable[[Any], Any]) -> None:
    wire = Wire(5)
    layer = make(wire)
    await cut_short(partial(layer.write_all_buf, Buf(b"0123456789")))
    wire.give(1)
    await layer.flush()
    del layer
    with resource_warnings() as messages:
        await wire.aclose()
    assert len(messages) == 1
    assert wire.releases == ["release False"]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("is_dropped", [False, True])
async def test_of_several_streams_each_shows_an_unfinished_buf(
    number: int, *, is_dropped: bool
) -> None:
    pairs = duplex(5), duplex(5)
    tee = TeeWriter(pairs[0][0], pairs[1][0])
    gone = weakref.ref(tee)
    await cut_short(partial(tee.write_all_buf, Buf(b"0123456789")))
    if is_dropped:
        del tee
    for stream, reader in (pairs[number], pairs[1 - number]):
        await assert_ends_truncated(stream, reader, graceful=False)
    if is_dropped:
        assert gone() is None
    else:
        with resource_warnings():
            await tee.aclose()
        del tee
        assert gone() is None


async def test_a_side_that_has_ended_is_not_kept_by_a_stream_that_is_read_from() -> None:
    stream, _ = duplex(5)
    writer, reader = simplex(5)
    pair = ReadWritePair(stream, writer)
    gone = weakref.ref(pair)
    await cut_short(partial(pair.write_all_buf, Buf(b"0123456789")))
    await assert_ends_truncated(writer, reader, graceful=False)
    del pair
    assert gone() is None


# ---- Tears and failures --------------------------------------------------------------------------


class Failing(Layer):
    """Fails after it has passed its first bytes on."""

    def poll_flush(self) -> None:
        raise ValueError("a mistake")


def fails(_: object) -> None:
    raise ValueError("a mistake")


@pytest.mark.parametrize("graceful", [False, True])
@pytest.mark.parametrize(
    "make",
    [Recoding, lambda inner: Layer(Recoding(inner)), lambda inner: Recoding(Layer(inner))],
    ids=["alone", "below", "above"],
)
async def test_a_tear_that_an_encoding_layer_stops_outlives_it(
    make: Callable[[Any], Any], *, graceful: bool
) -> None:
    stream, reader = duplex(5)
    await cut_short(partial(make(stream).write_all, b"0123456789"))
    await assert_ends_truncated(stream, reader, graceful=graceful)


async def test_a_tear_that_came_from_one_stream_is_seen_in_another() -> None:
    """Though the layer that is over both is gone."""
    (torn, _), (stream, reader) = duplex(5), duplex(50)
    tee = TeeWriter(Layer(torn), stream)
    await tee.write_all(b"012")
    await cut_short(partial(torn.write_all, b"0123456789"))
    gone = weakref.ref(tee)
    del tee
    await assert_ends_truncated(stream, reader, graceful=False)
    with resource_warnings():
        await torn.aclose()
    assert gone() is None


async def test_where_all_below_are_torn_nothing_is_kept() -> None:
    stream, _ = duplex(5)
    layer = Layer(Layer(stream))
    gone = weakref.ref(layer)
    await cut_short(partial(layer.write_all, b"0123456789"))
    del layer
    assert gone() is None


@pytest.mark.parametrize(
    "make", [Failing, lambda inner: InspectWriter(inner, fails)], ids=["poll", "hook"]
)
async def test_a_failure_of_a_layer_outlives_it(make: Callable[[Any], Any]) -> None:
    stream, reader = duplex(5)
    with pytest.raises(ValueError, match="a mistake"):
        await make(stream).send_all(b"abc")
    gc.collect()  # the traceback of the failure refers to the layer
    await stream.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await drain(reader)


async def test_where_all_below_have_failed_nothing_is_kept() -> None:
    wire = Wire()
    wire.error = OSError("it")
    layer = BufWriter(wire, 1)
    with pytest.raises(trio.BrokenResourceError):
        await layer.write_all(b"abc")
    assert (wire.lifecycle.holders, wire.lifecycle.holding) == ((), 0)


async def test_a_failed_layer_is_freed_with_its_stack() -> None:
    stream, _ = duplex(5)
    layer = Failing(stream)
    gone = weakref.ref(layer)
    with pytest.raises(ValueError, match="a mistake"):
        await layer.flush()
    del layer
    await stream.aclose()
    gc.collect()  # the traceback of the failure refers to it
    assert gone() is None
