"""Measure this library and its peers in the same run.

python bench/run.py [--quick] [--only FAMILY]... [--workload NAME]... [--rounds N]
                    [--json PATH] [--svg PATH] [--checkout DIR]

The peers take turns in every round, and what counts is the median of the rounds. Every
measurement lasts until a receiver in another process has read everything. Targets that are missed
are printed as MISS; they do not change the exit status, for a busy machine misses them, too.

With --checkout, only this library is measured, without peers: the copy in DIR ("before") and the
one that this script belongs to ("after"), alternating. Rows that differ by more than noise are
marked SLOWER or FASTER; they do not change the exit status either.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import chart
import compare
import costs
import report
import trio
from harness import WORKLOADS, Effort, Family, measure_all
from peers import PEERS

FULL = Effort(
    5,
    seconds=0.15,
    connections=5000,
    idle_connections=500,
    slow_milliseconds=2000,
    queued_messages=4000,
)
QUICK = FULL._replace(rounds=3, seconds=0.08, slow_milliseconds=1000)
SMOKE = Effort(
    1,
    seconds=None,
    connections=10,
    idle_connections=10,
    slow_milliseconds=50,
    queued_messages=100,
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="less exact, in less than 2 minutes")
    effort.add_argument("--smoke", action="store_true", help="a few messages: does it still run?")
    parser.add_argument(
        "--only",
        action="append",
        choices=[family.value for family in Family],
        help="only these workloads; repeatable",
    )
    parser.add_argument(
        "--workload",
        action="append",
        choices=[workload.name for workload in WORKLOADS],
        help="only this one; repeatable",
    )
    parser.add_argument(
        "--rounds", type=int, help="measurements of each peer (default: 5, quick: 3)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    parser.add_argument("--svg", type=Path, metavar="PATH", help="write a chart there")
    parser.add_argument(
        "--checkout",
        type=Path,
        metavar="DIR",
        help="compare the library of that checkout with this one's",
    )
    options = parser.parse_args()
    if options.checkout is not None:
        if options.svg is not None:
            parser.error("--svg: there is no chart of a comparison")
        if not compare.is_checkout(options.checkout):
            parser.error(f"--checkout: no trio_asyncwrite in {options.checkout}")
    return options


def show_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    options = arguments()
    effort = SMOKE if options.smoke else QUICK if options.quick else FULL
    effort = effort._replace(rounds=options.rounds or effort.rounds)
    workloads = [
        workload
        for workload in WORKLOADS
        if (options.only is None or workload.family.value in options.only)
        and (options.workload is None or workload.name in options.workload)
    ]
    if options.checkout:
        ours = [peer for peer in PEERS if peer.kind == "ours"]
        comparison = compare.compare(options.checkout, workloads, ours, effort, show_progress)
        show_progress("")
        print(compare.text(comparison))
        write_json(options.json, compare.as_json(comparison))
        return

    peers = [peer for peer in PEERS if peer.installed]
    left_out = dict.fromkeys(peer.name for peer in PEERS if peer not in peers)
    for name in left_out:
        print(f"left out, not installed: {name}")

    series = measure_all(workloads, peers, effort, show_progress)
    show_progress("memory")
    memory = costs.memory(effort.idle_connections)
    fairness = trio.run(costs.fairness, 10_000)
    queues = costs.queues(effort.queued_messages)
    show_progress("unsent bytes")
    unsent = costs.unsent(effort.slow_milliseconds)
    show_progress("")

    results = report.Results(series)
    found = report.checks(results, fairness)
    print(report.tables(results), end="\n\n")
    if closed := results.closed():
        title = f"Python memory to close a connection, {closed} of them at once"
        print(report.figures(title, " B", results.peak_memory()))
    print(report.figures("Python memory per idle connection", " B", memory))
    print(report.figures("Other tasks' patience, at most", "", fairness))
    print(report.figures("A message that waits in a SharedWriter, CPU", " us", queues))
    print(report.figures("Unsent in the kernel behind a reader of 200 kB/s, at most", " B", unsent))
    if latencies := results.latencies():
        print(report.figures("Latency of a round trip of 64 B", " us", latencies))
    print(report.checks_text(found))
    write_json(options.json, report.as_json(results, memory, fairness, queues, unsent, found))
    if options.svg:
        options.svg.write_text(chart.svg(results), encoding="utf-8")


if __name__ == "__main__":
    main()
