"""What a stack asks of the streams over descriptors, and who may use these while they close."""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib_socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import Buf, BufWriter, NotReady, PollEvented, TcpStream
from trio_asyncwrite._transports._fd import FdWriter

from .._patience import wait_all_tasks_blocked
from .._streams import clog, drain, pipe_pair, socket_pair, tcp_pair, unix_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    Pair = tuple[FdWriter, FdWriter]

LINGER = (stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER)
OFF, RESET, SECONDS = (struct.pack("ii", *linger) for linger in ((0, 0), (1, 0), (1, 2)))


async def polled_tcp_pair() -> Pair:
    """Both ends of a TCP connection, by their numbers."""
    left, right = await tcp_pair()
    numbers = os.dup(left.fileno()), os.dup(right.fileno())
    left.socket.close()
    right.socket.close()
    return PollEvented(numbers[0]), PollEvented(numbers[1])


@contextlib.asynccontextmanager
async def made(maker: Callable[[], Awaitable[Pair]]) -> AsyncGenerator[Pair]:
    left, right = await maker()
    try:
        yield left, right
    finally:
        await trio.aclose_forcefully(left)
        await trio.aclose_forcefully(right)


@pytest.fixture(params=[tcp_pair, polled_tcp_pair, unix_pair, socket_pair, pipe_pair])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """A writer and its reader, of each kind."""
    async with made(request.param) as ends:
        yield ends


@pytest.fixture(params=[tcp_pair, polled_tcp_pair])
async def tcp(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with made(request.param) as ends:
        yield ends


@pytest.fixture(params=[unix_pair, socket_pair, pipe_pair])
async def other(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """What is no TCP connection."""
    async with made(request.param) as ends:
        yield ends


def linger_of(stream: FdWriter) -> bytes:
    with stdlib_socket.socket(fileno=os.dup(stream.fileno())) as sock:
        found = sock.getsockopt(*LINGER, 8)
    return found if any(found[:4]) else OFF


def set_linger(stream: FdWriter, linger: bytes) -> None:
    with stdlib_socket.socket(fileno=os.dup(stream.fileno())) as sock:
        sock.setsockopt(*LINGER, linger)


async def reset_by_peer(stream: FdWriter, peer: FdWriter) -> None:
    set_linger(peer, RESET)
    await trio.aclose_forcefully(peer)
    with pytest.raises(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


# ---- Answers -----------------------------------------------------------------------------------


async def test_only_tcp_counts_what_is_unacknowledged(tcp: Pair) -> None:
    stream, peer = tcp
    assert stream.unacknowledged_bytes == 0
    clog(stream)
    assert stream.unacknowledged_bytes
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, peer)
        await stream.shutdown()
    while stream.unacknowledged_bytes:  # noqa: ASYNC110 - the kernel has no event for it
        await trio.sleep(0.001)
    assert stream.unacknowledged_bytes == 0


async def test_others_do_not_know_what_is_unacknowledged(other: Pair) -> None:
    assert other[0].unacknowledged_bytes is None
    assert not other[0].was_reset


async def test_a_read_error_is_a_reset_and_no_end(tcp: Pair) -> None:
    stream, peer = tcp
    assert not stream.was_reset
    assert not stream.peer_ended
    await reset_by_peer(stream, peer)
    assert stream.was_reset
    assert not stream.peer_ended


async def test_a_reset_that_nobody_was_told_of_is_known_to_the_kernel(tcp: Pair) -> None:
    stream, peer = tcp
    set_linger(peer, RESET)
    await trio.aclose_forcefully(peer)
    assert stream.was_reset


@pytest.mark.parametrize("direction", ["read", "write"])
async def test_a_timeout_is_no_reset(
    tcp: Pair, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, peer = tcp

    def fail(*_: object) -> Any:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    set_linger(peer, RESET)
    await trio.aclose_forcefully(peer)
    with monkeypatch.context() as patch:
        patch.setattr(os, direction, fail)
        with pytest.raises(trio.BrokenResourceError, match="timed out"):
            await (stream.receive_some() if direction == "read" else stream.write(b"x"))
    assert not stream.was_reset


async def test_what_the_peer_has_ended_is_seen_by_reading(pair: Pair) -> None:
    writer, reader = pair
    await writer.aclose()
    assert not reader.peer_ended
    assert await drain(reader) == b""
    assert reader.peer_ended


async def test_after_both_have_ended_nothing_was_reset(tcp: Pair) -> None:
    stream, peer = tcp
    await stream.shutdown()
    await peer.aclose()
    assert await drain(stream) == b""
    assert not stream.was_reset
    assert stream.peer_ended


async def test_sockets_and_pipes_can_be_half_closed(pair: Pair) -> None:
    assert pair[0].half_closes


async def test_a_terminal_has_no_end_to_say() -> None:
    main, terminal = os.openpty()
    streams = PollEvented(main), PollEvented(terminal)
    for stream in streams:
        assert not stream.half_closes
        assert stream.drain_source() is stream
    for stream in streams:
        await stream.aclose()


async def test_input_is_drained_where_there_is_some_and_nobody_else_reads_it(pair: Pair) -> None:
    writer, reader = pair
    assert writer.drain_source() is (writer if writer.is_socket else None)
    assert reader.drain_source() is reader
    borrowed = PollEvented(reader.fileno(), close=False)
    assert borrowed.drain_source() is None
    await borrowed.aclose()


async def test_a_closed_stream_names_no_descriptor(pair: Pair) -> None:
    writer, _ = pair
    assert writer.descriptor == writer.fileno()
    await writer.aclose()
    assert writer.descriptor is None
    assert writer.unacknowledged_bytes is None
    writer.arm_reset(on=True)


# ---- The reset that is kept ready ----------------------------------------------------------------


@pytest.mark.parametrize("before", [OFF, RESET, SECONDS], ids=["off", "reset", "seconds"])
async def test_arming_the_reset_gives_the_users_own_setting_back(tcp: Pair, before: bytes) -> None:
    stream, _ = tcp
    set_linger(stream, before)
    stream.arm_reset(on=False)
    assert linger_of(stream) == before
    for _ in range(2):
        stream.arm_reset(on=True)
        assert linger_of(stream) == RESET
    for _ in range(2):
        stream.arm_reset(on=False)
        assert linger_of(stream) == before


async def test_only_a_tcp_stream_of_ours_is_armed(other: Pair) -> None:
    stream = other[0]
    stream.arm_reset(on=True)
    if stream.is_socket:
        assert linger_of(stream) == OFF


async def test_a_borrowed_descriptor_is_not_armed(tcp: Pair) -> None:
    borrowed = PollEvented(tcp[0].fileno(), close=False)
    borrowed.arm_reset(on=True)
    assert linger_of(tcp[0]) == OFF
    await borrowed.aclose()


async def test_a_message_cut_short_arms_the_reset_and_a_finished_buf_disarms_it(tcp: Pair) -> None:
    stream, peer = tcp
    set_linger(stream, SECONDS)
    buf = Buf(bytes(10_000_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write_all_buf, buf)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert linger_of(stream) == RESET
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, peer)
        await stream.write_all_buf(buf)
        assert linger_of(stream) == SECONDS
        await stream.aclose()


# ---- Several tasks -------------------------------------------------------------------------------


async def test_several_tasks_may_wait_for_one_descriptor(pair: Pair) -> None:
    """The kernel's wait bears one; the others wait for the task that makes it."""
    writer, reader = pair
    clog(writer)
    with pytest.raises(NotReady) as full:
        writer.poll_write(b"x")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(full.value.wait)
        await wait_all_tasks_blocked()
        with pytest.raises(NotReady) as empty:
            while reader.poll_read(65536):
                pass
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(empty.value.wait)
        await wait_all_tasks_blocked()
        await writer.write(b"x")


async def test_when_the_waiting_task_leaves_the_others_go_on(pair: Pair) -> None:
    writer, reader = pair
    clog(writer)
    with pytest.raises(NotReady) as full:
        writer.poll_write(b"x")
    first = trio.CancelScope()

    async def leave() -> None:
        with first:
            await full.value.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        nursery.start_soon(full.value.wait)
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        await reader.receive_some()


@pytest.mark.parametrize("handle", ["the stream", "a buffer", "by_ref of a buffer"])
async def test_a_close_beside_a_waiting_write_is_not_busy_and_loses_nothing(
    pair: Pair, handle: str
) -> None:
    """What was accepted arrives, as long as the peer reads."""
    stream, reader = pair
    count = clog(stream)
    buffer = BufWriter(stream, 1_000_000)
    await buffer.write_all(b"held")
    closing: Any = {
        "the stream": stream,
        "a buffer": buffer,
        "by_ref of a buffer": buffer.by_ref(),
    }[handle]
    received = []

    async def receive() -> None:
        received.append(await drain(reader))

    async def flush() -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            await buffer.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        await wait_all_tasks_blocked()
        nursery.start_soon(closing.aclose)
        await wait_all_tasks_blocked()
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await buffer.aclose()
    assert received == [bytes(count) + b"held"]


async def test_once_a_close_has_begun_everybody_else_is_refused(pair: Pair) -> None:
    """Readers included; the close goes on until all that was accepted has gone."""
    writer, reader = pair
    count = clog(writer)
    buffer = BufWriter(writer)
    await buffer.write_all(b"held")
    reads = [writer.receive_some] if writer.is_socket else []

    async with trio.open_nursery() as nursery:

        async def waits() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await reads[0]()

        if reads:
            nursery.start_soon(waits)
        await wait_all_tasks_blocked()
        nursery.start_soon(buffer.aclose)
        await wait_all_tasks_blocked()
        for call in (
            lambda: writer.write(b"x"),
            lambda: writer.send_all(b"x"),
            lambda: buffer.write_all(b"x"),
            writer.flush,
            buffer.flush,
            writer.shutdown,
            writer.wait_send_all_might_not_block,
            writer.receive_some,
        ):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(trio.ClosedResourceError):
            writer.poll_write(b"x")
        assert await drain(reader) == bytes(count) + b"held"


async def test_a_wait_to_read_from_a_descriptor_closed_behind_our_back() -> None:
    reading, writing = os.pipe()
    stream = PollEvented(reading)
    with pytest.raises(NotReady) as empty:
        stream.poll_read(1)
    os.close(reading)
    os.close(writing)
    with pytest.raises(trio.ClosedResourceError):
        await empty.value.wait()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    with contextlib.suppress(trio.ClosedResourceError):
        await stream.aclose()


def test_a_stream_that_does_not_know_its_socket_is_not_armed() -> None:
    stream = FdWriter()
    stream.arm_reset(on=True)
    assert stream.linger_socket() is None


async def test_an_end_that_the_trio_stream_has_sent_is_not_sent_again() -> None:
    left, peer = stdlib_socket.socketpair()
    with peer:
        trio_stream = trio.SocketStream(trio.socket.from_stdlib_socket(left))
        stream = TcpStream(trio_stream)
        await trio_stream.send_eof()
        assert stream.has_sent_end()
        await stream.shutdown()
        assert peer.recv(1) == b""
        await stream.aclose()
