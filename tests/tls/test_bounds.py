"""What a TlsStream holds and keeps: bounded queues, sessions, and nothing after its end."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import signal
import ssl
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    NotReady,
    TlsStream,
    duplex,
)
from trio_asyncwrite._core._budget import Budget

from .._streams import clog, drain, reset, tcp_pair
from .._tls_helpers import (
    VERSIONS,
    after_all_blocked,
    alone,
    both,
    both_versions,
    ca,
    duplex_4096,
    established,
    find_hangs,
    handmade_peer,
    lost,
    lost_on_purpose,
    open_tls,
    over,
    read_exactly,
    spoilt,
    take,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Tls = TlsStream[Any]


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


async def roomy_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return duplex(8 << 20)


async def test_a_large_write_is_taken_in_growing_pieces_while_they_go_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind a peer that does not keep up they shrink, and never is more than one queued."""
    kib = 1024
    data = text(1024 * kib)
    client, server = await open_tls(roomy_pair)
    counts = [await client.write(data) for _ in range(6)]
    assert counts == [size * kib for size in (64, 128, 256, 512, 512, 512)]
    assert client.unsent_bytes == 0

    take = client.inner.poll_write
    left = 0

    def take_little(data: bytes | bytearray | memoryview) -> int:
        nonlocal left
        if not left:
            raise NotReady(trio.sleep_forever)
        count = take(bytes(data[:left]))
        left -= count
        return count

    monkeypatch.setattr(client.inner, "poll_write", take_little)
    for size in (512, 256, 128, 64, 64):
        left = kib
        assert client.poll_write(data) == size * kib
        assert (size - 1) * kib <= client.held_bytes <= size * kib
        left = 1 << 30
        client.poll_flush()
        counts.append(size * kib)
    # Small and medium writes need no more, and change nothing.
    for size in (1, 1000, 63 * kib):
        left = 1 << 30
        assert client.poll_write(data[:size]) == size
        counts.append(size)
    assert client.poll_write_vectored([data, data]) == 64 * kib
    assert await read_exactly(server, sum(counts)) == b"".join(data[:count] for count in counts)
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


async def test_a_large_size_is_no_allocation() -> None:
    client, server = await open_tls()
    await server.send_all(b"x")
    assert await client.receive_some(1 << 62) == b"x"
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


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
            nursery.start_soon(after_all_blocked, scope.cancel)
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
                if (
                    type(found).__module__.startswith(("trio_asyncwrite", "ssl", "_ssl"))
                    and not isinstance(found, Budget)
                )  # the run's
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
            nursery.start_soon(after_all_blocked, press_ctrl_c)
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
