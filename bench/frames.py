"""Measure frames of 64 bytes behind a length of four, beside asyncio's streams in the same run.

python bench/frames.py [--rounds N] [--frames N] [--smoke]

The other end of the loopback connection is another process, which takes all that it gets, or sends
as fast as it can. The time lasts until that one has ended. The CPU time is that of this process,
its system calls included. The peers take turns in every round. The results are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from trio_asyncwrite import BufReader, BufWriter, TcpStream
from trio_asyncwrite.codecs import FramedReader, FramedWriter, LengthDelimitedCodec, LinesCodec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"
MESSAGE = b"m" * 64
HEADER = struct.Struct(">I")
FRAME = HEADER.pack(len(MESSAGE)) + MESSAGE
LINE = MESSAGE + b"\n"

#: Connects, and takes everything; or sends what it was told, over and over.
OTHER_END = """
import socket, sys
port, data, count = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
with socket.create_connection(("127.0.0.1", port)) as sock:
    if data:
        sock.sendall(data * count)
    while sock.recv(1 << 20):
        pass
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


# ---- Writing -----------------------------------------------------------------------------------


def tcp(sock: socket.socket) -> TcpStream:
    return TcpStream(trio.socket.from_stdlib_socket(sock))


async def send(frames: FramedWriter, count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        await frames.send(MESSAGE)
    await frames.flush()
    taken = time.process_time() - start
    await frames.aclose()
    return taken


async def framed_writer(sock: socket.socket, count: int) -> float:
    return await send(FramedWriter(BufWriter(tcp(sock)), LengthDelimitedCodec()), count)


async def framed_writer_of_lines(sock: socket.socket, count: int) -> float:
    return await send(FramedWriter(BufWriter(tcp(sock)), LinesCodec()), count)


async def framed_writer_many(sock: socket.socket, count: int) -> float:
    """A hundred at a time."""
    frames = FramedWriter(BufWriter(tcp(sock)), LengthDelimitedCodec())
    start = time.process_time()
    for _ in range(count // 100):
        await frames.send_many([MESSAGE] * 100)
    await frames.flush()
    taken = time.process_time() - start
    await frames.aclose()
    return taken


async def framed_writer_unbuffered(sock: socket.socket, count: int) -> float:
    return await send(FramedWriter(tcp(sock), LengthDelimitedCodec()), count)


async def buf_writer(sock: socket.socket, count: int) -> float:
    """What the framing costs is the difference."""
    writer = BufWriter(tcp(sock))
    start = time.process_time()
    for _ in range(count):
        await writer.write(FRAME)
    await writer.flush()
    taken = time.process_time() - start
    await writer.aclose()
    return taken


async def asyncio_two_writes(sock: socket.socket, count: int) -> float:
    _, writer = await asyncio.open_connection(sock=sock)
    start = time.process_time()
    for _ in range(count):
        writer.write(HEADER.pack(len(MESSAGE)))
        writer.write(MESSAGE)
        await writer.drain()
    taken = time.process_time() - start
    writer.close()
    await writer.wait_closed()
    return taken


async def asyncio_one_write(sock: socket.socket, count: int) -> float:
    _, writer = await asyncio.open_connection(sock=sock)
    start = time.process_time()
    for _ in range(count):
        writer.write(HEADER.pack(len(MESSAGE)) + MESSAGE)
        await writer.drain()
    taken = time.process_time() - start
    writer.close()
    await writer.wait_closed()
    return taken


# ---- Reading -----------------------------------------------------------------------------------


async def read(frames: FramedReader, count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        await frames.receive()
    taken = time.process_time() - start
    await frames.aclose()
    return taken


async def framed_reader(sock: socket.socket, count: int) -> float:
    return await read(FramedReader(tcp(sock), LengthDelimitedCodec()), count)


async def framed_reader_of_lines(sock: socket.socket, count: int) -> float:
    return await read(FramedReader(tcp(sock), LinesCodec()), count)


async def receive_exactly_twice(sock: socket.socket, count: int) -> float:
    reader = BufReader(tcp(sock))
    start = time.process_time()
    for _ in range(count):
        (size,) = HEADER.unpack(await reader.receive_exactly(HEADER.size))
        await reader.receive_exactly(size)
    taken = time.process_time() - start
    await reader.aclose()
    return taken


async def asyncio_readexactly_twice(sock: socket.socket, count: int) -> float:
    reader, writer = await asyncio.open_connection(sock=sock)
    start = time.process_time()
    for _ in range(count):
        (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
        await reader.readexactly(size)
    taken = time.process_time() - start
    writer.close()
    await writer.wait_closed()
    return taken


async def asyncio_readline(sock: socket.socket, count: int) -> float:
    reader, writer = await asyncio.open_connection(sock=sock)
    start = time.process_time()
    for _ in range(count):
        await reader.readline()
    taken = time.process_time() - start
    writer.close()
    await writer.wait_closed()
    return taken


# ---- The table ---------------------------------------------------------------------------------


def asyncio_run(main: Callable[..., Any], *args: Any) -> Any:
    return asyncio.run(main(*args))


class Row(NamedTuple):
    name: str
    run: Callable[..., Any]
    main: Callable[[socket.socket, int], Awaitable[float]]
    #: What the other process sends.
    data: bytes = b""


TABLES = {
    "writing 64 B": (
        Row("FramedWriter over BufWriter", trio.run, framed_writer),
        Row("FramedWriter.send_many, 100", trio.run, framed_writer_many),
        Row("FramedWriter, lines", trio.run, framed_writer_of_lines),
        Row("FramedWriter over TcpStream", trio.run, framed_writer_unbuffered),
        Row("BufWriter.write, no framing", trio.run, buf_writer),
        Row("asyncio write twice, drain", asyncio_run, asyncio_two_writes),
        Row("asyncio write once, drain", asyncio_run, asyncio_one_write),
    ),
    "reading 64 B": (
        Row("FramedReader", trio.run, framed_reader, FRAME),
        Row("BufReader.receive_exactly twice", trio.run, receive_exactly_twice, FRAME),
        Row("asyncio readexactly twice", asyncio_run, asyncio_readexactly_twice, FRAME),
        Row("FramedReader, lines", trio.run, framed_reader_of_lines, LINE),
        Row("asyncio readline", asyncio_run, asyncio_readline, LINE),
    ),
}

#: The result, what it is compared with, and the ratio that is wanted.
TARGETS = (
    ("FramedWriter over BufWriter", "asyncio write twice, drain", 10),
    ("FramedWriter over BufWriter", "asyncio write once, drain", 0),
    ("FramedWriter.send_many, 100", "asyncio write once, drain", 0),
    ("FramedReader", "asyncio readexactly twice", 3),
    ("FramedReader, lines", "asyncio readline", 0),
)


class Cost(NamedTuple):
    """What a frame costs, in microseconds."""

    #: Until the other process has read, or sent, everything, and has ended.
    time: float
    #: Of this process's CPU, system calls included.
    cpu: float


def measure(row: Row, count: int) -> Cost:
    sock, process = connect(row.data, count)
    start = time.perf_counter()
    cpu: float = row.run(row.main, sock, count)
    process.wait()
    taken = time.perf_counter() - start
    return Cost(taken / count * 1e6, cpu / count * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (default: 7)")
    parser.add_argument("--frames", type=int, default=50_000, help="in each measurement")
    parser.add_argument("--smoke", action="store_true", help="a little: does it still run?")
    options = parser.parse_args()
    rounds, count = (1, 100) if options.smoke else (options.rounds, options.frames)
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
