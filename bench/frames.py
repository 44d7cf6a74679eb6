"""Measure frames of 64 bytes behind a length of four, beside asyncio's streams in the same run.

python bench/frames.py [--rounds N] [--frames N] [--smoke]

The other end of the loopback connection is another process, which takes all that it gets, or sends
as fast as it can. The time lasts until that one has ended. The CPU time is that of this process,
its system calls included. The peers take turns in every round. The results are medians. Where the
frames are of mixed sizes, they have 64 bytes on average.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import struct
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import trio

from trio_asyncwrite import BufReader, BufWriter, TcpStream
from trio_asyncwrite.codecs import FramedReader, FramedWriter, LengthDelimitedCodec, LinesCodec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from trio_asyncwrite import AsyncWrite
    from trio_asyncwrite.codecs import Codec

HOST = "127.0.0.1"
LENGTHS = LengthDelimitedCodec()
LINES = LinesCodec()
MESSAGE = b"m" * 64
HEADER = struct.Struct(">I")
FRAME = HEADER.pack(len(MESSAGE)) + MESSAGE
LINE = MESSAGE + b"\n"

#: A hundred frames, of 14 to 113 bytes.
MANY = 100
MIXED = b"".join(HEADER.pack(14 + n * 37 % MANY) + bytes(14 + n * 37 % MANY) for n in range(MANY))


class Channel(Protocol):
    """What can be closed."""

    async def aclose(self) -> None: ...


T = TypeVar("T", bound=Channel)

#: Connects, and takes everything; or sends what it was told, over and over.
OTHER_END = """
import os, socket, sys
port, data, count = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
buffer = bytearray(1 << 18)
with socket.create_connection(("127.0.0.1", port)) as sock:
    if data:
        at_once = 65536 // len(data)
        block = data * at_once
        for _ in range(count // at_once):
            sock.sendall(block)
        sock.sendall(data * (count % at_once))
        sock.shutdown(socket.SHUT_WR)
    while sock.recv_into(buffer):
        pass
os._exit(0)  # a proper exit would take as long as many frames
"""


def connect(data: bytes, count: int) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A connection to another process, which sends ``data`` so many times, or takes everything."""
    with socket.create_server((HOST, 0)) as listener:
        port = str(listener.getsockname()[1])
        command = [sys.executable, "-c", OTHER_END, port, data.hex(), str(count)]
        process = subprocess.Popen(command)
        sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock, process


# ---- What is measured --------------------------------------------------------------------------


class Clock:
    """Takes the CPU time of a block, and closes the channel afterwards."""

    taken = 0.0

    @contextlib.asynccontextmanager
    async def __call__(self, channel: T) -> AsyncGenerator[T, None]:
        start = time.process_time()
        yield channel
        self.taken = time.process_time() - start
        await channel.aclose()


class Streams:
    """asyncio's."""

    def __init__(self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.reader, self.writer = streams

    async def aclose(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def tcp(sock: socket.socket) -> TcpStream:
    return TcpStream(trio.socket.from_stdlib_socket(sock))


def buffered(sock: socket.socket) -> BufWriter[TcpStream]:
    return BufWriter(tcp(sock))


async def framed_writer(
    sock: socket.socket,
    count: int,
    clock: Clock,
    codec: Codec = LENGTHS,
    below: Callable[[socket.socket], AsyncWrite] = buffered,
) -> None:
    async with clock(FramedWriter(below(sock), codec)) as frames:
        for _ in range(count):
            await frames.send(MESSAGE)
        await frames.flush()


async def framed_writer_many(sock: socket.socket, count: int, clock: Clock) -> None:
    async with clock(FramedWriter(buffered(sock), LENGTHS)) as frames:
        for _ in range(count // MANY):
            await frames.send_many([MESSAGE] * MANY)
        await frames.flush()


async def buf_writer(sock: socket.socket, count: int, clock: Clock) -> None:
    """What the framing costs is the difference."""
    async with clock(buffered(sock)) as writer:
        for _ in range(count):
            await writer.write(FRAME)
        await writer.flush()


async def asyncio_two_writes(sock: socket.socket, count: int, clock: Clock) -> None:
    async with clock(Streams(await asyncio.open_connection(sock=sock))) as streams:
        writer = streams.writer
        for _ in range(count):
            writer.write(HEADER.pack(len(MESSAGE)))
            writer.write(MESSAGE)
            await writer.drain()


async def asyncio_one_write(sock: socket.socket, count: int, clock: Clock) -> None:
    async with clock(Streams(await asyncio.open_connection(sock=sock))) as streams:
        writer = streams.writer
        for _ in range(count):
            writer.write(HEADER.pack(len(MESSAGE)) + MESSAGE)
            await writer.drain()


async def framed_reader(sock: socket.socket, _: int, clock: Clock, codec: Codec = LENGTHS) -> None:
    """Up to the end of the stream."""
    async with clock(FramedReader(tcp(sock), codec)) as frames:
        async for _ in frames:
            pass


async def framed_reader_receive(sock: socket.socket, count: int, clock: Clock) -> None:
    async with clock(FramedReader(tcp(sock), LENGTHS)) as frames:
        for _ in range(count):
            await frames.receive()


async def receive_exactly_twice(sock: socket.socket, count: int, clock: Clock) -> None:
    async with clock(BufReader(tcp(sock))) as reader:
        for _ in range(count):
            (size,) = HEADER.unpack(await reader.receive_exactly(HEADER.size))
            await reader.receive_exactly(size)


async def asyncio_readexactly_twice(sock: socket.socket, count: int, clock: Clock) -> None:
    async with clock(Streams(await asyncio.open_connection(sock=sock))) as streams:
        reader = streams.reader
        for _ in range(count):
            (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
            await reader.readexactly(size)


async def asyncio_readline(sock: socket.socket, count: int, clock: Clock) -> None:
    async with clock(Streams(await asyncio.open_connection(sock=sock))) as streams:
        reader = streams.reader
        for _ in range(count):
            await reader.readline()


# ---- The table ---------------------------------------------------------------------------------


def asyncio_run(main: Callable[..., Any], *args: Any) -> Any:
    return asyncio.run(main(*args))


class Row(NamedTuple):
    name: str
    run: Callable[..., Any]
    main: Callable[[socket.socket, int, Clock], Awaitable[None]]
    #: What the other process sends, and how many frames that is.
    data: bytes = b""
    frames: int = 1


TABLES = {
    "writing 64 B": (
        Row("FramedWriter over BufWriter", trio.run, framed_writer),
        Row("FramedWriter.send_many, 100", trio.run, framed_writer_many),
        Row("FramedWriter, lines", trio.run, partial(framed_writer, codec=LINES)),
        Row("FramedWriter over TcpStream", trio.run, partial(framed_writer, below=tcp)),
        Row("BufWriter.write, no framing", trio.run, buf_writer),
        Row("asyncio write twice, drain", asyncio_run, asyncio_two_writes),
        Row("asyncio write once, drain", asyncio_run, asyncio_one_write),
    ),
    "reading 64 B": (
        Row("FramedReader, async for", trio.run, framed_reader, FRAME),
        Row("FramedReader.receive", trio.run, framed_reader_receive, FRAME),
        Row("FramedReader, mixed sizes", trio.run, framed_reader, MIXED, MANY),
        Row("BufReader.receive_exactly twice", trio.run, receive_exactly_twice, FRAME),
        Row("asyncio readexactly twice", asyncio_run, asyncio_readexactly_twice, FRAME),
        Row("asyncio, mixed sizes", asyncio_run, asyncio_readexactly_twice, MIXED, MANY),
        Row("FramedReader, lines", trio.run, partial(framed_reader, codec=LINES), LINE),
        Row("asyncio readline", asyncio_run, asyncio_readline, LINE),
    ),
}

#: The result, what it is compared with, and the ratio that is wanted.
TARGETS = (
    ("FramedWriter over BufWriter", "asyncio write twice, drain", 10),
    ("FramedWriter over BufWriter", "asyncio write once, drain", 0),
    ("FramedWriter.send_many, 100", "asyncio write once, drain", 0),
    ("FramedReader, async for", "asyncio readexactly twice", 3),
    ("FramedReader.receive", "asyncio readexactly twice", 3),
    ("FramedReader, mixed sizes", "asyncio, mixed sizes", 0),
    ("FramedReader, lines", "asyncio readline", 0),
)


class Cost(NamedTuple):
    """What a frame costs, in microseconds."""

    #: Until the other process has read, or sent, everything, and has ended.
    time: float
    #: Of this process's CPU, system calls included.
    cpu: float


def measure(row: Row, count: int) -> Cost:
    clock = Clock()
    sock, process = connect(row.data, count // row.frames)
    start = time.perf_counter()
    row.run(row.main, sock, count, clock)
    process.wait()
    taken = time.perf_counter() - start
    return Cost(taken / count * 1e6, clock.taken / count * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (default: 7)")
    parser.add_argument("--frames", type=int, default=200_000, help="in each measurement")
    parser.add_argument("--smoke", action="store_true", help="a little: does it still run?")
    options = parser.parse_args()
    rounds, count = (1, 1) if options.smoke else (options.rounds, options.frames // MANY)
    count *= MANY
    found: dict[str, list[Cost]] = {}
    for _ in range(rounds):
        for rows in TABLES.values():
            for row in rows:
                found.setdefault(row.name, []).append(measure(row, count))
    medians = {
        name: Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))
        for name, costs in found.items()
    }
    for title, rows in TABLES.items():
        print(f"\n{title:<34}{'us per frame':>14}{'CPU us':>10}")
        for row in rows:
            cost = medians[row.name]
            print(f"{row.name:<34}{cost.time:>14.2f}{cost.cpu:>10.2f}")
    print()
    for ours, other, wanted in TARGETS:
        ratio = medians[other].time / medians[ours].time
        cpu_ratio = medians[other].cpu / medians[ours].cpu
        verdict = "" if not wanted else f", wanted {wanted}: {'ok' if ratio >= wanted else 'MISS'}"
        print(f"{ours} is {ratio:.1f} times as fast as {other} ({cpu_ratio:.1f} in CPU){verdict}")


if __name__ == "__main__":
    main()
