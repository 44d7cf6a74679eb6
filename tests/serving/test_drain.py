"""The bookkeeping of a drain: what is counted, and what is not kept."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    BufWriter,
    CloseOutcome,
    Drain,
    DrainReport,
    serve_listeners,
    serve_tcp,
    serve_tls_over_tcp,
)

from .._patience import wait_all_tasks_blocked
from .._servers import Server
from .._streams import clog, drain as read_all
from .._tls_helpers import server_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


async def test_a_scope_that_was_left_is_not_kept() -> None:
    """A server asks for one at every request."""
    drain = Drain()
    gc.disable()
    try:
        with drain.until_started() as scope:
            gone = weakref.ref(scope)
        del scope
        assert gone() is None
    finally:
        gc.enable()


async def test_a_second_start_changes_nothing(autojump_clock: MockClock) -> None:
    drain = Drain(grace=7)
    drain.start()
    deadline = drain.deadline
    await trio.sleep(3)
    drain.start()

    assert drain.deadline == deadline == trio.current_time() + 4


@pytest.mark.parametrize(
    ("count", "line"),
    [
        (
            1,
            (
                "drained in 2.000 s: 1 connection, 1 clean, 1 closed by a handler, "
                "1 handler cancelled, 1 handler failed, 1 handshake failed, 1 byte unsent"
            ),
        ),
        (
            3,
            (
                "drained in 2.000 s: 3 connections, 3 clean, 3 closed by a handler, "
                "3 handlers cancelled, 3 handlers failed, 3 handshakes failed, 3 bytes unsent"
            ),
        ),
    ],
)
def test_a_report_is_one_line_for_a_log(count: int, line: str) -> None:
    outcomes = {CloseOutcome.CLEAN: count}
    report = DrainReport(
        count,
        outcomes,
        count,
        count,
        count,
        reports=(),
        elapsed=2.0,
        failed_handshakes=count,
        failed_handlers=count,
    )

    assert str(report) == line


async def test_of_what_ended_before_the_drain_only_the_number_is_kept() -> None:
    async def handler(stream: AsyncReadWrite) -> None:
        await stream.send_all(b"hello")

    server = Server(tls=False)
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        for _ in range(3):
            async with await server.connect() as stream:
                assert await read_all(stream) == b"hello"
        await wait_all_tasks_blocked()
        server.drain.start()

    assert server.report.connections == 3
    assert server.report.outcomes == {CloseOutcome.CLEAN: 3}
    assert server.report.reports == ()


async def test_the_unsent_bytes_of_all_connections_are_added(autojump_clock: MockClock) -> None:
    ready: list[AsyncReadWrite] = []

    async def handler(stream: AsyncReadWrite) -> None:
        await stream.receive_some()
        clog(stream)
        writer = BufWriter(stream)
        writer.poll_write(bytes(10))
        ready.append(stream)

    server = Server(tls=False, timeout=1, linger=0)
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        peers = [await server.connect() for _ in range(3)]
        for peer in peers:
            await peer.send_all(b"go")
        while len(ready) < 3:
            await wait_all_tasks_blocked()
        server.drain.start()

    assert server.report.unsent_bytes == 30
    assert len(server.report.reports) == 3
    for peer in peers:
        await trio.aclose_forcefully(peer)


def run_in(function: Callable[[], object]) -> None:
    """Call ``function`` in a run of Trio that is over then."""

    async def main() -> None:
        function()

    trio.run(main)


@pytest.mark.parametrize("serve", ["TCP", "TLS", "listeners"])
def test_a_drain_that_was_started_in_another_run_is_refused_at_once(serve: str) -> None:
    """Its times are those of another clock."""
    drain = Drain()
    run_in(drain.start)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="another trio.run"):
            if serve == "TCP":
                await serve_tcp(trio.sleep_forever, 0, host="127.0.0.1", drain=drain)  # type: ignore[arg-type]
            elif serve == "TLS":
                await serve_tls_over_tcp(  # type: ignore[call-overload]
                    trio.sleep_forever, 0, server_context(), host="127.0.0.1", drain=drain
                )
            else:
                await serve_listeners(trio.sleep_forever, [], drain=drain)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="another trio.run"):
            await drain.wait_started()
        drain.start()

    trio.run(main)


async def test_a_drain_that_is_used_in_a_run_is_refused_in_another() -> None:
    drain = Drain()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain.wait_started)
        await wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="another trio.run"):
            await trio.to_thread.run_sync(run_in, drain.start)
        drain.start()


def test_a_drain_that_was_only_waited_for_can_be_used_in_another_run() -> None:
    drain = Drain()

    def wait() -> None:
        with drain.until_started():
            pass

    run_in(wait)
    run_in(wait)
    run_in(drain.start)
    assert drain.started
