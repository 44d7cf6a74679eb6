"""What must hold after a run of ``_model.py``: the laws, and the table of endings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import trio

from trio_asyncwrite import CloseOutcome

if TYPE_CHECKING:
    from ._model import Message, Run, Stack

#: Bytes from here on belong to trailers.
TRAILERS: Final = 192

#: What may explain that something is broken.
_CAUSES: Final = {"cancelled", "TooSlowError", "abort", "peer left", "peer cut", "timed out"}


class Findings:
    """What was received, compared with what was accepted; and what is still held.

    Args:
        run: the run.
        stack: its stack, closed.
    """

    def __init__(self, run: Run, stack: Stack) -> None:
        self.run = run
        self.stack = stack
        self.data, self.trailer = parts_of(bytes(run.received))
        self.held = sum(layer.held_bytes for layer in stack.layers)
        arrived = [self._arrived(number) for number in range(len(run.messages))]
        self.has_all = all(arrived)
        #: Whether the peer must take it for complete.
        self.looks_complete = run.end == "proper" and self.trailer == stack.trailer

    def _arrived(self, number: int) -> bool:
        first = number * 64
        mine = bytearray()
        cuts: set[int] = set()
        for byte in self.data:
            if first <= byte < first + 64:
                mine.append(byte)
            elif self.stack.has_messages:
                cuts.add(len(mine))
        is_prefix, is_all = arrived(self.run.messages[number], bytes(mine), cuts)
        if not is_prefix:
            self.run.fault(f"what arrived is not what writer {number} wrote, in order and whole")
        return is_all


def parts_of(received: bytes) -> tuple[bytes, bytes]:
    """The data, and the trailers that follow them."""
    start = next((i for i, byte in enumerate(received) if byte >= TRAILERS), len(received))
    return received[:start], received[start:]


def arrived(messages: list[Message], data: bytes, cuts: set[int]) -> tuple[bool, bool]:
    """Compare one task's messages with its part of what was received.

    Args:
        messages: what it has written.
        data: what has arrived.
        cuts: where bytes of others have come in between.

    Returns:
        Whether ``data`` is a beginning of what was accepted; and whether it is all of it.
    """
    places = {0}
    is_prefix = False
    for message in messages:
        following: set[int] = set()
        for place in places:
            part = data[place : place + len(message.content)]
            if message.content.startswith(part) and not any(
                place < cut < place + len(part) for cut in cuts
            ):
                if len(part) == len(message.content):
                    following.add(place + len(part))
                else:
                    is_prefix = True
            if not message.least:
                following.add(place)
        places = following
    is_all = len(data) in places
    return is_prefix or is_all, is_all


def check(run: Run, stack: Stack) -> None:
    """Note as a fault what is at odds with the laws."""
    found = Findings(run, stack)
    _check_end(run, stack, found)
    _check_reports(run, stack, found)
    _check_counts(run, stack, found)
    _check_table(run, stack, found)
    for copy in stack.copies:
        data, _ = parts_of(copy.getvalue())
        if not (data.startswith(found.data) or found.data.startswith(data)):
            run.fault("a copy is not what was written")
        is_whole = found.looks_complete and found.has_all and run.end == "proper"
        if is_whole and data != found.data and not run.events & _CAUSES:
            run.fault("a copy is not complete")
    if not run.sent_by_peer.startswith(run.read):
        run.fault("what was read is not what the peer has sent")
    if "BrokenResourceError" in run.events and not run.events & {*_CAUSES, "graceful body"}:
        run.fault("something is broken, and nobody has broken it")
    if "ClosedResourceError" in run.events and "closed" not in run.events:
        run.fault("something is closed, and nobody has closed it")


def _check_end(run: Run, stack: Stack, found: Findings) -> None:
    """A truncated stream never looks complete, and a whole one does not look truncated."""
    if not stack.trailer.startswith(found.trailer):
        run.fault(f"the trailer {found.trailer!r} is not {stack.trailer!r}")
    if found.trailer and not found.has_all:
        run.fault("a trailer follows something that is incomplete")
    if found.looks_complete and not found.has_all and stack.shows_truncation:
        run.fault("a truncated stream looks complete")
    is_cut_on_purpose = run.events & {*_CAUSES, "graceful body"}
    if run.end == "cut" and found.has_all and not is_cut_on_purpose and stack.shows_truncation:
        run.fault("a whole stream looks truncated")


def _check_reports(run: Run, stack: Stack, found: Findings) -> None:
    """Nothing claims success without evidence."""
    for report in run.reports:
        if report.outcome is CloseOutcome.CLEAN:
            is_complete = found.has_all and found.looks_complete and not report.unsent_bytes
            if not is_complete and "peer left" not in run.events:
                run.fault("CLEAN, and not everything has arrived")
        # A shutdown may have ended it properly before.
        is_wrong = found.looks_complete and "ended in part" not in run.events
        if report.outcome is CloseOutcome.TRUNCATED and is_wrong and stack.shows_truncation:
            run.fault("TRUNCATED, and it looks complete")


def _check_counts(run: Run, stack: Stack, found: Findings) -> None:
    """No byte is lost silently, and the counts agree."""
    held = found.held
    counted = [int(n) for one in run.warnings for n in re.findall("([0-9]+) bytes that it", one)]
    counted += [
        report.unsent_bytes
        for report in run.reports
        # Others were closing it still: this one has not waited.
        if not isinstance(report.error, trio.ClosedResourceError)
    ]
    if any(count > held for count in counted):
        run.fault(f"{max(counted)} bytes are said to be lost, and {held} are held")
    failures = {"BrokenResourceError", "ClosedResourceError", "TooSlowError"}
    is_told = any(counted) or any(report.unsent_bytes for report in run.reports)
    if held and stack.is_one and not (is_told or run.events & {"abort", *failures}):
        run.fault(f"nobody was told of {held} lost bytes")
    if not stack.counts or "peer left" in run.events:
        return
    messages = [message for messages in run.messages for message in messages]
    least = sum(message.least for message in messages)
    most = sum(one.least or len(one.content) for one in messages)
    # A buffer below a layer with a trailer may hold that.
    if not least <= len(found.data) + held <= most + len(stack.trailer) - len(found.trailer):
        run.fault(f"{len(found.data)} bytes arrived, {held} held: accepted were {least} to {most}")


def _check_table(run: Run, stack: Stack, found: Findings) -> None:
    """The state of the stack and the way of ending decide what the peer sees, and who is told."""
    ending = run.ending
    if ending is None or run.events & {"peer left", "peer cut"} or stack.has_timeout:
        return
    state, way, report = ending.state, ending.way, ending.report
    if state not in {"whole", "abandoned", "torn", "Buf"} or ending.how == "cancelled":
        return
    if not stack.ends_at_once and (state != "whole" or "cancelled" in run.events):
        return  # its wait does the sending, and fails when it is cut short
    row = f"a stack that is {state}, ended by {way}"
    if ending.how != "done":
        run.fault(f"{row}: {ending.how}")
    is_truncated = state in {"torn", "Buf"}
    waits = way in {"gracefully", "graceful body"} or (way == "aclose" and state == "whole")
    if not waits and ending.seconds and stack.ends_at_once:
        run.fault(f"{row}: it has taken {ending.seconds} seconds")
    is_cut = is_truncated or way in {"abort", "graceful body"} or found.held > 0
    if is_cut and found.looks_complete and stack.shows_truncation:
        run.fault(f"{row}: it looks complete")
    if way in {"aclose now", "body", "abort"} and found.trailer:
        run.fault(f"{row}: there is a trailer")
    is_plain = way in {"aclose now", "body"} or (way == "aclose" and state == "abandoned")
    if is_plain and not is_cut and run.end == "cut" and stack.counts:
        run.fault(f"{row}: nothing was lost, and the peer sees it cut")
    # An epilogue that was begun and cut short is a loss, too.
    is_half = state == "abandoned" and way == "aclose" and not found.looks_complete
    loses = is_truncated or found.held > 0 or (is_half and bool(stack.trailer))
    told_by_warning = way not in {"abort", "gracefully", "graceful body"}
    if len(run.warnings) != (loses and told_by_warning):
        run.fault(f"{row}: {len(run.warnings)} warnings")
    if way == "aclose" and state == "whole" and not (found.looks_complete and found.has_all):
        run.fault(f"{row}: it is not complete")
    if report is None or report.outcome is CloseOutcome.TIMED_OUT:
        return
    if is_truncated or way == "graceful body":
        if report.outcome is not CloseOutcome.TRUNCATED:
            run.fault(f"{row}: {report}")
        # Within its limits, it delivers what was accepted.
        if report.unsent_bytes and report.elapsed < 1 and stack.has_messages:
            run.fault(f"{row}: {report}")
    else:
        is_clean = report.outcome is CloseOutcome.CLEAN
        if is_clean != (report.peer_closed is True) or report.outcome is CloseOutcome.BROKEN:
            run.fault(f"{row}: {report}")
        if not (found.looks_complete and found.has_all):
            run.fault(f"{row}: it is not complete")
