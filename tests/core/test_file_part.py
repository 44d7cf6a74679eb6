"""A part of a file: what it may be of, where it stands, and how it is read."""

from __future__ import annotations

import bz2
import errno
import gc
import gzip
import io
import lzma
import mmap
import os
import socket
import tarfile
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncWrite, FilePart, NotReady
from trio_asyncwrite._core import _file_part
from trio_asyncwrite._core._file_not_ready import FileNotReady
from trio_asyncwrite._core._file_part import SENT_AT_ONCE
from trio_asyncwrite._core._open_file import pread_by_seeking
from trio_asyncwrite._core._page_cache import PIECE
from trio_asyncwrite._core._write_file import poll_file

from .._disk import CONTENT, SYSTEMS, nothing_in_memory, on, path, raising
from .._streams import assert_leaves_no_cycle
from ._fakes import each

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ("path",)


async def read(part: FilePart, limit: int) -> bytes:
    """Poll until it is ready."""
    while True:
        try:
            return bytes(part.poll_read(limit))
        except NotReady as not_ready:
            wait = not_ready.wait
        await wait()


async def read_all(part: FilePart, limit: int) -> bytes:
    data = bytearray()
    while more := await read(part, limit):
        data += more
        part.advance(len(more))
    return bytes(data)


# ---- What it may be of ---------------------------------------------------------------------------


async def test_it_takes_a_file_a_trio_file_and_a_descriptor(path: Path) -> None:
    with path.open("rb") as buffered, path.open("rb", buffering=0) as raw:
        async with await trio.open_file(path, "rb") as trio_file:
            for file in (buffered, raw, trio_file, raw.fileno()):
                part = FilePart(file)
                assert part.fileno() in (buffered.fileno(), raw.fileno(), trio_file.fileno())
                assert await read_all(part, PIECE) == CONTENT


async def test_it_takes_the_standard_library_s_temporary_files() -> None:
    for make in (
        tempfile.TemporaryFile,
        tempfile.NamedTemporaryFile,
        tempfile.SpooledTemporaryFile,
    ):
        with make() as file:
            file.write(b"abc")
            file.flush()
            assert await read_all(FilePart(file), 10) == b"abc"


def text_file(path: Path) -> Any:
    return path.open()


def temporary_text_file(_: Path) -> Any:
    return tempfile.NamedTemporaryFile("w+")


def buffer_over_gzip(path: Path) -> Any:
    return io.BufferedReader(gzip.open(path))  # type: ignore[arg-type]


def in_an_archive(path: Path) -> Any:
    archive = path.with_suffix(".tar")
    with tarfile.open(archive, "w") as writing:
        writing.add(path, "file")
    with tarfile.open(archive) as reading:
        return reading.extractfile("file")


class NoDescriptor(io.RawIOBase):
    """A raw file that is not the system's."""


class OddDescriptor:
    """Its number is none."""

    def fileno(self) -> Any:
        return "7"

    def close(self) -> None:
        """It holds nothing."""


NO_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "None": (lambda _: None, "expected a binary file or a file descriptor, got NoneType"),
    "a bool": (lambda _: True, "got bool"),
    "bytes": (lambda _: b"abc", "got bytes: data goes to write_all"),
    "a bytearray": (lambda _: bytearray(b"abc"), "got bytearray: data goes to write_all"),
    "a mapping": (lambda _: mmap.mmap(-1, 10), "got mmap: data goes to write_all"),
    "in an archive": (in_an_archive, "has none: read from it, and use write_all"),
    "a name": (str, "give open"),
    "a path": (lambda path: path, "give open"),
    "a float": (lambda _: 1.0, "got float"),
    "text": (text_file, "open it with 'rb'"),
    "temporary text": (temporary_text_file, "open it with 'rb'"),
    "in memory": (lambda _: io.BytesIO(b"abc"), "got a BytesIO: use write_all_buf"),
    "gzip": (gzip.open, "got GzipFile, whose descriptor has other bytes"),
    "bz2": (bz2.open, "got BZ2File"),
    "lzma": (lzma.open, "got LZMAFile"),
    "a buffer over gzip": (buffer_over_gzip, "got GzipFile"),
    "no descriptor": (lambda _: NoDescriptor(), "has none"),
    "an odd descriptor": (lambda _: OddDescriptor(), "it returned '7'"),
}


@each(NO_FILES, "no_file")
def test_what_is_no_file_is_refused_by_name(
    path: Path, no_file: tuple[Callable[[Path], Any], str]
) -> None:
    make, text = no_file
    file = make(path)
    with pytest.raises(TypeError, match=text):
        FilePart(file)
    if hasattr(file, "close"):
        file.close()


def test_a_part_of_a_part_is_refused(path: Path) -> None:
    """Its offset and count would be ignored."""
    with path.open("rb") as file:
        part = FilePart(file, 3, 4)
        with pytest.raises(TypeError, match="got a FilePart: use write_all_file"):
            FilePart(part)


def test_a_closed_file_is_refused(path: Path) -> None:
    with path.open("rb") as file:
        number = os.dup(file.fileno())
    os.close(number)
    with pytest.raises(ValueError, match="closed"):
        FilePart(file)
    for wrong in (number, -1, 2**70):
        with pytest.raises(OSError, match="expected an open file descriptor") as caught:
            FilePart(wrong)
        assert caught.value.errno == errno.EBADF


def test_a_directory_is_refused(tmp_path: Path) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError, match="expected a file"):
        FilePart(number)
    os.close(number)


def test_a_file_for_writing_only_is_refused(path: Path) -> None:
    with path.open("ab") as file, pytest.raises(ValueError, match="is for writing only"):
        FilePart(file)


def test_what_has_no_absolute_positions_is_refused() -> None:
    reading, writing = os.pipe()
    left, right = socket.socketpair()
    for number in (reading, left.fileno()):
        with pytest.raises(ValueError, match="expected a file with absolute positions"):
            FilePart(number)
    left.close()
    right.close()
    os.close(reading)
    os.close(writing)


WRONG_NUMBERS: list[tuple[Any, Any, type[Exception], str]] = [
    (-1, None, ValueError, "offset must be an integer of at least 0, got -1"),
    (2**63 - 1, None, ValueError, "offset must be less than 2"),
    (2**80, None, ValueError, "offset must be less than 2"),
    (1.0, None, TypeError, "offset must be an integer of at least 0, got float"),
    ("1", None, TypeError, "offset"),
    (None, None, TypeError, "offset"),
    (0, -1, ValueError, "count must be an integer of at least 0, got -1"),
    (0, "1", TypeError, "count"),
    (0, 2.0, TypeError, "count"),
    (5, 2**63 - 5, ValueError, "offset . count must be less than 2"),
    (0, 2**90, ValueError, "offset . count"),
]


@pytest.mark.parametrize(("offset", "count", "error", "text"), WRONG_NUMBERS)
def test_a_wrong_number_is_refused(
    path: Path, offset: Any, count: Any, error: type[Exception], text: str
) -> None:
    with path.open("rb") as file, pytest.raises(error, match=text):
        FilePart(file, offset, count)


# ---- Where it stands -----------------------------------------------------------------------------


def test_the_offset_is_absolute_and_the_file_s_position_stays(path: Path) -> None:
    """cpython #150107, #81460: the offset 0 of a file that is positioned elsewhere."""
    with path.open("rb") as file:
        file.seek(1000)
        part = FilePart(file, 0, 10)
        assert part.poll_read(100) == CONTENT[:10]
        part.advance(10)
        assert (part.offset, part.remaining, bool(part)) == (10, 0, False)
        assert file.tell() == 1000


def test_without_a_count_what_remains_is_asked_of_the_file(path: Path) -> None:
    with path.open("rb") as file:
        part = FilePart(file, 100)
        assert part.remaining == len(CONTENT) - 100
        with path.open("ab") as writing:
            writing.write(b"more")
        assert part.remaining == len(CONTENT) - 96
        assert FilePart(file, 2**62).remaining == 0
    assert part.remaining == len(CONTENT) - 96  # closed: what was known last
    with path.open("rb") as file:
        assert FilePart(file, 7, 100).remaining == 100


def test_a_part_is_true_until_it_was_sent(path: Path) -> None:
    with path.open("rb") as file:
        assert not FilePart(file, 0, 0)
        part = FilePart(file, len(CONTENT))
        assert part  # nobody has looked
        assert part.end_here()
        assert not part
        assert part.remaining == 0
        counted = FilePart(file, len(CONTENT), 1)
        assert not counted.end_here()
        assert counted


def test_it_cannot_be_advanced_beyond_its_end(path: Path) -> None:
    with path.open("rb") as file:
        part = FilePart(file, 5, 10)
        for wrong in (-1, 11, 2**70):
            with pytest.raises(ValueError, match=f"cannot advance by {wrong}: 10 bytes remain"):
                part.advance(wrong)
        with pytest.raises(TypeError, match="count must be an integer of at least 0, got str"):
            part.advance("1")  # type: ignore[arg-type]
        assert part.offset == 5
        part.advance(4)
        assert (part.offset, part.remaining) == (9, 6)


@pytest.mark.parametrize("method", ["poll_read", "poll_cached"])
@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (-3, ValueError), ("x", TypeError), (1.0, TypeError)]
)
def test_a_poll_refuses_a_wrong_limit(
    path: Path, method: str, limit: Any, error: type[Exception]
) -> None:
    with path.open("rb") as file, pytest.raises(error, match="limit must be an integer of at l"):
        getattr(FilePart(file), method)(limit)


def test_it_says_what_it_is(path: Path) -> None:
    with path.open("rb") as file:
        assert repr(FilePart(file, 3)) == f"<FilePart: 3 to the end of {file!r}>"
        assert repr(FilePart(file.fileno(), 3, 4)) == f"<FilePart: 3 to 7 of {file.fileno()}>"


# ---- Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("offload", [False, True])
@each({name: name for name in SYSTEMS}, "system")
async def test_it_reads_the_same_on_every_system(path: Path, system: str, *, offload: bool) -> None:
    with on(system), path.open("rb") as file:
        for offset, count, expected in (
            (0, None, CONTENT),
            (7, PIECE + 1, CONTENT[7 : PIECE + 8]),
            (len(CONTENT) - 3, 100, CONTENT[-3:]),
            (len(CONTENT), None, b""),
            (2**62, None, b""),
            (2**63 - 2, None, b""),
            (9, 0, b""),
        ):
            for limit in (2**62, 100_000):
                part = FilePart(file, offset, count, offload=offload)
                assert await read_all(part, limit) == expected
                assert part.offset == offset + len(expected)


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux only")
async def test_a_piece_that_is_not_in_memory_is_read_in_a_thread_and_asked_for_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under memory pressure it might be gone again, and again."""
    asked: list[int] = []

    def preadv(number: int, buffers: object, offset: int, flags: int) -> int:
        asked.append(offset)
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", preadv)
    with path.open("rb") as file:
        part = FilePart(file)
        assert part.poll_cached(PIECE) == 0
        with pytest.raises(FileNotReady) as caught:
            part.poll_read(10)
        assert caught.value.error is None
        asked.clear()
        await caught.value.wait()
        assert part.poll_cached(PIECE) == 0
        while part.offset < PIECE:
            assert part.poll_read(50_000) == CONTENT[part.offset :][:50_000][: PIECE - part.offset]
            part.advance(len(part.poll_read(50_000)))
        assert asked == []


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux only")
@pytest.mark.parametrize("cold", [0, 99])
def test_the_first_and_the_last_byte_are_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, cold: int
) -> None:
    preadv = os.preadv

    def ask(number: int, buffers: Any, offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        if offset == cold:
            raise BlockingIOError
        return preadv(number, buffers, offset)

    monkeypatch.setattr(os, "preadv", ask)
    with path.open("rb") as file:
        assert FilePart(file, 0, 100).poll_cached(2**62) == 0
        assert FilePart(file, 1, 98).poll_cached(2**62) == 98


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux only")
def test_what_is_in_memory_is_offered_up_to_where_it_is_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It offers more as more is taken."""
    end = 2 * SENT_AT_ONCE
    os.truncate(path, end)
    cold = end

    def ask(_number: int, _buffers: Any, offset: int, _flags: int) -> int:
        if offset >= cold:
            raise BlockingIOError
        return 1

    monkeypatch.setattr(os, "preadv", ask)
    with path.open("rb") as file:
        part = FilePart(file)
        for taken, offered in ((1000, PIECE), (PIECE, PIECE), (1000, 2 * PIECE)):
            assert part.poll_cached(2**62) == offered
            part.advance(taken)
        part.forget()
        cold = part.offset + PIECE + 5
        assert part.poll_cached(2**62) == PIECE
        part.forget()
        cold = part.offset + 5
        assert part.poll_cached(2**62) == 0
        cold = end
        while part.poll_cached(2**62) < SENT_AT_ONCE:
            part.advance(part.poll_cached(2**62))
        part.advance(SENT_AT_ONCE)
        assert part.poll_cached(2**62) == end - part.offset < SENT_AT_ONCE
    assert SENT_AT_ONCE == 16 * PIECE


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux only")
async def test_what_was_in_memory_is_not_asked_for_again_until_a_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket takes a part of what it is offered; and a slow one takes minutes."""
    os.truncate(path, 2 * SENT_AT_ONCE)
    asked: list[int] = []

    def ask(_number: int, _buffers: Any, offset: int, _flags: int) -> int:
        asked.append(offset)
        return 1

    monkeypatch.setattr(os, "preadv", ask)
    with path.open("rb") as file:
        part = FilePart(file)
        part.advance(SENT_AT_ONCE)
        end = part.offset + part.poll_cached(2**62)
        while end - part.offset > PIECE:
            asked.clear()
            part.advance(PIECE // 2)
            assert part.poll_cached(2**62) == end - part.offset
            assert asked == []
        part.forget()
        part.poll_cached(2**62)
        assert asked[0] == part.offset
        asked.clear()
        with pytest.raises(NotReady):
            poll_file(Clogged(), part)
        part.poll_cached(2**62)
        assert asked[0] == part.offset


class Clogged(AsyncWrite):
    """Looks, and takes nothing."""

    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        assert part.poll_cached(limit)
        raise NotReady(trio.sleep_forever)


def test_the_size_is_asked_for_when_what_was_known_of_it_is_used_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not at every poll."""
    asked: list[int] = []
    fstat = os.fstat

    def ask(number: int) -> os.stat_result:
        asked.append(number)
        return fstat(number)

    with path.open("rb") as file:
        file.read()
        part = FilePart(file)
        monkeypatch.setattr(os, "fstat", ask)
        while part.known_ahead > PIECE:
            part.advance(part.poll_cached(PIECE) or PIECE)
            assert asked == []
        with path.open("ab") as more:
            more.write(bytes(3 * PIECE))
        assert part.poll_cached(2**62) >= PIECE
        assert asked == [file.fileno()]


@each({"all": None, "so much": 100}, "count")
async def test_a_file_that_shrinks_ends_where_it_ends_now(path: Path, count: int | None) -> None:
    """The size that was known does not count then."""
    with path.open("rb") as file:
        part = FilePart(file, 0, count and len(CONTENT))
        part.advance(1000)
        os.truncate(path, 1100)
        assert await read_all(part, PIECE) == CONTENT[1000:1100]
        assert part.in_file() == 0


def test_what_is_in_memory_is_said_a_piece_at_a_time(path: Path) -> None:
    with path.open("rb") as file:
        assert FilePart(file).poll_cached(2**62) in (PIECE, 0)  # 0 where the system has evicted it
        file.read()
        assert FilePart(file).poll_cached(2**62) == PIECE
        assert FilePart(file).poll_cached(5) == 5
        assert FilePart(file, len(CONTENT) - 5).poll_cached(2**62) == 5
        assert FilePart(file, 0, 0).poll_cached(2**62) == 0
        assert FilePart(file, offload=True).poll_cached(2**62) == 0
        part = FilePart(file)
    assert part.poll_cached(2**62) == 0


async def test_a_failure_of_the_file_comes_out_of_the_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... each time, and nothing is wrong afterwards."""
    with path.open("rb") as file:
        part = FilePart(file)
        with monkeypatch.context() as patch:
            patch.setattr(_file_part, "pread", raising(OSError(errno.EIO, "bad sector")))
            for _ in range(2):
                with pytest.raises(FileNotReady) as caught:
                    part.poll_read(10)
                assert isinstance(caught.value.error, OSError)
                with pytest.raises(OSError, match="bad sector"):
                    await caught.value.wait()
                await caught.value.wait()  # another task, which polls again
        assert part.poll_read(10) == CONTENT[:10]


async def test_a_failure_in_the_thread_comes_out_of_a_wait_and_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with path.open("rb") as file:
        part = FilePart(file, offload=True)
        with monkeypatch.context() as patch:
            patch.setattr(_file_part, "pread", raising(OSError(errno.EIO, "bad sector")))
            for _ in range(2):
                with pytest.raises(OSError, match="bad sector"):
                    await read(part, 10)
        assert await read(part, 10) == CONTENT[:10]


async def test_a_file_that_was_closed_meanwhile_is_an_error(path: Path) -> None:
    file = path.open("rb")
    parts = [FilePart(file), FilePart(file, offload=True)]
    with pytest.raises(NotReady):
        parts[1].poll_read(10)
    file.close()
    for part in parts:
        with pytest.raises(ValueError, match="closed file"):
            await read(part, 10)
        assert not part.can_be_read()


async def test_what_a_thread_has_read_of_another_place_is_not_taken(path: Path) -> None:
    with path.open("rb") as file:
        part = FilePart(file, offload=True)
        with pytest.raises(NotReady):
            part.poll_read(10)
        part.advance(3)  # by somebody's hand
        assert await read(part, 10) == CONTENT[3:13]


def test_a_thread_may_read_for_several_runs(path: Path) -> None:
    with path.open("rb") as file:
        part = FilePart(file, offload=True)

        async def begin() -> None:
            with pytest.raises(NotReady):
                part.poll_read(10)

        trio.run(begin)
        assert trio.run(read, part, 10) == CONTENT[:10]


def test_a_copy_outlives_the_caller_s_file_and_is_closed_once(path: Path) -> None:
    with path.open("rb") as file:
        part = FilePart(file, 5, 100)
        copy = part.copy(50)
        part.release()  # which is not ours to close
        assert part.poll_read(3) == CONTENT[5:8]
    number = copy.fileno()
    assert copy.poll_read(100) == CONTENT[5:55]
    copy.release()
    copy.release()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_a_copy_that_is_dropped_is_closed(path: Path) -> None:
    with path.open("rb") as file:
        number = FilePart(file).copy(50).fileno()
        gc.collect()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)


def test_nobody_keeps_it_alive(path: Path) -> None:
    with path.open("rb") as file:
        reference = weakref.ref(FilePart(file))
        assert reference() is None


async def test_no_failure_leaves_a_reference_cycle(path: Path) -> None:
    async def scenario() -> None:
        file = path.open("rb")
        part = FilePart(file)
        file.close()
        with pytest.raises(ValueError, match="closed file"):
            await read(part, 10)

    await assert_leaves_no_cycle(scenario)


def test_seeking_reads_what_pread_reads_and_restores_the_position(path: Path) -> None:
    """Windows has no pread."""
    with path.open("rb", buffering=0) as file:
        file.seek(17)
        assert pread_by_seeking(file.fileno(), 10, 100) == CONTENT[100:110]
        assert file.tell() == 17
        assert pread_by_seeking(file.fileno(), 10, 2**63 - 2) == b""
        with pytest.raises(OSError, match="Invalid argument"):
            pread_by_seeking(file.fileno(), 10, -1)
        assert file.tell() == 17


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux only")
async def test_to_be_cancelled_in_the_wait_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_in_memory(monkeypatch)
    with path.open("rb") as file:
        part = FilePart(file)
        with pytest.raises(NotReady) as caught:
            part.poll_read(10)
        with trio.CancelScope() as scope:
            scope.cancel()
            await caught.value.wait()
        assert scope.cancelled_caught
        assert await read(part, 10) == CONTENT[:10]
