"""Whichever layer is closed, the stack ends in the same way, and the report says the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    CloseOutcome,
    CloseReport,
    Drain,
    Epilogue,
    ReadWritePair,
    TlsStream,
    close_gracefully,
    duplex,
    graceful,
    serve_listeners,
    start_tls,
)

from .._patience import wait_all_tasks_blocked
from .._streams import drain
from .._tls_helpers import HOST, both, client_context, over, server_context
from .test_forgotten import Listener

if TYPE_CHECKING:
    from trio.testing import MockClock

every_layer = pytest.mark.parametrize("closed", ["transport", "TLS", "buffer"])


async def leave(stream: AsyncWrite) -> CloseReport:
    async with graceful(stream) as ending:
        pass
    return ending.report


async def end_by_server(stream: AsyncWrite) -> CloseReport:
    """The server knows only the transport, whichever layer that is."""
    stop, listener = Drain(), Listener()
    await listener.connect.send(stream)  # type: ignore[arg-type]

    async def handler(stream: AsyncWrite) -> None:
        stop.start()

    report = await serve_listeners(handler, [listener], drain=stop)
    return report.reports[0]


@every_layer
@pytest.mark.parametrize("end", [close_gracefully, leave, end_by_server])
@pytest.mark.parametrize("uploads", [False, True])
async def test_what_is_buffered_above_a_handshake_is_sent(
    closed: str, end: Any, *, uploads: bool, autojump_clock: MockClock
) -> None:
    """The close discards what comes in, and the handshake must not be among it."""
    left, right = duplex(100)
    tls = TlsStream(left, server_context(), server_side=True)
    writer = BufWriter(tls)
    await writer.write_all(b"hello")
    client = TlsStream(right, client_context(), server_hostname=HOST)
    received = b""

    async def peer() -> None:
        nonlocal received
        await trio.sleep(1)
        if uploads:
            await client.send_all(bytes(1000))
        received = await drain(client)
        await client.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        report = await end({"transport": left, "TLS": tls, "buffer": writer}[closed])
    assert received == b"hello"
    assert report.outcome is CloseOutcome.CLEAN
    assert report.close_notify_received is True
    assert report.discarded_bytes == 1000 * uploads


@every_layer
@pytest.mark.filterwarnings(
    "ignore:.*a layer below was shut down before its epilogue:ResourceWarning"
)
async def test_a_peer_that_leaves_without_close_notify_is_no_clean_end(closed: str) -> None:
    transports = duplex(100_000)
    client, server = over(transports)
    writer = BufWriter(server)
    await both(client.do_handshake, server.do_handshake)
    await transports[0].shutdown()

    report = await close_gracefully(
        {"transport": transports[1], "TLS": server, "buffer": writer}[closed]
    )

    assert report.outcome is CloseOutcome.BROKEN
    assert report.peer_closed is True
    assert report.close_notify_received is False
    await trio.aclose_forcefully(client)


async def test_a_server_sees_the_end_of_what_its_handler_has_put_on_top() -> None:
    stop, listener, (left, right) = Drain(), Listener(), duplex(100_000)

    async def handler(stream: Any) -> None:
        await start_tls(stream, server_context(), server_side=True)

    async with trio.open_nursery() as nursery:
        await listener.connect.send(right)

        async def cut() -> None:
            await start_tls(left, client_context(), server_hostname=HOST)
            stop.start()
            await wait_all_tasks_blocked()
            await left.shutdown()

        nursery.start_soon(cut)
        report = await serve_listeners(handler, [listener], drain=stop)
    assert report.outcomes == {CloseOutcome.BROKEN: 1}
    assert report.reports[0].close_notify_received is False


class Knows(AsyncWrite):
    """A layer that has met a reset."""

    was_reset = True

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner


@pytest.mark.parametrize("is_below", [False, True])
async def test_a_reset_that_a_layer_above_has_met_is_reported(*, is_below: bool) -> None:
    left, right = duplex(100)
    layer = Knows(left)
    await right.aclose()

    report = await close_gracefully(left if is_below else layer)

    assert report.outcome is CloseOutcome.BROKEN
    assert str(report.error) == "the connection had been reset before"


class Records(AsyncWrite):
    """Encodes what it passes on."""

    encodes = True
    epilogue = Epilogue.NOTHING

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner


async def test_a_layer_that_leaves_the_reading_to_others_is_not_asked_to_read() -> None:
    left, right = duplex(100)
    records = Records(left.by_ref())
    await right.send_all(b"upload")
    await right.shutdown()

    report = await close_gracefully(left)

    assert records.closed
    assert report.discarded_bytes == 6
    assert report.outcome is CloseOutcome.CLEAN


@pytest.mark.parametrize("ends", [1, 2], ids=["once", "through a second layer"])
async def test_a_layer_over_a_closed_one_is_closed(ends: int) -> None:
    left, right = duplex(100)
    await left.aclose()
    layer: AsyncWrite = left
    for _ in range(ends):
        layer = BufWriter(layer)
    assert layer.closed

    for stream in (layer, left, layer):
        report = await close_gracefully(stream)

        assert report.outcome is CloseOutcome.BROKEN
        assert isinstance(report.error, trio.ClosedResourceError)
        assert str(report.error) == "the stream was closed before this call"
    await right.aclose()


async def test_a_pair_whose_writer_was_closed_before_claims_nothing_about_it() -> None:
    (reader, source), (writer, target) = duplex(100), duplex(100)
    pair = ReadWritePair(reader, writer)
    await writer.aclose()
    await source.aclose()
    assert not pair.closed

    report = await close_gracefully(pair)

    assert pair.closed
    assert report.outcome is CloseOutcome.BROKEN
    assert str(report.error) == "the stream was closed before this call"
    await target.aclose()
