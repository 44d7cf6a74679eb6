"""Uploads that are limited to 1 MB/s, all connections together.

They share one bucket, and so its rate, in equal parts. If one of them ends, the others are faster.

Prints::

    small: 700000 bytes in 2 seconds
    large: 1600000 bytes in 4 seconds
    large: 1600000 bytes in 4 seconds
    all: 1.0 MB per second
"""

from __future__ import annotations

import trio

from trio_asyncwrite import Sink, ThrottledWriter, TokenBucket


async def upload(name: str, stream: trio.abc.SendStream, size: int, bucket: TokenBucket) -> None:
    began = trio.current_time()
    async with ThrottledWriter(stream, bucket) as writer:
        await writer.send_all(bytes(size))
    print(f"{name}: {size} bytes in {trio.current_time() - began:.0f} seconds")


async def main() -> None:
    # For each process one bucket. Its rate may be changed at any time: bucket.rate = 2_000_000
    bucket = TokenBucket(1_000_000)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name, size in (("small", 700_000), ("large", 1_600_000), ("large", 1_600_000)):
            # Sinks here; connections are used in the same way.
            nursery.start_soon(upload, name, Sink(), size, bucket)
    rate = 3_900_000 / (trio.current_time() - began)
    print(f"all: {rate / 1e6:.1f} MB per second")


if __name__ == "__main__":
    trio.run(main)
