"""Compression: the CPU time that the writer adds to its encoder, and the memory of an idle writer.

``python bench/compression.py`` feeds each encoder 32 KiB at a time: alone, and through writes of a
CompressWriter. Both are repeated, and for each piece the fastest of all rounds counts, so that it
matters little what else the machine does meanwhile.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import time
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from isal import isal_zlib
from zlib_ng import zlib_ng

from trio_asyncwrite import Sink
from trio_asyncwrite.compression import (
    CompressWriter,
    brotli_compressor,
    gzip_compressor,
    zstd_compressor,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_asyncwrite.compression import Compressor

PIECE = 32768

ENCODERS: dict[str, Callable[[], Compressor]] = {
    "gzip, zlib": partial(gzip_compressor, zlib=zlib),
    "gzip, zlib-ng": partial(gzip_compressor, zlib=zlib_ng),
    "gzip, isal": partial(gzip_compressor, zlib=isal_zlib),
    "zstd": zstd_compressor,
    "brotli": brotli_compressor,
}


def json_like(size: int) -> bytes:
    numbers = random.Random(1)
    row = '{"id": %d, "name": "user-%d", "score": %.5f, "tags": ["a%d", "b"]},\n'
    parts, length = [], 0
    while length < size:
        n = len(parts)
        parts.append(row % (n, numbers.randrange(10**6), numbers.random(), n % 50))
        length += len(parts[-1])
    return "".join(parts).encode()[:size]


def bare(make: Callable[[], Compressor], pieces: list[bytes]) -> list[int]:
    """The CPU time that each piece takes, in nanoseconds."""
    encoder = make()
    times = []
    for piece in pieces:
        began = time.process_time_ns()
        encoder.compress(piece)
        times.append(time.process_time_ns() - began)
    return times


async def written(make: Callable[[], Compressor], pieces: list[bytes]) -> list[int]:
    """The same through a writer, checkpoints included."""
    times = []
    async with CompressWriter(Sink(), make()) as writer:
        for piece in pieces:
            began = time.process_time_ns()
            await writer.write_all(piece)
            times.append(time.process_time_ns() - began)
    return times


def fastest(rounds: list[list[int]]) -> int:
    return sum(map(min, zip(*rounds, strict=True)))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def idle_memory(make: Callable[[], Compressor], count: int) -> float:
    """Bytes per writer that has sent a message and waits for the next one."""
    kept = []
    message = json_like(PIECE)
    for number in range(count + 5):
        if number == 5:
            gc.collect()
            before = resident()
        writer = CompressWriter(Sink(), make())
        await writer.send_all(message)
        kept.append(writer)
    gc.collect()
    used = (resident() - before) / count
    for writer in kept:
        await writer.aclose()
    return used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, default=4 << 20, help="bytes")
    parser.add_argument("--smoke", action="store_true", help="see that it runs")
    options = parser.parse_args()
    if options.smoke:
        options.rounds, options.size = 1, 1 << 17
    data = json_like(options.size)
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    print(
        f"{'':16}{'MB/s, bare':>12}{'us a piece':>12}{'written':>12}{'ratio':>8}{'idle, MiB':>12}"
    )
    for name, make in ENCODERS.items():
        rounds = [
            (bare(make, pieces), trio.run(written, make, pieces)) for _ in range(options.rounds)
        ]
        alone, ours = (fastest(list(times)) for times in zip(*rounds, strict=True))
        row = f"{name:16}{len(data) / alone * 1000:12.0f}"
        row += "".join(f"{total / len(pieces) / 1000:12.1f}" for total in (alone, ours))
        row += f"{ours / alone:7.3f}x"
        if Path("/proc/self/statm").exists():
            count = 2 if options.smoke else 50
            row += f"{trio.run(idle_memory, make, count) / (1 << 20):12.2f}"
        print(row)


if __name__ == "__main__":
    main()
