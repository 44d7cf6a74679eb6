"""Files over sockets and pipes: the kernel sends them, and whoever is at fault is blamed."""

from __future__ import annotations

import errno
import hashlib
import os
import socket as stdlib_socket
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import FilePart, NotReady, PollEvented, TcpStream
from trio_asyncwrite._core import _file_part
from trio_asyncwrite._core._file_not_ready import FileNotReady
from trio_asyncwrite._core._file_part import SENT_AT_ONCE
from trio_asyncwrite._core._page_cache import PIECE

from .._disk import CONTENT, STATUS, SYSTEMS, on, overwrite, path, raising
from .._patience import wait_all_tasks_blocked
from .._streams import (
    clog,
    connected,
    drain,
    drain_while,
    pipe_pair,
    reset,
    socket_pair,
    tcp_pair,
    unix_pair,
)
from ..core._fakes import cut_short, each, resource_warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    Maker = Callable[[], Awaitable[tuple[Any, Any]]]

__all__ = ("path",)

MAKERS: dict[str, Maker] = {
    "TCP": tcp_pair,
    "Unix": unix_pair,
    "PollEvented, socket": socket_pair,
    "PollEvented, pipe": pipe_pair,
}
SOCKETS = {name: maker for name, maker in MAKERS.items() if "pipe" not in name}


@pytest.fixture
def file(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        yield file


async def sent(writer: Any, reader: Any, part: FilePart) -> bytes:
    async def send() -> None:
        await writer.write_all_file(part)
        await writer.shutdown()

    return await drain_while(reader, send)


# ---- The fast path, and without it ---------------------------------------------------------------


@each({name: name for name in SYSTEMS}, "system")
@each(MAKERS, "maker")
async def test_every_system_sends_the_same(maker: Maker, system: str, file: Any) -> None:
    """Exactly the bytes of the part, with and without what the system may not have."""
    for offset, count in ((0, None), (17, PIECE + 3), (len(CONTENT) - 1, 1), (0, 0)):
        with on(system):
            async with connected(maker) as (writer, reader):
                part = FilePart(file, offset, count)
                received = await sent(writer, reader, part)
        end = len(CONTENT) if count is None else offset + count
        assert received == CONTENT[offset:end]
        assert part.offset == end


@pytest.mark.parametrize("offload", [False, True])
@each(MAKERS, "maker")
async def test_the_kernel_sends_what_is_in_memory(
    maker: Maker, file: Any, monkeypatch: pytest.MonkeyPatch, *, offload: bool
) -> None:
    calls: list[tuple[int, int]] = []
    send = os.sendfile

    def sendfile(out: int, number: int, offset: int, count: int) -> int:
        calls.append((offset, count))
        return send(out, number, offset, count)

    monkeypatch.setattr(os, "sendfile", sendfile)
    file.read()  # now it is
    async with connected(maker) as (writer, reader):
        received = await sent(writer, reader, FilePart(file, offload=offload))
    assert received == CONTENT
    assert bool(calls) == (not offload)
    assert all(count <= SENT_AT_ONCE for _, count in calls)


async def test_a_huge_limit_does_not_overflow(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """cpython PR 107056: more than 2 GiB at once overflows on some systems."""
    counts: list[int] = []

    def sendfile(_out: int, _file: int, _offset: int, count: int) -> int:
        counts.append(count)
        return count

    monkeypatch.setattr(os, "sendfile", sendfile)
    file.read()
    async with connected(tcp_pair) as (writer, _):
        assert writer.poll_write_file(FilePart(file), 2**62) == PIECE
        assert writer.poll_write_file(FilePart(file, 5, 2**62), 2**40) == PIECE
    assert counts == [PIECE, PIECE]


@each(MAKERS, "maker")
async def test_full_it_is_not_ready_and_nothing_is_accepted(maker: Maker, file: Any) -> None:
    file.read()
    async with connected(maker) as (writer, reader):
        count = clog(writer)
        part = FilePart(file)
        for _ in range(2):
            with pytest.raises(NotReady) as caught:
                writer.poll_write_file(part, 10)
            assert not isinstance(caught.value, FileNotReady)
        await cut_short(partial(writer.write_all_file, part))
        assert part.offset == 0
        assert writer.lifecycle.refusal is None
        received = await sent(writer, reader, part)
    assert received[count:] == CONTENT


@pytest.mark.skipif(not STATUS.exists(), reason="Linux only")
@each(MAKERS, "maker")
async def test_what_sendfile_refuses_is_read(maker: Maker) -> None:
    """/proc/self/status, whose size is 0: sendfile says EINVAL."""
    async with connected(maker) as (writer, reader):
        with STATUS.open("rb") as file:
            received = await sent(writer, reader, FilePart(file))
    assert received.startswith(b"Name:")
    assert received.endswith(b"\n")


# ---- Whoever is at fault -------------------------------------------------------------------------


@each(MAKERS, "maker")
async def test_a_file_that_fails_breaks_no_stream(
    maker: Maker, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error comes from reading, unchanged; the stream goes on."""
    async with connected(maker) as (writer, reader):
        part = FilePart(file)
        with monkeypatch.context() as patch:
            error = OSError(errno.EIO, "bad sector")
            patch.setattr(os, "sendfile", raising(error))
            patch.setattr(_file_part, "pread", raising(error))
            for _ in range(2):
                with pytest.raises(OSError, match="bad sector") as caught:
                    await writer.write_all_file(part)
                assert caught.value.errno == errno.EIO
        assert writer.lifecycle.refusal is None
        assert await sent(writer, reader, part) == CONTENT


@each(MAKERS, "maker")
async def test_a_file_that_is_closed_meanwhile_breaks_no_stream(maker: Maker, path: Path) -> None:
    file = path.open("rb")
    part = FilePart(file)
    async with connected(maker) as (writer, reader):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(ValueError, match="closed file"):
                    await writer.write_all_file(part)

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            file.close()
            received = bytearray()
            while len(received) < part.offset:
                received += await reader.receive_some()
        assert received == CONTENT[: part.offset]
        with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first"):
            await writer.write_all(b"x")
        with resource_warnings():
            await writer.aclose()


@pytest.mark.parametrize("number", [errno.EBADF, errno.EISDIR])
async def test_a_descriptor_that_is_closed_meanwhile_is_the_file_s_error(
    path: Path, number: int
) -> None:
    async with connected(unix_pair) as (writer, _):
        descriptor = os.open(path, os.O_RDONLY)
        part = FilePart(descriptor)
        os.close(descriptor)
        if number == errno.EISDIR:
            assert os.open(path.parent, os.O_RDONLY) == descriptor
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            await writer.write_all_file(part)
        assert caught.value.errno == number
        assert not isinstance(caught.value, trio.BrokenResourceError)
        assert writer.lifecycle.refusal is None
        if number == errno.EISDIR:
            os.close(descriptor)


@each(MAKERS, "maker")
async def test_a_peer_that_has_gone_breaks_the_stream(maker: Maker, file: Any) -> None:
    file.read()
    async with connected(maker) as (writer, reader):
        part = FilePart(file)
        await cut_short(partial(writer.write_all_file, part))
        await trio.aclose_forcefully(reader)
        offset = part.offset
        with pytest.raises(trio.BrokenResourceError) as caught:
            while True:
                await writer.write_all_file(part)
        assert isinstance(caught.value.__cause__, ConnectionError)
        assert part.offset >= offset
        with pytest.raises(trio.BrokenResourceError, match="has failed before"):
            await writer.write_all_file(part)


async def test_a_reset_is_not_mistaken_for_a_closed_pipe(file: Any) -> None:
    """The kernel reports it once; a truncated stream of the peer's must not look complete."""
    file.read()
    async with connected(tcp_pair) as (writer, reader):
        await reader.write_all(b"half of it")
        part = FilePart(file)
        await cut_short(partial(writer.write_all_file, part))
        reset(reader)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await writer.write_all_file(part)
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        with pytest.raises(trio.BrokenResourceError):
            await drain(writer)


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT])
async def test_a_network_that_has_gone_is_the_stream_s_failure(
    file: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file.read()
    monkeypatch.setattr(os, "sendfile", raising(OSError(number, "no network")))
    async with connected(tcp_pair) as (writer, _):
        with pytest.raises(trio.BrokenResourceError, match="no network"):
            await writer.write_all_file(FilePart(file))


async def test_a_network_file_system_that_has_gone_is_the_file_s_failure(
    file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.read()
    error = TimeoutError(errno.ETIMEDOUT, "server not responding")
    monkeypatch.setattr(os, "sendfile", raising(error))
    monkeypatch.setattr(_file_part, "pread", raising(error))
    async with connected(tcp_pair) as (writer, _):
        with pytest.raises(TimeoutError, match="not responding"):
            await writer.write_all_file(FilePart(file))
        assert writer.lifecycle.refusal is None


async def test_truncated_meanwhile_the_position_is_exact(path: Path, file: Any) -> None:
    """sendfile then gives 0 for ever."""
    file.read()
    async with connected(tcp_pair) as (writer, reader):
        part = FilePart(file, 0, len(CONTENT))
        await cut_short(partial(writer.write_all_file, part))
        assert 0 < part.offset < len(CONTENT)
        os.truncate(path, part.offset)
        before = part.offset
        with pytest.raises(EOFError):
            await writer.write_all_file(part)
        assert part.offset == before
        overwrite(path, CONTENT)
        assert await sent(writer, reader, part) == CONTENT


# ---- Cancelled, and both directions --------------------------------------------------------------


@each(SOCKETS, "maker")
async def test_cancelled_the_stream_can_be_read_and_written(maker: Maker, file: Any) -> None:
    """cpython #157025: cancelled while earlier bytes are still on their way."""
    async with connected(maker) as (writer, reader):
        await writer.write_all(b"head")
        part = FilePart(file)
        await cut_short(partial(writer.write_all_file, part))
        await reader.write_all(b"answer")
        assert await writer.receive_some() == b"answer"
        assert await sent(writer, reader, part) == b"head" + CONTENT


@each(MAKERS, "maker")
async def test_closed_by_another_task_it_is_evicted(maker: Maker, file: Any) -> None:
    async with connected(maker) as (writer, _):
        part = FilePart(file)

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await writer.write_all_file(part)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            with resource_warnings():
                await writer.aclose()
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                await writer.write_all_file(part)
            with pytest.raises(trio.ClosedResourceError):
                writer.poll_write_file(part, 1)


async def test_closed_behind_its_back_it_says_closed(file: Any) -> None:
    file.read()
    left, right = stdlib_socket.socketpair()
    writer = PollEvented(left)
    left.close()
    with pytest.raises(trio.ClosedResourceError):
        await writer.write_all_file(FilePart(file))
    right.close()
    await trio.aclose_forcefully(writer)


async def test_a_peer_of_another_program_gets_the_same(file: Any) -> None:
    """Its SHA-256 agrees."""
    code = (
        "import hashlib, socket, sys\n"
        "s = socket.socket(fileno=int(sys.argv[1])); h = hashlib.sha256()\n"
        "while data := s.recv(65536): h.update(data)\n"
        "print(h.hexdigest())"
    )
    ours, theirs = stdlib_socket.socketpair()
    with theirs:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", "-c", code, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
        )
    async with TcpStream(trio.socket.from_stdlib_socket(ours)) as writer:
        await writer.send_file(file)
    assert process.stdout is not None
    async with process.stdout:
        assert (await drain(process.stdout)).strip() == hashlib.sha256(CONTENT).hexdigest().encode()
    await process.wait()
