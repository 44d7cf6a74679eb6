"""What is measured: this library, and the other ways to send bytes.

Each peer connects in its own way, then sends all messages of the run as its documentation
advises, and flushes. Where messages come in parts, each sends them together as best it can.
All sockets have TCP_NODELAY, which the asynchronous libraries set by default.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from trio_asyncwrite import BufWriter, NotReady, open_tcp_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness import Run

#: The buffers of C's BufferedWriter and our BufWriter: the latter's default.
CAPACITY = 65536


# ---- This library --------------------------------------------------------------------------


async def buf_writer_write(run: Run) -> None:
    async with BufWriter(await open_tcp_stream(*run.address)) as writer:
        # A message that fits is taken whole, so that there is nothing to loop over.
        write: Any = writer.write if run.workload.size < writer.capacity else writer.write_all
        with run.clock():
            if run.workload.gathered:
                for header, body in run.messages():
                    await writer.write(header)
                    await writer.write_all(body)
            else:
                for message in run.messages():
                    await write(message)
            await writer.flush()


async def buf_writer_poll_write(run: Run) -> None:
    async with BufWriter(await open_tcp_stream(*run.address)) as writer:
        poll_write = writer.poll_write
        with run.clock():
            for message in run.messages():
                while True:
                    try:
                        poll_write(message)
                        break
                    except NotReady as not_ready:
                        await not_ready.wait()
            await writer.flush()


async def tcp_stream_write_all(run: Run) -> None:
    async with await open_tcp_stream(*run.address) as stream:
        write: Any = stream.write_all_vectored if run.workload.gathered else stream.write_all
        with run.clock():
            for message in run.messages():
                await write(message)


# ---- Asynchronous peers --------------------------------------------------------------------


def joined(send: Callable[[bytes], Any], run: Run) -> Callable[[Any], Any]:
    """``send``, for messages in parts: one copy is cheaper than two sends."""
    return (lambda parts: send(b"".join(parts))) if run.workload.gathered else send


async def trio_send_all(run: Run) -> None:
    async with await trio.open_tcp_stream(*run.address) as stream:
        send = joined(stream.send_all, run)
        with run.clock():
            for message in run.messages():
                await send(message)


async def anyio_send(run: Run) -> None:
    import anyio  # noqa: PLC0415 - it may not be installed

    async with await anyio.connect_tcp(*run.address) as stream:
        send = joined(stream.send, run)
        with run.clock():
            for message in run.messages():
                await send(message)


async def stream_writer_write(run: Run) -> None:
    _, writer = await asyncio.open_connection(*run.address)
    write = writer.writelines if run.workload.gathered else writer.write
    with run.clock():
        for message in run.messages():
            write(message)
        await drain_wholly(writer)
    writer.close()
    await writer.wait_closed()


async def stream_writer_write_drain(run: Run) -> None:
    _, writer = await asyncio.open_connection(*run.address)
    write, drain = writer.writelines if run.workload.gathered else writer.write, writer.drain
    with run.clock():
        for message in run.messages():
            write(message)
            await drain()
        await drain_wholly(writer)
    writer.close()
    await writer.wait_closed()


async def drain_wholly(writer: asyncio.StreamWriter) -> None:
    """Wait until nothing is left to send; a plain drain is content with less than 64 KiB."""
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()


# ---- Blocking peers ------------------------------------------------------------------------


def connect(run: Run) -> socket.socket:
    sock = socket.create_connection(run.address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def send_gathered(sock: socket.socket, parts: Sequence[bytes]) -> None:
    sent = sock.sendmsg(parts)
    if sent < sum(map(len, parts)):
        sock.sendall(b"".join(parts)[sent:])


def socket_sendall(run: Run) -> None:
    with connect(run) as sock:
        send: Any = (
            functools.partial(send_gathered, sock) if run.workload.gathered else sock.sendall
        )
        with run.clock():
            for message in run.messages():
                send(message)


def buffered_writer_write(run: Run) -> None:
    # Not sock.makefile(), whose raw layer is written in Python.
    with connect(run) as sock, open(sock.fileno(), "wb", CAPACITY, closefd=False) as file:
        write = file.write
        with run.clock():
            if run.workload.gathered:
                for header, body in run.messages():
                    write(header)
                    write(body)
            else:
                for message in run.messages():
                    write(message)
            file.flush()


# ---- The table -----------------------------------------------------------------------------


def call(main: Callable[[Run], None], run: Run) -> None:
    main(run)


def trio_run(main: Callable[[Run], Any], run: Run) -> None:
    trio.run(main, run)


def asyncio_run(main: Callable[[Run], Any], run: Run) -> None:
    asyncio.run(main(run))


def uvloop_run(main: Callable[[Run], Any], run: Run) -> None:
    import uvloop  # noqa: PLC0415 - it may not be installed

    uvloop.run(main(run))


@dataclass(frozen=True)
class Peer:
    """One way to send.

    Attributes:
        name: as it is printed.
        kind: "ours", "async" or "blocking".
        needs: the packages beyond our own dependencies.
        max_message: the largest message that it can be measured with, in bytes.
        max_bytes: the most that it may be asked to send in one measurement, in bytes.
    """

    name: str
    kind: str
    start: Callable[[Callable[[Run], Any], Run], None]
    main: Callable[[Run], Any]
    needs: tuple[str, ...] = ()
    max_message: int = sys.maxsize
    max_bytes: int = sys.maxsize

    def measure(self, run: Run) -> None:
        self.start(self.main, run)

    @property
    def installed(self) -> bool:
        return all(importlib.util.find_spec(name) for name in self.needs)


# Who never drains keeps a whole round in memory.
_UNDRAINED = 256 << 20

BUF_WRITER = "BufWriter.write"
POLL_WRITE = "BufWriter.poll_write"
TCP_STREAM = "TcpStream.write_all"
TRIO = "trio send_all"
UVLOOP = "uvloop write"
UVLOOP_DRAIN = "uvloop write+drain"
BUFFERED_WRITER = "C io.BufferedWriter"

PEERS = (
    Peer(BUF_WRITER, "ours", trio_run, buf_writer_write),
    # A message as large as the buffer may be taken in part, and the loop is no longer this one.
    Peer(POLL_WRITE, "ours", trio_run, buf_writer_poll_write, max_message=CAPACITY - 1),
    Peer(TCP_STREAM, "ours", trio_run, tcp_stream_write_all),
    Peer(TRIO, "async", trio_run, trio_send_all),
    Peer("anyio send (trio)", "async", trio_run, anyio_send, ("anyio",)),
    Peer("anyio send (asyncio)", "async", asyncio_run, anyio_send, ("anyio",)),
    Peer("asyncio write", "async", asyncio_run, stream_writer_write, max_bytes=_UNDRAINED),
    Peer("asyncio write+drain", "async", asyncio_run, stream_writer_write_drain),
    Peer(UVLOOP, "async", uvloop_run, stream_writer_write, ("uvloop",), max_bytes=_UNDRAINED),
    Peer(UVLOOP_DRAIN, "async", uvloop_run, stream_writer_write_drain, ("uvloop",)),
    Peer("socket sendall", "blocking", call, socket_sendall),
    Peer(BUFFERED_WRITER, "blocking", call, buffered_writer_write),
)
