"""A buffer that one task fills by polls, while another one flushes it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncReadWrite, BufWriter, NotReady, TlsStream, abort

from .._patience import wait_all_tasks_blocked
from .._streams import clog, tcp_pair
from .._tls_helpers import HOST, client_context, server_context

CAPACITY = 2000


async def pair(*, tls: bool) -> tuple[AsyncReadWrite, AsyncReadWrite]:
    left, right = await tcp_pair()
    if not tls:
        return left, right
    client = TlsStream(left, client_context(), server_hostname=HOST)
    server = TlsStream(right, server_context(), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client, server


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_messages_are_taken_whole_or_not_at_all_and_memory_is_bounded(*, tls: bool) -> None:
    """Also where the flush has sent a part of the buffer."""
    stream, peer = await pair(tls=tls)
    outbox = BufWriter(stream, CAPACITY)
    posted: list[int] = []
    received = bytearray()

    def post(number: int) -> None:
        message = b"%05d" % number + bytes(number % 150) + b"\n"
        try:
            assert outbox.poll_write(message) == len(message)
        except NotReady:
            return
        posted.append(number)

    async def flush() -> None:
        while True:
            await outbox.flush()
            await trio.lowlevel.checkpoint()

    clog(stream)
    # Here the outbox itself is tried, and not the clog before it.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        for number in range(3000):
            post(number)
            assert outbox.held_bytes <= CAPACITY
            if number % 3 == 0:
                received += await peer.receive_some(200)
        missed = 3000 - len(posted)
        assert missed > 100
        last = b"%05d" % posted[-1] + bytes(posted[-1] % 150) + b"\n"
        while not received.endswith(last):
            received += await peer.receive_some()
        nursery.cancel_scope.cancel()
    messages = b"".join(b"%05d" % number + bytes(number % 150) + b"\n" for number in posted)
    assert received.lstrip(b"\0") == messages.lstrip(b"\0")
    await trio.aclose_forcefully(stream)
    await trio.aclose_forcefully(peer)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_a_slow_reader_can_be_put_out_while_the_flush_waits(*, tls: bool) -> None:
    stream, peer = await pair(tls=tls)
    outbox = BufWriter(stream, CAPACITY)
    clog(stream)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def flush() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await outbox.flush()

        outbox.poll_write(bytes(1500))
        await wait_all_tasks_blocked()
        with pytest.raises(NotReady):
            outbox.poll_write(bytes(1500))
        await abort(stream)
        with pytest.raises(trio.ClosedResourceError):
            outbox.poll_write(b"more")
    with pytest.raises(trio.BrokenResourceError):
        while await peer.receive_some():
            pass
    await trio.aclose_forcefully(peer)
