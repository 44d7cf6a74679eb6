"""Messages of a SharedWriter stay whole through layers above it, and a cursor is exact."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    Cursor,
    ReadWritePair,
    SharedWriter,
    TimeoutWriter,
    duplex,
    simplex,
    split,
)
from trio_asyncwrite.testing import OneByteWriter

from .._patience import wait_all_tasks_blocked
from .._streams import drain
from ..core._fakes import Once, cut_short, resource_warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: More than one gathered call takes, and a few.
PARTS = {"few": [bytes([97 + n]) * 50 for n in range(8)], "many": [b"m"] * 3000}


class Breaks(AsyncWrite):
    """Takes so many bytes, and then finds the connection reset, as a kernel does."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.lifecycle.check_write(self)
        if not self.limit:
            raise ConnectionResetError("reset")
        count = min(len(data), self.limit)
        self.limit -= count
        return count


@pytest.mark.parametrize("write", ["write", "write_buf", "write_vectored"])
async def test_a_message_that_was_partly_delivered_is_accepted(write: str) -> None:
    """Though the transport fails in the same poll; the next operation says so."""
    writer = SharedWriter(Breaks(4))
    buf = Buf(b"0123", b"456789")
    call: Callable[[], Awaitable[int]] = {
        "write": partial(writer.write, b"0123456789"),
        "write_buf": partial(writer.write_buf, buf),
        "write_vectored": partial(writer.write_vectored, [b"0123", b"456789"]),
    }[write]
    assert await call() == 10
    if write == "write_buf":
        assert buf.remaining == 0
    assert writer.unsent_bytes == 6
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await writer.write(b"x")
    assert writer.unsent_bytes == 6
    await writer.aclose()


async def test_the_cursor_of_a_message_that_was_partly_delivered_is_at_its_end() -> None:
    """Also when the call itself raises: who goes on with it must not send it twice."""
    writer = SharedWriter(Breaks(4))
    buf = Buf(b"0123456789")
    with pytest.raises(trio.BrokenResourceError):
        await writer.write_all_buf(buf)
    assert buf.remaining == 0
    await writer.aclose()

    writer = SharedWriter(Breaks(0))
    buf = Buf(b"0123456789")
    with pytest.raises(trio.BrokenResourceError) as info:
        await writer.write_all_buf(buf)
    assert isinstance(info.value.__cause__, ConnectionResetError)
    assert buf.remaining == 10
    await writer.aclose()


class Counting(AsyncWrite):
    """The simplest wrapper: one method overridden."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self.total = 0

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        count: int = self.inner.poll_write(data)
        self.total += count
        return count


def half(writer: AsyncWrite) -> AsyncWrite:
    return split(ReadWritePair(duplex(1)[0], writer))[1]


LAYERS: dict[str, Callable[[Any], AsyncWrite]] = {
    "itself": lambda writer: writer,
    "user's wrapper": Counting,
    "TimeoutWriter": lambda writer: TimeoutWriter(writer, idle=60),
    "ReadWritePair": lambda writer: ReadWritePair(duplex(1)[0], writer),
    "by_ref": lambda writer: writer.by_ref(),
    "half": half,
    "two of them": lambda writer: TimeoutWriter(Counting(writer), idle=60),
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
async def test_a_message_through_a_layer_above_stays_whole(
    layer: Callable[[Any], AsyncWrite], parts: list[bytes]
) -> None:
    """Of however many parts, while another task writes whenever it can."""
    stream, reader = simplex(7)
    shared = SharedWriter(stream)
    above = layer(shared)
    received = b""

    async def first() -> None:
        await above.write_all_vectored(parts)
        await shared.flush()

    async def second() -> None:
        await wait_all_tasks_blocked()
        await shared.write_all(b"B" * 10)

    async def read() -> None:
        nonlocal received
        await wait_all_tasks_blocked()
        received = await drain(reader)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async with trio.open_nursery() as writers:
            writers.start_soon(first)
            writers.start_soon(second)
        await shared.aclose()
    assert received == b"".join(parts) + b"B" * 10


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
async def test_a_message_that_is_cancelled_above_goes_out_whole(
    layer: Callable[[Any], AsyncWrite],
) -> None:
    """It tears nothing: what has begun is kept, and goes out before all others."""
    stream, reader = simplex(7)
    shared = SharedWriter(stream)
    above = layer(shared)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(above.write_all, b"A" * 20)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert stream.lifecycle.torn is None
    assert shared.lifecycle.torn is None

    async with trio.open_nursery() as nursery:

        async def go_on() -> None:
            await shared.write_all(b"B" * 10)
            await shared.aclose()

        nursery.start_soon(go_on)
        assert await drain(reader) == b"A" * 20 + b"B" * 10


def test_a_message_is_pushed_on_as_far_as_it_goes_at_once() -> None:
    """The writer below takes one byte at a time: the rest needs no other call."""
    writer = SharedWriter(OneByteWriter(Cursor()))

    assert writer.poll_write(b"abc") == 3
    assert writer.unsent_bytes == 0


@pytest.mark.parametrize("below", [False, True])
async def test_nobody_shuts_down_below_a_message_that_was_cut_short(*, below: bool) -> None:
    """The tear of the layer above stops at the SharedWriter, and the end would look complete."""
    pipe, reader = simplex(100)
    shared = SharedWriter(pipe)
    upper = Once(shared)
    await cut_short(partial(upper.write_all, b"message"))
    await shared.write_all(b", others are not disturbed")
    with pytest.raises(trio.BrokenResourceError, match="is torn: only 1 of the 7 bytes"):
        await (pipe if below else shared).shutdown()
    assert shared.lifecycle.refusal is None
    with resource_warnings() as messages:
        await shared.aclose()
    assert len(messages) == 1
    with pytest.raises(trio.BrokenResourceError):
        await drain(reader)
