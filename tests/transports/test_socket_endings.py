"""How sockets end, whichever stream is over them."""

from __future__ import annotations

import errno
import gc
import os
import socket as stdlib_socket
import struct
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, call

import pytest
import trio

from trio_asyncwrite import (
    CloseOutcome,
    CloseReport,
    PollEvented,
    TcpStream,
    close_gracefully,
    wrap_stream,
)
from trio_asyncwrite._transports._borrowed_socket import BorrowedSocket
from trio_asyncwrite._transports._linger import prepare_close
from trio_asyncwrite._transports._tcp_info import is_gone

from .._interrupts import interrupt_everywhere
from .._patience import wait_all_tasks_blocked
from .._streams import clog, drain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio_asyncwrite._transports._fd import FdWriter

LINGER = (stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER)
OFF, RESET, SECONDS = (struct.pack("ii", *linger) for linger in ((0, 0), (1, 0), (1, 2)))


class Ends:
    """A stream, a duplicate of its descriptor, and its peer."""

    def __init__(
        self, stream: FdWriter, duplicate: stdlib_socket.socket, peer: stdlib_socket.socket
    ) -> None:
        self.stream = stream
        self.duplicate = duplicate
        self.peer = peer

    @property
    def linger(self) -> bytes:
        """SO_LINGER of the stream's socket, also when the stream is closed."""
        found = self.duplicate.getsockopt(*LINGER, 8)
        return found if any(found[:4]) else OFF  # the kernel keeps the time of what is off


def tcp_sockets() -> tuple[stdlib_socket.socket, stdlib_socket.socket]:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        left = stdlib_socket.create_connection(listener.getsockname())
        return left, listener.accept()[0]


STREAMS: dict[str, Callable[[stdlib_socket.socket], FdWriter]] = {
    "TcpStream": lambda sock: TcpStream(trio.socket.from_stdlib_socket(sock)),
    "PollEvented(socket)": PollEvented,
    "PollEvented(number)": lambda sock: PollEvented(sock.detach()),
}
SOCKETS = {"TCP": tcp_sockets, "Unix": stdlib_socket.socketpair}


@pytest.fixture(params=STREAMS)
def over(request: pytest.FixtureRequest) -> Callable[[stdlib_socket.socket], FdWriter]:
    return STREAMS[request.param]


@pytest.fixture(params=SOCKETS)
def sockets(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return SOCKETS[request.param]


@pytest.fixture
async def ends(
    over: Callable[[stdlib_socket.socket], FdWriter], sockets: Callable[[], Any]
) -> AsyncIterator[Ends]:
    left, peer = sockets()
    with left.dup() as duplicate, peer:
        ends = Ends(over(left), duplicate, peer)
        yield ends
        if hasattr(ends, "stream"):
            await ends.stream.release(clean=True)


# ---- Closing does not block ------------------------------------------------------------------


@pytest.mark.parametrize("before", [OFF, RESET, SECONDS], ids=["off", "reset", "seconds"])
@pytest.mark.parametrize("end", ["aclose", "aclose_forcefully", "unclean", "garbage"])
@pytest.mark.filterwarnings("ignore:unclosed :ResourceWarning")
async def test_no_close_waits_for_the_peer(ends: Ends, before: bytes, end: str) -> None:
    """SO_LINGER with a time would block the whole run; a reset that the user wants stays one."""
    ends.duplicate.setsockopt(*LINGER, before)
    if end == "aclose":
        await ends.stream.aclose()
    elif end == "aclose_forcefully":
        await trio.aclose_forcefully(ends.stream)
    elif end == "unclean":
        await ends.stream.release(clean=False)
    del ends.stream
    gc.collect()

    assert ends.linger == (RESET if end == "unclean" or before == RESET else OFF)


@pytest.mark.parametrize(
    "refused",
    [OSError(errno.EINVAL, "refused"), NotImplementedError("a fake"), True, b"", b"1234"],
    ids=repr,
)
async def test_a_kernel_that_does_not_know_so_linger(
    refused: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked in vain; what it takes is set all the same."""
    left, right = tcp_sockets()
    with right:
        stream = TcpStream(trio.socket.from_stdlib_socket(left))
        answer = Mock(side_effect=refused if isinstance(refused, Exception) else None)
        answer.return_value = refused
        sock = Mock(getsockopt=answer)
        prepare_close(sock, reset=True)
        assert sock.setsockopt.mock_calls == [call(*LINGER, RESET)]
        sock.setsockopt.side_effect = OSError(errno.EINVAL, "refused")
        prepare_close(sock, reset=True)
        sock.setsockopt.side_effect = NotImplementedError
        prepare_close(sock, reset=True)
        await stream.aclose()


async def test_a_lent_socket_keeps_its_linger() -> None:
    left, right = tcp_sockets()
    with left, right:
        left.setsockopt(*LINGER, SECONDS)
        for close in (trio.aclose_forcefully, PollEvented.aclose):
            await close(PollEvented(left, close=False))
        PollEvented(left, close=False)

        assert left.getsockopt(*LINGER, 8) == SECONDS
        left.setsockopt(*LINGER, OFF)


@pytest.mark.filterwarnings("ignore:unclosed <PollEvented:ResourceWarning")
async def test_garbage_does_not_touch_the_new_owner_of_its_number() -> None:
    left, right = tcp_sockets()
    with left, right:
        number = right.detach()
        streams = [PollEvented(number)]
        left.setsockopt(*LINGER, SECONDS)
        os.dup2(left.fileno(), number)
        streams.clear()
        gc.collect()

        assert left.getsockopt(*LINGER, 8) == SECONDS
        left.setsockopt(*LINGER, OFF)
        os.close(number)


def test_a_stream_that_was_never_made_is_collected_without_a_word() -> None:
    with pytest.raises(TypeError):
        TcpStream(7)  # type: ignore[arg-type]
    gc.collect()


# ---- Ctrl-C ----------------------------------------------------------------------------------


async def test_ctrl_c_in_the_constructor_leaves_the_descriptor_open() -> None:
    left, right = stdlib_socket.socketpair()
    with left, right:

        def make() -> None:
            PollEvented(left.fileno(), close=False)

        assert interrupt_everywhere(make) > 10
        os.set_blocking(left.fileno(), True)
        left.send(b"x")
        assert right.recv(1) == b"x"


async def test_ctrl_c_in_a_shutdown_leaves_the_descriptor_open(ends: Ends) -> None:
    number = ends.stream.fileno()

    assert interrupt_everywhere(ends.stream.poll_shutdown) > 3
    os.fstat(number)
    assert ends.peer.recv(1) == b""


# ---- Packets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_SEQPACKET"])
async def test_packet_sockets_are_refused(kind: str) -> None:
    """They have no byte stream: a packet that is cut loses its rest."""
    left, right = stdlib_socket.socketpair(type=getattr(stdlib_socket, kind))
    with left, right, trio.socket.from_stdlib_socket(left.dup()) as trios:
        fd_stream = trio.lowlevel.FdStream(os.dup(left.fileno()))
        os.set_blocking(left.fileno(), True)  # Trio has switched it for all duplicates
        makers: list[Callable[[], object]] = [
            lambda: TcpStream(trios),
            lambda: PollEvented(trios),
            lambda: PollEvented(left),
            lambda: PollEvented(left.fileno()),
            lambda: wrap_stream(fd_stream),
        ]
        for make in makers:
            with pytest.raises(TypeError, match=f"byte stream.*{kind}"):
                make()
        assert os.get_blocking(left.fileno())
        left.send(b"still mine")
        assert right.recv(10) == b"still mine"
        await fd_stream.aclose()


@pytest.mark.parametrize("clean", [False, True])
async def test_a_socket_of_unknown_type_is_taken(
    monkeypatch: pytest.MonkeyPatch, sockets: Callable[[], Any], *, clean: bool
) -> None:
    """Where the kernel refuses to tell, it still writes, shuts down and closes."""
    real = BorrowedSocket.__init__

    def refuse(self: BorrowedSocket, fd: int, *, is_asked: bool = True) -> None:
        if is_asked:
            raise OSError(errno.EPERM, "refused")
        real(self, fd, is_asked=False)

    left, right = sockets()
    with left, right, left.dup() as duplicate:
        monkeypatch.setattr(BorrowedSocket, "__init__", refuse)
        stream = PollEvented(left)
        await stream.send_all(b"x")
        assert right.recv(1) == b"x"
        await stream.shutdown()
        assert right.recv(1) == b""
        await stream.release(clean=clean)
        assert duplicate.getsockopt(*LINGER, 8) == (OFF if clean else RESET)
        monkeypatch.undo()


# ---- The end went out through another descriptor ---------------------------------------------


@pytest.mark.parametrize("order", ["ours first", "theirs first", "unread"])
async def test_an_end_through_another_descriptor_is_an_end(ends: Ends, order: str) -> None:
    """Once the peer has ended as well, TCP says ENOTCONN: nothing is left to shut down."""
    if order == "unread":
        ends.peer.sendall(b"answer")
    if order == "theirs first":
        ends.peer.shutdown(stdlib_socket.SHUT_WR)
    ends.duplicate.shutdown(stdlib_socket.SHUT_WR)
    assert ends.peer.recv(1) == b""
    ends.peer.close()
    await until_gone(ends)
    for _ in range(2):
        ends.stream.poll_shutdown()
        await ends.stream.shutdown()
    assert await drain(ends.stream) == (b"answer" if order == "unread" else b"")
    await ends.stream.aclose()


async def test_an_end_through_another_descriptor_while_closing_is_clean(ends: Ends) -> None:
    """The report speaks of no reset."""
    ends.duplicate.shutdown(stdlib_socket.SHUT_WR)
    assert ends.peer.recv(1) == b""
    report = CloseReport(CloseOutcome.BROKEN)

    async def close() -> None:
        nonlocal report
        report = await close_gracefully(ends.stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await wait_all_tasks_blocked()
        ends.peer.close()
    assert report.outcome is CloseOutcome.CLEAN


@pytest.mark.parametrize("told", ["nobody", "a read"])
async def test_a_reset_is_no_end(
    over: Callable[[stdlib_socket.socket], FdWriter], told: str
) -> None:
    """Though TCP says ENOTCONN as well, before and after it has reported the reset."""
    left, peer = tcp_sockets()
    stream = over(left)
    stream.poll_write(b"x")
    peer.setsockopt(*LINGER, RESET)
    peer.close()
    if told == "a read":
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="failed before"):
            await stream.shutdown()
    else:
        with pytest.raises(trio.BrokenResourceError, match="not connected"):
            await stream.shutdown()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    await stream.aclose()


async def test_a_reset_that_another_descriptor_was_told_of_is_no_end(
    over: Callable[[stdlib_socket.socket], FdWriter],
) -> None:
    """By now, reading gives end-of-file; but bytes are unacknowledged."""
    left, peer = tcp_sockets()
    with left.dup() as duplicate:
        stream = over(left)
        clog(stream)
        peer.setsockopt(*LINGER, RESET)
        peer.close()
        with pytest.raises(ConnectionResetError):
            while True:
                duplicate.recv(1)
        with pytest.raises(trio.BrokenResourceError, match="not connected"):
            await stream.shutdown()
        await stream.aclose()


async def test_what_was_never_connected_has_no_end(
    over: Callable[[stdlib_socket.socket], FdWriter],
) -> None:
    stream = over(stdlib_socket.socket())
    with pytest.raises(trio.BrokenResourceError, match="not connected") as info:
        await stream.aclose()

    assert isinstance(info.value.__cause__, OSError)
    assert info.value.__cause__.errno == errno.ENOTCONN


async def until_gone(ends: Ends) -> None:
    """Wait for the kernel to take notice, which over loopback it does at once, for TCP."""
    if ends.duplicate.family == stdlib_socket.AF_INET:
        while not is_gone(ends.duplicate.fileno()):
            await trio.lowlevel.checkpoint()


# ---- A timeout -------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", [False, True])
async def test_a_timeout_is_not_called_a_reset(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, *, ended: bool
) -> None:
    """The network has gone; every later error, and the report, say so."""
    if ended:
        await ends.stream.shutdown()

    def fail(*args: object) -> bytes:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(trio.BrokenResourceError, match="timed out"):
        await ends.stream.receive_some()
    monkeypatch.undo()

    # The kernel reports it once; then comes what looks like a proper end.
    ends.peer.close()
    with pytest.raises(trio.BrokenResourceError, match="failed before") as again:
        await ends.stream.receive_some()
    assert isinstance(again.value.__cause__, TimeoutError)
    report = await close_gracefully(ends.stream)
    assert report.outcome is CloseOutcome.BROKEN
    assert "timed out" in str(report)
    assert "reset" not in str(report)
