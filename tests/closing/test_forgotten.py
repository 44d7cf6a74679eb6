"""A layer that nobody keeps still ends properly when the stream below it is closed."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import (
    AsyncReadWrite,
    AsyncWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    Drain,
    Epilogue,
    TlsStream,
    close_gracefully,
    duplex,
    serve_listeners,
)

from .._streams import Listener, drain, tcp_pair
from .._tls_helpers import HOST, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLEAN = CloseOutcome.CLEAN


class Trailer(AsyncWrite):
    """Passes everything on, and ends with a trailer."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self.trailer = Buf(b"!")

    def poll_shutdown(self) -> None:
        if self.trailer.remaining:
            self.trailer.advance(self.inner.poll_write(self.trailer.chunk()))
        super().poll_shutdown()


class Wrong(Trailer):
    """Its answer is none."""

    @property
    def epilogue(self) -> Epilogue:  # type: ignore[override]
        raise ZeroDivisionError


LAYERS: dict[str, Callable[[AsyncWrite], AsyncWrite]] = {
    "a trailer": Trailer,
    "a trailer over a buffer": lambda stream: Trailer(BufWriter(stream)),
    "a buffer over a trailer": lambda stream: BufWriter(Trailer(stream)),
    "two trailers": lambda stream: Trailer(Trailer(stream)),
}

every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


async def use_and_forget(layer: Callable[[AsyncWrite], AsyncWrite], stream: AsyncWrite) -> None:
    await layer(stream).send_all(b"abc")
    gc.collect()


async def aclose(stream: AsyncWrite) -> None:
    await stream.aclose()


async def gracefully(stream: AsyncWrite) -> None:
    assert (await close_gracefully(stream)).outcome is CLEAN


@every_layer
@pytest.mark.parametrize("end", [aclose, gracefully])
@pytest.mark.parametrize("over", ["TCP", "memory"])
async def test_its_trailer_is_written(
    layer: Any, end: Callable[[AsyncWrite], Awaitable[None]], over: str
) -> None:
    left, right = duplex(100) if over == "memory" else await tcp_pair()
    await use_and_forget(layer, left)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end, left)
        received = await drain(right)
        await right.aclose()
    assert received == (b"abc!!" if layer is LAYERS["two trailers"] else b"abc!")


@pytest.mark.parametrize("kind", ["a trailer", "TLS"])
async def test_a_server_ends_what_a_handler_has_forgotten(kind: str) -> None:
    async def handler(stream: AsyncReadWrite) -> None:
        if kind == "TLS":
            await TlsStream(stream, server_context(), server_side=True).send_all(b"abc!")
        else:
            await Trailer(stream).send_all(b"abc")

    stop, listener, left_right = Drain(), Listener(), duplex(10_000)
    async with trio.open_nursery() as nursery:
        serve = partial(serve_listeners, handler, [listener], drain=stop)
        await listener.connect.send(left_right[1])
        stream: Any = left_right[0]
        if kind == "TLS":
            stream = TlsStream(stream, client_context(), server_hostname=HOST)

        async def read() -> None:
            assert await drain(stream) == b"abc!"
            await stream.aclose()
            stop.start()

        nursery.start_soon(read)
        report = await serve()
    assert report.outcomes == {CLEAN: 1}


async def test_a_layer_that_has_ended_is_not_kept() -> None:
    """A thousand bodies over one connection, each with its trailer, leave nothing."""
    stream, peer = duplex(100_000)
    gone = []
    for _ in range(1000):
        layer = Trailer(stream.by_ref())
        gone.append(weakref.ref(layer))
        await layer.send_all(b"abc")
        await layer.aclose()
        del layer
    assert [one for one in gone if one() is not None] == []
    assert stream.lifecycle.holders == ()
    assert stream.lifecycle.holding == 0
    await stream.aclose()
    assert await drain(peer) == b"abc!" * 1000


async def test_an_answer_that_raises_keeps_nothing_alive() -> None:
    stream, peer = duplex(100)
    await Wrong(stream).send_all(b"abc")
    await stream.aclose()
    assert await drain(peer) == b"abc"


async def test_tls_that_has_only_shaken_hands_is_ended() -> None:
    left, right = duplex(10_000)
    client = TlsStream(left, client_context(), server_hostname=HOST)

    async def shake_hands_and_forget() -> None:
        await TlsStream(right, server_context(), server_side=True).do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(shake_hands_and_forget)
    gc.collect()
    await right.aclose()
    assert await client.receive_some() == b""
    await trio.aclose_forcefully(client)
