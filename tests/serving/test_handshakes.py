"""TLS handshakes: done before the handler is called, within a time, and never the server's end."""

from __future__ import annotations

import contextlib
import logging
import math
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    Drain,
    TcpListener,
    TlsListener,
    TlsStream,
    close_gracefully,
    duplex,
    open_tcp_stream,
    serve_listeners,
)

from .._patience import wait_all_tasks_blocked
from .._servers import CLEAN, DRAINED, Server, request, serving
from .._streams import Listener, drain as read_all, reset
from .._tls_helpers import HOST, client_context, server_context

if TYPE_CHECKING:
    from trio.testing import MockClock

tls_serving = partial(serving, tls=True)


class Handler:
    """Says whether the handshake was done when it was called."""

    def __init__(self) -> None:
        self.were_done: list[bool] = []

    async def __call__(self, stream: Any) -> None:
        try:
            self.were_done.append(bool(stream.version()))
        except trio.NeedHandshakeError:
            self.were_done.append(False)
        await stream.send_all(b"hello")
        await close_gracefully(stream)  # without a drain, nobody else does


@DRAINED
async def test_it_is_done_before_the_handler_is_called(*, drained: bool) -> None:
    handler = Handler()
    async with tls_serving(handler, drained=drained, handshake_timeout=math.inf) as server:
        assert await request(await server.connect()) == b"hello"
    assert handler.were_done == [True]
    if drained:
        assert server.report.outcomes == {CLEAN: 1}
        assert server.report.failed_handshakes == 0


async def nonsense(stream: AsyncReadWrite) -> None:
    """Answered by an alert."""
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n" * 100)
    received = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while chunk := await stream.receive_some():
            received += chunk
    assert received.startswith(b"\x15\x03")


async def end(stream: AsyncReadWrite) -> None:
    await stream.shutdown()  # type: ignore[misc]
    assert await read_all(stream) == b""


async def vanish(stream: Any) -> None:
    reset(stream)


async def distrust(stream: Any) -> None:
    tls = TlsStream(stream, ssl.create_default_context(), server_hostname=HOST)
    with pytest.raises(trio.BrokenResourceError):
        await tls.do_handshake()


@DRAINED
@pytest.mark.parametrize("client", [nonsense, end, vanish, distrust])
async def test_one_that_fails_is_counted_and_logged_and_ends_nothing(
    client: Any, *, drained: bool, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Handler()
    told: list[Exception] = []
    with caplog.at_level(logging.INFO, "trio_asyncwrite"):
        async with tls_serving(
            handler, drained=drained, on_error=lambda exc, stream: told.append(exc)
        ) as server:
            stream = await open_tcp_stream(*server.address)
            host, port = stream.local_address
            await client(stream)
            await trio.aclose_forcefully(stream)
            while not caplog.records:
                await trio.lowlevel.checkpoint()
            assert await request(await server.connect()) == b"hello"
    assert handler.were_done == [True]
    assert not told
    (record,) = caplog.records
    assert record.getMessage().startswith(f"TLS handshake with {host}:{port} failed: ")
    if drained:
        assert server.report.failed_handshakes == 1
        assert server.report.connections == 2
        assert server.report.outcomes == {CLEAN: 1}


@DRAINED
async def test_one_that_takes_too_long_is_given_up(
    *, drained: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A byte now and then helps nobody."""
    with caplog.at_level(logging.INFO, "trio_asyncwrite"):
        async with tls_serving(Handler(), drained=drained, handshake_timeout=7) as server:
            stream = await open_tcp_stream(*server.address)
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(b"\x16\x03\x01\x40\x00")
                while trio.current_time() < 20:
                    await trio.sleep(0.5)
                    await stream.send_all(b"x")
            assert trio.current_time() == pytest.approx(7.5, abs=0.6)
            await trio.aclose_forcefully(stream)
    assert caplog.messages[0].endswith("failed: no handshake within 7 seconds")
    if drained:
        assert server.report.failed_handshakes == 1


async def test_the_default_is_30_seconds(autojump_clock: MockClock) -> None:
    async with tls_serving(Handler()) as server:
        stream = await open_tcp_stream(*server.address)
        with contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        assert trio.current_time() == pytest.approx(30)
        await trio.aclose_forcefully(stream)


async def test_slow_ones_count_as_connections(autojump_clock: MockClock) -> None:
    """They cannot pile up beyond the limit, and pass."""
    async with tls_serving(Handler(), handshake_timeout=5, max_connections=2) as server:
        slow = [await open_tcp_stream(*server.address) for _ in range(5)]
        await wait_all_tasks_blocked()
        assert await request(await server.connect()) == b"hello"
        assert trio.current_time() == pytest.approx(10, abs=0.1)
        await trio.sleep(6)
        for stream in slow:
            await trio.aclose_forcefully(stream)
    assert server.report.failed_handshakes == 5
    assert server.report.connections == 6


@pytest.mark.parametrize("when", ["before", "after"])
async def test_when_the_drain_starts_there_is_a_second_left(
    when: str, autojump_clock: MockClock
) -> None:
    """Enough for a client that is on its way; a slow one holds nobody up."""
    async with tls_serving(Handler()) as server:
        slow = await open_tcp_stream(*server.address)
        quick = TlsStream(
            await open_tcp_stream(*server.address), client_context(), server_hostname=HOST
        )
        if when == "before":
            await wait_all_tasks_blocked()
        server.drain.start()
        await trio.sleep(0.9)
        assert await request(quick) == b"hello"
    assert trio.current_time() == pytest.approx(1, abs=0.05)
    assert server.report.failed_handshakes == 1
    assert server.report.outcomes == {CLEAN: 1}
    assert server.report.cancelled == 0
    await trio.aclose_forcefully(slow)


async def test_at_the_end_of_the_grace_it_is_a_failed_one(autojump_clock: MockClock) -> None:
    server = Server(tls=True, grace=0.5)
    async with trio.open_nursery() as nursery:
        await server.run(Handler(), nursery)
        stream = await open_tcp_stream(*server.address)
        await wait_all_tasks_blocked()
        server.drain.start()
    assert server.report.elapsed == pytest.approx(0.5)
    assert server.report.failed_handshakes == 1
    assert (server.report.cancelled, server.report.outcomes) == (0, {})
    await trio.aclose_forcefully(stream)


async def test_a_mistake_in_the_transport_is_a_handlers_error() -> None:
    """It is no peer's doing."""

    class Mistaken(TlsStream[Any]):  # type: ignore[misc]
        async def do_handshake(self) -> None:
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

    told: list[type[Exception]] = []
    listener = Listener()
    drain = Drain(linger=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                serve_listeners,
                Handler(),
                [listener],
                drain=drain,
                on_error=lambda exc, stream: told.append(type(exc)),
                handshake_timeout=1,
            )
        )
        left, right = duplex(1000)
        await listener.connect.send(Mistaken(left, server_context(), server_side=True))
        with pytest.raises(trio.BrokenResourceError):
            await read_all(right)
        drain.start()
    assert told == [ZeroDivisionError]


@pytest.mark.parametrize("seconds", [None, 5])
@pytest.mark.parametrize("whose", ["ours", "Trio's", "no TLS"])
async def test_listeners_of_ones_own(whose: str, seconds: float | None) -> None:
    """There, it is the handler's unless you say how long it may take."""
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))
    sock.listen()
    listener: Any
    if whose == "Trio's":
        listener = trio.SSLListener(trio.SocketListener(sock), server_context())
    else:
        listener = TcpListener(sock)
        if whose == "ours":
            listener = TlsListener(listener, server_context())
    done: list[bool] = []

    async def handler(stream: Any) -> None:
        if whose == "Trio's":
            with contextlib.suppress(trio.NeedHandshakeError):
                stream.selected_alpn_protocol()
                done.append(True)
        elif whose == "ours":
            with contextlib.suppress(trio.NeedHandshakeError):
                stream.version()
                done.append(True)
        await stream.send_all(b"hello")
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(serve_listeners, handler, [listener], handshake_timeout=seconds)
        )
        client: Any = await open_tcp_stream(*sock.getsockname())
        if whose != "no TLS":
            client = TlsStream(client, client_context(), server_hostname=HOST)
        assert await client.receive_some() == b"hello"
        await trio.aclose_forcefully(client)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert done == ([True] if seconds and whose != "no TLS" else [])


@pytest.mark.parametrize("grace", [1.0, 1.1, 2.0])
async def test_the_grace_may_end_while_a_failed_handshake_is_closed(
    grace: float, autojump_clock: MockClock
) -> None:
    """A release of a user's takes a while, or both end at the same tick."""

    class Slow(AsyncReadWrite):
        def __init__(self, inner: AsyncReadWrite) -> None:
            self.inner = inner

        async def release(self, *, clean: bool) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.3)

    listener, drain = Listener(), Drain(grace=grace)
    left, right = duplex(1000)
    await listener.connect.send(TlsStream(Slow(left), server_context(), server_side=True))
    async with trio.open_nursery() as nursery:
        report: list[Any] = []

        async def serve() -> None:
            report.append(
                await serve_listeners(Handler(), [listener], drain=drain, handshake_timeout=9)
            )

        nursery.start_soon(serve)
        await wait_all_tasks_blocked()
        drain.start()
    assert report[0].failed_handshakes == 1
    await trio.aclose_forcefully(right)


async def test_what_is_no_stream_may_fail_its_handshake() -> None:
    class Resource(trio.abc.AsyncResource):
        def __init__(self) -> None:
            self.closed = trio.Event()

        async def do_handshake(self) -> None:
            raise trio.BrokenResourceError("no")

        async def aclose(self) -> None:
            self.closed.set()
            raise OSError("the close of a stranger")

    resource, listener = Resource(), Listener()
    await listener.connect.send(resource)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_listeners, Handler(), [listener], handshake_timeout=9))
        await resource.closed.wait()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_stream_may_close_itself_when_its_handshake_fails() -> None:
    class Closing(AsyncReadWrite):
        def __init__(self, inner: AsyncReadWrite) -> None:
            self.inner = inner

        async def do_handshake(self) -> None:
            await self.aclose()
            raise trio.BrokenResourceError("no")

    listener, drain = Listener(), Drain()
    left, right = duplex(1000)
    await listener.connect.send(Closing(left))
    drain.start()
    report = await serve_listeners(Handler(), [listener], drain=drain, handshake_timeout=9)
    await trio.aclose_forcefully(right)
    assert report.failed_handshakes == report.connections
