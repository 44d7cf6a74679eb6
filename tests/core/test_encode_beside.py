"""What is in the way of a layer that encodes, in all the layers that its bytes will pass."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import (
    BufWriter,
    DuplexStream,
    MeteredWriter,
    ReadWritePair,
    SharedWriter,
    TlsStream,
    duplex,
    start_tls,
)
from trio_asyncwrite.compression import CompressWriter, zlib_compressor

from .._tls_helpers import HOST, client_context
from ._fakes import Encoding, Layer, begin, each, resource_warnings
from .test_shutdown_below import HINDRANCES, read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .test_shutdown_below import Hindrance


BELOW: dict[str, Callable[[DuplexStream], Any]] = {
    "the stream itself": lambda stream: stream,
    "layer": lambda stream: ReadWritePair(stream, Layer(stream)),
    "pair": lambda stream: ReadWritePair(stream, stream),
    "pair over a metered one": lambda stream: ReadWritePair(stream, MeteredWriter(stream)),
    "pair over a handle": lambda stream: ReadWritePair(stream, stream.by_ref()),
    "pair over two": lambda stream: ReadWritePair(stream, Layer(MeteredWriter(stream))),
}


async def compress(stream: Any) -> None:
    CompressWriter(stream, zlib_compressor())


async def use_tls(stream: Any) -> None:
    TlsStream(stream, client_context(), server_hostname=HOST)


async def begin_tls(stream: Any) -> None:
    await start_tls(stream, client_context(), server_hostname=HOST)


@each(BELOW, "make")
@each(HINDRANCES, "hindrance")
@pytest.mark.parametrize("encode", [compress, use_tls, begin_tls])
async def test_what_others_hold_on_the_way_is_in_the_way(
    make: Callable[[DuplexStream], Any],
    hindrance: Hindrance,
    encode: Callable[[Any], Awaitable[None]],
) -> None:
    """And nothing happens."""
    stream, peer = duplex(5)
    below = make(stream)
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        async with hindrance(stream):
            with pytest.raises((ValueError, trio.BusyResourceError, trio.BrokenResourceError)):
                await encode(below)
            nursery.start_soon(read, peer, received)
        await below.write_all(b"x")
        await stream.aclose()
    assert b"".join(received) == b"1234567x."


async def test_what_is_held_on_the_way_itself_goes_before() -> None:
    stream, peer = duplex(100)
    below = BufWriter(stream)
    await below.write_all(b"plain")
    async with CompressWriter(Layer(below), zlib_compressor()) as compressed:
        await compressed.write_all(b"a")
    assert (await peer.receive_some()).startswith(b"plain")


async def test_below_a_layer_that_encodes_itself_nothing_is_in_the_way() -> None:
    stream, _peer = duplex(100)
    below = Layer(Encoding(stream))
    beside = BufWriter(stream)
    await beside.write_all(b"abc")
    await compress(below)
    await beside.flush()


async def test_a_message_that_is_kept_whole_goes_before() -> None:
    """It is not in the way: nothing can come into its middle."""
    stream, peer = duplex(5)
    below = SharedWriter(stream)
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        await begin(nursery, partial(below.write_all, b"1234567"))
        layer = Encoding(below)
        await compress(below)
        await layer.write_all(b"a")
        nursery.start_soon(read, peer, received)
        await layer.flush()
        with resource_warnings():
            await stream.aclose()
    assert b"".join(received).startswith(b"1234567A")
