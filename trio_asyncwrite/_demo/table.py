"""The outcome, as text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from trio_asyncwrite import CloseOutcome

from .answers import ANSWER_SIZE, UPLOAD_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_asyncwrite import CloseReport

    from .answers import Answers
    from .delivery import Delivery
    from .file import FileTransfer
    from .source import Source
    from .transport import Transport

_FIRST_COLUMN: Final = 26
_COLUMN: Final = 17


def introduction(source: Source, cancels: int, seed: int) -> str:
    """Say what is going to be done."""
    lines = [f"{len(source.files):,} file(s), {source.size:,} bytes: {source.title}"]
    if source.skipped:
        lines.append(f"{source.skipped:,} more left out: unreadable, or no regular files")
    lines.append(f"{cancels:,} cancellations for each sender, drawn from seed {seed}")
    return "\n".join([*lines, ""])


def report(transport: Transport, source: Source, deliveries: list[Delivery]) -> str:
    """Compare what came of ``deliveries`` side by side, and explain it."""
    titles = [delivery.sender.title for delivery in deliveries]
    columns = [_column(transport, source, delivery) for delivery in deliveries]
    notes = [note for delivery in deliveries for note in _notes(delivery)]
    notes += [transport.plain_note, "aclose, which ends send_all's, does not tell how it ended."]
    return _table(f"over {transport.name}", titles, columns, notes)


def answers_introduction(answers: int) -> str:
    """Say what the early answers are."""
    text = (
        f"Early answers, {answers:,} each way: the server reads 1 of {UPLOAD_SIZE:,} bytes that it "
        f"is sent, answers with {ANSWER_SIZE:,} and closes. The client reads more slowly than the "
        "server sends, as over a network; its streams are Trio's."
    )
    return textwrap.fill(text, 79) + "\n"


def answers_report(transport: Transport, ways: list[Answers]) -> str:
    """Compare what came of the early answers side by side, and explain it."""
    columns = [
        {
            "answers received whole": _tally(answers.whole, answers.planned),
            "bytes missing": f"{answers.missing:,}",
            **_endings(transport, answers.reports, answers.planned),
            "seconds": f"{answers.seconds:.2f}",
        }
        for answers in ways
    ]
    notes = [note for answers in ways for note in _answers_notes(answers)]
    notes.append(
        "aclose does not read the rest of what came in. That makes the kernel reset the "
        "connection, and what is still on its way of the answer may be lost; under TLS also what "
        "has arrived, since a trio.SSLStream whose upload has failed cannot be read any more. (A "
        "faster client is luckier now and then.)"
    )
    return _table(
        f"answers over {transport.name}", [answers.way.title for answers in ways], columns, notes
    )


def file_introduction(size: int) -> str:
    """Say what the one file is."""
    text = (
        f"One file of {size:,} bytes, which holds all of these, with the same cancellations. Over "
        "TCP the kernel sends it (sendfile)."
    )
    return textwrap.fill(text, 79) + "\n"


def file_report(transport: Transport, transfers: list[FileTransfer]) -> str:
    """Compare what came of the one file side by side, and explain it."""
    return _transfers(
        f"one file over {transport.name}",
        transfers,
        "The loop reads a piece and sends it. Of a cancelled piece it does not know how much was "
        "sent, so some of it is missing, or would arrive twice. A FilePart knows.",
    )


def relay_introduction() -> str:
    """Say what the relay does."""
    text = (
        "The same file once more, sent to a relay, which passes it on over a second connection. "
        "Now it is the relay that is cancelled. Over TCP the kernel moves the bytes (splice)."
    )
    return textwrap.fill(text, 79) + "\n"


def relay_report(transport: Transport, transfers: list[FileTransfer]) -> str:
    """Compare what came through the relays side by side, and explain it."""
    return _transfers(
        f"a relay over {transport.name}",
        transfers,
        "The loop receives a piece and sends it. What a cancelled send_all has not sent is gone, "
        "and nobody knows how much that is. A Relay keeps it, and goes on.",
    )


def _transfers(name: str, transfers: list[FileTransfer], explanation: str) -> str:
    columns = [
        {
            "bytes to be sent": f"{each.size:,}",
            "bytes received": f"{each.received:,}",
            "bytes missing": f"{max(0, each.size - each.received):,}",
            "right SHA-256": "yes" if each.is_whole else "NO",
            "cancellations that hit": f"{each.cancellations.total:,} of {each.planned:,}",
            "seconds": f"{each.seconds:.2f}",
        }
        for each in transfers
    ]
    notes = [f"{', '.join(each.way.title)}: {error}" for each in transfers for error in each.errors]
    titles = [each.way.title for each in transfers]
    return _table(name, titles, columns, [*notes, explanation])


def verdict(bad: list[str]) -> str:
    """Say the result of all tables in one line; ``bad`` names those that are not as they should."""
    if bad:
        return f"FAILED: bytes or endings are wrong: {', '.join(bad)}."
    return "Everything arrived whole through this library, and every ending was clean."


def _column(transport: Transport, source: Source, delivery: Delivery) -> dict[str, str]:
    tape, parser, hits = delivery.tape, delivery.parser, delivery.cancellations.total
    excess = tape.received - tape.expected
    ending = delivery.sender.report
    right = tape.expected if tape.wrong_at is None else tape.wrong_at
    return {
        "bytes to be sent": f"{tape.expected:,}",
        "bytes received": f"{tape.received:,}",
        "bytes missing": f"{max(0, -excess):,}",
        "bytes too many": f"{max(0, excess):,}",
        "first wrong byte": "none" if tape.wrong_at is None else f"at {tape.wrong_at:,}",
        "messages in step": f"{parser.messages:,} of {delivery.sender.messages:,}",
        "files with right SHA-256": f"{parser.files:,} of {len(source.files):,}",
        "cancellations that hit": f"{hits:,} of {delivery.planned:,}",
        "seconds": f"{delivery.seconds:.2f}",
        "right bytes per second": f"{right / delivery.seconds / 1e6:.1f} MB",
        "arrived whole": "yes" if delivery.is_whole else "NO",
        **_endings(transport, [] if ending is None else [ending], 1),
    }


def _endings(transport: Transport, reports: list[CloseReport], planned: int) -> dict[str, str]:
    """What all the reports say in sum."""
    goodbyes = [report.close_notify_received for report in reports]
    cells = {
        "ended": _outcome([report.outcome for report in reports], planned),
        "bytes unsent": _sum([report.unsent_bytes for report in reports]),
        "bytes unacknowledged": _sum([report.unacknowledged_bytes for report in reports]),
        "bytes discarded": _sum([report.discarded_bytes for report in reports]),
    }
    if transport.is_tls:
        cells["peer's close_notify"] = _tally(goodbyes.count(True), planned)
    return cells if reports else dict.fromkeys(cells, "unknown")


def _outcome(outcomes: list[CloseOutcome], planned: int) -> str:
    if planned == len(outcomes) == 1:
        return outcomes[0].value
    return f"{_tally(outcomes.count(CloseOutcome.CLEAN), planned)} clean"


def _tally(count: int, planned: int) -> str:
    if planned == 1:
        return "yes" if count else "no"
    return f"{count:,} of {planned:,}"


def _sum(counts: list[int | None]) -> str:
    # Not every system tells what is unacknowledged.
    known = [count for count in counts if count is not None]
    return f"{sum(known):,}" if len(known) == len(counts) else "unknown"


def _notes(delivery: Delivery) -> Iterator[str]:
    title = ", ".join(delivery.sender.title)
    hits = delivery.cancellations.hits
    if delivery.is_whole and hits:
        where = ", ".join(f"{count:,} times in {name}" for name, count in hits.most_common())
        yield f"{title}: was cancelled while it waited, {where}."
    if (ending := delivery.sender.report) is not None:
        yield f"{title}: ended {ending}."
    for error in delivery.errors:
        yield f"{title}: {error}"
    if delivery.parser.lost_step is not None:
        yield f"{title}: the receiver lost step: {delivery.parser.lost_step}."


def _answers_notes(answers: Answers) -> Iterator[str]:
    title = ", ".join(answers.way.title)
    bad = [report for report in answers.reports if report.outcome is not CloseOutcome.CLEAN]
    for report in bad[:1] or answers.reports[-1:]:
        yield f"{title}: one ended {report}."
    for error in answers.errors[:1]:
        yield f"{title}: {error}"


def _table(
    name: str, titles: list[tuple[str, str]], columns: list[dict[str, str]], notes: list[str]
) -> str:
    rows = [[name, *(title[0] for title in titles)], ["", *(title[1] for title in titles)]]
    rows.extend([label, *(column[label] for column in columns)] for label in columns[0])
    return "\n".join([*map(_line, rows), "", *map(_paragraph, notes), ""])


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 79, subsequent_indent="  ")


def _line(cells: list[str]) -> str:
    return cells[0].ljust(_FIRST_COLUMN) + "".join(cell.rjust(_COLUMN) for cell in cells[1:])
