"""The report and its one line."""

from __future__ import annotations

import dataclasses
import gc
import ssl
import weakref
from typing import Any

import pytest
import trio

from trio_asyncwrite import AsyncWrite, BufWriter, close_gracefully, duplex
from trio_asyncwrite._closing._report import CloseOutcome, CloseReport
from trio_asyncwrite._core._frames import without_frames


def test_a_report_cannot_be_changed() -> None:
    report = CloseReport(CloseOutcome.CLEAN)

    with pytest.raises(dataclasses.FrozenInstanceError):
        report.outcome = CloseOutcome.BROKEN  # type: ignore[misc]


def test_what_is_not_known_is_not_claimed() -> None:
    report = CloseReport(CloseOutcome.PEER_SILENT)

    assert report.unacknowledged_bytes is None
    assert report.peer_closed is None
    assert report.close_notify_received is None


def broken(message: str, cause: BaseException | None = None) -> trio.BrokenResourceError:
    error = trio.BrokenResourceError(*[message] * bool(message))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (
            CloseReport(CloseOutcome.CLEAN, peer_closed=True, elapsed=0.25),
            "clean after 0.250 s: the peer closed",
        ),
        (
            CloseReport(CloseOutcome.PEER_SILENT, elapsed=5.0),
            "peer silent after 5.000 s: the peer's end was not seen",
        ),
        (
            CloseReport(
                CloseOutcome.TIMED_OUT,
                unsent_bytes=1,
                unacknowledged_bytes=22,
                discarded_bytes=333,
                peer_closed=False,
                close_notify_received=False,
            ),
            (
                "timed out after 0.000 s: 1 byte unsent, 22 bytes unacknowledged, "
                "333 bytes discarded, the peer did not close, no close_notify received"
            ),
        ),
        (
            CloseReport(CloseOutcome.BROKEN, close_notify_received=True, error=broken("reset")),
            (
                "broken after 0.000 s: the peer's end was not seen, a close_notify received, "
                "BrokenResourceError: reset"
            ),
        ),
        (
            CloseReport(CloseOutcome.BROKEN, error=broken("", ssl.SSLError("bad record"))),
            (
                "broken after 0.000 s: the peer's end was not seen, "
                "BrokenResourceError: ('bad record',)"
            ),
        ),
        (
            CloseReport(CloseOutcome.BROKEN, error=broken("")),
            "broken after 0.000 s: the peer's end was not seen, BrokenResourceError",
        ),
        (
            CloseReport(CloseOutcome.ABORTED),
            "aborted after 0.000 s: the peer's end was not seen",
        ),
    ],
    ids=["clean", "silent", "timed-out", "broken", "broken-by-cause", "broken-mute", "aborted"],
)
def test_a_report_is_one_line_for_a_log(report: CloseReport, line: str) -> None:
    assert str(report) == line


# ---- The error ---------------------------------------------------------------------------------


class Odd(trio.BrokenResourceError):
    """It cannot be made of its ``args``."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"code {code} at {where}")
        self.code = code


def raised(exc: BaseException, cause: BaseException | None = None) -> Any:
    """``exc``, after it was raised and caught."""
    try:
        raise exc from cause  # noqa: TRY301
    except BaseException as caught:  # noqa: BLE001
        return caught


@pytest.mark.parametrize(
    "exc",
    [
        Odd(3, where="home"),
        OSError(32, "Broken pipe", "a file"),
        ssl.SSLEOFError(8, "EOF occurred"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        KeyError("key"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_the_copy_of_an_error_says_the_same(exc: Exception) -> None:
    copy = without_frames(raised(exc, raised(KeyError("cause"))))

    assert type(copy) is type(exc)
    assert (str(copy), repr(copy), vars(copy)) == (str(exc), repr(exc), vars(exc))
    assert repr(copy.__cause__) == "KeyError('cause')"
    for original, twin in ((exc, copy), (exc.__cause__, copy.__cause__)):
        assert original is not None
        assert twin is not None
        assert original.__traceback__ is not None  # it may be on its way to somebody
        assert twin.__traceback__ is None
        assert twin.__context__ is None


def test_causes_that_go_in_a_circle_are_copied_once() -> None:
    first, second = KeyError(1), KeyError(2)
    first.__cause__, second.__cause__ = second, first

    copy = without_frames(first)

    assert copy.__cause__ is not None
    assert repr(copy.__cause__) == "KeyError(2)"
    assert copy.__cause__.__cause__ is None


async def test_the_members_of_a_group_are_copied() -> None:
    with pytest.raises(Exception, match="Exceptions from") as info:
        async with trio.open_nursery():
            raise raised(KeyError("key"))
    group: Any = info.value

    copy: Any = without_frames(group)

    assert str(copy) == str(group)
    assert [repr(one) for one in copy.exceptions] == ["KeyError('key')"]
    assert copy.exceptions[0].__traceback__ is None


class Fails(AsyncWrite):
    """Its flush fails."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner

    def poll_flush(self) -> None:
        raise Odd(1, where="here")


@pytest.mark.parametrize("how", ["the peer has gone", "a layer fails", "it had failed before"])
async def test_a_report_that_is_kept_does_not_keep_the_stack(how: str) -> None:
    left, right = duplex(10)
    stream: AsyncWrite = Fails(left) if how == "a layer fails" else left
    writer = BufWriter(stream)
    await writer.write_all(b"abc")
    if how != "a layer fails":
        await right.aclose()
    if how == "it had failed before":
        with pytest.raises(trio.BrokenResourceError):
            await writer.flush()
    gone = [weakref.ref(one) for one in (writer, stream, left)]

    report = await close_gracefully(writer)
    del writer, stream, left
    gc.collect()

    assert report.outcome is CloseOutcome.BROKEN
    assert report.error is not None
    assert [one() for one in gone] == [None, None, None]
