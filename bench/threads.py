"""Measure write_from_thread beside a plain file, and stdout() beside its peers, in the same run.

python bench/threads.py [--rounds N] [--mib N] [--smoke]

A zip archive of random text is written to a file on disk, directly and through the writer, which is
an AllowStdIo over the same kind of file. A child of this process writes lines to a pipe, which a
thread reads. The peers take turns in every round. The results are medians.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import random
import statistics
import tempfile
import threading
import time
import zipfile
from typing import TYPE_CHECKING, Any

import trio

from trio_asyncwrite import AllowStdIo, BufWriter, PollEvented, write_from_thread
from trio_asyncwrite._transports._stdout import StandardWriter

if TYPE_CHECKING:
    from collections.abc import Callable

MEMBER = random.Random(7).randbytes(1 << 19).hex().encode()
LINE = b"a line as those of most programs are\n"


def write_zip(method: int, mib: int, file: Any) -> None:
    with zipfile.ZipFile(file, "w", method) as archive:
        for number in range(mib):
            archive.writestr(f"member {number}", MEMBER)


def write_small(count: int, file: Any) -> None:
    data = bytes(100)
    for _ in range(count):
        file.write(data)


def direct(function: Callable[[Any], None], file: Any) -> None:
    function(file)


def by_writer(function: Callable[[Any], None], file: Any) -> None:
    async def main() -> None:
        writer = AllowStdIo(file, close=False)
        await write_from_thread(writer, function)
        await writer.aclose()

    trio.run(main)


def in_thread(function: Callable[[Any], None], file: Any) -> None:
    """What a program does that has a whole file, and no stream to write to."""

    async def main() -> None:
        await trio.to_thread.run_sync(function, file)

    trio.run(main)


class Unseekable(io.FileIO):
    """A file that is written to as a stream: zipfile does more work for one that can seek."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation


def measure_functions(
    rounds: int, mib: int, small: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """Milliseconds for each function, by each way: by the clock, and of CPU."""
    functions = {
        f"zip of {mib} MiB, stored": functools.partial(write_zip, zipfile.ZIP_STORED, mib),
        f"zip of {mib} MiB, deflated": functools.partial(write_zip, zipfile.ZIP_DEFLATED, mib),
        f"{small} writes of 100 B": functools.partial(write_small, small),
    }
    ways = {"plain file": direct, "to_thread": in_thread, "write_from_thread": by_writer}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for title, function in functions.items():
                names = list(ways)[number % 3 :] + list(ways)[: number % 3]
                for name in names:
                    raw = Unseekable(f"{folder}/{number}", "wb")
                    file: Any = raw if name == "write_from_thread" else io.BufferedWriter(raw)
                    start, cpu_start = time.perf_counter(), time.process_time()
                    ways[name](function, file)
                    file.close()
                    seconds = time.perf_counter() - start
                    cpu = time.process_time() - cpu_start
                    runs = found.setdefault(title, {}).setdefault(name, [])
                    runs.append((seconds * 1e3, cpu * 1e3))
    return {
        title: {
            name: (
                statistics.median(run[0] for run in runs),
                statistics.median(run[1] for run in runs),
            )
            for name, runs in ways.items()
        }
        for title, ways in found.items()
    }


async def write_lines(make: Callable[[int], Any], number: int, count: int) -> None:
    async with make(number) as writer:
        for _ in range(count):
            await writer.write_all(LINE)


def print_lines(number: int, count: int) -> None:
    with open(number, "wb", closefd=False) as file:
        for _ in range(count):
            file.write(LINE)
            file.flush()


def measure_lines(rounds: int, count: int) -> dict[str, float]:
    """Microseconds for a line, to a pipe that a thread reads."""
    standard = functools.partial(StandardWriter, name="stdout")
    makes: dict[str, Callable[[int], Any]] = {
        "stdout().write_all": standard,
        "BufWriter(stdout()).write_all": lambda number: BufWriter(standard(number)),
        "PollEvented.write_all": lambda number: PollEvented(number, close=False),
        "AllowStdIo, offload": lambda number: AllowStdIo(
            open(number, "wb", closefd=False),  # noqa: SIM115 - of the writer
            offload=True,
        ),
    }
    ways: dict[str, Callable[[int, int], None]] = {
        name: functools.partial(_run_lines, make) for name, make in makes.items()
    }
    ways["blocking write and flush"] = print_lines
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            reading, writing = os.pipe()
            reader = threading.Thread(target=_read_all, args=(reading,))
            reader.start()
            start = time.perf_counter()
            way(writing, count)
            found.setdefault(name, []).append((time.perf_counter() - start) / count * 1e6)
            os.close(writing)
            reader.join()
    return {name: statistics.median(times) for name, times in found.items()}


def _run_lines(make: Callable[[int], Any], number: int, count: int) -> None:
    trio.run(write_lines, make, number, count)


def _read_all(number: int) -> None:
    while os.read(number, 65536):
        pass
    os.close(number)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: 5)")
    parser.add_argument("--mib", type=int, default=20, help="of plain bytes in the archive")
    parser.add_argument("--smoke", action="store_true", help="a little: does it still run?")
    options = parser.parse_args()
    rounds, mib, count = options.rounds, options.mib, 20_000
    if options.smoke:
        rounds, mib, count = 1, 1, 10
    print(f"{'function':<30}{'way':<22}{'ms':>10}{'ratio':>8}{'CPU ms':>10}{'ratio':>8}")
    for title, ways in measure_functions(rounds, mib, count).items():
        for name, (wall, cpu) in ways.items():
            ratio, cpu_ratio = (x / y for x, y in zip((wall, cpu), ways["plain file"], strict=True))
            print(f"{title:<30}{name:<22}{wall:>10.1f}{ratio:>8.2f}{cpu:>10.1f}{cpu_ratio:>8.2f}")
    print(f"\n{'lines to a pipe':<42}{'us per line':>20}")
    for name, microseconds in measure_lines(rounds, count).items():
        print(f"{name:<42}{microseconds:>20.2f}")


if __name__ == "__main__":
    main()
