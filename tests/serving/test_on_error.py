"""What a handler raises, and who hears of it."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    close_gracefully,
    open_tcp_stream,
    serve_listeners,
)

from .._patience import wait_all_tasks_blocked
from .._servers import DRAINED, TRUNCATED, Server, both, serving
from .._streams import clog, drain as read_all, reset

if TYPE_CHECKING:
    from trio.testing import MockClock


class Told:
    """An ``on_error`` that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Exception, Any]] = []

    def __call__(self, exc: Exception, stream: object) -> None:
        self.calls.append((exc, stream))

    @property
    def errors(self) -> list[type[Exception]]:
        return [type(exc) for exc, _ in self.calls]


@both
@DRAINED
async def test_the_connection_is_truncated_and_the_server_goes_on(
    *, drained: bool, tls: bool
) -> None:
    """What was written before arrives, and then the end is no proper one."""
    told = Told()
    was_open = []

    async def handler(stream: AsyncReadWrite) -> None:
        name = await stream.receive_some(7)
        await stream.send_all(b"hello " + name)
        if name == b"mistake":
            raise ZeroDivisionError
        await stream.receive_some()

    def on_error(exc: Exception, stream: AsyncReadWrite) -> None:
        was_open.append(not stream.closed)
        told(exc, stream)

    async with serving(handler, tls=tls, drained=drained, on_error=on_error) as server:
        for _ in range(2):
            bad = await server.connect()
            await bad.send_all(b"mistake")
            received = b""
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    received += await bad.receive_some()
            assert received == b"hello mistake"
            await trio.aclose_forcefully(bad)
        good = await server.connect()
        await good.send_all(b"request")
        assert await good.receive_some() == b"hello request"
        await good.aclose()
    assert told.errors == [ZeroDivisionError] * 2
    assert was_open == [True, True]
    assert [stream.peer_address is not None for _, stream in told.calls] == [True, True]
    if drained:
        assert server.report.outcomes[TRUNCATED] == 2
        assert server.report.failed_handlers == 2


@DRAINED
async def test_a_broken_connection_is_told_with_its_address(*, drained: bool) -> None:
    told = Told()

    async def handler(stream: AsyncReadWrite) -> None:
        while True:
            await stream.receive_some()

    async with serving(handler, tls=False, drained=drained, on_error=told) as server:
        client = await server.connect()
        address = client.local_address
        await wait_all_tasks_blocked()
        reset(client)
        while not told.calls:
            await trio.lowlevel.checkpoint()
        await trio.aclose_forcefully(client)
    assert told.errors == [trio.BrokenResourceError]
    assert told.calls[0][1].peer_address == address


async def test_a_handler_that_fails_after_a_proper_end_truncates_nothing() -> None:
    told = Told()

    async def handler(stream: AsyncReadWrite) -> None:
        await stream.send_all(b"hello")
        await stream.shutdown()
        raise ZeroDivisionError

    async def closes(stream: AsyncReadWrite) -> None:
        await close_gracefully(stream, linger=0)
        raise ZeroDivisionError

    for serve, answer in ((handler, b"hello"), (closes, b"")):
        async with serving(serve, tls=False, drained=True, on_error=told) as server:
            client = await server.connect()
            assert await read_all(client) == answer
            await client.aclose()
        assert server.report.outcomes.get(TRUNCATED) is None
        assert sum(server.report.outcomes.values()) == 1
    assert told.errors == [ZeroDivisionError] * 2


@DRAINED
async def test_groups_are_split(*, drained: bool) -> None:
    """What concerns the connection is told, the rest is raised."""
    told = Told()

    async def handler(stream: AsyncReadWrite) -> None:
        async def fail(error: BaseException) -> None:
            raise error

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, ValueError())
            nursery.start_soon(fail, SystemExit(3))

    with pytest.RaisesGroup(SystemExit, flatten_subgroups=True):
        async with serving(handler, tls=False, drained=drained, on_error=told) as server:
            with trio.CancelScope(shield=True):
                client = await server.connect()
                with pytest.raises(trio.BrokenResourceError):
                    await read_all(client)
                await trio.aclose_forcefully(client)
                await wait_all_tasks_blocked()
    ((exc, _),) = told.calls
    assert pytest.RaisesGroup(ValueError).matches(exc)


@DRAINED
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_is_nobodys_error(error: type[BaseException], *, drained: bool) -> None:
    told = Told()

    async def handler(stream: AsyncReadWrite) -> None:
        raise error

    with pytest.RaisesGroup(error, flatten_subgroups=True):
        async with (
            serving(handler, tls=False, drained=drained, on_error=told) as server,
            await server.connect(),
        ):
            await trio.sleep_forever()
    assert not told.calls


@DRAINED
async def test_a_cancelled_handler_is_no_error_but_what_else_it_raises_is(*, drained: bool) -> None:
    told = Told()
    ready = []

    async def handler(stream: AsyncReadWrite) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                ready.append(stream)
                await trio.sleep_forever()
        finally:
            if len(ready) == 2 and stream is ready[1]:
                raise ZeroDivisionError

    server = Server(tls=False)
    clients = []
    async with trio.open_nursery() as nursery:
        options = {} if drained else {"drain": None}
        await server.run(handler, nursery, on_error=told, **options)
        for count in (1, 2):
            clients.append(await server.connect())
            while len(ready) < count:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert told.errors == [ZeroDivisionError]
    for client in clients:
        await trio.aclose_forcefully(client)


@DRAINED
@pytest.mark.parametrize("kind", ["handler", "on_error", "neither"])
async def test_a_cancellation_while_the_stream_is_closed_does_not_replace_the_error(
    kind: str, *, drained: bool, autojump_clock: MockClock
) -> None:
    """The peer takes nothing, so closing takes its time."""

    async def handler(stream: AsyncReadWrite) -> None:
        clog(stream)
        raise SystemExit if kind == "handler" else ZeroDivisionError

    def on_error(exc: Exception, stream: AsyncReadWrite) -> None:
        if kind == "on_error":
            raise SystemExit

    with (
        contextlib.nullcontext()
        if kind == "neither"
        else pytest.RaisesGroup(SystemExit, flatten_subgroups=True)
    ):
        async with serving(handler, tls=False, drained=drained, on_error=on_error) as server:
            with trio.CancelScope(shield=True):
                client = await server.connect()
                await wait_all_tasks_blocked()
            server.nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(client)


@DRAINED
@pytest.mark.parametrize("kind", ["raises", "is async after all"])
async def test_an_on_error_that_fails_ends_the_server(kind: str, *, drained: bool) -> None:
    """And the stream is closed all the same."""
    streams = []

    async def nothing() -> None: ...

    class Odd:
        def __await__(self) -> Any: ...

    def on_error(exc: Exception, stream: AsyncReadWrite) -> object:
        streams.append(stream)
        if kind == "raises":
            raise LookupError
        return nothing() if drained else Odd()

    async def handler(stream: AsyncReadWrite) -> None:
        raise ZeroDivisionError

    error = (
        pytest.RaisesExc(LookupError)
        if kind == "raises"
        else pytest.RaisesExc(TypeError, match="returned something to be awaited")
    )
    with pytest.RaisesGroup(error, flatten_subgroups=True):
        async with (
            serving(handler, tls=False, drained=drained, on_error=on_error) as server,
            await server.connect(),
        ):
            await trio.sleep_forever()
    assert streams[0].closed


async def test_a_handler_that_has_lost_its_stream_is_told_of_once(
    autojump_clock: MockClock,
) -> None:
    told = Told()

    async def handler(stream: AsyncReadWrite) -> None:
        with trio.CancelScope(shield=True), contextlib.suppress(trio.ClosedResourceError):
            await stream.receive_some()
        raise ZeroDivisionError

    server = Server(tls=False, grace=1)
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery, on_error=told)
        client = await server.connect()
        await wait_all_tasks_blocked()
        server.drain.start()
    assert told.errors == [ZeroDivisionError]
    assert server.report.outcomes == {TRUNCATED: 1}
    await trio.aclose_forcefully(client)


async def test_the_streams_of_others_are_truncated_too() -> None:
    told = Told()

    async def handler(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")
        raise ZeroDivisionError

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_listeners, handler, listeners, on_error=told))
        client = await open_tcp_stream(*listeners[0].socket.getsockname())
        assert await client.receive_some() == b"hello"
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        await trio.aclose_forcefully(client)
        nursery.cancel_scope.cancel()
    assert told.errors == [ZeroDivisionError]


async def test_resources_that_are_no_streams_are_closed() -> None:
    class Thing(trio.abc.AsyncResource):
        fails = False
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1
            if self.fails:
                raise OSError("not closed")

    told = Told()
    things = [Thing(), Thing(), Thing()]
    things[2].fails = True

    class Things(trio.abc.Listener[Thing]):
        def __init__(self) -> None:
            self.left = list(things)

        async def accept(self) -> Thing:
            if not self.left:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            return self.left.pop()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async def handler(thing: Thing) -> None:
        if thing is things[0]:
            raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_listeners, handler, [Things()], on_error=told))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [thing.closed for thing in things] == [1, 1, 1]
    assert set(told.errors) == {ZeroDivisionError, OSError}

    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        await serve_listeners(handler, [Things()])
