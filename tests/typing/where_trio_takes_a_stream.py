"""Our streams wherever Trio's abstract types are asked for. Checked, never run.

No cast, and no comment for a type checker but on a line that must be refused.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Generic, TypeVar

import trio
import trio.abc
import trio.testing
from typing_extensions import assert_type

import trio_asyncwrite as aw
from trio_asyncwrite import compression

StreamT = TypeVar("StreamT", bound=trio.abc.Stream)
ResourceT = TypeVar("ResourceT", bound=trio.abc.AsyncResource)


class Everything:
    """One of each class."""

    tcp: aw.TcpStream
    tls: aw.TlsStream[aw.TcpStream]
    evented: aw.PollEvented
    buffered: aw.BufWriter[aw.TcpStream]
    shared: aw.SharedWriter[aw.TcpStream]
    timed: aw.TimeoutWriter[aw.TcpStream]
    metered: aw.MeteredWriter[aw.TcpStream]
    inspected: aw.InspectWriter[aw.TcpStream]
    throttled: aw.ThrottledWriter[aw.TcpStream]
    lines: aw.LineWriter[aw.TcpStream]
    teed: aw.TeeWriter[aw.TcpStream]
    compressed: compression.CompressWriter[aw.TcpStream]
    handle: aw.ByRef[aw.TcpStream]
    pair: aw.ReadWritePair[aw.TcpStream, aw.BufWriter[aw.TcpStream]]
    read_half: aw.ReadHalf[aw.TcpStream]
    write_half: aw.WriteHalf[aw.TcpStream]
    in_memory: aw.DuplexStream
    in_memory_writer: aw.SimplexWriter
    in_memory_reader: aw.SimplexReader
    cursor: aw.Cursor
    sink: aw.Sink
    file: aw.AllowStdIo
    tcp_listener: aw.TcpListener
    tls_listener: aw.TlsListener[aw.TcpStream]
    any_writer: aw.AsyncWrite
    any_reader: aw.AsyncRead
    any_duplex: aw.AsyncReadWrite


def each_is_what_trio_calls_it(every: Everything) -> None:
    send: list[trio.abc.SendStream] = [
        every.tcp,
        every.tls,
        every.evented,
        every.buffered,
        every.shared,
        every.timed,
        every.metered,
        every.inspected,
        every.throttled,
        every.lines,
        every.teed,
        every.compressed,
        every.handle,
        every.pair,
        every.write_half,
        every.in_memory,
        every.in_memory_writer,
        every.cursor,
        every.sink,
        every.file,
        every.any_writer,
        every.any_duplex,
    ]
    receive: list[trio.abc.ReceiveStream] = [
        every.tcp,
        every.tls,
        every.evented,
        every.pair,
        every.read_half,
        every.in_memory,
        every.in_memory_reader,
        every.any_reader,
        every.any_duplex,
    ]
    half_closeable: list[trio.abc.HalfCloseableStream] = [
        every.tcp,
        every.tls,
        every.evented,
        every.pair,
        every.in_memory,
        every.any_duplex,
    ]
    duplex: list[trio.abc.Stream] = [*half_closeable]
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = [every.tcp_listener, every.tls_listener]
    tls_listeners: list[trio.abc.Listener[aw.TlsStream[aw.TcpStream]]] = [every.tls_listener]
    resources: list[trio.abc.AsyncResource] = [*send, *receive, *duplex, *listeners, *tls_listeners]
    resources.clear()

    wrong_direction: trio.abc.ReceiveStream = every.buffered  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    wrong_direction = every.write_half  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    not_duplex: trio.abc.Stream = every.read_half  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del wrong_direction, not_duplex


async def trios_own_classes_and_functions_take_them(
    every: Everything, context: ssl.SSLContext
) -> None:
    assert_type(
        trio.SSLStream(every.tcp, context, server_hostname="x"), trio.SSLStream[aw.TcpStream]
    )
    assert_type(
        trio.SSLStream(every.in_memory, context, server_side=True), trio.SSLStream[aw.DuplexStream]
    )
    assert_type(trio.SSLListener(every.tcp_listener, context), trio.SSLListener[aw.TcpStream])
    assert_type(
        trio.StapledStream(every.buffered, every.tcp),
        trio.StapledStream[aw.BufWriter[aw.TcpStream], aw.TcpStream],
    )
    assert_type(
        trio.StapledStream(every.in_memory_writer, every.in_memory_reader),
        trio.StapledStream[aw.SimplexWriter, aw.SimplexReader],
    )
    await trio.aclose_forcefully(every.tls_listener)
    await trio.lowlevel.wait_writable(every.tcp)
    await trio.lowlevel.wait_readable(every.evented)
    await trio.run_process(["true"], stdout=every.evented, stderr=every.tcp)


async def over_trios_own(context: ssl.SSLContext, sockets: trio.SocketStream) -> None:
    assert_type(aw.TlsStream(sockets, context, server_side=True), aw.TlsStream[trio.SocketStream])
    tls = trio.SSLStream(sockets, context, server_side=True)
    over: trio.abc.HalfCloseableStream = aw.TlsStream(tls, context, server_side=True)
    pair = aw.ReadWritePair(receive_stream=sockets, send_stream=aw.BufWriter(sockets))
    assert_type(pair, aw.ReadWritePair[trio.SocketStream, aw.BufWriter[aw.TcpStream]])
    assert_type(
        aw.TlsStream(pair, context, server_side=True).transport_stream.reader, trio.SocketStream
    )
    await over.aclose()


# ---- Listeners and servers ---------------------------------------------------------------------


async def any_stream(stream: trio.abc.Stream) -> None:
    async with stream:
        await stream.send_all(await stream.receive_some())


async def any_half_closeable_stream(stream: trio.abc.HalfCloseableStream) -> None:
    await stream.send_eof()


async def any_resource(resource: trio.abc.AsyncResource) -> None:
    await resource.aclose()


async def tls_only(stream: aw.TlsStream[aw.TcpStream]) -> None:
    await stream.do_handshake()


async def accept_one(listener: trio.abc.Listener[ResourceT]) -> ResourceT:
    return await listener.accept()


async def handlers_may_ask_for_less(
    every: Everything, context: ssl.SSLContext, drain: aw.Drain, nursery: trio.Nursery
) -> list[Awaitable[object]]:
    await nursery.start(aw.serve_listeners, any_stream, [every.tcp_listener])
    nursery.start_soon(aw.serve_listeners, any_stream, [every.tcp_listener])
    # They are not awaited here, for what stands after a call that never returns is not checked.
    return [
        trio.serve_listeners(any_stream, [every.tcp_listener]),  # noqa: ASYNC105
        trio.serve_listeners(any_resource, [every.tls_listener]),  # noqa: ASYNC105
        aw.serve_tcp(any_stream, 0),
        aw.serve_tcp(any_resource, 0, drain=drain),
        aw.serve_tls_over_tcp(any_half_closeable_stream, 0, context, drain=drain),
        aw.serve_tls_over_tcp(tls_only, 0, context, handler_nursery=nursery),
        aw.serve_listeners(any_stream, [every.tcp_listener]),
        aw.serve_listeners(any_resource, [every.tcp_listener], drain=drain),
        aw.serve_listeners(any_half_closeable_stream, [every.tls_listener]),
        aw.serve_listeners(tls_only, [every.tls_listener], drain=drain),
        aw.serve_listeners(tls_only, [every.tcp_listener]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ]


async def listeners_say_what_they_accept(every: Everything) -> None:
    assert_type(await accept_one(every.tcp_listener), aw.TcpStream)
    assert_type(await accept_one(every.tls_listener), aw.TlsStream[aw.TcpStream])


async def a_server_takes_the_listeners_of_others(
    general: Sequence[trio.abc.Listener[trio.abc.Stream]],
    sockets: list[trio.SocketListener],
    context: ssl.SSLContext,
    drain: aw.Drain,
) -> list[Awaitable[object]]:
    assert_type(await accept_one(general[0]), trio.abc.Stream)
    over_sockets = aw.TlsListener(sockets[0], context)
    assert_type(await over_sockets.accept(), aw.TlsStream[trio.SocketStream])
    return [
        aw.serve_listeners(any_stream, general),
        aw.serve_listeners(any_resource, sockets),
        aw.serve_listeners(any_stream, [over_sockets], drain=drain),
        aw.serve_listeners(any_stream, general, drain=drain),  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    ]


# ---- Protocols that people write over Trio's types ---------------------------------------------


class Ndjson(Generic[StreamT]):
    """Newline-delimited JSON over any stream."""

    def __init__(self, stream: StreamT) -> None:
        self.stream = stream

    async def send(self, message: object) -> None:
        await self.stream.send_all(json.dumps(message).encode() + b"\n")

    async def __aiter__(self) -> AsyncIterator[object]:
        rest = b""
        async for data in self.stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)


class Recorder(trio.abc.HalfCloseableStream):
    """A stranger's wrapper around any stream."""

    def __init__(self, transport_stream: trio.abc.HalfCloseableStream) -> None:
        self.transport_stream = transport_stream
        self.sent = bytearray()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.transport_stream.send_all(data)
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.transport_stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.transport_stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.transport_stream.aclose()


async def copy(source: trio.abc.ReceiveStream, target: trio.abc.SendStream) -> None:
    async for data in source:
        await target.send_all(data)


async def what_people_write_takes_them(every: Everything, context: ssl.SSLContext) -> None:
    assert_type(Ndjson(every.tcp), Ndjson[aw.TcpStream])
    assert_type(Ndjson(every.tls).stream.transport_stream, aw.TcpStream)
    assert_type(Ndjson(every.pair).stream.writer, aw.BufWriter[aw.TcpStream])
    Ndjson(every.buffered)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]

    recorder = Recorder(every.tls)
    assert_type(aw.BufWriter(recorder), aw.BufWriter[aw.AsyncWrite])
    assert_type(aw.TlsStream(recorder, context, server_side=True), aw.TlsStream[Recorder])

    await copy(every.read_half, every.write_half)
    await copy(every.any_reader, every.any_writer)
    await copy(every.in_memory_reader, every.cursor)

    async with contextlib.AsyncExitStack() as stack:
        assert_type(await stack.enter_async_context(every.tls), aw.TlsStream[aw.TcpStream])
        assert_type(await stack.enter_async_context(every.tcp_listener), aw.TcpListener)
    async with every.in_memory as same:
        assert_type(same, aw.DuplexStream)
    async for data in every.in_memory:
        assert_type(data, bytes | bytearray)


async def one_way() -> tuple[aw.SimplexWriter, aw.SimplexReader]:
    return aw.simplex(100)


async def two_way() -> tuple[aw.DuplexStream, aw.DuplexStream]:
    return aw.duplex(100)


async def trios_checks_take_them() -> None:
    await trio.testing.check_one_way_stream(one_way, one_way)
    await trio.testing.check_two_way_stream(two_way, two_way)
    await trio.testing.check_half_closeable_stream(two_way, None)


def a_class_may_hold_either(*, ours: bool, sockets: trio.SocketStream) -> trio.abc.Stream:
    return aw.TcpStream(sockets) if ours else sockets
