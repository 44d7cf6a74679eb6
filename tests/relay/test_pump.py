"""What moves the bytes: the state between two awaits."""

from __future__ import annotations

import socket as stdlib_socket

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncWrite, BufWriter, NotReady, TcpStream
from trio_asyncwrite._relay._pump import Pump

from .._patience import wait_all_tasks_blocked
from .._streams import connected, unix_pair
from ..core._fakes import Source
from ._fakes import Target


class Layer(AsyncWrite):
    """A wrapper that overrides nothing."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner


async def test_what_was_read_is_accepted_or_held() -> None:
    source, target = Source(b"abcdef"), Target(2)
    pump = Pump(source, target, 100, is_kept=True)
    assert (pump.moved, pump.held) == (0, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        await wait_all_tasks_blocked()
        assert (pump.moved, pump.held) == (2, 4)
        target.give(3)
        await wait_all_tasks_blocked()
        assert (pump.moved, pump.held) == (5, 1)
        target.give(3)
        source.feed(b"")
    assert (pump.moved, pump.held) == (6, 0)


class Blocks(Source):
    """Remembers how much it was asked for, and gives as much."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.share = 1

    def poll_read_into(self, buffer: bytearray | memoryview, /) -> int:
        if not self.chunks:
            raise NotReady(self.news.park)
        self.chunks.popleft()
        self.sizes.append(len(buffer))
        return len(buffer) // self.share


async def test_while_much_comes_through_the_blocks_are_larger() -> None:
    """As long as the target takes as much as a small one at once."""
    size = 1 << 16
    source, target = Blocks(), Target(1 << 30)
    pump = Pump(source, target, size, is_kept=True)

    async def asked(count: int) -> list[int]:
        source.sizes.clear()
        source.feed(*[b"x"] * count)
        await wait_all_tasks_blocked()
        return source.sizes

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        assert await asked(3) == [size, 4 * size, 4 * size]
        for room, then in ((size, [4 * size, 4 * size]), (size - 1, [size, 4 * size])):
            target.room = room
            assert await asked(1) == [4 * size]
            assert pump.held == 4 * size - room
            target.give(1 << 30)
            assert await asked(2) == then
        source.share = 1 << 12  # small ones
        assert await asked(3) == [4 * size, size, size]
        nursery.cancel_scope.cancel()
    assert len(target.taken) == pump.moved


@pytest.mark.parametrize(
    ("size", "bulk"), [(1000, 4000), (1 << 18, 1 << 20), (1 << 19, 1 << 20), (1 << 21, 1 << 21)]
)
def test_but_no_larger_than_a_pipe_unless_the_user_says_so(size: int, bulk: int) -> None:
    assert Pump(Source(), Target(), size, is_kept=True)._bulk_size() == bulk


async def test_a_slow_target_keeps_the_block_and_gives_it_back() -> None:
    async with connected(unix_pair) as (left, right), connected(unix_pair) as (out, into):
        for stream in (right, out):
            stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 4096)
        data = bytes(100_000)
        pump = Pump(right, out, 262144, is_kept=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.send_all, data)
            nursery.start_soon(pump.run)
            await wait_all_tasks_blocked(0.01)
            assert pump.held
            assert pump._block is not None
            received = 0
            while received < len(data):
                received += len(await into.receive_some())
            await wait_all_tasks_blocked(0.01)
            assert pump._block is None
            assert pump.moved == len(data)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("layered", [False, True])
async def test_a_target_that_was_never_used_is_flushed_at_once(*, layered: bool) -> None:
    below = Target()
    target = Layer(below) if layered else below
    pump = Pump(Source(b""), target, 100, is_kept=True)
    await pump.run()
    assert below.log == []
    assert pump.is_writing


async def test_a_failing_flush_is_the_target_s_fault() -> None:
    class Failing(Target):
        def poll_flush(self) -> None:
            raise OSError("odd")

    pump = Pump(Source(b"a"), Failing(), 100, is_kept=True)
    with pytest.raises(trio.BrokenResourceError, match="odd"):
        await pump.run()
    assert pump.is_writing


async def test_a_mistake_in_a_target_breaks_it() -> None:
    target = Target()
    target.error = ZeroDivisionError("odd")
    pump = Pump(Source(b"a"), target, 100, is_kept=True)
    with pytest.raises(ZeroDivisionError):
        await pump.run()
    with pytest.raises(trio.BrokenResourceError):
        await target.write(b"x")


async def test_a_patient_flush_that_hands_nothing_on_is_no_progress(
    autojump_clock: trio.testing.MockClock,
) -> None:
    below = Target(0)
    writer = BufWriter(below)
    pump = Pump(Source(b"abc", b""), writer, 100, is_kept=True)
    pump.patience = 10
    with trio.CancelScope() as pump.scope:
        pump.note_progress()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            await trio.sleep(9)
            # Woken for nothing.
            below.waiters.unpark_all()
    assert pump.scope.cancelled_caught
    assert trio.current_time() == 10
    with pytest.warns(ResourceWarning, match="3 bytes"):
        await trio.aclose_forcefully(writer)


async def test_a_target_that_is_closed_or_used_is_left_to_the_shell() -> None:
    left, right = await unix_pair()
    assert type(left) is TcpStream
    await left.aclose()
    pump = Pump(Source(b"abc"), left, 100, is_kept=True)
    with pytest.raises(trio.ClosedResourceError):
        await pump.run()
    assert (pump.moved, pump.held, pump.is_writing) == (0, 3, True)
    with pytest.raises(trio.ClosedResourceError):
        await pump.flush()
    await right.aclose()
