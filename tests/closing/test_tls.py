"""Endings under TLS, ours and Trio's: who said goodbye, and was it heard?"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from trio_asyncwrite import AsyncWrite, BufWriter, TcpStream
from trio_asyncwrite._closing._close import abort, close_gracefully
from trio_asyncwrite._closing._report import CloseOutcome, CloseReport
from trio_asyncwrite._tls._stream import TlsStream
from trio_asyncwrite._transports._duplex import duplex

from .._endings import read_and_close
from .._patience import wait_all_tasks_blocked
from .._streams import clog, drain, reset, tcp_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT
BROKEN = CloseOutcome.BROKEN

_CA = trustme.CA()
_SERVER = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
_CA.issue_cert("localhost").configure_cert(_SERVER)
_CLIENT = ssl.create_default_context()
_CA.configure_trust(_CLIENT)

Maker = Any  # TlsStream or trio.SSLStream
both = pytest.mark.parametrize("make", [TlsStream, trio.SSLStream], ids=["ours", "trio"])
both_peers = pytest.mark.parametrize(
    "make_peer", [TlsStream, trio.SSLStream], ids=["our-peer", "trio-peer"]
)


def over(make: Maker, transport: TcpStream, context: ssl.SSLContext, **options: Any) -> Any:
    plain = trio.SocketStream(transport.socket) if make is trio.SSLStream else transport
    return make(plain, context, **options)


async def tls_pair(make: Maker, make_peer: Maker = TlsStream, **options: Any) -> tuple[Any, Any]:
    """A client to be closed and its server, over TCP, after the handshake."""
    left, right = await tcp_pair()
    client = over(make, left, _CLIENT, server_hostname="localhost", **options)
    server = over(make_peer, right, _SERVER, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client, server


async def closed(stream: trio.abc.SendStream, peer: Callable[[], Awaitable[object]]) -> CloseReport:
    """The report of closing ``stream`` while ``peer`` does its part."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        return await close_gracefully(stream)


@both
@both_peers
async def test_a_peer_that_says_goodbye_makes_a_clean_end(make: Maker, make_peer: Maker) -> None:
    client, server = await tls_pair(make, make_peer)
    writer = BufWriter(client)
    await writer.write_all(b"x" * 100_000)
    received = b""

    async def peer() -> None:
        nonlocal received
        received = await drain(server)
        await server.aclose()

    report = await closed(writer, peer)

    assert received == b"x" * 100_000
    assert report.outcome is CLEAN
    assert report.peer_closed is True
    assert report.close_notify_received is True
    assert report.unsent_bytes == 0


@both
@both_peers
async def test_two_peers_that_close_at_once_both_end_clean(make: Maker, make_peer: Maker) -> None:
    streams = await tls_pair(make, make_peer)
    reports: list[CloseReport] = []

    async def close(stream: trio.abc.SendStream) -> None:
        reports.append(await close_gracefully(stream))

    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(close, stream)

    assert [report.outcome for report in reports] == [CLEAN, CLEAN]
    assert [report.close_notify_received for report in reports] == [True, True]


@both
@both_peers
async def test_a_goodbye_that_finds_nobody_any_more_is_no_loss(
    make: Maker, make_peer: Maker
) -> None:
    client, server = await tls_pair(make, make_peer)
    await client.send_all(b"hello")
    assert await server.receive_some() == b"hello"
    await server.aclose()  # it has said goodbye, and does not wait for ours

    report = await close_gracefully(client)

    assert report.outcome is CLEAN
    assert report.close_notify_received is True


async def say_goodbye(stream: Any) -> None:
    """Send a close_notify and do not wait for an answer."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.unwrap)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_reset_is_a_reset_though_the_peer_said_goodbye_before() -> None:
    client, server = await tls_pair(trio.SSLStream, trio.SSLStream)
    transport = server.transport_stream
    await say_goodbye(server)
    reset(TcpStream(transport))

    report = await close_gracefully(client)

    assert report.outcome is BROKEN


async def test_a_peer_may_reset_before_our_goodbye_could_be_said() -> None:
    client, server = await tls_pair(trio.SSLStream, trio.SSLStream)
    transport = server.transport_stream
    await say_goodbye(server)
    clog(TcpStream(client.transport_stream))

    async def peer() -> None:
        await wait_all_tasks_blocked()
        reset(TcpStream(transport))

    report = await closed(client, peer)

    assert report.outcome is BROKEN
    assert report.peer_closed is True


async def test_data_that_finds_nobody_any_more_is_a_loss() -> None:
    client, server = await tls_pair(TlsStream)
    await server.aclose()
    writer = BufWriter(client)
    await writer.write_all(b"hello")

    report = await close_gracefully(writer)

    assert report.outcome is BROKEN


@both
async def test_a_peer_that_leaves_without_a_goodbye_has_no_proper_end(make: Maker) -> None:
    client, server = await tls_pair(make)

    async def peer() -> None:
        await drain(server)
        await server.transport_stream.shutdown()
        with pytest.warns(ResourceWarning, match="before its epilogue was written"):
            await server.transport_stream.aclose()

    report = await closed(client, peer)

    assert report.outcome is BROKEN
    assert report.peer_closed is True  # the transport's end was seen
    assert not report.close_notify_received
    assert isinstance(report.error, trio.BrokenResourceError)
    assert isinstance(report.error.__cause__, ssl.SSLEOFError)


@both
@pytest.mark.parametrize("before", [False, True], ids=["then", "before"])
async def test_a_peer_of_https_may_leave_without_a_goodbye(make: Maker, *, before: bool) -> None:
    client, server = await tls_pair(make, https_compatible=True)

    async def peer() -> None:
        if not before:
            await wait_all_tasks_blocked()
        await trio.aclose_forcefully(server.transport_stream)

    if before:
        await peer()
        report = await close_gracefully(client)
    else:
        report = await closed(client, peer)

    assert report.outcome is CLEAN
    assert report.peer_closed is True
    assert not report.close_notify_received


@both
async def test_a_peer_that_never_answers_is_silent(
    autojump_clock: trio.testing.MockClock, make: Maker
) -> None:
    client, server = await tls_pair(make)
    await client.send_all(b"hello")

    report = await close_gracefully(client)

    assert report.outcome is PEER_SILENT
    assert report.peer_closed is False
    assert not report.close_notify_received
    assert await drain(server) == b"hello"  # and a goodbye
    await server.aclose()


@both
async def test_without_time_to_linger_our_goodbye_is_said_all_the_same(make: Maker) -> None:
    client, server = await tls_pair(make)

    report = await close_gracefully(client, linger=0)

    assert report.outcome is PEER_SILENT
    assert await drain(server) == b""
    await server.aclose()


async def test_a_peer_that_still_sends_is_drained_to_its_goodbye() -> None:
    client, server = await tls_pair(TlsStream)
    await client.send_all(b"answer")

    async def peer() -> None:
        for _ in range(20):
            await server.send_all(bytes(10_000))
        assert await drain(server) == b"answer"
        await server.aclose()

    report = await closed(client, peer)

    assert report.outcome is CLEAN
    assert report.discarded_bytes == 200_000


async def test_after_our_goodbye_trios_tls_bears_no_data_but_ours_arrives() -> None:
    client, server = await tls_pair(trio.SSLStream)
    await client.send_all(b"answer")

    async def peer() -> None:
        # It has our goodbye, and goes on sending, as half-closed TLS may.
        assert await drain(server) == b"answer"
        await server.send_all(b"one more thing")
        await server.aclose()

    report = await closed(client, peer)

    assert report.outcome is BROKEN
    assert "AFTER_CLOSE_NOTIFY" in str(report)
    assert report.peer_closed is True


@both
async def test_two_peers_that_only_write_do_not_block_each_other(make: Maker) -> None:
    client, server = await tls_pair(make)
    size = 1_000_000
    reports: list[CloseReport] = []

    async def only_write(stream: trio.abc.SendStream) -> None:
        writer = BufWriter(stream, size + 1)
        await writer.write_all(bytes(size))
        reports.append(await close_gracefully(writer))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(only_write, client)
        nursery.start_soon(only_write, server)

    if make is TlsStream:
        assert [report.outcome for report in reports] == [CLEAN, CLEAN]
        assert [report.discarded_bytes for report in reports] == [size, size]
    else:
        # What comes after its goodbye, Trio's stream does not take; but nobody is blocked.
        assert [report.unsent_bytes for report in reports] == [0, 0]


@both
async def test_a_peer_that_never_reads_is_given_up(
    autojump_clock: trio.testing.MockClock, make: Maker
) -> None:
    client, server = await tls_pair(make)
    writer = BufWriter(client, 5_000_001)
    await writer.write_all(bytes(5_000_000))

    report = await close_gracefully(writer)

    assert report.outcome is TIMED_OUT
    assert report.unsent_bytes > 0
    with pytest.raises(trio.BrokenResourceError):
        await drain(server)
    await trio.aclose_forcefully(server)


async def test_a_goodbye_of_trios_needs_room_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = await tls_pair(trio.SSLStream)
    clog(TcpStream(client.transport_stream))

    report = await close_gracefully(client)

    assert report.outcome is TIMED_OUT
    assert report.unsent_bytes == 0
    assert report.elapsed == 30
    await trio.aclose_forcefully(server)


@both
async def test_a_reset_is_seen(make: Maker) -> None:
    client, server = await tls_pair(make)
    reset(server.transport_stream)

    report = await close_gracefully(client)

    assert report.outcome is BROKEN
    assert report.peer_closed is False


@both
async def test_a_task_that_reads_does_not_keep_the_end_from_being_seen(make: Maker) -> None:
    client, server = await tls_pair(make)
    ended: list[object] = []

    async def read() -> None:
        try:
            ended.append(await client.receive_some())
        except trio.ClosedResourceError as exc:
            ended.append(exc)

    async def peer() -> None:
        # Not patient: the close looks again every few milliseconds.
        await trio.testing.wait_all_tasks_blocked()
        # Trio's stream cannot be taken away from a task that reads; it gets this one message.
        await server.send_all(b"message")
        assert await drain(server) == b""
        await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        report = await closed(client, peer)

    assert report.outcome is CLEAN
    if make is TlsStream:
        assert isinstance(ended[0], trio.ClosedResourceError)
        assert report.discarded_bytes == len(b"message")
    else:
        assert ended == [b"message"]


@both
@pytest.mark.parametrize("layer", [lambda tls: tls, BufWriter], ids=["bare", "buffered"])
async def test_before_the_handshake_a_stream_ends_as_its_transport(
    make: Maker, layer: Callable[[Any], Any]
) -> None:
    left, right = await tcp_pair()
    client = over(make, left, _CLIENT, server_hostname="localhost")

    async def peer() -> None:
        assert await drain(right) == b""  # no handshake was begun only to send a close_notify
        await right.aclose()

    report = await closed(layer(client), peer)

    assert report.outcome is CLEAN
    assert report.close_notify_received is (False if make is TlsStream else None)


async def test_half_a_handshake_is_nothing_to_wait_for() -> None:
    left, right = await tcp_pair()
    client = over(TlsStream, left, _CLIENT, server_hostname="localhost")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            await wait_all_tasks_blocked()
            scope.cancel()

    async def peer() -> None:
        assert (await drain(right)).startswith(b"\x16\x03")  # a ClientHello, and the end
        await right.aclose()

    report = await closed(client, peer)

    assert report.outcome is CLEAN


async def test_for_what_is_buffered_the_handshake_is_made() -> None:
    left, right = await tcp_pair()
    client = BufWriter(over(TlsStream, left, _CLIENT, server_hostname="localhost"))
    server = over(TlsStream, right, _SERVER, server_side=True)
    await client.write_all(b"message")

    async def peer() -> None:
        assert await read_and_close(server) == b"message"

    report = await closed(client, peer)

    assert report.outcome is CLEAN
    assert report.close_notify_received is True


async def test_tls_in_tls_ends_twice() -> None:
    outer_client, outer_server = await tls_pair(trio.SSLStream, trio.SSLStream)
    client = trio.SSLStream(outer_client, _CLIENT, server_hostname="localhost")
    server = trio.SSLStream(outer_server, _SERVER, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    await client.send_all(b"hello")
    reports = []

    async def peer() -> None:
        assert await server.receive_some() == b"hello"
        reports.append(await close_gracefully(server))

    reports.append(await closed(client, peer))

    assert [report.outcome for report in reports] == [CLEAN, CLEAN]
    assert reports[0].close_notify_received is True


@pytest.mark.parametrize("how", ["aclose", "unwrap"])
async def test_of_a_stream_that_was_ended_before_nothing_is_claimed(how: str) -> None:
    client, server = await tls_pair(trio.SSLStream, trio.SSLStream)
    transport, peer_transport = client.transport_stream, server.transport_stream
    if how == "aclose":
        await client.aclose()
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.unwrap)
            await client.unwrap()

    report = await close_gracefully(client)

    assert report.outcome is BROKEN
    assert isinstance(report.error, trio.ClosedResourceError)
    await transport.aclose()
    await peer_transport.aclose()


@both
async def test_abort_says_no_goodbye(make: Maker) -> None:
    client, server = await tls_pair(make)
    await client.send_all(b"hello")
    assert await server.receive_some() == b"hello"

    await abort(client)

    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await server.receive_some()
    await trio.aclose_forcefully(server)


async def test_our_stream_may_lie_over_memory(autojump_clock: trio.testing.MockClock) -> None:
    left, right = duplex(100)
    client = TlsStream(left, _CLIENT, server_hostname="localhost")
    server = TlsStream(right, _SERVER, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    assert isinstance(client, AsyncWrite)

    report = await close_gracefully(client, linger=3)

    assert report == CloseReport(
        PEER_SILENT, peer_closed=False, close_notify_received=False, elapsed=3
    )
    assert await drain(server) == b""


# ---- The measurement of the issue, over TLS ----------------------------------------------------

UPLOAD = 200_000
DOWNLOAD = 4 * 1024 * 1024


@pytest.mark.parametrize("times", [5, pytest.param(1000, marks=pytest.mark.slow)])
async def test_every_answer_is_whole_though_the_upload_was_not_read(times: int) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    whole = 0

    async def answer_and_close(transport: trio.SocketStream) -> None:
        stream = TlsStream(transport, _SERVER, server_side=True)
        await stream.receive_some(1)
        writer = BufWriter(stream)
        await writer.write_all(bytes(DOWNLOAD))
        report = await close_gracefully(writer)
        assert report.outcome is CLEAN
        assert report.discarded_bytes == UPLOAD - 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer_and_close, listeners)
        for _ in range(times):
            address = listeners[0].socket.getsockname()
            transport = await trio.open_tcp_stream(*address)
            async with TlsStream(transport, _CLIENT, server_hostname="localhost") as client:
                async with trio.open_nursery() as uploading:
                    uploading.start_soon(client.send_all, bytes(UPLOAD))
                    received = await drain(client)
                whole += received == bytes(DOWNLOAD)
        nursery.cancel_scope.cancel()

    assert whole == times
