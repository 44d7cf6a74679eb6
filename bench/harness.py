"""How one measurement is made, and how many."""

from __future__ import annotations

import atexit
import contextlib
import enum
import functools
import gc
import importlib.util
import itertools
import math
import random
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import trustme
from receiver import GOODBYE_SIZE, HOST, PING_SIZE, RECORD_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

#: The most plaintext that a TLS record takes (RFC 8446, section 5.1).
RECORD_SIZE = 16384

#: How many turns in memory are timed at a time: enough to make reading the clocks negligible.
BATCH = 1000


class Family(enum.Enum):
    """What is done over and over. Each has its own peers; the value is how it is chosen."""

    TCP = "tcp"
    TLS = "tls"
    PING = "ping"
    HANDSHAKES = "handshakes"
    CLOSING = "closing"
    FILES = "files"
    LAYERS = "layers"


@dataclass(frozen=True)
class Workload:
    """A message to send, in one part or several that are to leave together; or a connection.

    Of files, it is the file. In the family of layers it is an operation in memory, which needs no
    receiver.
    """

    name: str
    family: Family
    parts: tuple[bytes, ...] = ()
    #: How large the file is, in bytes.
    file_size: int = 0

    @property
    def tls(self) -> bool:
        return self.name.startswith("TLS ")

    @property
    def in_memory(self) -> bool:
        return self.family is Family.LAYERS

    @property
    def gathered(self) -> bool:
        return len(self.parts) > 1

    @property
    def size(self) -> int:
        return self.file_size or sum(map(len, self.parts))

    def order(self, count: int) -> str:
        """The line that tells the receiver what to do."""
        if self.family in {Family.TCP, Family.FILES}:
            return f"bytes {count * self.size}"
        if self.family is Family.TLS:
            return "tls 1"
        if self.family is Family.PING:
            return f"{'tls-ping' if self.tls else 'ping'} {count}"
        return f"tls {count}" if self.tls else f"ends {count}"

    def fulfils(self, count: int, counted: int) -> bool:
        """Whether the receiver got what it should have, given its answer."""
        if not self.tls or self.family is Family.PING:
            return counted == (count * self.size or count)
        connections = 1 if self.parts else count
        # Of records there are as few as possible, or as many as whole messages need.
        fewest = math.ceil(count * self.size / RECORD_SIZE)
        most = count * math.ceil(self.size / RECORD_SIZE)
        overhead = counted - count * self.size - connections * GOODBYE_SIZE
        return RECORD_OVERHEAD * fewest <= overhead <= RECORD_OVERHEAD * most


def messages(prefix: str, family: Family, *sizes: tuple[str, int]) -> tuple[Workload, ...]:
    return tuple(Workload(prefix + name, family, (bytes(size),)) for name, size in sizes)


#: The operations on layers.
WRITE_FLUSH, MAKE_DROP, ACLOSE, BY_REF = "write + flush", "make + drop", "aclose", "by_ref"

WORKLOADS = (
    *messages("", Family.TCP, ("64 B", 64), ("1 KiB", 1024), ("16 KiB", 16384)),
    *messages("", Family.TCP, ("64 KiB", 65536), ("1 MiB", 1 << 20)),
    Workload("24 B + 64 KiB", Family.TCP, (bytes(24), bytes(65536))),
    *messages("TLS ", Family.TLS, ("64 B", 64), ("4 KiB", 4096)),
    *messages("TLS ", Family.TLS, ("64 KiB", 65536), ("1 MiB", 1 << 20)),
    *messages("", Family.PING, ("ping", PING_SIZE), ("TLS ping", PING_SIZE)),
    Workload("TLS handshake", Family.HANDSHAKES),
    Workload("closing", Family.CLOSING),
    Workload("file, 16 MiB", Family.FILES, file_size=16 << 20),
    Workload(WRITE_FLUSH, Family.LAYERS),
    Workload(MAKE_DROP, Family.LAYERS),
    Workload(ACLOSE, Family.LAYERS),
    Workload(BY_REF, Family.LAYERS),
)


@dataclass(frozen=True)
class Peer:
    """One way to do it.

    Attributes:
        family: the workloads that it is for.
        name: as it is printed.
        kind: "ours", "async" or "blocking".
        start: runs ``main``.
        main: connects, waits for the receiver, and then does what is measured.
        needs: the packages beyond our own dependencies.
        min_message, max_message: between which sizes it is measured, in bytes.
        max_bytes: the most that it may be asked to send in one measurement, in bytes.
    """

    family: Family
    name: str
    kind: str
    start: Callable[[Callable[[Run], Any], Run], None]
    main: Callable[[Run], Any]
    needs: tuple[str, ...] = ()
    min_message: int = 0
    max_message: int = sys.maxsize
    max_bytes: int = sys.maxsize

    def measure(self, run: Run) -> None:
        self.start(self.main, run)

    def does(self, workload: Workload) -> bool:
        fits = self.min_message <= workload.size <= self.max_message
        return workload.family is self.family and fits

    @property
    def installed(self) -> bool:
        return all(importlib.util.find_spec(name) for name in self.needs)


# ---- The other process ---------------------------------------------------------------------


def allow_descriptors(wanted: int) -> int:
    """Have the system allow ``wanted`` open files, or as many as it does; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def cached_file(size: int) -> IO[bytes]:
    """An open file of so many bytes, which the system has in memory: it was just written."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as this process
    atexit.register(file.close)
    block = random.Random(size).randbytes(1 << 20)
    for _ in range(size >> 20):
        file.write(block)
    return file


@functools.cache
def client_context() -> ssl.SSLContext:
    """Every peer's. One version and one library leave no choice of the cipher."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    authority().configure_trust(context)
    return context


class Receiver:
    """The receiving process; a context manager."""

    def __enter__(self) -> Self:
        certificate = authority().issue_cert(HOST).private_key_and_cert_chain_pem
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "certificate.pem")
            path.write_bytes(certificate.bytes())
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("receiver.py"), path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
            )
            if self.answer() != b"started\n":  # it has read the certificate
                raise RuntimeError("the receiver is out of step")
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._process as process:
            process.kill()

    def expect(self, order: str) -> int:
        """Have it do as the line says; return the port to connect to."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())
        return int(self.answer())

    def answer(self) -> bytes:
        """Its next line. This blocks the event loop, if there is one: it has nothing to do."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the receiver has died")
        return line


# ---- Measuring -----------------------------------------------------------------------------


@dataclass
class Run:
    """One measurement: what a peer gets to know."""

    receiver: Receiver
    workload: Workload
    count: int
    port: int
    traced: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    #: The seconds of each round trip, in the family of pings.
    latencies: list[float] = field(default_factory=list)

    def connect(self) -> socket.socket:
        """A connection that is blocking, and nobody's way of connecting in particular."""
        sock = socket.create_connection((HOST, self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def file(self) -> IO[bytes]:
        """The file to send, from its start, ``count`` times."""
        return cached_file(self.workload.file_size)

    def messages(self) -> Iterator[Any]:
        """All messages: each one ``bytes``, or the tuple of its parts in a gathered workload."""
        workload = self.workload
        message = workload.parts if workload.gathered else workload.parts[0]
        return itertools.repeat(message, self.count)

    def batches(self) -> Iterator[range]:
        """All turns, in batches: between two of them there is time that is not measured."""
        for done in range(0, self.count, BATCH):
            yield range(min(BATCH, self.count - done))

    def pings(self) -> Iterator[bytes]:
        """All requests; from one to the next a round trip is timed."""
        for message in self.messages():
            begin = time.perf_counter()
            yield message
            self.latencies.append(time.perf_counter() - begin)

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        """Time the block, and the time until the receiver has read everything.

        In memory there may be several blocks; their times are added up.
        """
        in_memory = self.workload.in_memory
        if not in_memory and self.receiver.answer() != b"ready\n":
            raise RuntimeError("the receiver is out of step")
        if self.traced:
            tracemalloc.start()
        start, cpu_start = time.perf_counter(), time.process_time()
        yield
        counted = 0 if in_memory else int(self.receiver.answer())
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu_start
        if self.traced:
            _, self.peak_memory = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        if not in_memory and not self.workload.fulfils(self.count, counted):
            raise RuntimeError(f"the receiver counted {counted} in {self.count} x {self.workload}")


@dataclass
class Series:
    """All that was measured of one peer under one workload."""

    workload: Workload
    peer: Peer
    count: int
    rounds: list[Run] = field(default_factory=list)
    #: What it needed in bytes beyond what it had before, at most; only of connections closed.
    peak_memory: int | None = None

    @property
    def rates(self) -> list[float]:
        """How often per second, round by round."""
        return [run.count / run.seconds for run in self.rounds]

    @property
    def rate(self) -> float:
        """How often per second, the median of the rounds."""
        return statistics.median(self.rates)

    @property
    def cpu_time(self) -> float:
        """Seconds of this process's CPU each: of use on a machine that others use, too."""
        return statistics.median(run.cpu_seconds / run.count for run in self.rounds)

    def latency(self, percent: int) -> float:
        """What so many percent of the round trips stay below, in seconds; the rounds' median."""
        return statistics.median(
            sorted(run.latencies)[len(run.latencies) * percent // 100] for run in self.rounds
        )


def measure_once(
    receiver: Receiver, workload: Workload, peer: Peer, count: int, *, traced: bool = False
) -> Run:
    """Do it ``count`` times. Starting the loop is not timed, nor is connecting to send."""
    port = 0 if workload.in_memory else receiver.expect(workload.order(count))
    run = Run(receiver, workload, count, port, traced)
    gc.collect()
    peer.measure(run)
    return run


def calibrate(receiver: Receiver, workload: Workload, peer: Peer, seconds: float) -> int:
    """How many messages or connections take about ``seconds``."""
    limit = max(1, peer.max_bytes // max(1, workload.size))
    count = 1
    while True:
        took = measure_once(receiver, workload, peer, count).seconds
        if took > seconds / 5 or count == limit:
            return min(limit, max(1, round(count * seconds / took)))
        count = min(limit, count * min(30, max(2, round(seconds / 3 / took))))


class Effort(NamedTuple):
    """How much is done.

    Attributes:
        rounds: how often each peer is measured.
        seconds: about how long each measurement takes; None sends a handful of messages.
        connections: how many of them are closed at once.
        idle_connections: how many of them the memory of an idle one is the mean of.
        slow_milliseconds: for how long a slow reader reads.
        queued_messages: how many messages wait in one writer, in all rounds together.
    """

    rounds: int
    seconds: float | None
    connections: int
    idle_connections: int
    slow_milliseconds: int
    queued_messages: int


def allowed_connections(effort: Effort) -> int:
    """How many connections are closed at once: as many as wanted, or as the system allows."""
    # Either process has one end of each. What else it has open are a few dozen.
    return min(effort.connections, allow_descriptors(effort.connections + 100) - 100)


def turns(receiver: Receiver, workload: Workload, peer: Peer, effort: Effort) -> int:
    """How often a measurement does it."""
    if workload.family is Family.CLOSING:
        return allowed_connections(effort)
    if effort.seconds is None:
        return 3
    return calibrate(receiver, workload, peer, effort.seconds)


def measure_all(
    workloads: list[Workload],
    peers: list[Peer],
    effort: Effort,
    progress: Callable[[str], None],
) -> list[Series]:
    """Measure every peer under every workload, the peers taking turns in every round.

    Args:
        workloads: what to do.
        peers: those that are installed.
        effort: how much of it.
        progress: called with a line of text before each measurement.
    """
    result = []
    allowed_connections(effort)  # before the receiver starts, which inherits the limit
    with Receiver() as receiver:
        for workload in workloads:
            progress(workload.name)
            series = []
            for peer in filter(lambda peer: peer.does(workload), peers):
                count = turns(receiver, workload, peer, effort)
                series.append(Series(workload, peer, count))
            for number in range(effort.rounds):
                progress(f"{workload.name}, round {number + 1} of {effort.rounds}")
                # The order is rotated, so that nobody always has the machine's best moment.
                first = number * len(series) // effort.rounds
                for one in series[first:] + series[:first]:
                    one.rounds.append(measure_once(receiver, workload, one.peer, one.count))
            if workload.family is Family.CLOSING:
                progress(f"{workload.name}, memory")  # takes its time, so it is not timed
                for one in series:
                    traced = measure_once(receiver, workload, one.peer, one.count, traced=True)
                    one.peak_memory = traced.peak_memory
            result += series
    return result
