"""A closed stack is freed at once, without the garbage collector, however it has ended."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    AsyncWrite,
    BufWriter,
    CloseOutcome,
    TlsStream,
    abort,
    close_gracefully,
    duplex,
    start_tls,
)
from trio_asyncwrite.compression import CompressWriter, gzip_compressor

from .._patience import wait_all_tasks_blocked
from .._streams import assert_leaves_no_cycle
from .._tls_helpers import HOST, TLS12, TLS13, both, client_context, established, server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

CLOSES: dict[str, Callable[[Any], Awaitable[object]]] = {
    "aclose": lambda stream: stream.aclose(),
    "aclose_forcefully": trio.aclose_forcefully,
    "close_gracefully": partial(close_gracefully, timeout=1, linger=0),
    "abort": abort,
}

every_close = pytest.mark.parametrize("close", CLOSES.values(), ids=CLOSES)

errors = contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Mine(AsyncReadWrite):
    """It may write something at its end."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def poll_shutdown(self) -> None:
        super().poll_shutdown()


class FailsToRelease(Mine):
    async def release(self, *, clean: bool) -> None:
        raise OSError("gone")


class FailsToReleaseToo(FailsToRelease):
    async def release(self, *, clean: bool) -> None:
        raise ValueError("a mistake")


@every_close
@pytest.mark.parametrize("make", [FailsToRelease, FailsToReleaseToo])
async def test_a_release_that_fails(
    make: Callable[[Any], AsyncWrite], close: Callable[[Any], Awaitable[object]]
) -> None:
    async def scenario() -> None:
        stream, _peer = duplex(100)
        with errors, contextlib.suppress(ValueError):
            await close(make(FailsToRelease(stream)))

    await assert_leaves_no_cycle(scenario)


@every_close
async def test_a_reset_that_only_the_close_meets(
    close: Callable[[Any], Awaitable[object]],
) -> None:
    async def scenario() -> None:
        stream, peer = duplex(100)
        await stream.send_all(b"never read")
        await peer.aclose()
        with errors:
            await close(BufWriter(stream))

    await assert_leaves_no_cycle(scenario)


@every_close
@pytest.mark.parametrize(
    "make", [Mine, BufWriter, lambda inner: CompressWriter(inner, gzip_compressor())]
)
async def test_a_layer_that_is_first_used_when_the_one_below_is_closed(
    make: Callable[[Any], AsyncWrite], close: Callable[[Any], Awaitable[object]]
) -> None:
    async def scenario() -> None:
        stream, _peer = duplex(100)
        writer = make(stream)
        await stream.aclose()
        with errors:
            await writer.flush()
        with errors:
            await close(writer)
        await close(make(stream))

    await assert_leaves_no_cycle(scenario)


@pytest.mark.parametrize("step", ["none", "receive_some", "shutdown"])
@pytest.mark.parametrize("version", [TLS12, TLS13])
@every_close
async def test_a_session_that_has_met_what_is_no_tls(
    close: Callable[[Any], Awaitable[object]], version: ssl.TLSVersion, step: str
) -> None:
    async def scenario() -> None:
        left, right = duplex(10_000)
        client, server = established((left, right), version)
        await server.send_all(b"data")
        await right.send_all(bytes(50))
        assert await client.receive_some() == b"data"
        with errors:
            if step == "receive_some":
                await client.receive_some()
            elif step == "shutdown":
                await client.shutdown()
        with errors:
            await close(client)
        await abort(server)

    await assert_leaves_no_cycle(scenario)


@pytest.mark.parametrize("make", [Mine, BufWriter, lambda inner: Mine(BufWriter(inner))])
async def test_a_session_that_was_unwrapped_below_other_layers(
    make: Callable[[Any], AsyncWrite],
) -> None:
    async def scenario() -> None:
        left, right = duplex(10_000)
        client, server = established((left, right))
        upper = make(client)
        await upper.flush()
        await both(client.unwrap, server.unwrap)
        assert upper.closed
        await left.aclose()
        await right.aclose()

    await assert_leaves_no_cycle(scenario)


@pytest.mark.parametrize("make", [Mine, BufWriter, lambda inner: Mine(BufWriter(inner))])
async def test_layers_from_before_start_tls(make: Callable[[Any], AsyncWrite]) -> None:
    async def scenario() -> None:
        left, right = duplex(10_000)
        older = make(left)
        await older.flush()
        server: TlsStream[Any] = TlsStream(right, server_context(), server_side=True)
        clients: list[Any] = []

        async def start() -> None:
            clients.append(await start_tls(left, client_context(), server_hostname=HOST))

        await both(start, server.do_handshake)
        assert older.closed
        for stream in (*clients, server):
            await abort(stream)

    await assert_leaves_no_cycle(scenario)


async def test_a_close_that_another_one_has_taken_over() -> None:
    """It has failed after the task that began it was cancelled: only a report tells."""

    async def scenario() -> None:
        stream, peer = duplex(1)
        writer = BufWriter(stream)
        await writer.write_all(bytes(100))
        outcomes: list[CloseOutcome] = []

        async def begin(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                await writer.aclose()

        async def join() -> None:
            outcomes.append((await close_gracefully(writer, timeout=100)).outcome)

        async with trio.open_nursery() as nursery:
            scope = await nursery.start(begin)
            await wait_all_tasks_blocked()
            nursery.start_soon(join)
            await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            await peer.aclose()
        assert outcomes == [CloseOutcome.BROKEN]

    await assert_leaves_no_cycle(scenario)
