from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket as stdlib_socket
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from trio_asyncwrite import (
    AsyncReadWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    Drain,
    DrainReport,
    TcpListener,
    TcpStream,
    TimeoutWriter,
    close_gracefully,
    duplex,
    graceful,
    open_tcp_stream,
    serve_listeners,
    serve_tcp,
    serve_tls_over_tcp,
)
from trio_asyncwrite._serving._backlog import queue_length
from trio_asyncwrite._tls._stream import TlsStream
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._streams import clog, drain as read_all, small_buffers
from .._tls_helpers import HOST, certificate, client_context, server_context

if TYPE_CHECKING:
    from trio.testing import MockClock

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT

Handler = Any


class Server:
    """A server in a nursery, over TCP or TLS, and how to connect to it."""

    report: DrainReport

    def __init__(self, *, tls: bool, **options: Any) -> None:
        self.tls = tls
        self.drain = Drain(**options)

    async def run(self, handler: Handler, nursery: trio.Nursery, **options: Any) -> None:
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


@both
async def test_without_a_drain_it_is_trios(*, tls: bool) -> None:
    server = Server(tls=tls)
    async with trio.open_nursery() as nursery:
        await server.run(echo, nursery, drain=None)
        async with await server.connect() as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


@both
async def test_what_a_handler_wrote_arrives_though_it_has_not_read_everything(*, tls: bool) -> None:
    """trio.serve_listeners closes by a reset here, which destroys the answer."""
    answer = bytes(range(256)) * 4000

    async def handler(stream: AsyncReadWrite) -> None:
        await stream.receive_some(1)
        await stream.write_all(answer)

    server = Server(tls=tls)
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        async with trio.open_nursery() as upload:
            upload.start_soon(stream.write_all, bytes(200_000))
            assert await read_all(stream) == answer
        await stream.aclose()
        server.drain.start()
    assert server.report.outcomes == {CLEAN: 1}
    assert server.report.connections == 1
    assert server.report.unsent_bytes == server.report.cancelled == 0


@both
async def test_a_drain_lets_handlers_finish_and_refuses_new_connections(*, tls: bool) -> None:
    server = Server(tls=tls)
    ready = trio.Event()

    async def handler(stream: AsyncReadWrite) -> None:
        assert await stream.receive_some() == b"request"
        ready.set()
        await server.drain.wait_started()
        for _ in range(100):
            await stream.send_all(bytes(1000))

    answers = []

    async def client() -> None:
        answers.append(await request(await server.connect()))

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        nursery.start_soon(client)
        await ready.wait()
        server.drain.start()
        server.drain.start()
        while True:  # at once: after no more than a few turns of the scheduler
            await trio.lowlevel.checkpoint()
            try:
                (await open_tcp_stream(*server.address)).socket.close()
            except OSError:
                break
            assert not answers
    assert answers == [bytes(100_000)]
    assert server.report.outcomes == {CLEAN: 1} or server.report.connections > 1
    assert CLEAN in server.report.outcomes


@both
async def test_idle_connections_end_when_the_drain_starts(*, tls: bool) -> None:
    server = Server(tls=tls)

    async def handler(stream: AsyncReadWrite) -> None:
        while not server.drain.started:
            with server.drain.until_started():
                await stream.receive_some()
                await stream.send_all(b"answer")

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        streams = [await server.connect() for _ in range(3)]
        for stream in streams:
            await stream.send_all(b"request")
            assert await stream.receive_some() == b"answer"
        server.drain.start()
        for stream in streams:
            assert await read_all(stream) == b""
            await stream.aclose()
    assert server.report.outcomes == {CLEAN: 3}
    assert [report.outcome for report in server.report.reports] == [CLEAN] * 3


async def test_who_waits_in_the_backlog_is_still_served() -> None:
    """The kernel has accepted them, and they have sent their requests."""
    server = Server(tls=False)
    clients = []
    async with trio.open_nursery() as nursery:
        await server.run(echo, nursery)
        for _ in range(10):  # without a checkpoint, so nobody accepts
            client = stdlib_socket.create_connection(server.address)
            client.sendall(b"request")
            client.shutdown(stdlib_socket.SHUT_WR)
            clients.append(client)
        server.drain.start()
    for client in clients:
        with client:
            assert client.recv(100) == b"request"
            assert client.recv(100) == b""
    assert server.report.connections == 10


@both
async def test_handlers_are_cancelled_when_the_grace_is_over(
    *, tls: bool, autojump_clock: MockClock
) -> None:
    """And those who have stopped reading, and they alone, are TIMED_OUT."""
    server = Server(tls=tls, grace=10)
    written: list[AsyncReadWrite] = []

    async def handler(stream: AsyncReadWrite) -> None:
        await stream.receive_some()
        if not written:
            written.append(stream)
            await stuck(stream)
        await stream.send_all(b"hello")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        silent, polite = await server.connect(), await server.connect()
        await silent.send_all(b"x")
        await wait_all_tasks_blocked()
        await polite.send_all(b"x")
        assert await polite.receive_some() == b"hello"
        # It takes the acknowledgement along, which might be delayed for longer than this runs.
        await polite.send_all(b"thanks")
        began = trio.current_time()
        server.drain.start()

    assert trio.current_time() - began == pytest.approx(10, abs=0.1)
    assert server.report.outcomes == {TIMED_OUT: 1, PEER_SILENT: 1}
    assert server.report.cancelled == 2
    if tls:
        assert server.report.unsent_bytes
    assert str(server.report).startswith("drained in 10.0")
    assert await read_all(polite) == b""
    for stream in (silent, polite):
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("reads", [False, True])
async def test_a_close_from_before_the_drain_is_cut_short_by_it(
    *, reads: bool, autojump_clock: MockClock
) -> None:
    server = Server(tls=True, grace=3, timeout=1000, linger=1000)

    async def handler(stream: TlsStream[TcpStream]) -> None:
        await stream.do_handshake()
        if not reads:
            clog(stream)

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        assert isinstance(stream, TlsStream)
        await stream.do_handshake()
        if reads:
            assert await read_all(stream) == b""
        await trio.sleep(100)
        server.drain.start()

    assert trio.current_time() == pytest.approx(103, abs=0.1)
    assert server.report.outcomes == {(PEER_SILENT if reads else TIMED_OUT): 1}
    assert [report.error for report in server.report.reports] == [None]
    assert server.report.cancelled == 0
    await trio.aclose_forcefully(stream)


async def test_a_cancelled_server_ends_at_once(autojump_clock: MockClock) -> None:
    """What the kernel takes still goes out."""
    server = Server(tls=False)

    async def handler(stream: AsyncReadWrite) -> None:
        try:
            await trio.sleep_forever()
        finally:
            stream.poll_write(b"goodbye")

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == 0
    assert await read_all(stream) == b"goodbye"
    await stream.aclose()


async def test_handlers_may_run_in_the_callers_nursery() -> None:
    server = Server(tls=False)
    async with trio.open_nursery() as handlers, trio.open_nursery() as nursery:
        await server.run(echo, nursery, handler_nursery=handlers)
        stream = await server.connect()
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        assert len(handlers.child_tasks) == 1
        server.drain.start()
        await wait_all_tasks_blocked()
        assert not hasattr(server, "report")
        await stream.aclose()
    assert server.report.outcomes == {CLEAN: 1}


async def test_what_handlers_close_is_only_counted() -> None:
    async def handler(stream: AsyncReadWrite) -> None:
        async with stream:
            await stream.send_all(b"hello")

    server = Server(tls=False)
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        assert await read_all(stream) == b"hello"
        await stream.aclose()
        server.drain.start()
    assert server.report.outcomes == {}
    assert server.report.closed_by_handler == 1
    assert str(server.report).endswith(": 1 connections, 1 closed by their handlers")


async def test_what_a_handler_raises_ends_the_server_and_resets_the_connection() -> None:
    async def handler(stream: AsyncReadWrite) -> None:
        await stream.write_all(b"half a mess")
        raise ZeroDivisionError

    server = Server(tls=False)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await server.run(handler, nursery)
            with trio.CancelScope(shield=True):
                stream = await server.connect()
                with pytest.raises(trio.BrokenResourceError):
                    await read_all(stream)
                await trio.aclose_forcefully(stream)
    assert not hasattr(server, "report")


async def test_a_drain_that_has_started_serves_nobody() -> None:
    server = Server(tls=False)
    server.drain.start()
    async with trio.open_nursery() as nursery:
        await server.run(echo, nursery)
    assert server.report.connections == 0
    assert server.report.reports == ()
    with server.drain.until_started() as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    await server.drain.wait_started()


async def test_a_lack_of_resources_is_waited_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept = TcpListener.accept
    errors = [OSError(errno.EMFILE, "too many"), OSError(errno.ENOBUFS, "no space")]

    async def fail(self: TcpListener) -> TcpStream:
        if errors:
            raise errors.pop()
        return await accept(self)

    monkeypatch.setattr(TcpListener, "accept", fail)
    server = Server(tls=False)
    async with trio.open_nursery() as nursery:
        await server.run(echo, nursery)
        stream = await server.connect()
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.aclose()
        server.drain.start()
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "accept returned ENOBUFS",
        "accept returned EMFILE",
    ]
    assert trio.current_time() == pytest.approx(0.2)


async def test_other_errors_of_accept_end_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: TcpListener) -> TcpStream:
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(TcpListener, "accept", fail)
    server = Server(tls=False)
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await server.run(echo, nursery)


async def test_the_last_call_has_an_end() -> None:
    """Though for each connection that is accepted another one comes in."""
    server = Server(tls=False)
    clients = []

    def connect() -> None:  # without a checkpoint
        with contextlib.suppress(ConnectionRefusedError):
            clients.append(stdlib_socket.create_connection(server.address))

    async def handler(stream: AsyncReadWrite) -> None:
        if len(clients) < 100:
            connect()

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        for _ in range(5):
            connect()
        server.drain.start()
        await wait_all_tasks_blocked()
        for client in clients:
            client.close()
    assert 5 <= server.report.connections < 12


@pytest.mark.parametrize("signals", [(), (signal.SIGUSR1,)])
async def test_a_signal_starts_it(signals: tuple[int, ...]) -> None:
    drain = Drain()
    async with trio.open_nursery() as nursery:
        await nursery.start(drain.start_on_signal, *signals)
        assert not drain.started
        os.kill(os.getpid(), *(signals or (signal.SIGTERM,)))
    assert drain.started
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_when_it_is_started_otherwise_signals_are_let_go() -> None:
    drain = Drain()
    before = signal.getsignal(signal.SIGINT)
    async with trio.open_nursery() as nursery:
        await nursery.start(drain.start_on_signal)
        assert signal.getsignal(signal.SIGINT) is not before
        drain.start()
    assert signal.getsignal(signal.SIGINT) is before


async def test_a_drain_in_words(autojump_clock: MockClock) -> None:
    drain = Drain(grace=7)
    assert repr(drain) == "<Drain, not started>"
    assert drain.deadline == float("inf")
    drain.start()
    assert repr(drain) == "<Drain, started>"
    assert drain.deadline == trio.current_time() + 7


@pytest.mark.parametrize("name", ["grace", "timeout", "linger", "linger_bytes"])
def test_limits_are_numbers_of_at_least_zero(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Drain(**{name: -1})
    with pytest.raises(TypeError, match=name):
        Drain(**{name: "1"})  # type: ignore[arg-type]


@both
async def test_wherever_a_drain_is_cancelled_the_server_ends_and_what_was_sent_arrives(
    *, tls: bool, autojump_clock: MockClock
) -> None:
    """A stream is whole, or it ends by an error; TCP says so only if accepted bytes are lost."""

    async def scenario(sweep: Sweep) -> None:
        server = Server(tls=tls, grace=5)
        answer = b"answer" * 10
        received = []

        async def handler(stream: AsyncReadWrite) -> None:
            await stream.receive_some(1)
            await stream.send_all(answer)

        async def client() -> None:
            try:
                stream = await server.connect()
            except ConnectionError:
                return
            try:
                received.append(await request(stream))
            except trio.BrokenResourceError:
                await trio.aclose_forcefully(stream)

        async with trio.open_nursery() as clients:
            with sweep:
                async with trio.open_nursery() as nursery:
                    await server.run(handler, nursery)
                    clients.start_soon(client)
                    await wait_all_tasks_blocked()
                    server.drain.start()
        assert set(received) <= {b"", answer}
        if not sweep.cancelled:
            assert received == [answer]
            assert server.report.outcomes == {CLEAN: 1}
        if hasattr(server, "address"):
            with pytest.raises(OSError, match="onnect"):
                await open_tcp_stream(*server.address)

    assert await cancel_everywhere(scenario) > 20


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


@both
@pytest.mark.parametrize("of", ["server", "handlers", "everything"])
async def test_wherever_it_is_cancelled_a_drain_leaves_nothing_behind(
    of: str, *, tls: bool, autojump_clock: MockClock
) -> None:
    """... and every stream is whole as far as it was accepted, or its end is no proper one."""

    async def scenario(sweep: Sweep) -> None:
        living = living_tasks()
        server = Server(tls=tls, grace=5)
        streamer = Streamer(server.drain)

        async def load(clients: trio.Nursery) -> None:
            for _ in range(2):
                clients.start_soon(streamer.request, server)
            await streamer.half_way.wait()
            server.drain.start()

        async with trio.open_nursery() as clients, trio.open_nursery() as others:
            with sweep:
                async with trio.open_nursery() as nursery:
                    if of == "server":
                        await server.run(streamer.handle, nursery, handler_nursery=others)
                        await load(clients)
                    elif of == "everything":
                        await server.run(streamer.handle, nursery)
                        await load(clients)
                    else:
                        with trio.CancelScope(shield=True):
                            await server.run(streamer.handle, others, handler_nursery=nursery)
                            await load(clients)
            server.drain.start()  # for what was not in the sweep
        streamer.check()
        assert living_tasks() == living
        if hasattr(server, "report"):
            report = server.report
            assert report.connections == sum(report.outcomes.values()) == len(streamer.answers)
        if sweep.where == "not cancelled":
            assert server.report.outcomes == {CLEAN: 2}
            assert server.report.cancelled == 0

    assert await cancel_everywhere(scenario) > 20


@both
@pytest.mark.parametrize("returns", [False, True])
async def test_wherever_a_server_is_cancelled_a_peer_that_is_stuck_does_not_hold_it_up(
    *, returns: bool, tls: bool, autojump_clock: MockClock
) -> None:
    """Whether its handler is at work, or it is being closed."""

    async def scenario(sweep: Sweep) -> None:
        began = trio.current_time()
        server = Server(tls=tls, timeout=1000, linger=1000)
        served: list[AsyncReadWrite] = []

        async def handler(stream: AsyncReadWrite) -> None:
            served.append(stream)
            await stream.receive_some()
            if returns:
                clog(stream)
            else:
                await stuck(stream)

        async with contextlib.AsyncExitStack() as stack:
            with sweep:
                async with trio.open_nursery() as nursery:
                    await server.run(handler, nursery)
                    client = await server.connect()
                    stack.push_async_callback(trio.aclose_forcefully, client)
                    nursery.start_soon(client.send_all, b"request")
                    await trio.sleep(10)
                    nursery.cancel_scope.cancel()
            assert trio.current_time() - began < 11
            for stream in served:
                with pytest.raises(trio.ClosedResourceError):
                    stream.poll_write(b"x")

    assert await cancel_everywhere(scenario) > 10


@both
async def test_wherever_a_handler_cancels_itself_its_connection_ends_clean(
    *, tls: bool, autojump_clock: MockClock
) -> None:
    """With what was accepted of its answer, to the last byte."""

    async def scenario(sweep: Sweep) -> None:
        server = Server(tls=tls)
        streamer = Streamer(server.drain)

        async def handler(stream: AsyncReadWrite) -> None:
            if isinstance(stream, TlsStream):
                await stream.do_handshake()  # before it, there is no end to be proper
            with sweep:
                await streamer.handle(stream)

        async with trio.open_nursery() as nursery:
            await server.run(handler, nursery)
            await streamer.request(server)
            server.drain.start()
        streamer.check()
        assert streamer.received != [None]
        assert server.report.outcomes == {CLEAN: 1}
        assert server.report.unsent_bytes == 0

    assert await cancel_everywhere(scenario) > 10


async def check_a_process_under_load(
    server: Server, arguments: list[str], *, clients: int, stopped: int
) -> None:
    """SIGTERM in the middle of everybody's answer."""
    size = 200_000
    halfway = 0
    all_halfway, go_on = trio.Event(), trio.Event()
    answers: list[int] = []
    output = bytearray()
    told = trio.Event()

    async def client() -> None:
        nonlocal halfway
        stream = await server.connect()
        await stream.send_all(b"%d\n" % size)
        received = 0
        while received < size // 2:
            received += len(await stream.receive_some())
        halfway += 1
        if halfway == clients:
            all_halfway.set()
        await go_on.wait()
        received += len(await read_all(stream))
        await stream.aclose()
        answers.append(received)

    async def read(stdout: trio.abc.ReceiveStream) -> None:
        async for chunk in stdout:
            output.extend(chunk)
            told.set()

    silent = []
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, Path(__file__).parents[1] / "_draining_server.py", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        nursery.start_soon(read, process.stdout)
        await told.wait()
        server.address = ("127.0.0.1", int(output))
        output.clear()
        async with trio.open_nursery() as load:
            for _ in range(stopped):
                silent.append(await server.connect())
                await silent[-1].send_all(b"50000000\n")
            for _ in range(clients):
                load.start_soon(client)
            await all_halfway.wait()
            process.terminate()
            with pytest.raises(OSError, match="onnect"):
                while True:
                    (await open_tcp_stream(*server.address)).socket.close()
            assert process.returncode is None
            go_on.set()
    for stream in silent:
        await trio.aclose_forcefully(stream)

    assert answers == [size] * clients
    assert process.returncode == 0
    report = json.loads(output)
    assert report["outcomes"].get("timed out", 0) == stopped
    assert report["outcomes"]["clean"] >= clients
    # The grace, and a minute for a machine that is busy.
    assert report["elapsed"] < float(arguments[0]) + 60


def process_arguments(grace: int, tmp_path: Path, *, tls: bool) -> list[str]:
    if not tls:
        return [str(grace)]
    file = tmp_path / "server.pem"
    certificate().private_key_and_cert_chain_pem.write_to_path(file)
    return [str(grace), str(file)]


@both
async def test_a_process_that_gets_sigterm_under_load_loses_nothing(
    *, tls: bool, tmp_path: Path
) -> None:
    arguments = process_arguments(60, tmp_path, tls=tls)
    await check_a_process_under_load(Server(tls=tls), arguments, clients=10, stopped=0)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 10])
@both
async def test_a_process_that_gets_sigterm_under_the_load_of_200_connections(
    *, tls: bool, stopped: int, tmp_path: Path
) -> None:
    arguments = process_arguments(15, tmp_path, tls=tls)
    await check_a_process_under_load(Server(tls=tls), arguments, clients=200, stopped=stopped)


# ---- What has arrived when the drain starts ----------------------------------------------------


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


async def test_requests_sent_before_the_drain_are_answered() -> None:
    """Though nobody had accepted the connections."""
    server = Server(tls=False)
    clients = []
    async with trio.open_nursery() as nursery:
        await server.run(partial(answer_all, server.drain), nursery)
        for _ in range(50):  # without a checkpoint, so nobody accepts
            client = stdlib_socket.create_connection(server.address)
            client.sendall(b"request")
            clients.append(client)
        server.drain.start()
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionRefusedError):
            stdlib_socket.create_connection(server.address)
        received = []
        for client in clients:
            with client:
                received += [(client.recv(100), client.recv(100))]
    assert received == [(b"answer to request", b"")] * 50
    assert server.report.outcomes == {CLEAN: 50}


@both
@pytest.mark.parametrize("order", ["waits", "comes later"])
async def test_what_has_arrived_when_the_drain_starts_is_received(order: str, *, tls: bool) -> None:
    """And then the block ends, when there is nothing more."""
    server = Server(tls=tls)
    go_on = trio.Event()
    received = []

    async def handler(stream: AsyncReadWrite) -> None:
        received.append(await stream.receive_some())
        if order == "comes later":
            await go_on.wait()
        for _ in range(2):
            with server.drain.until_started() as scope:
                received.append(await stream.receive_some())
        assert scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        await stream.send_all(b"hello")
        await wait_all_tasks_blocked()
        # Without a checkpoint between them.
        stream.poll_write(b"request")
        server.drain.start()
        go_on.set()
        assert await read_all(stream) == b""
        await stream.aclose()
    assert received == [b"hello", b"request"]


# ---- The end of the grace ----------------------------------------------------------------------


class Own:
    """Handlers that end their stream themselves, or do not hear when they are cancelled."""

    @staticmethod
    async def close(stream: AsyncReadWrite) -> None:
        await close_gracefully(stream, timeout=1000, linger=1000)

    @staticmethod
    async def close_buffered(stream: AsyncReadWrite) -> None:
        writer = BufWriter(stream)
        await writer.write_all(b"answer")
        await close_gracefully(writer, timeout=1000, linger=1000)

    @staticmethod
    async def graceful(stream: AsyncReadWrite) -> None:
        async with graceful(stream, timeout=1000, linger=1000):
            await trio.sleep_forever()

    @staticmethod
    async def close_clogged(stream: AsyncReadWrite) -> None:
        clog(stream)
        writer = BufWriter(stream)
        await writer.write_all(b"answer")
        await close_gracefully(writer, timeout=1000, linger=1000)

    @staticmethod
    async def shield(stream: AsyncReadWrite) -> None:
        with trio.CancelScope(shield=True):
            await stuck(stream)

    @staticmethod
    async def shield_a_layer(stream: AsyncReadWrite) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stuck, TimeoutWriter(stream, idle=1000))
                nursery.start_soon(stream.receive_some)


@both
@pytest.mark.parametrize(
    ("handler", "outcome"),
    [
        (Own.close, PEER_SILENT),
        (Own.close_buffered, PEER_SILENT),
        (Own.graceful, PEER_SILENT),
        (Own.close_clogged, TIMED_OUT),
        (Own.shield, TIMED_OUT),
        (Own.shield_a_layer, TIMED_OUT),
    ],
    ids=["close", "close_buffered", "graceful", "close_clogged", "shield", "shield_a_layer"],
)
async def test_the_grace_holds_for_handlers_that_do_not_come_out(
    handler: Handler, outcome: CloseOutcome, *, tls: bool, autojump_clock: MockClock
) -> None:
    """And what was ended properly stays so, while the rest is reset."""
    server = Server(tls=tls, grace=10)

    async def shake_hands(stream: AsyncReadWrite) -> None:
        assert await stream.receive_some() == b"hello"
        await handler(stream)

    async with trio.open_nursery() as nursery:
        await server.run(shake_hands, nursery)
        stream = await server.connect()
        await stream.send_all(b"hello")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        server.drain.start()
    assert 10 <= trio.current_time() - began < 10.5
    report = server.report
    assert report.outcomes == {outcome: 1}
    assert [each.outcome for each in report.reports] == [outcome]
    assert (report.connections, report.cancelled, report.closed_by_handler) == (1, 1, 0)
    if outcome is PEER_SILENT:
        assert await read_all(stream) == (b"answer" if handler is Own.close_buffered else b"")
    else:
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream)
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
async def test_a_handler_that_has_lost_its_stream_has_a_report_already(
    error: type[Exception] | None, autojump_clock: MockClock
) -> None:
    """What it raises because of that does not end the server; anything else does."""
    server = Server(tls=False, grace=10)

    async def handler(stream: AsyncReadWrite) -> None:
        with trio.CancelScope(shield=True), contextlib.suppress(trio.ClosedResourceError):
            await stream.receive_some()
        if error is not None:
            raise error

    async with contextlib.AsyncExitStack() as stack:
        if error is not None:
            stack.enter_context(pytest.RaisesGroup(error, flatten_subgroups=True))
        async with trio.open_nursery() as nursery:
            await server.run(handler, nursery)
            stream = await server.connect()
            await wait_all_tasks_blocked()
            server.drain.start()
    await trio.aclose_forcefully(stream)
    if error is None:
        assert server.report.outcomes == {TIMED_OUT: 1}
        assert (server.report.cancelled, server.report.closed_by_handler) == (1, 0)


async def test_nothing_is_taken_from_a_handler_that_has_closed_its_stream(
    autojump_clock: MockClock,
) -> None:
    """But the server waits for it: only it can end itself."""
    server = Server(tls=False, grace=10)

    async def handler(stream: AsyncReadWrite) -> None:
        await trio.aclose_forcefully(stream)
        with trio.CancelScope(shield=True):
            await trio.sleep(15)

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        await wait_all_tasks_blocked()
        server.drain.start()
    await trio.aclose_forcefully(stream)
    assert trio.current_time() == pytest.approx(15)
    assert server.report.outcomes == {}
    assert server.report.closed_by_handler == 1


async def test_a_lack_of_resources_does_not_outlast_the_grace(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those who wait are not accepted, then, and the server ends."""
    server = Server(tls=False, grace=2)

    async def fail(self: TcpListener) -> TcpStream:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(TcpListener, "accept", fail)
    async with trio.open_nursery() as nursery:
        await server.run(echo, nursery)
        with stdlib_socket.create_connection(server.address):
            server.drain.start()
            await trio.sleep(3)
    assert server.report.elapsed == pytest.approx(2, abs=0.1)
    assert server.report.connections == 0


async def test_a_grace_may_be_infinite(autojump_clock: MockClock) -> None:
    server = Server(tls=False, grace=float("inf"))

    async def handler(stream: AsyncReadWrite) -> None:
        await server.drain.wait_started()
        await trio.sleep(1000)

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        await wait_all_tasks_blocked()
        server.drain.start()
        assert await read_all(stream) == b""
        await stream.aclose()
    assert server.report.elapsed == pytest.approx(1000)


# ---- Listeners of one's own --------------------------------------------------------------------


async def test_a_unix_socket_is_drained_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows how many wait there, so the last call is for a fixed number at most."""
    monkeypatch.setattr("trio_asyncwrite._serving._backlog.LAST_CALL", 3)
    path = tmp_path / "socket"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    drain = Drain()
    reports = []
    answers = set()

    async def serve(task_status: trio.TaskStatus[Any]) -> None:
        reports.append(
            await serve_listeners(
                partial(answer_all, drain),
                [TcpListener(trio.SocketListener(sock))],
                drain=drain,
                task_status=task_status,
            )
        )

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(serve)
        clients = []
        for _ in range(10):  # without a checkpoint, so nobody accepts
            client = stdlib_socket.socket(stdlib_socket.AF_UNIX)
            client.connect(bytes(path))
            client.sendall(b"request")
            client.shutdown(stdlib_socket.SHUT_WR)
            clients.append(client)
        drain.start()
    assert listener.socket.fileno() == -1
    for client in clients:
        with client, contextlib.suppress(ConnectionResetError):
            answers.add((client.recv(100), client.recv(100)))
    assert answers == {(b"answer to request", b"")}
    assert 3 <= reports[0].connections < 10


@pytest.mark.parametrize(("platform", "length"), [("linux", 3), ("darwin", 128)])
def test_how_many_wait_where_the_system_says_so(
    platform: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(stdlib_socket.create_server(("127.0.0.1", 0)))
        for _ in range(3):
            client = stdlib_socket.create_connection(listener.getsockname())
            stack.enter_context(client)
        assert queue_length(trio.socket.from_stdlib_socket(listener)) == length


class Listener(trio.abc.Listener[AsyncReadWrite]):
    """Accepts one end of each pair in memory."""

    def __init__(self) -> None:
        self.connect, self.accepted = trio.open_memory_channel[AsyncReadWrite](10)

    async def accept(self) -> AsyncReadWrite:
        return await self.accepted.receive()

    async def aclose(self) -> None:
        await self.accepted.aclose()


async def test_listeners_may_be_anything() -> None:
    drain = Drain()
    listener = Listener()
    reports = []

    async def serve(task_status: trio.TaskStatus[Any]) -> None:
        handler = partial(answer_all, drain)
        reports.append(
            await serve_listeners(handler, [listener], drain=drain, task_status=task_status)
        )

    async with trio.open_nursery() as nursery:
        assert await nursery.start(serve) == [listener]
        client, end = duplex(100)
        await listener.connect.send(end)
        await client.send_all(b"request")
        assert await client.receive_some() == b"answer to request"
        drain.start()
        assert await read_all(client) == b""
        await client.aclose()
    assert reports[0].outcomes == {CLEAN: 1}


async def test_without_listeners_the_end_is_at_once() -> None:
    drain = Drain()
    drain.start()
    assert (await serve_listeners(echo, [], drain=drain)).connections == 0


# ---- Under load --------------------------------------------------------------------------------


@pytest.mark.slow
@both
async def test_sigterm_while_clients_come_and_go(*, tls: bool, tmp_path: Path) -> None:
    """Each gets its whole answer, or is refused and gets nothing, be it that its queue is reset."""
    server = Server(tls=tls)
    size, grace = 6000, 20
    seen: Counter[str] = Counter()
    busy = trio.Event()
    output = bytearray()

    async def client() -> None:
        while not seen["refused"]:
            received = b""
            try:
                stream = await server.connect()
                try:
                    await stream.send_all(b"now %d\n" % size)
                    while len(received) < size:
                        chunk = await stream.receive_some()
                        if not chunk:
                            break
                        received += chunk
                finally:
                    await trio.aclose_forcefully(stream)
            except ConnectionRefusedError:
                seen["refused"] += 1
            except (OSError, trio.BrokenResourceError):
                seen[f"reset after {len(received)}"] += 1
            else:
                seen[f"received {len(received)}"] += 1
            if seen[f"received {size}"] == 500:
                busy.set()

    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [
                    sys.executable,
                    Path(__file__).parents[1] / "_draining_server.py",
                    *process_arguments(grace, tmp_path, tls=tls),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        async with process.stdout as stdout:
            server.address = ("127.0.0.1", int(await stdout.receive_some()))
            async with trio.open_nursery() as clients:
                for _ in range(40):
                    clients.start_soon(client)
                await busy.wait()
                process.terminate()
            async for chunk in stdout:
                output += chunk

    assert process.returncode == 0
    assert set(seen) <= {"refused", "reset after 0", f"received {size}"}
    assert json.loads(output)["elapsed"] < grace
