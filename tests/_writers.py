"""Every writer of the library, in its settings: the rows of the tables in test_every_writer.py."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from trio_asyncwrite import (
    AllowStdIo,
    AsyncWrite,
    BufReader,
    BufWriter,
    Cursor,
    InspectWriter,
    LineWriter,
    MeteredWriter,
    NotReady,
    PollEvented,
    ReadWritePair,
    SharedWriter,
    Sink,
    TeeWriter,
    ThrottledWriter,
    TimeoutWriter,
    TokenBucket,
    duplex,
    simplex,
    split,
    wrap_stream,
)
from trio_asyncwrite._transports._nowait import OwnDescriptor
from trio_asyncwrite._transports._stdout import StandardWriter
from trio_asyncwrite.compression import CompressWriter
from trio_asyncwrite.testing import (
    BrokenAfterWriter,
    NeverReadyTwiceWriter,
    OneByteWriter,
    ReadyAfterFlushWriter,
)

from ._streams import (
    pipe_pair,
    socket_pair,
    tcp_pair,
    unix_pair,
)
from .compression._codecs import CODECS, Decoding
from .core._fakes import Layer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Maker = Callable[[], Awaitable[tuple[Any, Any]]]


@dataclass
class Row:
    """A writer of the library, in one of its settings."""

    maker: Maker
    #: Whether a writer that is not ready stays so, and its wait may be cancelled without harm.
    clogs: bool = True
    #: Whether the other end is a stream of the same kind, and both can be half-closed.
    symmetric: bool = False
    #: Whether a second task gets BusyResourceError.
    exclusive: bool = True
    #: How much is sent in the sweep, in bytes: more than all buffers hold.
    swept: int = 0

    @property
    def clogged_maker(self) -> Maker | None:
        return full(self.maker) if self.clogs else None


#: Makers of what waits for neither the kernel nor a thread.
IN_MEMORY: set[Maker] = set()


def over(maker: Maker, layer: Callable[[Any], AsyncWrite]) -> Maker:
    """A maker of ``layer`` over what ``maker`` makes."""

    async def layered() -> tuple[AsyncWrite, Any]:
        writer, other = await maker()
        return layer(writer), other

    if maker in IN_MEMORY:
        IN_MEMORY.add(layered)
    return layered


def compressed(maker: Maker, name: str, *, offload: bool = False) -> Maker:
    """A maker of a CompressWriter over what ``maker`` makes, and a reader that decodes."""
    codec = CODECS[name]

    async def layered() -> tuple[AsyncWrite, Any]:
        writer, other = await maker()
        layer = CompressWriter(writer, codec.encoder(), offload=offload)
        return layer, Decoding(other, codec.decoder())

    if maker in IN_MEMORY and not offload:
        IN_MEMORY.add(layered)
    return layered


def full(maker: Maker) -> Maker:
    """A maker of writers that are not ready until somebody reads.

    TCP's timers join small writes together later, and that makes room: large ones first. In
    memory there are no timers, and a writer that holds all it is offered would take long.
    """
    large = 1000 if maker in IN_MEMORY else 65536

    async def clogged_maker() -> tuple[AsyncWrite, Any]:
        writer, other = await maker()
        for size in (large, 1):
            not_ready = 0
            while not_ready < 2:  # in a row, for hostile writers
                try:
                    writer.poll_write(bytes(size))
                    not_ready = 0
                except NotReady:
                    not_ready += 1
        return writer, other

    return clogged_maker


def memory(make: Callable[[], tuple[Any, Any]]) -> Maker:
    """A maker of what is made without awaiting anything."""

    async def maker() -> tuple[Any, Any]:
        return make()

    IN_MEMORY.add(maker)
    return maker


async def trio_socket_pair() -> tuple[AsyncWrite, trio.SocketStream]:
    left, right = map(trio.SocketStream, trio.socket.socketpair())
    return wrap_stream(left), right


async def fd_stream_pair() -> tuple[AsyncWrite, trio.lowlevel.FdStream]:
    reading, writing = os.pipe()
    return wrap_stream(trio.lowlevel.FdStream(writing)), trio.lowlevel.FdStream(reading)


async def raw_pipe() -> tuple[AllowStdIo, PollEvented]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    return AllowStdIo(io.FileIO(writing, "wb")), PollEvented(reading)


async def stdout_pipe(*, named: bool = False) -> tuple[AsyncWrite, PollEvented]:
    """The writer has the only descriptor that is left, so the reader sees its end."""
    if named:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/pipe"
            os.mkfifo(path)
            reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            writing = os.open(path, os.O_WRONLY)
    else:
        reading, writing = os.pipe()
    try:
        return StandardWriter(writing, "stdout"), PollEvented(reading)
    finally:
        os.close(writing)


async def stdout_file() -> tuple[AsyncWrite, Callable[[], bytes]]:
    number, path = tempfile.mkstemp()
    os.remove(path)  # noqa: PTH107
    descriptor = OwnDescriptor(number)
    return StandardWriter(number, "stdout"), lambda: os.pread(descriptor.fileno(), ROOM, 0)


async def write_half() -> tuple[AsyncWrite, Any]:
    left, right = await unix_pair()
    reader, writer = split(left)
    await reader.aclose()
    return writer, right


def bytes_io(**kwargs: Any) -> tuple[AllowStdIo, Callable[[], bytes]]:
    file = io.BytesIO()
    return AllowStdIo(file, close=False, **kwargs), file.getvalue


async def offloaded() -> tuple[AllowStdIo, Callable[[], bytes]]:
    return bytes_io(offload=True)


def growable() -> tuple[Cursor, Callable[[], bytes]]:
    cursor = Cursor()
    return cursor, cursor.getvalue


def fixed(buffer: bytearray | memoryview) -> tuple[Cursor, Callable[[], bytes]]:
    cursor = Cursor(buffer, growable=False)
    return cursor, lambda: bytes(buffer[: cursor.position])


def borrowed() -> tuple[AsyncWrite, Callable[[], bytes]]:
    cursor = Cursor()
    return cursor.by_ref(), cursor.getvalue


class Borrower(AsyncWrite):
    """Writes through a ``by_ref()``, which has no end of its own, and ends the original."""

    def __init__(self, original: AsyncWrite) -> None:
        self.original = original
        self.inner = original.by_ref()

    def poll_shutdown(self) -> None:
        self.inner.poll_shutdown()
        self.original.poll_shutdown()

    async def release(self, *, clean: bool) -> None:
        await super().release(clean=clean)
        if clean:
            await self.original.aclose()
        else:
            await trio.aclose_forcefully(self.original)


def buffered_meter(stream: Any) -> AsyncWrite:
    return MeteredWriter(BufWriter(stream, 7))


def inspected(stream: Any) -> AsyncWrite:
    return InspectWriter(stream, hashlib.sha256().update)


def inspected_buffer(stream: Any) -> AsyncWrite:
    return inspected(BufWriter(stream, 7))


def throttled(stream: Any) -> AsyncWrite:
    """It never has to wait long, on whatever clock."""
    return ThrottledWriter(stream, TokenBucket(1e9, burst=1e5))


def in_pieces(stream: Any) -> AsyncWrite:
    """Each write of more than 5 bytes goes in pieces."""
    return ThrottledWriter(BufWriter(stream, 7), TokenBucket(1e9, burst=5))


def short_lines(stream: Any) -> AsyncWrite:
    return LineWriter(stream, 7)


def teed(stream: Any) -> AsyncWrite:
    return TeeWriter(stream, Cursor())


def buffered_tee(stream: Any) -> AsyncWrite:
    return TeeWriter(BufWriter(stream, 7), BufWriter(Cursor(), 5))


def detaching(stream: Any) -> AsyncWrite:
    return TeeWriter(stream, BufWriter(Cursor(), 5), on_failure="detach")


ROOM = 1 << 20

ROWS = {
    # Transports.
    "TcpStream": Row(tcp_pair, symmetric=True, swept=100_000),
    "TcpStream, Unix": Row(unix_pair, symmetric=True),
    "PollEvented, pipe": Row(pipe_pair, swept=100_000),
    "PollEvented, socket": Row(socket_pair, symmetric=True),
    "wrap_stream, SocketStream": Row(trio_socket_pair),
    "wrap_stream, FdStream": Row(fd_stream_pair),
    "wrap_stream, memory": Row(
        over(memory(trio.testing.memory_stream_one_way_pair), wrap_stream), clogs=False
    ),
    "wrap_stream, lockstep": Row(
        over(memory(trio.testing.lockstep_stream_one_way_pair), wrap_stream),
        clogs=False,
        swept=1000,
    ),
    "simplex, 1": Row(memory(partial(simplex, 1)), swept=10),
    "simplex, 7": Row(memory(partial(simplex, 7)), swept=100),
    "simplex, 4096": Row(memory(partial(simplex, 4096)), swept=50_000),
    "duplex, 512": Row(memory(partial(duplex, 512)), symmetric=True, swept=5000),
    "AllowStdIo": Row(memory(bytes_io), clogs=False),
    "AllowStdIo, offload": Row(offloaded, clogs=False),
    "AllowStdIo, raw pipe": Row(raw_pipe, swept=100_000),
    "stdout, pipe": Row(stdout_pipe, swept=100_000),
    "stdout, named pipe": Row(partial(stdout_pipe, named=True), swept=100_000),
    "stdout, file": Row(stdout_file, clogs=False),
    "Cursor": Row(memory(growable), clogs=False),
    "Cursor, fixed": Row(memory(lambda: fixed(bytearray(ROOM))), clogs=False),
    "Cursor, view": Row(memory(lambda: fixed(memoryview(bytearray(ROOM)))), clogs=False),
    "Sink": Row(memory(lambda: (Sink(), None)), clogs=False),
    # Layers.
    **{
        f"BufWriter, {capacity}, over {name}": Row(
            over(maker, partial(BufWriter, capacity=capacity)), swept=swept
        )
        for capacity in (1, 7, 4096)
        for name, maker, swept in (
            ("TcpStream", tcp_pair, 100_000),
            ("simplex", memory(partial(simplex, 2 * capacity + 1)), 20 * capacity),
        )
    },
    "by_ref": Row(memory(borrowed), clogs=False),
    "by_ref over simplex": Row(over(memory(partial(simplex, 100)), Borrower), swept=1000),
    "ReadWritePair": Row(
        over(unix_pair, lambda stream: ReadWritePair(stream, BufWriter(stream, 4096)))
    ),
    "ReadWritePair, reading ahead": Row(
        over(unix_pair, lambda stream: ReadWritePair(BufReader(stream), BufWriter(stream, 4096)))
    ),
    "WriteHalf": Row(write_half),
    **{
        f"SharedWriter over {name}": Row(over(maker, layer), exclusive=False, swept=swept)
        for name, maker, layer, swept in (
            ("TcpStream", tcp_pair, SharedWriter, 100_000),
            ("simplex", memory(partial(simplex, 1000)), SharedWriter, 10_000),
            ("BufWriter", pipe_pair, lambda stream: SharedWriter(BufWriter(stream, 7)), 100_000),
        )
    },
    **{
        f"TimeoutWriter over {name}": Row(over(maker, layer), swept=swept)
        for name, maker, layer, swept in (
            ("TcpStream", tcp_pair, partial(TimeoutWriter, idle=60, min_rate=1), 100_000),
            ("BufWriter", unix_pair, lambda s: TimeoutWriter(BufWriter(s, 7), idle=60), 0),
        )
    },
    **{
        f"{name} over {below}": Row(over(maker, layer), swept=swept)
        for name, below, maker, layer, swept in (
            ("MeteredWriter", "TcpStream", tcp_pair, MeteredWriter, 100_000),
            ("MeteredWriter", "BufWriter", memory(partial(simplex, 50)), buffered_meter, 500),
            ("InspectWriter", "TcpStream", tcp_pair, inspected, 100_000),
            ("InspectWriter", "BufWriter", memory(partial(simplex, 50)), inspected_buffer, 500),
            ("ThrottledWriter", "TcpStream", tcp_pair, throttled, 100_000),
            ("LineWriter", "TcpStream", tcp_pair, partial(LineWriter, capacity=100), 100_000),
            ("LineWriter, 7,", "simplex", memory(partial(simplex, 10)), short_lines, 100),
            ("TeeWriter", "TcpStream", tcp_pair, teed, 100_000),
            ("TeeWriter", "simplex", memory(partial(simplex, 50)), buffered_tee, 200),
            ("TeeWriter, detaching,", "simplex", memory(partial(simplex, 50)), detaching, 200),
            ("ThrottledWriter", "BufWriter", memory(partial(simplex, 50)), in_pieces, 200),
        )
    },
    **{
        f"CompressWriter, {name}, over {below}": Row(
            # An encoder that collects, or a thread, makes room later.
            compressed(maker, name, offload=name == "gzip"),
            clogs=name == "eager zlib",
            swept=swept,
        )
        for name, below, maker, swept in (
            ("eager zlib", "simplex", memory(partial(simplex, 100)), 1000),
            ("gzip", "a socket", unix_pair, 200_000),
            ("zstd", "simplex", memory(partial(simplex, 100)), 0),
        )
    },
    # Hostile writers, and layers over them.
    **{
        f"{name} over simplex": Row(over(memory(partial(simplex, 100)), hostile), swept=swept)
        for name, hostile, swept in (
            ("OneByteWriter", OneByteWriter, 40),
            ("NeverReadyTwiceWriter", NeverReadyTwiceWriter, 500),
            ("ReadyAfterFlushWriter", ReadyAfterFlushWriter, 500),
            ("BrokenAfterWriter", partial(BrokenAfterWriter, limit=ROOM), 500),
            (
                "three of them",
                lambda s: BrokenAfterWriter(NeverReadyTwiceWriter(ReadyAfterFlushWriter(s)), ROOM),
                100,
            ),
            ("BufWriter over OneByteWriter", lambda s: BufWriter(OneByteWriter(s), 7), 40),
            ("BufWriter over NeverReady", lambda s: BufWriter(NeverReadyTwiceWriter(s), 7), 200),
            ("BufWriter over ReadyAfter", lambda s: BufWriter(ReadyAfterFlushWriter(s), 7), 200),
        )
    },
}

#: What lies over the writer whose poll is given the argument.
LAYERS_ABOVE: dict[str, Callable[[Any], AsyncWrite]] = {
    "alone": lambda writer: writer,
    "below a handle": lambda writer: writer.by_ref(),
    "below a user's layer": Layer,
    "below a buffer": lambda writer: BufWriter(writer, 7),
    "below a SharedWriter": SharedWriter,
    "below a TimeoutWriter": lambda writer: TimeoutWriter(writer, idle=60),
    "below a LineWriter": short_lines,
    "below a MeteredWriter": MeteredWriter,
    "below an InspectWriter": inspected,
    "below a TeeWriter": teed,
    "below a ThrottledWriter": throttled,
    "below a pair": lambda writer: ReadWritePair(simplex(1)[1], writer),
}
