"""Servers: what they accept, and how they are drained."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket as stdlib_socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    BufWriter,
    Drain,
    TcpListener,
    TcpStream,
    close_gracefully,
    duplex,
    graceful,
    open_tcp_stream,
    serve_listeners,
)
from trio_asyncwrite._serving._backlog import queue_length

from .._patience import wait_all_tasks_blocked
from .._servers import (
    CLEAN,
    Server,
    answer_all,
    both,
    echo,
    request,
)
from .._streams import Listener, drain as read_all

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


@both
async def test_without_a_drain_it_is_trios(*, tls: bool) -> None:
    server = Server(tls=tls)
    async with trio.open_nursery() as nursery:
        await server.run(echo, nursery, drain=None)
        async with await server.connect() as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


async def test_without_a_drain_it_serves_the_listeners_of_others() -> None:
    served: list[trio.abc.Stream] = []

    async def answer(stream: trio.abc.Stream) -> None:
        served.append(stream)
        await stream.send_all(b"hello")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        assert await nursery.start(serve_listeners, answer, listeners) == listeners
        async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as stream:
            assert await read_all(stream) == b"hello"
        nursery.cancel_scope.cancel()
    assert [type(one) for one in served] == [trio.SocketStream]


async def test_with_a_drain_it_refuses_the_streams_of_others() -> None:
    listeners: Any = await trio.open_tcp_listeners(0, host="127.0.0.1")
    refusal = pytest.RaisesExc(TypeError, match="use TcpListener")
    with pytest.RaisesGroup(refusal, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_listeners, echo, drain=Drain())
            await nursery.start(serve, listeners)
            async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as stream:
                assert await read_all(stream) == b""


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
    assert str(server.report).endswith(": 1 connection, 1 closed by a handler")


@pytest.mark.parametrize("close", [close_gracefully, graceful, "buffered"])
async def test_what_handlers_close_gracefully_counts_by_its_outcome(close: Any) -> None:
    async def handler(stream: AsyncReadWrite) -> None:
        if close is graceful:
            async with graceful(stream):
                await stream.send_all(b"hello")
        else:
            writer = BufWriter(stream)
            await writer.write_all(b"hello")
            end = stream if close is close_gracefully else writer
            assert (await close_gracefully(end)).outcome is CLEAN

    server = Server(tls=False)
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        assert await read_all(stream) == b"hello"
        await stream.aclose()
        server.drain.start()
    assert server.report.outcomes == {CLEAN: 1}
    assert server.report.closed_by_handler == 0


async def test_what_a_handler_raises_ends_the_server_and_truncates_the_connection() -> None:
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


# ---- What has arrived when the drain starts ----------------------------------------------------


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


async def test_listeners_are_served_for_ever_without_a_drain() -> None:
    listener = Listener()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_listeners, echo, [listener])
        assert await nursery.start(serve) == [listener]
        client, end = duplex(100)
        await listener.connect.send(end)
        await client.send_all(b"abc")
        assert await client.receive_some() == b"abc"
        nursery.cancel_scope.cancel()


async def test_without_listeners_the_end_is_at_once() -> None:
    drain = Drain()
    drain.start()
    assert (await serve_listeners(echo, [], drain=drain)).connections == 0
