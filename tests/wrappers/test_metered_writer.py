from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufWriter,
    Cursor,
    FilePart,
    MeteredWriter,
    NotReady,
    Sink,
    close_gracefully,
    simplex,
)

from .._streams import connected, drain, tcp_pair
from ..core._fakes import Script, Wire, begin, cut_short, resource_warnings, run_cancelled
from ._buffered import Inner

if TYPE_CHECKING:
    from pathlib import Path


def counts(writer: MeteredWriter[Any]) -> tuple[int, int, int, int, float]:
    return (
        writer.accepted_bytes,
        writer.writes,
        writer.flushes,
        writer.waits,
        writer.seconds_waited,
    )


async def test_it_counts_bytes_calls_and_flushes() -> None:
    writer = MeteredWriter(Cursor())
    await writer.write_all(b"abc")
    await writer.send_all(b"de")
    await writer.write(b"")
    await writer.flush()
    await writer.aclose()
    assert writer.inner.getvalue() == b"abcde"
    assert counts(writer) == (5, 2, 2, 0, 0)
    assert repr(writer).startswith("<MeteredWriter over <Cursor")


async def test_gathered_writes_stay_gathered() -> None:
    """golang #21756: a wrapper that counts disabled writev."""
    inner = Inner()
    writer = MeteredWriter(inner)
    await writer.write_all_vectored([b"head", b"body"])
    assert inner.offers == [[b"head", b"body"]]
    assert counts(writer) == (8, 1, 0, 0, 0)


async def test_a_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(300_000))
    async with connected(tcp_pair) as (stream, other):
        writer = MeteredWriter(stream)
        with path.open("rb") as file:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def read() -> None:
                    assert len(await drain(other)) == 300_000

                await writer.write_all_file(FilePart(file))
                await writer.aclose()
    assert writer.accepted_bytes == 300_000


async def test_waits_and_their_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """... of a write, a flush, and a shutdown."""
    wire = Wire(0)
    writer = MeteredWriter(wire)

    async def give(room: float) -> None:
        await trio.sleep(2)
        wire.give(room)

    for operation in (
        partial(writer.write_all, b"0123456789"),
        writer.flush,
        writer.shutdown,
    ):
        wire.room = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give, 10)
            await operation()
    assert counts(writer) == (10, 1, 1, 3, 6)


async def test_a_wait_until_it_is_ready_counts(autojump_clock: trio.testing.MockClock) -> None:
    pipe, reader = simplex(1)
    writer = MeteredWriter(pipe)
    await writer.write_all(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.wait_send_all_might_not_block)
        await trio.sleep(3)
        await reader.receive_some()
    assert counts(writer) == (1, 1, 0, 1, 3)


async def test_a_cancelled_wait_counts(autojump_clock: trio.testing.MockClock) -> None:
    writer = MeteredWriter(Wire(3))
    buf = Buf(b"abcdef")
    with trio.move_on_after(5):
        await writer.write_all_buf(buf)
    assert buf.remaining == 3
    assert counts(writer) == (3, 1, 0, 1, 5)


async def test_time_that_two_tasks_wait_counts_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A close makes the same wait as the call that it ends."""
    writer = MeteredWriter(Wire(0))
    async with trio.open_nursery() as nursery:
        await begin(nursery, writer.flush)
        with pytest.raises(NotReady) as caught:
            writer.poll_flush()
        with trio.move_on_after(7):
            await caught.value.wait()
        nursery.cancel_scope.cancel()
    assert writer.seconds_waited == 7
    assert writer.waits == 1


async def test_a_disk_that_is_slow_is_not_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    writer = MeteredWriter(Sink())
    with path.open("rb") as file:
        await writer.write_all_file(FilePart(file, offload=True))
    assert counts(writer) == (7, 1, 0, 0, 0)


async def test_what_has_left_is_known_after_any_end() -> None:
    """Accepted, less unsent: also with layers above and below, and when it was cut off."""
    pipe, reader = simplex(10)
    writer = MeteredWriter(BufWriter(pipe, 30))
    upper = BufWriter(writer, 20)
    await upper.write_all(bytes(19))
    await upper.write_all(bytes(19))
    assert writer.accepted_bytes == 19
    with resource_warnings() as messages:
        assert (await run_cancelled(upper.aclose)).outcome == "cancelled"
    assert len(messages) == 1
    assert writer.accepted_bytes - writer.unsent_bytes == 10
    with pytest.raises(trio.BrokenResourceError):
        assert len(await drain(reader)) == 10


async def test_a_report_and_the_counts_agree(autojump_clock: trio.testing.MockClock) -> None:
    pipe, reader = simplex(10)
    writer = MeteredWriter(pipe)
    await cut_short(partial(writer.write_all, bytes(100)))
    report = await close_gracefully(writer, timeout=1)
    assert writer.accepted_bytes - report.unsent_bytes == 10
    await reader.aclose()


def test_polls_outside_of_any_run_are_counted() -> None:
    writer = MeteredWriter(Wire(3))
    assert writer.poll_write(b"abcd") == 3
    for poll in (partial(writer.poll_write, b"d"), writer.poll_flush, writer.poll_shutdown):
        with pytest.raises(NotReady):
            poll()
    assert counts(writer) == (3, 1, 0, 0, 0)


@pytest.mark.parametrize("wrong", [None, True, -1, 100])
async def test_a_wrong_answer_is_refused_and_not_counted(wrong: Any) -> None:
    writer = MeteredWriter(Script(wrong))
    with pytest.raises((TypeError, RuntimeError), match="accepted"):
        await writer.write_all(b"abc")
    assert writer.accepted_bytes in (0, 100)


async def test_a_failure_is_not_counted() -> None:
    wire = Wire(math.inf)
    writer = MeteredWriter(wire)
    await writer.write_all(b"abc")
    wire.error = OSError("gone")
    for operation in (partial(writer.write_all, b"d"), writer.flush):
        with pytest.raises(trio.BrokenResourceError):
            await operation()
    assert counts(writer) == (3, 1, 0, 0, 0)


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a trio.abc.SendStream"):
        MeteredWriter("path")  # type: ignore[call-overload]
