"""The report and its one line."""

from __future__ import annotations

import dataclasses
import ssl

import pytest
import trio

from trio_asyncwrite._closing._report import CloseOutcome, CloseReport


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
