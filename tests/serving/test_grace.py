"""The end of the grace: what is cut short then, and how."""

from __future__ import annotations

import contextlib
import errno
import socket as stdlib_socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    BufWriter,
    CloseOutcome,
    CloseReport,
    Drain,
    DuplexStream,
    MeteredWriter,
    TcpListener,
    TcpStream,
    TimeoutWriter,
    close_gracefully,
    duplex,
    graceful,
    serve_listeners,
)

from .._patience import wait_all_tasks_blocked
from .._scheduling import scheduled_by
from .._servers import (
    CLEAN,
    PEER_SILENT,
    TIMED_OUT,
    TRUNCATED,
    Handler,
    Server,
    both,
    echo,
    stuck,
)
from .._streams import clog, drain as read_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


@both
async def test_handlers_are_cancelled_when_the_grace_is_over(
    *, tls: bool, autojump_clock: MockClock
) -> None:
    """What they wrote is delivered, in half a second, and then the end shows the truncation."""
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

    assert trio.current_time() - began == pytest.approx(10.5, abs=0.1)
    assert server.report.outcomes == {TRUNCATED: 2}
    assert server.report.cancelled == 2
    if tls:
        assert server.report.unsent_bytes
    assert str(server.report).startswith("drained in 10.5")
    for stream in (silent, polite):
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream)
        await trio.aclose_forcefully(stream)


@both
async def test_after_the_grace_there_is_half_a_second_to_deliver(
    *, tls: bool, autojump_clock: MockClock
) -> None:
    """For all connections side by side, whether their handlers return or not."""
    server = Server(tls=tls, grace=10)
    accepted: list[int] = []

    async def handler(stream: AsyncReadWrite) -> None:
        shields = await stream.receive_some() == b"shield"
        accepted.append(clog(stream))
        with trio.CancelScope(shield=shields), contextlib.suppress(trio.ClosedResourceError):
            await stream.wait_send_all_might_not_block()

    received: list[int] = []

    async def read_late(stream: AsyncReadWrite) -> None:
        await trio.sleep(10.4)
        count = 0
        with pytest.raises(trio.BrokenResourceError):
            while True:
                count += len(await stream.receive_some())
        received.append(count)
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        streams = [await server.connect() for _ in range(4)]
        for number, stream in enumerate(streams):
            await stream.send_all(b"shield" if number % 2 else b"return")
            await wait_all_tasks_blocked()
        began = trio.current_time()
        server.drain.start()
        for stream in streams:
            nursery.start_soon(read_late, stream)
    assert trio.current_time() - began < 10.76
    assert sorted(received) == sorted(accepted)
    assert server.report.outcomes == {TRUNCATED: 4}
    assert server.report.cancelled == 4


@both
@pytest.mark.parametrize("reads", [False, True])
async def test_a_close_from_before_the_drain_is_cut_short_by_it(
    *, reads: bool, tls: bool, autojump_clock: MockClock
) -> None:
    server = Server(tls=tls, grace=3, timeout=1000, linger=1000)

    async def handler(stream: AsyncReadWrite) -> None:
        await stream.receive_some(1)
        if not reads:
            clog(stream)
            # Nobody else keeps it: the server finds it.
            await BufWriter(stream).write_all(b"never sent")

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        await stream.send_all(b"x")
        if reads:
            assert await read_all(stream) == b""
        await trio.sleep(100)
        server.drain.start()

    assert trio.current_time() == pytest.approx(103, abs=0.1)
    assert server.report.outcomes == {(PEER_SILENT if reads else TIMED_OUT): 1}
    assert [report.error for report in server.report.reports] == [None]
    assert server.report.cancelled == 0
    await trio.aclose_forcefully(stream)


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
        (Own.graceful, TRUNCATED),
        (Own.close_clogged, TIMED_OUT),
        (Own.shield, TRUNCATED),
        (Own.shield_a_layer, TRUNCATED),
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
    assert 10 <= trio.current_time() - began < 10.76
    report = server.report
    assert report.outcomes == {outcome: 1}
    assert [each.outcome for each in report.reports] == list(report.outcomes)
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
        assert server.report.outcomes == {TRUNCATED: 1}
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
    assert (server.report.cancelled, server.report.closed_by_handler) == (1, 1)


@pytest.mark.parametrize("takes", [0, 0.1, 1])
async def test_a_handler_that_closes_when_it_is_cancelled_is_counted_once(
    autojump_clock: MockClock, takes: float
) -> None:
    """Whether it is through in time, or its stream is taken from it."""
    server = Server(tls=False, grace=10)

    async def handler(stream: AsyncReadWrite) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(takes)
                await close_gracefully(stream, linger=1000)

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        await wait_all_tasks_blocked()
        server.drain.start()
    await trio.aclose_forcefully(stream)
    report = server.report
    assert report.cancelled == 1
    assert report.closed_by_handler == 0
    assert report.outcomes == {TRUNCATED: 1}
    assert len(report.reports) == 1


@both
async def test_a_client_that_never_stops_sending_is_bounded_by_the_grace(
    *, tls: bool, autojump_clock: MockClock
) -> None:
    """Its handler always finds a request that has arrived, so it never waits."""
    server = Server(tls=tls, grace=3)
    answered = 0

    async def flood(stream: AsyncReadWrite) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(10_000))
                await trio.sleep(0.01)

    async def handler(stream: AsyncReadWrite) -> None:
        nonlocal answered
        while True:
            with server.drain.until_started() as scope:
                await stream.receive_some(10)
            if scope.cancelled_caught:
                return
            answered += 1
            await trio.sleep(0.3)  # to answer takes longer than to ask

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        nursery.start_soon(flood, stream)
        await trio.sleep(0.1)
        server.drain.start()
    assert answered > 8
    assert server.report.cancelled == 1
    assert server.report.outcomes == {TRUNCATED: 1}
    assert 3 <= server.report.elapsed < 3.76
    await trio.aclose_forcefully(stream)


@both
@pytest.mark.parametrize(("linger_bytes", "seconds"), [(50_000, 0.5), (10_000_000_000, 2)])
async def test_a_client_that_never_stops_sending_is_lingered_for_within_limits(
    linger_bytes: int, seconds: float, *, tls: bool, autojump_clock: MockClock
) -> None:
    """When its handler has returned: some seconds, or some bytes, whatever is over first."""
    server = Server(tls=tls, grace=30, linger=2, linger_bytes=linger_bytes)

    async def flood(stream: AsyncReadWrite) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(50_000))
                await trio.sleep(0.25)

    async def handler(stream: AsyncReadWrite) -> None:
        await stream.receive_some()
        await server.drain.wait_started()

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        stream = await server.connect()
        nursery.start_soon(flood, stream)
        await trio.sleep(1)
        server.drain.start()
    assert server.report.outcomes == {PEER_SILENT: 1}
    assert server.report.elapsed <= seconds + 0.1
    await trio.aclose_forcefully(stream)


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


CLOSED_BY_HANDLER: dict[str, Callable[[AsyncReadWrite], Any]] = {
    "a buffer": BufWriter,
    "a handle of it": lambda stream: BufWriter(stream).by_ref(),
    "a buffer over a handle": lambda stream: BufWriter(stream.by_ref()),
    "a layer over the handle of one": lambda stream: MeteredWriter(BufWriter(stream).by_ref()),
}

each_closed = pytest.mark.parametrize("layer", CLOSED_BY_HANDLER.values(), ids=CLOSED_BY_HANDLER)


@both
@each_closed
async def test_a_close_of_the_handler_s_that_the_grace_ends_counts_as_timed_out(
    layer: Callable[[AsyncReadWrite], Any], *, tls: bool, autojump_clock: MockClock
) -> None:
    """Also if it is that of a handle, which leaves the stream open."""
    server = Server(tls=tls, grace=3, timeout=1000, linger=1000)
    reports: list[CloseReport] = []

    async def handler(stream: AsyncReadWrite) -> None:
        await stream.receive_some()
        clog(stream)
        writer = layer(stream)
        await writer.write_all(b"never sent")
        reports.append(await close_gracefully(writer, timeout=1000))

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        client = await server.connect()
        await client.send_all(b"x")
        await wait_all_tasks_blocked()
        server.drain.start()
    assert server.report.outcomes == {TIMED_OUT: 1}
    assert server.report.cancelled == 1
    assert [report.outcome for report in reports] == [TIMED_OUT]
    with pytest.raises(trio.BrokenResourceError):
        await read_all(client)
    await trio.aclose_forcefully(client)


@both
@each_closed
@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_handler_that_closes_a_handle_in_time_is_not_cut_short_unless_it_goes_on(
    layer: Callable[[AsyncReadWrite], Any],
    *,
    goes_on: bool,
    tls: bool,
    autojump_clock: MockClock,
) -> None:
    server = Server(tls=tls, grace=3, timeout=1000, linger=1000)
    received: list[int | str] = []

    async def handler(stream: AsyncReadWrite) -> None:
        await stream.receive_some()
        clog(stream)
        writer = layer(stream)
        await writer.write_all(b"sent in time")
        await close_gracefully(writer, timeout=1000)
        if goes_on and not stream.closed:
            await stream.send_all(b"more")

    async def read_late(client: AsyncReadWrite) -> None:
        await trio.sleep(3.2)
        try:
            received.append(len(await read_all(client)))
            await client.aclose()
        except trio.BrokenResourceError:
            received.append("cut")
            await trio.aclose_forcefully(client)

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        client = await server.connect()
        await client.send_all(b"x")
        await wait_all_tasks_blocked()
        server.drain.start()
        nursery.start_soon(read_late, client)
    is_cut = goes_on and layer is not CLOSED_BY_HANDLER["a buffer"]
    assert server.report.outcomes == {TRUNCATED if is_cut else CLEAN: 1}
    assert (received == ["cut"]) is is_cut


class Late(trio.abc.Listener[DuplexStream]):
    """Accepts one connection, at a certain time, whatever happens to the server meanwhile."""

    def __init__(self, at: float) -> None:
        self._at = at
        self.client: DuplexStream | None = None

    async def accept(self) -> DuplexStream:
        if self.client is not None:
            await trio.sleep_forever()
        with trio.CancelScope(shield=True):
            await trio.sleep_until(self._at)
        stream, self.client = duplex(100)
        return stream

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("after", [-0.1, 0, 0.1, 0.5])
async def test_who_is_accepted_when_the_grace_ends_is_cut_short_as_others_are(
    after: float, seed: int, autojump_clock: MockClock
) -> None:
    drain = Drain(grace=3)
    drain.start()
    listener = Late(drain.deadline + after)
    begun: list[float] = []

    async def handler(stream: DuplexStream) -> None:
        begun.append(trio.current_time() - drain.deadline)
        await trio.sleep(1000)

    with scheduled_by(seed):
        report = await serve_listeners(handler, [listener], drain=drain)

    assert report.elapsed <= 3 + max(after, 0) + 0.5 + 1e-6
    assert report.outcomes == {TRUNCATED: 1}
    assert report.cancelled == len(begun)
    assert all(time <= 0 for time in begun)
    assert listener.client is not None
    with pytest.raises(trio.BrokenResourceError):
        await listener.client.receive_some()
    await trio.aclose_forcefully(listener.client)


async def test_a_shielded_handler_that_goes_on_after_a_handle_is_cut_short_as_well(
    autojump_clock: MockClock,
) -> None:
    """It closes the handle while the grace ends, and does not notice."""
    drain = Drain(grace=3)
    drain.start()
    listener = Late(0)

    async def handler(stream: DuplexStream) -> None:
        with trio.CancelScope(shield=True):
            await stream.send_all(bytes(100))  # all that there is room for
            writer = BufWriter(stream.by_ref())
            await writer.write_all(b"more")
            report = await close_gracefully(writer, timeout=10)
            assert 3 < report.elapsed < 3.2
            await trio.sleep(1)
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"the end")

    async def read_late() -> None:
        await trio.sleep(3.1)
        assert listener.client is not None
        with pytest.raises(trio.BrokenResourceError):
            await read_all(listener.client)
        await trio.aclose_forcefully(listener.client)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        report = await serve_listeners(handler, [listener], drain=drain)
    assert report.outcomes == {TRUNCATED: 1}
