"""Servers and handlers that are cancelled, at every checkpoint they have."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    BufWriter,
    CloseReport,
    Drain,
    close_gracefully,
    duplex,
    open_tcp_stream,
    serve_listeners,
)
from trio_asyncwrite._tls._stream import TlsStream
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._endings import One, read_and_close
from .._patience import wait_all_tasks_blocked
from .._servers import (
    CLEAN,
    TRUNCATED,
    Server,
    Streamer,
    both,
    living_tasks,
    request,
    stuck,
)
from .._streams import clog

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.outer
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


@pytest.mark.outer
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
            assert report.connections == sum(report.outcomes.values()) + report.failed_handshakes
            # One that was cancelled in its handshake had no handler.
            assert len(streamer.answers) == report.connections or (
                tls and len(streamer.answers) < report.connections
            )
        if sweep.where == "not cancelled":
            assert server.report.outcomes == {CLEAN: 2}
            assert server.report.cancelled == 0

    assert await cancel_everywhere(scenario) > 20


@pytest.mark.outer
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


@pytest.mark.outer
@both
async def test_wherever_a_handler_cancels_itself_its_connection_ends_as_its_answer_did(
    *, tls: bool, autojump_clock: MockClock
) -> None:
    """Clean, unless a part of the answer was accepted; all that was accepted arrives."""

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
        left = streamer.answers[0][1].remaining
        is_torn = 0 < left < len(streamer.ANSWER)
        assert (streamer.received == [None]) is is_torn
        assert server.report.outcomes == {(TRUNCATED if is_torn else CLEAN): 1}
        assert server.report.unsent_bytes == 0

    assert await cancel_everywhere(scenario) > 10


async def test_a_cancelled_server_leaves_a_close_to_those_who_wait_for_it(
    autojump_clock: MockClock,
) -> None:
    """Within their limits."""
    left, right = duplex(5)
    buffer = BufWriter(left)
    reports: list[CloseReport] = []

    async def handler(_: AsyncReadWrite) -> None:
        await buffer.write_all(b"all of it")

    async def read_late() -> None:
        await trio.sleep(2)
        assert await read_and_close(right) == b"all of it"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        async with trio.open_nursery() as servers:
            servers.start_soon(partial(serve_listeners, handler, [One(left)], drain=Drain()))
            await wait_all_tasks_blocked()

            async def close() -> None:
                reports.append(await close_gracefully(buffer, timeout=9))

            nursery.start_soon(close)
            await trio.sleep(1)
            servers.cancel_scope.cancel()
    assert [report.outcome for report in reports] == [CLEAN]
