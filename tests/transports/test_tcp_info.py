"""What the peer's kernel has acknowledged, by the count and by the wait for it."""

from __future__ import annotations

import os
import socket as stdlib_socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_asyncwrite._transports._tcp_info import is_gone, next_pause, unacknowledged_bytes

from .._streams import clog, connected, drain, reset, tcp_pair, unix_pair

if TYPE_CHECKING:
    from trio_asyncwrite import TcpStream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def in_flight(stream: TcpStream) -> int | None:
    return unacknowledged_bytes(stream.fileno(), ended=stream.socket.did_shutdown_SHUT_WR)


# ---- The count ---------------------------------------------------------------------------------


async def test_an_idle_connection_has_nothing_in_flight() -> None:
    async with connected(tcp_pair) as (left, _):
        assert in_flight(left) == 0
        assert not is_gone(left.fileno())


async def test_what_the_peer_has_no_room_for_is_in_flight() -> None:
    async with connected(tcp_pair) as (left, right):
        sent = clog(left)
        count = in_flight(left)

        assert count is not None
        assert 0 < count < sent
        await left.shutdown()
        # The end-of-file has a sequence number, but it is no byte.
        assert in_flight(left) == count
        await drain(right)
        await left.wait_acknowledged()
        assert in_flight(left) == 0


@pytest.mark.parametrize("clogged", [False, True])
async def test_a_reset_connection_is_gone(*, clogged: bool) -> None:
    async with connected(tcp_pair) as (left, right):
        if clogged:
            clog(left)
        before = in_flight(left)
        reset(right)

        assert is_gone(left.fileno())
        assert in_flight(left) == before
        # Asking has not taken the error from those who need it.
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await left.receive_some()


async def test_there_is_no_count_for_other_things() -> None:
    reading, writing = os.pipe()
    try:
        for fd in (-1, writing):
            assert unacknowledged_bytes(fd, ended=False) is None
            assert is_gone(fd)
    finally:
        os.close(reading)
        os.close(writing)
    async with connected(unix_pair) as (left, _):
        assert in_flight(left) is None
    with stdlib_socket.socket(type=stdlib_socket.SOCK_DGRAM) as sock:
        assert unacknowledged_bytes(sock.fileno(), ended=False) is None


def test_a_pause_is_as_long_as_was_waited_already_within_bounds() -> None:
    assert [next_pause(waited) for waited in (0, 0.002, 0.05, 3)] == [0.001, 0.002, 0.05, 0.1]


# ---- The wait ----------------------------------------------------------------------------------


async def test_wait_acknowledged_returns_at_once_if_nothing_is_in_flight() -> None:
    async with connected(tcp_pair) as (left, right):
        with assert_checkpoints():
            await left.wait_acknowledged()
        await left.send_all(b"x")
        await left.shutdown()
        await drain(right)
        await left.wait_acknowledged()


async def test_wait_acknowledged_waits_until_the_peer_has_room_for_all() -> None:
    async with connected(tcp_pair) as (left, right):
        sent = clog(left)
        done = trio.Event()

        async def wait() -> None:
            await left.wait_acknowledged()
            done.set()

        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not done.is_set()
            while received < sent:
                received += len(await right.receive_some())
        assert in_flight(left) == 0


async def test_wait_acknowledged_can_be_cancelled_and_called_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connected(tcp_pair) as (left, right):
        clog(left)
        with trio.move_on_after(60) as scope:
            await left.wait_acknowledged()

        assert scope.cancelled_caught
        await left.shutdown()
        await drain(right)
        await left.wait_acknowledged()


@pytest.mark.parametrize("waiting", [False, True])
async def test_wait_acknowledged_raises_when_the_connection_ends_before(*, waiting: bool) -> None:
    async with connected(tcp_pair) as (left, right):
        clog(left)
        if not waiting:
            reset(right)
        with pytest.RaisesGroup(
            pytest.RaisesExc(trio.BrokenResourceError, match="bytes unacknowledged")
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.wait_acknowledged)
                await wait_all_tasks_blocked()
                if waiting:
                    reset(right)

        # It is sticky, as all errors are.
        with pytest.raises(trio.BrokenResourceError, match="has failed before"):
            await left.wait_acknowledged()


async def test_wait_acknowledged_does_not_share_the_writer() -> None:
    async with connected(tcp_pair) as (left, _):
        clog(left)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.wait_acknowledged)
            await wait_all_tasks_blocked()

            with pytest.raises(trio.BusyResourceError):
                await left.write(b"x")
            with pytest.raises(trio.BusyResourceError):
                await left.wait_acknowledged()
            nursery.cancel_scope.cancel()


async def test_another_task_may_close_the_stream_meanwhile() -> None:
    async with connected(tcp_pair) as (left, _):
        clog(left)
        with pytest.RaisesGroup(trio.ClosedResourceError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.wait_acknowledged)
                await wait_all_tasks_blocked()
                await left.aclose()

        with pytest.raises(trio.ClosedResourceError):
            await left.wait_acknowledged()


async def test_wait_acknowledged_of_a_unix_socket_says_that_it_cannot_tell() -> None:
    async with connected(unix_pair) as (left, _):
        with pytest.raises(NotImplementedError, match="only of TCP"):
            await left.wait_acknowledged()
        # It was no failure of the stream.
        await left.send_all(b"x")
