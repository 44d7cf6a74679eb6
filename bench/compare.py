"""Measure two checkouts of this library in the same run.

Two copies of a package cannot live in one interpreter, so each has a process, and they take turns:
while one measures, the other waits. Every round has new processes, for the layout of memory and
the seed of hashes make the same code a few percent faster in one process than in another. A round
measures each row in both, one right after the other; which is first changes from round to round.
When the machine slows down, it thus slows both down. The result is the median of the rounds'
ratios. The ratio of the two medians would not do, since medians drift.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from report import significant, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness import Effort, Peer, Workload
    from typing_extensions import Self

#: The checkout that this script belongs to.
HERE = Path(__file__).resolve().parents[1]

#: How far two medians of the same code may lie apart.
NOISE = 0.05
#: Below a microsecond, noise is larger: a fraction, or seconds, whichever is more.
SHORT, SHORT_NOISE, SHORT_NOISE_SECONDS = 1e-6, 0.10, 20e-9


def is_checkout(folder: Path) -> bool:
    return (folder / "trio_asyncwrite" / "__init__.py").exists()


def verdict(before: float, ratio: float) -> str:
    """The mark of a row: "SLOWER", "FASTER", or nothing if the difference may be noise.

    Args:
        before: seconds.
        ratio: the time after, divided by the time before.
    """
    allowed = NOISE if before >= SHORT else max(SHORT_NOISE, SHORT_NOISE_SECONDS / before)
    if abs(ratio - 1) <= allowed:
        return ""
    return "SLOWER" if ratio > 1 else "FASTER"


class Worker:
    """A process that measures one checkout; a context manager."""

    def __init__(self, checkout: Path, effort: Effort) -> None:
        self._checkout = checkout
        script = Path(__file__).with_name("worker.py")
        warnings = [f"-W{option}" for option in sys.warnoptions]
        self._process = subprocess.Popen(
            [sys.executable, *warnings, script, checkout, json.dumps(effort)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()  # it ends when its input does, and its receiver with it

    def wait_started(self) -> None:
        imported = Path(self.answer()).resolve()
        if imported.parent != self._checkout / "trio_asyncwrite":
            raise RuntimeError(f"the library of {self._checkout} was asked for, not {imported}")

    def ask(self, request: object) -> Any:
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that measures {self._checkout} has died")
        return json.loads(line)


class Pair(NamedTuple):
    """One figure of both checkouts, in the same round."""

    before: float
    after: float


class Change(NamedTuple):
    """What became of a figure: the medians, and that of the rounds' ratios."""

    before: float
    after: float
    ratio: float

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Change:
        return cls(
            statistics.median(pair.before for pair in pairs),
            statistics.median(pair.after for pair in pairs),
            statistics.median(pair.after / pair.before for pair in pairs),
        )


@dataclass
class Row:
    """A workload, done by one of our ways to do it."""

    workload: Workload
    peer: Peer
    count: int | None = None
    #: Seconds per turn, round by round.
    seconds: list[Pair] = field(default_factory=list)
    #: The same of the process's CPU: others' programs do not lengthen it.
    cpu_seconds: list[Pair] = field(default_factory=list)

    def request(self) -> dict[str, Any]:
        return {
            "family": self.workload.family.value,
            "workload": self.workload.name,
            "peer": self.peer.name,
            "count": self.count,
        }


class Comparison(NamedTuple):
    before: Path
    rows: list[Row]
    memory: dict[str, Pair]


def compare(
    checkout: Path,
    workloads: Sequence[Workload],
    peers: Sequence[Peer],
    effort: Effort,
    progress: Callable[[str], None],
) -> Comparison:
    """Measure another checkout and this one, alternating.

    Args:
        checkout: the other one.
        workloads: what to do.
        peers: ours.
        effort: how much of it; the rounds are pairs of measurements.
        progress: called with a line of text before each measurement.
    """
    before_path = checkout.resolve()
    rows = [Row(what, by) for what in workloads for by in peers if by.does(what)]
    memory: dict[str, Pair] = {}
    for number in range(effort.rounds):
        with contextlib.ExitStack() as stack:
            before, after = (
                stack.enter_context(Worker(path, effort)) for path in (before_path, HERE)
            )
            before.wait_started()
            after.wait_started()
            for row in rows:
                name = f"{row.workload.name}, {row.peer.name}"
                progress(f"round {number + 1} of {effort.rounds}: {name}")
                if row.count is None:
                    row.count = after.ask(row.request())["count"]
                # In the same order always, one would always have the machine as the other left it.
                order = (before, after) if number % 2 == 0 else (after, before)
                answers = {worker: worker.ask(row.request()) for worker in order}
                for figure, pairs in (("seconds", row.seconds), ("cpu_seconds", row.cpu_seconds)):
                    pairs.append(Pair(answers[before][figure], answers[after][figure]))
            if number == 0:
                progress("memory")
                held_after = after.ask("memory")
                memory = {
                    name: Pair(size, held_after[name])
                    for name, size in before.ask("memory").items()
                }
    return Comparison(before_path, rows, memory)


# ---- The results ---------------------------------------------------------------------------


def change_text(pairs: Sequence[Pair]) -> str:
    change = Change.of(pairs)
    times = "".join(f"{significant(1e6 * seconds):>9}" for seconds in (change.before, change.after))
    return f"{times}{change.ratio:>7.2f}  {verdict(change.before, change.ratio):<6}"


def text(comparison: Comparison) -> str:
    lines = [
        f"before: {comparison.before}",
        f"after:  {HERE}",
        "",
        f"{'':<44}{'us per turn':>18}{'':<15}{'us of CPU per turn':>20}",
        f"{'':<44}" + 2 * f"{'before':>9}{'after':>9}{'ratio':>7}{'':<10}".rstrip(" "),
    ]
    for row in comparison.rows:
        name = f"{row.workload.name}, {row.peer.name}"
        line = f"{name:<44}{change_text(row.seconds)}  {change_text(row.cpu_seconds)}"
        lines.append(line.rstrip())
    lines += ["", "Python memory per idle connection, in bytes"]
    lines += [
        f"  {name:<42}{pair.before:>9.0f}{pair.after:>9.0f}{pair.after / pair.before:>7.2f}"
        for name, pair in comparison.memory.items()
    ]
    return "\n".join(lines)


def change_json(pairs: Sequence[Pair]) -> dict[str, Any]:
    change = Change.of(pairs)
    return {
        "before_us": round(1e6 * change.before, 4),
        "after_us": round(1e6 * change.after, 4),
        "ratio": round(change.ratio, 4),
        "verdict": verdict(change.before, change.ratio),
        "rounds_us": [[round(1e6 * seconds, 4) for seconds in pair] for pair in pairs],
    }


def as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "versions": versions(),
        "before": str(comparison.before),
        "after": str(HERE),
        "rows": [
            {
                "family": row.workload.family.value,
                "workload": row.workload.name,
                "peer": row.peer.name,
                "turns_per_round": row.count,
                "time": change_json(row.seconds),
                "cpu": change_json(row.cpu_seconds),
            }
            for row in comparison.rows
        ],
        "idle_bytes_per_connection": {
            name: [round(pair.before), round(pair.after)]
            for name, pair in comparison.memory.items()
        },
    }
