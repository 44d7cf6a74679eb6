"""A timeout breaks nothing in any layer above, and bounds the close of the whole stack."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    NotReady,
    ReadWritePair,
    SharedWriter,
    TimeoutWriter,
    duplex,
    simplex,
    split,
)

from .._streams import drain

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


class Passing(AsyncWrite):
    """A wrapper of a user that changes nothing."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        count: int = self.inner.poll_write(data)
        return count


ABOVE: dict[str, Callable[[Any], AsyncWrite]] = {
    "itself": lambda writer: writer,
    "BufWriter": lambda writer: BufWriter(writer, 5),
    "SharedWriter": SharedWriter,
    "ReadWritePair": lambda writer: ReadWritePair(duplex(1)[0], writer),
    "by_ref": lambda writer: writer.by_ref(),
    "half": lambda writer: split(ReadWritePair(duplex(1)[0], writer))[1],
    "user's wrapper": Passing,
    "two of them": lambda writer: SharedWriter(BufWriter(writer, 5)),
}


@pytest.mark.parametrize("layer", ABOVE.values(), ids=ABOVE)
async def test_a_timeout_breaks_no_layer_above(
    layer: Callable[[Any], AsyncWrite], autojump_clock: MockClock
) -> None:
    """The position is kept, and every byte arrives once."""
    stream, reader = simplex(10)
    timed = TimeoutWriter(stream, idle=3)
    writer = layer(timed)
    data = bytes(range(60))
    buf = Buf(data)
    for number in (1, 2):
        with pytest.raises(trio.TooSlowError):
            await writer.write_all_buf(buf)
            await writer.flush()  # a SharedWriter has accepted it all
        assert trio.current_time() == 3 * number
    with pytest.raises(trio.TooSlowError):
        await timed.flush() if timed.unsent_bytes else await writer.write_all_buf(buf)
        await writer.flush()
    for one in (writer, timed, stream):
        assert one.lifecycle.failure is None
        assert one.lifecycle.torn is None

    async def go_on() -> None:
        await writer.write_all_buf(buf)
        await writer.flush()
        await timed.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        assert await drain(reader) == data
    await writer.aclose()


@pytest.mark.parametrize("end", ["flush", "shutdown", "aclose"])
@pytest.mark.parametrize(
    "order",
    [
        lambda stream: BufWriter(TimeoutWriter(stream, idle=3)),
        lambda stream: TimeoutWriter(BufWriter(stream), idle=3),
    ],
    ids=["buffer above", "buffer below"],
)
async def test_it_does_not_matter_where_the_buffer_is(
    order: Callable[[Any], AsyncWrite], end: str, autojump_clock: MockClock
) -> None:
    """But for the cost of a write that only fills it."""
    stream, reader = simplex(10)
    writer = order(stream)
    await writer.write_all(bytes(60))
    for _ in range(2):
        with trio.move_on_after(2):
            await writer.flush()
        if trio.current_time() == 2:
            assert await reader.receive_some(4) == bytes(4)  # so a new period begins
    with pytest.raises(trio.TooSlowError):
        await getattr(writer, end)()
    assert trio.current_time() == 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        await trio.aclose_forcefully(writer)
    await reader.aclose()


@pytest.mark.parametrize("limits", [{"idle": 5}, {"min_rate": 1}], ids=["idle", "min_rate"])
async def test_time_that_several_tasks_wait_at_once_counts_once(
    limits: dict[str, float], autojump_clock: MockClock
) -> None:
    stream, reader = simplex(10)
    writer = TimeoutWriter(stream, **limits)
    writer.poll_write(bytes(10))
    ends = []

    async def wait() -> None:
        with pytest.raises(NotReady) as info:
            writer.poll_write(b"x")
        try:
            await info.value.wait()
        except trio.TooSlowError:
            ends.append(("too slow", trio.current_time()))
        else:
            ends.append(("again", trio.current_time()))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
    # One is told; the others poll again, and have a new period as well.
    assert sorted(ends) == [("again", 5), ("again", 5), ("too slow", 5)]
    await reader.aclose()
    await writer.aclose()


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("layer", ABOVE.values(), ids=ABOVE)
async def test_a_close_of_any_layer_of_the_stack_is_bounded(
    layer: Callable[[Any], AsyncWrite], autojump_clock: MockClock, *, below: bool
) -> None:
    """Whether the bytes are held above it or below it, and whoever is closed."""
    stream, reader = simplex(10)
    stream.poll_write(bytes(10))
    timed = TimeoutWriter(BufWriter(stream), idle=3)
    writer = layer(timed)
    await writer.write_all(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(trio.TooSlowError):
            await (timed if below or layer in (ABOVE["by_ref"], ABOVE["half"]) else writer).aclose()
        assert trio.current_time() == 3
        assert timed.closed
        await writer.aclose()
        await stream.aclose()
        await reader.aclose()
