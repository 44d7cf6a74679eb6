from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncWrite, BufWriter, NotReady, Sink
from trio_asyncwrite._wrappers._buf_writer import DEFAULT_CAPACITY
from trio_asyncwrite.testing import check_async_write

from .._streams import (
    clog,
    clogged,
    connected,
    drain_while,
    tcp_pair,
    unix_pair,
)
from ._buffered import (
    Inner,
    NotGathering,
    check_room,
    every_second,
    memory,
    never,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_asyncwrite import TcpStream


# ---- Trio's contract, and ours ---------------------------------------------------------------


async def tcp_maker() -> tuple[BufWriter[TcpStream], TcpStream]:
    stream, peer = await tcp_pair()
    return BufWriter(stream, 1000), peer


async def small_maker() -> tuple[BufWriter[TcpStream], TcpStream]:
    stream, peer = await unix_pair()
    return BufWriter(stream, 16), peer


@pytest.mark.outer
@pytest.mark.parametrize("maker", [tcp_maker, small_maker])
# Both checkers also close what has unsent bytes.
@pytest.mark.filterwarnings("ignore:.*were never sent:ResourceWarning")
async def test_it_keeps_the_contract(
    maker: Callable[[], Awaitable[tuple[BufWriter[TcpStream], TcpStream]]],
) -> None:
    await trio.testing.check_one_way_stream(maker, clogged(maker))
    await check_async_write(maker, clogged(maker))


# ---- What it is made of ----------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, -1, -65536])
def test_a_capacity_of_nothing(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"capacity must be .* at least 1, got {capacity}"):
        BufWriter(Sink(), capacity)


@pytest.mark.parametrize("capacity", [1.0, "1", None, [1]])
def test_a_capacity_that_is_no_integer(capacity: Any) -> None:
    with pytest.raises(TypeError, match="capacity must be an integer"):
        BufWriter(Sink(), capacity)


def test_a_capacity_that_only_behaves_like_an_integer() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    assert BufWriter(Sink(), Three()).capacity == 3  # type: ignore[call-overload]


def test_it_names_its_capacity_and_its_inner_writer() -> None:
    sink = Sink()
    writer = BufWriter(sink)

    assert writer.inner is sink
    assert writer.capacity == DEFAULT_CAPACITY == 65536
    assert repr(writer) == "<BufWriter of 65536 bytes over <Sink>>"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("text", TypeError),
        (None, TypeError),
        ([1], TypeError),
        (1, TypeError),
        (memoryview(b"abcd")[::2], BufferError),
    ],
    ids=["str", "None", "list", "int", "gaps"],
)
async def test_what_is_not_bytes_is_refused(data: Any, error: type[Exception]) -> None:
    """At once, with nothing accepted: whether it would fit or not."""
    for capacity in (1, 64):
        inner = Inner()
        writer = BufWriter(inner, capacity)
        for poll in (
            lambda w=writer: w.poll_write(data),
            lambda w=writer: w.poll_write_vectored([b"never", data]),
        ):
            with pytest.raises(error):
                poll()
        for call in (
            lambda w=writer: w.write(data),
            lambda w=writer: w.write_all(data),
            lambda w=writer: w.send_all(data),
            lambda w=writer: w.write_vectored([b"never", data]),
        ):
            with pytest.raises(error):
                await call()
        check_room(writer)
        await writer.send_all(b"good")
        assert inner.taken == b"good"
        await writer.aclose()


async def test_a_view_of_other_items_counts_as_its_bytes() -> None:
    square = memoryview(bytes(range(16))).cast("B", (4, 4))
    words = memoryview(bytes(range(16))).cast("I")
    for capacity in (8, 64):
        inner = Inner()
        writer = BufWriter(inner, capacity)
        assert writer.poll_write(square) == 16
        assert await writer.write(words) == 16
        assert writer.poll_write_vectored([words, square]) == 32
        await writer.aclose()

        assert inner.taken == bytes(range(16)) * 4


async def test_empty_data_is_accepted_as_nothing() -> None:
    for capacity in (1, 64):
        inner = Inner()
        writer = BufWriter(inner, capacity)
        assert writer.poll_write(b"") == 0
        assert writer.poll_write(bytearray()) == 0
        assert writer.poll_write_vectored([]) == 0
        assert writer.poll_write_vectored([b"", b""]) == 0
        assert await writer.write(b"") == 0
        await writer.send_all(b"")
        check_room(writer)
        await writer.aclose()

        assert inner.offers == []


async def test_many_megabytes_arrive_in_order() -> None:
    """Large and small mixed, over the real thing."""
    pieces = [
        bytes([n % 251]) * (1, 100, 65_535, 65_536, 65_537, 500_000)[n % 6] for n in range(60)
    ]
    async with connected(unix_pair) as (stream, peer):
        writer = BufWriter(stream)

        async def write() -> None:
            for piece in pieces:
                await writer.write_all(piece)
            await writer.aclose()

        assert await drain_while(peer, write) == b"".join(pieces)


# ---- The table: buffer size x write size x hostile inner writer ------------------------------

INNERS: dict[str, Callable[[], Inner]] = {
    "takes all": Inner,
    "takes a byte": lambda: Inner(most=1),
    "takes five": lambda: Inner(most=5),
    "ready every second time": lambda: Inner(ready=every_second()),
    "takes five every second time": lambda: Inner(5, every_second()),
    "gathers not": NotGathering,
    "gathers not, takes five every second time": lambda: NotGathering(5, every_second()),
}


async def by_write_all(writer: AsyncWrite, data: bytes) -> None:
    await writer.write_all(data)


async def by_write(writer: AsyncWrite, data: bytes) -> None:
    """With the counts that it returns."""
    view = memoryview(data)
    while view:
        view = view[await writer.write(view) :]


async def by_polls(writer: AsyncWrite, data: bytes) -> None:
    while data:
        try:
            data = data[writer.poll_write(data) :]
        except NotReady as not_ready:
            await not_ready.wait()


async def by_gathered_write(writer: AsyncWrite, data: bytes) -> None:
    await writer.write_all_vectored([data[:1], b"", data[1:3], data[3:]])


async def by_send_all(writer: AsyncWrite, data: bytes) -> None:
    await writer.send_all(data)
    assert writer.unsent_bytes == 0


@pytest.mark.outer
@pytest.mark.parametrize(
    "write", [by_write_all, by_write, by_polls, by_gathered_write, by_send_all]
)
@pytest.mark.parametrize("inner", INNERS)
@pytest.mark.parametrize("capacity", [1, 2, 16])
async def test_every_size_through_every_buffer(
    capacity: int, inner: str, write: Callable[[AsyncWrite, bytes], Awaitable[None]]
) -> None:
    """Every byte once, in order; never more kept than the capacity."""
    sizes = sorted({0, 1, 2, capacity - 1, capacity, capacity + 1, 3 * capacity})
    for size, follow in itertools.product(sizes, sizes):
        below = INNERS[inner]()
        writer = BufWriter(below, capacity)
        sent = b""
        for length in (size, size, follow, 1):
            message = bytes((len(sent) + n) % 256 for n in range(length))
            await write(writer, message)
            check_room(writer)
            sent += message
            assert len(below.taken) + writer.unsent_bytes == len(sent)
        await writer.flush()
        check_room(writer)
        assert below.taken == sent
        await writer.aclose()
        assert below.taken == sent
        assert below.shutdowns == 1


# ---- What leaves when ------------------------------------------------------------------------


async def test_small_writes_are_collected() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    for _ in range(3):
        await writer.write_all(b"abc")
    assert inner.offers == []
    assert writer.unsent_bytes == 9
    await writer.write_all(b"def")
    assert inner.offers == [[b"abcabcabc"]]
    assert writer.unsent_bytes == 3

    await writer.flush()
    assert inner.offers == [[b"abcabcabc"], [b"def"]]
    assert inner.flushes == 1


async def test_a_write_that_fills_the_buffer_exactly_stays_in_it() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    await writer.write_all(b"12345")
    await writer.write_all(b"67890")
    assert inner.offers == []
    await writer.write_all(b"x")

    assert inner.offers == [[b"1234567890"]]
    check_room(writer)
    await writer.flush()


async def test_a_large_write_bypasses_the_buffer() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    await writer.write_all(b"0123456789")
    await writer.write_all(bytearray(b"0123456789abc"))

    assert inner.offers == [[b"0123456789"], [b"0123456789abc"]]
    assert not memory(writer)


async def test_what_waits_and_a_large_write_leave_in_one_call() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    await writer.write_all(b"head")
    await writer.write_all(b"0123456789abc")
    await writer.write_all(b"head")
    await writer.write_all_vectored([b"012345", b"6789"])

    assert inner.offers == [[b"head", b"0123456789abc"], [b"head", b"012345", b"6789"]]


async def test_small_buffers_that_are_large_together_are_not_copied() -> None:
    inner = Inner()
    writer = BufWriter(inner, 10)
    assert await writer.write_vectored([b"0123", b"4567"]) == 8
    assert inner.offers == []
    assert await writer.write_vectored([b"abcd", b"efghij"]) == 10

    assert inner.offers == [[b"01234567", b"abcd", b"efghij"]]


def test_a_large_write_is_counted_without_what_waited() -> None:
    inner = Inner(most=6)
    writer = BufWriter(inner, 10)
    writer.poll_write(b"head")

    assert writer.poll_write(b"0123456789") == 2
    assert inner.taken == b"head01"
    assert writer.poll_write(b"23456789..") == 6
    assert writer.unsent_bytes == 0


def test_a_large_write_that_only_pushes_what_waited_out_accepts_nothing() -> None:
    inner = Inner(ready=iter([True, False]))
    inner.most = 4
    writer = BufWriter(inner, 10)
    writer.poll_write(b"head")
    with pytest.raises(NotReady):
        writer.poll_write(b"0123456789")

    assert inner.taken == b"head"
    assert writer.unsent_bytes == 0
    check_room(writer)


def test_the_order_stays_whatever_is_mixed() -> None:
    inner = Inner(most=3)
    writer = BufWriter(inner, 8)
    sent = b""
    for message in (b"a", b"bc", b"0123456789", b"de", b"0123456789", b"fghijkl", b"m"):
        while message:
            count = writer.poll_write_vectored([message[:2], message[2:]])
            sent += message[:count]
            message = message[count:]
        assert inner.taken + b"." * writer.unsent_bytes == sent[: len(inner.taken)] + b"." * (
            len(sent) - len(inner.taken)
        )
    writer.poll_flush()

    assert inner.taken == sent == b"abc0123456789de0123456789fghijklm"


def test_an_idle_buffer_holds_no_memory() -> None:
    writer = BufWriter(Inner())
    assert not memory(writer)
    for _ in range(2):
        writer.poll_write(b"data")
        assert memory(writer)
        writer.poll_flush()
        assert not memory(writer)
        writer.poll_flush()


def test_it_is_ready_while_there_is_room() -> None:
    inner = Inner(ready=never())
    writer = BufWriter(inner, 4)
    for _ in range(4):
        writer.poll_ready()
        writer.poll_write(b"x")
    with pytest.raises(NotReady):
        writer.poll_ready()
    inner.ready = iter([True])
    writer.poll_ready()

    assert inner.taken == b"xxxx"
    check_room(writer)


async def test_a_buffer_of_one_byte_is_as_ready_as_its_inner_writer() -> None:
    """Every write bypasses it."""
    async with connected(unix_pair) as (stream, peer):
        writer = BufWriter(stream, 1)
        writer.poll_ready()
        count = clog(writer)
        with pytest.raises(NotReady):
            writer.poll_ready()
        await peer.receive_some(count)
        writer.poll_ready()


async def test_an_unfinished_flush_goes_on_where_it_was() -> None:
    inner = Inner(2, iter([True, False, True, True, False, True]))
    writer = BufWriter(inner, 10)
    writer.poll_write(b"12345")
    with pytest.raises(NotReady):
        writer.poll_flush()
    assert inner.taken == b"12"
    check_room(writer)
    writer.poll_write(b"6")
    check_room(writer)
    with pytest.raises(NotReady):
        writer.poll_flush()

    assert inner.taken == b"123456"
    writer.poll_flush()
    assert inner.flushes == 1


def test_what_waits_is_moved_to_the_front_when_its_place_is_needed() -> None:
    """Also when the two places overlap."""
    for pushed in range(1, 8):
        inner = Inner(pushed, iter([True, False]))
        writer = BufWriter(inner, 8)
        writer.poll_write(b"abcdefg")
        with pytest.raises(NotReady):
            writer.poll_flush()
        assert writer.poll_write(b"h" * pushed) == pushed
        check_room(writer)
        inner.ready = itertools.repeat(True)
        writer.poll_flush()

        assert inner.taken == b"abcdefg" + b"h" * pushed
