from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufWriter,
    CloseOutcome,
    Cursor,
    FilePart,
    NotReady,
    SharedWriter,
    ThrottledWriter,
    TimeoutWriter,
    TokenBucket,
    abort,
    close_gracefully,
    duplex,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._patience import wait_all_tasks_blocked
from .._streams import connected, drain, tcp_pair
from ..core._fakes import Script, Wire, begin, cut_short, resource_warnings, run_cancelled
from ._buffered import Inner

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


def throttled(
    rate: float = 10, burst: float | None = None, inner: Any = None
) -> ThrottledWriter[Any]:
    return ThrottledWriter(inner or Cursor(), TokenBucket(rate, burst))


async def test_a_stream_takes_the_time_that_the_rate_allows(autojump_clock: MockClock) -> None:
    writer = throttled(1000)
    await writer.write_all(bytes(1100))
    assert trio.current_time() == pytest.approx(1)
    assert writer.inner.getvalue() == bytes(1100)
    assert repr(writer).startswith("<ThrottledWriter over <Cursor")


async def test_a_write_larger_than_the_burst_is_split(autojump_clock: MockClock) -> None:
    """Go's WaitN refuses it."""
    inner = Inner()
    writer = throttled(1000, 100, inner)
    await writer.write_all(bytes(250))
    assert [len(b"".join(offer)) for offer in inner.offers] == [100, 100, 50]
    assert trio.current_time() == pytest.approx(0.15)


async def test_there_is_no_sleep_after_the_fact(autojump_clock: MockClock) -> None:
    """clickhouse-backup #1377: the last piece is written, and then it sleeps."""
    writer = throttled(10, 10)
    await writer.send_all(bytes(10))
    await writer.flush()
    await writer.aclose()
    assert trio.current_time() == 0


async def test_only_what_was_accepted_costs(autojump_clock: MockClock) -> None:
    """A call that is cancelled, or fails, leaks no tokens."""
    wire = Wire(30)
    writer = throttled(1, 100, wire)
    buf = Buf(bytes(100))
    for _ in range(20):
        await cut_short(partial(writer.write_all_buf, buf))
        assert (await run_cancelled(partial(writer.write_all_buf, buf))).outcome == "cancelled"
    assert buf.remaining == 70
    wire.give(1000)
    await writer.write_all_buf(buf)
    assert trio.current_time() == 0


async def test_cancelled_waits_leak_no_tokens(autojump_clock: MockClock) -> None:
    writer = throttled(10, 10)
    await writer.write_all(bytes(10))
    for _ in range(20):
        with trio.move_on_after(0.05) as scope:
            await writer.write(bytes(100))
        assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)
    assert writer.poll_write(bytes(100)) == 10


async def test_a_refusal_below_costs_nothing(autojump_clock: MockClock) -> None:
    wire = Wire(0)
    writer = throttled(1, 5, wire)
    for poll in (
        partial(writer.poll_write, b"abc"),
        partial(writer.poll_write_vectored, [b"abc", b"defg"]),
    ):
        with pytest.raises(NotReady):
            poll()
    wire.give(10)
    assert writer.poll_write_vectored([b"abc", b"defg"]) == 3


@pytest.mark.parametrize("wrong", [None, True, 0, -1, 100])
async def test_a_wrong_answer_below_is_refused(wrong: Any) -> None:
    for write in (
        lambda writer: writer.write(b"abc"),
        lambda writer: writer.write_vectored([b"a", b"bc"]),
    ):
        with pytest.raises((TypeError, RuntimeError, trio.BrokenResourceError), match="Script"):
            await write(throttled(inner=Script(wrong)))


@pytest.mark.parametrize("wrong", [None, -1, 100])
async def test_a_wrong_answer_about_a_file_is_refused(wrong: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    script = Script()
    script.poll_write_file = lambda part, limit: wrong  # type: ignore[method-assign]
    with path.open("rb") as file, pytest.raises((TypeError, RuntimeError), match="accepted"):
        await throttled(inner=script).write_all_file(FilePart(file))


async def test_gathered_writes_stay_gathered(autojump_clock: MockClock) -> None:
    inner = Inner()
    writer = throttled(10, 6, inner)
    await writer.write_all_vectored([b"head", b"", b"body"])
    assert inner.offers == [[b"head", b"bo"], [b"dy"]]
    assert trio.current_time() == pytest.approx(0.2)


async def test_nothing_costs_nothing(autojump_clock: MockClock) -> None:
    writer = throttled(1, 1)
    await writer.write_all(b"x")
    await writer.write_all(b"")
    await writer.write_all_vectored([b"", b""])
    await writer.flush()
    assert trio.current_time() == 0


async def test_a_file_is_limited(tmp_path: Path, autojump_clock: MockClock) -> None:
    """And still passed on, in pieces."""
    path = tmp_path / "file"
    path.write_bytes(bytes(3000))
    limits: list[int] = []

    class Kernel(Wire):
        def poll_write_file(self, part: FilePart, limit: int, /) -> int:
            limits.append(limit)
            return super().poll_write_file(part, limit)

    wire = Kernel(10_000)
    writer = throttled(1000, 1000, wire)
    with path.open("rb") as file:
        await writer.write_all_file(FilePart(file, 0, 2500))
        assert trio.current_time() == pytest.approx(1.5)
        await writer.write_all_file(FilePart(file, 2500))
        await writer.write_all_file(FilePart(file, 3000))
    assert wire.sent == bytes(3000)
    assert limits[:3] == [1000, 1000, 500]
    assert trio.current_time() < 4


async def test_a_buffer_below_takes_small_writes_at_once(autojump_clock: MockClock) -> None:
    writer = throttled(10, 10, BufWriter(Cursor(), 100))
    assert writer.spare_capacity == 11
    await writer.write_all(bytes(6))
    assert writer.spare_capacity == 5
    await writer.write_all(bytes(4))
    assert writer.spare_capacity == 1
    await writer.send_all(bytes(5))
    assert trio.current_time() == pytest.approx(0.5)
    writer = throttled(1e6, None, BufWriter(Cursor(), 100))
    assert writer.spare_capacity == 100
    assert throttled(1e6).spare_capacity == 0


# ---- Many writers over one bucket ----------------------------------------------------------------


async def test_writers_share_the_rate_in_equal_parts(autojump_clock: MockClock) -> None:
    """... one quantum each in turn, and the first that comes is the first that is served."""
    bucket = TokenBucket(100_000)
    order: list[int] = []
    amounts: Counter[int] = Counter()

    class Logging(Wire):
        def __init__(self, number: int) -> None:
            super().__init__(1e9)
            self.number = number

        def poll_write(self, data: Any, /) -> int:
            count = super().poll_write(data)
            order.append(self.number)
            amounts[self.number] += count
            return count

    async with trio.open_nursery() as nursery:
        for number in range(5):
            writer = ThrottledWriter(Logging(number), bucket)
            await begin(nursery, partial(writer.write_all, bytes(10**6)))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    # The first one has taken the burst; from then on, all are in line.
    amounts[0] -= 10_000
    assert sum(amounts.values()) == pytest.approx(10**6, rel=0.01)
    assert max(amounts.values()) - min(amounts.values()) < 3000
    turns = order[1:]
    assert turns[:10] == [*turns[:5], *turns[:5]]
    assert sorted(turns[:5]) == [0, 1, 2, 3, 4]


async def test_nobody_overtakes_those_in_line(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(10, burst=10)
    first, second = (ThrottledWriter(Cursor(), bucket) for _ in range(2))
    await first.write_all(bytes(10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.write_all, bytes(10))
        await wait_all_tasks_blocked()
        await trio.sleep(0.5)
        assert second.spare_capacity == 0
        with pytest.raises(NotReady) as caught:
            second.poll_write(b"x")  # there are five tokens, and they are not its
        await caught.value.wait()
        assert trio.current_time() == pytest.approx(1.1)
        assert second.poll_write(b"x") == 1


async def test_one_that_leaves_the_line_lets_the_next_one_in(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(10, burst=10)
    writers = [ThrottledWriter(Cursor(), bucket) for _ in range(4)]
    await writers[0].write_all(bytes(10))
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, partial(one.write_all, bytes(5))) for one in writers]
        runs[0].scope.cancel()
        runs[2].scope.cancel()
        await wait_all_tasks_blocked()
    assert [run.outcome for run in runs] == [
        "cancelled",
        "returned None",
        "cancelled",
        "returned None",
    ]
    assert trio.current_time() == pytest.approx(1)


async def test_a_turn_is_kept_while_the_writer_below_is_not_ready(
    autojump_clock: MockClock,
) -> None:
    bucket = TokenBucket(10, burst=10)
    wire = Wire(0)
    slow, other = ThrottledWriter(wire, bucket), ThrottledWriter(Cursor(), bucket)
    await other.write_all(bytes(10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.write_all, bytes(5))
        await wait_all_tasks_blocked()
        nursery.start_soon(other.write_all, bytes(35))
        await trio.sleep(1.25)
        # It has had its turn, and the other one has the tokens meanwhile.
        assert other.inner.position > 10
        wire.give(100)
    assert wire.sent == bytes(5)
    assert other.inner.position == 45
    assert trio.current_time() == pytest.approx(4)


async def test_a_question_whether_it_is_ready_waits_for_a_token(
    autojump_clock: MockClock,
) -> None:
    writer = throttled(10, 10)
    await writer.wait_send_all_might_not_block()
    await writer.write_all(bytes(10))
    await writer.wait_send_all_might_not_block()
    assert trio.current_time() == pytest.approx(0.1)
    wire = Wire(0)
    wire.poll_ready = partial(wire.need_room, "ready")  # type: ignore[method-assign]
    with pytest.raises(NotReady):
        throttled(inner=wire).poll_ready()


# ---- Ends ----------------------------------------------------------------------------------------


async def test_a_close_waits_as_long_as_it_takes(autojump_clock: MockClock) -> None:
    cursor = Cursor()
    writer = BufWriter(throttled(10, 10, cursor))
    await writer.write_all(bytes(50))
    await writer.aclose()
    assert trio.current_time() == pytest.approx(4)
    assert cursor.getvalue() == bytes(50)


@pytest.mark.parametrize("how", ["aclose", "abort", "close_gracefully"])
async def test_an_end_evicts_who_waits_in_line(how: str, autojump_clock: MockClock) -> None:
    left, right = duplex(1000)
    bucket = TokenBucket(1, burst=10)
    writer = ThrottledWriter(left, bucket)
    await writer.write_all(bytes(10))
    async with trio.open_nursery() as nursery:
        waiting = await begin(nursery, partial(writer.write_all, b"abc"))
        if how == "aclose":
            await writer.aclose()
        elif how == "abort":
            await abort(writer)
        else:
            report = await close_gracefully(writer, timeout=1, linger=0)
            assert report.outcome is CloseOutcome.PEER_SILENT
    assert waiting.outcome == "ClosedResourceError"
    # And its place is free.
    other = ThrottledWriter(Cursor(), bucket)
    await other.write_all(b"x")
    assert trio.current_time() < 1.5
    with resource_warnings():
        await trio.aclose_forcefully(right)


async def test_a_close_that_is_out_of_time_is_not_clean(autojump_clock: MockClock) -> None:
    left, right = duplex(1000)
    writer = BufWriter(throttled(1, 10, left))
    await writer.write_all(bytes(50))
    report = await close_gracefully(writer, timeout=5, linger=1)
    assert report.outcome is CloseOutcome.TIMED_OUT
    assert report.unsent_bytes == writer.unsent_bytes > 30
    with pytest.raises(trio.BrokenResourceError):
        await drain(right)


async def test_a_cut_off_close_does_not_wait_for_tokens(autojump_clock: MockClock) -> None:
    cursor = Cursor()
    writer = BufWriter(throttled(1, 10, cursor))
    await writer.write_all(bytes(50))
    with resource_warnings() as messages:
        assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
    assert trio.current_time() == 0
    assert cursor.position == 10
    assert len(messages) == 1
    assert "40 bytes" in messages[0]


async def test_a_message_that_was_cut_short_tears(autojump_clock: MockClock) -> None:
    writer = throttled(1, 10)
    with trio.move_on_after(5):
        await writer.write_all(bytes(50))
    with pytest.raises(trio.BrokenResourceError, match="only 10 of the 50 bytes"):
        await writer.write_all(b"x")


async def test_a_message_is_torn_also_over_a_writer_that_keeps_messages(
    autojump_clock: MockClock,
) -> None:
    """It may have passed on a part."""
    writer = throttled(1, 10, SharedWriter(Cursor()))
    assert not writer.keeps_messages
    with trio.move_on_after(5):
        await writer.write_all(bytes(50))
    with pytest.raises(trio.BrokenResourceError, match="torn"):
        await writer.write_all(b"x")


async def test_under_a_shared_writer_messages_stay_whole(autojump_clock: MockClock) -> None:
    cursor = Cursor()
    writer = SharedWriter(throttled(10, 10, cursor))
    with trio.move_on_after(0.5):
        await writer.write_all(b"a" * 30)
    async with trio.open_nursery() as nursery:
        for letter in (b"b", b"c"):
            nursery.start_soon(writer.write_all, letter * 20)
    text = cursor.getvalue()
    assert text[:30] == b"a" * 30
    assert text[30:] in (b"b" * 20 + b"c" * 20, b"c" * 20 + b"b" * 20)


async def test_a_timeout_above_times_the_bucket_as_well(autojump_clock: MockClock) -> None:
    writer = TimeoutWriter(throttled(0.1, 10), idle=3)
    await writer.write_all(bytes(10))
    with pytest.raises(trio.TooSlowError):
        await writer.write_all(b"x")
    assert trio.current_time() == pytest.approx(3)


@pytest.mark.outer
async def test_cancelled_anywhere_it_delivers_every_byte_once(autojump_clock: MockClock) -> None:
    """... while it waits in line with another one."""
    payload = bytes(range(60))

    async def scenario(sweep: Sweep) -> None:
        left, right = duplex(7)
        bucket = TokenBucket(100, burst=10)
        writer, rival = ThrottledWriter(left, bucket), ThrottledWriter(Cursor(), bucket)
        received = bytearray()

        async def read() -> None:
            while chunk := await right.receive_some(20):
                received.extend(chunk)

        buf = Buf(payload[:20], payload[20:])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(rival.write_all, bytes(30))
            with sweep:
                await writer.write_all_buf(buf)
            await writer.write_all_buf(buf)
            await writer.aclose()
        await right.aclose()
        assert received == payload
        assert rival.inner.position == 30
        # Nothing has leaked, nor come for nothing: 90 bytes less the burst.
        assert trio.current_time() - began.pop() == pytest.approx(0.8, abs=0.01)

    began: list[float] = []

    async def timed(sweep: Sweep) -> None:
        began.append(trio.current_time())
        await scenario(sweep)

    assert await cancel_everywhere(timed) > 8


@pytest.mark.outer
async def test_it_keeps_the_contract_while_it_waits_for_tokens(autojump_clock: MockClock) -> None:
    async def maker() -> tuple[Any, Any]:
        left, right = duplex(100)
        return throttled(1e5, 50, left), right

    async def clogged_maker() -> tuple[Any, Any]:
        writer, other = await maker()
        writer.inner.poll_write(bytes(100))
        return writer, other

    await check_async_write(maker, clogged_maker)


async def test_over_tcp() -> None:
    """On the real clock, which is not asked how long it took."""
    payload = bytes(range(256)) * 400
    async with connected(tcp_pair) as (stream, other):
        bucket = TokenBucket(4e6, burst=10_000)
        writer = ThrottledWriter(stream, bucket)

        async def write() -> None:
            await writer.send_all(payload)
            await writer.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            assert await drain(other) == payload


@pytest.mark.parametrize("wrong", [1000, None])
def test_what_is_no_bucket_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a TokenBucket, got .*: give TokenBucket\(rate"):
        ThrottledWriter(Cursor(), wrong)


def test_its_bucket_is_known() -> None:
    bucket = TokenBucket(5)
    assert ThrottledWriter(Cursor(), bucket).bucket is bucket
