"""What is measured: this library, and the other ways to do the same.

Each peer does what its documentation advises: it sends all messages of the run, flushes, and
closes the stream in its own way. Where messages come in parts, each sends them together as best
it can. All sockets have TCP_NODELAY, which the asynchronous libraries set by default. The same
functions send over TCP and over TLS, as the workload has it.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import TYPE_CHECKING, Any

import trio
from harness import ACLOSE, BATCH, BY_REF, MAKE_DROP, WRITE_FLUSH, Family, Peer
from libraries import (
    aclose,
    aiofastnet_run,
    asyncio_run,
    call,
    close_socket,
    close_writer,
    fastnet_over_uvloop,
    open_anyio,
    open_ours,
    open_reader_writer,
    open_socket,
    open_trio,
    open_writer,
    trio_run,
    uvloop_run,
)

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    CloseOutcome,
    DuplexStream,
    FilePart,
    NotReady,
    Sink,
    TimeoutWriter,
    close_all_gracefully,
    duplex,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness import Run

#: The buffers of C's BufferedWriter and our BufWriter: the latter's default.
CAPACITY = 65536


# ---- Messages: this library ----------------------------------------------------------------


async def buf_writer_write(run: Run) -> None:
    writer = BufWriter(await open_ours(run))
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
        await writer.aclose()


async def buf_writer_write_flush(run: Run) -> None:
    writer = BufWriter(await open_ours(run))
    write, flush = writer.write, writer.flush
    with run.clock():
        for message in run.messages():
            await write(message)
            await flush()
        await writer.aclose()


async def buf_writer_poll_write(run: Run) -> None:
    writer = BufWriter(await open_ours(run))
    poll_write = writer.poll_write
    with run.clock():
        for message in run.messages():
            while True:
                try:
                    poll_write(message)
                    break
                except NotReady as not_ready:
                    await not_ready.wait()
        await writer.aclose()


async def write_all_with_mark(mark: int, run: Run) -> None:
    await write_all(run, mark)


async def write_all(run: Run, mark: int | None = None) -> None:
    stream = await open_ours(run)
    if mark is not None:
        set_mark(stream, mark)
    write: Any = stream.write_all_vectored if run.workload.gathered else stream.write_all
    with run.clock():
        for message in run.messages():
            await write(message)
        await stream.aclose()


def set_mark(stream: Any, mark: int) -> None:
    """Have the kernel hold so many unsent bytes, and no adapted number."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, mark)


# ---- Messages: asynchronous peers ----------------------------------------------------------


def joined(send: Callable[[bytes], Any], run: Run) -> Callable[[Any], Any]:
    """``send``, for messages in parts: one copy is cheaper than two sends."""
    return (lambda parts: send(b"".join(parts))) if run.workload.gathered else send


async def send_each(open_stream: Callable[[Run], Any], method: str, run: Run) -> None:
    stream = await open_stream(run)
    send = joined(getattr(stream, method), run)
    with run.clock():
        for message in run.messages():
            await send(message)
        await stream.aclose()


async def write(run: Run) -> None:
    writer = await open_writer(run)
    send = writer.writelines if run.workload.gathered else writer.write
    with run.clock():
        for message in run.messages():
            send(message)
        await close_writer(writer)


async def write_drain(run: Run) -> None:
    writer = await open_writer(run)
    send, drain = writer.writelines if run.workload.gathered else writer.write, writer.drain
    with run.clock():
        for message in run.messages():
            send(message)
            await drain()
        await close_writer(writer)


# ---- Messages: blocking peers --------------------------------------------------------------


def send_gathered(sock: socket.socket, parts: Sequence[bytes]) -> None:
    sent = sock.sendmsg(parts)
    if sent < sum(map(len, parts)):
        sock.sendall(b"".join(parts)[sent:])


def sendall(run: Run) -> None:
    sock = open_socket(run)
    send: Any = functools.partial(send_gathered, sock) if run.workload.gathered else sock.sendall
    with run.clock():
        for message in run.messages():
            send(message)
        close_socket(sock)


def buffered_writer_write(run: Run) -> None:
    # Not sock.makefile(), whose raw layer is written in Python.
    with run.connect() as sock, open(sock.fileno(), "wb", CAPACITY, closefd=False) as file:
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


# ---- Round trips ---------------------------------------------------------------------------


async def ping_streams(open_stream: Callable[[Run], Any], run: Run) -> None:
    stream = await open_stream(run)
    with run.clock():
        for message in run.pings():
            await stream.send_all(message)
            missing = len(message)
            while missing:
                missing -= len(await stream.receive_some(missing))
    await trio.aclose_forcefully(stream)


async def ping_writer(run: Run) -> None:
    reader, writer = await open_reader_writer(run)
    with run.clock():
        for message in run.pings():
            writer.write(message)
            await writer.drain()
            await reader.readexactly(len(message))
    writer.transport.abort()


def ping_socket(run: Run) -> None:
    with open_socket(run) as sock, run.clock():
        for message in run.pings():
            sock.sendall(message)
            missing = len(message)
            while missing:
                missing -= len(sock.recv(missing))


# ---- Handshakes ----------------------------------------------------------------------------


async def shake_hands(
    open_stream: Callable[[Run], Any], close: Callable[[Any], Any], run: Run
) -> None:
    with run.clock():
        for _ in range(run.count):
            await close(await open_stream(run))


def shake_hands_blocking(run: Run) -> None:
    with run.clock():
        for _ in range(run.count):
            close_socket(open_socket(run))


# ---- Many connections closed at once -------------------------------------------------------


async def close_ours(run: Run) -> None:
    streams = [await open_ours(run) for _ in range(run.count)]
    with run.clock():
        reports = await close_all_gracefully(streams)
    if any(report.outcome is not CloseOutcome.CLEAN for report in reports):
        raise RuntimeError("a connection did not end cleanly")


async def close_in_nursery(run: Run) -> None:
    streams = [await open_trio(run) for _ in range(run.count)]
    with run.clock():
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.aclose)


async def linger_in_nursery(run: Run) -> None:
    """What ``close_all_gracefully`` does to a connection in order, and nothing that it sees to."""
    streams = [await open_trio(run) for _ in range(run.count)]

    async def linger(stream: Any) -> None:
        await stream.send_eof()
        while await stream.receive_some():
            pass
        await stream.aclose()

    with run.clock():
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(linger, stream)


async def close_writers(run: Run) -> None:
    writers = [await open_writer(run) for _ in range(run.count)]
    with run.clock():
        for writer in writers:
            writer.close()
        for writer in writers:
            await writer.wait_closed()


# ---- Files ---------------------------------------------------------------------------------


async def write_all_file(run: Run) -> None:
    stream, file = await open_ours(run), run.file()
    with run.clock():
        for _ in range(run.count):
            await stream.write_all_file(FilePart(file, 0, run.workload.size))
        await stream.aclose()


async def read_in_thread(size: int, run: Run) -> None:
    """Read ``size`` bytes at a time in a thread and send them, as Trio programs do."""
    stream, file = await open_trio(run), run.file()
    with run.clock():
        for _ in range(run.count):
            file.seek(0)
            while data := await trio.to_thread.run_sync(file.read, size):
                await stream.send_all(data)
        await stream.aclose()


async def loop_sendfile(run: Run) -> None:
    loop, file = asyncio.get_running_loop(), run.file()
    writer = await open_writer(run)
    with run.clock():
        for _ in range(run.count):
            await loop.sendfile(writer.transport, file, fallback=False)
        await close_writer(writer)


def socket_sendfile(run: Run) -> None:
    sock, file = open_socket(run), run.file()
    with run.clock():
        for _ in range(run.count):
            sock.sendfile(file)
        close_socket(sock)


# ---- Layers in memory ----------------------------------------------------------------------

#: The message of all workloads of layers, 64 bytes.
SMALL_MESSAGE = bytes(64)


def sink() -> tuple[Sink, None]:
    return Sink(), None


def pipe() -> tuple[DuplexStream, DuplexStream]:
    """Two connected ends, with room for a whole batch of messages."""
    return duplex(BATCH * len(SMALL_MESSAGE))


def time_limited(inner: AsyncWrite) -> TimeoutWriter[BufWriter[AsyncWrite]]:
    """A third layer. The limit is never reached."""
    return TimeoutWriter(BufWriter(inner), idle=3600)


async def use_layers(
    make: Callable[[Any], AsyncWrite],
    transport: Callable[[], tuple[AsyncWrite, DuplexStream | None]],
    run: Run,
) -> None:
    """Do with layers over a transport as the workload says."""
    operation = LAYER_OPERATIONS[run.workload.name]
    await operation(make, transport, run)


async def write_flush(make: Any, transport: Any, run: Run) -> None:
    inner, far_end = transport()
    writer = make(inner)
    for batch in run.batches():
        with run.clock():
            for _ in batch:
                await writer.write(SMALL_MESSAGE)
                await writer.flush()
        if far_end is not None:
            unread = len(batch) * len(SMALL_MESSAGE)
            while unread:
                unread -= len(await far_end.receive_some(unread))
    await writer.aclose()


async def make_drop(make: Any, transport: Any, run: Run) -> None:
    inner, _ = transport()
    for batch in run.batches():
        with run.clock():
            for _ in batch:
                make(inner)
    await inner.aclose()


async def close_layers(make: Any, transport: Any, run: Run) -> None:
    for batch in run.batches():
        transports = [transport() for _ in batch]
        writers = [make(inner) for inner, _ in transports]
        with run.clock():
            for writer in writers:
                await writer.aclose()


async def make_by_ref(make: Any, transport: Any, run: Run) -> None:
    inner, _ = transport()
    writer = make(inner)
    for batch in run.batches():
        with run.clock():
            for _ in batch:
                writer.by_ref()
    await writer.aclose()


LAYER_OPERATIONS = {
    WRITE_FLUSH: write_flush,
    MAKE_DROP: make_drop,
    ACLOSE: close_layers,
    BY_REF: make_by_ref,
}


# ---- The table -----------------------------------------------------------------------------

# Who never drains keeps a whole round in memory.
_UNDRAINED = 256 << 20

BUF_WRITER = "BufWriter.write"
POLL_WRITE = "BufWriter.poll_write"
WRITE_AND_FLUSH = "BufWriter.write+flush"
TCP_STREAM = "TcpStream.write_all"
TLS_BUF_WRITER = "BufWriter over TlsStream"
TLS_WRITE_AND_FLUSH = "TLS BufWriter.write+flush"
TLS_STREAM = "TlsStream.write_all"
TLS_HANDSHAKE = "TlsStream"
TRIO = "trio send_all"
TRIO_TLS = "trio.SSLStream send_all"
TRIO_HANDSHAKE = "trio.SSLStream"
TRIO_CLOSE = "trio aclose in a nursery"
UVLOOP = "uvloop write"
UVLOOP_DRAIN = "uvloop write+drain"
FASTNET = "aiofastnet write"
FASTNET_DRAIN = "aiofastnet write+drain"
ASYNCIO_DRAIN = "asyncio write+drain"
BLOCKING_HANDSHAKE = "ssl.SSLSocket"
BUFFERED_WRITER = "C io.BufferedWriter"
FILE = "TcpStream.write_all_file"
TRIO_FILE = "trio read in thread, 64 KiB"
ASYNCIO_FILE = "asyncio loop.sendfile"

FIXED_MARK = "TcpStream, mark of 16 KiB"
NO_MARK = "TcpStream, no mark"
PING_OURS = "TcpStream, TlsStream"

#: Values of TCP_NOTSENT_LOWAT: the one that Trio sets, and one that limits nothing.
TRIO_MARK, UNLIMITED = 16384, 2**31 - 1

ping_ours = functools.partial(ping_streams, open_ours)
ping_trio = functools.partial(ping_streams, open_trio)
send_ours = functools.partial(send_each, open_ours, "send_all")
send_trio = functools.partial(send_each, open_trio, "send_all")
send_anyio = functools.partial(send_each, open_anyio, "send")
shake_hands_ours = functools.partial(shake_hands, open_ours, aclose)
shake_hands_trio = functools.partial(shake_hands, open_trio, aclose)
shake_hands_anyio = functools.partial(shake_hands, open_anyio, aclose)
shake_hands_writer = functools.partial(shake_hands, open_writer, close_writer)


TCP, TLS, PING, HANDSHAKES, CLOSING, FILES, LAYERS = Family

#: Each family's peer to which the ratios relate. Layers have none: no other library has them.
BASELINES = {
    TCP: TRIO,
    TLS: TRIO_TLS,
    PING: TRIO,
    HANDSHAKES: TRIO_HANDSHAKE,
    CLOSING: TRIO_CLOSE,
    FILES: TRIO_FILE,
}

PEERS = (
    Peer(TCP, BUF_WRITER, "ours", trio_run, buf_writer_write),
    # A message as large as the buffer may be taken in part, and the loop is no longer this one.
    Peer(TCP, POLL_WRITE, "ours", trio_run, buf_writer_poll_write, max_message=CAPACITY - 1),
    # To flush a large message is to write it without a buffer.
    Peer(TCP, WRITE_AND_FLUSH, "ours", trio_run, buf_writer_write_flush, max_message=4096),
    Peer(TCP, TCP_STREAM, "ours", trio_run, write_all),
    *(
        Peer(TCP, name, "ours", trio_run, main, min_message=65536)
        for name, main in (
            (FIXED_MARK, functools.partial(write_all_with_mark, TRIO_MARK)),
            (NO_MARK, functools.partial(write_all_with_mark, UNLIMITED)),
        )
    ),
    Peer(TCP, TRIO, "async", trio_run, send_trio),
    Peer(TCP, "anyio send (trio)", "async", trio_run, send_anyio, ("anyio",)),
    Peer(TCP, "anyio send (asyncio)", "async", asyncio_run, send_anyio, ("anyio",)),
    Peer(TCP, "asyncio write", "async", asyncio_run, write, max_bytes=_UNDRAINED),
    Peer(TCP, ASYNCIO_DRAIN, "async", asyncio_run, write_drain),
    Peer(TCP, UVLOOP, "async", uvloop_run, write, ("uvloop",), max_bytes=_UNDRAINED),
    Peer(TCP, UVLOOP_DRAIN, "async", uvloop_run, write_drain, ("uvloop",)),
    Peer(TCP, FASTNET_DRAIN, "async", fastnet_over_uvloop, write_drain, ("uvloop", "aiofastnet")),
    Peer(TCP, "socket sendall", "blocking", call, sendall),
    Peer(TCP, BUFFERED_WRITER, "blocking", call, buffered_writer_write),
    Peer(TLS, TLS_BUF_WRITER, "ours", trio_run, buf_writer_write),
    Peer(TLS, TLS_WRITE_AND_FLUSH, "ours", trio_run, buf_writer_write_flush, max_message=4096),
    Peer(TLS, TLS_STREAM, "ours", trio_run, write_all),
    Peer(TLS, "TlsStream.send_all", "ours", trio_run, send_ours),
    Peer(TLS, TRIO_TLS, "async", trio_run, send_trio),
    Peer(TLS, "anyio send (trio)", "async", trio_run, send_anyio, ("anyio",)),
    Peer(TLS, "anyio send (asyncio)", "async", asyncio_run, send_anyio, ("anyio",)),
    Peer(TLS, "asyncio write", "async", asyncio_run, write, max_bytes=_UNDRAINED),
    Peer(TLS, ASYNCIO_DRAIN, "async", asyncio_run, write_drain),
    Peer(TLS, UVLOOP, "async", uvloop_run, write, ("uvloop",), max_bytes=_UNDRAINED),
    Peer(TLS, UVLOOP_DRAIN, "async", uvloop_run, write_drain, ("uvloop",)),
    Peer(TLS, FASTNET, "async", aiofastnet_run, write, ("aiofastnet",), max_bytes=_UNDRAINED),
    Peer(TLS, FASTNET_DRAIN, "async", aiofastnet_run, write_drain, ("aiofastnet",)),
    Peer(TLS, "ssl.SSLSocket sendall", "blocking", call, sendall),
    Peer(PING, PING_OURS, "ours", trio_run, ping_ours),
    Peer(PING, TRIO, "async", trio_run, ping_trio),
    Peer(PING, ASYNCIO_DRAIN, "async", asyncio_run, ping_writer),
    Peer(PING, UVLOOP_DRAIN, "async", uvloop_run, ping_writer, ("uvloop",)),
    Peer(PING, "socket sendall", "blocking", call, ping_socket),
    Peer(HANDSHAKES, TLS_HANDSHAKE, "ours", trio_run, shake_hands_ours),
    Peer(HANDSHAKES, TRIO_HANDSHAKE, "async", trio_run, shake_hands_trio),
    Peer(HANDSHAKES, "anyio (trio)", "async", trio_run, shake_hands_anyio, ("anyio",)),
    Peer(HANDSHAKES, "anyio (asyncio)", "async", asyncio_run, shake_hands_anyio, ("anyio",)),
    Peer(HANDSHAKES, "asyncio", "async", asyncio_run, shake_hands_writer),
    Peer(HANDSHAKES, "uvloop", "async", uvloop_run, shake_hands_writer, ("uvloop",)),
    Peer(HANDSHAKES, "aiofastnet", "async", aiofastnet_run, shake_hands_writer, ("aiofastnet",)),
    Peer(HANDSHAKES, BLOCKING_HANDSHAKE, "blocking", call, shake_hands_blocking),
    Peer(CLOSING, "close_all_gracefully", "ours", trio_run, close_ours),
    Peer(CLOSING, TRIO_CLOSE, "async", trio_run, close_in_nursery),
    Peer(CLOSING, "trio eof, drain, aclose", "async", trio_run, linger_in_nursery),
    Peer(CLOSING, "asyncio close", "async", asyncio_run, close_writers),
    Peer(CLOSING, "uvloop close", "async", uvloop_run, close_writers, ("uvloop",)),
    Peer(FILES, FILE, "ours", trio_run, write_all_file),
    Peer(FILES, TRIO_FILE, "async", trio_run, functools.partial(read_in_thread, 65536)),
    Peer(
        FILES,
        "trio read in thread, 1 MiB",
        "async",
        trio_run,
        functools.partial(read_in_thread, 1 << 20),
    ),
    # uvloop's raises NotImplementedError.
    Peer(FILES, ASYNCIO_FILE, "async", asyncio_run, loop_sendfile),
    Peer(FILES, "socket sendfile", "blocking", call, socket_sendfile),
    *(
        Peer(LAYERS, name, "ours", trio_run, functools.partial(use_layers, make, transport))
        for name, make, transport in (
            ("BufWriter over Sink", BufWriter, sink),
            ("BufWriter over duplex", BufWriter, pipe),
            ("TimeoutWriter + BufWriter", time_limited, pipe),
        )
    ),
)
