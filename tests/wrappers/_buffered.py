"""What the tests of BufWriter write to, and what always holds for one."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncWrite, Buf, BufWriter, NotReady
from trio_asyncwrite._core._stack import begin_shutdown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Inner(AsyncWrite):
    """A writer that takes at most ``most`` bytes a call, and is ready when ``ready`` says so."""

    def __init__(self, most: int = 2**30, ready: Iterator[bool] | None = None) -> None:
        self.most = most
        self.ready = itertools.repeat(True) if ready is None else ready
        self.taken = bytearray()
        #: What every write offered, in how many pieces.
        self.offers: list[list[bytes]] = []
        self.dirty = False
        self.flushes = 0
        self.shutdowns = 0
        self.waits = 0

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return self.poll_write_vectored([data])

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        self.lifecycle.check_write(self)
        self.require_ready()
        self.offers.append([bytes(data) for data in buffers])
        some = b"".join(buffers)[: self.most]
        self.taken += some
        self.dirty = True
        return len(some)

    def poll_flush(self) -> None:
        super().poll_flush()
        if self.dirty:
            self.require_ready()
            self.dirty = False
            self.flushes += 1

    def poll_shutdown(self) -> None:
        if begin_shutdown(self):
            self.require_ready()
            self.shutdowns += 1
            super().poll_shutdown()

    def require_ready(self) -> None:
        if not next(self.ready):
            raise NotReady(self.wait)

    async def wait(self) -> None:
        self.waits += 1
        await trio.lowlevel.checkpoint()


class NotGathering(Inner):
    """One that knows nothing of gathered writes."""

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return Inner.poll_write_vectored(self, [data])

    poll_write_vectored = AsyncWrite.poll_write_vectored


class Gate(Inner):
    """One that is ready once somebody opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = trio.Event()

    def require_ready(self) -> None:
        if not self.gate.is_set():
            raise NotReady(self.gate.wait)


def every_second() -> Iterator[bool]:
    """Not ready, ready, not ready ..."""
    return itertools.cycle([False, True])


def never() -> Iterator[bool]:
    return itertools.repeat(False)


def check_room(writer: BufWriter[Any]) -> None:
    """``spare_capacity`` is free, behind what waits; and a writer that refuses is not fast."""
    waiting = writer.unsent_bytes - writer.inner.unsent_bytes
    assert writer.held_bytes == waiting
    assert 0 <= writer.spare_capacity <= writer.capacity - waiting
    assert writer.lifecycle.refusal is None or not writer.lifecycle.fast.left
    # Those below keep it alive, while it is open and holds bytes, or knows what is missing.
    is_kept = any(one is writer for one in writer.inner.lifecycle.holders)
    is_witness = writer.lifecycle.is_witness
    assert is_kept == ((waiting > 0 or is_witness) and not writer.closed)


def memory(writer: BufWriter[Any]) -> list[object]:
    """What the writer keeps bytes in."""
    return [thing for thing in vars(writer).values() if isinstance(thing, io.BytesIO)]


async def assert_refuses(writer: BufWriter[Any], error: type[Exception], *, flush: bool) -> None:
    """Every way to write is refused, twice, and what waits stays as it is."""
    waiting = writer.unsent_bytes
    for _ in range(2):
        for data in (b"", b"x", bytes(writer.capacity)):
            for poll in (
                lambda data=data: writer.poll_write(data),
                lambda data=data: writer.poll_write(bytearray(data)),
                lambda data=data: writer.poll_write_vectored([data]),
                writer.poll_ready,
            ):
                with pytest.raises(error):
                    poll()
            for call in (
                lambda data=data: writer.write(data),
                lambda data=data: writer.write_all(data),
                lambda data=data: writer.write_all_buf(Buf(data)),
                lambda data=data: writer.write_all_vectored([data]),
                lambda data=data: writer.send_all(data),
                writer.wait_send_all_might_not_block,
            ):
                with pytest.raises(error):
                    await call()
        if flush:
            with pytest.raises(error):
                writer.poll_flush()
            with pytest.raises(error):
                await writer.flush()
            with pytest.raises(error):
                writer.poll_shutdown()
            with pytest.raises(error):
                await writer.shutdown()
    check_room(writer)
    assert writer.unsent_bytes == waiting
