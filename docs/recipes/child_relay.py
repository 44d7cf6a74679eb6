"""Feed a child process and read from it at once, also if it reads only a part.

The first child sorts all that it is given. The second one leaves after one line: to write the rest
fails, which is no crash, and what it has answered is still received.

Prints::

    sort: ended after 30000 bytes, and 30000 came back
    head: write failed, and 6 bytes came back
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import trio

from trio_asyncwrite import LaneOutcome, ReadWritePair, Relay, duplex

SORT = "import sys; sys.stdout.writelines(sorted(sys.stdin))"
HEAD = "import sys; sys.stdout.write(sys.stdin.readline())"


async def feed(program: str, text: bytes) -> tuple[Relay, bytes]:
    """Send ``text`` to a child's standard input; what its standard output says."""
    start = partial(
        trio.run_process,
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    ours, theirs = duplex(65536)  # in a program: a connection
    async with trio.open_nursery() as nursery:
        child = await nursery.start(start)
        async with ReadWritePair(child.stdout, child.stdin) as pipes, theirs:
            relay = Relay(theirs, pipes)
            nursery.start_soon(send, ours, text)
            nursery.start_soon(relay.run)
            answer = b"".join([bytes(chunk) async for chunk in ours])
        await trio.aclose_forcefully(ours)
    return relay, answer


async def send(stream: trio.abc.HalfCloseableStream, text: bytes) -> None:
    try:
        await stream.send_all(text)
        await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # nobody wants the rest


async def main() -> None:
    text = b"".join(b"%05d\n" % number for number in reversed(range(5000)))
    relay, answer = await feed(SORT, text)
    assert answer == b"".join(sorted(text.splitlines(keepends=True)))
    lane = relay.a_to_b
    print(f"sort: {lane.outcome.value} after {lane.bytes} bytes, and {len(answer)} came back")

    relay, answer = await feed(HEAD, text * 100)
    assert relay.b_to_a.outcome is LaneOutcome.ENDED
    print(f"head: {relay.a_to_b.outcome.value}, and {len(answer)} bytes came back")


if __name__ == "__main__":
    trio.run(main)
