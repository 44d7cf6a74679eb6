"""What a writer costs besides time: memory while idle, and other tasks' patience."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import math
import socket
import struct
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any, Final

import trio
import trio.testing
from harness import Receiver, allow_descriptors
from receiver import HOST

from trio_asyncwrite import (
    AllowStdIo,
    BufWriter,
    InspectWriter,
    LineWriter,
    MeteredWriter,
    NotReady,
    SharedWriter,
    Sink,
    TcpStream,
    TeeWriter,
    ThrottledWriter,
    TimeoutWriter,
    TokenBucket,
    abort,
    write_from_thread,
)
from trio_asyncwrite._transports._stdout import StandardWriter
from trio_asyncwrite.codecs import FramedReader, FramedWriter, LengthDelimitedCodec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

MESSAGE = bytes(64)

#: Where tcpi_notsent_bytes stands in struct tcp_info (linux/tcp.h), and how much of that to get.
_NOTSENT_BYTES, _TCP_INFO_SIZE = 144, 148


@contextlib.contextmanager
def socket_pairs(count: int) -> Iterator[list[socket.socket]]:
    """The one ends of ``count`` connections, or of as many as the system allows."""
    count = min(count, (allow_descriptors(2 * count + 100) - 100) // 2)
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(count)]
        for end in [end for pair in pairs for end in pair]:
            end.setblocking(False)
            stack.callback(end.close)
        yield [pair[0] for pair in pairs]


async def idle_memory(
    count: int, opened: Callable[[socket.socket], Awaitable[Any]], close: Callable[[Any], Any]
) -> float:
    """Bytes per connection that has sent a message and waits for the next one."""
    with socket_pairs(count + 1) as (first, *ends):
        kept = [await opened(first)]  # imports and other first-time costs are not measured
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        kept += [await opened(end) for end in ends]
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for one in kept:
            await close(one)
    return (after - before) / len(ends)


def trio_stream(end: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(end))


async def open_layer(
    make: Callable[[TcpStream], trio.abc.SendStream], end: socket.socket
) -> trio.abc.SendStream:
    layer = make(TcpStream(trio_stream(end)))
    await layer.send_all(MESSAGE)
    return layer


async def open_framed_writer(end: socket.socket) -> FramedWriter:
    frames = FramedWriter(BufWriter(TcpStream(trio_stream(end))), LengthDelimitedCodec())
    await frames.send(MESSAGE)
    await frames.flush()
    return frames


async def open_framed_reader(end: socket.socket) -> FramedReader:
    frames = FramedReader(TcpStream(trio_stream(end)), LengthDelimitedCodec())
    with contextlib.suppress(trio.WouldBlock):
        frames.receive_nowait()
    return frames


async def open_standard_writer(end: socket.socket) -> StandardWriter:
    writer = StandardWriter(end.fileno(), "stdout")
    await writer.send_all(MESSAGE)
    return writer


async def open_offloaded(end: socket.socket) -> AllowStdIo:
    file = io.FileIO(end.fileno(), "wb", closefd=False)
    writer = AllowStdIo(file, offload=True)
    await writer.send_all(MESSAGE)
    return writer


async def open_after_thread(end: socket.socket) -> TcpStream:
    stream = TcpStream(trio_stream(end))
    await write_from_thread(stream, lambda file: file.write(MESSAGE))
    return stream


UNLIMITED: Final = TokenBucket(math.inf)

#: Each layer over a TcpStream.
LAYERS: Final[dict[str, Callable[[TcpStream], trio.abc.SendStream]]] = {
    "BufWriter over TcpStream": BufWriter,
    "TcpStream": lambda stream: stream,
    "InspectWriter": lambda stream: InspectWriter(stream, len),
    "LineWriter": LineWriter,
    "MeteredWriter": MeteredWriter,
    "SharedWriter": SharedWriter,
    "TeeWriter, copy to a Sink": lambda stream: TeeWriter(stream, Sink()),
    "ThrottledWriter": lambda stream: ThrottledWriter(stream, UNLIMITED),
    "TimeoutWriter": lambda stream: TimeoutWriter(stream, idle=10),
}

#: The layers that are not made by a call with a TcpStream: how to open each over a socket.
OTHERS: Final[dict[str, Callable[[socket.socket], Awaitable[Any]]]] = {
    "FramedWriter over BufWriter": open_framed_writer,
    "FramedReader": open_framed_reader,
    "writer of stdout()": open_standard_writer,
    "AllowStdIo, offload": open_offloaded,
    "TcpStream, after write_from_thread": open_after_thread,
}


async def open_trio_stream(end: socket.socket) -> trio.SocketStream:
    stream = trio_stream(end)
    await stream.send_all(MESSAGE)
    return stream


async def open_stream_writer(end: socket.socket) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(sock=end)
    writer.write(MESSAGE)
    await writer.drain()
    return writer


async def aclose(stream: trio.abc.AsyncResource) -> None:
    await stream.aclose()


async def close_stream_writer(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def our_memory(count: int) -> dict[str, float]:
    """Bytes of Python memory per idle connection, each over a socket that is not counted."""
    opens = {
        **{name: functools.partial(open_layer, make) for name, make in LAYERS.items()},
        **OTHERS,
    }
    return {name: trio.run(idle_memory, count, opened, aclose) for name, opened in opens.items()}


def memory(count: int) -> dict[str, float]:
    """The same of this library and of others."""
    return {
        **our_memory(count),
        "trio SocketStream": trio.run(idle_memory, count, open_trio_stream, aclose),
        "asyncio StreamWriter": asyncio.run(
            idle_memory(count, open_stream_writer, close_stream_writer)
        ),
    }


async def most_unsent(receiver: Receiver, milliseconds: int, mark: int | None) -> int:
    """How many bytes wait unsent in the kernel behind a reader of 200 kB per second, at most."""
    sock = socket.create_connection((HOST, receiver.expect(f"slow {milliseconds}")))
    stream = TcpStream(trio.socket.from_stdlib_socket(sock))
    if receiver.answer() != b"ready\n":
        raise RuntimeError("the receiver is out of step")
    if mark is not None:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, mark)
    most = 0
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def write() -> None:
            while True:
                await stream.write_all(bytes(1 << 20))

        with trio.move_on_after(milliseconds / 1000 - 0.02):
            while True:
                info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
                assert isinstance(info, bytes)
                (unsent,) = struct.unpack_from("=I", info, _NOTSENT_BYTES)
                most = max(most, unsent)
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    await abort(stream)
    receiver.answer()
    return most


def unsent(milliseconds: int) -> dict[str, int]:
    """The same with the adapted mark, and with others; nothing where the system does not tell."""
    if sys.platform != "linux":
        return {}
    marks = {"adapted mark": None, "mark of 16 KiB": 16384, "no mark": 2**31 - 1}
    with Receiver() as receiver:
        return {
            name: trio.run(most_unsent, receiver, milliseconds, mark)
            for name, mark in marks.items()
        }


class Gate(Sink):
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False
        self.waiting = trio.lowlevel.ParkingLot()

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        if not self.is_open:
            raise NotReady(self.waiting.park)
        return super().poll_write(data)


async def queued_messages(tasks: int, messages: int) -> float:
    """CPU microseconds per message that waits in a SharedWriter, one of each task."""
    spent = 0.0
    rounds = max(messages // tasks, 1)
    for _ in range(rounds):
        gate = Gate()
        writer = SharedWriter(gate)
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(writer.write_all, MESSAGE)
            await trio.testing.wait_all_tasks_blocked()
            gate.is_open = True
            gate.waiting.unpark_all()
            spent -= time.process_time()
        spent += time.process_time()
        await writer.aclose()
    return spent / rounds / tasks * 1e6


def queues(messages: int) -> dict[str, float]:
    """The same for several numbers of tasks."""
    return {
        f"{tasks} waiting": trio.run(queued_messages, tasks, messages)
        for tasks in (1, 10, 100, 1000)
        if tasks <= messages
    }


class Turns(trio.abc.Instrument):
    """Counts what a task does between two steps that the scheduler gives it."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.done = self.longest = self._at_last_step = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.longest = max(self.longest, self.done - self._at_last_step)
            self._at_last_step = self.done


async def fairness(writes: int) -> dict[str, int]:
    """How many small writes a tight loop makes between two trips to the scheduler, at most.

    Trio shuffles the tasks that are ready, so another one may be first in one batch and last in
    the next: between two of its turns there can be twice as many writes.
    """
    other_longest = at_last_turn = 0
    turns = Turns()
    trio.lowlevel.add_instrument(turns)

    async def other_task() -> None:
        nonlocal other_longest, at_last_turn
        while True:
            other_longest = max(other_longest, turns.done - at_last_turn)
            at_last_turn = turns.done
            await trio.lowlevel.checkpoint()

    # A buffer that is never full, so that nothing but the writes themselves gives way.
    writer = BufWriter(Sink(), capacity=(writes + 1) * len(MESSAGE))
    async with writer, trio.open_nursery() as nursery:
        nursery.start_soon(other_task)
        for _ in range(writes):
            await writer.write(MESSAGE)
            turns.done += 1
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return {
        "small writes between two checkpoints": turns.longest,
        "small writes between two turns of another task": other_longest,
    }
