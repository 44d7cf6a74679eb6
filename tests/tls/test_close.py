"""How a TLS stream ends over a real connection: with a FIN, and by which failures."""

from __future__ import annotations

import contextlib
import os
import socket as stdlib_socket
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import PollEvented, ReadWritePair, TcpStream, TimeoutWriter, TlsStream, duplex

from .._patience import wait_all_tasks_blocked
from .._streams import drain, reset, tcp_pair, unix_pair
from .._tls_helpers import (
    HOST,
    INTERNAL_ERROR,
    client_context,
    engine_pair,
    find_hangs,
    handmade_peer,
    open_tls,
    read_exactly,
    shake_hands,
    take,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio_asyncwrite._tls._engine import TlsEngine

    Tls = TlsStream[Any]

TEXT = bytes(i % 251 for i in range(5000))


# ---- Input that nobody has read ------------------------------------------------------------


def as_socket_stream(stream: TcpStream) -> trio.SocketStream:
    return stream._stream


def as_pair(stream: TcpStream) -> Any:
    return ReadWritePair(stream, TimeoutWriter(stream, idle=60))


def as_pair_of_trio_s(stream: TcpStream) -> Any:
    return ReadWritePair(stream._stream, TimeoutWriter(stream, idle=60))


def as_poll_evented(stream: TcpStream) -> PollEvented:
    return PollEvented(stdlib_socket.socket(fileno=stream.socket.detach()))


#: What the client's TLS stands on; all of it is closed with the client.
STACKS: tuple[Callable[[TcpStream], Any], ...] = (
    lambda stream: stream,
    as_socket_stream,
    as_pair,
    as_pair_of_trio_s,
    as_poll_evented,
)
STACK_NAMES = ("tcp", "trio's", "pair", "pair of trio's", "poll-evented")


async def finish(stream: Tls) -> None:
    await stream.aclose()


async def shut_down_first(stream: Tls) -> None:
    await stream.shutdown()
    await stream.aclose()


async def finish_cancelled(stream: Tls) -> None:
    """Without close_notify: that it is missing shows that the stream is cut off."""
    await trio.aclose_forcefully(stream)


async def client_over(stack: Any, **options: Any) -> tuple[Tls, TlsEngine]:
    """A client that has shaken hands past its transport, and the server's engine."""
    stream: Tls = TlsStream(stack, client_context(), server_hostname=HOST, **options)
    _, server = engine_pair()
    shake_hands(stream._engine, server)
    await stream.do_handshake()
    return stream, server


@pytest.mark.parametrize("end", [finish, shut_down_first, finish_cancelled])
@pytest.mark.parametrize("maker", [tcp_pair, unix_pair])
@pytest.mark.parametrize("stack", STACKS, ids=STACK_NAMES)
@pytest.mark.parametrize("data", [b"", b"unread"], ids=["tickets", "data"])
async def test_unread_input_does_not_destroy_what_was_sent(
    stack: Callable[[TcpStream], Any],
    maker: Callable[[], Awaitable[tuple[TcpStream, TcpStream]]],
    data: bytes,
    end: Callable[[Tls], Awaitable[None]],
) -> None:
    """A kernel that closes a socket with unread input sends a reset.

    The session tickets of a server lie there even if it has said nothing, and a program that only
    writes never reads them.
    """
    left, raw = await maker()
    client, server = await client_over(stack(left))
    assert server._tickets
    if data:
        server.encrypt([data])
    await raw.send_all(take(server) if data else server._tickets)
    await client.send_all(TEXT)
    await end(client)
    assert client.discarded_bytes == len(data)
    await wait_all_tasks_blocked(0.01)
    server.feed(await drain(raw))
    assert server.decrypt(1 << 16) == TEXT
    if end is not finish_cancelled:
        assert server.decrypt(1) == b""
    await raw.aclose()


async def test_tls_in_tls_ends_with_a_fin() -> None:
    """The tickets of the inner session are data of the outer one, and read as such."""
    left, raw = await tcp_pair()
    outer, outer_server = await client_over(left)
    inner, inner_server = await client_over(outer)
    outer_server.encrypt([inner_server._tickets])
    await raw.send_all(take(outer_server))
    await inner.send_all(TEXT)
    await inner.aclose()
    assert (inner.discarded_bytes, outer.discarded_bytes) == (0, 0)
    outer_server.feed(await drain(raw))
    inner_server.feed(outer_server.decrypt(1 << 16) or b"")
    assert inner_server.decrypt(1 << 16) == TEXT
    assert inner_server.decrypt(1) == outer_server.decrypt(1) == b""
    await raw.aclose()


async def test_https_reads_it_too() -> None:
    left, raw = await tcp_pair()
    client, server = await client_over(left, https_compatible=True)
    await raw.send_all(server._tickets)
    await client.send_all(TEXT)
    await client.aclose()
    server.feed(await drain(raw))
    assert server.decrypt(1 << 16) == TEXT
    await raw.aclose()


async def test_a_damaged_or_foreign_input_is_thrown_away_as_well() -> None:
    left, raw = await tcp_pair()
    client, server = await client_over(left)
    server.encrypt([b"good"])
    await raw.send_all(take(server) + bytes(1000))
    await client.send_all(TEXT)
    await client.aclose()
    assert client.discarded_bytes == 4
    server.feed(await drain(raw))
    assert server.decrypt(1 << 16) == TEXT
    await raw.aclose()


async def test_input_before_a_handshake_is_thrown_away() -> None:
    left, raw = await tcp_pair()
    client: Tls = TlsStream(left, client_context(), server_hostname=HOST, https_compatible=True)
    await raw.send_all(b"220 welcome\r\n")
    await client.aclose()
    assert client.discarded_bytes == 0
    assert await drain(raw) == b""
    await raw.aclose()


async def test_no_more_than_256_kib_are_read() -> None:
    """A peer that floods us does not hold up the close."""
    left, raw = stdlib_socket.socketpair()
    for sock in (left, raw):
        sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 1 << 20)
    client, server = await client_over(PollEvented(left))
    raw.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 1 << 20:
            server.encrypt([bytes(16384)])
            sent += raw.send(take(server))
    if sent < 300_000:
        pytest.skip("this system's sockets hold too little")
    await client.aclose()
    assert 200_000 < client.discarded_bytes <= 256 * 1024
    raw.close()


async def test_a_descriptor_that_stays_open_is_not_read_from() -> None:
    """Somebody else will read on."""
    left, raw = stdlib_socket.socketpair()
    client, server = await client_over(PollEvented(left, close=False))
    raw.send(server._tickets)
    await client.aclose()
    assert left.recv(65536) == server._tickets
    left.close()
    raw.close()


async def test_what_reading_meets_does_not_stop_the_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, raw = await tcp_pair()
    client, _ = await client_over(left)

    def fail(fd: int, size: int) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(os, "read", fail)
        await client.aclose()
    assert left.fileno() == -1
    await raw.aclose()


# ---- Failures of the end -------------------------------------------------------------------

both_modes = pytest.mark.parametrize("https", [False, True], ids=["strict", "https"])


async def shutdown_and_close(stream: Tls) -> None:
    try:
        await stream.shutdown()
    finally:
        await trio.aclose_forcefully(stream)


ENDS = [finish, shutdown_and_close]


@both_modes
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("stack", STACKS[:2], ids=STACK_NAMES[:2])
async def test_a_reset_by_a_peer_that_had_not_ended_is_raised(
    stack: Callable[[TcpStream], Any], end: Callable[[Tls], Awaitable[None]], https: bool
) -> None:
    """All had been handed over, and nobody knows that any of it was read."""
    left, raw = await tcp_pair()
    client, _ = await client_over(stack(left), https_compatible=https)
    await client.send_all(TEXT)
    reset(raw)
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BrokenResourceError):
        await end(client)
    assert client.unsent_bytes == 0


async def duplex_pair() -> Any:
    return duplex(1 << 16)


@pytest.mark.parametrize("maker", [tcp_pair, unix_pair, duplex_pair])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("received", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("data", [b"", TEXT], ids=["bare", "behind data"])
async def test_a_peer_that_has_ended_need_not_hear_our_close_notify(
    received: bool, data: bytes, end: Callable[[Tls], Awaitable[None]], maker: Any
) -> None:
    """Whether its close_notify was read before, or has arrived behind unread data."""
    client, server = await open_tls(maker)
    await client.send_all(b"request")
    assert await server.receive_some() == b"request"
    if data:
        await server.send_all(data)
    await server.aclose()
    await wait_all_tasks_blocked(0.01)
    if received:
        assert await drain(client) == data
    await end(client)


@both_modes
async def test_an_end_of_file_is_an_end_as_well(https: bool) -> None:
    left, raw = await tcp_pair()
    client, _ = await client_over(left, https_compatible=https)
    await raw.send_eof()
    with contextlib.nullcontext() if https else pytest.raises(trio.BrokenResourceError):
        assert await client.receive_some() == b""
    reset(raw)
    await wait_all_tasks_blocked()
    await client.aclose()


@pytest.mark.parametrize(
    ("unacknowledged", "fails"),
    [(lambda epilogue: None, False), (int, False), (lambda epilogue: epilogue + 1, True)],
    ids=["unknown", "close_notify", "data"],
)
async def test_data_that_are_known_to_be_unacknowledged_are_lost(
    unacknowledged: Callable[[int], int | None], fails: bool
) -> None:
    """Though the peer had ended its stream. Our close_notify comes last, and is no data."""
    client, server = await open_tls(duplex_with_descriptor)
    await server.aclose()
    assert await client.receive_some() == b""
    epilogue = 24
    client.transport_stream.unacknowledged_bytes = unacknowledged(epilogue)
    await client.send_all(b"")
    client.transport_stream.takes = epilogue
    with pytest.raises(trio.BrokenResourceError) if fails else contextlib.nullcontext():
        await client.aclose()


async def duplex_with_descriptor() -> Any:
    left, right = await unix_pair()
    return TakesLittle(left), right


class TakesLittle(PollEvented):
    """It takes some bytes, and fails then."""

    takes = 1 << 60

    def __init__(self, inner: TcpStream) -> None:
        super().__init__(stdlib_socket.socket(fileno=inner.socket.detach()))

    def poll_write(self, data: Any, /) -> int:
        self.takes -= len(data)
        return super().poll_write(data) if self.takes > 1 << 30 else len(data)

    def poll_shutdown(self) -> None:
        raise trio.BrokenResourceError("the peer is gone")


@pytest.mark.parametrize("ended", [False, True], ids=["not ended", "ended"])
async def test_a_reset_that_closing_is_the_first_to_see_is_raised(ended: bool) -> None:
    """After a shutdown that was successful; unless it costs nothing."""
    client, server = await open_tls(tcp_pair)
    await client.send_all(TEXT)
    await client.shutdown()
    if ended:
        assert await drain(server) == TEXT
        await server.shutdown()
    reset(server.transport_stream)
    await wait_all_tasks_blocked()
    with contextlib.nullcontext() if ended else pytest.raises(trio.BrokenResourceError) as caught:
        await client.aclose()
    if not ended:
        assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert client.transport_stream.fileno() == -1
    await trio.aclose_forcefully(server)


async def test_a_duplex_whose_peer_is_gone_without_an_end_fails() -> None:
    """In memory, too."""
    left, right = duplex(4096)
    client, _ = await client_over(left)
    right._incoming.close_reader()
    with pytest.raises(trio.BrokenResourceError):
        await client.aclose()
    await trio.aclose_forcefully(right)


async def test_the_reason_may_stand_behind_data(tmp_path: Path) -> None:
    """A writer is told it; a reader gets the data first."""
    left, raw = await tcp_pair()
    client: Tls = TlsStream(left, client_context(), server_hostname=HOST)
    peer = handmade_peer(client._engine, tmp_path / "keys")
    await client.do_handshake()
    await raw.send_all(peer.data(TEXT) + peer.data(b"more") + peer.alert(INTERNAL_ERROR))
    reset(raw)
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BrokenResourceError, match="(?i)alert internal error"):
        while True:
            await client.send_all(b"x")
    assert await read_exactly(client, len(TEXT) + 4) == TEXT + b"more"
    with pytest.raises(trio.BrokenResourceError, match="(?i)alert internal error"):
        await client.receive_some()
    await client.aclose()


find_hangs(globals())
