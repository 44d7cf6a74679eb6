"""Measure relays, and reading per call, beside their peers in the same run.

python bench/moving.py [--rounds N] [--mib N] [--smoke]

Each relay is a separate process between a sender and a receiver, over loopback, and reports the CPU
time that it has used. Both ends of the reads are in this process, and its CPU time is measured. The
peers take turns in every round. The results are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from trio_asyncwrite import (
    BufReader,
    Relay,
    TcpStream,
    copy_bidirectional,
    open_tcp_stream,
    simplex,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"
BLOCK = bytes(1 << 18)


def tell() -> None:
    """Say how much CPU this process has used, in seconds: as a connection begins and ends."""
    print(time.process_time(), flush=True)


# ---- Relays: each serves one connection after the other, for ever ----------------------------


async def accept(listener: socket.socket, port: int) -> tuple[TcpStream, TcpStream]:
    sock, _ = await trio.socket.from_stdlib_socket(listener).accept()
    tell()
    other = trio.socket.socket()
    await other.connect((HOST, port))
    return TcpStream(sock), TcpStream(other)


def ours(listener: socket.socket, port: int, **options: Any) -> None:
    async def main() -> None:
        while True:
            a, b = await accept(listener, port)
            await copy_bidirectional(a, b, **options)
            await a.aclose()
            await b.aclose()
            tell()

    trio.run(main)


def ours_in_blocks(listener: socket.socket, port: int) -> None:
    setattr(TcpStream, "splices", False)  # noqa: B010 - for type checkers it is a property
    ours(listener, port)


def ours_large(listener: socket.socket, port: int) -> None:
    ours(listener, port, buffer_size=1 << 20)


def trio_loop(listener: socket.socket, port: int) -> None:
    async def move(source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for chunk in source:
            await target.send_all(chunk)
        await target.send_eof()

    async def main() -> None:
        while True:
            sock, _ = await trio.socket.from_stdlib_socket(listener).accept()
            tell()
            b = await trio.open_tcp_stream(HOST, port)
            async with trio.SocketStream(sock) as a, b, trio.open_nursery() as nursery:
                nursery.start_soon(move, a, b)
                nursery.start_soon(move, b, a)
            tell()

    trio.run(main)


def asyncio_streams(listener: socket.socket, port: int) -> None:
    async def move(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while chunk := await source.read(1 << 16):
            target.write(chunk)
            await target.drain()
        target.write_eof()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tell()
        other_reader, other_writer = await asyncio.open_connection(HOST, port)
        await asyncio.gather(move(reader, other_writer), move(other_reader, writer))
        writer.close()
        other_writer.close()
        tell()

    async def main() -> None:
        server = await asyncio.start_server(handle, sock=listener)
        await server.serve_forever()

    asyncio.run(main())


class Half(asyncio.Protocol):
    """One side of a relay by protocols."""

    def __init__(self, port: int, peer: Half | None = None) -> None:
        self.port = port
        self.peer = peer
        self.transport: Any = None
        self.early: list[bytes] = []
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self.peer is None:
            tell()
            self.transport.pause_reading()
            self.connecting = asyncio.ensure_future(self.connect())

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(lambda: Half(self.port, self), HOST, self.port)
        for data in self.early:
            peer.transport.write(data)
        self.peer = peer
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.peer is None:  # uvloop begins to read after connection_made() all the same
            self.early.append(data)
        else:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        assert self.peer is not None
        self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        assert self.peer is not None
        self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        assert self.peer is not None
        self.ended = True
        self.peer.transport.write_eof()
        if self.peer.ended:
            self.transport.close()
            self.peer.transport.close()
            tell()
        return True


def uvloop_protocol(listener: socket.socket, port: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Half(port), sock=listener)
        await server.serve_forever()

    importlib.import_module("uvloop").run(main())


#: What the kernel takes for a relay: two threads that block in splice.
SPLICE_IN_C = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int sockets[2];

static void *move(void *from) {
    int source = *(int *)from, target = source == sockets[0] ? sockets[1] : sockets[0], ends[2];
    ssize_t count, moved;
    if (pipe(ends)) exit(1);
    while ((count = splice(source, 0, ends[1], 0, 1 << 20, SPLICE_F_MOVE)) > 0)
        for (; count; count -= moved)
            if ((moved = splice(ends[0], 0, target, 0, count, SPLICE_F_MOVE)) <= 0) exit(1);
    shutdown(target, SHUT_WR);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static void tell(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    printf("%ld.%09ld\n", (long)used.tv_sec, used.tv_nsec);
    fflush(stdout);
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {AF_INET, htons(atoi(arguments[2])), {htonl(INADDR_LOOPBACK)}};
    for (;;) {
        pthread_t thread;
        sockets[0] = accept(atoi(arguments[1]), 0, 0);
        tell();
        sockets[1] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(sockets[1], (void *)&address, sizeof address)) return 1;
        pthread_create(&thread, 0, move, &sockets[1]);
        move(&sockets[0]);
        pthread_join(thread, 0);
        close(sockets[0]);
        close(sockets[1]);
        tell();
    }
}
"""


def splice_in_c(listener: socket.socket, port: int) -> None:
    """Compile it, and become it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "splice")
        command = ["cc", "-O2", "-pthread", "-x", "c", "-", "-o", str(path)]
        subprocess.run(command, input=SPLICE_IN_C, text=True, check=True)
        binary = os.open(path, os.O_RDONLY)
    listener.setblocking(True)
    os.execve(binary, ["splice", str(listener.fileno()), str(port)], {})


RELAYS: dict[str, Callable[[socket.socket, int], None]] = {
    "copy_bidirectional": ours,
    "copy_bidirectional, 1 MiB": ours_large,
    "copy_bidirectional, blocks": ours_in_blocks,
    "trio send_all": trio_loop,
    "asyncio streams": asyncio_streams,
    "uvloop protocol": uvloop_protocol,
    "C, splice": splice_in_c,
}


def is_there(name: str) -> bool:
    """Whether the system has what a relay needs."""
    if name == "uvloop protocol":
        return importlib.util.find_spec("uvloop") is not None
    return name != "C, splice" or (sys.platform == "linux" and shutil.which("cc") is not None)


class Proxy:
    """A relay that runs in a separate process."""

    def __init__(self, name: str) -> None:
        self.target = socket.create_server((HOST, 0))
        port = self.target.getsockname()[1]
        with socket.create_server((HOST, 0)) as listener:
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--relay", name, str(listener.fileno()), str(port)],
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[listener.fileno()],
            )

    def cpu(self) -> float:
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())

    def measure(self, size: int) -> tuple[float, float]:
        """Send so many bytes through it: bytes per second, and its CPU seconds."""
        with socket.create_connection((HOST, self.port)) as sender:
            before = self.cpu()
            receiver, _ = self.target.accept()
            with receiver:
                counted = 0

                def receive() -> None:
                    nonlocal counted
                    buffer = bytearray(1 << 18)
                    while count := receiver.recv_into(buffer):
                        counted += count

                thread = threading.Thread(target=receive)
                thread.start()
                start = time.perf_counter()
                for _ in range(size // len(BLOCK)):
                    sender.sendall(BLOCK)
                sender.shutdown(socket.SHUT_WR)
                thread.join()
                seconds = time.perf_counter() - start
                if counted != size:
                    raise RuntimeError(f"{counted} of {size} bytes have arrived")
            sender.recv(1)
        return size / seconds, self.cpu() - before

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.target.close()


def measure_relays(rounds: int, mib: int) -> dict[str, tuple[float, float]]:
    """For each relay MB/s, and CPU seconds per GiB."""
    names = [name for name in RELAYS if is_there(name)]
    proxies = {name: Proxy(name) for name in names}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    try:
        for number in range(rounds):
            first = number * len(names) // rounds
            for name in names[first:] + names[:first]:
                found[name].append(proxies[name].measure(mib << 20))
    finally:
        for proxy in proxies.values():
            proxy.stop()
    return {
        name: (
            statistics.median(rate for rate, _ in runs) / 1e6,
            statistics.median(cpu for _, cpu in runs) * 1024 / mib,
        )
        for name, runs in found.items()
    }


# ---- Reading, in microseconds per call --------------------------------------------------------

LINE = b"a line as those of most protocols\r\n"


async def timed(count: int, call: Callable[[], Awaitable[object]]) -> float:
    start = time.process_time()
    for _ in range(count):
        await call()
    return (time.process_time() - start) / count * 1e6


async def read_ahead(count: int) -> dict[str, float]:
    """Time calls whose bytes are in the buffer already, in microseconds of CPU per call."""
    found: dict[str, float] = {}
    calls: dict[str, Callable[[BufReader[Any]], Awaitable[object]]] = {
        "BufReader.receive_until": lambda reader: reader.receive_until(b"\r\n", 1000),
        "BufReader.receive_exactly": lambda reader: reader.receive_exactly(len(LINE)),
        "BufReader.receive_some": lambda reader: reader.receive_some(len(LINE)),
    }
    for name, call in calls.items():
        writer, below = simplex(count * len(LINE))
        writer.poll_write(LINE * count)
        reader = BufReader(below, count * len(LINE))
        await reader.fill()
        found[name] = await timed(count, lambda call=call, reader=reader: call(reader))
    return found


async def read_socket(count: int) -> dict[str, float]:
    """Time calls that read from a socket, the sending included, in microseconds of CPU per call."""
    ours, other = socket.socketpair()
    stream = TcpStream(trio.socket.from_stdlib_socket(ours))
    by_trio = trio.SocketStream(stream.socket)
    reader = BufReader(stream)

    async def poll() -> None:
        other.send(LINE)
        reader.poll_fill()
        reader.advance(len(LINE))

    async def fill() -> None:
        other.send(LINE)
        await reader.fill()
        reader.advance(len(LINE))

    async def receive() -> None:
        other.send(LINE)
        await stream.receive_some()

    async def receive_by_trio() -> None:
        other.send(LINE)
        await by_trio.receive_some()

    with other:
        found = {
            "BufReader.poll_fill": await timed(count, poll),
            "BufReader.fill": await timed(count, fill),
            "TcpStream.receive_some": await timed(count, receive),
            "trio receive_some": await timed(count, receive_by_trio),
        }
        await stream.aclose()
    return found


async def asyncio_ahead(count: int) -> dict[str, float]:
    reader = asyncio.StreamReader(limit=1 << 30)
    reader.feed_data(LINE * count)
    return {"asyncio readuntil": await timed(count, lambda: reader.readuntil(b"\r\n"))}


def measure_reading(rounds: int, count: int) -> dict[str, dict[str, float]]:
    tables: dict[str, list[dict[str, float]]] = {"from the buffer": [], "from the socket": []}
    for _ in range(rounds):
        tables["from the buffer"].append(
            trio.run(read_ahead, count) | asyncio.run(asyncio_ahead(count))
        )
        tables["from the socket"].append(trio.run(read_socket, count))
    return {
        title: {name: statistics.median(one[name] for one in found) for name in found[0]}
        for title, found in tables.items()
    }


# ---- Memory ------------------------------------------------------------------------------------


async def idle_memory(count: int) -> float:
    """Python memory of an idle relay, without its two streams, in bytes."""
    pairs = [map(TcpStream, trio.socket.socketpair()) for _ in range(2 * count)]
    streams = [stream for pair in pairs for stream in pair]
    async with trio.open_nursery() as nursery:
        tracemalloc.start()
        for number in range(0, len(streams), 4):
            nursery.start_soon(Relay(streams[number], streams[number + 2]).run)
        await trio.testing.wait_all_tasks_blocked()
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        nursery.cancel_scope.cancel()
    for stream in streams:
        await trio.aclose_forcefully(stream)
    return memory / count


# ---- Cold files --------------------------------------------------------------------------------


class Steps(trio.abc.Instrument):
    """Finds the longest time for which one task keeps all others waiting.

    What other processes take of the processor meanwhile is left out: Linux says for how long this
    thread was ready to run and did not. Waiting for a disk is no part of that.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.statistics = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def now(self) -> float:
        ready = int(os.pread(self.statistics, 100, 0).split()[1]) / 1e9
        return time.perf_counter() - ready

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.began = self.now()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest = max(self.longest, self.now() - self.began)

    def after_run(self) -> None:
        os.close(self.statistics)


async def send_cold(way: str, path: Path, port: int) -> None:
    """Send a file that is not in memory."""
    async with await open_tcp_stream(HOST, port) as stream:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if way == "send_file":
                await stream.send_file(file)
            else:
                while chunk := file.read(1 << 20):
                    await stream.send_all(chunk)


def measure_cold(rounds: int, mib: int) -> dict[str, float]:
    """For each way to send a cold file, the longest step in milliseconds: the median of rounds."""
    ways = ("send_file", "read 1 MiB, send_all")
    found: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(dir=".") as folder, socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        path = Path(folder, "cold")
        with path.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
            file.flush()
            os.fsync(file.fileno())  # a page that is still to be written stays in memory

        def read() -> None:
            buffer = bytearray(1 << 18)
            for _ in range(rounds * len(ways)):
                sock, _ = server.accept()
                with sock:
                    while sock.recv_into(buffer):
                        pass

        thread = threading.Thread(target=read)
        thread.start()
        for _ in range(rounds):
            for way in ways:
                steps = Steps()
                trio.run(send_cold, way, path, port, instruments=[steps])
                found[way].append(steps.longest)
        thread.join()
    return {way: statistics.median(runs) * 1e3 for way, runs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (default: 7)")
    parser.add_argument("--mib", type=int, default=512, help="to send through a relay at once")
    parser.add_argument("--smoke", action="store_true", help="a little: does it still run?")
    parser.add_argument("--relay", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay is not None:
        name, descriptor, port = options.relay
        RELAYS[name](socket.socket(fileno=int(descriptor)), int(port))
        return
    rounds, mib, count, idle = options.rounds, options.mib, 20_000, 1000
    if options.smoke:
        rounds, mib, count, idle = 1, 1, 10, 5
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 5 * idle:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(5 * idle, hard), hard))
    print(f"{'relay':<30}{'MB/s':>10}{'CPU s/GiB':>12}")
    for name, (rate, cpu) in measure_relays(rounds, mib).items():
        print(f"{name:<30}{rate:>10.0f}{cpu:>12.2f}")
    for title, found in measure_reading(rounds, count).items():
        print(f"\n{'reading ' + title:<30}{'CPU us per call':>22}")
        for name, microseconds in found.items():
            print(f"{name:<30}{microseconds:>22.2f}")
    if Path("/proc/thread-self/schedstat").exists():
        print(f"\n{'a file that is not in memory':<30}{'longest step, ms':>22}")
        for name, milliseconds in measure_cold(rounds, mib).items():
            print(f"{name:<30}{milliseconds:>22.2f}")
    memory = trio.run(idle_memory, idle)
    print(f"\n{f'memory of {idle} idle relays':<30}{memory / 1024:>18.1f} KiB each")


if __name__ == "__main__":
    main()
