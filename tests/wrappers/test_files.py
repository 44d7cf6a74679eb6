"""Files through the wrappers: each passes them on, in order, and keeps its promises."""

from __future__ import annotations

import errno
import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    FilePart,
    MeteredWriter,
    NotReady,
    ReadWritePair,
    SharedWriter,
    ThrottledWriter,
    TimeoutWriter,
    TokenBucket,
    simplex,
    split,
)
from trio_asyncwrite._core import _file_part
from trio_asyncwrite._core._file_not_ready import FileNotReady
from trio_asyncwrite._core._page_cache import PIECE

from .._disk import CONTENT, STATUS, nothing_in_memory, overwrite, path, raising
from .._patience import wait_all_tasks_blocked
from .._streams import connected, drain, unix_pair
from ..core._fakes import Layer, Wire, begin, cut_short, each, resource_warnings, run_cancelled
from ._buffered import Inner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ("path",)

SIZE = len(CONTENT)


@pytest.fixture
def file(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        yield file


@pytest.fixture
def zeros() -> Iterator[Any]:
    with Path("/dev/zero").open("rb") as file:
        yield file


class Kernel(Wire):
    """Takes files as a socket does, and remembers how it was asked."""

    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        count = super().poll_write_file(part, limit)
        if count:
            self.log[-1] = f"file {count}"
        return count


WRAPPERS: dict[str, Callable[[Any], AsyncWrite]] = {
    "BufWriter": BufWriter,
    "TimeoutWriter": lambda writer: TimeoutWriter(writer, idle=60),
    "MeteredWriter": MeteredWriter,
    "ThrottledWriter": lambda writer: ThrottledWriter(writer, TokenBucket(1e15)),
    "ByRef": lambda writer: writer.by_ref(),
    "ReadWritePair": lambda writer: ReadWritePair(simplex(1)[1], writer),
    "SharedWriter": SharedWriter,
    "a user's layer": Layer,
    "a tower": lambda writer: TimeoutWriter(SharedWriter(BufWriter(writer.by_ref())), idle=60),
}


@each(WRAPPERS, "wrap")
async def test_it_passes_the_file_on(wrap: Callable[[Any], AsyncWrite], file: Any) -> None:
    """Or the kernel could not send it (golang #21756: a wrapper that counts disabled writev)."""
    wire = Kernel(math.inf)
    writer = wrap(wire)
    part = FilePart(file)
    await writer.write_all_file(part)
    assert f"file {PIECE}" in wire.log
    await writer.flush()
    assert wire.sent == CONTENT
    assert part.offset == SIZE
    assert not part


async def test_a_half_passes_the_file_on(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    send = os.sendfile

    def sendfile(out: int, number: int, offset: int, count: int) -> int:
        calls.append(count)
        return send(out, number, offset, count)

    monkeypatch.setattr(os, "sendfile", sendfile)
    file.read()
    async with connected(unix_pair) as (stream, other):
        reader, writer = split(stream)

        async def send_all() -> None:
            await writer.write_all_file(FilePart(file))
            await writer.aclose()
            await reader.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all)
            assert await drain(other) == CONTENT
    assert calls


@each(WRAPPERS, "wrap")
async def test_every_order_of_writes_arrives_in_order(
    wrap: Callable[[Any], AsyncWrite], file: Any
) -> None:
    wire = Kernel(math.inf)
    writer = wrap(wire)
    await writer.write_all(b"head")
    await writer.write_all_file(FilePart(file, 0, 10))
    await writer.write_all(b"middle")
    await writer.write_all_file(FilePart(file, 1))
    await writer.write_all(b"tail")
    await writer.send_file(file, SIZE - 3)
    assert wire.sent == b"head" + CONTENT[:10] + b"middle" + CONTENT[1:] + b"tail" + CONTENT[-3:]
    assert writer.unsent_bytes == 0
    await writer.aclose()


@each(WRAPPERS, "wrap")
async def test_a_failure_of_the_file_breaks_no_layer(
    wrap: Callable[[Any], AsyncWrite], file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Kernel(math.inf)
    writer = wrap(wire)
    with monkeypatch.context() as patch:
        patch.setattr(_file_part, "pread", raising(OSError(errno.EIO, "bad sector")))
        with pytest.raises(OSError, match="bad sector") as caught:
            await writer.write_all_file(FilePart(file, 0, 200_000))
        assert type(caught.value) is OSError
    await writer.send_file(file)
    assert wire.sent == CONTENT


# ---- BufWriter -----------------------------------------------------------------------------------


async def test_a_buffer_sends_what_waits_together_with_the_first_bytes(file: Any) -> None:
    """One segment less than if it went first."""
    inner = Inner()
    writer = BufWriter(inner)
    await writer.write_all(b"head")
    await writer.write_all_file(FilePart(file))
    assert inner.offers[0] == [b"head", CONTENT[:PIECE]]
    await writer.flush()
    assert inner.taken == b"head" + CONTENT


async def test_a_buffer_collects_a_small_file(file: Any) -> None:
    inner = Inner()
    writer = BufWriter(inner, 100)
    await writer.write_all(b"head")
    await writer.write_all_file(FilePart(file, 0, 95))
    assert inner.offers == []
    assert writer.unsent_bytes == 99
    await writer.flush()
    assert inner.offers == [[b"head" + CONTENT[:95]]]


async def test_a_buffer_that_is_not_ready_accepts_nothing(file: Any) -> None:
    wire = Kernel()
    writer = BufWriter(wire, 10)
    await writer.write_all(b"head")
    part = FilePart(file)
    with pytest.raises(NotReady):
        writer.poll_write_file(part, 100)
    assert writer.unsent_bytes == 4
    await cut_short(partial(writer.write_all_file, part))
    assert part.offset == 0
    wire.give(2)
    await cut_short(partial(writer.write_all_file, part))
    assert (part.offset, writer.unsent_bytes) == (0, 2)
    wire.give(math.inf)
    await writer.write_all_file(part)
    await writer.flush()
    assert wire.sent == b"head" + CONTENT


# ---- TimeoutWriter -------------------------------------------------------------------------------


async def test_a_slow_peer_times_out_and_the_part_goes_on(
    file: Any, autojump_clock: trio.testing.MockClock
) -> None:
    wire = Kernel(10)
    writer = TimeoutWriter(wire, idle=5)
    part = FilePart(file)
    with pytest.raises(trio.TooSlowError):
        await writer.write_all_file(part)
    assert (part.offset, trio.current_time()) == (10, 5)
    wire.give(math.inf)
    await writer.write_all_file(part)
    assert wire.sent == CONTENT


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux only")
async def test_a_slow_disk_is_not_the_peer_s_doing(
    file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_in_memory(monkeypatch)
    writer = TimeoutWriter(Wire(), idle=1e-9)
    with pytest.raises(FileNotReady) as caught:
        writer.poll_write_file(FilePart(file), 10)
    await caught.value.wait()


# ---- SharedWriter --------------------------------------------------------------------------------


async def test_a_file_is_a_message_that_no_other_comes_into(file: Any) -> None:
    wire = Kernel(10)
    writer = SharedWriter(wire)
    part = FilePart(file)
    async with trio.open_nursery() as nursery:
        await begin(nursery, partial(writer.write_all_file, part))
        await begin(nursery, partial(writer.write_all, b"next"))
        assert part.offset == SIZE  # it has begun, and will be finished
        assert writer.unsent_bytes == SIZE - 10
        wire.give(math.inf)
    assert wire.sent == CONTENT + b"next"


async def test_cancelled_a_file_is_withdrawn_or_completed(path: Path) -> None:
    """Also when the caller has closed it meanwhile."""
    wire = Kernel()
    writer = SharedWriter(wire)
    with path.open("rb") as file:
        part = FilePart(file, 5)
        await cut_short(partial(writer.write_all_file, part))
        assert (part.offset, writer.unsent_bytes) == (5, 0)
        wire.give(10)
        await cut_short(partial(writer.write_all_file, part))
        assert (part.offset, part.remaining, writer.unsent_bytes) == (SIZE, 0, SIZE - 15)
        assert not part
    wire.give(math.inf)
    await writer.write_all(b"next")
    assert wire.sent == CONTENT[5:] + b"next"
    assert writer.lifecycle.holding == 0


async def test_a_file_that_has_begun_is_sent_by_a_flush_or_a_close(file: Any) -> None:
    for end in ("flush", "aclose"):
        wire = Kernel(10)
        writer = SharedWriter(wire)
        run = await run_begun(partial(writer.send_file, file))
        assert run == "cancelled"
        wire.give(math.inf)
        if end == "flush":
            await writer.flush()
            assert wire.sent == CONTENT
        # Abandoned, it makes one attempt.
        with resource_warnings() as messages:
            await writer.aclose()
        assert wire.sent == CONTENT
        assert messages == []


async def begin_to_share(writer: SharedWriter[Any], part: FilePart) -> None:
    """Begin a file, and be cancelled; a thread reads its first bytes, so that takes a moment."""
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(writer.write_all_file, part))
        while part:
            await trio.lowlevel.checkpoint()
        run.scope.cancel()
    assert run.outcome == "cancelled"


async def run_begun(operation: Callable[[], Any]) -> str:
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, operation)
        run.scope.cancel()
    return run.outcome


@pytest.mark.parametrize("count", [PIECE, PIECE + 1, 100])
async def test_a_shared_file_that_is_too_short_is_not_begun(
    path: Path, file: Any, count: int
) -> None:
    os.truncate(path, count - 1)
    wire = Kernel(math.inf)
    writer = SharedWriter(wire)
    part = FilePart(file, 0, count)
    with pytest.raises(EOFError, match="the file ends 1 byte too early"):
        await writer.write_all_file(part)
    assert part.offset == 0
    await writer.write_all(b"next")
    assert wire.sent == b"next"


@pytest.mark.parametrize("how", ["truncated", "unreadable"])
async def test_a_shared_file_that_cannot_be_completed_tears(
    path: Path, file: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Half a message is on its way, so nothing may follow it."""
    wire = Kernel(10)
    writer = SharedWriter(wire)
    before = descriptors()
    await begin_to_share(writer, FilePart(file, offload=True))
    assert descriptors() == before + 1
    if how == "truncated":
        os.truncate(path, 1000)
    else:
        monkeypatch.setattr(_file_part, "pread", raising(OSError(errno.EIO, "bad sector")))
    wire.give(math.inf)
    text = "too early" if how == "truncated" else "bad sector"
    with pytest.raises(trio.BrokenResourceError, match=f"cannot be sent: .*{text}"):
        await writer.write_all(b"next")
    for one in (writer, wire):
        with pytest.raises(trio.BrokenResourceError, match="is torn"):
            await one.write(b"x")
    assert b"next" not in wire.sent
    assert descriptors() == before
    with resource_warnings() as messages:
        await writer.aclose()
    assert wire.releases == ["release False"]
    assert messages


async def test_a_shared_file_that_is_truncated_at_its_first_poll_is_not_begun(
    path: Path, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Kernel(math.inf)
    writer = SharedWriter(wire)
    copy = FilePart.copy

    def truncated(part: FilePart, count: int) -> FilePart:
        os.truncate(path, 0)
        return copy(part, count)

    file.read()
    monkeypatch.setattr(FilePart, "copy", truncated)
    part = FilePart(file, 0, SIZE)
    with pytest.raises(EOFError):
        await writer.write_all_file(part)
    assert (part.offset, wire.sent) == (0, b"")
    await writer.write_all(b"next")


async def test_a_shared_file_that_goes_at_once_is_not_kept(file: Any) -> None:
    class Swallowing(Wire):
        def poll_write_file(self, part: FilePart, limit: int, /) -> int:
            return min(part.remaining, limit)

    writer = SharedWriter(Swallowing())
    await writer.write_all_file(FilePart(file))
    assert (writer.unsent_bytes, writer.lifecycle.holding) == (0, 0)


async def test_without_a_descriptor_left_a_shared_file_is_not_begun(
    file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Kernel(math.inf)
    writer = SharedWriter(wire)
    part = FilePart(file)
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", raising(OSError(errno.EMFILE, "too many")))
        with pytest.raises(OSError, match="too many"):
            await writer.write_all_file(part)
    assert writer.lifecycle.refusal is None
    await writer.write_all_file(part)
    assert wire.sent == CONTENT


@pytest.mark.parametrize("offload", [False, True])
async def test_a_shared_file_that_is_not_in_memory_is_loaded_once(
    file: Any, monkeypatch: pytest.MonkeyPatch, *, offload: bool
) -> None:
    """... by the caller's part, until the message begins."""
    nothing_in_memory(monkeypatch)
    wire = Kernel()
    writer = SharedWriter(wire)
    part = FilePart(file, offload=offload)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all_file, part)
        while "write" not in wire.log:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        wire.give(math.inf)
    assert wire.sent == CONTENT


@pytest.mark.skipif(not STATUS.exists(), reason="Linux only")
async def test_a_shared_file_of_unknown_size_goes_in_pieces() -> None:
    wire = Kernel(math.inf)
    writer = SharedWriter(wire)
    with STATUS.open("rb") as file:
        await writer.write_all_file(FilePart(file))
        assert wire.sent.startswith(b"Name:")
        with pytest.raises(EOFError):
            await writer.write_all_file(FilePart(file, 0, 10**6))


@pytest.mark.skipif(not STATUS.exists(), reason="Linux only")
async def test_a_long_shared_file_of_unknown_size_lets_other_tasks_run(zeros: Any) -> None:
    """Though the writer below is always ready."""
    wire = Wire(math.inf)
    writer = SharedWriter(wire)
    with trio.CancelScope() as scope:
        part = FilePart(zeros, 0, 100 * PIECE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write_all_file, part)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            scope.cancel()
    assert 0 < len(wire.sent) < 100 * PIECE
    assert part.offset == len(wire.sent)
    with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first"):
        await writer.write_all(b"next")


async def test_a_shared_file_that_was_accepted_whole_may_be_used_again(file: Any) -> None:
    """What is moved after that is not missing."""
    wire = Kernel(10)
    writer = SharedWriter(wire)
    part = FilePart(file, 5)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(writer.write_all_file, part))
        part.advance(3)
        wire.give(math.inf)
    assert run.outcome == "returned None"
    assert wire.sent == CONTENT[5:]


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_a_released_shared_writer_keeps_no_descriptor(file: Any) -> None:
    before = descriptors()
    for _ in range(3):
        writer = SharedWriter(Kernel(10))
        await cut_short(partial(writer.write_all_file, FilePart(file)))
        assert descriptors() == before + 1
        with resource_warnings() as messages:
            assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
        assert len(messages) == 1
        assert writer.unsent_bytes == SIZE - 10
        assert descriptors() == before


async def test_others_wait_for_the_thread_that_reads_a_shared_file(
    path: Path, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Kernel(10)
    writer = SharedWriter(wire)
    await begin_to_share(writer, FilePart(file, offload=True))
    overwrite(path, bytes(SIZE))
    wire.give(math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all, b"a")
        nursery.start_soon(writer.by_ref().write_all, b"b")
    # Replace files by renaming: those that are overwritten arrive so.
    assert wire.sent[:PIECE] == CONTENT[:PIECE]
    assert wire.sent[PIECE:SIZE] == bytes(SIZE - PIECE)
    assert sorted(wire.sent[SIZE:]) == [*b"ab"]
