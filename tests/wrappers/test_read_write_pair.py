from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    NotReady,
    PollEvented,
    ReadWritePair,
    TcpStream,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._patience import wait_all_tasks_blocked
from .._streams import (
    clog,
    clogged,
    clogged_both_ways,
    connected,
    drain,
    drain_while,
    pipe_pair,
    tcp_pair,
    unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Pair = ReadWritePair[TcpStream, Any]


async def plain_pair() -> tuple[Pair, Pair]:
    left, right = await unix_pair()
    return ReadWritePair(left, left), ReadWritePair(right, right)


async def buffered_pair() -> tuple[Pair, Pair]:
    left, right = await tcp_pair()
    return ReadWritePair(left, BufWriter(left, 64)), ReadWritePair(right, BufWriter(right, 64))


@pytest.fixture
async def pairs() -> AsyncIterator[tuple[Pair, Pair]]:
    async with connected(buffered_pair) as ends:
        yield ends


# ---- Trio's contract, and ours ---------------------------------------------------------------


@pytest.mark.outer
@pytest.mark.parametrize("maker", [plain_pair, buffered_pair])
# Both checkers also close what has unsent bytes.
@pytest.mark.filterwarnings("ignore:.*were never sent:ResourceWarning")
async def test_it_keeps_the_contract(maker: Callable[[], Awaitable[tuple[Pair, Pair]]]) -> None:
    await trio.testing.check_half_closeable_stream(maker, clogged_both_ways(maker))
    await check_async_write(maker, clogged(maker))


async def test_no_cancellation_loses_a_byte() -> None:
    data = bytes(range(200))

    async def scenario(sweep: Sweep) -> None:
        async with connected(unix_pair) as (left, right):
            pair = ReadWritePair(left, BufWriter(left, 16))
            bufs = [Buf(data[:10]), Buf(data[10:110], data[110:]), Buf(b"x" * 9)]

            async def write() -> None:
                for buf in bufs:
                    await pair.write_all_buf(buf)
                await pair.flush()
                await pair.send_eof()

            with sweep:
                await write()
            for buf in bufs:
                if buf.remaining:
                    await pair.write_all_buf(buf)
            await pair.send_eof()
            assert await drain(right) == data + b"x" * 9
            await right.send_all(b"answer")
            assert await pair.receive_some() == b"answer"
            await pair.aclose()

    assert await cancel_everywhere(scenario) > 5


# ---- What it is made of ----------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["stream", None, 7, [], object])
async def test_its_parts_must_be_streams(wrong: Any) -> None:
    async with connected(pipe_pair) as (writer, reader):
        with pytest.raises(TypeError, match=r"trio\.abc\.ReceiveStream"):
            ReadWritePair(wrong, writer)
        with pytest.raises(TypeError, match=r"trio\.abc\.SendStream"):
            ReadWritePair(reader, wrong)


async def test_a_writer_is_no_reader() -> None:
    async with connected(tcp_pair) as (stream, _):
        with pytest.raises(TypeError, match=r"got BufWriter \(the order is reader, writer\)"):
            ReadWritePair(BufWriter(stream), stream)  # type: ignore[call-overload]


async def test_its_parts_are_at_hand() -> None:
    async with connected(pipe_pair) as (writer, reader):
        pair = ReadWritePair(reader, writer)

        assert pair.reader is reader
        assert pair.inner is pair.writer is writer
        assert repr(pair) == f"<ReadWritePair of {reader!r} and {writer!r}>"


async def test_it_is_made_as_a_stapled_stream_is_by_keyword() -> None:
    sending, receiving = trio.testing.memory_stream_one_way_pair()
    pair = ReadWritePair(send_stream=sending, receive_stream=receiving)
    assert (pair.send_stream, pair.receive_stream) == (sending, receiving)
    assert pair.reader is receiving
    assert isinstance(pair.inner, AsyncWrite)
    await pair.aclose()


@pytest.mark.parametrize("given", [("send_stream",), ("receive_stream",)])
async def test_it_is_made_in_one_way_or_the_other(given: Any) -> None:
    async with connected(pipe_pair) as (writer, reader):
        streams: Any = {"send_stream": writer, "receive_stream": reader}
        some = {name: streams[name] for name in given}
        with pytest.raises(TypeError, match="give reader and writer, or send_stream and"):
            ReadWritePair(reader, writer, **some)
        with pytest.raises(
            TypeError, match=r"expected a trio\.abc\.(Send|Receive)Stream, got None"
        ):
            ReadWritePair(**some)


async def test_two_unrelated_streams() -> None:
    """A child process: its output to read, its input to write."""
    process = await trio.lowlevel.open_process(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with ReadWritePair(process.stdout, process.stdin) as pair:
        assert isinstance(pair.inner, PollEvented)
        await pair.send_all(b"through the cat")
        await pair.send_eof()
        assert await drain(pair) == b"through the cat"
        assert await process.wait() == 0
    with pytest.raises(trio.ClosedResourceError):
        await process.stdout.receive_some()


# ---- Writing ---------------------------------------------------------------------------------


async def test_small_writes_are_collected_and_gathered_ones_stay_together(
    pairs: tuple[Pair, Pair],
) -> None:
    pair, peer = pairs
    assert pair.spare_capacity == pair.inner.spare_capacity == 64
    assert pair.poll_write_vectored([b"a", b"b", b"c"]) == 3
    assert await pair.write(b"d") == 1
    await pair.write_all_vectored([b"e", b"f"])
    assert pair.unsent_bytes == 6
    assert pair.spare_capacity == 58
    await pair.flush()

    assert pair.unsent_bytes == 0
    assert await peer.receive_some() == b"abcdef"


async def test_nothing_sneaks_into_the_buffer_of_an_ended_pair(pairs: tuple[Pair, Pair]) -> None:
    pair, peer = pairs
    await pair.write_all(b"data")
    await pair.send_eof()
    for _ in range(2):
        assert not pair.lifecycle.fast.left
        with pytest.raises(trio.ClosedResourceError):
            await pair.write(b"x")
        with pytest.raises(trio.ClosedResourceError):
            pair.poll_write(b"x")
        with pytest.raises(trio.ClosedResourceError):
            pair.poll_write_vectored([b"x", b"y"])

    assert await drain(peer) == b"data"


async def test_nothing_sneaks_into_the_buffer_of_a_pair_that_is_ending(
    pairs: tuple[Pair, Pair],
) -> None:
    pair, peer = pairs
    count = clog(pair)
    with pytest.raises(NotReady):
        pair.poll_shutdown()
    assert not pair.lifecycle.fast.left
    with pytest.raises(trio.ClosedResourceError):
        await pair.write(b"x")
    with pytest.raises(trio.ClosedResourceError):
        pair.poll_write(b"x")

    assert await drain_while(peer, pair.shutdown) == bytes(count)


@pytest.mark.parametrize("vectored", [True, False])
async def test_a_failure_below_is_the_pairs_own(
    pairs: tuple[Pair, Pair], *, vectored: bool
) -> None:
    """Without the shell, too; and it stays."""
    pair, peer = pairs
    await peer.aclose()
    with pytest.raises(trio.BrokenResourceError):
        while True:
            if vectored:
                pair.poll_write_vectored([b"x" * 64, b"y"])
            else:
                pair.poll_write(b"x" * 64)

    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match=r"<ReadWritePair.*failed before"):
            await pair.write(b"x")
    await pair.aclose()


# ---- Closing ---------------------------------------------------------------------------------


async def test_closing_closes_both() -> None:
    async with connected(pipe_pair) as (writer, far_reader), connected(pipe_pair) as (_, reader):
        pair = ReadWritePair(reader, BufWriter(writer))
        await pair.write_all(b"data")
        await pair.aclose()

        assert writer.fileno() == reader.fileno() == -1
        assert await drain(far_reader) == b"data"
        with pytest.raises(trio.ClosedResourceError):
            await pair.receive_some()
        await pair.aclose()


async def test_closing_ends_the_waits_of_both_directions(pairs: tuple[Pair, Pair]) -> None:
    pair, _ = pairs
    clog(pair)

    async def expect_closed(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await call()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, pair.receive_some)
        nursery.start_soon(expect_closed, lambda: pair.write_all(b"x"))
        await wait_all_tasks_blocked()
        with pytest.warns(ResourceWarning):
            await trio.aclose_forcefully(pair)


async def test_a_cancelled_close_with_unsent_bytes_resets(pairs: tuple[Pair, Pair]) -> None:
    pair, peer = pairs
    clog(pair)
    with pytest.warns(ResourceWarning, match="64 bytes"):
        await trio.aclose_forcefully(pair)

    assert pair.reader.fileno() == -1
    with pytest.raises(trio.BrokenResourceError):
        await drain(peer)


async def test_the_reader_is_closed_when_the_writer_cannot_be() -> None:
    class Unreleasable(AsyncWrite):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return len(data)

        async def release(self, *, clean: bool) -> None:
            raise OSError("cannot")

    async with connected(pipe_pair) as (_, reader):
        with pytest.raises(trio.BrokenResourceError, match="cannot"):
            await ReadWritePair(reader, Unreleasable()).aclose()

        assert reader.fileno() == -1
