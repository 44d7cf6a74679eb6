"""Servers in a nursery, over TCP or TLS, and what they serve."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    Buf,
    CloseOutcome,
    Drain,
    DrainReport,
    TcpStream,
    TlsStream,
    serve_tcp,
    serve_tls_over_tcp,
)

from ._streams import clog, drain as read_all, small_buffers
from ._tls_helpers import HOST, client_context, server_context

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT
TRUNCATED = CloseOutcome.TRUNCATED

Handler = Any


class Server:
    """A server in a nursery, over TCP or TLS, and how to connect to it."""

    report: DrainReport

    def __init__(self, *, tls: bool, **options: Any) -> None:
        self.tls = tls
        self.drain = Drain(**options)

    async def run(self, handler: Handler, nursery: trio.Nursery, **options: Any) -> None:
        self.nursery = nursery
        serve = serve_tcp
        if self.tls:
            serve = partial(serve_tls_over_tcp, ssl_context=server_context())  # type: ignore[assignment]

        async def run(task_status: trio.TaskStatus[Any]) -> None:
            options.setdefault("drain", self.drain)
            self.report = await serve(
                handler, port=0, host="127.0.0.1", task_status=task_status, **options
            )

        (listener,) = await nursery.start(run)
        self.address = getattr(listener, "transport_listener", listener).socket.getsockname()

    async def connect(self) -> AsyncReadWrite:
        sock = trio.socket.socket()
        small_buffers(sock)
        try:
            await sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        if not self.tls:
            return TcpStream(sock)
        return TlsStream(TcpStream(sock), client_context(), server_hostname=HOST)


DRAINED = pytest.mark.parametrize("drained", [False, True], ids=["for ever", "drained"])


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, tls: bool, drained: bool = True, **options: Any) -> Any:
    """A server around a block, at whose end it is drained; one without a drain is cancelled."""
    server = Server(tls=tls)
    if not drained:
        options["drain"] = None
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery, **options)
        yield server
        if drained:
            server.drain.start()
        else:
            nursery.cancel_scope.cancel()


both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])


async def echo(stream: AsyncReadWrite) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def stuck(stream: AsyncReadWrite) -> None:
    """Write more than anybody takes."""
    await stream.write_all(bytes(1))
    clog(stream)
    await stream.write_all(bytes(1_000_000))


async def request(stream: AsyncReadWrite) -> bytes:
    await stream.send_all(b"request")
    answer = await read_all(stream)
    await stream.aclose()
    return answer


class Streamer:
    """A handler that streams a long answer, and what has become of it at both ends."""

    ANSWER = bytes(range(200)) * 600

    def __init__(self, drain: Drain) -> None:
        self.drain = drain
        #: For each connection: the server's stream, and what it has not accepted of the answer.
        self.answers: list[tuple[AsyncReadWrite, Buf]] = []
        #: What each client has received: None if the stream did not end properly.
        self.received: list[bytes | None] = []
        #: Set when a client has received some of its answer, and not all, or will not.
        self.half_way = trio.Event()

    async def handle(self, stream: AsyncReadWrite) -> None:
        small_buffers(stream.transport_stream if isinstance(stream, TlsStream) else stream)
        answer = Buf(self.ANSWER)
        self.answers.append((stream, answer))
        await stream.receive_some(1)
        await stream.write_all_buf(answer)
        await stream.flush()
        with self.drain.until_started():
            await stream.receive_some(1)

    async def request(self, server: Server) -> None:
        try:
            stream = await server.connect()
        except ConnectionError:
            return
        received = bytearray()
        try:
            await stream.send_all(b"request")
            while chunk := await stream.receive_some(15_000):
                received += chunk
                self.half_way.set()
        except trio.BrokenResourceError:
            self.received.append(None)
        else:
            self.received.append(bytes(received))
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.aclose()
        self.half_way.set()
        await trio.aclose_forcefully(stream)

    def check(self) -> None:
        """Every connection is closed, and who saw a proper end got every byte accepted."""
        accepted = []
        for stream, answer in self.answers:
            with pytest.raises(trio.ClosedResourceError):
                stream.poll_write(b"x")
            transport = stream.transport_stream if isinstance(stream, TlsStream) else stream
            assert transport.socket.fileno() == -1
            accepted.append(self.ANSWER[: len(self.ANSWER) - answer.remaining])
        accepted += [b""] * (len(self.received) - len(accepted))  # whom nobody has accepted
        for received in self.received:
            if received is not None:
                accepted.remove(received)


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def answer_all(drain: Drain, stream: AsyncReadWrite) -> None:
    """The handler of Drain's docstring."""
    with contextlib.suppress(trio.BrokenResourceError):
        while True:
            request = b""
            with drain.until_started():
                request = bytes(await stream.receive_some())
            if not request:
                return
            await stream.send_all(b"answer to " + request)
