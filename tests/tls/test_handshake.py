"""Handshakes that fail, alerts, and renegotiations."""

from __future__ import annotations

import re
import ssl
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    NotReady,
    TlsStream,
    duplex,
)

from .._patience import wait_all_tasks_blocked
from .._streams import drain, tcp_pair
from .._tls_helpers import (
    HOST,
    INTERNAL_ERROR,
    TLS12,
    TLS13,
    Clogged,
    HandmadePeer,
    SendAllOnly,
    after_all_blocked,
    alone,
    both,
    both_sides,
    both_versions,
    ca,
    certificate,
    client_context,
    duplex_7,
    engine_pair,
    established,
    find_hangs,
    handmade_peer,
    hello_request,
    lost,
    new_client_context,
    new_server_context,
    over,
    plain_pair,
    spoilt,
    take,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from .._tls_helpers import Maker

    Tls = TlsStream[Any]


class Mismatch(NamedTuple):
    """A handshake that cannot succeed, and what either side says of it."""

    client: ssl.SSLContext
    server: ssl.SSLContext
    client_says: str
    server_says: str


def mismatch(name: str, version: ssl.TLSVersion) -> Mismatch:
    client, server = new_client_context(version), new_server_context(version)
    if name == "unknown issuer":
        client = ssl.create_default_context(cadata=ca("theirs").cert_pem.bytes().decode())
        return Mismatch(client, server, "certificate verify failed", "alert unknown ca")
    if name == "expired":
        yesterday = datetime(2020, 1, 1, tzinfo=timezone.utc)
        ca("ours").issue_cert(HOST, not_after=yesterday).configure_cert(server)
        return Mismatch(client, server, "certificate has expired", "alert certificate expired")
    if name == "other host":
        certificate("other.example.org").configure_cert(server)
        return Mismatch(client, server, "hostname mismatch", "alert bad certificate")
    if name == "no common version":
        client = new_client_context(TLS12)
        server = new_server_context(TLS13)
        return Mismatch(client, server, "alert protocol version", "unsupported protocol")
    if name == "no common cipher":
        client, server = new_client_context(TLS12), new_server_context(TLS12)
        client.set_ciphers("ECDHE+AES128")
        server.set_ciphers("ECDHE+AES256")
        return Mismatch(client, server, "alert handshake failure", "no shared cipher")
    server.verify_mode = ssl.CERT_REQUIRED
    ca("ours").configure_trust(server)
    if name == "no client certificate":
        alert = "alert (certificate required|handshake failure)"
        return Mismatch(client, server, alert, "peer did not return a certificate")
    assert name == "refused client certificate"
    certificate("client", "theirs").configure_cert(client)
    return Mismatch(client, server, "alert unknown ca", "certificate verify failed")


MISMATCHES = (
    "unknown issuer",
    "expired",
    "other host",
    "no common version",
    "no common cipher",
    "no client certificate",
    "refused client certificate",
)


@pytest.mark.parametrize("name", MISMATCHES)
@pytest.mark.parametrize("maker", [tcp_pair, plain_pair, duplex_7])
@both_versions
async def test_a_failed_handshake_names_the_reason_to_both(
    name: str, maker: Maker, version: ssl.TLSVersion
) -> None:
    """Whoever finds it says what it is, and tells the peer by an alert, which then says that."""
    what = mismatch(name, version)
    client, server = over(await maker(), client=what.client, server=what.server)
    errors: dict[str, BaseException] = {}

    async def fail(side: str, stream: Tls) -> None:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.do_handshake()
            await stream.receive_some()  # to a TLS 1.3 client, its own certificate comes last
        errors[side] = caught.value
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        for again in (stream.do_handshake, stream.receive_some, partial(stream.send_all, b"x")):
            with pytest.raises(trio.BrokenResourceError):
                await again()
        await stream.aclose()

    await both(partial(fail, "client", client), partial(fail, "server", server))
    assert re.search(what.client_says, str(errors["client"]), re.IGNORECASE)
    assert re.search(what.server_says, str(errors["server"]), re.IGNORECASE)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "http request"),
        (b"220 mail.example.org ESMTP\r\n", "wrong version number"),
        (bytes(1000), "wrong version number"),
        (b"\x16\x03\x01\x00\x05hello", "unexpected message"),
    ],
    ids=["http", "smtp", "zeros", "record"],
)
@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("maker", [tcp_pair, plain_pair])
async def test_a_peer_that_speaks_no_tls(
    said: bytes, reason: str, server_side: bool, maker: Maker
) -> None:
    left, right = await maker()
    stream = alone(left, server_side=server_side)
    await right.send_all(said)
    with pytest.raises(trio.BrokenResourceError, match=f"(?i){reason}"):
        await stream.do_handshake()
    await stream.aclose()
    heard = await drain(right)
    assert heard.removeprefix(heard[:-7])[:2] == b"\x15\x03"  # the last record is an alert
    assert heard[-2:-1] == b"\x02"  # and fatal
    await right.aclose()


async def test_closing_does_not_overtake_the_alert() -> None:
    """Closed with unread input, or with bytes of ours that were lost, TCP would be reset."""
    left, right = await tcp_pair()
    client = TlsStream(left, ssl.create_default_context(), server_hostname=HOST)
    _, server = engine_pair()
    async with trio.open_nursery() as nursery:

        async def fail() -> None:
            with pytest.raises(trio.BrokenResourceError, match="certificate verify failed"):
                await client.do_handshake()

        nursery.start_soon(fail)
        server.feed(await right.receive_some())
        server.handshake()
        await right.send_all(take(server) + bytes(1000))
    await client.aclose()
    await wait_all_tasks_blocked()
    server.feed(await right.receive_some())
    with pytest.raises(ssl.SSLError, match="(?i)alert unknown ca"):
        server.handshake()
    await trio.aclose_forcefully(right)


@pytest.mark.parametrize("plain", [False, True], ids=["exact", "plain"])
async def test_a_peer_that_does_not_read_is_told_for_five_seconds_only(
    plain: bool, autojump_clock: trio.testing.MockClock
) -> None:
    raw, transport = duplex(3)
    stream = alone(SendAllOnly(transport) if plain else transport)
    start = trio.current_time()
    errors = 0

    async def fail(call: Callable[[], Awaitable[object]]) -> None:
        nonlocal errors
        with pytest.raises(trio.BrokenResourceError, match="(?i)wrong version number"):
            await call()
        errors += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw.send_all, bytes(100))
        nursery.start_soon(fail, stream.do_handshake)
        nursery.start_soon(fail, stream.receive_some)
        if not plain:  # there, it would break the stream
            with trio.move_on_after(1):
                await stream.do_handshake()
        while errors < 2:  # noqa: ASYNC110 - the two are in nobody's reach
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    # A plain stream has to see through what it has begun, for another second.
    assert 5 + plain <= trio.current_time() - start < 5.2 + plain
    with lost():  # a send_all was cancelled in either duplex stream
        await stream.aclose()
        await trio.aclose_forcefully(raw)
    assert stream.held_bytes == 0


async def test_a_peer_that_cannot_be_told() -> None:
    """The reason is what counts, and not that it could not be said."""
    raw, transport = duplex(4096)
    stream = alone(transport)
    raw._incoming.close_reader()
    await raw.send_all(bytes(10))
    with pytest.raises(trio.BrokenResourceError, match="(?i)wrong version number"):
        await stream.do_handshake()
    await stream.aclose()
    await trio.aclose_forcefully(raw)


@both_sides
async def test_a_bad_record_is_an_error_on_both_sides(reverse: bool) -> None:
    """After the handshake, too, the peer is told at once; and closing does not take it back."""
    one, other = established(await tcp_pair())
    if reverse:
        one, other = other, one
    await one.do_handshake()
    await other.send_all(b"good")
    other._engine.encrypt([memoryview(b"evil")])
    other._engine.out = memoryview(spoilt(take(other._engine)) + bytes(1000))
    await other.flush()
    assert await one.receive_some() == b"good"
    for says in ("TLS failed", "has failed before"):
        with pytest.raises(trio.BrokenResourceError, match=f"(?i){says}.*bad.record.mac"):
            await one.receive_some()
    for call in (partial(one.send_all, b"x"), one.flush, one.shutdown, one.unwrap):
        with pytest.raises(trio.BrokenResourceError):
            await call()
    await one.aclose()
    await wait_all_tasks_blocked()
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="(?i)alert bad record mac"):
            await other.receive_some()
    await other.aclose()


@pytest.mark.parametrize("https_compatible", [False, True], ids=["strict", "https"])
async def test_a_fatal_alert_is_never_an_end(https_compatible: bool, tmp_path: Path) -> None:
    raw, transport = duplex(4096)
    stream = alone(transport, https_compatible=https_compatible)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    await raw.send_all(peer.data(b"data") + peer.alert(INTERNAL_ERROR))
    assert await stream.receive_some() == b"data"
    for _ in range(3):
        with pytest.raises(trio.BrokenResourceError, match="(?i)alert internal error"):
            await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    await stream.aclose()


async def test_a_writer_names_the_reason_that_a_raw_poll_has_met(tmp_path: Path) -> None:
    raw, transport = duplex(4096)
    stream = alone(transport)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    await stream.do_handshake()
    stream._engine.feed(peer.alert(INTERNAL_ERROR))
    with pytest.raises(ssl.SSLError):
        stream._engine.decrypt(1)
    with pytest.raises(trio.BrokenResourceError, match="(?i)alert internal error") as caught:
        stream.poll_write(data := bytearray(b"kept by nobody"))
    data.clear()  # or BufferError, while the error's traceback exists
    with pytest.raises(trio.BrokenResourceError, match="(?i)alert internal error"):
        await stream.send_all(b"x")
    assert caught
    await stream.aclose()
    await raw.aclose()


async def test_a_writer_is_told_why_its_certificate_was_refused() -> None:
    """On TLS 1.3 the refusal comes after the client's handshake, and perhaps before it reads."""
    context = new_server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    client, server = over(await tcp_pair(), server=context)

    async def refuse() -> None:
        with pytest.raises(trio.BrokenResourceError, match="(?i)did not return a certificate"):
            await server.do_handshake()
        await server.aclose()

    await both(refuse, client.do_handshake)
    with pytest.raises(trio.BrokenResourceError, match="(?i)certificate required"):
        while True:
            await client.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError) as caught:
        await client.send_all(b"x")
    assert "CERTIFICATE_REQUIRED" in str(caught.value.__cause__)
    await client.aclose()


@pytest.mark.parametrize("ended", [False, True], ids=["silent", "ended"])
async def test_a_peer_that_takes_no_more_of_a_handshake_may_say_why(
    ended: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """It has closed one direction; the other one is listened to, for five seconds."""
    raw, transport = duplex(4096)
    stream = alone(transport, server_side=False)
    raw._incoming.close_reader()
    if ended:
        await raw.send_eof()
    reason = "closed the connection during the handshake" if ended else "closed its end"
    with pytest.raises(trio.BrokenResourceError, match=reason):
        await stream.do_handshake()
    assert trio.current_time() == (0 if ended else 5)
    with pytest.raises(trio.BrokenResourceError):
        await stream.do_handshake()
    await stream.aclose()
    await trio.aclose_forcefully(raw)


@pytest.mark.parametrize("plain", [False, True], ids=["ours", "plain"])
async def test_data_may_come_before_our_last_flight_has_gone(
    plain: bool, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A TLS 1.3 server may write before it has read that; none of it is lost."""
    raw, transport = duplex(1 << 16)
    context = new_client_context()
    context.keylog_filename = str(tmp_path / "keys")
    client, server = engine_pair(client=context)
    client.handshake()
    clogged_transport = Clogged(transport, room=len(client.out))  # for the ClientHello
    stream: Tls = TlsStream(
        SendAllOnly(clogged_transport) if plain else clogged_transport,
        context,
        server_hostname=HOST,
    )
    received: list[bytes] = []

    async def read() -> None:
        received.append(bytes(await stream.receive_some()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.do_handshake)
        nursery.start_soon(read)
        server.feed(await raw.receive_some())
        server.handshake()
        await raw.send_all(take(server))
        await wait_all_tasks_blocked()
        await raw.send_all(HandmadePeer(server, tmp_path / "keys").data(b"early"))
        await wait_all_tasks_blocked()
        with pytest.raises(trio.NeedHandshakeError):
            stream.version()
        await trio.sleep(2)  # a send that was broken off for the data's sake would be dead by now
        clogged_transport.unclog()
        server.feed(await raw.receive_some())
        assert server.handshake()
    assert received == [b"early"]
    await trio.aclose_forcefully(stream)


async def test_a_renegotiation_holds_up_the_writer(tmp_path: Path) -> None:
    """TLS 1.2 only. The writer waits for the peer, is not accepted from, and does not spin."""
    raw, transport = duplex(1 << 16)
    stream: Tls = TlsStream(transport, client_context(TLS12), server_hostname=HOST)
    request = hello_request(stream._engine, tmp_path / "keys")
    await stream.do_handshake()
    buf = Buf(b"x")
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as reading:
            nursery.start_soon(after_all_blocked, reading.cancel)
            await raw.send_all(request)
            await stream.receive_some()
        assert len(await raw.receive_some()) > 100  # a ClientHello: the reader has answered

        async def write() -> None:
            with pytest.raises(trio.BrokenResourceError, match="during a renegotiation"):
                await stream.write_buf(buf)

        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        assert buf.remaining == 1
        await raw.send_eof()
    with pytest.raises(trio.BrokenResourceError):
        await stream.unwrap()
    await stream.aclose()


async def test_a_stream_can_be_closed_in_a_renegotiation(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """OpenSSL refuses to make a close_notify then, so the peer will see no proper end."""
    for verb in ("unwrap", "aclose"):
        raw, transport = duplex(1 << 16)
        stream: Tls = TlsStream(transport, client_context(TLS12), server_hostname=HOST)
        stream._engine.feed(hello_request(stream._engine, tmp_path / verb))
        with trio.move_on_after(1):
            await stream.receive_some()
        if verb == "unwrap":
            with pytest.raises(trio.BrokenResourceError, match="(?i)in.init"):
                await stream.unwrap()
            await stream.aclose()  # it has been told
        else:
            with pytest.raises(trio.BrokenResourceError, match="(?i)in.init"):
                await stream.aclose()
        await trio.aclose_forcefully(raw)


find_hangs(globals())


async def test_what_a_reader_has_got_wakes_the_writer_that_waits_for_it() -> None:
    """Over a socket, nobody else would: the bytes are not there any more."""
    left, right = await tcp_pair()
    client = alone(left, server_side=False)
    server = engine_pair()[1]

    def answer(size: int) -> None:
        while size:
            try:
                server.feed(received := right.poll_read(65536))
            except NotReady:
                break
            size -= len(received)
        server.handshake()
        assert right.poll_write(take(server))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.write_all, b"message")
            await wait_all_tasks_blocked()
            answer(10**6)
            # The whole flight is there, and no task was scheduled since.
            with pytest.raises(NotReady):
                client.poll_read(1)
    await client.flush()
    while (message := server.decrypt(100) if server.handshake() else None) is None:
        server.feed(await right.receive_some())

    assert message == b"message"
    await right.aclose()
    await client.aclose()
