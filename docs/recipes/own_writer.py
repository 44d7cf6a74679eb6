"""Write your own writer, and check it.

This one lets no more than so many bytes per second through. A writer is its polls: plain
functions that make progress at once or raise NotReady, with nothing changed. All the awaits
(``write_all_buf``, ``flush``, ``send_all``, ``aclose`` ...) come from AsyncWrite, and with them
that a cancelled one can be resumed.

Prints::

    checked
    4000 bytes took 0.3 seconds
"""

from __future__ import annotations

from typing import final

import trio
import trio.abc

from trio_asyncwrite import AsyncWrite, NotReady, simplex, wrap_stream
from trio_asyncwrite.testing import check_async_write


@final
class RateLimiter(AsyncWrite):
    """Passes on at most ``rate`` bytes per second, in pieces of at most ``burst`` bytes."""

    def __init__(self, inner: trio.abc.SendStream, *, rate: float, burst: int) -> None:
        # Takes any Trio stream, and any writer. As it is called `inner`, all that this class
        # does not define is passed on to it: flush, shutdown, closing.
        self.inner: AsyncWrite = wrap_stream(inner)
        self._rate = rate
        self._burst = burst
        self._free_at = 0.0  # when the next piece may go, on Trio's clock

    def poll_ready(self) -> None:
        # Raises what a writer that is closed, shut down, broken or torn has to raise.
        self.lifecycle.check_write(self)
        if trio.current_time() < self._free_at:
            # NotReady carries its own wait: here a clock. Every task that awaits the write,
            # through however many layers, waits for that.
            raise NotReady(self._wait_until_free)
        self.inner.poll_ready()

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.poll_ready()
        # This may raise NotReady as well, with a wait for the transport. So what must be
        # remembered is changed after it, when the bytes have been accepted.
        count = self.inner.poll_write(data[: self._burst])
        self._free_at = trio.current_time() + count / self._rate
        return count

    async def _wait_until_free(self) -> None:
        await trio.sleep_until(self._free_at)


async def main() -> None:
    # The checker tries all that a writer owes its users, cancellation at every place included.
    await check_async_write(make_pair, make_clogged_pair)
    print("checked")

    writer, reader = simplex(capacity=65536)
    async with reader, RateLimiter(writer, rate=10_000, burst=1000) as limiter:
        began = trio.current_time()
        await limiter.write_all(bytes(4000))
        print(f"4000 bytes took {trio.current_time() - began:.1f} seconds")


async def make_pair() -> tuple[RateLimiter, trio.abc.ReceiveStream]:
    """Make a writer to check, and the stream that receives what it sends."""
    writer, reader = simplex(capacity=65536)
    return RateLimiter(writer, rate=1e9, burst=65536), reader


async def make_clogged_pair() -> tuple[RateLimiter, trio.abc.ReceiveStream]:
    """The same, but the writer has to wait until somebody receives."""
    limiter, reader = await make_pair()
    limiter.inner.poll_write(bytes(65536))
    return limiter, reader


if __name__ == "__main__":
    trio.run(main)
