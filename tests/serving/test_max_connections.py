"""A bound for the connections that are served at once."""

from __future__ import annotations

import contextlib
import socket as stdlib_socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    Drain,
    close_gracefully,
    duplex,
    open_tcp_stream,
    serve_listeners,
)

from .._patience import wait_all_tasks_blocked
from .._servers import CLEAN, DRAINED, Server, both, request
from .._streams import Listener, drain as read_all

if TYPE_CHECKING:
    from trio.testing import MockClock


class Counting:
    """A handler that knows how many it serves at once."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0

    async def __call__(self, stream: AsyncReadWrite) -> None:
        self.now += 1
        self.total += 1
        self.most = max(self.most, self.now)
        try:
            await stream.send_all(b"hello")
            await stream.receive_some()
            await close_gracefully(stream)  # without a drain, nobody else does
        finally:
            self.now -= 1


async def read_and_close(client: AsyncReadWrite) -> None:
    assert await client.receive_some() == b"hello"
    await client.aclose()


@both
@DRAINED
async def test_the_server_stops_accepting_and_refuses_nobody(*, drained: bool, tls: bool) -> None:
    handler = Counting()
    server = Server(tls=tls)
    answers = []

    async def client() -> None:
        answers.append(await request(await server.connect()))

    async with trio.open_nursery() as nursery:
        options: dict[str, Any] = {} if drained else {"drain": None}
        await server.run(handler, nursery, max_connections=3, **options)
        async with trio.open_nursery() as clients:
            for _ in range(20):
                clients.start_soon(client)
        if drained:
            server.drain.start()
        else:
            nursery.cancel_scope.cancel()
    assert answers == [b"hello"] * 20
    assert (handler.most, handler.total) == (3, 20)
    if drained:
        assert server.report.connections == 20
        assert server.report.outcomes == {CLEAN: 20}


async def test_beyond_the_limit_the_kernel_keeps_them() -> None:
    """What the server has not accepted costs it nothing."""
    handler = Counting()
    server = Server(tls=False)
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery, max_connections=2)
        clients = [await open_tcp_stream(*server.address) for _ in range(4)]
        for client in clients[:2]:
            assert await client.receive_some() == b"hello"
        await wait_all_tasks_blocked()
        accepted = len(nursery.child_tasks)
        assert handler.total == 2
        await clients[0].aclose()
        assert await clients[2].receive_some() == b"hello"
        assert handler.most == 2
        for client in clients[1:]:
            await client.aclose()
        server.drain.start()
    assert accepted == 1
    assert server.report.connections == handler.total


@DRAINED
async def test_a_connection_counts_until_it_is_closed(
    *, drained: bool, autojump_clock: MockClock
) -> None:
    """Not only while its handler runs: the close costs memory, too."""

    async def handler(stream: AsyncReadWrite) -> None:
        served.append(trio.current_time())
        await stream.send_all(b"hello")

    served: list[float] = []
    server = Server(tls=False, linger=5)
    async with trio.open_nursery() as nursery:
        options: dict[str, Any] = {} if drained else {"drain": None}
        await server.run(handler, nursery, max_connections=1, **options)
        clients = [await server.connect() for _ in range(2)]
        for client in clients:
            assert await client.receive_some() == b"hello"
        assert served == pytest.approx([0, 5] if drained else [0, 0], abs=0.1)
        for client in clients:
            await trio.aclose_forcefully(client)
        if drained:
            server.drain.start()
        else:
            nursery.cancel_scope.cancel()


async def test_several_listeners_share_the_limit() -> None:
    """Each waits inside accept when the last place is taken; what it accepts then waits."""
    handler = Counting()
    drain = Drain()
    listeners = [Listener() for _ in range(3)]
    reports = []

    async def serve(task_status: trio.TaskStatus[Any]) -> None:
        reports.append(
            await serve_listeners(
                handler, listeners, drain=drain, max_connections=2, task_status=task_status
            )
        )

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        await wait_all_tasks_blocked()
        clients = []
        for number in range(9):
            client, end = duplex(100)
            clients.append(client)
            await listeners[number % 3].connect.send(end)
        await wait_all_tasks_blocked()
        assert handler.now == 2
        waiting = sum(each.connect.statistics().current_buffer_used for each in listeners)
        assert 9 - waiting <= 2 + len(listeners) - 1
        async with trio.open_nursery() as readers:
            for client in clients:
                readers.start_soon(read_and_close, client)
        drain.start()
    assert (handler.most, handler.total) == (2, 9)
    assert reports[0].outcomes == {CLEAN: 9}


async def test_who_waits_when_the_drain_starts_is_served_within_the_grace(
    autojump_clock: MockClock,
) -> None:
    """In turn, within the limit."""
    now = most = 0

    async def handler(stream: AsyncReadWrite) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await trio.sleep(1)
        await stream.send_all(b"hello")
        now -= 1

    server = Server(tls=False, grace=100)
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery, max_connections=2)
        clients = []
        for _ in range(6):  # without a checkpoint, so nobody accepts
            client = stdlib_socket.create_connection(server.address)
            client.shutdown(stdlib_socket.SHUT_WR)
            clients.append(client)
        server.drain.start()
    for client in clients:
        with client:
            assert client.recv(10) == b"hello"
    assert most == 2
    assert server.report.elapsed == pytest.approx(3, abs=0.5)
    assert server.report.outcomes == {CLEAN: 6}


async def test_after_the_grace_nobody_is_served(autojump_clock: MockClock) -> None:
    """Neither those in the backlog, nor the one that another listener had accepted."""

    async def handler(stream: AsyncReadWrite) -> None:
        served.append(stream)
        await trio.sleep_forever()

    served: list[AsyncReadWrite] = []
    drain = Drain(grace=3)
    reports = []
    listeners = [Listener(), Listener()]
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[Any]) -> None:
            reports.append(
                await serve_listeners(
                    handler, listeners, drain=drain, max_connections=1, task_status=task_status
                )
            )

        await nursery.start(serve)
        await wait_all_tasks_blocked()
        clients = []
        for listener in listeners * 2:
            client, end = duplex(100)
            clients.append(client)
            with contextlib.suppress(trio.BrokenResourceError):
                await listener.connect.send(end)
        await wait_all_tasks_blocked()
        drain.start()
    assert len(served) == 1
    (report,) = reports
    assert (report.connections, report.cancelled) == (2, 1)
    assert 3 <= report.elapsed < 3.76
    for client in clients[:2]:
        with pytest.raises(trio.BrokenResourceError):
            await read_all(client)
    for client in clients:
        await trio.aclose_forcefully(client)


@both
async def test_when_a_handler_fails_its_place_is_free_again(*, tls: bool) -> None:
    async def handler(stream: AsyncReadWrite) -> None:
        raise ZeroDivisionError

    server = Server(tls=tls)
    told = []
    async with trio.open_nursery() as nursery:
        await server.run(
            handler, nursery, max_connections=1, on_error=lambda exc, stream: told.append(exc)
        )
        for _ in range(3):
            client = await server.connect()
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
            await trio.aclose_forcefully(client)
        server.drain.start()
    assert len(told) == 3
