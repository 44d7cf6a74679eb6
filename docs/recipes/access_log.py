"""An access log that knows the bytes really sent, and not only those that were written.

A MeteredWriter counts what passes it. What the layers below still hold when all is over was not
sent. The report of the close tells the rest of the story.

Prints::

    the reader: 20000 of 20000 bytes sent, 0.0 s waited, clean
    the one that leaves: 12000 of 20000 bytes sent, 1.0 s waited, broken
    the one that stalls: 4000 of 20000 bytes sent, 5.0 s waited, timed out
"""

from __future__ import annotations

import contextlib

import trio

from trio_asyncwrite import BufWriter, DuplexStream, MeteredWriter, close_gracefully, duplex

BODY = bytes(20_000)


async def respond(name: str, stream: trio.abc.Stream) -> None:
    meter = MeteredWriter(stream)
    writer = BufWriter(meter)
    with contextlib.suppress(trio.BrokenResourceError):  # the report says so, too
        await writer.write_all(BODY)
    report = await close_gracefully(writer, timeout=5, linger=1)
    # Valid after the close, whatever has happened.
    sent = meter.accepted_bytes - meter.unsent_bytes
    waited = f"{meter.seconds_waited:.1f} s waited"
    print(f"{name}: {sent} of {len(BODY)} bytes sent, {waited}, {report.outcome.value}")


async def read(stream: DuplexStream, most: float) -> None:
    """A client: it reads all, or it reads some, thinks, and leaves."""
    count = 0
    while chunk := await stream.receive_some(4000):
        count += len(chunk)
        if count >= most:
            await trio.sleep(1)
            break
    await stream.aclose()


async def main() -> None:
    for name, most in (("the reader", 1e9), ("the one that leaves", 8000)):
        ours, theirs = duplex(capacity=4000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, theirs, most)
            await respond(name, ours)
    ours, theirs = duplex(capacity=4000)
    await respond("the one that stalls", ours)
    await theirs.aclose()


if __name__ == "__main__":
    trio.run(main)
