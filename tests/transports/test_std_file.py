"""What goes wrong in a file, what compresses, and the standard streams."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import random
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from trio_asyncwrite._core._errors import WriteZeroError
from trio_asyncwrite._transports._allow_stdio import AllowStdIo
from trio_asyncwrite._wrappers._buf_writer import BufWriter

from .._files import (
    DATA,
    FULL,
    Duck,
    Gated,
    Scripted,
    Watched,
    both_files,
    both_modes,
    make_pipe,
    would_block,
)
from .._streams import drain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
async def test_a_compressed_file_that_was_cut_short_has_every_accepted_byte_and_a_trailer(
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
    result = decompressor()
    assert result.decompress(path.read_bytes()) == NOISE + b"more"
    assert result.eof


@compressors
async def test_a_cancelled_close_of_a_file_loses_nothing_that_the_file_took(
    opener: Any, decompressor: Any, tmp_path: Path
) -> None:
    """The file's own close writes it, so there is nothing to warn of."""
    path = tmp_path / "file"
    writer = AllowStdIo(opener(path))
    await writer.write_all(NOISE)
    await trio.aclose_forcefully(writer)
    assert writer.unsent_bytes == 0
    assert decompressor().decompress(path.read_bytes()) == NOISE


def zip_member(path: Path) -> Any:
    return zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED).open("member", "w")


class Seekable(bz2.BZ2File):
    """As far as BufferedRandom asks."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset


#: Each keeps bytes that its flush does not pass on: in itself, or in a file below.
KEEPERS: dict[str, Callable[[Path], Any]] = {
    "bz2": lambda path: bz2.BZ2File(path, "w"),
    "lzma": lambda path: lzma.LZMAFile(path, "w"),  # noqa: SIM115
    "zip": zip_member,
    "a file over bz2": lambda path: Duck(bz2.BZ2File(path, "w")),
    "buffer over bz2": lambda path: io.BufferedWriter(cast("Any", bz2.BZ2File(path, "w"))),
    "buffer over gzip": lambda path: io.BufferedWriter(cast("Any", gzip.GzipFile(path, "w"))),
    "gzip over bz2": lambda path: gzip.GzipFile(fileobj=bz2.BZ2File(path, "w"), mode="w"),
    "random access over bz2": lambda path: io.BufferedRandom(cast("Any", Seekable(path))),
}


keepers = pytest.mark.parametrize("make", KEEPERS.values(), ids=KEEPERS)


@both_modes
@keepers
async def test_bytes_that_a_flush_leaves_in_the_file_are_unsent_until_it_is_closed(
    make: Callable[[Path], Any], tmp_path: Path, *, offload: bool
) -> None:
    writer = AllowStdIo(make(tmp_path / "file"), offload=offload)
    await writer.send_all(DATA)
    await writer.flush()
    assert writer.unsent_bytes == len(DATA)
    await writer.write_all(b"more")
    await writer.shutdown()
    assert writer.unsent_bytes == len(DATA) + 4
    await writer.aclose()
    assert writer.unsent_bytes == 0


@keepers
async def test_a_flush_that_does_nothing_does_not_hide_the_loss_of_a_dropped_file(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    file = make(tmp_path / "file")
    writers = [AllowStdIo(file)]
    await writers[0].send_all(DATA)
    with pytest.warns(ResourceWarning, match=f"garbage-collected: {len(DATA)} bytes"):
        writers.clear()
    file.close()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@both_modes
@pytest.mark.parametrize("module", [bz2, lzma])
async def test_a_disk_found_full_by_the_trailer_is_an_error_and_the_count_stays(
    module: Any, *, offload: bool
) -> None:
    writer = AllowStdIo(module.open(FULL, "wb"), offload=offload)
    await writer.send_all(b"abc")
    with pytest.raises(trio.BrokenResourceError, match="No space left"):
        await writer.aclose()
    assert writer.unsent_bytes == 3


@both_modes
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.open("wb", buffering=0), id="raw"),
        pytest.param(lambda path: path.open("wb"), id="buffered"),
        pytest.param(lambda path: path.open("w+b"), id="random access"),
        pytest.param(lambda path: Duck(path.open("wb")), id="a file over a buffered one"),
        pytest.param(lambda _: io.BytesIO(), id="memory"),
        pytest.param(lambda _: io.BufferedWriter(cast("Any", io.BytesIO())), id="over memory"),
        pytest.param(lambda path: gzip.GzipFile(path, "w"), id="gzip"),
        pytest.param(
            lambda _: gzip.GzipFile(fileobj=Duck(io.BytesIO()), mode="w"),  # type: ignore[call-overload]
            id="gzip over a file",
        ),
        pytest.param(lambda _: tempfile.NamedTemporaryFile(), id="temporary"),  # noqa: SIM115
        pytest.param(lambda _: tempfile.SpooledTemporaryFile(), id="spooled"),  # noqa: SIM115
        pytest.param(lambda _: Scripted(), id="no io class"),
    ],
)
async def test_a_flush_that_is_complete_leaves_nothing_unsent(
    make: Callable[[Path], Any], tmp_path: Path, *, offload: bool
) -> None:
    file = make(tmp_path / "file")
    async with AllowStdIo(file, offload=offload) as writer:
        await writer.send_all(DATA)
        assert writer.unsent_bytes == 0


async def test_a_compressed_file_that_is_closed_already_is_left_alone() -> None:
    below = io.BytesIO()
    file = gzip.GzipFile(fileobj=below, mode="wb")
    writer = AllowStdIo(file)
    await writer.send_all(b"abc")
    file.close()
    await writer.release(clean=False)
    assert gzip.decompress(below.getvalue()) == b"abc"


@both_modes
@pytest.mark.parametrize(
    ("make", "size"),
    [
        pytest.param(lambda below: gzip.GzipFile(fileobj=below, mode="w"), 1000, id="in the flush"),
        pytest.param(lambda below: gzip.GzipFile(fileobj=below, mode="w"), 500_000, id="gzip"),
        pytest.param(lambda below: bz2.BZ2File(below, "w", compresslevel=1), 500_000, id="bz2"),
        pytest.param(
            lambda below: io.BufferedWriter(cast("Any", gzip.GzipFile(fileobj=below, mode="w"))),
            500_000,
            id="buffer over gzip",
        ),
    ],
)
async def test_compressing_into_what_would_block_is_an_error(
    make: Callable[[Any], Any], size: int, *, offload: bool
) -> None:
    """What was compressed cannot be taken back, so it must not be offered again."""
    below, reader = make_pipe(blocking=False, buffering=100)
    below.write(bytes(4096))
    writer = AllowStdIo(make(below), offload=offload)
    with pytest.raises(trio.BrokenResourceError, match="the file below it must block"):
        await writer.send_all(NOISE[:size])
    await writer.aclose()
    with contextlib.suppress(BlockingIOError):
        below.close()
    await reader.aclose()


class Below:
    """No io class; would block once, as a raw file does."""

    closed = False

    def __init__(self) -> None:
        self.written = b""
        self.blocks = True

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        raise AssertionError("a buffer does not flush the file below")

    def write(self, data: memoryview) -> int | None:
        if self.blocks:
            self.blocks = False
            return None
        self.written += data
        return len(data)

    def close(self) -> None:
        self.closed = True


@both_modes
async def test_a_buffer_over_no_io_class_waits_and_is_not_known_to_be_empty(
    *, offload: bool
) -> None:
    below = Below()
    async with AllowStdIo(io.BufferedWriter(cast("Any", below)), offload=offload) as writer:
        await writer.send_all(b"abc")
        assert below.written == b"abc"
        assert writer.unsent_bytes == 3
    assert writer.unsent_bytes == 0


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
