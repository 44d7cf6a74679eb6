"""What the peer's kernel has acknowledged, by the count and by the wait for it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket as stdlib_socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints

from trio_asyncwrite._transports._borrowed_socket import BorrowedSocket
from trio_asyncwrite._transports._tcp_info import (
    has_ended,
    is_gone,
    next_pause,
    unacknowledged_bytes,
)

from .._interrupts import interrupt_everywhere
from .._patience import wait_all_tasks_blocked
from .._streams import clog, connected, drain, drain_while, reset, tcp_pair, unix_pair

if TYPE_CHECKING:
    from trio_asyncwrite import TcpStream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def in_flight(stream: TcpStream) -> int | None:
    return unacknowledged_bytes(stream.fileno(), ended=stream.socket.did_shutdown_SHUT_WR)


# ---- The count ---------------------------------------------------------------------------------


async def test_an_idle_connection_has_nothing_in_flight() -> None:
    async with connected(tcp_pair) as (left, _):
        assert in_flight(left) == 0
        assert is_gone(left.fileno()) is False
        assert not has_ended(left.fileno())


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
        assert not has_ended(left.fileno())
        assert in_flight(left) == before
        # Asking has not taken the error from those who need it.
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await left.receive_some()


async def test_a_connection_has_ended_when_both_sides_have() -> None:
    async with connected(tcp_pair) as (left, right):
        await right.send_all(b"answer")
        await left.shutdown()
        assert not has_ended(left.fileno())
        await drain_while(left, right.shutdown)
        await right.aclose()
        while not is_gone(left.fileno()):
            await trio.lowlevel.checkpoint()

        assert has_ended(left.fileno())
        assert interrupt_everywhere(lambda: has_ended(left.fileno())) > 10
        os.fstat(left.fileno())


async def test_nothing_is_known_of_other_things() -> None:
    reading, writing = os.pipe()
    try:
        for fd in (-1, writing):
            assert unacknowledged_bytes(fd, ended=False) is None
            assert is_gone(fd) is None
            assert not has_ended(fd)
    finally:
        os.close(reading)
        os.close(writing)
    async with connected(unix_pair) as (left, _):
        assert in_flight(left) is None
    with stdlib_socket.socket(type=stdlib_socket.SOCK_DGRAM) as sock:
        assert unacknowledged_bytes(sock.fileno(), ended=False) is None


def refuse(monkeypatch: pytest.MonkeyPatch, probe: str, code: int) -> None:
    """Let the kernel refuse a probe, as sandboxes, emulators and other protocols do."""

    def fail(*args: object) -> Any:
        raise OSError(code, os.strerror(code))

    owner = fcntl if probe == "ioctl" else BorrowedSocket
    monkeypatch.setattr(owner, probe, fail)


REFUSALS = pytest.mark.parametrize(
    "code",
    [errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.EACCES, errno.ENOPROTOOPT, errno.ENOSYS],
    ids=errno.errorcode.get,
)


@REFUSALS
async def test_a_refused_probe_knows_nothing(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    async with connected(tcp_pair) as (left, _):
        clog(left)
        for probe in ("ioctl", "getpeername", "__init__"):
            refuse(monkeypatch, probe, code)
            # Each probe answers for itself.
            assert (in_flight(left) is None) == (probe != "getpeername")
            assert (is_gone(left.fileno()) is None) == (probe != "ioctl")
            monkeypatch.undo()


async def test_a_short_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *args: bytes(2))
    async with connected(tcp_pair) as (left, _):
        assert in_flight(left) is None


@pytest.mark.parametrize("clogged", [False, True])
async def test_ctrl_c_in_a_probe_leaves_the_descriptor_open(*, clogged: bool) -> None:
    async with connected(tcp_pair) as (left, _):
        if clogged:
            clog(left)
        number = left.fileno()
        for probe in (
            lambda: unacknowledged_bytes(number, ended=True),
            lambda: is_gone(number),
            lambda: has_ended(number),
            lambda: unacknowledged_bytes(number, ended=False),
        ):
            assert interrupt_everywhere(probe) > 5
            os.fstat(number)


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
        with trio.move_on_after(1) as scope:
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


@REFUSALS
@pytest.mark.parametrize("probe", ["ioctl", "getpeername"])
async def test_wait_acknowledged_does_not_wait_for_a_kernel_that_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, probe: str, code: int
) -> None:
    """Or a reset that it cannot see would make it wait for ever."""
    async with connected(tcp_pair) as (left, right):
        sent = clog(left)
        refuse(monkeypatch, probe, code)
        for _ in range(2):
            with pytest.raises(NotImplementedError, match="does not tell"), assert_checkpoints():
                await left.wait_acknowledged()

        # It was no failure of the stream.
        await left.shutdown()
        assert len(await drain(right)) == sent
