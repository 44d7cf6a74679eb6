from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import Buf, Cursor, NotReady, ThrottledWriter, TokenBucket

from .._patience import wait_all_tasks_blocked
from ..core._fakes import begin

if TYPE_CHECKING:
    from trio.testing import MockClock


async def seconds(writer: ThrottledWriter[Any], size: int) -> float:
    """How long a write takes."""
    began = trio.current_time()
    await writer.write_all(bytes(size))
    return trio.current_time() - began


@pytest.mark.parametrize(
    ("rate", "burst"),
    [(1_000_000, 100_000), (10_000, 1000), (10, 1), (1, 1), (0.001, 1), (2**63, 2**63 / 10)],
)
def test_the_burst_follows_the_rate(rate: float, burst: float) -> None:
    """infinidysk PR 1152: 64 KiB at 10 kB/s is no limit."""
    bucket = TokenBucket(rate)
    assert bucket.burst == pytest.approx(burst)
    bucket.rate = 5000
    assert (bucket.rate, bucket.burst) == (5000, 500)


def test_a_burst_that_was_given_stays() -> None:
    bucket = TokenBucket(10, burst=7)
    bucket.rate = 5000
    assert bucket.burst == 7
    assert repr(bucket) == "<TokenBucket of 5000 bytes per second, 7 at once>"


async def test_idle_time_saves_up_no_more_than_the_burst(autojump_clock: MockClock) -> None:
    """duplicati #6181."""
    writer = ThrottledWriter(Cursor(), TokenBucket(1000, burst=500))
    for _ in range(2):
        await trio.sleep(80_000)
        assert await seconds(writer, 500) == 0
        assert await seconds(writer, 500) == pytest.approx(0.5)
        assert await seconds(writer, 250) == pytest.approx(0.25)


@pytest.mark.parametrize("rate", [2**62, 2**63, 1e18, 1e300, math.inf])
async def test_a_huge_rate_is_no_limit(rate: float, autojump_clock: MockClock) -> None:
    """rclone #9820: an overflow."""
    writer = ThrottledWriter(Cursor(), TokenBucket(rate))
    for _ in range(3):
        assert await seconds(writer, 1_000_000) == 0
    bucket = TokenBucket(rate, burst=10)
    writer = ThrottledWriter(Cursor(), bucket)
    assert await seconds(writer, 1000) < 1e-3
    bucket.rate = 100
    bucket.rate = rate
    assert await seconds(writer, 1000) < 1e-3


async def test_a_tiny_rate_comes_to_its_end(autojump_clock: MockClock) -> None:
    writer = ThrottledWriter(Cursor(), TokenBucket(1e-3))
    assert await seconds(writer, 3) == pytest.approx(2000)
    writer = ThrottledWriter(Cursor(), TokenBucket(5e-324))
    with trio.move_on_after(1e9) as scope:
        await writer.write_all(b"ab")
    assert scope.cancelled_caught


async def test_a_limit_can_be_lifted_and_set_again(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(100)
    writer = ThrottledWriter(Cursor(), bucket)
    await writer.write_all(bytes(10))
    bucket.rate = math.inf
    await trio.sleep(1)
    assert await seconds(writer, 10**6) == 0
    bucket.rate = 100
    assert await seconds(writer, 110) == pytest.approx(1)


async def test_the_rate_may_change_while_tasks_wait(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(1, burst=1000)
    writer = ThrottledWriter(Cursor(), bucket)
    await writer.write_all(bytes(1000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all, bytes(1000))
        other = ThrottledWriter(Cursor(), bucket)
        nursery.start_soon(other.write_all, bytes(1000))
        await trio.sleep(100)
        bucket.rate = 19
        await trio.sleep(50)
        bucket.rate = 95
    assert trio.current_time() == pytest.approx(100 + 50 + 950 / 95)


async def test_a_lower_rate_counts_from_now_on(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(100, burst=100)
    writer = ThrottledWriter(Cursor(), bucket)
    await writer.write_all(bytes(100))
    await trio.sleep(0.5)
    bucket.rate = 10
    assert await seconds(writer, 50) == pytest.approx(0)
    assert await seconds(writer, 10) == pytest.approx(1)


async def test_a_smaller_burst_is_kept_at_once(autojump_clock: MockClock) -> None:
    """... by a task that waits for more than that."""
    bucket = TokenBucket(100_000)
    writer = ThrottledWriter(Cursor(), bucket)
    await writer.write_all(bytes(10_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all, bytes(1000))
        await wait_all_tasks_blocked()
        bucket.rate = 10
    assert trio.current_time() == pytest.approx(100)


def test_it_works_outside_of_any_run() -> None:
    """Where no time passes."""
    cursor = Cursor()
    bucket = TokenBucket(10, burst=5)
    writer = ThrottledWriter(cursor, bucket)
    assert writer.poll_write(b"abc") == 3
    for _ in range(2):
        with pytest.raises(NotReady):
            writer.poll_write(b"def")
        bucket.rate = 20
    assert writer.poll_write(b"de") == 2
    writer.poll_shutdown()
    assert cursor.getvalue() == b"abcde"


def test_a_level_of_one_run_is_kept_in_the_next() -> None:
    """And nothing is waited for that only happens in the first one (law 11)."""
    bucket = TokenBucket(10, burst=10)
    writer = ThrottledWriter(Cursor(), bucket)

    async def first() -> None:
        await writer.write_all(bytes(10))
        with trio.move_on_after(0.5) as scope:
            await writer.write_all_buf(buf)
        assert scope.cancelled_caught

    async def second() -> None:
        # Of the half second, nothing is known here: it was another clock's.
        assert await seconds(writer, 10) == pytest.approx(1)

    buf = Buf(bytes(10))
    for operation, start in ((first, 1e6), (second, 0)):
        clock = trio.testing.MockClock(autojump_threshold=0)
        clock.jump(start)
        trio.run(operation, clock=clock)


async def test_two_runs_at_once_are_refused() -> None:
    """law 11: it would wait for events of the other run."""
    bucket = TokenBucket(1e-6)
    writer, other = ThrottledWriter(Cursor(), bucket), ThrottledWriter(Cursor(), bucket)
    async with trio.open_nursery() as nursery:
        await writer.write_all(b"x")
        await begin(nursery, lambda: writer.write_all(b"x"))
        with pytest.raises(RuntimeError, match=r"one trio\.run at a time"):
            await trio.to_thread.run_sync(trio.run, other.write_all, b"x")
        nursery.cancel_scope.cancel()
    assert writer.inner.getvalue() == b"x"


NUMBER = "must be a number greater than 0, got"


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (("fast",), TypeError, "rate must be a number, got str"),
        ((None,), TypeError, "rate must be a number, got NoneType"),
        ((0,), ValueError, f"rate {NUMBER} 0; use math.inf for no limit"),
        ((-1.0,), ValueError, f"rate {NUMBER} -1.0"),
        ((math.nan,), ValueError, f"rate {NUMBER} nan"),
        ((10**400,), ValueError, "rate is too large: use math.inf for no limit"),
        ((1, "much"), TypeError, "burst must be a number, got str"),
        ((1, 0), ValueError, f"burst {NUMBER} 0"),
        ((1, 0.5), ValueError, "burst must be at least 1 byte, got 0.5"),
    ],
)
def test_what_is_no_limit_is_refused(
    arguments: tuple[Any, ...], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        TokenBucket(*arguments)


@pytest.mark.parametrize("rate", [0, -5, math.nan, "fast", None])
def test_a_wrong_rate_changes_nothing(rate: Any) -> None:
    bucket = TokenBucket(10)
    with pytest.raises((TypeError, ValueError)):
        bucket.rate = rate
    assert bucket.rate == 10
