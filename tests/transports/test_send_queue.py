"""The mark up to which the kernel may hold unsent bytes: it follows the reader, and the user."""

from __future__ import annotations

import contextlib
import os
import socket as stdlib_socket
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
import trio
import trio.testing

from trio_asyncwrite import FilePart, NotReady, TcpStream
from trio_asyncwrite._transports._send_queue import (
    HIGHEST,
    LOWEST,
    NOT_OURS,
    change_mark,
    first_mark,
    mark_after_full,
    mark_after_wait,
)

from .._streams import connected, fill, unix_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux adapts it")

KIB = 1024
MS = 0.001


# ---- The rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "seconds", "after"),
    [
        (LOWEST, 0.0, 2 * LOWEST),
        (LOWEST, 0.9 * MS, 2 * LOWEST),
        (LOWEST, 1 * MS, LOWEST),
        (LOWEST, 50 * MS, LOWEST),
        (LOWEST, 51 * MS, LOWEST),
        (LOWEST, 3600.0, LOWEST),
        (256 * KIB, 0.5 * MS, 512 * KIB),
        (256 * KIB, 5 * MS, 256 * KIB),
        (256 * KIB, 50 * MS, 256 * KIB),
        (256 * KIB, 51 * MS, LOWEST),
        (HIGHEST, 0.0, HIGHEST),
        (HIGHEST, 10 * MS, HIGHEST),
        (HIGHEST, 1.0, LOWEST),
    ],
)
def test_a_short_wait_doubles_it_and_a_long_one_sets_it_back(
    mark: int, seconds: float, after: int
) -> None:
    assert mark_after_wait(mark, seconds) == after


def test_from_the_least_to_the_most_it_takes_eight_short_waits() -> None:
    mark = LOWEST
    for _ in range(8):
        assert mark < HIGHEST
        mark = mark_after_wait(mark, 0.0)
    assert mark == HIGHEST


@pytest.mark.parametrize("rate", [10_000, 200_000, 10_000_000, 1_000_000_000, 10_000_000_000])
def test_what_is_unsent_leaves_within_a_tenth_of_a_second(rate: int) -> None:
    """In bytes per second, and from whatever rate the reader falls to this one.

    The kernel wakes the writer when the queue is half empty.
    """
    for begin in (LOWEST, 128 * KIB, HIGHEST):
        mark = begin
        for _ in range(20):
            mark = mark_after_wait(mark, mark / 2 / rate)
        assert mark == LOWEST or mark / rate <= 0.1
        if rate == 200_000:
            assert mark <= 256 * KIB
        if rate >= 10_000_000_000:
            assert mark == HIGHEST


@pytest.mark.parametrize(
    ("mark", "count", "seconds", "after"),
    [
        (LOWEST, LOWEST, 0.0, 2 * LOWEST),
        (LOWEST, LOWEST // 2, 0.9 * MS, 2 * LOWEST),
        (LOWEST, LOWEST // 2 - 1, 0.0, LOWEST),
        (LOWEST, 1 << 30, 1 * MS, LOWEST),
        (256 * KIB, 256 * KIB, 3600.0, 256 * KIB),  # the user had nothing to write
        (HIGHEST, HIGHEST, 0.0, HIGHEST),
    ],
)
def test_two_full_queues_double_it_if_half_has_left_soon(
    mark: int, count: int, seconds: float, after: int
) -> None:
    assert mark_after_full(mark, count, seconds) == after


# ---- The option ----------------------------------------------------------------------------------


class Options:
    """A socket of which only the options count."""

    def __init__(self, **refusals: OSError) -> None:
        self.mark = LOWEST
        self.lock = 0
        self.refusals = refusals

    def getsockopt(self, level: int, option: int) -> int:
        if option == 72:
            if "lock" in self.refusals:
                raise self.refusals["lock"]
            return self.lock
        assert (level, option) == (stdlib_socket.IPPROTO_TCP, 25)
        if "get" in self.refusals:
            raise self.refusals["get"]
        return self.mark

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if "set" in self.refusals:
            raise self.refusals["set"]
        self.mark = value


@only_linux
@pytest.mark.parametrize(
    ("mark", "lock", "refused", "result"),
    [
        (LOWEST, 0, "", 2 * LOWEST),
        (LOWEST, 2, "", 2 * LOWEST),  # SO_RCVBUF, which is something else
        (LOWEST, 0, "lock", 2 * LOWEST),  # Linux before 5.15 does not tell
        (LOWEST, 1, "", NOT_OURS),
        (LOWEST, 3, "", NOT_OURS),
        (LOWEST + 1, 0, "", NOT_OURS),
        (2**31 - 1, 0, "", NOT_OURS),
        (LOWEST, 0, "get", NOT_OURS),
        (LOWEST, 0, "set", NOT_OURS),
    ],
)
def test_it_is_changed_only_while_it_is_ours(
    mark: int, lock: int, refused: str, result: int
) -> None:
    sock: Any = Options(**{refused: OSError(22, "refused")} if refused else {})
    sock.mark, sock.lock = mark, lock
    assert change_mark(sock, LOWEST, 2 * LOWEST) == result
    assert sock.mark == (2 * LOWEST if result else mark)


async def test_unix_sockets_have_none() -> None:
    async with connected(unix_pair) as (left, _):
        assert left._mark == NOT_OURS


async def test_a_socket_that_knows_nothing_has_none() -> None:
    class Ignorant(trio.socket.SocketType):
        """What a test of somebody's may have; the rest raises NotImplementedError."""

        type = stdlib_socket.SOCK_STREAM
        did_shutdown_SHUT_WR = False  # noqa: N815 - Trio's name

        def getpeername(self) -> None:
            """Look connected."""

        def setsockopt(self, *_: object) -> None:
            """Look willing."""

        def fileno(self) -> int:
            return -1

    stream = TcpStream(Ignorant())
    assert stream._mark == NOT_OURS
    assert stream.unacknowledged_bytes is None


async def test_other_systems_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.socket.socket() as sock:
        monkeypatch.setattr(sys, "platform", "linux")
        assert first_mark(sock) == LOWEST
        monkeypatch.setattr(sys, "platform", "darwin")
        assert first_mark(sock) == NOT_OURS


# ---- A stream ------------------------------------------------------------------------------------


async def plain_pair() -> tuple[TcpStream, TcpStream]:
    """The kernel's own buffers: whoever sets SO_SNDBUF wants none of this."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = trio.socket.socket()
        await client.connect(listener.getsockname())
        server, _ = await listener.accept()
    return TcpStream(client), TcpStream(server)


OPTION = stdlib_socket.IPPROTO_TCP, getattr(stdlib_socket, "TCP_NOTSENT_LOWAT", 25)


def mark_of(stream: TcpStream) -> int:
    return stream.socket.getsockopt(*OPTION)


def read_all(reader: TcpStream) -> None:
    with contextlib.suppress(NotReady):
        while True:
            reader.poll_read(1 << 20)


async def wait_for_room(writer: TcpStream, reader: TcpStream, seconds: float = 0) -> None:
    """Let a write wait for so long, by a clock that stands still meanwhile."""
    fill(writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write, b"x")
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(seconds)
        read_all(reader)  # without awaits: they would let the clock jump


@only_linux
async def test_a_stream_follows_its_reader(impatient_clock: trio.testing.MockClock) -> None:
    async with connected(plain_pair) as (left, right):
        assert mark_of(left) == LOWEST
        for mark in (2 * LOWEST, 4 * LOWEST):
            await wait_for_room(left, right)
            assert mark_of(left) == mark
        await wait_for_room(left, right, 0.02)
        assert mark_of(left) == 4 * LOWEST
        await wait_for_room(left, right, 1.0)
        assert mark_of(left) == LOWEST
        await wait_for_room(left, right)
        assert mark_of(left) == 2 * LOWEST


# Ways to the kernel, which answers that it has taken half.
OFFERED = 128 * KIB


def write(stream: TcpStream, file: BinaryIO) -> int:
    return stream.poll_write(bytes(OFFERED))


def write_vectored(stream: TcpStream, file: BinaryIO) -> int:
    return stream.poll_write_vectored([bytes(OFFERED // 2)] * 2)


def write_file(stream: TcpStream, file: BinaryIO) -> int:
    return stream.poll_write_file(FilePart(file, 0), OFFERED)


def splice(stream: TcpStream, file: BinaryIO) -> int:
    return stream.poll_splice_from(file.fileno(), OFFERED)


WAYS = {write: "write", write_vectored: "writev", write_file: "sendfile", splice: "splice"}


@only_linux
@pytest.mark.parametrize("way", WAYS)
async def test_a_writer_that_finds_room_again_and_again_need_not_wait(
    way: Callable[[TcpStream, BinaryIO], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    impatient_clock: trio.testing.MockClock,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(OFFERED))

    async with connected(plain_pair) as (left, _):
        with path.open("rb") as file:

            def find_full(seconds: float = 0, *, answer: int = OFFERED // 2) -> int:
                impatient_clock.jump(seconds)
                with monkeypatch.context() as patch:
                    patch.setattr(os, WAYS[way], lambda *_, **__: answer)
                    assert way(left, file) == answer
                return mark_of(left)

            assert find_full() == LOWEST
            assert find_full() == 2 * LOWEST
            assert find_full(0.002) == 2 * LOWEST  # too slow
            assert find_full(answer=4 * KIB) == 2 * LOWEST  # too little
            assert find_full(answer=OFFERED) == 2 * LOWEST  # not full
            assert find_full() == 4 * LOWEST
            # What leaves during a wait counts once.
            await left._wait_writable()
            assert mark_of(left) == 8 * LOWEST
            assert find_full() == 8 * LOWEST
            assert find_full() == 16 * LOWEST == 4 * OFFERED // 2
            assert find_full() == 16 * LOWEST  # less than half of it


@only_linux
async def test_the_kernel_is_found_full(impatient_clock: trio.testing.MockClock) -> None:
    async with connected(plain_pair) as (left, right):
        for mark in (LOWEST, 2 * LOWEST, 4 * LOWEST):
            left.poll_write(bytes(24 << 20))  # more than all buffers hold
            assert mark_of(left) == mark
            read_all(right)


@only_linux
async def test_a_full_queue_of_the_users_is_left_alone(
    impatient_clock: trio.testing.MockClock,
) -> None:
    async with connected(plain_pair) as (left, right):
        left.setsockopt(*OPTION, LOWEST)
        for _ in range(3):
            left.poll_write(bytes(24 << 20))
            assert mark_of(left) == LOWEST
            read_all(right)


@only_linux
def test_outside_of_a_run_a_poll_learns_nothing() -> None:
    left, right = trio.run(plain_pair)
    for _ in range(3):
        left.poll_write(bytes(24 << 20))
        assert mark_of(left) == LOWEST
        read_all(right)
    for stream in (left, right):
        trio.run(trio.aclose_forcefully, stream)


def set_mark(stream: TcpStream) -> None:
    stream.setsockopt(*OPTION, 65536)


def set_mark_to_the_same(stream: TcpStream) -> None:
    stream.setsockopt(*OPTION, mark_of(stream))


def set_mark_of_the_socket(stream: TcpStream) -> None:
    stream.socket.setsockopt(*OPTION, 65536)


def set_buffer(stream: TcpStream) -> None:
    stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 100_000)


def set_buffer_of_the_socket(stream: TcpStream) -> None:
    stream.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 100_000)


each_take_over = pytest.mark.parametrize(
    "take_over",
    [
        set_mark,
        set_mark_to_the_same,
        set_mark_of_the_socket,
        set_buffer,
        set_buffer_of_the_socket,
    ],
)


@only_linux
@each_take_over
@pytest.mark.parametrize("before", [0, 1])
async def test_the_user_takes_over_for_ever(
    take_over: Callable[[TcpStream], None],
    before: int,
    impatient_clock: trio.testing.MockClock,
) -> None:
    async with connected(plain_pair) as (left, right):
        for _ in range(before):
            await wait_for_room(left, right)
        take_over(left)
        chosen = mark_of(left)
        for _ in range(2):
            await wait_for_room(left, right)
            assert mark_of(left) == chosen
        left.socket.setsockopt(*OPTION, LOWEST)
        await wait_for_room(left, right)
        assert mark_of(left) == LOWEST


@only_linux
@each_take_over
async def test_the_user_takes_over_while_a_write_waits(
    take_over: Callable[[TcpStream], None], impatient_clock: trio.testing.MockClock
) -> None:
    async with connected(plain_pair) as (left, right):
        fill(left)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.write, b"x")
            await trio.testing.wait_all_tasks_blocked()
            take_over(left)
            chosen = mark_of(left)
            read_all(right)
        assert mark_of(left) == chosen


@only_linux
async def test_other_options_change_nothing(impatient_clock: trio.testing.MockClock) -> None:
    async with connected(plain_pair) as (left, right):
        left.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        await wait_for_room(left, right)
        assert mark_of(left) == 2 * LOWEST


@only_linux
async def test_waits_that_are_cut_short_count_together(
    impatient_clock: trio.testing.MockClock,
) -> None:
    """A user's timeout may be shorter than what is a long wait."""
    async with connected(plain_pair) as (left, right):
        for _ in range(2):
            await wait_for_room(left, right)
        fill(left)
        for mark in (4 * LOWEST, LOWEST):
            with trio.move_on_after(0.03):
                await left.write(b"x")
            assert mark_of(left) == mark
        await wait_for_room(left, right)
        assert mark_of(left) == LOWEST  # all of it was one long wait
        await wait_for_room(left, right)
        assert mark_of(left) == 2 * LOWEST


@only_linux
@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize("anew", [False, True])
async def test_another_stream_of_the_same_socket_goes_on(
    *, anew: bool, taken_over: bool, impatient_clock: trio.testing.MockClock
) -> None:
    """Trio sets the mark back when it makes a stream of the socket anew."""
    async with connected(plain_pair) as (left, right):
        stream = trio.SocketStream(left.socket)
        first = TcpStream(stream)
        await wait_for_room(first, right)
        assert mark_of(first) == 2 * LOWEST
        if taken_over:
            first.setsockopt(*OPTION, 2 * LOWEST)
        other = TcpStream(trio.SocketStream(left.socket) if anew else stream)
        await wait_for_room(other, right)
        if taken_over:
            assert mark_of(other) == (LOWEST if anew else 2 * LOWEST)
        else:
            assert mark_of(other) == (2 if anew else 4) * LOWEST
        for one in (first, other):
            await trio.aclose_forcefully(one)


@only_linux
async def test_the_mark_of_a_closed_socket_is_not_asked_for(
    impatient_clock: trio.testing.MockClock,
) -> None:
    async with connected(plain_pair) as (left, right):
        await wait_for_room(left, right)
        sock = left.socket
        sock.close()
        assert first_mark(sock) == 2 * LOWEST
