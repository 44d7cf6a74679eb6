"""The results: as tables, as targets met or missed, as JSON."""

from __future__ import annotations

import os
import platform
import ssl
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import peers
from harness import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness import Peer, Series, Workload

#: What each family has many of.
UNITS = {
    Family.TCP: "message",
    Family.TLS: "message",
    Family.PING: "round trip",
    Family.HANDSHAKES: "handshake",
    Family.CLOSING: "connection",
    Family.FILES: "file",
    Family.LAYERS: "turn",
}


class Results:
    """The medians, by workload and peer."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = series
        self.workloads: list[Workload] = list(dict.fromkeys(one.workload for one in series))
        self._rates = {(one.workload.name, one.peer.name): one.rate for one in series}
        self._cpu_times = {(one.workload.name, one.peer.name): one.cpu_time for one in series}

    def families(self) -> list[tuple[Family, list[Workload], list[Peer]]]:
        """What was done, to which workloads that came down, and who did it."""
        return [
            (
                family,
                [workload for workload in self.workloads if workload.family is family],
                list(dict.fromkeys(one.peer for one in self.series if one.peer.family is family)),
            )
            for family in dict.fromkeys(workload.family for workload in self.workloads)
        ]

    def of(self, workload: Workload) -> list[Series]:
        return [one for one in self.series if one.workload is workload]

    def cpu_time(self, workload: str, peer: str) -> float | None:
        """CPU seconds each, or None if that was not measured."""
        return self._cpu_times.get((workload, peer))

    def rate(self, workload: str, peer: str) -> float | None:
        """How often per second, or None if that was not measured."""
        return self._rates.get((workload, peer))

    def latencies(self) -> dict[str, float]:
        """What half of the round trips, and all but a hundredth, stay below; in microseconds."""
        return {
            f"{one.workload.name}, {one.peer.name}, p{percent}": 1e6 * one.latency(percent)
            for one in self.series
            if one.workload.family is Family.PING
            for percent in (50, 99)
        }

    def ratio(self, workload: str, peer: str, base: str) -> float | None:
        rate, base_rate = self.rate(workload, peer), self.rate(workload, base)
        return rate / base_rate if rate and base_rate else None

    def closed(self) -> int:
        """How many connections were closed at once."""
        return max((one.count for one in self.series if one.peak_memory is not None), default=0)

    def peak_memory(self) -> dict[str, float]:
        """Bytes per connection, of the peers of which it was measured."""
        return {
            one.peer.name: one.peak_memory / one.count
            for one in self.series
            if one.peak_memory is not None
        }


# ---- Text ----------------------------------------------------------------------------------


def significant(number: float) -> str:
    """Three digits, and no exponent: "0.123", "12.3", "1234"."""
    if number >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}" if number >= 1 else f"{number:.3f}"


def tables(results: Results) -> str:
    """For each family: microseconds each, those of CPU, and the baseline's throughput as a unit."""
    return "\n\n".join(table(results, *family) for family in results.families())


def table(results: Results, family: Family, workloads: list[Workload], of_peers: list[Peer]) -> str:
    names = [workload.name for workload in workloads]

    def block(title: str, cells: Iterable[tuple[str, list[str]]]) -> list[str]:
        head = f"{title:<26}" + "".join(f"{name:>15}" for name in names)
        return [head, *(f"{name:<26}" + "".join(f"{c:>15}" for c in row) for name, row in cells)]

    unit = UNITS[family]
    times = []
    for peer in of_peers:
        rates = [results.rate(name, peer.name) for name in names]
        times.append((peer.name, ["-" if r is None else significant(1e6 / r) for r in rates]))
    lines = block(f"us per {unit}", times)
    cpu_times = []
    for peer in of_peers:
        found = [results.cpu_time(name, peer.name) for name in names]
        cpu_times.append((peer.name, ["-" if t is None else significant(1e6 * t) for t in found]))
    lines += ["", *block(f"us of CPU per {unit}", cpu_times)]
    if family is Family.FILES:
        cpu = []
        for peer in of_peers:
            per_file = [(results.cpu_time(one.name, peer.name), one.size) for one in workloads]
            cpu.append((peer.name, [significant((t or 0) * 2**30 / size) for t, size in per_file]))
        lines += ["", *block("CPU seconds per GiB", cpu)]
    if base := peers.BASELINES.get(family):
        ratios = []
        for peer in of_peers:
            to_base = [results.ratio(name, peer.name, base) for name in names]
            ratios.append((peer.name, ["-" if r is None else f"{r:.2f}x" for r in to_base]))
        lines += ["", *block(f"{unit}s/s / trio's", ratios)]
    return "\n".join(lines)


# ---- Targets -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """``peer`` must reach ``factor`` times the throughput of the fastest of ``others``."""

    workload: str
    peer: str
    factor: float
    others: tuple[str, ...]


def async_peers(family: Family) -> tuple[str, ...]:
    return tuple(p.name for p in peers.PEERS if p.family is family and p.kind == "async")


def draining_peers(family: Family) -> tuple[str, ...]:
    """Those that wait for each message, as this library does."""
    return tuple(name for name in async_peers(family) if name.endswith("write+drain"))


TCP_DRAIN, TLS_DRAIN = draining_peers(Family.TCP), draining_peers(Family.TLS)

TARGETS = (
    Target("64 B", peers.BUF_WRITER, 40, (peers.TRIO,)),
    Target("64 B", peers.BUF_WRITER, 14, TCP_DRAIN),
    Target("64 B", peers.POLL_WRITE, 0.6, (peers.BUFFERED_WRITER,)),
    Target("64 B", peers.TCP_STREAM, 1.5, (peers.TRIO,)),
    Target("64 B", peers.TCP_STREAM, 0.75, (peers.UVLOOP_DRAIN,)),
    Target("16 KiB", peers.TCP_STREAM, 1.5, (peers.TRIO,)),
    Target("16 KiB", peers.TCP_STREAM, 0.85, (peers.UVLOOP_DRAIN,)),
    Target("64 KiB", peers.TCP_STREAM, 0.95, TCP_DRAIN),
    Target("1 MiB", peers.TCP_STREAM, 1.0, (peers.ASYNCIO_DRAIN,)),
    Target("1 MiB", peers.TCP_STREAM, 0.9, TCP_DRAIN),
    Target("1 MiB", peers.TCP_STREAM, 0.9, (peers.NO_MARK,)),
    Target("TLS 64 B", peers.TLS_BUF_WRITER, 70, (peers.TRIO_TLS,)),
    Target("TLS 64 B", peers.TLS_BUF_WRITER, 12, TLS_DRAIN),
    Target("TLS 4 KiB", peers.TLS_STREAM, 2.5, (peers.TRIO_TLS,)),
    Target("TLS 4 KiB", peers.TLS_STREAM, 0.85, (peers.UVLOOP_DRAIN,)),
    Target("TLS 64 KiB", peers.TLS_STREAM, 1.0, (peers.UVLOOP_DRAIN,)),
    Target("TLS 64 KiB", peers.TLS_STREAM, 0.8, (peers.FASTNET_DRAIN,)),
    Target("TLS 1 MiB", peers.TLS_STREAM, 1.0, (peers.UVLOOP_DRAIN,)),
    Target("TLS 1 MiB", peers.TLS_STREAM, 0.9, (peers.FASTNET_DRAIN,)),
    Target("TLS handshake", peers.TLS_HANDSHAKE, 0.95, (peers.BLOCKING_HANDSHAKE,)),
    Target("file, 16 MiB", peers.FILE, 1.0, (peers.ASYNCIO_FILE,)),
)

#: How much of the CPU time of asyncio's ``sendfile`` our files may take.
FILE_CPU = 1.5

#: The most small writes of a tight loop between two checkpoints.
LONGEST_TURN = 128


def checks(results: Results, fairness: dict[str, int]) -> list[dict[str, Any]]:
    """Which targets were reached. One whose peers were not measured is left out."""
    found = []
    for target in TARGETS:
        measured = [
            (rate, name)
            for name in target.others
            if (rate := results.rate(target.workload, name)) is not None
        ]
        rate = results.rate(target.workload, target.peer)
        if rate is not None and measured:
            other_rate, other = max(measured)
            found.append(
                {
                    "what": f"{target.workload}: {target.peer} / {other}",
                    "value": rate / other_rate,
                    "target": f">= {target.factor}",
                    "passed": rate / other_rate >= target.factor,
                }
            )
    ours, theirs = (
        results.cpu_time("file, 16 MiB", peer) for peer in (peers.FILE, peers.ASYNCIO_FILE)
    )
    if ours and theirs:
        found.append(
            {
                "what": f"file, 16 MiB: CPU of {peers.FILE} / {peers.ASYNCIO_FILE}",
                "value": ours / theirs,
                "target": f"<= {FILE_CPU}",
                "passed": ours / theirs <= FILE_CPU,
            }
        )
    what, longest_turn = next(iter(fairness.items()))
    found.append(
        {
            "what": what,
            "value": longest_turn,
            "target": f"<= {LONGEST_TURN}",
            "passed": longest_turn <= LONGEST_TURN,
        }
    )
    return found


def checks_text(found: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{'PASS' if check['passed'] else 'MISS'}  {check['what']}: "
        f"{significant(check['value'])} (target {check['target']})"
        for check in found
    )


def figures(title: str, unit: str, values: Mapping[str, float]) -> str:
    """A heading and a line for each value."""
    lines = (f"  {name:<48}{value:>8.0f}{unit}" for name, value in values.items())
    return "\n".join([title, *lines, ""])


# ---- JSON ----------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """What was measured, and on what."""
    found = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "openssl": ssl.OPENSSL_VERSION,
    }
    for name in ("trio_asyncwrite", "trio", "anyio", "uvloop", "aiofastnet"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_json(
    results: Results,
    memory: dict[str, float],
    fairness: dict[str, int],
    queues: dict[str, float],
    unsent: dict[str, int],
    found: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "versions": versions(),
        "series": [
            {
                "family": one.workload.family.value,
                "workload": one.workload.name,
                "message_bytes": one.workload.size,
                "peer": one.peer.name,
                "kind": one.peer.kind,
                "unit": UNITS[one.workload.family],
                "units_per_round": one.count,
                "units_per_second": round(one.rate, 1),
                "cpu_us_per_unit": round(1e6 * one.cpu_time, 3),
                "rounds": [round(rate, 1) for rate in one.rates],
                **(
                    {f"p{percent}_us": round(1e6 * one.latency(percent), 1) for percent in (50, 99)}
                    if one.workload.family is Family.PING
                    else {}
                ),
            }
            for one in results.series
        ],
        "closing_bytes_per_connection": {
            name: round(size) for name, size in results.peak_memory().items()
        },
        "idle_bytes_per_connection": {name: round(size) for name, size in memory.items()},
        "fairness": fairness,
        "us_per_queued_message": {name: round(one, 1) for name, one in queues.items()},
        "most_unsent_bytes": unsent,
        "checks": found,
    }
