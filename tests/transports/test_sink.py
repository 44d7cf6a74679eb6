"""The writer that swallows everything."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._transports._sink import Sink
from trio_asyncwrite.testing import check_async_write


@pytest.mark.parametrize("data", [b"", b"x", bytearray(b"xyz"), memoryview(b"xyz"), b"x" * 10**7])
async def test_everything_is_accepted_whole_and_at_once(data: bytes) -> None:
    sink = Sink()
    assert sink.poll_write(data) == len(data)
    assert await sink.write(data) == len(data)
    assert sink.unsent_bytes == 0


async def test_a_view_of_other_items_counts_as_its_bytes() -> None:
    sink = Sink()
    assert sink.poll_write(memoryview(b"x" * 8).cast("I")) == 8


@pytest.mark.parametrize("data", ["text", None, [1, 2]])
async def test_only_bytes_are_accepted(data: bytes) -> None:
    sink = Sink()
    with pytest.raises(TypeError, match="bytes-like"):
        sink.poll_write(data)
    with pytest.raises(TypeError, match="bytes-like"):
        await sink.write(data)


async def test_a_view_with_gaps_is_refused() -> None:
    with pytest.raises(BufferError, match="not contiguous"):
        Sink().poll_write(memoryview(b"abcdef")[::2])


async def test_awaits_work_as_on_any_writer() -> None:
    async with Sink() as sink:
        await sink.send_all(b"x")
        await sink.wait_send_all_might_not_block()
        buf = Buf(b"abc", b"def")
        await sink.write_all_buf(buf)
        assert buf.remaining == 0
        await sink.flush()
        await sink.shutdown()
        with pytest.raises(trio.ClosedResourceError):
            await sink.write(b"x")
    with pytest.raises(trio.ClosedResourceError):
        sink.poll_write(b"x")


async def test_it_keeps_the_contract(autojump_clock: trio.testing.MockClock) -> None:
    async def make() -> tuple[Sink, None]:
        return Sink(), None

    await check_async_write(make)


def test_it_is_a_writer_and_says_so() -> None:
    assert isinstance(Sink(), AsyncWrite)
    assert repr(Sink()) == "<Sink>"
