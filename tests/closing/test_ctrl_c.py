"""Ctrl-C while streams are closed: everything is closed, nothing hangs later, servers end."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_asyncwrite import (
    AsyncReadWrite,
    BufWriter,
    Drain,
    DuplexStream,
    Epilogue,
    NotReady,
    abort,
    close_all_gracefully,
    close_gracefully,
    duplex,
    graceful,
    serve_listeners,
)
from trio_asyncwrite._core._checks import consists_of

from .._endings import One, read_and_close
from .._interrupts import interrupt_as_trio_would
from .._patience import wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FILES = [
    os.sep + name.replace("/", os.sep)
    for name in (
        "_core/_close.py",
        "_closing/_abort.py",
        "_closing/_close.py",
        "_closing/_discard.py",
        "_closing/_graceful_close.py",
        "_closing/_limits.py",
        "_closing/_trio_ssl_stream.py",
        "_serving/_server.py",
    )
]


async def leave_graceful(stream: Any) -> None:
    async with graceful(stream):
        raise ZeroDivisionError


async def leave_with(stream: Any) -> None:
    async with stream:
        raise ZeroDivisionError


async def drain_a_server(stream: AsyncReadWrite) -> None:
    drain = Drain(grace=10)

    async def handler(stream: AsyncReadWrite) -> None:
        # Servers hold Ctrl-C off from their own lines, and not from the handlers.
        assert not trio.lowlevel.currently_ki_protected()

    listener = One(stream)
    try:
        async with trio.open_nursery() as nursery:
            drain.start()
            nursery.start_soon(_serve, handler, listener, drain)
    finally:
        if listener.streams:  # it was not accepted
            with trio.CancelScope(shield=True):
                await stream.aclose()


async def _serve(handler: Any, listener: Any, drain: Drain) -> None:
    await serve_listeners(handler, [listener], drain=drain)


WAYS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "aclose": lambda stream: stream.aclose(),
    "aclose_forcefully": trio.aclose_forcefully,
    "async with": leave_with,
    "close_gracefully": close_gracefully,
    "close_all_gracefully": lambda stream: close_all_gracefully([stream]),
    "graceful": leave_graceful,
    "abort": abort,
    "server": drain_a_server,
}

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


async def check_closed(stream: AsyncReadWrite) -> None:
    """A later ``aclose`` returns, in whatever state Ctrl-C has left the stream."""
    with trio.CancelScope(shield=True):
        with trio.fail_after(100):
            # Its loss may be told now.
            with contextlib.suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                await stream.aclose()
        assert stream.closed
        assert stream.lifecycle.released
        assert stream.lifecycle.close is None


@every_way
@pytest.mark.parametrize("size", [5, 30], ids=["at once", "waits"])
def test_wherever_trio_lets_it_through_everything_is_closed(
    way: Callable[[Any], Awaitable[object]], size: int
) -> None:
    async def main() -> None:
        left, right = duplex(10)
        writer = BufWriter(left)
        await writer.write_all(bytes(size))

        async def read() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await read_and_close(right)
            await trio.aclose_forcefully(right)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            try:
                with contextlib.suppress(ZeroDivisionError):
                    await way(left if way is drain_a_server else writer)
            finally:
                await check_closed(left)
                await check_closed(writer)  # type: ignore[arg-type]

    assert (
        interrupt_as_trio_would(
            lambda: trio.run(main, clock=MockClock(autojump_threshold=0)), FILES
        )
        < 100
    )


class Interrupted(AsyncReadWrite):
    """One of its hooks is interrupted by Ctrl-C."""

    epilogue = Epilogue.NOTHING

    def __init__(self, inner: DuplexStream, hook: str) -> None:
        self.inner = inner
        self.hook = hook
        self.armed = False
        self.waits = 1
        self.released = False

    def strike(self, hook: str) -> None:
        if self.armed and hook == self.hook:
            self.hook = ""
            raise KeyboardInterrupt

    @property
    def held_bytes(self) -> int:
        self.strike("held_bytes")
        return 0

    def poll_flush(self) -> None:
        self.strike("poll_flush")
        self.inner.poll_flush()

    def poll_shutdown(self) -> None:
        self.strike("poll_shutdown")
        if self.hook == "wait":
            raise NotReady(self._wait)
        self.inner.poll_shutdown()

    async def _wait(self) -> None:
        await trio.lowlevel.checkpoint()
        self.strike("wait")

    def poll_read(self, size: int, /) -> bytes:
        self.strike("poll_read")
        return self.inner.poll_read(size)

    async def release(self, *, clean: bool) -> None:
        self.released = True
        self.strike("release")

    @property
    def descriptor(self) -> int | None:
        self.strike("descriptor")
        return None

    @property
    def half_closes(self) -> bool:
        self.strike("half_closes")
        return True

    @property
    def unacknowledged_bytes(self) -> int | None:
        self.strike("unacknowledged_bytes")
        return None


HOOKS = (
    "held_bytes",
    "poll_flush",
    "poll_shutdown",
    "wait",
    "poll_read",
    "release",
    "descriptor",
    "half_closes",
    "unacknowledged_bytes",
)


@every_way
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_is_interrupted_leaves_nothing_open(
    way: Callable[[Any], Awaitable[object]], hook: str, autojump_clock: MockClock
) -> None:
    left, right = duplex(10)
    stream = Interrupted(left, hook)
    await stream.send_all(b"hello")
    stream.armed = True
    interrupted = False

    async def other() -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await read_and_close(right)
        await trio.aclose_forcefully(right)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        try:
            with contextlib.suppress(ZeroDivisionError):
                await way(stream)
        except (KeyboardInterrupt, BaseExceptionGroup) as exc:
            interrupted = consists_of(exc, (KeyboardInterrupt,))
        # Those that are not asked in this way were not interrupted.
        assert interrupted is (stream.hook == "")
        assert stream.released
        await check_closed(stream)
        await check_closed(left)


async def test_a_handler_that_is_interrupted_ends_the_server(autojump_clock: MockClock) -> None:
    """And every connection is closed."""
    pairs = [duplex(10) for _ in range(3)]
    drain = Drain()

    async def handler(stream: AsyncReadWrite) -> None:
        await stream.receive_some()
        raise KeyboardInterrupt

    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            listener = One(*[left for left, _ in pairs])
            nursery.start_soon(_serve, handler, listener, drain)
            await wait_all_tasks_blocked()
            await pairs[1][1].send_all(b"x")
            await trio.sleep_forever()
    for left, _ in pairs:
        await check_closed(left)
