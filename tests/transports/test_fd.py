from __future__ import annotations

import array
import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import Buf, NotReady, PollEvented, ReadWritePair
from trio_asyncwrite._transports._fd import IOV_MAX, FdWriter

from .._patience import wait_all_tasks_blocked
from .._streams import (
    clog,
    connected,
    drain,
    drain_while,
    pipe_pair,
    socket_pair,
    tcp_pair,
    unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

Pair = tuple[FdWriter, FdWriter]


@pytest.fixture(params=[tcp_pair, unix_pair, socket_pair, pipe_pair])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """A writer and its reader, of each kind."""
    async with connected(request.param) as ends:
        yield ends


@pytest.fixture
async def unix() -> AsyncIterator[Pair]:
    async with connected(unix_pair) as ends:
        yield ends


@pytest.fixture
async def pipe() -> AsyncIterator[Pair]:
    async with connected(pipe_pair) as ends:
        yield ends


NOT_BYTES = pytest.mark.parametrize(
    ("data", "error"),
    [
        ("text", TypeError),
        (None, TypeError),
        ([1, 2], TypeError),
        (7, TypeError),
        (memoryview(b"abcdef")[::2], BufferError),
    ],
    ids=["str", "None", "list", "int", "gaps"],
)


def failing_once(monkeypatch: pytest.MonkeyPatch, name: str, error: OSError) -> None:
    """Make the next call of ``os.<name>`` fail with ``error``."""
    real = getattr(os, name)

    def fail_once(*args: Any) -> Any:
        monkeypatch.setattr(os, name, real)
        raise error

    monkeypatch.setattr(os, name, fail_once)


@NOT_BYTES
async def test_what_is_not_bytes_is_refused_by_every_write(
    pair: Pair, data: Any, error: type[Exception]
) -> None:
    """At once, with nothing accepted, and the writer is none the worse for it."""
    writer, reader = pair
    for poll in (
        lambda: writer.poll_write(data),
        lambda: writer.poll_write_vectored([b"never", data]),
    ):
        with pytest.raises(error):
            poll()
    for call in (
        lambda: writer.write(data),
        lambda: writer.write_all(data),
        lambda: writer.send_all(data),
        lambda: writer.write_vectored([b"never", data]),
        lambda: writer.write_all_vectored([b"never", data]),
    ):
        with pytest.raises(error):
            await call()
    await writer.send_all(b"good")
    await writer.aclose()

    assert await drain(reader) == b"good"


async def test_a_view_of_other_items_counts_as_its_bytes(pair: Pair) -> None:
    words: Any = array.array("I", [1, 2, 3])
    square = memoryview(bytes(range(16))).cast("B", (4, 4))
    writer, reader = pair

    assert writer.poll_write(words) == 12
    assert writer.poll_write(memoryview(words)) == 12
    assert writer.poll_write(square) == 16
    assert writer.poll_write_vectored([words, square]) == 28
    await writer.aclose()
    assert await drain(reader) == bytes(words) * 2 + bytes(square) + bytes(words) + bytes(square)


async def test_empty_data_is_accepted_as_nothing(pair: Pair) -> None:
    writer, reader = pair

    assert writer.poll_write(b"") == 0
    assert writer.poll_write_vectored([]) == 0
    assert writer.poll_write_vectored([b"", b""]) == 0
    assert await writer.write(b"") == 0
    await writer.send_all(b"")
    await writer.aclose()
    assert await drain(reader) == b""


async def test_many_megabytes_arrive_whole_and_in_order(pair: Pair) -> None:
    data = array.array("I", range(2 * 2**20)).tobytes()  # 8 MiB that repeat nowhere
    writer, reader = pair

    async def send() -> None:
        await writer.send_all(data)
        await writer.aclose()

    assert await drain_while(reader, send) == data


async def test_more_buffers_than_one_call_takes_arrive_all(pair: Pair) -> None:
    """The empty ones among them do not count."""
    buffers = [b"%d," % n if n % 3 else b"" for n in range(2 * IOV_MAX + 7)]
    first = b"".join([data for data in buffers if data][:IOV_MAX])
    writer, reader = pair

    assert writer.poll_write_vectored(buffers) == len(first)

    async def write() -> None:
        await writer.write_all_vectored(buffers)
        await writer.aclose()

    assert await drain_while(reader, write) == first + b"".join(buffers)


async def test_no_number_of_empty_buffers_hides_a_full_one(pair: Pair) -> None:
    """0 means that all are empty, also when those that one call takes are."""
    writer, reader = pair

    assert writer.poll_write_vectored([b""] * IOV_MAX + [b"x"]) == 1
    assert writer.poll_write_vectored([b""] * (IOV_MAX + 1)) == 0
    await writer.aclose()
    assert await drain(reader) == b"x"


async def test_gathered_buffers_leave_in_one_call(
    unix: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = os.writev

    def counting(fd: int, buffers: list[memoryview]) -> int:
        calls.append([bytes(data) for data in buffers])
        return real(fd, buffers)

    monkeypatch.setattr(os, "writev", counting)
    writer, _ = unix
    await writer.write_all_vectored([b"header", b"", b"body"])

    assert calls == [[b"header", b"body"]]


async def test_a_part_of_a_gathered_write_is_counted_over_the_buffers(pipe: Pair) -> None:
    """The kernel may stop anywhere, in the middle of a buffer too."""
    writer, reader = pipe
    buffers = [bytes([n]) * 1000 for n in range(200)]
    buf = Buf(*buffers)

    count = writer.poll_write_vectored(buf.chunks())
    buf.advance(count)
    assert 0 < count < 200_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all_buf, buf)
        received = bytearray()
        while len(received) < 200_000:
            received += await reader.receive_some()
    assert received == b"".join(buffers)


@pytest.mark.parametrize("name", ["write", "writev"])
async def test_enobufs_is_waited_out(
    unix: Pair, name: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The kernel's buffers are full and the descriptor says that it is writable."""
    writer, reader = unix
    data: list[bytes | bytearray | memoryview] = [b"da", b"ta"]
    if name == "write":
        data = [b"data"]
    failing_once(monkeypatch, name, OSError(errno.ENOBUFS, "No buffer space available"))
    with pytest.raises(NotReady) as info:
        writer.poll_write_vectored(data) if name == "writev" else writer.poll_write(*data)

    started = trio.current_time()
    await info.value.wait()
    assert trio.current_time() > started
    failing_once(monkeypatch, name, OSError(errno.ENOBUFS, "No buffer space available"))
    await writer.write_all_vectored(data)
    await writer.aclose()
    assert await drain(reader) == b"data"


@pytest.mark.parametrize("name", ["write", "writev"])
async def test_an_interrupted_call_is_made_again(
    unix: Pair, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = unix
    failing_once(monkeypatch, name, InterruptedError(errno.EINTR, "Interrupted system call"))
    await writer.write_all_vectored([b"da", b"ta"] if name == "writev" else [b"data"])
    await writer.aclose()

    assert await drain(reader) == b"data"


async def test_a_storm_of_signals_loses_no_byte(pipe: Pair) -> None:
    writer, reader = pipe
    sent = bytearray()
    signals = 0

    def count(*_: object) -> None:
        nonlocal signals
        signals += 1

    async def write() -> None:
        while signals < 20:
            message = os.urandom(50_000)
            sent.extend(message)
            await writer.write_all(message)
        await writer.aclose()

    previous = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        received = await drain_while(reader, write)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

    assert received == sent


async def test_a_broken_peer_is_an_error_that_stays(pair: Pair) -> None:
    writer, reader = pair
    await reader.aclose()
    with pytest.raises(trio.BrokenResourceError) as info:
        while True:  # TCP takes a moment to learn of it
            await writer.write_all(b"x")
    assert isinstance(info.value.__cause__, OSError)

    for _ in range(2):
        for call in (
            lambda: writer.write(b"x"),
            lambda: writer.write_all_vectored([b"x", b"y"]),
            lambda: writer.send_all(b""),
            writer.flush,
            writer.shutdown,
            writer.wait_send_all_might_not_block,
        ):
            with pytest.raises(trio.BrokenResourceError) as again:
                await call()
            assert again.value.__cause__ is info.value.__cause__
        with pytest.raises(trio.BrokenResourceError):
            writer.poll_write(b"x")
        with pytest.raises(trio.BrokenResourceError):
            writer.poll_write_vectored([b"x", b"y"])


async def test_a_failing_poll_fails_the_writer_without_the_shell(pair: Pair) -> None:
    writer, reader = pair
    await reader.aclose()
    with pytest.raises(trio.BrokenResourceError):
        while True:
            writer.poll_write_vectored([b"x", b"y"])

    with pytest.raises(trio.BrokenResourceError, match="failed before"):
        writer.poll_write_vectored([b"x", b"y"])
    with pytest.raises(trio.BrokenResourceError, match="failed before"):
        writer.poll_flush()


@pytest.mark.parametrize("end", ["shutdown", "aclose"])
async def test_nothing_is_written_after_the_end(pair: Pair, end: str) -> None:
    writer, reader = pair
    await writer.write_all(b"data")
    await getattr(writer, end)()

    for _ in range(2):
        for call in (
            lambda: writer.write(b"x"),
            lambda: writer.write_all_vectored([b"x", b"y"]),
            lambda: writer.send_all(b""),
            writer.wait_send_all_might_not_block,
        ):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(trio.ClosedResourceError):
            writer.poll_write(b"x")
        with pytest.raises(trio.ClosedResourceError):
            writer.poll_write_vectored([b"x", b"y"])
    assert await drain(reader) == b"data"
    await writer.aclose()


async def test_two_tasks_at_once(pair: Pair) -> None:
    """The second is told that the writer is busy; the first one's bytes arrive."""
    writer, reader = pair
    prefix = clog(writer)
    received = []

    async def receive() -> None:
        received.append(await drain(reader))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send_all, b"first")
        await wait_all_tasks_blocked()
        for call in (
            lambda: writer.write(b"x"),
            lambda: writer.write_all_buf(Buf(b"x")),
            lambda: writer.send_all(b"x"),
            writer.flush,
            writer.shutdown,
            writer.wait_send_all_might_not_block,
        ):
            with pytest.raises(trio.BusyResourceError):
                await call()
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await writer.aclose()

    assert received == [bytes(prefix) + b"first"]


async def test_closing_ends_another_tasks_wait(pair: Pair) -> None:
    writer, _ = pair
    clog(writer)

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.write_all(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        await writer.aclose()


async def test_two_writers_over_one_descriptor_do_not_fail_each_other(pipe: Pair) -> None:
    """Trio refuses the second wait; that is no failure, and goes with its reason."""
    first, reader = pipe
    second = PollEvented(first.fileno(), close=False)
    count = clog(first)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.write_all, b"1")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await second.write_all(b"2")
        received = bytearray()
        while len(received) <= count:
            received += await reader.receive_some()
    await second.write_all(b"2")

    assert received + await reader.receive_some() == bytes(count) + b"12"
    await second.aclose()


async def test_a_wait_that_outlives_the_writer_ends_at_once(pair: Pair) -> None:
    writer, _ = pair
    clog(writer)
    with pytest.raises(NotReady) as info:
        writer.poll_write(b"x")
    await writer.aclose()

    with pytest.raises(trio.ClosedResourceError):
        await info.value.wait()


async def test_a_wait_for_a_descriptor_closed_behind_our_back() -> None:
    reading, writing = os.pipe()
    writer = PollEvented(writing)
    clog(writer)
    with pytest.raises(NotReady) as info:
        writer.poll_write(b"x")
    os.close(writing)

    with pytest.raises(trio.ClosedResourceError):
        await info.value.wait()
    with pytest.raises(trio.ClosedResourceError):
        await writer.aclose()
    os.close(reading)


async def test_readiness_is_asked_of_the_kernel(unix: Pair) -> None:
    writer, reader = unix
    with trio.testing.assert_checkpoints():
        await writer.wait_send_all_might_not_block()
    clog(writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.wait_send_all_might_not_block)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        await reader.aclose()  # a write would fail at once, which is no blocking either


async def test_readiness_is_not_asked_of_what_has_ended(unix: Pair) -> None:
    """Behind the back of a layer above, which has not."""
    writer, _ = unix
    pair = ReadWritePair(writer, writer)
    await writer.shutdown()

    with pytest.raises(trio.ClosedResourceError):
        await pair.wait_send_all_might_not_block()
    await pair.aclose()


def test_the_core_alone_has_no_descriptor() -> None:
    class Incomplete(FdWriter):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise AssertionError

    with pytest.raises(NotImplementedError):
        Incomplete().fileno()
