"""Half-close, and the ends of both directions."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    BufWriter,
    TlsStream,
    duplex,
)

from .._patience import wait_all_tasks_blocked
from .._streams import drain, reset, tcp_pair
from .._tls_helpers import (
    all_transports,
    alone,
    both,
    both_sides,
    both_versions,
    duplex_7,
    duplex_4096,
    engine_pair,
    established,
    find_hangs,
    memory_pair,
    open_tls,
    over,
    server_context,
    shake_hands,
    take,
    text,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from .._tls_helpers import Maker

    Tls = TlsStream[Any]


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
    assert not client.peer_ended
    client.poll_shutdown()  # nothing is left to do
    assert await drain(client) == b"netwothreefour"
    assert client.close_notify_received
    assert client.peer_ended
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


find_hangs(globals())
