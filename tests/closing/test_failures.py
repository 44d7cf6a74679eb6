"""Endings of streams that fail in unexpected ways."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    BufWriter,
    DuplexStream,
    NotReady,
    TimeoutWriter,
    duplex,
)
from trio_asyncwrite._closing._close import (
    close_gracefully,
)
from trio_asyncwrite._closing._report import CloseOutcome, CloseReport

from .._endings import (
    Hostile,
    read_and_close,
)
from .._streams import (
    reset,
    tcp_pair,
)

CLEAN = CloseOutcome.CLEAN
TRUNCATED = CloseOutcome.TRUNCATED
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT
BROKEN = CloseOutcome.BROKEN


# ---- Streams that fail in unexpected ways ------------------------------------------------------


@pytest.mark.parametrize("where", ["shutdown", "receive", "release"])
async def test_whatever_a_stream_raises_is_in_the_report(where: str) -> None:
    stream = Hostile(where)

    report = await close_gracefully(stream)

    assert report.outcome is BROKEN
    assert repr(report.error) == f"ZeroDivisionError('{where}')"
    with pytest.raises(trio.ClosedResourceError):
        await stream.write(b"x")


async def test_to_be_too_slow_is_to_be_out_of_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(10)
    writer = TimeoutWriter(BufWriter(left), idle=2)
    await writer.write_all(bytes(20))

    report = await close_gracefully(writer, timeout=5)

    assert report.outcome is TIMED_OUT
    assert isinstance(report.error, trio.TooSlowError)
    assert report.elapsed == 2
    await trio.aclose_forcefully(right)


async def test_the_first_failure_is_the_one_reported() -> None:
    class Worse(Hostile):
        def fail(self, where: str) -> None:
            raise ZeroDivisionError(where)

    assert str((await close_gracefully(Worse(""))).error) == "shutdown"


async def test_ctrl_c_still_closes() -> None:
    class Interrupted(Hostile):
        def fail(self, where: str) -> None:
            if where == "shutdown":
                raise KeyboardInterrupt

    stream = Interrupted("")
    with pytest.raises(KeyboardInterrupt):
        await close_gracefully(stream)

    with pytest.raises(trio.ClosedResourceError):
        await stream.write(b"x")


async def test_a_report_and_its_stream_are_freed_without_the_garbage_collector() -> None:
    left, right = await tcp_pair()
    reset(right)
    writer = BufWriter(left)
    gone = weakref.ref(writer)
    gc.collect()
    gc.disable()
    try:
        report = await close_gracefully(writer)
        assert report.outcome is BROKEN
        del left, writer, report
        assert gone() is None
    finally:
        gc.enable()


def raising(name: str) -> type[AsyncReadWrite]:
    """A layer whose answer to ``name`` raises."""

    def __init__(self: Any, inner: DuplexStream) -> None:  # noqa: N807 - it becomes one
        self.inner = inner

    def fail(self: object) -> None:
        raise ZeroDivisionError(name)

    return type("Raising", (AsyncReadWrite,), {"__init__": __init__, name: property(fail)})


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "close_notify_received",
        "descriptor",
        "epilogue",
        "half_closes",
        "held_bytes",
        "unacknowledged_bytes",
        "was_reset",
    ],
)
async def test_an_answer_that_raises_is_no_obstacle(
    name: str, autojump_clock: trio.testing.MockClock, *, joins: bool
) -> None:
    """Nor does the report claim anything that it depends on."""
    left, right = duplex(10)
    writer: Any = raising(name)(left)
    await left.send_all(bytes(10))
    reports: list[CloseReport] = []

    async def close() -> None:
        reports.append(await close_gracefully(writer, timeout=3, linger=3))

    async def read_late() -> None:
        await trio.sleep(1)
        assert await read_and_close(right) == bytes(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        if joins:
            nursery.start_soon(close)
        nursery.start_soon(read_late)

    assert len(reports) == 1 + joins
    for report in reports:
        assert report.error is None or str(report.error) == name
        # What is unknown counts as held, and so as lost.
        expected = TRUNCATED if name == "held_bytes" else CLEAN
        assert report.outcome is (BROKEN if report.error else expected) or name == "half_closes"
    assert left.lifecycle.released


# ---- The hooks for layers that this module does not know ---------------------------------------


class FakeTls(AsyncReadWrite):
    """A layer that tells of close_notify, and whose end is not that of the layer below."""

    def __init__(self, inner: DuplexStream, *, answers: bool) -> None:
        self.inner = inner
        self.answers = answers
        self.waits = 2
        self.close_notify_received = False

    def poll_read(self, size: int, /) -> bytes:
        if self.waits:
            self.waits -= 1
            raise NotReady(trio.lowlevel.checkpoint)
        if not self.answers:
            raise NotReady(trio.sleep_forever)
        self.close_notify_received = True
        return b""


@pytest.mark.parametrize("answers", [True, False])
async def test_a_layer_of_tls_is_asked_for_what_it_knows(
    autojump_clock: trio.testing.MockClock, *, answers: bool
) -> None:
    left, _ = duplex(10)

    report = await close_gracefully(BufWriter(FakeTls(left, answers=answers)))

    assert report.outcome is (CLEAN if answers else PEER_SILENT)
    assert report.peer_closed is answers
    assert report.close_notify_received is answers
