"""TlsStream cancelled anywhere; and one half does not harm the other."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufWriter,
    NotReady,
    ReadWritePair,
    TlsStream,
    duplex,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere
from trio_asyncwrite.testing._cancel import _Block, fair_scheduler

from .._patience import wait_all_tasks_blocked
from .._streams import clog, drain, tcp_pair
from .._tls_helpers import (
    KEY_UPDATED,
    TLS12,
    TLS13,
    SendAllOnly,
    after_all_blocked,
    all_transports,
    alone,
    both,
    both_sides,
    both_versions,
    duplex_1,
    duplex_7,
    duplex_4096,
    established,
    find_hangs,
    handmade_peer,
    lost,
    memory_pair,
    open_tls,
    over,
    plain_pair,
    read_exactly,
    text,
)

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from .._tls_helpers import Maker

    Tls = TlsStream[Any]


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
            block = _Block(run * step)
            await scenario(Sweep(block))
            if not block.scope.cancel_called:
                break
    return run + 1


#: How many bytes fill the buffers several times.
SIZES = {tcp_pair: 100_000, duplex_1: 5, duplex_7: 20, duplex_4096: 10_000, plain_pair: 10_000}
parts = pytest.mark.parametrize("part", ["both", "write", "read", "shake_hands"])


@pytest.mark.outer
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


@pytest.mark.outer
@parts
async def test_cancelled_anywhere_in_tls(part: str) -> None:
    """Both handshakes, one through the other, and all that comes after."""

    async def maker() -> Any:
        return over(await duplex_4096(), TLS12)

    await sweep_life(maker, TLS13, part, reverse=False, size=10_000)


@pytest.mark.outer
@both_versions
async def test_a_handshake_cancelled_here_and_there(version: ssl.TLSVersion) -> None:
    """In the middle of its messages."""
    runs = await sweep_life(duplex_7, version, "shake_hands", reverse=False, size=1, step=149)
    assert runs > 5


@pytest.mark.outer
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
                nursery.start_soon(after_all_blocked, reading.cancel)
                await client.receive_some()
            assert reading.cancelled_caught
        assert await read_exactly(server, len(data)) == data
    await server.send_all(b"answer")
    assert await client.receive_some() == b"answer"
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


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


find_hangs(globals())
