"""What the recipe for anyio says of its adapters is true. It runs in test_recipes.py."""

from __future__ import annotations

import runpy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.streams.tls
import pytest
import trio
import trio.testing
from anyio.abc import SocketAttribute

from trio_asyncwrite import Buf, BufWriter, TlsStream, abort, duplex, wrap_stream

from ._patience import wait_all_tasks_blocked
from ._streams import tcp_pair
from ._tls_helpers import HOST, client_context, server_context

if TYPE_CHECKING:
    from trio.testing import MockClock

RECIPE = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "recipes" / "anyio_streams.py"))
ToAnyio: Any = RECIPE["ToAnyio"]
FromAnyio: Any = RECIPE["FromAnyio"]


async def there_and_back() -> tuple[Any, Any]:
    left, right = duplex(1000)
    return FromAnyio(ToAnyio(left)), FromAnyio(ToAnyio(right))


async def test_there_and_back_is_a_stream_of_trios_kind() -> None:
    """Both adapters, in one. anyio has no wait for room, so that one is not checked."""
    await trio.testing.check_half_closeable_stream(there_and_back, None)


class Failing(anyio.abc.ByteStream):
    """A stream of anyio's that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def send(self, item: bytes) -> None:
        raise self.error

    async def receive(self, max_bytes: int = 65536) -> bytes:
        raise self.error

    async def send_eof(self) -> None:
        raise self.error

    async def aclose(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("theirs", "trios"),
    [
        (anyio.BrokenResourceError("why"), trio.BrokenResourceError),
        (anyio.BusyResourceError("why"), trio.BusyResourceError),
        (anyio.ClosedResourceError("why"), trio.ClosedResourceError),
        (OSError("why"), OSError),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_errors_of_anyio_have_trios_types(theirs: Exception, trios: type[Exception]) -> None:
    stream = FromAnyio(Failing(theirs))
    for call in (
        lambda: stream.send_all(b"x"),
        stream.receive_some,
        stream.send_eof,
        stream.aclose,
    ):
        with pytest.raises(trios, match="why"):
            await call()


async def test_errors_of_trio_have_anyios_types() -> None:
    left, right = duplex(10)
    stream = ToAnyio(left)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send, bytes(20))
        nursery.start_soon(stream.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await stream.send(b"x")
        with pytest.raises(anyio.BusyResourceError):
            await stream.receive()
        assert await right.receive_some() == bytes(10)
        assert await right.receive_some() == bytes(10)
        await right.send_all(b"x")
    await abort(right)
    with pytest.raises(anyio.BrokenResourceError):
        await stream.send(b"x")
    await stream.aclose()
    for call in (stream.send_eof, stream.receive, lambda: stream.send(b"x")):
        with pytest.raises(anyio.ClosedResourceError):
            await call()


async def test_the_end_of_the_peer() -> None:
    left, right = duplex(10)
    await left.send_eof()
    with pytest.raises(anyio.EndOfStream):
        await ToAnyio(right).receive()
    assert await FromAnyio(ToAnyio(right)).receive_some() == b""


async def test_anyios_tls_cannot_be_half_closed_and_ours_over_anyio_can() -> None:
    left, right = duplex(100_000)
    streams: list[Any] = []

    async def wrap(stream: Any, **options: Any) -> None:
        streams.append(await anyio.streams.tls.TLSStream.wrap(stream, **options))

    client = partial(wrap, ssl_context=client_context(), hostname=HOST)
    server = partial(wrap, ssl_context=server_context(), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client, ToAnyio(left))
        nursery.start_soon(server, ToAnyio(right))
    with pytest.raises(NotImplementedError):
        await FromAnyio(streams[0]).send_eof()

    left, right = duplex(100_000)
    ours = TlsStream(FromAnyio(ToAnyio(left)), client_context(), server_hostname=HOST)
    peer = TlsStream(FromAnyio(ToAnyio(right)), server_context(), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ToAnyio(ours).send_eof)
        with pytest.raises(anyio.EndOfStream):
            await ToAnyio(peer).receive()
    await ToAnyio(peer).send(b"still here")
    assert await ToAnyio(ours).receive() == b"still here"


async def test_extra_attributes() -> None:
    left, right = await tcp_pair()
    async with left, right:
        stream = ToAnyio(left)
        assert stream.extra(SocketAttribute.local_address) == left.socket.getsockname()
        assert stream.extra(SocketAttribute.remote_address) == right.socket.getsockname()
        with pytest.raises(anyio.TypedAttributeLookupError):
            stream.extra(SocketAttribute.raw_socket)
    with pytest.raises(anyio.TypedAttributeLookupError):
        ToAnyio(duplex(1)[0]).extra(SocketAttribute.remote_address)


async def test_a_send_that_is_cancelled_in_the_middle(autojump_clock: MockClock) -> None:
    left, right = duplex(10)
    with anyio.move_on_after(1):
        await ToAnyio(left).send(bytes(20))
    with pytest.raises(anyio.BrokenResourceError, match="torn"):
        await ToAnyio(left).send(b"x")

    left, right = duplex(10)
    buf = Buf(bytes(20))
    with anyio.move_on_after(1):
        await left.write_all_buf(buf)
    assert buf.remaining == 10
    assert await right.receive_some() == bytes(10)
    await left.write_all_buf(buf)
    await ToAnyio(left).send(b"")


class Slow(Failing):
    """It takes three seconds to send anything."""

    def __init__(self) -> None:
        self.sent = b""

    async def send(self, item: bytes) -> None:
        await anyio.sleep(3)
        self.sent += item

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()

    send_eof = aclose


async def test_a_chunk_is_seen_through(autojump_clock: MockClock) -> None:
    slow = Slow()
    writer = BufWriter(wrap_stream(FromAnyio(slow), cancel_grace=5))
    await writer.write_all(bytes(100_000))
    with anyio.move_on_after(1):
        await writer.flush()
    assert len(slow.sent) == 65536
    assert trio.current_time() == 3
    await writer.aclose()
    assert slow.sent == bytes(100_000)


async def test_async_with_waits_also_after_an_exception(autojump_clock: MockClock) -> None:
    class Mistake(Exception):
        pass

    left, right = duplex(10)

    async def read_late() -> None:
        await trio.sleep(5)
        assert await right.receive_some() == b"x" * 10
        assert await right.receive_some() == b"x" * 5

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        buffered = BufWriter(left)
        await buffered.write_all(b"x" * 15)
        with pytest.raises(Mistake):
            async with ToAnyio(left):
                raise Mistake
        assert trio.current_time() == 5
