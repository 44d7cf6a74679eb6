"""File objects as writers: inline and in a worker thread, over the real things."""

from __future__ import annotations

import bz2
import contextlib
import errno
import functools
import gc
import gzip
import io
import itertools
import signal
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._transports._allow_stdio import AllowStdIo
from trio_asyncwrite._transports._poll_evented import PollEvented
from trio_asyncwrite._wrappers._buf_writer import BufWriter
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._endings import read_and_close
from .._files import (
    DATA,
    Duck,
    Gated,
    Scripted,
    ShortWrites,
    Watched,
    both_files,
    both_modes,
    lost_on_purpose,
    make_pipe,
    would_block,
)
from .._patience import wait_all_tasks_blocked
from .._streams import clogged

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

# ---- The contracts, Trio's and ours --------------------------------------------------------

Maker = Callable[[], Awaitable[tuple[AllowStdIo, PollEvented]]]


PIPES = {
    "raw inline": (0, False, False),
    "raw offload": (0, False, True),
    "raw blocking offload": (0, True, True),
    "buffered inline": (4096, False, False),
    "buffered offload": (4096, False, True),
    "buffered blocking offload": (4096, True, True),
}

# Each byte of a sweep goes to a thread and waits there for the pipe.
SLOW_PIPES = {"raw offload", "buffered offload"}


@pytest.fixture(params=PIPES.values(), ids=PIPES)
def make_over_pipe(request: pytest.FixtureRequest) -> Maker:
    """Makes writers over a pipe of every kind that works."""
    buffering, blocking, offload = request.param

    async def make() -> tuple[AllowStdIo, PollEvented]:
        file, reader = make_pipe(blocking=blocking, buffering=buffering)
        return AllowStdIo(file, offload=offload), reader

    return make


@lost_on_purpose
async def test_over_a_pipe_it_passes_trios_checks(make_over_pipe: Maker) -> None:
    await trio.testing.check_one_way_stream(make_over_pipe, clogged(make_over_pipe))


@pytest.mark.outer
@lost_on_purpose
@pytest.mark.parametrize(
    "make_over_pipe",
    [
        pytest.param(pipe, id=name, marks=[pytest.mark.slow] if name in SLOW_PIPES else [])
        for name, pipe in PIPES.items()
    ],
    indirect=True,
)
async def test_over_a_pipe_it_keeps_the_contract(make_over_pipe: Maker) -> None:
    await check_async_write(make_over_pipe, clogged(make_over_pipe))


class KeptOpen(io.BytesIO):
    """Memory that can be looked at after it was closed."""

    def close(self) -> None:
        pass


@pytest.mark.outer
@both_modes
async def test_over_memory_it_keeps_the_contract(*, offload: bool) -> None:
    async def make() -> tuple[AllowStdIo, Callable[[], bytes]]:
        file = KeptOpen()
        return AllowStdIo(file, offload=offload), file.getvalue

    await check_async_write(make)


@pytest.mark.outer
@both_modes
async def test_over_short_writes_it_keeps_the_contract(*, offload: bool) -> None:
    async def make() -> tuple[AllowStdIo, Callable[[], bytes]]:
        file = ShortWrites()
        return AllowStdIo(file, offload=offload), lambda: bytes(file.written)

    await check_async_write(make)


# ---- Plain files ---------------------------------------------------------------------------


@both_modes
async def test_memory_gets_every_byte(*, offload: bool) -> None:
    file = KeptOpen()
    async with AllowStdIo(file, offload=offload) as writer:
        for start in range(0, len(DATA), 10_000):
            await writer.write_all(DATA[start : start + 10_000])
        await writer.flush()
        assert writer.unsent_bytes == 0
        assert file.getvalue() == DATA
    assert file.getvalue() == DATA


@both_modes
@both_files
async def test_a_file_on_disk_gets_every_byte_and_is_closed(
    tmp_path: Path, buffering: int, *, offload: bool
) -> None:
    path = tmp_path / "file"
    file = path.open("wb", buffering=buffering)
    async with BufWriter(AllowStdIo(file, offload=offload), 1000) as writer:
        for start in range(0, len(DATA), 77):
            await writer.write_all(DATA[start : start + 77])
    assert file.closed
    assert path.read_bytes() == DATA


@both_modes
async def test_many_megabytes_go_in_pieces(tmp_path: Path, *, offload: bool) -> None:
    data = b"0123456789abcdef" * (5 * 65536)
    path = tmp_path / "file"
    async with AllowStdIo(path.open("wb"), offload=offload) as writer:
        assert await writer.write(data) == 2 * 1024 * 1024
        await writer.write_all(data[2 * 1024 * 1024 :])
    assert path.read_bytes() == data


@both_modes
async def test_a_temporary_file_is_a_file_though_it_is_no_io_class(*, offload: bool) -> None:
    with tempfile.NamedTemporaryFile() as file:
        writer = AllowStdIo(file, offload=offload, close=False)
        await writer.send_all(DATA)
        await writer.aclose()
        file.seek(0)
        assert file.read() == DATA


@both_modes
async def test_a_short_write_of_a_raw_file_loses_nothing(*, offload: bool) -> None:
    file = ShortWrites()
    async with AllowStdIo(file, offload=offload) as writer:
        assert await writer.write(b"hello") == (5 if offload else 3)
        await writer.flush()
        await writer.write_all(b"hello"[len(file.written) :] + b" world")
    assert file.written == b"hello world"


@both_modes
async def test_data_is_neither_changed_nor_kept(*, offload: bool) -> None:
    class Keeper(Scripted):
        kept: tuple[bytes, ...] = ()

        def write(self, data: bytes) -> int:
            self.kept += (data,)
            return len(data)

    file = Keeper()
    data = bytearray(b"abc")
    writer = AllowStdIo(file, offload=offload)
    await writer.send_all(data)
    await writer.write_all(memoryview(data)[1:])
    data.clear()
    await writer.aclose()
    assert file.kept == (b"abc", b"bc")


@both_modes
async def test_empty_data_does_not_reach_the_file(*, offload: bool) -> None:
    file = Scripted(AssertionError("it was called"))
    async with AllowStdIo(file, offload=offload) as writer:
        assert writer.poll_write(b"") == 0
        assert await writer.write(b"") == 0


# ---- Would block ---------------------------------------------------------------------------


@both_modes
@both_files
async def test_a_slow_reader_holds_the_writer_back_and_gets_every_byte(
    buffering: int, *, offload: bool
) -> None:
    file, reader = make_pipe(blocking=False, buffering=buffering)
    writer = AllowStdIo(file, offload=offload)
    sent = False

    async def send() -> None:
        nonlocal sent
        await writer.send_all(DATA)
        sent = True
        await writer.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        received = b""
        while len(received) < len(DATA) // 2:
            received += await reader.receive_some(999)
        assert not sent
        received += await read_and_close(reader)
    assert received == DATA


async def test_what_a_blocked_buffer_has_taken_counts_as_accepted() -> None:
    file, reader = make_pipe(blocking=False, buffering=1000)
    writer = AllowStdIo(file)
    assert writer.poll_write(DATA[:6000]) == 5096
    with pytest.raises(NotReady):
        writer.poll_write(DATA[5096:])
    with pytest.raises(NotReady):
        writer.poll_flush()
    assert await reader.receive_some(5000) == DATA[:4096]
    writer.poll_flush()
    await writer.aclose()
    assert await read_and_close(reader) == DATA[4096:5096]


async def test_readiness_is_the_descriptors() -> None:
    file, reader = make_pipe(blocking=False, buffering=0)
    writer = AllowStdIo(file)
    await writer.wait_send_all_might_not_block()
    await writer.write(bytes(4096))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.wait_send_all_might_not_block)
        await wait_all_tasks_blocked()
        await reader.receive_some()
    await writer.aclose()
    await reader.aclose()


async def test_a_file_without_a_descriptor_is_tried_again_after_growing_pauses(
    autojump_clock: MockClock,
) -> None:
    times = []

    class Reluctant(Scripted):
        def write(self, data: bytes) -> Any:
            times.append(trio.current_time())
            return super().write(data)

    blocks = [would_block() for _ in range(9)]
    file = Reluctant(*blocks, 1, would_block(0), would_block())
    async with AllowStdIo(file) as writer:
        await writer.write_all(b"ab")
    pauses = [round(1000 * (after - before)) for before, after in itertools.pairwise(times)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 100, 100, 0, 1, 2]
    assert file.written == b"ab"


async def test_a_thread_keeps_what_would_block_and_tries_again() -> None:
    file = Scripted(would_block(), 1, would_block(1), would_block())
    async with AllowStdIo(file, offload=True) as writer:
        await writer.write(b"abcd")
        await writer.flush()
        assert writer.unsent_bytes == 0
        assert file.written == b"acd"  # the fake took one without keeping it


async def test_a_thread_pauses_as_well_and_starts_anew_after_progress(
    mock_clock: MockClock,
) -> None:
    writer = AllowStdIo(Scripted(would_block(), would_block(), 1, would_block()), offload=True)
    pauses = []
    poll: Callable[[], object] = functools.partial(writer.poll_write, b"ab")
    while True:
        try:
            if poll() is None:
                break
            poll = writer.poll_flush
        except NotReady as not_ready:
            wait = not_ready.wait
            if writer._job is None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait)
                    await wait_all_tasks_blocked()
                    pauses.append(trio.lowlevel.current_statistics().seconds_to_next_deadline)
                    mock_clock.jump(pauses[-1])
        if writer._job is not None:
            await writer._job.wait()
    assert pauses == pytest.approx([0.001, 0.002, 0.001])
    await writer.aclose()


@both_modes
async def test_a_flush_that_would_block_is_repeated(*, offload: bool) -> None:
    class Reluctant(Scripted):
        def flush(self) -> None:
            super().flush()
            if self.flushed < 3:
                raise would_block()

    file = Reluctant()
    async with AllowStdIo(file, offload=offload) as writer:
        await writer.write(b"ab")
        await writer.flush()
        assert file.flushed == 3


@pytest.mark.parametrize("path", ["/dev/null", "regular"])
async def test_a_descriptor_that_cannot_be_waited_for_is_tried_again(
    path: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The kernel refuses the one, and calls the other always ready."""

    class WithDescriptor(Scripted):
        def fileno(self) -> int:
            return backing.fileno()

    start = trio.current_time()
    with (tmp_path / path).open("wb") as backing:
        async with AllowStdIo(WithDescriptor(would_block(), would_block())) as writer:
            await writer.wait_send_all_might_not_block()
            await writer.write(b"ab")
    assert trio.current_time() - start == pytest.approx(0.003)


@both_modes
async def test_none_from_who_has_a_descriptor_means_would_block(*, offload: bool) -> None:
    file, reader = make_pipe(blocking=False, buffering=0)
    received = b""
    writer = AllowStdIo(Duck(file), offload=offload)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send_all, DATA)
        while len(received) < len(DATA):
            received += await reader.receive_some()
    assert received == DATA
    await writer.aclose()
    await reader.aclose()


@both_modes
async def test_none_from_anybody_else_is_an_error_that_names_it(*, offload: bool) -> None:
    """It may well have taken everything, and would get its bytes again and again."""
    writer = AllowStdIo(Scripted(None), offload=offload)
    with pytest.raises(TypeError, match=r"Scripted.*returned None.*must return how many"):
        await writer.send_all(b"abc")
    with pytest.raises(trio.BrokenResourceError) as error:
        await writer.write(b"x")
    assert isinstance(error.value.__cause__, TypeError)
    await writer.aclose()


# ---- Closing -------------------------------------------------------------------------------


@both_modes
@pytest.mark.parametrize("option", [{}, {"close": True}, {"close": False}])
async def test_closing_closes_the_file_unless_told_otherwise(
    option: dict[str, bool], *, offload: bool
) -> None:
    file = Scripted()
    writer = AllowStdIo(file, offload=offload, **option)
    await writer.write(b"abc")
    await writer.shutdown()
    assert file.flushed
    assert not file.closed
    await writer.aclose()
    assert file.closed == option.get("close", True)
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await writer.flush()
    await writer.aclose()


@both_modes
async def test_an_object_without_close_is_not_closed(*, offload: bool) -> None:
    class Unclosable:
        def __init__(self) -> None:
            self.written = b""

        def write(self, data: bytes) -> int:
            self.written += data
            return len(data)

        def flush(self) -> None:
            pass

    file = Unclosable()
    async with AllowStdIo(file, offload=offload) as writer:
        await writer.write(b"abc")
    assert file.written == b"abc"
    assert writer.file is file


@both_modes
@pytest.mark.parametrize("name", ["stdout", "__stdout__", "stderr", "__stderr__"])
@pytest.mark.parametrize("layer", ["buffer", "raw"])
async def test_standard_streams_are_flushed_and_stay_open(
    name: str, layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, offload: bool
) -> None:
    path = tmp_path / "file"
    stream = path.open("w")
    monkeypatch.setattr(sys, name, stream)
    file: Any = stream.buffer if layer == "buffer" else stream.buffer.raw  # type: ignore[attr-defined]
    async with AllowStdIo(file, offload=offload) as writer:
        await writer.write(b"abc")
    assert path.read_bytes() == b"abc"
    assert not file.closed
    await AllowStdIo(file, offload=offload, close=True).aclose()
    assert file.closed


async def test_a_binary_standard_stream_is_one_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Scripted()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(sys, "stderr", None)  # as without a console
    await AllowStdIo(file).aclose()
    assert not file.closed


@both_modes
async def test_a_cancelled_close_says_what_a_blocked_buffer_may_have_lost(*, offload: bool) -> None:
    class Buffered(Watched, io.BufferedWriter):
        was_closed = threading.Event()

    raw, reader = make_pipe(blocking=False, buffering=0)
    file = Buffered(raw)
    writer = AllowStdIo(file, offload=offload)
    await writer.send_all(bytes(4096))
    await writer.write(b"abc")
    with trio.move_on_after(0):
        await writer.flush()
    with pytest.warns(ResourceWarning, match="was closed: 3 bytes .*(never sent|may be lost)"):
        await trio.aclose_forcefully(writer)
    await file.wait_closed()
    assert await read_and_close(reader) == bytes(4096)
    assert file.closed
    assert writer.unsent_bytes == 3


@pytest.mark.parametrize("clean", [True, False])
async def test_closing_while_the_thread_writes_never_closes_under_it(*, clean: bool) -> None:
    file = Gated()
    writer = AllowStdIo(file, offload=True)
    await writer.write(b"abcde")
    if clean:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.aclose)
            await wait_all_tasks_blocked()
            assert not file.closed
            assert writer.unsent_bytes == 5
            file.gate.set()
        assert writer.unsent_bytes == 0
    else:
        with pytest.warns(ResourceWarning, match="was closed: 5 bytes .* may be lost"):
            await trio.aclose_forcefully(writer)
        with pytest.raises(trio.ClosedResourceError):
            await writer.write(b"x")
        assert not file.closed
        file.gate.set()
        await file.wait_closed()
    assert file.closed
    assert file.written == b"abcde"


async def test_a_task_that_waits_for_the_thread_learns_that_the_writer_was_closed() -> None:
    file = Gated()
    writer = AllowStdIo(file, offload=True)
    await writer.write(b"abc")
    async with trio.open_nursery() as nursery:

        async def write_more() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await writer.write(b"d")

        nursery.start_soon(write_more)
        await wait_all_tasks_blocked()
        nursery.start_soon(writer.aclose)
        await wait_all_tasks_blocked()
        file.gate.set()
    assert file.written == b"abc"


async def test_garbage_collection_with_a_thread_at_work_warns_of_what_may_be_lost() -> None:
    file = Gated()
    writer = AllowStdIo(file, offload=True)
    await writer.write(b"abc")
    writers = [writer]
    del writer
    with pytest.warns(ResourceWarning, match="garbage-collected: 3 bytes .* may be lost"):
        writers.clear()
    file.gate.set()


async def test_bytes_that_a_thread_could_not_write_are_lost_for_certain() -> None:
    writer = AllowStdIo(Scripted(would_block()), offload=True)
    await writer.write(b"abc")
    assert writer._job is not None
    await writer._job.wait()
    with pytest.raises(NotReady):
        writer.poll_flush()  # which collects the job
    writers = [writer]
    del writer
    with pytest.warns(ResourceWarning, match="garbage-collected: 3 bytes .* never sent"):
        writers.clear()


class Sensitive(Scripted):
    """A file that cannot even be shown once it is closed."""

    def __repr__(self) -> str:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return "<Sensitive>"

    def __del__(self) -> None:
        self.close()


class LinkedBuffer(io.BufferedWriter):
    """Can refer to its writer."""


@both_modes
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: LinkedBuffer(cast("Any", io.BytesIO())), id="buffered"),
        pytest.param(lambda: gzip.GzipFile(fileobj=io.BytesIO(), mode="w"), id="gzip"),
        pytest.param(lambda: bz2.BZ2File(io.BytesIO(), "w"), id="bz2"),
        pytest.param(Sensitive, id="sensitive"),
        pytest.param(lambda: Sensitive(would_block()), id="would block"),
    ],
)
async def test_in_a_reference_cycle_the_file_may_be_finalised_before_the_writer(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, *, offload: bool
) -> None:
    """So the warning takes nothing from it, and the writer's finaliser raises nothing."""
    failed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", failed.append)
    gc.disable()
    try:
        file = make()
        file.writer = writer = AllowStdIo(file, offload=offload)
        with contextlib.suppress(NotReady):
            writer.poll_write(b"abc")
        if writer._job is not None:
            await writer._job.wait()
        count = writer.unsent_bytes
        gone = weakref.ref(writer)
        del file, writer
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            while gone() is not None:  # a worker thread may refer to it for a moment
                gc.collect()
    finally:
        gc.enable()
    messages = [str(one.message) for one in caught if isinstance(one.source, AllowStdIo)]
    assert len(messages) == bool(count)
    assert all(f"garbage-collected: {count} bytes" in text for text in messages)
    # Since Python 3.13, a compressed file complains that the one below it was finalised first.
    assert all(isinstance(one.object, (gzip.GzipFile, bz2.BZ2File)) for one in failed)


@both_modes
async def test_polls_leave_no_reference_cycle_behind(*, offload: bool) -> None:
    """Also when they raise: every NotReady would otherwise wait for the garbage collector."""
    writer = AllowStdIo(Scripted(would_block(), 1), offload=offload, close=False)
    gone = weakref.ref(writer)
    gc.disable()
    try:
        for poll in (functools.partial(writer.poll_write, b"abc"), writer.poll_flush):
            for _ in range(3):
                with contextlib.suppress(NotReady):
                    poll()
                if writer._job is not None:
                    await writer._job.wait()
        assert writer.unsent_bytes == 0
        del poll
        del writer
        assert gone() is None
    finally:
        gc.enable()


# ---- Cancellation --------------------------------------------------------------------------


@both_modes
@both_files
async def test_cancelled_anywhere_and_resumed_it_delivers_every_byte_once(
    buffering: int, *, offload: bool
) -> None:
    data = DATA[:20_000]

    async def scenario(sweep: Sweep) -> None:
        file, reader = make_pipe(blocking=False, buffering=buffering)
        writer = AllowStdIo(file, offload=offload)
        received = bytearray()

        async def receive() -> None:
            received.extend(await read_and_close(reader))

        buf = Buf(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with sweep:
                await writer.write_all_buf(buf)
                await writer.flush()
                await writer.shutdown()
            if buf.remaining:
                await writer.write_all_buf(buf)
            await writer.aclose()
        assert received == data

    assert await cancel_everywhere(scenario) > 5


# ---- The close of the file is part of a clean close -----------------------------------------


class FullAtTheEnd(Gated):
    """Its trailer finds the disk full."""

    def close(self) -> None:
        super().close()
        raise OSError(errno.ENOSPC, "No space left")


@both_modes
async def test_after_a_shutdown_the_close_still_finds_the_disk_full(*, offload: bool) -> None:
    """The trailer comes with the file's own close, so a shutdown leaves that to do."""
    file = FullAtTheEnd()
    file.gate.set()
    writer = AllowStdIo(file, offload=offload)
    await writer.send_all(b"abc")
    await writer.shutdown()
    assert not file.closed
    with pytest.raises(trio.BrokenResourceError, match="No space left"):
        await writer.aclose()
    assert file.closed


@both_modes
async def test_a_shutdown_by_a_layer_above_leaves_the_file_open(*, offload: bool) -> None:
    file = Scripted()
    writer = AllowStdIo(file, offload=offload)
    outer = BufWriter(writer)
    await outer.write_all(b"abc")
    await outer.shutdown()
    assert (file.written, file.closed) == (b"abc", False)
    await outer.aclose()
    assert file.closed


async def test_nobody_else_can_close_the_file_while_a_close_waits() -> None:
    """A poll by hand after the shutdown of a running close is refused."""

    class SlowEnd(Scripted):
        gate = threading.Event()

        def close(self) -> None:
            assert self.gate.wait(60)
            super().close()

    file = SlowEnd()
    writer = AllowStdIo(file, offload=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.aclose)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            writer.poll_write(b"x")
        with contextlib.suppress(trio.ClosedResourceError):
            writer.poll_shutdown()
        assert not file.closed
        file.gate.set()
    assert file.closed


@both_modes
async def test_a_file_is_closed_once_though_that_fails(*, offload: bool) -> None:
    class Counting(Scripted):
        closes = 0

        def close(self) -> None:
            self.closes += 1
            raise OSError(errno.EIO, "bad sector")

    file = Counting()
    with pytest.raises(trio.BrokenResourceError, match="bad sector"):
        await AllowStdIo(file, offload=offload).aclose()
    assert file.closes == 1


@lost_on_purpose
def test_ctrl_c_in_the_close_of_a_file_does_not_leave_it_open() -> None:
    """Nobody knows what its first close has lost, so its bytes go on counting as unsent."""

    class Interrupted(io.BufferedIOBase):  # whose flush does nothing
        was_interrupted = False

        def writable(self) -> bool:
            return True

        def write(self, data: Any, /) -> int:
            return len(data)

        def close(self) -> None:
            if not self.was_interrupted:
                self.was_interrupted = True
                signal.raise_signal(signal.SIGINT)
            super().close()

    file = Interrupted()

    async def main() -> AllowStdIo:
        writer = AllowStdIo(file)
        await writer.write_all(b"abc")
        with pytest.raises(KeyboardInterrupt):
            await writer.aclose()
        return writer

    assert trio.run(main).unsent_bytes == 3
    assert file.closed


def no_threads(*_: object) -> None:
    raise RuntimeError("can't start new thread")


async def test_without_a_thread_to_be_had_the_file_is_closed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = Scripted()
    writer = AllowStdIo(file, offload=True)
    await writer.send_all(b"abc")
    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", no_threads)
    with pytest.raises(RuntimeError, match="new thread"):
        await writer.aclose()
    assert file.closed


@lost_on_purpose
async def test_without_a_thread_a_file_is_not_closed_under_the_one_that_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = Gated()
    writer = AllowStdIo(file, offload=True)
    await writer.write(b"abc")
    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "start_thread_soon", no_threads)
        await trio.aclose_forcefully(writer)
    assert not file.closed
    file.gate.set()
    assert writer._job is not None
    await writer._job.wait()
    assert file.written == b"abc"


@both_modes
@lost_on_purpose
@pytest.mark.parametrize("way", ["cancelled", "an exception"])
async def test_a_close_that_cannot_raise_its_error_warns_of_the_bytes(
    way: str, *, offload: bool
) -> None:
    """Nobody hears of the error, so the warning must say that bytes are lost."""

    class Keeping(Scripted):
        def flush(self) -> None:
            raise would_block()

        def close(self) -> None:
            super().close()
            raise OSError(errno.ENOSPC, "No space left")

    async def close() -> None:
        if way == "cancelled":
            await trio.aclose_forcefully(writer)
        else:
            with pytest.raises(ZeroDivisionError):
                async with writer:
                    raise ZeroDivisionError

    writer = AllowStdIo(Keeping(), offload=offload)
    await writer.write(b"abc")
    with pytest.warns(ResourceWarning, match="was closed: 3 bytes"):
        await close()


@lost_on_purpose
async def test_a_cancelled_close_does_not_wait_for_the_thread() -> None:
    """Not even for its grace: what the thread does is reported as unknown."""
    file = Gated()
    writer = AllowStdIo(file, offload=True)
    await writer.write(b"abc")
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.aclose()
    assert writer.loss_is_unknown
    assert not file.closed
    file.gate.set()
    await file.wait_closed()


async def test_a_flush_given_up_makes_a_later_close_not_wait_for_the_thread() -> None:
    """A ``send_all`` that was cancelled: the stack is abandoned."""
    file = Gated()
    writer = AllowStdIo(file, offload=True)
    with trio.move_on_after(0.01):
        await writer.send_all(b"abc")
    with pytest.warns(ResourceWarning, match="3 bytes .* may be lost"):
        await writer.aclose()
    assert not file.closed
    file.gate.set()
    await file.wait_closed()
