"""The outcome, as text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .delivery import Delivery
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
    rows = [
        [f"over {transport.name}", *(delivery.sender.title[0] for delivery in deliveries)],
        ["", *(delivery.sender.title[1] for delivery in deliveries)],
    ]
    columns = [_column(source, delivery) for delivery in deliveries]
    rows.extend([label, *(column[label] for column in columns)] for label in columns[0])
    notes = [note for delivery in deliveries for note in _notes(delivery)]
    notes.append(transport.plain_note)
    paragraphs = [textwrap.fill(note, 79, subsequent_indent="  ") for note in notes]
    return "\n".join([*map(_line, rows), "", *paragraphs, ""])


def _column(source: Source, delivery: Delivery) -> dict[str, str]:
    tape, parser, hits = delivery.tape, delivery.parser, delivery.cancellations.total
    excess = tape.received - tape.expected
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
    }


def _notes(delivery: Delivery) -> Iterator[str]:
    title = ", ".join(delivery.sender.title)
    hits = delivery.cancellations.hits
    if delivery.is_whole and hits:
        where = ", ".join(f"{count:,} times in {name}" for name, count in hits.most_common())
        yield f"{title}: was cancelled while it waited, {where}."
    for error in delivery.errors:
        yield f"{title}: {error}"
    if delivery.parser.lost_step is not None:
        yield f"{title}: the receiver lost step: {delivery.parser.lost_step}."


def _line(cells: list[str]) -> str:
    return cells[0].ljust(_FIRST_COLUMN) + "".join(cell.rjust(_COLUMN) for cell in cells[1:])
