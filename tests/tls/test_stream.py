"""TlsStream: all that trio.SSLStream does, and then what it does not survive."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import assert_checkpoints

from trio_asyncwrite import (
    BufWriter,
    TlsStream,
)
from trio_asyncwrite.testing import check_async_write

from .._patience import wait_all_tasks_blocked
from .._streams import clogged, clogged_both_ways, tcp_pair
from .._tls_helpers import (
    HOST,
    TEXT,
    TLS12,
    SendAllOnly,
    TransportError,
    both,
    both_sides,
    both_versions,
    client_context,
    duplex_4096,
    established,
    find_hangs,
    lost_on_purpose,
    memory_pair,
    open_tls,
    over,
    plain_pair,
    read_exactly,
    server_context,
)

if TYPE_CHECKING:
    from .._tls_helpers import Maker

    Tls = TlsStream[Any]

both_kinds = pytest.mark.parametrize("kind", [TlsStream, trio.SSLStream], ids=["ours", "trio's"])


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
    with pytest.raises(ValueError, match="server_hostname is missing"):
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
        error = trio.BrokenResourceError if wrapped else TransportError
        with pytest.raises(error), assert_checkpoints():
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


def tls_maker(maker: Maker, version: ssl.TLSVersion, *, reverse: bool = False) -> Any:
    async def make() -> Any:
        pair = await open_tls(maker, version)
        return pair[::-1] if reverse else pair

    return make


@pytest.mark.outer
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


find_hangs(globals())


@lost_on_purpose
async def test_a_reader_leaves_what_a_writer_has_begun_to_the_writer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A call of a foreign stream must not be broken off; and the reader need not wait for it."""
    client, server = established(trio.testing.lockstep_stream_pair())
    for _ in range(2):
        with trio.move_on_after(0):
            await client.write(b"x" * 100)
    received: list[bytes | bytearray] = []

    async def receive() -> None:
        received.append(await client.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        with trio.fail_after(1):
            await server.send_all(b"hello")
    assert received == [b"hello"]
    for stream in (client, server):
        await trio.aclose_forcefully(stream)
