"""Every state of a stack, ended in every way, over every transport: the table of docs/closing.rst.

A new transport is one more entry of ``TRANSPORTS``. Its peer is independent of this library, as far
as there is one.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    CloseReport,
    Drain,
    DrainReport,
    PollEvented,
    TcpStream,
    abort,
    close_gracefully,
    duplex,
    graceful,
    serve_listeners,
    wrap_stream,
)
from trio_asyncwrite._transports._send_stream import SendStreamWriter

from .._endings import One
from .._patience import wait_all_tasks_blocked
from .._streams import clog, tcp_sockets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

PAYLOAD = random.Random(0).randbytes(1_000_000)
LIMITS: dict[str, Any] = {"timeout": 1, "linger": 1}

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
BROKEN = CloseOutcome.BROKEN
TRUNCATED = CloseOutcome.TRUNCATED


# ---- Transports, and peers that are independent of this library --------------------------------


class Peer:
    """Reads until the end, and closes; ``end`` says how the end looked."""

    def __init__(
        self,
        receive: Callable[[], Awaitable[bytes | bytearray]],
        close: Callable[[], Awaitable[object]],
    ) -> None:
        self._receive = receive
        self.close = close
        self.received = bytearray()
        self.end = ""

    async def read(self) -> None:
        await wait_all_tasks_blocked()  # the ending has come as far as it can alone
        try:
            while data := await self._receive():
                self.received += data
            self.end = "proper"
        except (OSError, trio.BrokenResourceError):
            self.end = "cut"
        await self.close()


def socket_peer(sock: trio.socket.SocketType) -> Peer:
    async def close() -> None:
        sock.close()

    return Peer(lambda: sock.recv(65536), close)


async def over_tcp() -> tuple[AsyncWrite, Peer]:
    left, right = await tcp_sockets()
    return TcpStream(left), socket_peer(right)


async def over_a_unix_socket() -> tuple[AsyncWrite, Peer]:
    left, right = trio.socket.socketpair()
    return TcpStream(left), socket_peer(right)


async def over_a_pipe() -> tuple[AsyncWrite, Peer]:
    reading, writing = os.pipe()
    reader = trio.lowlevel.FdStream(reading)
    return PollEvented(writing), Peer(reader.receive_some, reader.aclose)


async def over_duplex() -> tuple[AsyncWrite, Peer]:
    left, right = duplex(1000)
    return left, Peer(right.receive_some, right.aclose)


async def over_a_foreign_stream() -> tuple[AsyncWrite, Peer]:
    left, right = trio.testing.memory_stream_pair()
    return wrap_stream(left), Peer(right.receive_some, right.aclose)


@dataclass
class Transport:
    """What a transport can show.

    Args:
        make: makes a writer over it, and its peer.
        shows_truncation: whether the peer can tell a truncated end.
        sees_peer: whether the peer's end can be seen.
        can_be_full: whether the kernel, or whatever is there, takes a limited number of bytes.
    """

    make: Callable[[], Awaitable[tuple[AsyncWrite, Peer]]]
    shows_truncation: bool = False
    sees_peer: bool = True
    can_be_full: bool = True


TRANSPORTS = {
    "TCP": Transport(over_tcp, shows_truncation=True),
    "Unix": Transport(over_a_unix_socket),
    "pipe": Transport(over_a_pipe, sees_peer=False),
    "duplex": Transport(over_duplex, shows_truncation=True),
    "foreign": Transport(over_a_foreign_stream, can_be_full=False),
}


# ---- States of a stack -------------------------------------------------------------------------


class Stack(NamedTuple):
    """A stack in one of its states."""

    writer: AsyncWrite
    #: What it has accepted.
    accepted: bytes


State = Any


async def cut_short(stream: AsyncWrite, call: Callable[[], Awaitable[object]]) -> None:
    """Cancel ``call`` when it has come as far as it can."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            if isinstance(stream, SendStreamWriter):
                _cancel_after_a_chunk(stream, scope)
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            scope.cancel()


def _cancel_after_a_chunk(stream: SendStreamWriter, scope: trio.CancelScope) -> None:
    """Trio's streams in memory are never full."""
    assert isinstance(stream.stream, trio.StapledStream)
    sender = stream.stream.send_stream
    pump = sender.send_all_hook

    async def cancel() -> None:
        await pump()
        scope.cancel()
        sender.send_all_hook = pump

    sender.send_all_hook = cancel


async def whole(stream: AsyncWrite, peer: Peer) -> Stack:
    writer = BufWriter(stream)
    await writer.send_all(b"hello")
    return Stack(writer, b"hello")


async def holding(stream: AsyncWrite, peer: Peer) -> Stack:
    writer = BufWriter(stream)
    await writer.send_all(b"hello")
    await writer.write_all(b", world")
    return Stack(writer, b"hello, world")


async def abandoned(stream: AsyncWrite, peer: Peer) -> Stack:
    writer = BufWriter(stream)
    sent = clog(stream)
    await cut_short(stream, lambda: writer.send_all(b"hello"))
    return Stack(writer, bytes(sent) + b"hello")


async def torn(stream: AsyncWrite, peer: Peer) -> Stack:
    writer = BufWriter(stream)
    await cut_short(stream, lambda: writer.write_all(PAYLOAD))
    with pytest.raises(trio.BrokenResourceError, match="is torn") as caught:
        await writer.write(b"x")
    count = re.search("only ([0-9]+) of the", str(caught.value))
    assert count is not None
    return Stack(writer, PAYLOAD[: int(count[1])])


async def unfinished(stream: AsyncWrite, peer: Peer) -> Stack:
    writer = BufWriter(stream)
    buf = Buf(PAYLOAD)
    await cut_short(stream, lambda: writer.write_all_buf(buf))
    assert 0 < buf.remaining < len(PAYLOAD)
    return Stack(writer, PAYLOAD[: -buf.remaining])


async def broken(stream: AsyncWrite, peer: Peer) -> Stack:
    writer = BufWriter(stream)
    await peer.close()
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await writer.send_all(b"x")
    return Stack(writer, b"")


# ---- Ways of ending ----------------------------------------------------------------------------


class Oops(Exception):
    """What a body raises."""


async def by_aclose(stack: Stack) -> None:
    await stack.writer.aclose()


async def by_aclose_of_the_stream(stack: Stack) -> None:
    """Of the layer below: what is above it ends with it."""
    await stack.writer.inner.aclose()


async def by_a_cancelled_aclose(stack: Stack) -> None:
    await trio.aclose_forcefully(stack.writer)


async def by_an_exception(stack: Stack) -> None:
    with contextlib.suppress(Oops):
        async with stack.writer:
            raise Oops


async def by_close_gracefully(stack: Stack) -> CloseReport:
    return await close_gracefully(stack.writer, **LIMITS)


async def by_close_gracefully_of_the_stream(stack: Stack) -> CloseReport:
    return await close_gracefully(stack.writer.inner, **LIMITS)


async def by_graceful_and_an_exception(stack: Stack) -> CloseReport:
    with contextlib.suppress(Oops):
        async with graceful(stack.writer, **LIMITS) as ending:
            raise Oops
    return ending.report


async def by_abort(stack: Stack) -> None:
    await abort(stack.writer)


async def serve(
    handler: Callable[[AsyncWrite], Awaitable[object]], stream: AsyncWrite
) -> CloseReport:
    drain = Drain(grace=1, **LIMITS)
    reports: list[DrainReport] = []

    async def run() -> None:
        reports.append(await serve_listeners(handler, [One(stream)], drain=drain))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        drain.start()
    assert len(reports[0].reports) == 1
    assert sum(reports[0].outcomes.values()) == 1
    return reports[0].reports[0]


async def by_a_server(stack: Stack) -> CloseReport:
    """Its handler returns, and forgets the layers that it has made."""

    async def handler(stream: AsyncWrite) -> None:
        await trio.sleep(0.5)

    return await serve(handler, stack.writer.inner)


async def by_the_end_of_the_grace(stack: Stack) -> CloseReport:
    async def handler(stream: AsyncWrite) -> None:
        await trio.sleep_forever()

    return await serve(handler, stack.writer.inner)


# ---- The table ---------------------------------------------------------------------------------


class Row(NamedTuple):
    """What is to be seen.

    Args:
        arrives: "all" that was accepted, or "some" of it.
        end: "proper", or "cut" where the transport can show it; "" if the peer is gone.
        outcome: that of the report, if there is one.
        warns: whether a warning tells of a loss.
    """

    arrives: str
    end: str
    outcome: CloseOutcome | None = None
    warns: bool = False


ALL = Row("all", "proper")
CUT = Row("some", "cut", warns=True)
ABORTED = Row("some", "cut")
GRACEFUL = Row("all", "proper", CLEAN)
DELIVERED = Row("all", "cut", TRUNCATED)
GONE = Row("some", "")
REPORTED = Row("some", "", BROKEN)

WAYS = (
    by_aclose,
    by_aclose_of_the_stream,
    by_a_cancelled_aclose,
    by_an_exception,
    by_close_gracefully,
    by_close_gracefully_of_the_stream,
    by_graceful_and_an_exception,
    by_a_server,
    by_the_end_of_the_grace,
    by_abort,
)

GRACEFULLY = (GRACEFUL, GRACEFUL, DELIVERED, GRACEFUL, DELIVERED)

TABLE: dict[State, tuple[Row, ...]] = {
    whole: (ALL, ALL, ALL, ALL, *GRACEFULLY, ABORTED),
    # What is held goes in one poll here.
    holding: (ALL, ALL, ALL, ALL, *GRACEFULLY, ABORTED),
    abandoned: (CUT, CUT, CUT, CUT, *GRACEFULLY, ABORTED),
    torn: (CUT, CUT, CUT, CUT, *(DELIVERED,) * 5, ABORTED),
    unfinished: (CUT, CUT, CUT, CUT, *(DELIVERED,) * 5, ABORTED),
    broken: (GONE, GONE, GONE, GONE, *(REPORTED,) * 5, GONE),
}

CASES = [
    pytest.param(transport, state, way, row, id=f"{name}-{state.__name__}-{way.__name__}")
    for name, transport in TRANSPORTS.items()
    for state, rows in TABLE.items()
    for way, row in zip(WAYS, rows, strict=True)
    if transport.can_be_full or state is not abandoned
]


@pytest.mark.parametrize(("transport", "state", "way", "row"), CASES)
async def test_the_end_of_a_stack(
    transport: Transport,
    state: Callable[[AsyncWrite, Peer], Awaitable[Stack]],
    way: Callable[[Stack], Awaitable[CloseReport | None]],
    row: Row,
    autojump_clock: MockClock,
) -> None:
    stream, peer = await transport.make()
    stack = await state(stream, peer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with trio.open_nursery() as nursery:
            if row.end:
                nursery.start_soon(peer.read)
            report = await way(stack)

    for writer in (stack.writer, stream):
        with pytest.raises(trio.ClosedResourceError):
            await writer.write(b"x")
    assert len(caught) == row.warns, [str(one.message) for one in caught]
    if row.end:
        assert peer.end == (row.end if transport.shows_truncation else "proper")
        assert stack.accepted.startswith(peer.received)
        if row.arrives == "all":
            assert peer.received == stack.accepted
    outcome = row.outcome
    if outcome is CLEAN and not transport.sees_peer:
        outcome = PEER_SILENT
    assert (None if report is None else report.outcome) is outcome
    if report is not None:
        assert (report.error is not None) == (outcome is BROKEN)
        assert outcome is BROKEN or report.unsent_bytes == 0
