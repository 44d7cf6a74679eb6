"""How one measurement is made, and how many."""

from __future__ import annotations

import contextlib
import gc
import itertools
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peers import Peer
    from typing_extensions import Self


@dataclass(frozen=True)
class Workload:
    """One kind of message: a single part, or several that are to leave together."""

    name: str
    parts: tuple[bytes, ...]

    @property
    def gathered(self) -> bool:
        return len(self.parts) > 1

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))


WORKLOADS = (
    Workload("64 B", (bytes(64),)),
    Workload("1 KiB", (bytes(1024),)),
    Workload("16 KiB", (bytes(16384),)),
    Workload("64 KiB", (bytes(65536),)),
    Workload("1 MiB", (bytes(1 << 20),)),
    Workload("24 B + 64 KiB", (bytes(24), bytes(65536))),
)


class Receiver:
    """The receiving process; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("receiver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.address = ("127.0.0.1", int(self.answer()))
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._process as process:
            process.kill()

    def expect(self, size: int) -> None:
        """Have it accept the next connection and read ``size`` bytes from it."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % size)

    def answer(self) -> bytes:
        """Its next line. This blocks the event loop, if there is one: it has nothing to do."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the receiver has died")
        return line


@dataclass
class Run:
    """One measurement: what a peer gets to know."""

    receiver: Receiver
    workload: Workload
    count: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def address(self) -> tuple[str, int]:
        return self.receiver.address

    def messages(self) -> Iterator[Any]:
        """All messages: each one ``bytes``, or the tuple of its parts in a gathered workload."""
        workload = self.workload
        message = workload.parts if workload.gathered else workload.parts[0]
        return itertools.repeat(message, self.count)

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        """Time the block, and the time until the receiver has read everything."""
        if self.receiver.answer() != b"ready\n":
            raise RuntimeError("the receiver is out of step")
        start, cpu_start = time.perf_counter(), time.process_time()
        yield
        count = int(self.receiver.answer())
        self.seconds = time.perf_counter() - start
        self.cpu_seconds = time.process_time() - cpu_start
        if count != self.count * self.workload.size:
            raise RuntimeError(f"the receiver got {count} bytes of {self.workload}")


@dataclass
class Series:
    """All that was measured of one peer under one workload."""

    workload: Workload
    peer: Peer
    messages: int
    rounds: list[Run] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Messages per second, round by round."""
        return [run.count / run.seconds for run in self.rounds]

    @property
    def rate(self) -> float:
        """Messages per second, the median of the rounds."""
        return statistics.median(self.rates)

    @property
    def cpu_time(self) -> float:
        """Seconds of this process's CPU per message: of use on a machine that others use, too."""
        return statistics.median(run.cpu_seconds / run.count for run in self.rounds)


def measure_once(receiver: Receiver, workload: Workload, peer: Peer, count: int) -> Run:
    """Send ``count`` messages. Connecting and starting the loop are not timed."""
    receiver.expect(count * workload.size)
    run = Run(receiver, workload, count)
    gc.collect()
    peer.measure(run)
    return run


def calibrate(receiver: Receiver, workload: Workload, peer: Peer, seconds: float) -> int:
    """How many messages take about ``seconds``."""
    limit = max(1, peer.max_bytes // workload.size)
    count = 1
    while True:
        took = measure_once(receiver, workload, peer, count).seconds
        if took > seconds / 5 or count == limit:
            return min(limit, max(1, round(count * seconds / took)))
        count = min(limit, count * min(30, max(2, round(seconds / 3 / took))))


def measure_all(
    workloads: list[Workload],
    peers: list[Peer],
    rounds: int,
    seconds: float | None,
    progress: Callable[[str], None],
) -> list[Series]:
    """Measure every peer under every workload, the peers taking turns in every round.

    Args:
        workloads: the kinds of message.
        peers: those that are installed.
        rounds: how often each is measured.
        seconds: about how long each measurement takes; None sends a handful of messages.
        progress: is told what comes next.
    """
    result = []
    with Receiver() as receiver:
        for workload in workloads:
            progress(workload.name)
            series = []
            for peer in peers:
                if workload.size <= peer.max_message:
                    count = 3 if seconds is None else calibrate(receiver, workload, peer, seconds)
                    series.append(Series(workload, peer, count))
            for number in range(rounds):
                progress(f"{workload.name}, round {number + 1} of {rounds}")
                # The order is rotated, so that nobody always has the machine's best moment.
                first = number * len(series) // rounds
                for one in series[first:] + series[:first]:
                    one.rounds.append(measure_once(receiver, workload, one.peer, one.messages))
            result += series
    return result
