"""TlsStream: all that trio.SSLStream does, and then what it does not survive."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import re
import signal
import ssl
import tracemalloc
import warnings
from collections import Counter
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_asyncwrite import (
    AsyncReadWrite,
    Buf,
    BufWriter,
    NotReady,
    ReadWritePair,
    TlsStream,
    duplex,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write
from trio_asyncwrite.testing._cancel import fair_scheduler

from .._streams import clog, clogged, clogged_both_ways, drain, reset, tcp_pair
from .._tls_helpers import (
    CLOSE_NOTIFY,
    HOST,
    INTERNAL_ERROR,
    KEY_UPDATED,
    MESSAGES,
    TLS12,
    TLS13,
    TRANSPORTS,
    VERSIONS,
    HandmadePeer,
    SendAllOnly,
    alone,
    both,
    ca,
    certificate,
    client_context,
    damages,
    duplex_1,
    duplex_7,
    duplex_4096,
    engine_pair,
    established,
    find_hangs,
    handmade_peer,
    hello_request,
    memory_pair,
    new_client_context,
    new_server_context,
    open_tls,
    over,
    plain_pair,
    read_exactly,
    say_messages,
    server_context,
    shake_hands,
    take,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from .._tls_helpers import Maker

    Tls = TlsStream[Any]

both_kinds = pytest.mark.parametrize("kind", [TlsStream, trio.SSLStream], ids=["ours", "trio's"])
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
both_sides = pytest.mark.parametrize("reverse", [False, True], ids=["client", "server"])
all_transports = pytest.mark.parametrize("maker", TRANSPORTS, ids=lambda maker: maker.__name__)

#: What is sent where the content does not matter; more than a record, and not a power of two.
TEXT = bytes(i % 251 for i in range(20000))


def text(size: int) -> bytes:
    return (TEXT * (size // len(TEXT) + 1))[:size]


# ---- What trio.SSLStream does: the same scenario with both classes --------------------------


@both_kinds
async def test_constructor_errors(kind: Any) -> None:
    transport, _ = await memory_pair()
    for name in ("", ".example.org"):
        with pytest.raises(ValueError):
            kind(transport, client_context(), server_hostname=name)
    with pytest.raises(ssl.SSLError):
        kind(transport, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), server_side=True)


async def test_a_client_that_checks_names_needs_one() -> None:
    """Trio's goes on and checks none."""
    transport, _ = await memory_pair()
    with pytest.raises(ValueError, match="server_hostname"):
        TlsStream(transport, client_context())
    context = ssl.create_default_context()
    context.check_hostname = False
    assert TlsStream(transport, context).server_hostname is None


async def test_a_transport_must_be_a_stream() -> None:
    with pytest.raises(TypeError, match="expected a trio.abc.Stream, got int"):
        TlsStream(3, server_context(), server_side=True)  # type: ignore[type-var]


async def test_names_are_idna_2008() -> None:
    """IDNA 2003 would turn it into fass.de, which is somebody else's. (Newer Trios do so, too.)"""
    transport, _ = await memory_pair()
    stream: Tls = TlsStream(transport, client_context(), server_hostname="faß.de")
    assert stream.server_hostname == "xn--fa-hia.de"
    stream = TlsStream(transport, client_context(), server_hostname=HOST.encode())
    assert stream.server_hostname == HOST


@both_kinds
async def test_do_handshake_is_idempotent_and_concurrent(kind: Any) -> None:
    client, server = over(await memory_pair(), kind=kind)
    received = bytearray()

    async def receive() -> None:
        received.extend(await read_exactly(server, len(TEXT)))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        nursery.start_soon(client.send_all, TEXT)
        nursery.start_soon(receive)
    assert received == TEXT
    for stream in (client, server):
        with assert_checkpoints():
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)


@both_kinds
async def test_receive_some_arguments(kind: Any) -> None:
    client, server = await open_tls(memory_pair, kind=kind)
    for wrong in (0, -1):
        with pytest.raises(ValueError):
            await client.receive_some(wrong)
    for wrong_type in (1.5, "1", b"1"):
        with pytest.raises(TypeError):
            await client.receive_some(wrong_type)
    await server.send_all(b"x")
    assert await client.receive_some(True) == b"x"
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


@both_kinds
@pytest.mark.parametrize(
    "names",
    [
        ("send_all", "send_all"),
        ("send_all", "wait_send_all_might_not_block"),
        ("receive_some", "receive_some"),
        ("send_all", "unwrap"),
        ("receive_some", "unwrap"),
    ],
    ids="-".join,
)
async def test_busy(kind: Any, names: tuple[str, str]) -> None:
    """Two tasks in one half are one too many; the first is unharmed."""
    client, server = await open_tls(_lockstep, kind=kind)
    arguments: dict[str, tuple[Any, ...]] = {"send_all": (b"x",), "receive_some": (1,)}

    async def call(name: str) -> None:
        with assert_checkpoints():
            await getattr(client, name)(*arguments.get(name, ()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, names[0])
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await call(names[1])
        if names[0] == "send_all":
            assert await server.receive_some(1) == b"x"
        else:
            await server.send_all(b"y")
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


async def _lockstep() -> Any:
    return trio.testing.lockstep_stream_pair()


@both_kinds
async def test_both_halves_at_once(kind: Any) -> None:
    """A full-duplex conversation, handshakes in between, and an orderly end."""
    client, server = over(await memory_pair(), kind=kind)
    messages = [bytes([i]) * 32768 for i in range(10)]
    received = {client: bytearray(), server: bytearray()}

    async def send(stream: Any) -> None:
        for message in messages:
            await stream.send_all(message)

    async def receive(stream: Any) -> None:
        received[stream] += await read_exactly(stream, 327680)

    async with trio.open_nursery() as nursery:
        for stream in (client, server):
            nursery.start_soon(send, stream)
            nursery.start_soon(receive, stream)
            nursery.start_soon(stream.do_handshake)
    for stream in (client, server):
        assert received[stream] == b"".join(messages)
    await client.aclose()
    assert await server.receive_some() == b""
    await server.aclose()


@both_kinds
async def test_closed(kind: Any) -> None:
    """A graceful end of both; afterwards, nothing more, however often."""
    client, server = await open_tls(memory_pair, kind=kind)
    with assert_checkpoints():
        await client.aclose()
    for _ in range(2):
        assert await server.receive_some(10) == b""
    with assert_checkpoints():
        await server.aclose()
    for stream in (client, server):
        with assert_checkpoints():
            await stream.aclose()
        for call in (
            partial(stream.send_all, b"x"),
            partial(stream.receive_some, 1),
            stream.receive_some,
            stream.unwrap,
            stream.do_handshake,
            stream.wait_send_all_might_not_block,
        ):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(trio.ClosedResourceError):
            await stream.transport_stream.send_all(b"x")


@both_kinds
@pytest.mark.parametrize("https_compatible", [False, True], ids=["strict", "https"])
async def test_close_before_the_handshake(kind: Any, https_compatible: bool) -> None:
    """Trio's shakes hands first, to say that this is the end; ours ends its transport."""
    client, server = over(await memory_pair(), kind=kind, https_compatible=https_compatible)
    strict = not https_compatible and kind is TlsStream

    async def expect_end() -> None:
        with assert_checkpoints():
            if strict:
                with pytest.raises(trio.BrokenResourceError, match="during the handshake"):
                    await server.receive_some(10)
            else:
                assert await server.receive_some(10) == b""
        await server.aclose()

    await both(client.aclose, expect_end)


@both_kinds
async def test_truncation(kind: Any) -> None:
    client, server = await open_tls(memory_pair, kind=kind)
    await client.send_all(b"x")
    await trio.aclose_forcefully(client.transport_stream)
    assert await server.receive_some(10) == b"x"
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some(10)
        with pytest.raises(trio.BrokenResourceError):
            await server.send_all(b"x")
    await server.aclose()


@both_kinds
async def test_truncation_when_it_is_usual(kind: Any) -> None:
    client, server = await open_tls(memory_pair, kind=kind, https_compatible=True)
    await client.send_all(b"x")
    await trio.aclose_forcefully(client.transport_stream)
    assert await server.receive_some(10) == b"x"
    assert await server.receive_some(10) == b""
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"x")
    await server.aclose()


@both_kinds
async def test_https_compatible_on_one_side_only(kind: Any) -> None:
    """One sends no close_notify, and the other expects it: an error. Not so the other way."""
    client, server = await open_tls(memory_pair, kind=kind)
    client._https_compatible = True
    await client.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some(10)
    await server.aclose()

    client, server = await open_tls(memory_pair, kind=kind)
    server._https_compatible = True
    await client.aclose()
    assert await server.receive_some(10) == b""
    await server.aclose()


@both_kinds
@pytest.mark.parametrize("https_compatible", [False, True], ids=["strict", "https"])
async def test_a_peer_that_closes_at_once(kind: Any, https_compatible: bool) -> None:
    left, right = await memory_pair()
    stream = kind(left, client_context(), server_hostname=HOST, https_compatible=https_compatible)
    await right.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await stream.do_handshake()
    await trio.aclose_forcefully(stream)

    left, right = trio.testing.memory_stream_pair()
    stream = kind(left, client_context(), server_hostname=HOST, https_compatible=https_compatible)
    await right.send_eof()
    if https_compatible:
        assert await stream.receive_some(10) == b""
    else:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some(10)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    await stream.aclose()


@both_kinds
@both_versions
async def test_unwrap_gives_the_plain_stream_back(kind: Any, version: ssl.TLSVersion) -> None:
    """With what has arrived behind the end of TLS, whichever side ends it first."""
    client, server = await open_tls(memory_pair, version, kind=kind)
    transports = client.transport_stream, server.transport_stream
    plain: dict[str, Any] = {}

    async def first() -> None:
        with assert_checkpoints():
            plain["client"], plain["trailing"] = await client.unwrap()

    async def second() -> None:
        assert await server.receive_some(10) == b""
        # Its end and what follows arrive in one piece.
        hook = transports[1].send_stream.send_all_hook
        transports[1].send_stream.send_all_hook = None
        plain["server"], nothing = await server.unwrap()
        assert nothing == b""
        await plain["server"].send_all(b"plain text")
        transports[1].send_stream.send_all_hook = hook
        await hook()

    await both(first, second)
    assert plain == {"client": transports[0], "server": transports[1], "trailing": b"plain text"}
    await plain["client"].send_all(b"after")
    assert await plain["server"].receive_some(10) == b"after"
    for stream in (client, server):
        assert stream.transport_stream is None
        await stream.aclose()  # it has given its transport away
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
    await plain["client"].send_all(b"still open")


@both_kinds
async def test_unwrap_when_data_was_not_received(kind: Any) -> None:
    client, server = await open_tls(memory_pair, kind=kind)
    await server.send_all(b"unread")
    with pytest.raises(trio.BrokenResourceError):
        await client.unwrap()
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


async def test_what_was_not_received_can_be_and_then_unwrap_goes_on() -> None:
    client, server = await open_tls(memory_pair)
    await server.send_all(b"unread")
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="^the peer has sent 6 bytes that were"):
            await client.unwrap()
    assert await client.receive_some() == b"unread"

    async def unwrap() -> None:
        assert (await client.unwrap())[1] == b""

    await both(unwrap, server.unwrap)


@both_kinds
async def test_checkpoints(kind: Any) -> None:
    client, server = await open_tls(memory_pair, kind=kind)
    with assert_checkpoints():
        await client.wait_send_all_might_not_block()
    for data in (b"", b"", b"xxx"):  # to OpenSSL, an empty write is an end
        with assert_checkpoints():
            await client.send_all(data)
    for _ in range(3):
        with assert_checkpoints():
            assert await server.receive_some(1) == b"x"

    async def expect_end() -> None:
        assert await server.receive_some(1) == b""
        await server.unwrap()

    async def unwrap() -> None:
        with assert_checkpoints():
            await client.unwrap()

    await both(unwrap, expect_end)


@both_kinds
async def test_waiting_to_send_does_no_handshake(kind: Any) -> None:
    left, right = trio.testing.memory_stream_pair()
    stream = kind(left, client_context(), server_hostname=HOST)
    with assert_checkpoints():
        await stream.wait_send_all_might_not_block()
    with pytest.raises(trio.NeedHandshakeError):
        stream.version()
    right.receive_stream.close()


class TransportError(Exception):
    """What no stream of ours raises."""


async def fail() -> None:
    raise TransportError


@both_kinds
async def test_a_failing_transport(kind: Any) -> None:
    """Trio's lets its error through, ours says how far one has come; then the stream is broken."""
    client, server = await open_tls(memory_pair, kind=kind)
    transport = client.transport_stream
    transport.send_stream.send_all_hook = fail
    with pytest.raises(trio.BrokenResourceError if kind is TlsStream else TransportError) as caught:
        await client.send_all(b"x")
    assert isinstance(caught.value.__cause__ or caught.value, TransportError)
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await client.wait_send_all_might_not_block()
    await client.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive_some(1)
    await trio.aclose_forcefully(server)


@both_kinds
@pytest.mark.parametrize("half", ["send", "receive"])
async def test_a_failing_transport_during_the_handshake(
    kind: Any, half: str, autojump_clock: trio.testing.MockClock
) -> None:
    """What receiving raises passes through ours, and breaks nothing: the transport may recover."""
    left, right = trio.testing.memory_stream_pair()
    client, server = over((left, right), kind=kind)
    if half == "send":
        left.send_stream.send_all_hook = fail
    else:
        left.receive_stream.receive_some_hook = fail
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        wrapped = kind is TlsStream and half == "send"
        with pytest.raises(trio.BrokenResourceError if wrapped else TransportError):
            with assert_checkpoints():
                await client.do_handshake()
        passes = kind is TlsStream and half == "receive"
        for _ in range(2):
            with pytest.raises(TransportError if passes else trio.BrokenResourceError):
                await client.do_handshake()
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


@both_kinds
async def test_the_transport_is_closed_once_even_if_that_fails(kind: Any) -> None:
    client, server = await open_tls(memory_pair, kind=kind)
    closed = 0

    def close() -> None:
        nonlocal closed
        closed += 1
        raise TransportError

    client.transport_stream.receive_stream.close_hook = close
    with pytest.raises(TransportError):
        await client.aclose()
    await client.aclose()
    assert closed == 1
    await trio.aclose_forcefully(server)


async def test_a_handshake_that_fails_in_aclose_is_an_error() -> None:
    """Else one might talk to a peer without a certificate and never hear of it.

    A close needs a handshake only for bytes that are held above; else it ends the transport.
    """
    client, server = over(await duplex_4096(), client=ssl.create_default_context())
    for stream in (client, server):
        await BufWriter(stream).write(b"said before the handshake")

    async def fails(stream: Any) -> None:
        with pytest.raises(trio.BrokenResourceError, match="(?i)certificate verify|unknown ca"):
            await stream.aclose()

    await both(partial(fails, client), partial(fails, server))


@both_kinds
async def test_tls_in_tls(kind: Any) -> None:
    outer = over(await memory_pair(), TLS12, kind=kind)
    client, server = await open_tls(lambda: _ready(over(outer, kind=kind)), kind=kind)
    await client.send_all(b"hi")
    assert await server.receive_some() == b"hi"
    await server.send_all(b"bye")
    assert await client.receive_some() == b"bye"
    await client.aclose()
    assert await server.receive_some() == b""
    await server.aclose()


async def _ready(value: Any) -> Any:
    return value


# ---- The contract of AsyncWrite and Trio's own checks ---------------------------------------


def tls_maker(maker: Maker, version: ssl.TLSVersion, *, reverse: bool = False) -> Any:
    async def make() -> Any:
        pair = await open_tls(maker, version)
        return pair[::-1] if reverse else pair

    return make


# A clogged stream that is closed forcefully loses what it has accepted, and says so.
lost_on_purpose = pytest.mark.filterwarnings("ignore:.*were never sent:ResourceWarning")


@lost_on_purpose
@both_versions
@both_sides
async def test_the_contract(version: ssl.TLSVersion, reverse: bool) -> None:
    maker = tls_maker(tcp_pair, version, reverse=reverse)
    await check_async_write(maker, clogged(maker))


@lost_on_purpose
@both_versions
async def test_half_closeable_stream(version: ssl.TLSVersion) -> None:
    maker = tls_maker(tcp_pair, version)
    await trio.testing.check_half_closeable_stream(maker, clogged_both_ways(maker))


@lost_on_purpose
async def test_a_plain_transport_is_asked_whether_it_can_send(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Trio's check with its own lockstep streams, which are clogged from the start."""

    async def maker() -> Any:
        left, right = trio.testing.lockstep_stream_pair()
        client, server = over((SendAllOnly(left), SendAllOnly(right)))
        await both(client.do_handshake, server.do_handshake)
        return client, server

    async def never_full() -> Any:
        return over(await memory_pair())

    await trio.testing.check_two_way_stream(never_full, maker)


async def test_two_way_stream_without_a_handshake_beforehand() -> None:
    async def maker() -> Any:
        return over(await plain_pair())

    await trio.testing.check_two_way_stream(maker, None)


async def test_half_closeable_stream_in_tls() -> None:
    """The waits of the outer stream are those of the inner one, begun too late or not at all."""

    async def maker() -> Any:
        return over(over(await duplex_4096(), TLS12))

    await trio.testing.check_half_closeable_stream(maker, None)


@lost_on_purpose
@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("maker", [duplex_4096, plain_pair])
async def test_the_contract_over_more(version: ssl.TLSVersion, maker: Maker) -> None:
    for reverse in (False, True):
        made = tls_maker(maker, version, reverse=reverse)
        if maker is plain_pair:
            await check_async_write(made)
        else:
            await check_async_write(made, clogged(made))
            await trio.testing.check_half_closeable_stream(made, clogged_both_ways(made))


# ---- Cancellation ---------------------------------------------------------------------------


class Life:
    """What a stream says and hears, from its handshake to its end; called again, it goes on."""

    def __init__(self, stream: Tls, say: bytes, *, sip: int) -> None:
        self.stream = stream
        self._buf = Buf(say)
        self._sip = sip
        self.heard = bytearray()
        self._ended = False

    async def write(self) -> None:
        if self._buf.remaining:
            await self.stream.write_all_buf(self._buf)
        await self.stream.flush()
        await self.stream.shutdown()

    async def read(self) -> None:
        while not self._ended:
            data = await self.stream.receive_some(self._sip)
            self.heard += data
            self._ended = not data

    async def shake_hands(self) -> None:
        await self.stream.do_handshake()

    async def both(self) -> None:
        await both(self.write, self.read)


async def sweep_life(
    maker: Maker,
    version: ssl.TLSVersion,
    part: str,
    *,
    reverse: bool,
    size: int,
    established_before: bool = False,
    step: int = 1,
) -> int:
    """Cancel a part of one end's life everywhere; resumed, it and the other end miss nothing.

    With a ``step``, at every ``step``-th place.
    """

    async def scenario(sweep: Sweep) -> None:
        streams = (established if established_before else over)(await maker(), version)
        if reverse:
            streams = streams[::-1]
        # The other end takes small sips: a slow reader.
        ours = Life(streams[0], text(size), sip=65536)
        theirs = Life(streams[1], text(size)[::-1], sip=max(1, size // 20))
        swept = getattr(ours, part)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.both)
            if part == "write":
                nursery.start_soon(ours.read)
            elif part == "read":
                nursery.start_soon(ours.write)
            with sweep:
                await swept()
            if sweep.cancelled:
                await swept()
            if part == "shake_hands":
                await ours.both()
        assert ours.heard == text(size)[::-1]
        assert theirs.heard == text(size)
        for stream in streams:
            assert stream.unsent_bytes == 0
            await stream.aclose()

    if step == 1:
        return await cancel_everywhere(scenario)
    with fair_scheduler:
        for run in itertools.count():
            sweep = Sweep(run * step)
            await scenario(sweep)
            if not sweep._scope.cancel_called:
                break
    return run + 1


#: How many bytes fill the buffers several times.
SIZES = {tcp_pair: 100_000, duplex_1: 5, duplex_7: 20, duplex_4096: 10_000, plain_pair: 10_000}

parts = pytest.mark.parametrize("part", ["both", "write", "read", "shake_hands"])


@parts
@pytest.mark.parametrize("maker", [tcp_pair, duplex_4096, plain_pair])
@pytest.mark.parametrize(
    ("version", "reverse"), [(TLS13, False), (TLS12, True)], ids=["1.3-client", "1.2-server"]
)
async def test_cancelled_anywhere(
    maker: Maker, version: ssl.TLSVersion, part: str, reverse: bool
) -> None:
    """Whatever is cancelled, whenever: resumed, every byte arrives once; both ends are clean."""
    runs = await sweep_life(maker, version, part, reverse=reverse, size=SIZES[maker])
    assert runs > 3


@pytest.mark.slow
@parts
@all_transports
@both_versions
@both_sides
async def test_cancelled_anywhere_in_all_combinations(
    maker: Maker, version: ssl.TLSVersion, part: str, reverse: bool
) -> None:
    # Thousands of bytes of handshake, one by one: too many places for a sweep of them all.
    if part == "shake_hands":
        step = {duplex_1: 149, duplex_7: 17}.get(maker, 1)
        await sweep_life(maker, version, part, reverse=reverse, size=SIZES[maker], step=step)
    else:
        await sweep_life(
            maker,
            version,
            part,
            reverse=reverse,
            size=SIZES[maker],
            established_before=maker in {duplex_1, duplex_7},
            step=7 if maker is duplex_1 else 1,
        )


@parts
async def test_cancelled_anywhere_in_tls(part: str) -> None:
    """Both handshakes, one through the other, and all that comes after."""

    async def maker() -> Any:
        return over(await duplex_4096(), TLS12)

    await sweep_life(maker, TLS13, part, reverse=False, size=10_000)


@both_versions
async def test_a_handshake_cancelled_here_and_there(version: ssl.TLSVersion) -> None:
    """In the middle of its messages."""
    runs = await sweep_life(duplex_7, version, "shake_hands", reverse=False, size=1, step=149)
    assert runs > 5


@pytest.mark.parametrize("part", ["write", "read"])
async def test_cancelled_anywhere_byte_by_byte(part: str) -> None:
    """In the middle of every record."""
    await sweep_life(duplex_7, TLS12, part, reverse=False, size=8, established_before=True)


async def test_unwrap_cancelled_anywhere() -> None:
    async def scenario(sweep: Sweep) -> None:
        client, server = established(duplex(16), TLS12)
        clients = client.transport_stream
        plain: list[Any] = []

        async def other() -> None:
            assert await server.receive_some() == b""
            plain.append(await server.unwrap())
            await plain[0][0].send_all(b"plain")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            with sweep:
                plain.append(await client.unwrap())
            if sweep.cancelled:
                plain.append(await client.unwrap())
        transport, trailing = next(pair for pair in plain if pair[0] is clients)
        assert trailing + await read_exactly(transport, 5 - len(trailing)) == b"plain"

    await cancel_everywhere(scenario)


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
async def test_a_key_update_cancelled_anywhere(server_side: bool, tmp_path: Path) -> None:
    """Answered by a reader or a writer, whoever is cancelled: the keys stay in step."""

    async def scenario(sweep: Sweep) -> None:
        raw, transport = duplex(100)
        stream = alone(transport, server_side=server_side)
        peer = handmade_peer(stream._engine, tmp_path / "keys")
        received = bytearray()
        buf = Buf(b"answer" * 5)

        async def converse() -> None:
            while len(received) < 9:
                received.extend(await stream.receive_some(2))
            await stream.write_all_buf(buf)
            await stream.flush()

        async def feed() -> None:
            await raw.send_all(peer.data(b"old") + peer.key_update() + peer.data(b"new"))
            await raw.send_all(peer.key_update() + peer.data(b"fin"))

        heard: list[tuple[int, bytes]] = []

        async def listen() -> None:
            while b"".join(text for kind, text in heard if kind == 23) != b"answer" * 5:
                heard.extend(peer.read(await raw.receive_some(60)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            nursery.start_soon(listen)
            with sweep:
                await converse()
            if sweep.cancelled:
                await converse()
        assert received == b"oldnewfin"
        assert heard.count(KEY_UPDATED) == 2
        await trio.aclose_forcefully(stream)

    await cancel_everywhere(scenario)


# ---- One half does not harm the other -------------------------------------------------------


async def test_a_reader_sends_on_for_a_cancelled_writer() -> None:
    """Who waits to send, sends for all; when it is cancelled, a task that reads takes over."""
    client, server = await open_tls()
    data = text(100_000)
    buf = Buf(data)
    writing = trio.CancelScope()

    async def write() -> None:
        with writing:
            await client.write_all_buf(buf)

    async def read() -> None:
        assert await client.receive_some() == b"answer"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        writing.cancel()
        await wait_all_tasks_blocked()
        accepted = len(data) - buf.remaining
        assert 0 < accepted < len(data)
        assert client.unsent_bytes > 0
        # The reader is the only task at work, and all that was accepted arrives.
        assert await read_exactly(server, accepted) == data[:accepted]
        assert client.unsent_bytes == 0
        await server.send_all(b"answer")
    with lost():  # the Buf is unfinished
        await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


async def test_a_cancelled_reader_leaves_a_blocked_writer_alone() -> None:
    client, server = await open_tls()
    data = text(100_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, data)
        for _ in range(3):
            with trio.CancelScope() as reading:
                nursery.start_soon(_after_all_blocked, reading.cancel)
                await client.receive_some()
            assert reading.cancelled_caught
        assert await read_exactly(server, len(data)) == data
    await server.send_all(b"answer")
    assert await client.receive_some() == b"answer"
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


async def _after_all_blocked(call: Callable[[], object]) -> None:
    await wait_all_tasks_blocked()
    call()


@pytest.mark.parametrize("end", ["cancelled", "data"])
async def test_a_reader_leaves_a_writers_bytes_alone_where_they_must_go_whole(
    end: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Over a plain stream, who begins to send must see it through, or break the stream.

    A reader that has what it wants, or is cancelled, cannot. So it does not begin.
    """
    client, server = established(await plain_pair())
    await client.do_handshake()
    data = text(60_000)
    assert await client.write(data) == len(data)  # taken, and not flushed
    if end == "data":
        await server.send_all(b"news")
        assert await client.receive_some() == b"news"
    else:
        with trio.move_on_after(1):
            await client.receive_some()
    # The peer is very slow to read. With a writer that waits, this is no problem at all.
    await trio.sleep(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"more")
        await trio.sleep(100)
        assert await read_exactly(server, len(data) + 4) == data + b"more"
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


@pytest.mark.parametrize("plain", [False, True], ids=["exact", "plain"])
async def test_a_reader_sends_its_own_answers(plain: bool, tmp_path: Path) -> None:
    """An application that only reads still answers the peer, behind a buffer as well."""
    raw, transport = duplex(4096)
    buffered: Any = ReadWritePair(transport, Stubborn(transport))
    if plain:
        buffered = SendAllOnly(transport)
    stream = alone(buffered)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    await stream.do_handshake()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await read_exactly(stream, 2) == b"xy"

        nursery.start_soon(read)
        # An engine answers a key update when it is next called.
        await raw.send_all(peer.data(b"x") + peer.key_update() + peer.key_update())
        assert KEY_UPDATED in peer.read(await raw.receive_some())
        await raw.send_all(peer.data(b"y"))
    assert stream.unsent_bytes == 0
    await trio.aclose_forcefully(stream)


class Slow(SendAllOnly):
    """Takes longer to send than any ``cancel_grace``; nobody may notice a cancellation."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(3)
        await super().send_all(data)


@both_versions
async def test_what_arrives_does_not_break_off_a_slow_handshake(
    version: ssl.TLSVersion, autojump_clock: trio.testing.MockClock
) -> None:
    left, right = await memory_pair()
    client, server = over((Slow(left), Slow(right)), version)
    await both(client.do_handshake, server.do_handshake)
    await both(partial(client.send_all, b"x"), partial(read_exactly, server, 1))
    await both(client.aclose, server.aclose)


async def test_what_arrives_does_not_break_off_a_slow_answer(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    raw, transport = duplex(1 << 16)
    stream = alone(Slow(transport))
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    async with trio.open_nursery() as nursery:
        await raw.send_all(peer.key_update() + peer.key_update())

        async def send_data() -> None:
            await trio.sleep(1)
            await raw.send_all(peer.data(b"data"))

        nursery.start_soon(send_data)
        assert await stream.receive_some() == b"data"
        assert trio.current_time() == 3
    await stream.send_all(b"the session is well")
    await trio.aclose_forcefully(stream)
    await trio.aclose_forcefully(raw)


class Stubborn(BufWriter[Any]):
    """A buffer that has to be flushed twice."""

    _flushed = False

    def poll_flush(self) -> None:
        if self._flushed:
            super().poll_flush()
        self._flushed = not self._flushed
        if self._flushed:
            raise NotReady(trio.lowlevel.checkpoint)


async def test_a_reader_sends_its_answer_past_a_writer_that_has_left(tmp_path: Path) -> None:
    """A writer that was sending may be content when the reader's answer is still in a buffer."""
    raw, transport = duplex(64)
    stream = alone(ReadWritePair(transport, BufWriter(transport, capacity=4096)))
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    await stream.do_handshake()
    heard: list[tuple[int, bytes]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write_all, b"x" * 5000)
        await wait_all_tasks_blocked()
        nursery.start_soon(stream.receive_some)
        await wait_all_tasks_blocked()
        await raw.send_all(peer.key_update() + peer.key_update())
        while KEY_UPDATED not in heard:
            heard += peer.read(await raw.receive_some())
        await raw.send_all(peer.data(b"done"))
    await trio.aclose_forcefully(stream)


async def test_waiting_to_send_is_no_conflict_with_an_answer(tmp_path: Path) -> None:
    """Both wait for one descriptor; Trio would refuse the second task."""
    left, right = await tcp_pair()
    stream = alone(left)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    await stream.do_handshake()
    clog(left)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.wait_send_all_might_not_block)
        await wait_all_tasks_blocked()
        nursery.start_soon(stream.receive_some)
        await right.send_all(peer.key_update() + peer.key_update())
        await wait_all_tasks_blocked()
        nursery.start_soon(drain, right)
        await right.send_all(peer.data(b"done"))
        await wait_all_tasks_blocked()
        await stream.aclose()
    await trio.aclose_forcefully(right)


# ---- Half-close and the ends of both directions ---------------------------------------------


@both_versions
@both_sides
@all_transports
async def test_half_close(maker: Maker, version: ssl.TLSVersion, reverse: bool) -> None:
    """The peer reads all and a proper end, while this side goes on reading."""
    one, other = established(await maker(), version)
    if reverse:
        one, other = other, one
    size = 500

    async def first() -> None:
        await one.send_all(text(size))
        await one.shutdown()
        for call in (partial(one.send_all, b"x"), partial(one.write, b"x")):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        await one.send_eof()
        await one.flush()
        assert await drain(one) == text(size)[::-1]
        await one.aclose()

    async def second() -> None:
        assert await drain(other) == text(size)
        await other.send_all(text(size)[::-1])
        await other.aclose()

    await both(first, second)


@both_versions
async def test_half_close_with_undelivered_plaintext_and_ciphertext(
    version: ssl.TLSVersion,
) -> None:
    client, server = await open_tls(memory_pair, version)
    for word in (b"one", b"two", b"three"):
        await server.send_all(word)
    assert await client.receive_some(1) == b"o"
    await client.shutdown()
    await server.send_all(b"four")
    assert await server.receive_some() == b""
    await server.aclose()
    assert not client.close_notify_received
    assert await drain(client) == b"netwothreefour"
    assert client.close_notify_received
    assert await client.receive_some() == b""
    await client.aclose()


@both_versions
async def test_both_shut_down_at_once(version: ssl.TLSVersion) -> None:
    client, server = await open_tls(duplex_4096, version)
    await both(client.shutdown, server.shutdown)
    for stream in (client, server):
        assert await stream.receive_some() == b""
        await stream.aclose()


async def test_a_peer_that_is_gone_when_the_close_notify_comes() -> None:
    """It has ended its stream, and need not wait for the end of ours: no failure."""
    client, server = await open_tls(tcp_pair)
    await server.aclose()
    assert await client.receive_some() == b""
    await client.shutdown()
    await client.aclose()

    client, server = await open_tls(duplex_4096)
    await server.aclose()
    assert await client.receive_some() == b""
    await client.aclose()
    assert client.unsent_bytes == 0


async def test_https_half_close() -> None:
    """Where nobody sends a close_notify, it is the transport alone that is half-closed."""
    client, server = await open_tls(tcp_pair, https_compatible=True)
    await client.send_all(b"request")
    await client.shutdown()
    assert await drain(server) == b"request"
    await server.send_all(b"response")
    await server.aclose()
    assert await drain(client) == b"response"
    await client.aclose()


async def test_https_shutdown_before_the_handshake() -> None:
    left, right = duplex(4096)
    stream = alone(left, server_side=False, https_compatible=True)
    await stream.shutdown()
    assert await right.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    await stream.aclose()


@pytest.mark.parametrize("https_compatible", [False, True], ids=["strict", "https"])
@both_versions
async def test_truncation_at_every_byte(version: ssl.TLSVersion, https_compatible: bool) -> None:
    """A truncated stream is never taken for a complete one, unless that is what was asked for."""
    for cut in itertools.count():
        raw, transport = duplex(1 << 16)
        stream: Tls = TlsStream(
            transport, server_context(version), server_side=True, https_compatible=https_compatible
        )
        client, _ = engine_pair(version)
        shake_hands(client, stream._engine)
        client.encrypt([memoryview(b"text")])
        record = len(client.out)
        client.close_notify()
        whole = take(client)
        await raw.send_all(whole[:cut])
        await raw.send_eof()
        received = bytearray()
        if https_compatible or cut == len(whole):
            received += await drain(stream)
        else:
            with pytest.raises(trio.BrokenResourceError, match="without a close_notify"):
                async for data in stream:
                    received += data
        assert received == (b"text" if cut >= record else b"")
        await trio.aclose_forcefully(stream)
        if cut == len(whole):
            return


async def socket_stream_pair() -> Any:
    """Trio's own socket stream at one end."""
    left, right = await tcp_pair()
    return left._stream, right


@pytest.mark.parametrize("layer", [lambda tls: tls, BufWriter], ids=["bare", "buffered"])
async def test_to_close_after_a_truncation_does_not_destroy_what_is_on_its_way(
    layer: Callable[[Any], Any],
) -> None:
    """The missing close_notify breaks the peer's direction, and not ours."""
    client, server = await open_tls(tcp_pair)
    client.transport_stream.socket.shutdown(trio.socket.SHUT_WR)
    answer = text(5000)
    async with layer(server) as writer:
        await writer.send_all(answer)
        with pytest.raises(trio.BrokenResourceError, match="without a close_notify"):
            await server.receive_some()
    assert await drain(client) == answer
    await trio.aclose_forcefully(client)


async def test_a_reset_that_the_writer_hears_of_is_no_end_for_the_reader() -> None:
    """The kernel reports it once; reading then gives an end-of-file, and here that would do."""
    client, server = await open_tls(socket_stream_pair, https_compatible=True)
    reset(server.transport_stream)
    with pytest.raises(trio.BrokenResourceError):
        await client.write(b"x")
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
    await client.aclose()
    await trio.aclose_forcefully(server)


# ---- Alerts ---------------------------------------------------------------------------------


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
    await wait_all_tasks_blocked(0.01)
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


def spoilt(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


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
    await wait_all_tasks_blocked(0.01)
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
            nursery.start_soon(_after_all_blocked, reading.cancel)
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


# ---- What was accepted, and did not go ------------------------------------------------------


class Clogged(AsyncReadWrite):
    """A transport that takes some bytes, and no more until it is told to; or breaks."""

    def __init__(self, inner: Any, room: int) -> None:
        self.inner = inner
        self._left = room
        self._changed = trio.Event()
        self.wait: Callable[[], Awaitable[object]] = self._changed.wait
        self._error: Exception | None = None

    def poll_write(self, data: Any, /) -> int:
        if self._error is not None:
            raise self._error
        if not self._left:
            raise NotReady(self.wait)
        count: int = self.inner.poll_write(data[: self._left])
        self._left -= count
        return count

    def unclog(self) -> None:
        self._left = 1 << 60
        self._changed.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._changed.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes = await self.inner.receive_some(max_bytes)
        return data


async def half_sent(error: Exception) -> tuple[Tls, Clogged, Tls]:
    """A stream that has taken 1000 bytes, and sent 100; its transport; and the peer's stream."""
    left, right = duplex(1 << 16)
    transport = Clogged(left, room=100)
    stream, peer = established((transport, right), TLS12)
    assert await stream.write(text(1000)) == 1000
    transport.fail(error)
    await peer.send_all(b"news")
    return stream, transport, peer


@pytest.mark.parametrize("error", [trio.BrokenResourceError("gone"), TransportError()], ids=repr)
async def test_a_reader_tells_nobody_that_sending_has_failed(error: Exception) -> None:
    """It is not what its caller has asked for: reading goes on, and the writer is told, once."""
    stream, _, peer = await half_sent(error)
    assert await stream.receive_some() == b"news"
    await peer.send_all(b"more")
    assert await stream.receive_some() == b"more"
    assert 900 <= stream.unsent_bytes < 1000
    with pytest.raises(type(error)):
        await stream.write(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await stream.write(b"x")
    await peer.send_all(b"last")
    assert await stream.receive_some() == b"last"
    await stream.aclose()  # the writer has been told
    assert 900 <= stream.unsent_bytes < 1000
    await trio.aclose_forcefully(peer)


async def test_a_failure_that_only_a_reader_has_met_is_told_by_aclose() -> None:
    stream, _, peer = await half_sent(trio.BrokenResourceError("gone"))
    assert await stream.receive_some() == b"news"
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await stream.aclose()
    assert 900 <= stream.unsent_bytes < 1000
    await trio.aclose_forcefully(peer)


async def test_a_cancelled_aclose_after_such_a_failure_warns() -> None:
    stream, _, peer = await half_sent(trio.BrokenResourceError("gone"))
    assert await stream.receive_some() == b"news"
    messages = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await trio.aclose_forcefully(stream)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 1
    assert re.search(r"9\d\d bytes that it had accepted were never sent", messages[0])
    await trio.aclose_forcefully(peer)


async def test_an_answer_that_cannot_go_is_nobodys_loss(tmp_path: Path) -> None:
    raw, transport = duplex(4096)
    stream = alone(transport)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    raw._incoming.close_reader()
    await raw.send_all(peer.key_update() + peer.key_update() + peer.data(b"data"))
    assert await stream.receive_some() == b"data"
    await raw.send_all(peer.key_update() + peer.key_update() + peer.alert(CLOSE_NOTIFY))
    assert await stream.receive_some() == b""
    await stream.aclose()
    assert stream.unsent_bytes == 0


async def test_a_refused_write_leaves_its_bytes_to_the_caller(tmp_path: Path) -> None:
    """They are not counted here as well."""
    raw, inner = duplex(1 << 16)
    transport = Clogged(inner, room=0)
    stream = alone(transport)
    handmade_peer(stream._engine, tmp_path / "keys")
    writer = BufWriter(stream, 1000)
    await writer.write_all(text(999))
    transport.fail(trio.BrokenResourceError("gone"))
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await writer.flush()
    assert (writer.unsent_bytes, stream.unsent_bytes) == (999, 0)
    await writer.aclose()
    await trio.aclose_forcefully(raw)


async def test_what_is_lost_is_counted_once(tmp_path: Path) -> None:
    """Later answers find the transport broken as well, and are nothing that was accepted."""
    raw, inner = duplex(1 << 16)
    transport = Clogged(inner, room=0)
    stream = alone(transport)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    assert await stream.write(text(1000)) == 1000
    transport.fail(trio.BrokenResourceError("gone"))
    for word in (b"one", b"two", b"three"):
        await raw.send_all(peer.key_update() + peer.key_update() + peer.data(word))
        assert await stream.receive_some() == word
        assert stream.unsent_bytes == 1000
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await stream.aclose()
    await trio.aclose_forcefully(raw)


async def test_a_reader_leaves_the_queue_alone_while_somebody_sends_past_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """On the transport itself: a mistake, but nothing that the session should die of."""

    async def busy() -> None:
        await wait_all_tasks_blocked()
        raise trio.BusyResourceError

    raw, inner = duplex(1 << 16)
    transport = Clogged(inner, room=0)
    transport.wait = busy
    stream = alone(transport)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    async with trio.open_nursery() as nursery:
        assert await stream.write(b"accepted") == 8

        async def read() -> None:
            assert await stream.receive_some() == b"data"

        nursery.start_soon(read)
        await trio.sleep(1)
        await raw.send_all(peer.data(b"data"))
    transport.unclog()
    await stream.flush()
    assert peer.read(await raw.receive_some()) == [(23, b"accepted")]
    await trio.aclose_forcefully(stream)


async def test_what_the_wait_of_one_task_comes_upon_is_told_to_the_writer() -> None:
    """The task that waits for all may be the reader. It breaks nothing, and ends a close."""

    async def fail() -> None:
        await wait_all_tasks_blocked()
        raise TransportError

    left, right = duplex(4096)
    transport = Clogged(left, room=0)
    transport.wait = fail
    stream, peer = established((transport, right), TLS12)
    assert await stream.write(b"accepted") == 8
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await stream.receive_some() == b"news"

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        await peer.send_all(b"news")
    for call in (stream.flush, stream.flush, stream.aclose):
        with pytest.raises(TransportError):
            await call()
    assert stream.unsent_bytes == 8
    await trio.aclose_forcefully(peer)


async def test_busy_transport_is_no_failure() -> None:
    """Somebody reads from a foreign transport directly: their mistake, and it passes."""
    client, server = await open_tls(memory_pair)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.transport_stream.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.receive_some()
        nursery.cancel_scope.cancel()
    await server.send_all(b"x")
    assert await client.receive_some() == b"x"
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


@pytest.mark.parametrize("layer", ["plain", "tls", "buffered"])
async def test_unsent_bytes_are_the_callers(
    layer: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Neither a handshake nor a close_notify is anything that was accepted and then lost."""
    raw, transport = duplex(16)
    other: Tls | None = None
    below: Any = SendAllOnly(transport)
    if layer == "tls":
        below, other = established((transport, raw), TLS12)
    elif layer == "buffered":
        below = ReadWritePair(transport, BufWriter(transport))
    stream: Tls = TlsStream(below, client_context(TLS12), server_hostname=HOST)
    with trio.move_on_after(0.01):
        await stream.do_handshake()
    assert stream.unsent_bytes > 0  # each layer counts in its own unit
    assert stream.held_bytes == 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await trio.aclose_forcefully(stream)
    # The plain stream is made of one of ours, and its send_all was cut short.
    assert all("<DuplexStream" in str(warning.message) for warning in caught)
    assert len(caught) == (layer == "plain")
    assert stream.held_bytes == 0
    await trio.aclose_forcefully(other or raw)


@pytest.mark.parametrize("plain", [False, True], ids=["exact", "plain"])
@pytest.mark.parametrize("written", [0, 1000], ids=["handshake", "data"])
async def test_a_dropped_stream_warns_of_plaintext_only(
    plain: bool, written: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Once, and of the bytes that somebody has written; not of a handshake, nor of ciphertext."""
    raw, transport = duplex(16)
    wrapped: Any = SendAllOnly(transport) if plain else transport
    if written:
        stream, other = established((wrapped, raw), TLS12)
        assert await stream.write(text(written)) == written
    else:
        stream = TlsStream(wrapped, client_context(TLS12), server_hostname=HOST)
        with trio.move_on_after(0.01):
            await stream.do_handshake()
    del wrapped, transport  # which would keep a stream alive that holds bytes
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del stream
        gc.collect()
    messages = [str(warning.message) for warning in caught if "accepted" in str(warning.message)]
    # A plain stream's writer has taken it, encrypted.
    count = "1029" if plain else "1000"
    lost = f"was garbage-collected: {count} bytes that it had accepted were never sent"
    assert [lost in message for message in messages] == [True] * bool(written)
    await trio.aclose_forcefully(other if written else raw)


async def test_unsent_bytes_of_a_plain_transport() -> None:
    client, server = established(await plain_pair(), TLS12)
    assert client.unsent_bytes == 0
    assert await client.write(text(10_000)) == 10_000
    assert client.held_bytes == 0
    assert client.unsent_bytes == 10_029  # ciphertext
    await both(client.flush, partial(read_exactly, server, 10_000))
    assert client.unsent_bytes == 0
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


async def test_unsent_bytes_count_down() -> None:
    left, right = duplex(1000)
    client, server = established((left, right), TLS12)
    assert await client.write(text(100_000)) == 65536
    queued = [client.unsent_bytes]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.flush)
        while queued[-1]:
            await server.receive_some()
            await wait_all_tasks_blocked()
            queued.append(client.unsent_bytes)
    assert 64_000 < queued[0] <= 65536
    assert queued == sorted(queued, reverse=True)
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


async def test_the_callers_buffer_is_free_after_a_failure() -> None:
    """No error's traceback keeps a view, which would lock a bytearray."""
    client, server = await open_tls()
    await trio.aclose_forcefully(server)
    errors = []
    for write in (client.write, client.write_all, client.send_all):
        data = bytearray(text(100_000))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await write(data)
        errors.append(caught)
        data.clear()
    parts = [bytearray(b"one"), bytearray(b"two")]
    with pytest.raises(trio.BrokenResourceError) as caught:
        client.poll_write_vectored(parts)
    for part in parts:
        part.clear()
    await client.aclose()


async def test_vectored_writes_fill_records() -> None:
    client, server = await open_tls()
    parts = [b"", b"one", b"", b"two", text(60_000), text(10_000)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.write_all_vectored, parts)
        whole = b"".join(parts)
        assert await read_exactly(server, 65536) == whole[:65536]
    await both(client.flush, partial(read_exactly, server, len(whole) - 65536))
    assert client.poll_write_vectored([b"", b""]) == 0
    assert client.poll_write(b"") == 0
    with pytest.raises(TypeError):
        client.poll_write_vectored([b"x", "y"])  # type: ignore[list-item]
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


async def test_small_messages_through_a_buffer_make_full_records() -> None:
    raw, transport = duplex(1 << 20)
    client, server = established((transport, raw))
    async with BufWriter(client) as writer:
        for i in range(2000):
            await writer.write(b"%08d" % i)
        await writer.flush()
        assert len(raw._incoming._bytes) < 16000 + 22 * 2
    assert await drain(server) == b"".join(b"%08d" % i for i in range(2000))
    await server.aclose()


# ---- Closing while others wait --------------------------------------------------------------


async def test_aclose_wakes_all_who_wait() -> None:
    client, server = over(await duplex_7())
    closed = Counter[str]()

    async def expect_closed(name: str, call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await call()
        closed[name] += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, "write", partial(client.send_all, b"x"))
        nursery.start_soon(expect_closed, "read", client.receive_some)
        nursery.start_soon(expect_closed, "handshake", client.do_handshake)
        await wait_all_tasks_blocked()
        nursery.start_soon(client.aclose)
        await wait_all_tasks_blocked()
        assert closed == {"write": 1, "read": 1, "handshake": 1}
        for call in (client.do_handshake, client.receive_some, client.flush):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(trio.BrokenResourceError, match="during the handshake"):
            await server.receive_some()
    await server.aclose()


@pytest.mark.parametrize("operation", ["do_handshake", "receive_some", "send_eof"])
async def test_to_close_a_handshake_that_was_given_up_is_not_to_wait_for_it(
    operation: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The peer may have connected to do just that: to say nothing, for ever."""
    raw, transport = duplex(4096)
    async with alone(transport, server_side=False) as stream:
        with trio.move_on_after(5) as scope:
            await getattr(stream, operation)()
        assert scope.cancelled_caught
    assert trio.current_time() == 5
    await trio.aclose_forcefully(raw)


# ---- Bounds ---------------------------------------------------------------------------------


class Flood(AsyncReadWrite):
    """A peer that has much to say, and hears nothing."""

    def __init__(self, flood: Iterator[bytes]) -> None:
        self._flood = flood
        self.said = 0
        self.tls: Tls | None = None
        self.most_queued = 0
        self.most_received = 0

    def poll_write(self, data: Any, /) -> int:
        assert self.tls is not None
        self.most_queued = max(self.most_queued, len(data), len(self.tls._engine.out))
        raise NotReady(trio.sleep_forever)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert self.tls is not None
        assert max_bytes is not None
        await trio.lowlevel.checkpoint()
        engine = self.tls._engine
        self.most_received = max(self.most_received, engine._incoming.pending + max_bytes)
        said = bytearray()
        while len(said) < max_bytes - 100:
            said += next(self._flood)
        self.said += len(said)
        return bytes(said)


async def test_a_flood_that_wants_to_be_answered_is_not_read(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What is queued for a peer that does not read stays within what the module says."""
    transport = Flood(iter(()))
    stream = transport.tls = alone(transport)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    transport._flood = (peer.key_update() for _ in itertools.count())
    await stream.do_handshake()
    assert await stream.write(text(100_000)) == 65536
    with pytest.raises(NotReady):
        stream.poll_write(b"x")
    with trio.move_on_after(1):
        await stream.receive_some()
    assert len(stream._engine.out) > 131072
    assert transport.most_queued <= 131072 + 65536
    assert transport.said <= 131072 + 65536
    assert transport.most_received <= 65536
    with lost():
        await trio.aclose_forcefully(stream)


async def test_a_flood_of_data_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    transport = Flood(iter(()))
    stream = transport.tls = alone(transport)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    transport._flood = (peer.data(bytes(50)) for _ in itertools.count())
    await stream.do_handshake()
    assert await stream.receive_some(1) == b"\0"
    assert transport.said <= 65536
    for _ in range(100):
        await stream.receive_some(3)
    assert transport.said <= 65536
    for _ in range(20):
        assert len(await stream.receive_some()) <= 65536
    assert transport.most_received <= 65536
    await trio.aclose_forcefully(stream)


@contextlib.contextmanager
def lost() -> Iterator[None]:
    """Something is lost on purpose here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(never sent|Buf was begun|accepted)", ResourceWarning)
        yield


async def test_a_large_size_is_no_allocation() -> None:
    client, server = await open_tls()
    await server.send_all(b"x")
    assert await client.receive_some(1 << 62) == b"x"
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


# ---- Sessions -------------------------------------------------------------------------------


@both_versions
async def test_a_session_is_resumed(version: ssl.TLSVersion) -> None:
    """With TLS 1.3, once the server's first bytes were read."""
    client, server = await open_tls(version=version)
    await server.send_all(b"x")
    assert await client.receive_some() == b"x"
    session = client.session
    assert client.session_reused is server.session_reused is False
    for stream in (client, server):
        await trio.aclose_forcefully(stream)

    client, server = over(await duplex_4096(), version)
    client.session = session
    await both(client.do_handshake, server.do_handshake)
    assert client.session_reused is server.session_reused is True
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


async def test_a_server_says_nothing_before_its_first_write() -> None:
    """Its tickets would be in the way of a client that only writes (python-trio/trio#819)."""
    left, right = duplex(1 << 16)
    client, server = over((left, right))
    await both(client.do_handshake, server.do_handshake)
    for _ in range(3):
        await client.send_all(b"x")
        assert await server.receive_some() == b"x"
    await server.flush()
    assert not left._incoming._bytes
    await server.send_all(b"y")
    assert len(left._incoming._bytes) > 200
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


# ---- Hypothesis -----------------------------------------------------------------------------

patience = st.one_of(st.none(), st.integers(0, 20))
write_steps = st.one_of(
    st.tuples(st.just("write_all_buf"), st.sampled_from([0, 1, 10, 300]), patience),
    st.tuples(st.just("write_buf"), st.sampled_from([1, 10, 300]), patience),
    st.tuples(st.just("flush"), st.just(0), patience),
    st.tuples(st.just("shutdown"), st.just(0), patience),
)
read_steps = st.tuples(st.sampled_from([1, 7, 100, 10_000]), patience)


class Talker:
    """One end of a conversation: a task that writes and one that reads, interrupted at will."""

    def __init__(self, stream: Tls) -> None:
        self.stream = stream
        self.said = b""
        self.heard = b""
        self._ended = False

    async def write(self, steps: list[Any]) -> None:
        for verb, size, ticks in steps:
            if verb in {"flush", "shutdown"}:
                await impatiently(getattr(self.stream, verb), ticks)
                if verb == "shutdown":
                    break
            else:
                buf = Buf(text(len(self.said) + size)[len(self.said) :])
                await impatiently(partial(getattr(self.stream, verb), buf), ticks)
                self.said = text(len(self.said) + size - buf.remaining)
        await self.stream.shutdown()

    async def read(self, steps: list[Any]) -> None:
        for size, ticks in steps:
            await impatiently(partial(self._read_some, size), ticks)
        while not self._ended:
            await self._read_some(10_000)

    async def _read_some(self, size: int) -> None:
        data = await self.stream.receive_some(size)
        assert len(data) <= size
        self.heard += data
        self._ended = not data


async def impatiently(call: Callable[[], Awaitable[object]], ticks: int | None) -> None:
    """Cancel ``call`` after so many turns of the scheduler."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            if ticks is not None:
                nursery.start_soon(_cancel_after, scope, ticks)
            await call()
        nursery.cancel_scope.cancel()


async def _cancel_after(scope: trio.CancelScope, ticks: int) -> None:
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    scope.cancel()


def run_conversation(
    version: ssl.TLSVersion, capacity: int, steps: tuple[list[Any], ...], *, plain: bool = False
) -> None:
    async def main() -> None:
        left, right = duplex(capacity)
        transports: Any = (SendAllOnly(left), SendAllOnly(right)) if plain else (left, right)
        with trio.fail_after(1000):
            # A handshake byte by byte takes its time.
            streams = (established if capacity < 100 else over)(transports, version)
            client, server = map(Talker, streams)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.write, steps[0])
                nursery.start_soon(client.read, steps[1])
                nursery.start_soon(server.write, steps[2])
                nursery.start_soon(server.read, steps[3])
            assert client.heard == server.said
            assert server.heard == client.said
            for stream in streams:
                assert stream.unsent_bytes == 0
                await stream.aclose()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


conversations = st.tuples(
    *[st.lists(steps, max_size=8) for steps in (write_steps, read_steps, write_steps, read_steps)]
)


@both_versions
@given(steps=conversations, capacity=st.sampled_from([3, 60, 200, 4096]))
@settings(max_examples=20)
def test_any_conversation_equals_the_model(
    version: ssl.TLSVersion, steps: tuple[list[Any], ...], capacity: int
) -> None:
    """Writes, reads, flushes, ends and cancellations on both ends, in any order."""
    run_conversation(version, capacity, steps)


@both_versions
@given(steps=conversations)
@settings(max_examples=10)
def test_any_conversation_over_plain_streams_equals_the_model(
    version: ssl.TLSVersion, steps: tuple[list[Any], ...]
) -> None:
    run_conversation(version, 200, steps, plain=True)


@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("plain", [False, True], ids=["exact", "plain"])
@given(steps=conversations, capacity=st.sampled_from([1, 3, 60, 100, 200, 4096]))
@settings(max_examples=1000)
def test_any_conversation_equals_the_model_at_length(
    version: ssl.TLSVersion, plain: bool, steps: tuple[list[Any], ...], capacity: int
) -> None:
    run_conversation(version, capacity, steps, plain=plain)


@both_versions
@both_sides
@given(damage=damages(), chunk=st.sampled_from([1, 30, 1000]), size=st.sampled_from([1, 10_000]))
@settings(max_examples=30)
def test_damage_is_a_broken_stream(
    version: ssl.TLSVersion, reverse: bool, damage: Any, chunk: int, size: int
) -> None:
    """Never wrong plaintext, a clean end, a hang or another error."""

    async def run() -> None:
        raw, transport = duplex(chunk)
        pair = established((transport, raw), version)
        stream, peer = pair[::-1] if reverse else pair
        if reverse:
            raw, transport = transport, raw
        parts = say_messages(peer._engine)
        ciphertext = damage(parts)
        if ciphertext.startswith(b"".join(parts)):
            return
        received = b""

        async def say() -> None:
            await raw.send_all(ciphertext)
            await raw.send_eof()

        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say)
                with pytest.raises(trio.BrokenResourceError):
                    while data := await stream.receive_some(size):
                        received += data
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some(size)
                nursery.cancel_scope.cancel()
        assert b"".join(MESSAGES).startswith(received)
        # The peer does not read, so an end of ours would have to wait.
        await trio.aclose_forcefully(stream)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


# ---- Nothing stays behind -------------------------------------------------------------------


async def live_and_die(number: int) -> None:
    """A connection, and one of the ways in which it can end."""
    transports = await tcp_pair()
    client, server = over(transports, VERSIONS[number % 2])
    ways = [
        _end_well,
        _end_cancelled,
        _end_truncated,
        _end_corrupt,
        _end_refused,
        _end_reset,
        _end_unwrapped,
    ]
    await ways[number % len(ways)](client, server)
    for stream in (client, server, *transports):
        await trio.aclose_forcefully(stream)


async def _end_well(client: Tls, server: Tls) -> None:
    async def serve() -> None:
        await server.send_all(await server.receive_some())
        assert await server.receive_some() == b""
        await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await client.send_all(b"hello")
        assert await client.receive_some() == b"hello"
        await client.aclose()


async def _end_cancelled(client: Tls, server: Tls) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.receive_some)
            nursery.start_soon(_after_all_blocked, scope.cancel)
            await server.do_handshake()
            with contextlib.suppress(NotReady):
                while True:
                    server.poll_write(bytes(65536))
            nursery.start_soon(server.flush)


async def _end_truncated(client: Tls, server: Tls) -> None:
    await both(client.do_handshake, server.do_handshake)
    client.transport_stream.socket.shutdown(trio.socket.SHUT_WR)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()


async def _end_corrupt(client: Tls, server: Tls) -> None:
    await both(client.do_handshake, server.do_handshake)
    for word in (b"good", b"evil"):
        client._engine.encrypt([memoryview(word)])
    client._engine.out = memoryview(spoilt(take(client._engine)))
    await client.flush()
    assert await server.receive_some() == b"good"
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


async def _end_refused(client: Tls, server: Tls) -> None:
    client.context = distrustful_context()

    async def refuse(stream: Tls) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

    await both(partial(refuse, client), partial(refuse, server))


async def _end_reset(client: Tls, server: Tls) -> None:
    await both(client.do_handshake, server.do_handshake)
    clog(client)
    reset(server.transport_stream)
    with pytest.raises(trio.BrokenResourceError):
        await client.flush()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


async def _end_unwrapped(client: Tls, server: Tls) -> None:
    async def other() -> None:
        assert await server.receive_some() == b""
        await server.unwrap()

    await both(client.unwrap, other)


@functools.cache
def distrustful_context() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca("theirs").cert_pem.bytes().decode())


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@lost_on_purpose
def test_no_connection_is_left_to_the_garbage_collector() -> None:
    """However it ends: no exception, frame or stream refers to itself."""

    async def main() -> None:
        for number in range(140):
            await live_and_die(number)

    with no_collector():
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            trio.run(main)
            gc.collect()
            garbage = [
                found
                for found in gc.garbage
                if type(found).__module__.startswith(("trio_asyncwrite", "ssl", "_ssl"))
                or isinstance(found, BaseException)
            ]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    assert not garbage


@pytest.mark.slow
@lost_on_purpose
def test_ten_thousand_connections_in_flat_memory() -> None:
    """Without a garbage collector's help."""
    sizes = []

    async def main() -> None:
        for number in range(10_000):
            if number % 1000 == 999:
                sizes.append(tracemalloc.get_traced_memory()[0])
            await live_and_die(number)

    tracemalloc.start()
    try:
        with no_collector():
            trio.run(main)
    finally:
        tracemalloc.stop()
    assert max(sizes[1:]) < sizes[0] + 200_000


def test_ctrl_c_in_a_wait_for_both_directions() -> None:
    """It comes out as what it is, and not in a group; and nothing is lost by it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    result: list[bytes] = []

    async def main() -> None:
        left, right = duplex(64)
        client, server = established((left, right))
        assert await client.write(text(1000)) == 1000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_after_all_blocked, press_ctrl_c)
            with pytest.raises(KeyboardInterrupt):
                await client.receive_some()
        await both(client.shutdown, partial(_drain_into, server, result))
        for stream in (client, server):
            await trio.aclose_forcefully(stream)

    try:
        trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result == [text(1000)]


@trio.lowlevel.enable_ki_protection  # so that it goes to the main task
def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


async def _drain_into(stream: Tls, result: list[bytes]) -> None:
    result.append(await drain(stream))


find_hangs(globals())
