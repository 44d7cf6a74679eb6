"""File objects as writers: inline and in a worker thread, over the real things."""

from __future__ import annotations

import bz2
import contextlib
import errno
import fcntl
import functools
import gc
import gzip
import io
import itertools
import lzma
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._errors import NotReady, WriteZeroError
from trio_asyncwrite._transports._allow_stdio import AllowStdIo
from trio_asyncwrite._transports._poll_evented import PollEvented
from trio_asyncwrite._wrappers._buf_writer import BufWriter
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._endings import read_and_close
from .._streams import clogged, drain

if TYPE_CHECKING:
    from trio.testing import MockClock

DATA = bytes(range(256)) * 400
FULL = Path("/dev/full")

both_modes = pytest.mark.parametrize("offload", [False, True], ids=["inline", "offload"])
lost_on_purpose = pytest.mark.filterwarnings("ignore:.* were never sent:ResourceWarning")


class ShortWrites(io.RawIOBase):
    """A raw file that takes at most three bytes at a time."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.written += data[:3]
        return len(data[:3])


class Scripted:
    """No io.IOBase: does what ``answers`` say, one per write, and then takes everything."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.written = b""
        self.flushed = 0
        self.closed = False

    def write(self, data: bytes) -> Any:
        assert type(data) is bytes
        answer: Any = self.answers.pop(0) if self.answers else len(data)
        if isinstance(answer, BaseException):
            try:
                raise answer
            finally:
                del answer  # or frame and exception would keep each other
        if isinstance(answer, int) and answer > 0:
            self.written += data[:answer]
        return answer

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed = True


class Watched:
    """Says when it was closed: a thread may do that when the test has long gone on."""

    was_closed: threading.Event

    async def wait_closed(self) -> None:
        assert await trio.to_thread.run_sync(self.was_closed.wait, 60)

    def close(self) -> None:
        try:
            super().close()  # type: ignore[misc]
        finally:
            self.was_closed.set()


class Gated(Watched, Scripted):
    """Each write waits, in its thread, until the gate is open."""

    def __init__(self, *answers: object) -> None:
        super().__init__(*answers)
        self.gate = threading.Event()
        self.was_closed = threading.Event()

    def write(self, data: bytes) -> Any:
        assert self.gate.wait(60)
        assert not self.closed
        return super().write(data)


def would_block(*written: int) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "would block", *written)


def make_pipe(*, blocking: bool, buffering: int, size: int = 4096) -> tuple[Any, PollEvented]:
    """A file that writes into a pipe as small as there is, and the reading end."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, size)
    os.set_blocking(writing, blocking)
    return os.fdopen(writing, "wb", buffering=buffering), PollEvented(reading)


both_files = pytest.mark.parametrize("buffering", [0, 4096], ids=["raw", "buffered"])


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


@both_modes
async def test_over_memory_it_keeps_the_contract(*, offload: bool) -> None:
    async def make() -> tuple[AllowStdIo, Callable[[], bytes]]:
        file = KeptOpen()
        return AllowStdIo(file, offload=offload), file.getvalue

    await check_async_write(make)


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
            await writer._job.done.wait()
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


class Duck:
    """What the standard library's wrappers look like: no io class, and everything of one."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


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


# ---- Errors --------------------------------------------------------------------------------


@both_modes
@pytest.mark.parametrize(
    ("answer", "error"), [(0, WriteZeroError), (4, RuntimeError), (-1, RuntimeError)]
)
async def test_counts_that_cannot_be_are_errors(
    answer: int, error: type[Exception], *, offload: bool
) -> None:
    writer = AllowStdIo(Scripted(answer), offload=offload)
    with pytest.raises(error, match=f"accepted {answer} of 3 bytes"):
        await writer.send_all(b"abc")
    with pytest.raises(trio.BrokenResourceError):
        await writer.write(b"abc")
    await writer.aclose()


@both_modes
async def test_an_os_error_breaks_the_writer_for_good(*, offload: bool) -> None:
    cause = OSError(errno.EIO, "bad sector")
    file = Scripted(cause)
    writer = AllowStdIo(file, offload=offload)
    with pytest.raises(trio.BrokenResourceError, match="bad sector") as error:
        await writer.send_all(b"abc")
    assert error.value.__cause__ is cause
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError) as again:
            await writer.write(b"abc")
        assert again.value.__cause__ is cause
        with pytest.raises(trio.BrokenResourceError):
            await writer.flush()
    await writer.aclose()
    assert file.written == b""


async def test_a_raw_poll_makes_the_error_sticky_as_well() -> None:
    writer = AllowStdIo(Scripted(OSError(errno.EIO, "bad sector")))
    with pytest.raises(trio.BrokenResourceError, match="bad sector"):
        writer.poll_write(b"abc")
    with pytest.raises(trio.BrokenResourceError, match="failed before"):
        writer.poll_write(b"abc")
    await writer.aclose()


async def test_what_goes_wrong_in_the_thread_is_raised_by_the_next_operation() -> None:
    file = Gated(2, OSError(errno.EIO, "bad sector"))
    writer = AllowStdIo(file, offload=True)
    assert await writer.write(b"abcde") == 5
    file.gate.set()
    with pytest.raises(trio.BrokenResourceError, match="bad sector"):
        await writer.write(b"x")
    assert writer.unsent_bytes == 5  # three not taken, and two never flushed
    with pytest.raises(trio.BrokenResourceError):
        await writer.write(b"x")
    await writer.aclose()
    await file.wait_closed()


async def test_what_goes_wrong_in_the_thread_is_raised_by_aclose_if_nobody_asked() -> None:
    file = Gated(OSError(errno.EIO, "bad sector"))
    writer = AllowStdIo(file, offload=True)
    await writer.write(b"abc")
    file.gate.set()
    with pytest.raises(trio.BrokenResourceError, match="bad sector"):
        await writer.aclose()
    await file.wait_closed()


async def test_no_thread_to_be_had_accepts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Scripted()
    writer = AllowStdIo(file, offload=True)

    def start_thread_soon(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "start_thread_soon", start_thread_soon)
        with pytest.raises(RuntimeError, match="new thread"):
            writer.poll_write(b"abc")
    assert writer.unsent_bytes == 0
    await writer.send_all(b"def")
    await writer.aclose()
    assert file.written == b"def"


@both_modes
@both_files
async def test_a_broken_pipe_is_a_broken_writer(buffering: int, *, offload: bool) -> None:
    file, reader = make_pipe(blocking=False, buffering=buffering)
    writer = AllowStdIo(file, offload=offload)
    await reader.aclose()
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await writer.send_all(b"abc")
    await writer.aclose()


@both_modes
async def test_a_file_closed_behind_our_back(tmp_path: Path, *, offload: bool) -> None:
    file = (tmp_path / "file").open("wb")
    writer = AllowStdIo(file, offload=offload)
    file.close()
    for _ in range(2):
        with pytest.raises(trio.ClosedResourceError, match="closed file"):
            await writer.send_all(b"abc")
    with pytest.raises(trio.ClosedResourceError, match="closed file"):
        await writer.aclose()


@both_modes
async def test_other_errors_of_the_file_come_through_and_are_sticky(*, offload: bool) -> None:
    writer = AllowStdIo(Scripted(ValueError("unlucky")), offload=offload)
    with pytest.raises(ValueError, match="unlucky"):
        await writer.send_all(b"abc")
    with pytest.raises(trio.BrokenResourceError):
        await writer.flush()
    await writer.aclose()


full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


def open_full(buffering: int = -1) -> Any:
    """A file on a disk that is full."""
    return FULL.open("wb", buffering=buffering)


@full
@both_modes
@both_files
async def test_a_full_disk_is_an_error_however_it_is_buffered(
    buffering: int, *, offload: bool
) -> None:
    writer = AllowStdIo(open_full(buffering), offload=offload)
    with pytest.raises(trio.BrokenResourceError, match="No space left") as error:
        await writer.send_all(b"abc")
    assert isinstance(error.value.__cause__, OSError)
    await writer.aclose()


@full
@both_modes
async def test_a_disk_found_full_by_aclose_is_an_error(*, offload: bool) -> None:
    writer = AllowStdIo(open_full(), offload=offload)
    await writer.write(b"abc")
    with pytest.raises(trio.BrokenResourceError, match="No space left"):
        await writer.aclose()


@both_modes
@pytest.mark.parametrize(
    "error", [OSError(errno.EDQUOT, "over quota"), would_block()], ids=["quota", "would block"]
)
async def test_an_error_in_closing_is_raised_unless_there_was_one_before(
    error: OSError, *, offload: bool
) -> None:
    class BadEnd(Gated):
        def close(self) -> None:
            super().close()
            raise error

    writer = AllowStdIo(BadEnd(), offload=offload)
    with pytest.raises(trio.BrokenResourceError) as broken:
        await writer.aclose()
    assert broken.value.__cause__ is error
    file = BadEnd(OSError(errno.EIO, "bad sector"))
    file.gate.set()
    writer = AllowStdIo(file, offload=offload)
    with pytest.raises(trio.BrokenResourceError, match="bad sector"):
        await writer.send_all(b"abc")
    await writer.aclose()
    await file.wait_closed()


def test_ctrl_c_gets_through_to_a_file_that_blocks_and_leaves_a_broken_writer() -> None:
    """How much the file had written nobody knows, so nothing may follow."""

    class Interrupted(Scripted):
        def write(self, data: bytes) -> int:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("not reached")

    file = Interrupted()

    async def main() -> None:
        writer = AllowStdIo(file)
        with pytest.raises(KeyboardInterrupt):
            await writer.write_all(b"abc")
        with pytest.raises(trio.BrokenResourceError):
            await writer.write(b"x")
        await writer.aclose()

    trio.run(main)
    assert file.closed


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
    with pytest.warns(ResourceWarning, match="closed by a cancelled aclose: 3 bytes"):
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
        with pytest.warns(ResourceWarning, match="closed by a cancelled aclose: 5 bytes"):
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


def test_a_run_may_end_while_the_thread_works(capsys: pytest.CaptureFixture[str]) -> None:
    file = Gated()

    async def main() -> AllowStdIo:
        writer = AllowStdIo(file, offload=True)
        await writer.write(b"abc")
        return writer

    writer = trio.run(main)
    job = writer._job
    assert job is not None
    file.gate.set()
    assert job.ended.wait(60)
    assert file.written == b"abc"
    assert writer.unsent_bytes == 3  # since nobody has flushed the file
    trio.run(writer.aclose)
    assert writer.unsent_bytes == 0
    assert capsys.readouterr().err == ""


async def test_garbage_collection_with_unsent_bytes_warns() -> None:
    file = Gated()
    writer = AllowStdIo(file, offload=True)
    await writer.write(b"abc")
    writers = [writer]
    del writer
    with pytest.warns(ResourceWarning, match="garbage-collected: 3 bytes"):
        writers.clear()
    file.gate.set()


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
                    await writer._job.done.wait()
        assert writer.unsent_bytes == 0
        del poll
        del writer
        assert gone() is None
    finally:
        gc.enable()


# ---- Compressing files ---------------------------------------------------------------------


class WatchedGzip(Watched, gzip.GzipFile):
    def __init__(self, target: Any) -> None:
        self.was_closed = threading.Event()
        if isinstance(target, io.IOBase):
            super().__init__(fileobj=target, mode="wb")
        else:
            super().__init__(target, "wb")


class WatchedBz2(Watched, bz2.BZ2File):
    def __init__(self, target: Any) -> None:
        self.was_closed = threading.Event()
        super().__init__(target, "wb", compresslevel=1)


class WatchedLzma(Watched, lzma.LZMAFile):
    def __init__(self, target: Any) -> None:
        self.was_closed = threading.Event()
        super().__init__(target, "wb", preset=0)


compressors = pytest.mark.parametrize(
    ("opener", "decompressor"),
    [
        pytest.param(WatchedGzip, lambda: zlib.decompressobj(31), id="gzip"),
        pytest.param(WatchedBz2, bz2.BZ2Decompressor, id="bz2"),
        pytest.param(WatchedLzma, lzma.LZMADecompressor, id="lzma"),
    ],
)
#: Several blocks of bz2, and as large when compressed.
NOISE = random.Random(0).randbytes(500_000)


@both_modes
@compressors
async def test_a_compressed_file_is_complete_after_a_clean_close(
    opener: Any, decompressor: Any, tmp_path: Path, *, offload: bool
) -> None:
    path = tmp_path / "file"
    async with BufWriter(AllowStdIo(opener(path), offload=offload)) as writer:
        await writer.write_all(NOISE[:50_000])
        await writer.flush()
        await writer.write_all(NOISE[50_000:])
    result = decompressor()
    assert result.decompress(path.read_bytes()) == NOISE
    assert result.eof


@both_modes
@pytest.mark.parametrize("owned", [True, False])
@compressors
async def test_a_truncated_compressed_file_never_looks_complete(
    opener: Any, decompressor: Any, tmp_path: Path, *, owned: bool, offload: bool
) -> None:
    path = tmp_path / "file"
    with path.open("wb") as below:
        file = opener(path if owned else below)
        writer = AllowStdIo(file, offload=offload)
        await writer.send_all(NOISE)
        await writer.write_all(b"more")
        await writer.release(clean=False)
        await file.wait_closed()
        assert not below.closed
        assert writer.unsent_bytes == 4
    file.close()
    del file
    gc.collect()
    result = decompressor()
    rescued = result.decompress(path.read_bytes())
    assert len(rescued) > 0
    assert NOISE.startswith(rescued)
    assert not result.eof


async def test_a_compressed_file_that_is_closed_already_is_left_alone() -> None:
    below = io.BytesIO()
    file = gzip.GzipFile(fileobj=below, mode="wb")
    writer = AllowStdIo(file)
    await writer.send_all(b"abc")
    file.close()
    await writer.release(clean=False)
    assert gzip.decompress(below.getvalue()) == b"abc"


@both_modes
@pytest.mark.parametrize("size", [1000, 500_000], ids=["in the flush", "in the write"])
async def test_compressing_into_what_would_block_is_an_error(size: int, *, offload: bool) -> None:
    """What was compressed cannot be taken back, so it must not be offered again."""
    below, reader = make_pipe(blocking=False, buffering=100)
    below.write(bytes(4096))
    writer = AllowStdIo(gzip.GzipFile(fileobj=below, mode="wb"), offload=offload)
    with pytest.raises(trio.BrokenResourceError, match="the file below it must block"):
        await writer.send_all(NOISE[:size])
    await writer.aclose()
    with contextlib.suppress(BlockingIOError):
        below.close()
    await reader.aclose()


# ---- Standard output, for real -------------------------------------------------------------

SET_UP = """
import os, sys, trio
from trio_asyncwrite._transports._allow_stdio import AllowStdIo
data = bytes(range(256)) * 4000
"""


async def run_script(script: str) -> trio.Process:
    return await trio.lowlevel.open_process(
        [sys.executable, "-c", SET_UP + script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def test_standard_output_that_does_not_block_waits_for_its_reader() -> None:
    script = """
async def main():
    os.set_blocking(1, False)
    async with AllowStdIo(sys.stdout.buffer) as out:
        await out.send_all(data)
    os.set_blocking(1, True)
    print("still open")
trio.run(main)
"""
    process = await run_script(script)
    assert process.stdout is not None
    assert process.stderr is not None
    received = await drain(process.stdout)
    assert received == bytes(range(256)) * 4000 + b"still open\n"
    assert await drain(process.stderr) == b""
    assert await process.wait() == 0


async def test_standard_output_that_blocks_holds_up_a_thread_and_nobody_else() -> None:
    script = """
async def main():
    async with AllowStdIo(sys.stdout.buffer, offload=True) as out:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.send_all, data)
            await trio.testing.wait_all_tasks_blocked()
            os.write(2, b"alive")
    print("still open")
import trio.testing
trio.run(main)
"""
    process = await run_script(script)
    assert process.stdout is not None
    assert process.stderr is not None
    assert await process.stderr.receive_some() == b"alive"
    received = await drain(process.stdout)
    assert received == bytes(range(256)) * 4000 + b"still open\n"
    assert await drain(process.stderr) == b""
    assert await process.wait() == 0


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


# ---- Bad input -----------------------------------------------------------------------------


@both_modes
@pytest.mark.parametrize("data", ["text", None, [1]])
async def test_only_bytes_are_accepted(data: Any, *, offload: bool) -> None:
    file = Scripted()
    async with AllowStdIo(file, offload=offload) as writer:
        with pytest.raises(TypeError, match="bytes-like"):
            writer.poll_write(data)
        with pytest.raises(TypeError, match="bytes-like"):
            await writer.send_all(data)
    assert file.written == b""


async def test_text_files_are_refused_and_told_what_to_use(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w") as file, pytest.raises(TypeError, match=r"text file: use its \.buffer"):
        AllowStdIo(file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text file"):
        AllowStdIo(io.StringIO())  # type: ignore[arg-type]
    with tempfile.NamedTemporaryFile("w") as wrapper, pytest.raises(TypeError, match="text file"):
        AllowStdIo(wrapper)  # type: ignore[arg-type]


async def test_asynchronous_files_are_refused_and_told_what_to_use(tmp_path: Path) -> None:
    async with await trio.open_file(tmp_path / "file", "wb") as file:
        with pytest.raises(TypeError, match=r"asynchronous: use wrap_stream\(\)"):
            AllowStdIo(file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="asynchronous"):
        AllowStdIo(AllowStdIo(io.BytesIO()))  # type: ignore[arg-type]


@pytest.mark.parametrize("thing", [None, 7, "path", object()])
def test_what_cannot_be_written_to_is_refused_by_name(thing: Any) -> None:
    with pytest.raises(TypeError, match=rf"write\(\) and flush\(\), got {type(thing).__name__}"):
        AllowStdIo(thing)


def test_closed_and_read_only_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        pass
    with pytest.raises(ValueError, match="is closed"):
        AllowStdIo(file)
    with path.open("rb") as reading, pytest.raises(ValueError, match="not open for writing"):
        AllowStdIo(reading)


def test_it_says_what_it_is_over() -> None:
    file = io.BytesIO()
    assert repr(AllowStdIo(file)) == f"<AllowStdIo over {file!r}>"
