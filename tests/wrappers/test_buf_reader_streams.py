"""A buffered reader over every kind of stream, and cancelled everywhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    BufReader,
    BufWriter,
    PollEvented,
    ReadWritePair,
    TcpStream,
    duplex,
    simplex,
    split,
    start_tls,
    wrap_stream,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._patience import wait_all_tasks_blocked
from .._streams import clogged, connected, pipe_pair, tcp_pair, unix_pair
from .._tls_helpers import HOST, client_context, open_tls, server_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Maker = Callable[[], Awaitable[tuple[Any, Any]]]


async def memory_pair() -> tuple[Any, Any]:
    return simplex(7)


async def foreign_pair() -> tuple[Any, Any]:
    sending, receiving = trio.testing.memory_stream_one_way_pair()
    return wrap_stream(sending), receiving


async def lockstep_pair() -> tuple[Any, Any]:
    return trio.testing.lockstep_stream_one_way_pair()


async def foreign_duplex_pair() -> tuple[Any, Any]:
    return trio.testing.memory_stream_pair()


async def trio_socket_pair() -> tuple[Any, Any]:
    left, right = map(trio.SocketStream, trio.socket.socketpair())
    return wrap_stream(left), right


async def fd_stream_pair() -> tuple[Any, Any]:
    reading, writing = os.pipe()
    return wrap_stream(trio.lowlevel.FdStream(writing)), trio.lowlevel.FdStream(reading)


async def half_pair() -> tuple[Any, Any]:
    left, right = await unix_pair()
    reader, writer = split(right)
    await trio.aclose_forcefully(writer)
    return left, reader


async def pair_pair() -> tuple[Any, Any]:
    left, right = duplex(7)
    return left, ReadWritePair(right, right)


async def twice_pair() -> tuple[Any, Any]:
    writer, reader = simplex(7)
    return writer, BufReader(reader, 3)


async def tls_pair() -> tuple[Any, Any]:
    return await open_tls()


MAKERS: dict[str, Maker] = {
    "memory": memory_pair,
    "TCP": tcp_pair,
    "pipe": pipe_pair,
    "TLS": tls_pair,
    "foreign": foreign_pair,
    "foreign, lockstep": lockstep_pair,
    "foreign, duplex": foreign_duplex_pair,
    "SocketStream": trio_socket_pair,
    "FdStream": fd_stream_pair,
    "ReadHalf": half_pair,
    "ReadWritePair": pair_pair,
    "BufReader": twice_pair,
}
each_maker = pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)


def buffered(maker: Maker, capacity: int = 5) -> Maker:
    async def make() -> tuple[Any, Any]:
        writer, reader = await maker()
        return writer, BufReader(reader, capacity)

    return make


# Trio's checks close what has unsent bytes.
@pytest.mark.filterwarnings("ignore:.*never sent:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*close_notify:ResourceWarning")
@each_maker
async def test_it_is_a_stream_by_trio_s_own_checks(maker: Maker) -> None:
    make = buffered(maker)
    left, right = await make()
    can_be_clogged = isinstance(left, AsyncWrite) and maker not in (foreign_pair, tls_pair)
    await trio.aclose_forcefully(left)
    await trio.aclose_forcefully(right)
    await trio.testing.check_one_way_stream(make, clogged(make) if can_be_clogged else None)


@pytest.mark.outer
@each_maker
async def test_cancelled_anywhere_it_has_consumed_nothing(maker: Maker) -> None:
    """... and the calls that follow get every byte, once and in order."""
    data = b"first\r\n" + b"\x00\x05" + b"12345" + b"x" * 20 + b"last\r\n"

    async def scenario(sweep: Sweep) -> None:
        writer, reader = await buffered(maker)()
        received: list[bytes | bool] = []
        steps: list[Callable[[], Awaitable[bytes | bool]]] = [
            lambda: reader.receive_until(b"\r\n", 20),
            lambda: reader.receive_exactly(2),
            lambda: reader.fill(5),
            lambda: reader.receive_exactly(5),
            lambda: reader.receive_exactly(20),
            lambda: reader.receive_until(b"\r\n", 20),
            lambda: reader.receive_until(b"\r\n", 20),
        ]

        async def read() -> None:
            while len(received) < len(steps):
                received.append(await steps[len(received)]())

        async def send() -> None:
            for start in range(0, len(data), 6):
                await writer.send_all(data[start : start + 6])
            await writer.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with sweep:
                await read()
            await read()
        assert received == [b"first\r\n", b"\0\5", True, b"12345", b"x" * 20, b"last\r\n", b""]
        assert reader.position == len(data)
        await reader.aclose()

    assert await cancel_everywhere(scenario) > 8


# ---- What it is over -----------------------------------------------------------------------------


async def test_trio_s_streams_of_the_kernel_are_polled() -> None:
    left, right = map(trio.SocketStream, trio.socket.socketpair())
    reader = BufReader(left)
    assert type(reader.inner) is TcpStream
    assert wrap_stream(left) is reader.inner
    await right.send_all(b"abc")
    assert reader.poll_fill(3)
    await reader.aclose()
    await right.aclose()

    reading, writing = os.pipe()
    pipe = BufReader(trio.lowlevel.FdStream(reading))
    assert type(pipe.inner) is PollEvented
    await pipe.aclose()
    os.close(writing)


async def test_the_same_stream_gives_the_same_reader_while_that_lives() -> None:
    left, right = trio.testing.memory_stream_pair()
    first = BufReader(left, 1)
    await right.send_all(b"abc")
    assert await first.receive_exactly(1) == b"a"
    second = BufReader(left, 1)
    assert second.inner is first.inner
    assert repr(second.inner) == f"<reader of {left!r}>"
    assert await second.receive_exactly(2) == b"bc"
    assert second.peer_ended is None
    await right.aclose()
    assert await second.receive_some() == b""
    assert second.peer_ended is True
    await first.aclose()
    assert BufReader(left).inner is not first.inner


@pytest.mark.parametrize("is_duplex", [False, True])
async def test_a_foreign_stream_is_closed_with_it(*, is_duplex: bool) -> None:
    pair = trio.testing.memory_stream_pair if is_duplex else None
    left, right = (pair or trio.testing.memory_stream_one_way_pair)()
    stream: Any = right
    reader = BufReader(stream)
    await left.send_all(b"abc")
    assert await reader.receive_exactly(2) == b"ab"
    await reader.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_a_close_ends_a_call_in_a_foreign_stream() -> None:
    _left, right = trio.testing.memory_stream_one_way_pair()
    reader = BufReader(right)

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive_exactly(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await reader.aclose()


async def test_closing_it_sends_what_a_buffer_over_the_same_foreign_stream_holds() -> None:
    left, right = trio.testing.memory_stream_pair()
    reader = BufReader(left)
    writer = BufWriter(left)
    await writer.write_all(b"abc")
    await reader.aclose()
    assert await right.receive_some() == b"abc"
    assert writer.closed


async def test_a_writer_that_also_receives_is_a_foreign_reader() -> None:
    class Both(AsyncWrite, trio.abc.ReceiveStream):
        def __init__(self, inner: AsyncWrite) -> None:
            self.inner = inner

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            return b"abc"

    left, right = duplex(10)
    stream = Both(left)
    reader = BufReader(stream, 2)
    assert await reader.receive_exactly(4) == b"abca"
    await reader.aclose()
    assert left.closed
    await right.aclose()


async def test_both_directions_of_a_stream_may_be_buffered() -> None:
    async with connected(tcp_pair) as (left, right):
        stream = ReadWritePair(BufReader(left), BufWriter(left))
        await stream.write_all(b"ask\n")
        await stream.flush()
        assert await BufReader(right).receive_until(b"\n", 9) == b"ask\n"
        await right.send_all(b"answer\n")
        assert await stream.reader.receive_until(b"\n", 9) == b"answer\n"
        await stream.write_all(b"forgotten")
        await stream.aclose()
        assert await right.receive_some() == b"forgotten"
        assert left.closed


async def test_a_failed_write_or_a_shutdown_leaves_what_was_read_ahead() -> None:
    async with connected(unix_pair) as (left, right):
        reader = BufReader(left)
        await right.send_all(b"a\nb\n")
        assert await reader.receive_until(b"\n", 9) == b"a\n"
        await left.shutdown()
        assert await reader.receive_until(b"\n", 9) == b"b\n"
        await right.aclose()
        assert await reader.receive_some() == b""
        await reader.aclose()


async def test_what_was_read_too_much_before_start_tls_is_given_to_it() -> None:
    """STARTTLS."""
    client, server = duplex(4096)
    reader = BufReader(server)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            await client.send_all(b"STARTTLS\n")
            tls = await start_tls(client, client_context(), server_hostname=HOST)
            await tls.send_all(b"secret")
            await tls.aclose()

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert await reader.receive_until(b"\n", 20) == b"STARTTLS\n"
        received = reader.peek()
        assert received
        tls = await start_tls(server, server_context(), server_side=True, received=received)
        with pytest.raises(trio.ClosedResourceError, match="made before start_tls"):
            await reader.receive_some()
        assert await BufReader(tls).receive_exactly(6) == b"secret"
        await tls.aclose()
