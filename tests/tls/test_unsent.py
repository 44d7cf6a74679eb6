"""Plaintext that was accepted and did not go."""

from __future__ import annotations

import gc
import re
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    BufWriter,
    ReadWritePair,
    TlsStream,
    duplex,
)

from .._patience import wait_all_tasks_blocked
from .._streams import drain
from .._tls_helpers import (
    CLOSE_NOTIFY,
    HOST,
    TLS12,
    Clogged,
    SendAllOnly,
    TransportError,
    alone,
    both,
    client_context,
    established,
    find_hangs,
    handmade_peer,
    memory_pair,
    open_tls,
    plain_pair,
    read_exactly,
    text,
)

if TYPE_CHECKING:
    from pathlib import Path

    Tls = TlsStream[Any]


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


find_hangs(globals())
