from __future__ import annotations

import errno
import fcntl
import io
import os
import pty
import socket as stdlib_socket
import struct
import subprocess
import tty
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import Buf, BufWriter, NotReady, PollEvented, wrap_stream
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._patience import wait_all_tasks_blocked
from .._streams import (
    clog,
    clogged,
    clogged_both_ways,
    connected,
    drain,
    drain_while,
    pipe_pair,
    reset,
    socket_pair,
    tcp_pair,
    unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from trio.testing import MockClock

Pair = tuple[PollEvented, PollEvented]


@pytest.fixture
async def pipe() -> AsyncIterator[Pair]:
    async with connected(pipe_pair) as ends:
        yield ends


@pytest.fixture
def fds() -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe, closed after the test."""
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        if is_open(fd):
            os.close(fd)


def is_open(fd: int) -> bool:
    """Whether the number names an open descriptor."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def pty_pair() -> Pair:
    """The master and the slave of a pseudo-terminal in raw mode."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    return PollEvented(slave), PollEvented(master)


# ---- Trio's contract, and ours ---------------------------------------------------------------


async def test_a_pipe_keeps_the_contract() -> None:
    await trio.testing.check_one_way_stream(pipe_pair, clogged(pipe_pair))
    await check_async_write(pipe_pair, clogged(pipe_pair))


async def test_a_socket_keeps_the_contract() -> None:
    await trio.testing.check_half_closeable_stream(socket_pair, clogged_both_ways(socket_pair))
    await check_async_write(socket_pair, clogged(socket_pair))


async def test_no_cancellation_loses_a_byte() -> None:
    data = os.urandom(200_000)

    async def scenario(sweep: Sweep) -> None:
        async with connected(pipe_pair) as (writer, reader):
            buf = Buf(data[:90_000], data[90_000:])
            received = bytearray()

            async def receive() -> None:
                while chunk := await reader.receive_some(30_000):
                    received.extend(chunk)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                with sweep:
                    await writer.write_all_buf(buf)
                    await writer.shutdown()
                if buf.remaining:
                    await writer.write_all_buf(buf)
                await writer.shutdown()
            assert received == data

    assert await cancel_everywhere(scenario) > 5


# ---- What it is made of ----------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["fd", None, 1.0, b"", True, object()])
def test_only_descriptors_and_their_owners_are_taken(wrong: Any) -> None:
    with pytest.raises(TypeError, match="file descriptor"):
        PollEvented(wrong)


def test_a_bare_fileno_is_not_enough() -> None:
    """What cannot be closed cannot be owned."""

    class Named:
        def fileno(self) -> int:
            raise AssertionError

    with pytest.raises(TypeError, match="Named"):
        PollEvented(Named())  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [-1, -7, 2**20, 2**31, 2**70])
def test_a_number_that_was_never_opened(number: int) -> None:
    with pytest.raises(OSError, match=f"open file descriptor, got {number}"):
        PollEvented(number)


def test_a_closed_descriptor() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError, match="open file descriptor"):
        PollEvented(writing)


def test_a_closed_object(tmp_path: Path) -> None:
    sock = stdlib_socket.socket()
    sock.close()
    file = (tmp_path / "file").open("wb")
    file.close()
    for closed in (sock, file):
        with pytest.raises(ValueError, match="has none"):
            PollEvented(closed)


def test_an_object_without_a_descriptor() -> None:
    with pytest.raises(ValueError, match=r"BytesIO object .* has none"):
        PollEvented(io.BytesIO())


@pytest.mark.parametrize("name", ["file", "."])
def test_files_and_directories_are_refused(tmp_path: Path, name: str) -> None:
    """The kernel calls them ready always; the error names what to use instead."""
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / name, os.O_RDONLY)
    try:
        with pytest.raises(ValueError, match="AllowStdIo"):
            PollEvented(fd)
        assert os.get_blocking(fd)
    finally:
        os.close(fd)


async def test_a_foreign_descriptor_is_used_as_it_is() -> None:
    """One that another library made and keeps, like the number of a socket."""
    left, right = stdlib_socket.socketpair()
    with left, right:
        async with PollEvented(left.fileno(), close=False) as stream:
            await stream.send_all(b"data")

        assert right.recv(10) == b"data"
        assert right.recv(10) == b""
        right.sendall(b"and back")
        assert left.recv(10) == b"and back"


# ---- Kinds of descriptors --------------------------------------------------------------------


async def test_a_pipe_gives_its_reader_end_of_file_at_shutdown(pipe: Pair) -> None:
    writer, reader = pipe
    number = writer.fileno()
    await writer.write_all(b"data")
    await writer.shutdown()

    assert not is_open(number)
    assert await drain(reader) == b"data"
    await writer.shutdown()
    await writer.flush()
    await writer.aclose()


async def test_the_reading_end_cannot_be_written_to(pipe: Pair) -> None:
    _, reader = pipe
    for _ in range(2):
        with pytest.raises(trio.ClosedResourceError, match="not open for writing"):
            reader.poll_write(b"x")
        with pytest.raises(trio.ClosedResourceError, match="not open for writing"):
            await reader.write_all(b"x")
        with pytest.raises(trio.ClosedResourceError, match="not open for writing"):
            await reader.write_all_vectored([b"x", b"y"])


async def test_the_writing_end_cannot_be_read_from(pipe: Pair) -> None:
    writer, _ = pipe
    with pytest.raises(trio.ClosedResourceError, match="not open for reading"):
        await writer.receive_some()


async def test_shutting_down_what_can_be_read_leaves_it_open(pipe: Pair) -> None:
    writer, reader = pipe
    await reader.shutdown()
    await writer.send_all(b"data")

    assert await reader.receive_some() == b"data"


async def test_a_pseudo_terminal_carries_bytes_both_ways() -> None:
    """Its shutdown is a flush: a terminal has no end of its own."""
    async with connected(pty_pair) as (slave, master):
        await slave.send_all(b"down")
        assert await master.receive_some() == b"down"
        await master.send_all(b"up")
        assert await slave.receive_some() == b"up"
        await slave.shutdown()
        await master.send_all(b"still there")
        assert await slave.receive_some() == b"still there"


async def test_a_clogged_terminal_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    data = os.urandom(100_000)
    async with connected(pty_pair) as (slave, master):
        buf = Buf(data)
        with trio.move_on_after(1):
            await slave.write_all_buf(buf)
        assert 0 < buf.remaining < len(data)

        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slave.write_all_buf, buf)
            while len(received) < len(data):
                received += await master.receive_some()
        assert received == data


@pytest.mark.parametrize("into", [False, True])
async def test_a_terminal_ends_when_nobody_has_its_other_side(*, into: bool) -> None:
    """Linux says EIO, after all that was written there."""
    async with connected(pty_pair) as (slave, master):
        await slave.send_all(b"the last words")
        await slave.aclose()
        assert await master.receive_some(4) == b"the "
        assert await master.receive_some() == b"last words"
        if into:
            assert master.poll_read_into(bytearray(10)) == 0
        for _ in range(2):
            assert await master.receive_some() == b""
        assert master.peer_ended
        await master.send_all(b"for the next who opens it")


@pytest.mark.parametrize("into", [False, True])
async def test_an_input_output_error_of_anything_else_is_one(
    monkeypatch: pytest.MonkeyPatch, *, into: bool
) -> None:
    """Of a terminal that another group of processes reads, for example."""

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    async with connected(pty_pair) as (slave, _master):
        with monkeypatch.context() as patch:
            patch.setattr(os, "readv" if into else "read", fail)
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError, match="Input/output error"):
                    _ = slave.poll_read_into(bytearray(9)) if into else await slave.receive_some()


async def test_a_terminal_whose_master_is_gone() -> None:
    async with connected(pty_pair) as (slave, master):
        await master.aclose()
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await slave.send_all(b"x")


async def test_a_device_that_is_always_ready() -> None:
    """Linux refuses to wait for it, and nobody has to."""
    async with PollEvented(os.open(os.devnull, os.O_RDWR)) as stream:
        await stream.wait_send_all_might_not_block()
        await stream.send_all(bytes(1_000_000))
        assert await stream.receive_some() == b""


async def test_a_socket_half_closes() -> None:
    async with connected(socket_pair) as (left, right):
        await left.send_all(b"request")
        await left.send_eof()
        assert await drain(right) == b"request"
        await right.send_all(b"answer")
        await right.aclose()
        assert await drain(left) == b"answer"


async def test_trios_own_socket_is_taken_as_well() -> None:
    left, right = trio.socket.socketpair()
    async with PollEvented(left) as stream, PollEvented(right) as peer:
        await stream.send_all(b"data")
        await stream.aclose()
        assert left.fileno() == -1
        assert await drain(peer) == b"data"


async def test_a_socket_whose_shutdown_fails() -> None:
    stream = PollEvented(stdlib_socket.socket())
    with pytest.raises(trio.BrokenResourceError):
        await stream.aclose()

    assert stream.fileno() == -1


async def test_a_cancelled_close_of_a_tcp_socket_with_unsent_bytes_resets() -> None:
    tcp, peer = await tcp_pair()
    async with peer:
        writer = BufWriter(PollEvented(tcp.socket))
        clog(writer)
        with pytest.warns(ResourceWarning):
            await trio.aclose_forcefully(writer)

        assert tcp.fileno() == -1
        with pytest.raises(trio.BrokenResourceError):
            await drain(peer)


async def test_a_cancelled_close_of_a_tcp_socket_that_stays_open_does_not_reset() -> None:
    async with connected(tcp_pair) as (tcp, _):
        writer = BufWriter(PollEvented(tcp.socket, close=False))
        clog(writer)
        with pytest.warns(ResourceWarning):
            await trio.aclose_forcefully(writer)

        linger = tcp.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, 8)
        assert linger == struct.pack("ii", 0, 0)


async def test_a_reset_that_a_write_came_upon_is_no_end_of_file() -> None:
    tcp, peer = await tcp_pair()
    async with PollEvented(tcp.socket) as stream, peer:
        reset(peer)
        with pytest.raises(trio.BrokenResourceError):
            await stream.write_all(b"x")

        with pytest.raises(trio.BrokenResourceError, match="failed before"):
            await stream.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await peer.aclose()


async def test_a_reset_that_a_read_came_upon_is_told_once() -> None:
    """It ends both directions; that aclose cannot shut down what is gone is no news."""
    tcp, peer = await tcp_pair()
    stream = PollEvented(tcp.socket)
    reset(peer)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError, match="failed before"):
        await stream.write_all(b"x")

    await stream.aclose()
    assert stream.fileno() == -1


async def test_the_stdin_of_trios_process() -> None:
    data = os.urandom(300_000)
    process = await trio.lowlevel.open_process(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    writer = BufWriter(wrap_stream(process.stdin))

    async def write() -> None:
        await writer.write_all(data)
        await writer.aclose()

    assert isinstance(writer.inner, PollEvented)
    assert await drain_while(process.stdout, write) == data
    assert await process.wait() == 0
    with pytest.raises(trio.ClosedResourceError):  # FdStream knows that it is closed
        await process.stdin.send_all(b"x")
    await process.stdout.aclose()


async def test_the_stdin_of_a_subprocess() -> None:
    """A BufferedWriter: its number is written to, and it is closed by its own close()."""
    data = os.urandom(300_000)
    with subprocess.Popen(  # noqa: ASYNC220 - it is the one under test
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        writer = PollEvented(process.stdin)

        async def write() -> None:
            await writer.write_all(data)
            await writer.aclose()

        async with PollEvented(process.stdout) as reader:
            assert await drain_while(reader, write) == data
        assert process.stdin.closed
        assert process.stdout.closed
    assert process.returncode == 0


# ---- Whose descriptor it is ------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [True, False])
def test_the_mode_that_it_came_with_is_restored(fds: tuple[int, int], *, blocking: bool) -> None:
    _, writing = fds
    os.set_blocking(writing, blocking)

    async def main() -> None:
        async with PollEvented(writing, close=False) as writer:
            assert not os.get_blocking(writing)
            await writer.send_all(b"data")
            await writer.shutdown()
        assert writer.fileno() == -1

    trio.run(main)
    assert os.get_blocking(writing) == blocking
    os.write(writing, b"mine again")


async def test_the_mode_is_restored_for_those_who_share_the_file(fds: tuple[int, int]) -> None:
    _, writing = fds
    number = os.dup(writing)
    async with PollEvented(number):
        assert not os.get_blocking(writing)

    assert not is_open(number)
    assert os.get_blocking(writing)


async def test_an_object_that_is_kept_open_keeps_its_mode() -> None:
    left, right = stdlib_socket.socketpair()
    with left, right:
        await trio.aclose_forcefully(PollEvented(left, close=False))

        assert left.fileno() >= 0
        assert os.get_blocking(left.fileno())


async def test_an_object_is_closed_once_and_by_its_own_close(fds: tuple[int, int]) -> None:
    class Owner:
        closed = 0

        def fileno(self) -> int:
            return fds[1]

        def close(self) -> None:
            self.closed += 1

    owner = Owner()
    writer = PollEvented(owner)
    await writer.shutdown()
    assert owner.closed == 1
    await writer.aclose()
    await writer.aclose()

    assert owner.closed == 1
    assert is_open(fds[1])


async def test_an_object_that_cannot_be_closed_well(fds: tuple[int, int]) -> None:
    """It had bytes of its own to write, and nobody reads them."""
    reading, writing = fds
    file = os.fdopen(writing, "wb")
    file.write(b"buffered")
    os.close(reading)
    writer = PollEvented(file)
    with pytest.raises(trio.BrokenResourceError) as info:
        await writer.aclose()

    assert isinstance(info.value.__cause__, BrokenPipeError)
    assert file.closed
    assert not is_open(writing)


def ways_to_use(stream: PollEvented) -> list[Callable[[], Awaitable[object]]]:
    async def poll_write() -> None:
        stream.poll_write(b"x")

    async def poll_write_vectored() -> None:
        stream.poll_write_vectored([b"x", b"y"])

    return [
        poll_write,
        poll_write_vectored,
        lambda: stream.send_all(b"x"),
        stream.wait_send_all_might_not_block,
        stream.receive_some,
    ]


@pytest.mark.parametrize("kind", ["socket", "file", "number"])
async def test_a_descriptor_closed_behind_our_back(kind: str) -> None:
    left, right = stdlib_socket.socketpair()
    right.close()
    if kind == "file":
        stream = PollEvented(os.fdopen(left.detach(), "wb", buffering=0))
    else:
        stream = PollEvented(left.detach() if kind == "number" else left)
    owner = stream._fd
    os.close(owner) if isinstance(owner, int) else owner.close()

    for use in ways_to_use(stream):
        # Of a number, the kernel says "ready": that it is closed, the write itself finds out.
        if not (kind == "number" and use == stream.wait_send_all_might_not_block):
            with pytest.raises(trio.ClosedResourceError):
                await use()
    with pytest.raises(trio.ClosedResourceError):
        await stream.shutdown()
    with pytest.raises(trio.ClosedResourceError):
        await stream.aclose()
    await stream.aclose()


async def test_a_reading_end_closed_behind_our_back(fds: tuple[int, int]) -> None:
    reading, _ = fds
    stream = PollEvented(reading)
    os.close(reading)
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await stream.aclose()
    await stream.aclose()


@pytest.mark.parametrize("end", ["shutdown", "aclose", "cancelled aclose"])
async def test_the_number_of_a_closed_descriptor_is_somebody_elses(
    end: str, fds: tuple[int, int], tmp_path: Path
) -> None:
    """Whatever is done to a closed stream, the new owner of its number notices nothing."""
    _, number = fds
    stream = PollEvented(number)
    count = clog(stream)
    with pytest.raises(NotReady) as info:
        stream.poll_write(b"x")
    if end == "shutdown":
        await stream.shutdown()
    elif end == "aclose":
        await stream.aclose()
    else:
        await trio.aclose_forcefully(stream)
    assert not is_open(number)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        os.dup2(file.fileno(), number)
        for use in [*ways_to_use(stream), info.value.wait]:
            with pytest.raises(trio.ClosedResourceError):
                await use()
        for finish in (stream.flush, stream.shutdown):
            if end == "shutdown":
                await finish()
            else:
                with pytest.raises(trio.ClosedResourceError):
                    await finish()
        await stream.aclose()
        await stream.aclose()
        await stream.release(clean=False)

        assert os.get_blocking(number)
        assert os.write(number, b"mine") == 4
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert len(os.read(fds[0], count + 1)) == count


async def test_a_wait_in_progress_does_not_pass_to_the_new_owner(
    fds: tuple[int, int], tmp_path: Path
) -> None:
    """Closed while a task waits for it, reused at once: the task writes nothing anywhere."""
    _, number = fds
    stream = PollEvented(number)
    clog(stream)

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.write_all(b"not for you")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        stream.poll_shutdown()
        with (tmp_path / "file").open("wb", buffering=0) as file:
            os.dup2(file.fileno(), number)
        await stream.aclose()
    assert (tmp_path / "file").read_bytes() == b""


# ---- Reading ---------------------------------------------------------------------------------


async def test_receiving_in_two_tasks_at_once(pipe: Pair) -> None:
    """The second takes nothing away, not even what has arrived before the first could wake up."""
    writer, reader = pipe

    async def receive() -> None:
        assert await reader.receive_some() == b"for the first"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await reader.receive_some()
        writer.poll_write(b"for the first")
        with pytest.raises(trio.BusyResourceError):
            await reader.receive_some()


async def test_a_cancelled_receive_takes_nothing(pipe: Pair) -> None:
    writer, reader = pipe
    with trio.CancelScope() as scope:
        scope.cancel()
        await reader.receive_some()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.receive_some)
            await wait_all_tasks_blocked()
            scope.cancel()
            await writer.send_all(b"")
    await writer.send_all(b"data")

    assert await reader.receive_some(2) == b"da"
    assert await reader.receive_some() == b"ta"


async def test_closing_ends_a_wait_to_receive(pipe: Pair) -> None:
    _, reader = pipe

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await reader.aclose()


async def test_a_reader_of_a_byte_a_second(autojump_clock: MockClock) -> None:
    """A pipe frees its pages one by one; the write that is given up all the time loses nothing."""
    async with connected(pipe_pair) as (writer, reader):
        fcntl.fcntl(writer.fileno(), 1031, 4096)  # F_SETPIPE_SZ: one page
        data = bytes(range(256)) * 16 + b"and one more"
        buf = Buf(data)
        received = bytearray()

        async def read() -> None:
            while len(received) < len(data):
                await trio.sleep(1)
                received.extend(await reader.receive_some(1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            cancelled = 0
            while buf.remaining:
                with trio.move_on_after(99.5) as scope:
                    await writer.write_all_buf(buf)
                cancelled += scope.cancelled_caught

    assert received == data
    assert cancelled > 30


def test_it_names_itself(fds: tuple[int, int]) -> None:
    assert repr(PollEvented(fds[1], close=False)) == f"<PollEvented over {fds[1]}>"


def test_a_number_that_is_garbage_is_closed_and_reported(fds: tuple[int, int]) -> None:
    stream = PollEvented(fds[1])
    with pytest.warns(ResourceWarning, match=f"^unclosed <PollEvented over {fds[1]}>$"):
        del stream
    assert not is_open(fds[1])


def test_what_is_not_its_own_is_left_open_without_a_word(
    fds: tuple[int, int], tmp_path: Path
) -> None:
    """Lent numbers, objects, and numbers that it has refused."""
    PollEvented(fds[1], close=False)
    with os.fdopen(os.dup(fds[1]), "wb") as file:
        PollEvented(file)
        assert is_open(file.fileno())
    with (tmp_path / "file").open("wb") as file:
        with pytest.raises(ValueError, match="AllowStdIo"):
            PollEvented(file.fileno())
        assert is_open(file.fileno())
    assert is_open(fds[1])


# ---- A close that does not wait ---------------------------------------------------------------


async def test_close_closes_at_once_and_as_often_as_it_is_called() -> None:
    writer, reader = await pipe_pair()
    writer.poll_write(b"abc")
    for _ in range(2):
        writer.close()
        assert writer.fileno() == -1
        assert writer.closed
    assert await drain(reader) == b"abc"
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"x")
    await writer.aclose()
    await reader.aclose()


@pytest.mark.parametrize("operation", ["write_all", "flush", "receive_some", "aclose"])
@pytest.mark.filterwarnings("ignore:.*only:ResourceWarning")
async def test_close_evicts_who_is_inside(operation: str) -> None:
    left, right = await unix_pair()
    stream = PollEvented(left.socket)
    upper = BufWriter(stream, 100_000)
    clog(stream)
    upper.poll_write(bytes(10))
    target = stream if operation in ("write_all", "receive_some") else upper
    arguments = [bytes(100_000)] if operation == "write_all" else []

    async with trio.open_nursery() as nursery:

        async def use() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await getattr(target, operation)(*arguments)

        nursery.start_soon(use)
        await wait_all_tasks_blocked()
        stream.close()
        assert stream.fileno() == -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        await upper.aclose()
    await right.aclose()


async def test_layers_above_a_closed_descriptor_refuse_bytes_and_tell_what_they_have_lost() -> None:
    writer, reader = await pipe_pair()
    upper = BufWriter(writer)
    await upper.write(b"abc")
    writer.close()
    for operation in (upper.write, upper.write_all):
        with pytest.raises(trio.ClosedResourceError):
            await operation(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await upper.flush()
    assert upper.unsent_bytes == 3
    with pytest.warns(ResourceWarning, match="3 bytes that it had accepted were never sent"):
        await upper.aclose()
    assert await drain(reader) == b""
    await reader.aclose()


async def test_close_after_half_a_message_is_a_reset_and_warns() -> None:
    left, right = await tcp_pair()
    stream = PollEvented(left.socket)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write_all, bytes(10_000_000))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.warns(ResourceWarning, match="was closed: only .* bytes of a message"):
        stream.close()
    with pytest.raises(trio.BrokenResourceError):
        await drain(right)
    await right.aclose()


async def test_open_process_can_give_its_pipe_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio closes the pipes of a process that could not be started, and waits for nothing."""
    made: list[PollEvented] = []

    def make(fd: int) -> PollEvented:
        made.append(PollEvented(fd))
        return made[-1]

    monkeypatch.setattr(trio.lowlevel, "FdStream", make)
    with pytest.raises(FileNotFoundError):
        await trio.lowlevel.open_process(["/no/such/program"], stdin=subprocess.PIPE)
    assert [stream.fileno() for stream in made] == [-1]
