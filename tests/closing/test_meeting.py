"""Closes that meet: of one layer or of several layers of a stack, by several tasks, in any order.

Whichever are combined, three things hold. If the peer plays along, all bytes arrive, and nobody
claims a failure. If it does not, each graceful close returns within its own limits. Whoever
cannot wait (a cancelled ``aclose``, ``abort``) ends all at once.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    CloseOutcome,
    CloseReport,
    ReadWritePair,
    TlsStream,
    abort,
    close_gracefully,
    duplex,
    graceful,
    split,
)
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from .._endings import read_and_close
from .._patience import wait_all_tasks_blocked
from .._streams import drain
from .._tls_helpers import HOST, TLS13, client_context, server_context
from ..core._fakes import begin, resource_warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Close = Callable[[Any], Awaitable[CloseReport | None]]

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT


class Stack(NamedTuple):
    """Layers, uppermost first, and the peer of the undermost."""

    layers: list[Any]
    peer: trio.abc.Stream


TEXT = b"all of it"


async def buffered() -> Stack:
    left, right = duplex(5)
    return Stack([BufWriter(left), left], right)


async def handle() -> Stack:
    left, right = duplex(5)
    borrowed = left.by_ref()
    return Stack([BufWriter(borrowed), borrowed, left], right)


async def handles() -> Stack:
    """Two of them, of which the second holds nothing."""
    left, right = duplex(5)
    return Stack([BufWriter(left.by_ref()), left.by_ref(), left], right)


async def pair() -> Stack:
    sending, receiving = duplex(5)
    other_receiving, other_sending = duplex(5)
    both: Any = ReadWritePair(other_receiving, sending)
    peer: Any = trio.StapledStream(other_sending, receiving)
    return Stack([BufWriter(both), both, sending, other_receiving], peer)


async def halves() -> Stack:
    left, right = duplex(5)
    _reader, writer = split(left)
    return Stack([BufWriter(writer), writer, left], right)


async def _shake_hands(client: Any, server: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)


async def tls() -> Stack:
    left, right = duplex(5)
    client = TlsStream(left, client_context(TLS13), server_hostname=HOST)
    server = TlsStream(right, server_context(TLS13), server_side=True)
    await _shake_hands(client, server)
    return Stack([BufWriter(client), client, left], server)


async def ssl_stream() -> Stack:
    left, right = duplex(5)
    client = trio.SSLStream(left, client_context(TLS13), server_hostname=HOST)
    server = TlsStream(right, server_context(TLS13), server_side=True)
    await _shake_hands(client, server)
    return Stack([BufWriter(client), wrap_stream(client)], server)


async def plain() -> Stack:
    left, right = trio.testing.lockstep_stream_pair()
    return Stack([BufWriter(left), wrap_stream(left)], right)


STACKS = [buffered, handle, handles, pair, halves, tls, ssl_stream, plain]
#: Every stack, and two of its layers or one twice.
MEETINGS = [
    pytest.param(make, first, second, id=f"{make.__name__}-{first}-{second}")
    for make, count in zip(STACKS, (2, 3, 3, 4, 3, 3, 2, 2), strict=True)
    for first in range(count)
    for second in range(count)
]


class Closers:
    """Tasks that close the layers of a stack, and what became of them."""

    def __init__(self, stack: Stack, nursery: trio.Nursery) -> None:
        self.stack = stack
        self.reports: list[CloseReport] = []
        self.errors: list[BaseException] = []
        self._nursery = nursery

    async def run(self, close: Close, layer: Any) -> None:
        was_closed = layer.lifecycle.released and layer.lifecycle.close is None
        try:
            report = await close(layer)
        except trio.ClosedResourceError as exc:
            self.errors.append(exc)
        else:
            if report is not None and not was_closed:
                self.reports.append(report)

    async def start(
        self, close: Callable[[Any], Awaitable[CloseReport | None]], number: int
    ) -> None:
        """Let a task close a layer, as far as it gets without waiting."""
        self._nursery.start_soon(self.run, close, self.stack.layers[number])
        await wait_all_tasks_blocked()


async def close_all(stack: Stack) -> None:
    """Close those that are still open; what was lost above them, they warn of too."""
    with resource_warnings():
        for layer in stack.layers:
            with contextlib.suppress(trio.ClosedResourceError):
                await trio.aclose_forcefully(layer)


async def by_aclose(layer: AsyncWrite) -> None:
    await layer.aclose()


def by_graceful(timeout: float, linger: float) -> Callable[[Any], Awaitable[CloseReport]]:
    async def close(layer: AsyncWrite) -> CloseReport:
        report = await close_gracefully(layer, timeout=timeout, linger=linger)
        # It is closed in every case.
        assert layer.closed
        with pytest.raises(trio.ClosedResourceError):
            await layer.flush()
        assert report.elapsed <= timeout + linger
        return report

    return close


async def by_a_failed_block(layer: AsyncWrite) -> CloseReport:
    with pytest.raises(KeyError):
        async with graceful(layer, timeout=1, linger=1) as ending:
            raise KeyError
    return ending.report


async def begun(make: Callable[[], Awaitable[Stack]]) -> Stack:
    stack = await make()
    await stack.layers[0].write_all(TEXT)
    return stack


@pytest.mark.parametrize(("make", "first", "second"), MEETINGS)
@pytest.mark.parametrize("second_how", ["gracefully", "aclose"])
@pytest.mark.parametrize("first_how", ["gracefully", "aclose"])
async def test_all_arrives_and_nobody_claims_a_failure(
    autojump_clock: trio.testing.MockClock,
    make: Callable[[], Awaitable[Stack]],
    first: int,
    second: int,
    first_how: str,
    second_how: str,
) -> None:
    stack = await begun(make)
    hows = {"gracefully": by_graceful(9, 9), "aclose": by_aclose}
    received: list[bytes] = []

    async def peer() -> None:
        await trio.sleep(1)
        received.append(await read_and_close(stack.peer))

    async with trio.open_nursery() as nursery:
        closers = Closers(stack, nursery)
        await closers.start(hows[first_how], first)
        await closers.start(hows[second_how], second)
        nursery.start_soon(peer)
        await trio.sleep(2)
        for layer in reversed(stack.layers):
            await layer.aclose()

    assert received == [TEXT]
    assert closers.errors == []
    for report in closers.reports:
        assert report.outcome in (CLEAN, PEER_SILENT), report
        assert report.unsent_bytes == 0


@pytest.mark.parametrize(("make", "first", "second"), MEETINGS)
@pytest.mark.parametrize("limits", [(1, 2), (2, 1), (9, 9)])
async def test_each_graceful_close_returns_within_its_own_limits(
    autojump_clock: trio.testing.MockClock,
    make: Callable[[], Awaitable[Stack]],
    first: int,
    second: int,
    limits: tuple[float, float],
) -> None:
    stack = await begun(make)
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            closers = Closers(stack, nursery)
            await closers.start(by_graceful(2, 2), first)
            await closers.start(by_graceful(*limits), second)
    assert len(messages) <= 1
    await close_all(stack)
    assert closers.errors == []
    assert all(report.outcome is not CLEAN for report in closers.reports)


@pytest.mark.parametrize(("make", "first", "second"), MEETINGS)
@pytest.mark.parametrize("how", [abort, trio.aclose_forcefully])
async def test_whoever_cannot_wait_ends_all(
    autojump_clock: trio.testing.MockClock,
    make: Callable[[], Awaitable[Stack]],
    first: int,
    second: int,
    how: Callable[[Any], Awaitable[None]],
) -> None:
    if make is handles and ({first, second} == {0, 1} or (first, second) == (2, 1)):
        return  # they do not meet, or the second has nothing to lose and ends alone
    stack = await begun(make)
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            closers = Closers(stack, nursery)
            await closers.start(by_graceful(99, 99), first)
            with contextlib.suppress(trio.ClosedResourceError):
                await how(stack.layers[second])
        assert trio.current_time() <= 1  # the grace of a foreign stream
    assert len(messages) <= 1
    await close_all(stack)


@pytest.mark.parametrize("how", ["gracefully", "aclose"])
async def test_a_failed_block_says_what_the_close_that_it_has_joined_has_seen(
    autojump_clock: trio.testing.MockClock, how: str
) -> None:
    stack = await begun(buffered)
    async with trio.open_nursery() as nursery:
        closers = Closers(stack, nursery)
        await closers.start(by_graceful(9, 9) if how == "gracefully" else by_aclose, 1)
        await closers.start(by_a_failed_block, 0)
        await trio.sleep(2)
        assert await read_and_close(stack.peer) == TEXT
    report = closers.reports[-1]
    assert report.outcome is (CLEAN if how == "gracefully" else PEER_SILENT)
    assert report.elapsed == 2


@pytest.mark.parametrize("how", ["abort", "forcefully", "failed before"])
async def test_a_failed_block_claims_nothing_for_a_close_that_has_failed(
    autojump_clock: trio.testing.MockClock, how: str
) -> None:
    stack = await begun(buffered)
    buffer, stream = stack.layers
    if how == "failed before":
        await trio.aclose_forcefully(stack.peer)
        with pytest.raises(trio.BrokenResourceError):
            await buffer.flush()
        stack.layers[1] = Slow(stream)

    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            closers = Closers(stack, nursery)
            await closers.start(by_aclose, 1)
            await closers.start(by_a_failed_block, 1)
            if how != "failed before":
                await (abort if how == "abort" else trio.aclose_forcefully)(buffer)
    assert len(messages) == (how == "forcefully")
    (report,) = closers.reports
    if how == "abort":
        assert report.outcome is CloseOutcome.ABORTED
        assert report.unsent_bytes == 4
    elif how == "forcefully":
        assert report.outcome is CloseOutcome.BROKEN
        assert report.unsent_bytes == 4
    else:
        assert report.outcome is CloseOutcome.BROKEN
        assert isinstance(report.error, trio.BrokenResourceError)


class Slow(AsyncWrite):
    """Its release takes a second."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner

    async def release(self, *, clean: bool) -> None:
        await trio.sleep(1)


async def test_the_limits_of_a_handle_do_not_cut_its_original_short(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(5)
    await left.write_all(TEXT[:5])
    buffer = BufWriter(left)
    handle = buffer.by_ref()
    await buffer.write_all(TEXT[5:])
    reports: dict[str, CloseReport] = {}
    received: list[bytes] = []

    async def close(layer: AsyncWrite, name: str, seconds: float) -> None:
        reports[name] = await close_gracefully(layer, timeout=seconds)

    async def read_late() -> None:
        await trio.sleep(5)
        received.append(await read_and_close(right))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        nursery.start_soon(close, handle, "handle", 1)
        await wait_all_tasks_blocked()
        nursery.start_soon(close, buffer, "buffer", 9)

    assert received == [TEXT]
    assert reports["handle"].outcome is CloseOutcome.TIMED_OUT
    assert reports["handle"].elapsed == 1
    assert reports["buffer"].outcome is CLEAN


async def test_several_that_meet_make_one_report(autojump_clock: trio.testing.MockClock) -> None:
    """The limits on bytes count for all as well."""
    left, right = duplex(100)
    reports: list[CloseReport] = []

    async def close(linger: float, linger_bytes: int) -> None:
        reports.append(await close_gracefully(left, linger=linger, linger_bytes=linger_bytes))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close, 9, 1000)
        await trio.sleep(1)
        await right.send_all(bytes(20))
        nursery.start_soon(close, 3, 30)
        await trio.sleep(1)
        await right.send_all(bytes(20))

    assert [report.elapsed for report in reports] == [2, 1]
    for report in reports:
        assert report.outcome is PEER_SILENT
        assert report.discarded_bytes == 31


@pytest.mark.parametrize("how", ["aclose", "gracefully", "abort", "from another task"])
async def test_a_release_may_close_its_own_layer(
    autojump_clock: trio.testing.MockClock, how: str
) -> None:
    class ClosesItself(AsyncWrite):
        def __init__(self, inner: AsyncWrite) -> None:
            self.inner = inner

        async def release(self, *, clean: bool) -> None:
            if how == "aclose":
                await self.aclose()
            elif how == "gracefully":
                await close_gracefully(self)
            elif how == "abort":
                await abort(self)
            else:
                await helper.send(self)

    left, _ = duplex(5)
    layer = ClosesItself(left)
    helper, other = trio.open_memory_channel[AsyncWrite](0)

    async def close_what_comes() -> None:
        async for one in other:
            await one.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_what_comes)
        await layer.aclose()
        await helper.aclose()
    assert left.closed
    assert trio.current_time() == 0


async def test_a_close_that_waits_for_a_handle_can_become_part_of_a_wider_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Which then waits for the handle."""
    left, right = duplex(5)
    _, reader = duplex(5)
    both = ReadWritePair(reader, left)
    buffer = BufWriter(left.by_ref())
    await buffer.write_all(TEXT)
    received: list[bytes] = []

    async def read_late() -> None:
        await trio.sleep(1)
        received.append(await read_and_close(right))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        for close in (lambda: close_gracefully(buffer), left.aclose, both.aclose):
            nursery.start_soon(close)
            await wait_all_tasks_blocked()
    assert received == [TEXT]


async def test_a_graceful_close_below_one_that_is_at_its_release_waits_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(5)
    await right.aclose()
    layer = Slow(left.by_ref())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(layer.aclose)
        await wait_all_tasks_blocked()
        report = await close_gracefully(left)
    assert report.outcome is CLEAN
    assert report.elapsed == 1


async def read_all_and_stay(peer: trio.abc.Stream) -> None:
    await trio.sleep(1)
    async for _ in peer:
        pass


@pytest.mark.parametrize("joins", [False, True])
async def test_a_cancelled_aclose_waits_for_nobody_s_linger(
    autojump_clock: trio.testing.MockClock, *, joins: bool
) -> None:
    """Whether it has begun the close or has joined it; all is sent."""
    stack = await begun(buffered)
    reports: list[CloseReport] = []

    async def close() -> None:
        reports.append(await close_gracefully(stack.layers[0], linger=50))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all_and_stay, stack.peer)
        if joins:
            nursery.start_soon(close)
            await wait_all_tasks_blocked()
        with trio.move_on_after(2) as scope:
            async with trio.open_nursery() as closers:
                closers.start_soon(stack.layers[0].aclose)
                await wait_all_tasks_blocked()
                if not joins:
                    nursery.start_soon(close)
        assert scope.cancelled_caught
        assert trio.current_time() == 2
    assert [report.outcome for report in reports] == [PEER_SILENT]
    assert trio.current_time() == 2
    await stack.peer.aclose()


async def test_limits_reach_the_closes_that_the_joined_one_waits_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stack = await begun(pair)
    async with trio.open_nursery() as nursery:
        closers = Closers(stack, nursery)
        nursery.start_soon(read_all_and_stay, stack.peer)
        await closers.start(by_graceful(50, 50), 2)
        await closers.start(by_graceful(40, 40), 1)
        await closers.start(by_graceful(2, 1), 1)
    assert trio.current_time() == 2  # and not 41
    assert len(closers.reports) == 3
    await stack.peer.aclose()


@pytest.mark.parametrize("how", ["gracefully", "aclose"])
@pytest.mark.parametrize("in_time", [False, True])
async def test_a_handle_of_a_stream_that_is_being_closed_keeps_its_limits_to_itself(
    autojump_clock: trio.testing.MockClock, how: str, *, in_time: bool
) -> None:
    left, right = duplex(5)
    buffer = BufWriter(left)
    handle = buffer.by_ref()
    await buffer.write_all(TEXT)
    received: list[bytes] = []

    async def read_late() -> None:
        await trio.sleep(5)
        received.append(await read_and_close(right))

    async with trio.open_nursery() as nursery:
        closers = Closers(Stack([handle, buffer], right), nursery)
        nursery.start_soon(read_late)
        await closers.start(by_graceful(20, 1) if how == "gracefully" else by_aclose, 1)
        report = await close_gracefully(handle, timeout=9 if in_time else 1, linger=1)
        assert trio.current_time() == (5 if in_time else 2)
    assert received == [TEXT]
    assert closers.errors == []
    if in_time:
        assert report.outcome is (CLEAN if how == "gracefully" else PEER_SILENT)
    else:
        assert report.outcome is CloseOutcome.TIMED_OUT


@pytest.mark.parametrize("how", [abort, trio.aclose_forcefully])
async def test_a_layer_whose_close_waits_for_another_one_below_can_be_hurried(
    autojump_clock: trio.testing.MockClock, how: Callable[[Any], Awaitable[None]]
) -> None:
    stack = await begun(pair)
    async with trio.open_nursery() as nursery:
        closers = Closers(stack, nursery)
        nursery.start_soon(read_all_and_stay, stack.peer)
        await closers.start(by_graceful(50, 50), 2)
        await closers.start(by_aclose, 1)
        await trio.sleep(2)
        await how(stack.layers[1])
    assert trio.current_time() == 2
    await stack.peer.aclose()


async def test_a_failed_block_follows_a_close_that_others_make_part_of_theirs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stack = await begun(pair)
    layers = stack.layers
    async with trio.open_nursery() as nursery:
        closers = Closers(stack, nursery)
        await closers.start(by_aclose, 2)
        nursery.start_soon(closers.run, by_a_failed_block, layers[2])
        await wait_all_tasks_blocked()
        outer = ReadWritePair(layers[3], layers[1])
        for layer in (layers[1], outer):
            nursery.start_soon(layer.aclose)
        await trio.sleep(1)
        assert closers.reports == []
        assert await read_and_close(stack.peer) == TEXT
    assert [report.outcome for report in closers.reports] == [PEER_SILENT]


@pytest.mark.parametrize("how", ["the peer has gone", "time is up"])
async def test_a_graceful_close_that_fails_leaves_no_reference_cycle(
    autojump_clock: trio.testing.MockClock, how: str
) -> None:
    stack = await begun(buffered)
    layers, peer = stack
    if how == "the peer has gone":
        await peer.aclose()
    gone = weakref.ref(layers[0])
    gc.collect()
    gc.disable()
    try:
        await close_gracefully(layers[0], timeout=1)
        del stack, layers
        assert gone() is None
    finally:
        gc.enable()
    await peer.aclose()


@pytest.mark.parametrize("joins", [False, True])
async def test_a_stack_that_cannot_be_looked_at_is_closed(
    autojump_clock: trio.testing.MockClock, *, joins: bool
) -> None:
    """And it does not harm a close that another task has begun."""

    class Odd(AsyncWrite):
        def __init__(self, inner: AsyncWrite) -> None:
            self.inner = inner

        def drain_source(self) -> trio.abc.ReceiveStream | None:
            raise ZeroDivisionError("odd")

    stack = await begun(buffered)
    odd = Odd(stack.layers[0])
    stack.layers.insert(0, odd)
    received: list[bytes] = []

    async def read_late() -> None:
        await trio.sleep(1)
        received.append(await read_and_close(stack.peer))

    async with trio.open_nursery() as nursery:
        closers = Closers(stack, nursery)
        if joins:
            await closers.start(by_aclose, 0)
            nursery.start_soon(read_late)
        await closers.start(by_graceful(9, 9), 0)
    assert isinstance(closers.reports[0].error, ZeroDivisionError)
    assert odd.closed
    assert received == ([TEXT] if joins else [])
    await trio.aclose_forcefully(stack.peer)


async def test_a_close_does_not_wait_for_the_bytes_of_a_stream_beside_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A child's stdin ends, though its stdout is being closed and takes its time."""
    stack = await pair()
    both, _, beside = stack.layers[1:]
    stuck = BufWriter(beside)
    await stuck.write_all(TEXT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: close_gracefully(stuck, timeout=50))
        await wait_all_tasks_blocked()
        await Closers(stack, nursery).start(by_aclose, 2)
        assert await stack.peer.receive_some() == b""
        assert trio.current_time() == 0
        await trio.aclose_forcefully(stack.peer)
    await trio.aclose_forcefully(both)


async def test_a_block_that_fails_and_is_joined_waits_for_nobody_s_linger(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stack = await begun(plain)

    async def leave() -> None:
        with resource_warnings(), contextlib.suppress(KeyError):
            async with stack.layers[0]:
                raise KeyError

    async with trio.open_nursery() as nursery:
        closers = Closers(stack, nursery)
        nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        await closers.start(by_graceful(50, 50), 1)
    assert trio.current_time() <= 2  # the grace of a foreign stream, to send and to close
    await trio.aclose_forcefully(stack.peer)


@pytest.mark.parametrize("of_the_handle", [1, 100])
async def test_a_close_that_waits_for_a_handle_s_until_time_is_up_has_timed_out(
    of_the_handle: float, autojump_clock: trio.testing.MockClock
) -> None:
    """As it would have without the handle; whoever's time was up."""
    stream, peer = duplex(4)
    writer = BufWriter(stream)
    await writer.write_all(b"never sent")
    handle = writer.by_ref()
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, partial(close_gracefully, handle, timeout=of_the_handle))
        report = await close_gracefully(stream, timeout=5)
    assert isinstance(first.result, CloseReport)
    assert first.result.outcome is CloseOutcome.TIMED_OUT
    assert report.outcome is CloseOutcome.TIMED_OUT
    assert report.unsent_bytes == 6
    with pytest.raises(trio.BrokenResourceError):
        await drain(peer)
