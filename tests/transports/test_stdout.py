"""Standard output and error: in order, never blocking, and nothing that others would see."""

# ruff: noqa: T201 - to print is what they are about

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import socket
import subprocess
import sys
import tty
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import BufWriter, CloseOutcome, close_gracefully, stderr, stdout
from trio_asyncwrite._transports._nowait import NowaitWriter, OwnDescriptor
from trio_asyncwrite._transports._stdout import StandardWriter

from .._patience import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors")

only_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="no /dev/full, no RWF_NOWAIT")

TEXT = b"".join(b"%07d\n" % number for number in range(40_000))


class Place:
    """What a program's standard output may be, and how to read what came there."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.reading = -1
        if kind == "pipe":
            self.reading, self.writing = os.pipe()
        elif kind == "named pipe":
            os.mkfifo(folder / "fifo")
            self.reading = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
            os.set_blocking(self.reading, True)
            self.writing = os.open(folder / "fifo", os.O_WRONLY)
        elif kind == "socket":
            left, right = socket.socketpair()
            self.reading, self.writing = left.detach(), right.detach()
        elif kind == "terminal":
            self.reading, self.writing = os.openpty()
        elif kind == "master":
            self.writing, self.reading = os.openpty()
            tty.setraw(self.reading)
        elif kind in ("file", "appended file"):
            flags = os.O_APPEND if kind == "appended file" else 0
            self.path = folder / "file"
            self.path.write_bytes(b"before\n")
            self.writing = os.open(self.path, os.O_WRONLY | flags)
            if not flags:
                os.lseek(self.writing, 7, os.SEEK_SET)
        else:
            self.writing = os.open(kind, os.O_WRONLY)

    def close(self) -> None:
        for number in (self.reading, self.writing):
            with contextlib.suppress(OSError):
                os.close(number)

    def read(self, size: int) -> bytes:
        """What has come, ``size`` bytes of it."""
        if self.reading < 0:
            return self.path.read_bytes().removeprefix(b"before\n")
        found = b""
        while len(found.replace(b"\r", b"")) < size:
            found += os.read(self.reading, 65536)
        return found.replace(b"\r", b"")


@pytest.fixture
def place(kind: str, tmp_path: Path) -> Iterator[Place]:
    place = Place(kind, tmp_path)
    yield place
    place.close()


# What hides a fast path: the result is the same.
def refuse_nowait(patch: pytest.MonkeyPatch) -> None:
    def pwritev(*_: object) -> int:
        raise OSError(errno.ENOTSUP, "not supported")

    patch.setattr(os, "pwritev", pwritev)


def lack_nowait(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(os, "RWF_NOWAIT", raising=False)


def refuse_reopening(patch: pytest.MonkeyPatch) -> None:
    refuse_nowait(patch)
    really_open = os.open

    def open_(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).startswith("/proc/self/fd"):
            raise PermissionError(errno.EACCES, "of another user")
        return really_open(path, *args, **kwargs)

    patch.setattr(os, "open", open_)


def reopen_another(patch: pytest.MonkeyPatch) -> None:
    """A system whose /proc shows something else."""
    refuse_nowait(patch)
    really_open = os.open
    patch.setattr(os, "open", lambda path, *args: really_open("/dev/null", *args))


SYSTEMS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "as it is": lambda _: None,
    "refuses RWF_NOWAIT": refuse_nowait,
    "has no RWF_NOWAIT": lack_nowait,
    "refuses to open again": refuse_reopening,
    "opens something else": reopen_another,
}
KINDS = ["pipe", "named pipe", "socket", "terminal", "master", "file", "appended file"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("system", SYSTEMS)
async def test_everything_arrives_in_order_with_what_is_printed(
    place: Place, kind: str, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... and nobody else sees a change."""
    printing = io.TextIOWrapper(io.FileIO(place.writing, "wb", closefd=False), "ascii")
    monkeypatch.setattr(sys, "stdout", printing)
    with monkeypatch.context() as patch:
        SYSTEMS[system](patch)
        writer = StandardWriter(place.writing, "stdout")
        print("1")
        await writer.write_all(b"2\n")
        print("3")
        await writer.write_all_vectored([b"4\n", b"", b"5\n"])
        await writer.flush()
        print("6")
        printing.flush()
        await writer.send_all(b"7\n")
        assert os.get_blocking(place.writing)
        with pytest.raises(TypeError, match=r"give \[data\]"):
            await writer.write_vectored(b"no")  # type: ignore[arg-type]
        await writer.aclose()
    os.write(place.writing, b"8\n")

    assert place.read(16) == b"1\n2\n3\n4\n5\n6\n7\n8\n"


@pytest.mark.parametrize("kind", ["pipe", "named pipe", "socket", "terminal", "master"])
@pytest.mark.parametrize("system", ["as it is", "refuses RWF_NOWAIT", "refuses to open again"])
async def test_a_reader_that_is_slow_does_not_stop_other_tasks(
    place: Place, kind: str, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    SYSTEMS[system](monkeypatch)
    writer = StandardWriter(place.writing, "stdout")
    found = bytearray()

    def read() -> None:
        found.extend(place.read(len(TEXT)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send_all, TEXT)
        # The other tasks go on.
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(read)
    await writer.aclose()

    assert found == TEXT


@pytest.mark.parametrize("kind", ["pipe"])
async def test_what_was_printed_waits_until_there_is_room(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To flush into a full pipe would block the run."""
    writer = StandardWriter(place.writing, "stdout")
    os.set_blocking(place.writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(place.writing, bytes(65536))
    os.set_blocking(place.writing, True)
    buffered = io.BufferedWriter(io.FileIO(place.writing, "wb", closefd=False))
    printing = io.TextIOWrapper(buffered, "ascii")
    monkeypatch.setattr(sys, "stdout", printing)
    print("printed")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all, b"written")
        await wait_all_tasks_blocked()
        found = b""
        while not found.endswith(b"written"):
            found += await trio.to_thread.run_sync(os.read, place.reading, 65536)
    assert found.lstrip(b"\0") == b"printed\nwritten"
    await writer.aclose()


@pytest.mark.parametrize("kind", ["pipe"])
async def test_somebody_else_has_made_it_non_blocking(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a flush of what was printed may go in part, and is made again."""
    writer = StandardWriter(place.writing, "stdout")

    class Printing:
        calls = 0

        def fileno(self) -> int:
            return place.writing

        def flush(self) -> None:
            self.calls += 1
            if self.calls < 3:
                raise BlockingIOError

    monkeypatch.setattr(sys, "stdout", Printing())
    await writer.send_all(b"abc")
    assert place.read(3) == b"abc"
    await writer.aclose()


@pytest.mark.parametrize("kind", ["pipe"])
async def test_a_flush_of_what_was_printed_fails(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StandardWriter(place.writing, "stdout")
    printing = io.TextIOWrapper(io.FileIO(place.writing, "wb", closefd=False), "ascii")
    monkeypatch.setattr(sys, "stdout", printing)
    print("printed")
    os.close(place.reading)
    with pytest.raises(trio.BrokenResourceError) as caught:
        await writer.write_all(b"written")
    assert isinstance(caught.value.__cause__, BrokenPipeError)
    await writer.aclose()
    with contextlib.suppress(BrokenPipeError):
        printing.close()


@pytest.mark.parametrize("kind", ["pipe"])
async def test_sys_stdout_is_closed_in_between(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StandardWriter(place.writing, "stdout")
    printing = io.TextIOWrapper(io.FileIO(place.writing, "wb", closefd=False), "ascii")
    monkeypatch.setattr(sys, "stdout", printing)
    await writer.send_all(b"1")
    printing.close()
    await writer.send_all(b"2")
    assert place.read(2) == b"12"

    class Printing:
        def fileno(self) -> int:
            return place.writing

        def flush(self) -> None:
            raise ValueError("mine")

    monkeypatch.setattr(sys, "stdout", Printing())
    with pytest.raises(ValueError, match="mine"):
        await writer.write(b"3")
    await writer.aclose()


@pytest.mark.parametrize("kind", ["pipe"])
@pytest.mark.parametrize("system", SYSTEMS)
async def test_nobody_reads_any_more(
    place: Place, kind: str, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    SYSTEMS[system](monkeypatch)
    os.close(place.reading)
    writer = StandardWriter(place.writing, "stdout")
    with pytest.raises(trio.BrokenResourceError) as caught:
        await writer.send_all(b"abc")
    assert isinstance(caught.value.__cause__, BrokenPipeError)
    await writer.aclose()


@only_on_linux
@pytest.mark.parametrize("kind", ["/dev/full"])
async def test_a_full_disk(place: Place, kind: str) -> None:
    writer = StandardWriter(place.writing, "stdout")
    with pytest.raises(trio.BrokenResourceError, match="No space left") as caught:
        await writer.send_all(b"abc")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    with pytest.raises(trio.BrokenResourceError):
        await writer.write(b"more")
    await writer.aclose()


@pytest.mark.parametrize("kind", ["/dev/null"])
async def test_nothing_is_made_of_dev_null(place: Place, kind: str) -> None:
    writer = StandardWriter(place.writing, "stdout")
    await writer.write_all_vectored([b"", *[b"x"] * 3000, b""])
    await writer.send_all(TEXT)
    assert "NowaitWriter" in repr(writer) or sys.platform != "linux"
    await writer.aclose()


# ---- Which files print to it -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe"])
@pytest.mark.parametrize("instead", ["StringIO", "None", "closed", "another", "redirected"])
async def test_sys_stdout_was_replaced(
    place: Place, kind: str, instead: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The writer goes on to write to the descriptor; what was printed before comes first."""
    with (tmp_path / "another").open("w") as another:
        printing = io.TextIOWrapper(io.FileIO(place.writing, "wb", closefd=False), "ascii")
        monkeypatch.setattr(sys, "__stdout__", printing)
        printing.write("printed ")
        closed = io.StringIO()
        closed.close()
        files = {"StringIO": io.StringIO(), "None": None, "closed": closed, "another": another}
        monkeypatch.setattr(sys, "stdout", files.get(instead, printing))
        if instead != "closed":
            print("elsewhere ", end="")
        writer = StandardWriter(place.writing, "stdout")
        await writer.send_all(b"written")
        await writer.aclose()
        expected = b"printed elsewhere written" if instead == "redirected" else b"printed written"
        assert place.read(len(expected)) == expected


async def test_a_test_s_captured_output(capfd: pytest.CaptureFixture[str]) -> None:
    for make, file in ((stdout, sys.stdout), (stderr, sys.stderr)):
        writer = make()
        print("printed", file=file)
        await writer.send_all(b"written\n")
        await writer.aclose()
    captured = capfd.readouterr()
    assert captured.out == captured.err == "printed\nwritten\n"


# ---- Its end -----------------------------------------------------------------------------------


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("kind", ["pipe", "named pipe", "socket", "file"])
@pytest.mark.parametrize("system", ["as it is", "refuses to open again"])
async def test_the_descriptor_stays_open_and_the_duplicate_does_not(
    place: Place, kind: str, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    SYSTEMS[system](monkeypatch)
    before = open_descriptors()
    for end in ("aclose", "shutdown", "forceful", "dropped"):
        writer = StandardWriter(place.writing, "stdout")
        await writer.send_all(b"abc\n")
        if end == "aclose":
            async with BufWriter(writer) as buffered:
                await buffered.write_all(b"def\n")
        elif end == "shutdown":
            await writer.shutdown()
            with pytest.raises(trio.ClosedResourceError):
                await writer.write(b"more")
            await writer.aclose()
        elif end == "forceful":
            await trio.aclose_forcefully(writer)
        del writer
        gc.collect()
    assert place.read(20) == b"abc\ndef\nabc\nabc\nabc\n"
    assert open_descriptors() <= before + 1  # Trio's or a thread's, made once


@pytest.mark.parametrize("system", ["as it is", "refuses RWF_NOWAIT", "refuses to open again"])
async def test_a_graceful_close(
    tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    SYSTEMS[system](monkeypatch)
    place = Place("pipe", tmp_path)
    writer = BufWriter(StandardWriter(place.writing, "stdout"))
    await writer.write_all(b"abc")
    report = await close_gracefully(writer)
    assert report.outcome is CloseOutcome.PEER_SILENT  # as of every pipe
    assert not report.unsent_bytes
    assert place.read(3) == b"abc"
    os.write(place.writing, b"it is still open")
    place.close()


async def test_a_number_that_is_reused_is_not_written_to() -> None:
    """Whoever closes descriptor 1 gets it back from the next open()."""
    reading, writing = os.pipe()
    writer = StandardWriter(writing, "stdout")
    os.close(writing)
    other_reading, other_writing = os.pipe()
    await writer.send_all(b"abc")
    assert os.read(reading, 10) == b"abc"
    await writer.aclose()
    assert os.read(reading, 10) == b""
    for number in (reading, other_reading, other_writing):
        os.close(number)


async def test_what_a_thread_has_not_written_is_told() -> None:
    reading, writing = os.pipe()
    with pytest.MonkeyPatch.context() as patch:
        refuse_reopening(patch)
        writer = StandardWriter(writing, "stdout")
        await writer.write_all(bytes(200_000))
    with pytest.warns(ResourceWarning, match="200000 bytes|bytes"):
        await trio.aclose_forcefully(writer)
    del writer
    found = 0
    os.close(writing)
    while chunk := await trio.to_thread.run_sync(os.read, reading, 65536):
        found += len(chunk)
    assert found == 200_000  # the duplicate was open for as long as the thread needed it
    os.close(reading)


async def test_another_task_closes_it_while_it_waits(tmp_path: Path) -> None:
    place = Place("pipe", tmp_path)
    writer = StandardWriter(place.writing, "stdout")

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.write_all(bytes(1_000_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await writer.write(b"another task")
        with pytest.warns(ResourceWarning, match="message"):
            await writer.aclose()
    place.close()


@only_on_linux
async def test_nowait_writer_by_itself(tmp_path: Path) -> None:
    place = Place("pipe", tmp_path)
    descriptor = OwnDescriptor(os.dup(place.writing))
    writer = NowaitWriter(descriptor)
    await writer.wait_send_all_might_not_block()
    # More parts than one call takes, and empty ones that must not take their places.
    assert writer.poll_write_vectored([b""] * 3000 + [b"x"] * 3000) == 1024
    assert place.read(1024) == b"x" * 1024
    await writer.shutdown()
    writer.poll_shutdown()
    assert descriptor.fileno() == -1
    assert repr(descriptor) == "<descriptor -1>"
    await writer.aclose()

    writer = NowaitWriter(descriptor)
    with pytest.raises(trio.ClosedResourceError):
        await writer.wait_send_all_might_not_block()
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"behind our back")
    await writer.aclose()
    place.close()


# ---- What is refused ---------------------------------------------------------------------------


def test_a_closed_descriptor() -> None:
    number = os.dup(0)
    os.close(number)
    with pytest.raises(
        OSError, match=rf"standard error \(descriptor {number}\) is closed"
    ) as caught:
        StandardWriter(number, "stderr")
    assert caught.value.errno == errno.EBADF


def test_one_that_was_closed_when_the_program_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python leaves sys.stdout None, and the next file that is opened gets the number."""
    place = Place("pipe", tmp_path)
    monkeypatch.setattr(sys, "__stdout__", None)
    with pytest.raises(OSError, match="was closed when the program began"):
        StandardWriter(place.writing, "stdout")
    place.close()


def test_one_that_is_only_read_from(tmp_path: Path) -> None:
    """Opened again, the reading end of a pipe would become a writing one."""
    place = Place("pipe", tmp_path)
    with pytest.raises(OSError, match="is not open for writing") as caught:
        StandardWriter(place.reading, "stdout")
    assert caught.value.errno == errno.EBADF
    place.close()


def test_a_packet_socket() -> None:
    left, right = socket.socketpair(type=socket.SOCK_DGRAM)
    with left, right:
        with pytest.raises(TypeError, match="SOCK_STREAM"):
            StandardWriter(left.fileno(), "stdout")
        socket.setdefaulttimeout(5)
        try:
            StandardWriter(left.fileno(), "stdout")
            assert left.getblocking()
        finally:
            socket.setdefaulttimeout(None)


# ---- The truth: programs -----------------------------------------------------------------------

# One program for all, since a start takes long; each place gets a process of its own.
PROGRAMS = """
import logging, os, sys, trio
from trio_asyncwrite import stderr, stdout

async def main():
    out, err = stdout(), stderr()
    print("1")
    await out.send_all(b"2\\n")
    print("3")
    await out.send_all(b"4\\n")
    print("5")
    logging.error("6")
    await err.send_all(b"7\\n")

logging.basicConfig()
for number in map(int, sys.argv[1:]):
    process = os.fork()
    if not process:
        os.dup2(number, 1)
        try:
            trio.run(main)
            sys.stdout.flush()
        except BaseException as exc:
            sys.stderr.write(f"{type(exc).__name__} from {exc.__cause__}\\n")
        finally:
            os._exit(0)
    os.waitpid(process, 0)
"""

CLOSED = """
import trio
from trio_asyncwrite import stdout

async def main():
    stdout()

trio.run(main)
"""


def test_programs(tmp_path: Path) -> None:
    kinds = ["pipe", "terminal", "socket", "appended file"]
    kinds += ["/dev/full"] * (sys.platform == "linux")
    places = [Place(kind, tmp_path) for kind in kinds]
    numbers = [place.writing for place in places]
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAMS, *map(str, numbers)],
        check=True,
        env=environment,
        pass_fds=numbers,
        stderr=subprocess.PIPE,
        timeout=60,
    )

    full = b"BrokenResourceError from [Errno 28] No space left on device\n" * (len(places) - 4)
    assert done.stderr == b"ERROR:root:6\n7\n" * 4 + full
    for place in places:
        assert os.get_blocking(place.writing)
        if place.kind != "/dev/full":
            assert place.read(10) == b"1\n2\n3\n4\n5\n"
        place.close()


def test_a_program_without_standard_output() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -W error -c "$1" >&-', sys.executable, CLOSED],
        check=False,
        stderr=subprocess.PIPE,
        timeout=60,
    )

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(b"OSError: [Errno 9] standard output (descriptor 1) ")
