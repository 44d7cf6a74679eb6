"""Write your own layer: one that holds bytes, encodes them, and writes a trailer.

It writes runs of equal bytes as a count and the byte, and a count of 0 at the end. A reader that
misses the 0 knows that the stream was cut short.

Prints::

    checked
    5000 bytes were sent as 43, and 5000 arrived
    a forgotten layer is closed with its stream: b'aaab'
    a cancelled close writes no trailer: the stream was cut short
"""

from __future__ import annotations

import contextlib
import itertools
from typing import final

import trio
import trio.abc

from trio_asyncwrite import AsyncRead, AsyncWrite, NotReady, simplex, wrap_stream
from trio_asyncwrite.testing import check_async_write


@final
class RunLengthWriter(AsyncWrite):
    """Collects a block of bytes, and writes it as runs."""

    # The answers to two questions that closing asks. The third, `epilogue`, is DATA by default,
    # as this class overrides poll_shutdown.
    encodes = True
    shows_truncation = True

    def __init__(self, inner: trio.abc.SendStream, block: int = 4096) -> None:
        self.inner: AsyncWrite = wrap_stream(inner)
        self._block = block
        self._plain = bytearray()  # accepted, and not encoded yet
        self._runs = bytearray()  # encoded, and not passed on yet
        self._plain_in_runs = 0
        self._has_trailer = False
        # A write that is shorter than this only fills `_plain`: it costs no trip through Trio.
        self.spare_capacity = self._block

    @property
    def held_bytes(self) -> int:  # type: ignore[override]
        """Those that were accepted, as the user counts them, and that `inner` has not."""
        return len(self._plain) + self._plain_in_runs

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.lifecycle.check_write(self)
        if len(self._plain) == self._block:
            # It may raise NotReady, or fail. Nothing of `data` was accepted then.
            self._pass_on()
            self._encode()
        part = data[: self._block - len(self._plain)]
        self._plain += part
        self.spare_capacity = self._block - len(self._plain)
        return len(part)

    def poll_flush(self) -> None:
        self.lifecycle.check_flush(self)
        # Whatever raises here, each byte is in exactly one place.
        self._pass_on()
        self._encode()
        self._pass_on()
        self.inner.poll_flush()

    def poll_shutdown(self) -> None:
        # It is called again after NotReady: the trailer must not be written twice.
        if not self._has_trailer:
            self._encode()
            self._runs += b"\0"
            self._has_trailer = True
        # Flushes, and then shuts `inner` down.
        super().poll_shutdown()

    def _pass_on(self) -> None:
        while self._runs:
            count = self.inner.poll_write(bytes(self._runs))
            del self._runs[:count]
        self._plain_in_runs = 0

    def _encode(self) -> None:
        for byte, run in itertools.groupby(self._plain):
            count = len(list(run))
            while count:
                self._runs += bytes([min(count, 255), byte])
                count -= min(count, 255)
        self._plain_in_runs += len(self._plain)
        self._plain.clear()
        self.spare_capacity = self._block


@final
class RunLengthReader(AsyncRead):
    """The other end."""

    def __init__(self, inner: AsyncRead) -> None:
        self.inner: AsyncRead = inner
        self._runs = bytearray()  # received, and not decoded yet
        self._plain = bytearray()  # decoded, and not returned yet
        self._has_trailer = False

    def poll_read(self, size: int, /) -> bytes:
        while not self._plain and not self._has_trailer:
            # It may raise NotReady. What came before is in the fields.
            data = self.inner.poll_read(size)
            if not data:
                raise trio.BrokenResourceError("the stream was cut short")
            self._runs += data
            self._decode()
        part = bytes(self._plain[:size])
        del self._plain[:size]
        return part

    def _decode(self) -> None:
        at = 0
        while at + 1 < len(self._runs) and self._runs[at]:
            self._plain += self._runs[at + 1 : at + 2] * self._runs[at]
            at += 2
        del self._runs[:at]
        self._has_trailer = self._runs.startswith(b"\0")


async def main() -> None:
    await check_async_write(make_pair, make_clogged_pair)
    print("checked")

    pipe, reader = simplex(capacity=65536)
    writer = RunLengthWriter(pipe)
    await writer.write_all(bytes(5000))
    await writer.shutdown()
    on_the_way = await reader.receive_some()
    there, again = simplex(capacity=65536)
    await there.write_all(on_the_way)
    arrived = await collect(RunLengthReader(again))
    print(f"5000 bytes were sent as {len(on_the_way)}, and {len(arrived)} arrived")

    # Layers know each other: closing the pipe flushes, and ends, everything above it.
    pipe, reader = simplex(capacity=65536)
    await RunLengthWriter(pipe).write_all(b"aaab")
    await pipe.aclose()
    print("a forgotten layer is closed with its stream:", await collect(RunLengthReader(reader)))

    pipe, reader = simplex(capacity=65536)
    writer = RunLengthWriter(pipe)
    await writer.write_all(b"aaab")
    await trio.aclose_forcefully(writer)
    try:
        await collect(RunLengthReader(reader))
    except trio.BrokenResourceError as exc:
        print("a cancelled close writes no trailer:", exc)


async def collect(reader: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in reader])


async def make_pair() -> tuple[RunLengthWriter, RunLengthReader]:
    """Make a writer to check, and the reader that decodes what it sends."""
    writer, reader = simplex(capacity=4096)
    return RunLengthWriter(writer), RunLengthReader(reader)


async def make_clogged_pair() -> tuple[RunLengthWriter, RunLengthReader]:
    """The same, but the writer has to wait until somebody receives."""
    pipe, reader = simplex(capacity=8)
    writer = RunLengthWriter(pipe, block=4)
    with contextlib.suppress(NotReady):
        while True:
            writer.poll_write(bytes(range(4)))
    return writer, RunLengthReader(reader)


if __name__ == "__main__":
    trio.run(main)
