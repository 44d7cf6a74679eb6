"""A pair is a layer over two streams: it is closed with the second of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    ReadWritePair,
    SimplexReader,
    duplex,
    simplex,
)

from .._patience import wait_all_tasks_blocked
from .._streams import drain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def refused(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await call()


async def test_closing_the_writer_ends_the_writing_side_only() -> None:
    """What the layers above hold for that side is flushed first, and reading goes on."""
    reader_far, reader = simplex(100)
    writer, far = simplex(100)
    pair = ReadWritePair(reader, BufWriter(writer))
    above = BufWriter(pair)
    await pair.write_all(b"held below, ")
    await above.write_all(b"held above")
    await writer.aclose()
    assert await drain(far) == b"held below, held above"

    for layer in (pair, above):
        for call in (
            lambda layer=layer: layer.write(b"x"),
            lambda layer=layer: layer.send_all(b"x"),
            lambda layer=layer: layer.write_all_vectored([b"x", b"y"]),
            layer.wait_send_all_might_not_block,
        ):
            await refused(call)
        with pytest.raises(trio.ClosedResourceError):
            layer.poll_write(b"x")
    assert not pair.closed
    await reader_far.send_all(b"still here")
    assert await pair.receive_some() == b"still here"
    await above.aclose()
    assert pair.closed
    assert reader.closed
    with pytest.raises(trio.BrokenResourceError):
        await reader_far.send_all(b"x")


@pytest.mark.parametrize("waiting", [True, False])
async def test_closing_the_reader_ends_the_reading_side_only(*, waiting: bool) -> None:
    _, reader = simplex(100)
    writer, far = simplex(100)
    pair = ReadWritePair(reader, BufWriter(writer))
    async with trio.open_nursery() as nursery:
        if waiting:
            nursery.start_soon(refused, pair.receive_some)
            await wait_all_tasks_blocked()
        await reader.aclose()
    await refused(pair.receive_some)
    assert not pair.closed
    await pair.write_all(b"still here")
    await pair.aclose()

    assert writer.closed
    assert await drain(far) == b"still here"


@pytest.mark.parametrize("how", ["shutdown", "aclose"])
async def test_the_other_direction_of_its_reader_is_not_its_own(how: str) -> None:
    """Nothing that the pair holds goes there."""
    reader, _ = duplex(100)
    writer, far = simplex(100)
    pair = ReadWritePair(reader, BufWriter(writer))
    await pair.write_all(b"still ")
    await getattr(reader, how)()
    assert pair.unsent_bytes == 6
    await pair.write_all(b"here")
    await pair.aclose()

    assert await drain(far) == b"still here"


@pytest.mark.parametrize("reader_first", [True, False])
async def test_it_is_closed_with_the_second_of_them(*, reader_first: bool) -> None:
    _, reader = simplex(100)
    writer, far = simplex(100)
    pair = ReadWritePair(reader, BufWriter(writer))
    above = BufWriter(pair)
    await above.write_all(b"data")
    for number, one in enumerate((reader, writer) if reader_first else (writer, reader)):
        assert not pair.closed, number
        await one.aclose()

    assert pair.closed
    assert above.closed
    assert await drain(far) == b"data"
    await pair.aclose()


async def test_a_task_that_writes_when_the_writer_is_closed_is_evicted() -> None:
    _, reader = simplex(1)
    writer, far = simplex(1)
    pair = ReadWritePair(reader, writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, lambda: pair.write_all(b"abc"))
        await wait_all_tasks_blocked()
        with pytest.warns(ResourceWarning):
            await writer.aclose()

    assert await far.receive_some() == b"a"
    with pytest.raises(trio.BrokenResourceError):
        await far.receive_some()
    await pair.aclose()


async def test_a_buf_that_was_begun_through_the_pair_truncates_the_writer() -> None:
    writer, far = simplex(1)
    pair = ReadWritePair(simplex(1)[1], writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.write_all_buf, Buf(b"abc"))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.warns(ResourceWarning, match="a Buf was begun"):
        await writer.aclose()

    assert await far.receive_some() == b"a"
    with pytest.raises(trio.BrokenResourceError):
        await far.receive_some()
    await pair.aclose()


@pytest.mark.parametrize("buffered", [True, False])
async def test_over_one_duplex_stream_it_is_closed_with_it(*, buffered: bool) -> None:
    stream, peer = duplex(100)
    pair = ReadWritePair(stream, BufWriter(stream) if buffered else stream)
    await pair.write_all(b"data")
    await stream.aclose()

    assert pair.closed
    assert await drain(peer) == b"data"
    await refused(pair.receive_some)
    await refused(lambda: pair.write(b"x"))


class Unreleasable(AsyncWrite):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)

    async def release(self, *, clean: bool) -> None:
        raise OSError("the writer cannot")


class Unclosable(trio.abc.ReceiveStream):
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise AssertionError

    async def aclose(self) -> None:
        raise ValueError("the reader cannot")


async def test_the_errors_of_both_closes_are_told() -> None:
    """One is raised, and its context shows the other one."""
    pair = ReadWritePair(Unclosable(), Unreleasable())
    with pytest.raises(ValueError, match="the reader cannot") as info:
        await pair.aclose()
    assert isinstance(info.value.__context__, trio.BrokenResourceError)
    assert "the writer cannot" in str(info.value.__context__)

    simplex_reader: SimplexReader = simplex(1)[1]
    with pytest.raises(trio.BrokenResourceError, match="the writer cannot"):
        await ReadWritePair(simplex_reader, Unreleasable()).aclose()
    assert simplex_reader.closed


async def test_a_foreign_reader_knows_its_end_once_it_was_read() -> None:
    """Before that, nobody knows."""
    far, reader = trio.testing.memory_stream_one_way_pair()
    pair = ReadWritePair(reader, simplex(1)[0])
    assert pair.peer_ended is None
    await far.aclose()
    assert await pair.receive_some() == b""
    assert pair.peer_ended is True
    await pair.aclose()
