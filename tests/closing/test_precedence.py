"""What a report says when several things happen, and the one time for lingering."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_asyncwrite import (
    AsyncReadWrite,
    BufWriter,
    CloseOutcome,
    CloseReport,
    NotReady,
    TimeoutWriter,
    abort,
    close_gracefully,
    duplex,
    graceful,
)

from .._patience import wait_all_tasks_blocked
from .._tls_helpers import both, over

if TYPE_CHECKING:
    from trio.testing import MockClock


class FailsBothWays(AsyncReadWrite):
    """Reading fails at once; its end is ready after ``ends_at`` seconds, and fails then."""

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)

    def poll_flush(self) -> None:
        pass

    def poll_read(self, size: int, /) -> bytes:
        raise ZeroDivisionError("reading")

    def poll_shutdown(self) -> None:
        if trio.current_time() < self.ends_at:
            raise NotReady(partial(trio.sleep, 1))
        raise ZeroDivisionError("writing")


async def test_if_reading_and_then_writing_fails_the_first_is_reported(
    autojump_clock: MockClock,
) -> None:
    report = await close_gracefully(FailsBothWays(2), timeout=5)

    assert str(report.error) == "reading"
    assert report.outcome is CloseOutcome.BROKEN
    assert report.elapsed == 2


async def test_what_was_aborted_is_aborted_though_something_had_failed() -> None:
    stream = FailsBothWays(trio.current_time() + 1000)
    reports: list[CloseReport] = []

    async def close() -> None:
        reports.append(await close_gracefully(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await wait_all_tasks_blocked()
        await abort(stream)
    assert reports[0].outcome is CloseOutcome.ABORTED


async def test_a_stack_that_is_truncated_and_fails_is_broken() -> None:
    ending = graceful(FailsBothWays(0))
    with pytest.raises(KeyError):
        async with ending:
            raise KeyError

    assert ending.report is not None
    assert ending.report.outcome is CloseOutcome.BROKEN


@pytest.mark.parametrize("idle", [2, 9], ids=["the layer's limit first", "ours first"])
async def test_a_truncated_stack_is_truncated_whichever_time_is_up_first(
    idle: float, autojump_clock: MockClock
) -> None:
    left, right = duplex(10)
    ending = graceful(BufWriter(TimeoutWriter(left, idle=idle)), timeout=5, linger=1)
    with pytest.raises(ZeroDivisionError):
        async with ending:
            await ending.stream.write_all(bytes(11))
            raise ZeroDivisionError

    assert ending.report.outcome is CloseOutcome.TRUNCATED
    assert ending.report.unsent_bytes == 1
    assert isinstance(ending.report.error, trio.TooSlowError) == (idle == 2)
    await right.aclose()


async def test_the_time_to_linger_begins_once(autojump_clock: MockClock) -> None:
    """Not again for the transport, when a TLS session has failed late."""
    transports = duplex(65536)
    left, right = over(transports, kind=trio.SSLStream)
    await both(left.do_handshake, right.do_handshake)

    async def fail_late() -> None:
        await trio.sleep(2)
        await transports[1].send_all(b"no TLS record at all")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_late)
        await wait_all_tasks_blocked()
        report = await close_gracefully(left, timeout=10, linger=3)
    assert report.elapsed == 3
    assert report.outcome is CloseOutcome.BROKEN
    await trio.aclose_forcefully(transports[1])
