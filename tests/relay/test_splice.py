"""The kernel moves the bytes: chosen by itself, exact over cancellations, and never needed."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import pty
import socket as stdlib_socket
import tty
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    BufWriter,
    LaneOutcome,
    PollEvented,
    ReadWritePair,
    Relay,
    TcpStream,
    TimeoutWriter,
    copy,
)
from trio_asyncwrite._relay import _copy, _pipe
from trio_asyncwrite._relay._pipe import Pipe, give_pipe, take_pipe
from trio_asyncwrite._relay._pump import Pump
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._patience import wait_all_tasks_blocked
from .._streams import drain, pipe_pair, reset, tcp_pair, unix_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Maker = Callable[[], Awaitable[tuple[Any, Any]]]

pytestmark = pytest.mark.skipif(
    not hasattr(os, "splice"), reason="only Linux moves bytes inside the kernel"
)

#: What is read at once; a bulk begins with as many bytes.
SIZE = 16384
DATA = bytes(i * i % 251 for i in range(300_000))
MAKERS: dict[str, Maker] = {"TCP": tcp_pair, "Unix": unix_pair, "pipe": pipe_pair}


class Kernel:
    """Counts what was spliced, and fails when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moved = 0
        self.fails: dict[str, int] = {}
        self.limit = 1 << 30
        splice = os.splice

        def spy(source: int, target: int, size: int, **kwargs: Any) -> int:
            is_in = os.fstat(target).st_ino in self.pipes
            failure = self.fails.get("to pipe" if is_in else "from pipe")
            if failure is not None:
                raise OSError(failure, os.strerror(failure))
            if not is_in:
                size = min(size, self.limit)
            count = splice(source, target, size, **kwargs)
            self.moved += count
            return count

        make = os.pipe2

        def pipe2(flags: int) -> tuple[int, int]:
            if "pipe2" in self.fails:
                raise OSError(self.fails["pipe2"], os.strerror(self.fails["pipe2"]))
            ends = make(flags)
            self.pipes.add(os.fstat(ends[0]).st_ino)
            return ends

        self.pipes: set[int] = set()
        monkeypatch.setattr(os, "splice", spy)
        monkeypatch.setattr(os, "pipe2", pipe2)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def pass_through(one: Maker, other: Maker, data: bytes = DATA) -> Relay | None:
    """Send ``data`` through two connections that are joined; the relay, if both are duplex."""
    sending, source = await one()
    target, receiving = await other()
    relay = None
    if pipe_pair in (one, other):

        async def run() -> None:
            assert await copy(source, target) == len(data)
            await target.aclose()
    else:
        relay = Relay(source, target, buffer_size=SIZE)

        async def run() -> None:
            assert relay is not None
            await relay.run()

    async def send() -> None:
        await sending.send_all(data)
        await sending.shutdown()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(run)
        assert await drain(receiving) == data
        if relay is not None:
            await receiving.shutdown()
    for stream in (sending, source, target, receiving):
        await stream.aclose()
    return relay


# ---- Chosen by itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("one", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("other", MAKERS.values(), ids=MAKERS)
async def test_much_goes_by_the_kernel_and_arrives_as_by_blocks(
    one: Maker, other: Maker, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DATA * 4
    await pass_through(one, other, data)
    assert kernel.moved >= len(data) // 2
    before = kernel.moved
    # With the path hidden.
    monkeypatch.setattr(TcpStream, "splices", False)
    monkeypatch.setattr(PollEvented, "splices", False)
    await pass_through(one, other, data)
    assert kernel.moved == before


async def test_little_is_copied(kernel: Kernel) -> None:
    client, a = await unix_pair()
    b, server = await unix_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Relay(a, b, buffer_size=SIZE).run)
        for _ in range(30):
            await client.send_all(bytes(1000))
            assert len(await server.receive_some()) == 1000
        nursery.cancel_scope.cancel()
    assert not kernel.moved
    assert not kernel.pipes
    for stream in (client, a, b, server):
        await stream.aclose()


@pytest.mark.parametrize(
    "layer",
    [BufWriter, lambda s: TimeoutWriter(s, idle=60)],
    ids=["BufWriter", "TimeoutWriter"],
)
async def test_a_layer_sees_the_bytes(layer: Any, kernel: Kernel) -> None:
    async def layered() -> tuple[Any, Any]:
        left, right = await unix_pair()
        return ReadWritePair(left, layer(left)), right

    await pass_through(unix_pair, layered)
    assert not kernel.moved


async def test_after_a_bulk_what_is_held_lies_in_memory_again(kernel: Kernel) -> None:
    """The pipe that the bulk went through must not be asked for it."""
    client, a = await unix_pair()
    b, server = await unix_pair()
    small_buffers(b)
    relay = Relay(a, b, buffer_size=SIZE)
    received = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        nursery.start_soon(client.send_all, DATA)
        while received < len(DATA):
            received += len(await server.receive_some(30_000))
        assert kernel.moved
        for _ in range(100):
            await client.send_all(bytes(1000))
        await wait_all_tasks_blocked(0.01)
        while received < len(DATA) + 100_000:
            received += len(await server.receive_some(30_000))
        nursery.cancel_scope.cancel()
    for stream in (client, a, b, server):
        await stream.aclose()


def small_buffers(stream: TcpStream) -> None:
    for option in (stdlib_socket.SO_SNDBUF, stdlib_socket.SO_RCVBUF):
        stream.setsockopt(stdlib_socket.SOL_SOCKET, option, SIZE)


# ---- Exact ---------------------------------------------------------------------------------------


async def bulk_in_the_pipe() -> tuple[Relay, list[TcpStream], trio.CancelScope]:
    """A relay that was cancelled while its pipe held bytes."""
    client, a = await unix_pair()
    b, server = await unix_pair()
    small_buffers(b)
    relay = Relay(a, b, buffer_size=SIZE)
    client.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 1 << 20)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await client.send_all(DATA[:200_000])
            nursery.start_soon(relay.run)
            await wait_all_tasks_blocked(0.01)
            pump = relay._runs[0].pump
            assert pump._pipe is not None
            assert pump.held
            scope.cancel()
    return relay, [client, a, b, server], scope


async def test_cancelled_with_bytes_in_the_pipe_it_goes_on_where_it_was(kernel: Kernel) -> None:
    relay, (client, a, b, server), _ = await bulk_in_the_pipe()
    moved = relay.a_to_b.bytes
    assert 0 < moved < 200_000
    # What is in the pipe is an unfinished message of the target.
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        await b.write(b"between")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await client.shutdown()
        assert await drain(server) == DATA[:200_000]
        await server.shutdown()
    assert relay.a_to_b.bytes == 200_000
    assert relay.a_to_b.outcome is LaneOutcome.ENDED
    for stream in (client, a, b, server):
        await stream.aclose()


async def test_a_close_of_the_target_with_bytes_in_the_pipe_is_a_truncated_one(
    kernel: Kernel,
) -> None:
    relay, (client, a, b, server), _ = await bulk_in_the_pipe()
    with pytest.warns(ResourceWarning, match="a Buf was begun and not finished"):
        await b.aclose()
    before = descriptors()
    await relay.run()
    assert relay.a_to_b.outcome is LaneOutcome.WRITE_FAILED
    assert relay.a_to_b.bytes < 200_000
    # The pipe, and a, which the other lane has aborted.
    assert descriptors() == before - 3
    for stream in (client, a, server):
        await stream.aclose()


async def test_a_reset_with_bytes_in_the_pipe_is_a_failed_write_and_closes_it(
    kernel: Kernel,
) -> None:
    """After EPIPE the bytes are still in the pipe."""
    client, a = await unix_pair()
    b, server = await tcp_pair()
    relay = Relay(a, b, buffer_size=SIZE)
    before = descriptors()

    async def send() -> None:
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            while True:
                await client.send_all(DATA)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(relay.run)
        while kernel.moved < len(DATA):
            await server.receive_some()
        reset(server)
    assert relay.a_to_b.outcome is LaneOutcome.WRITE_FAILED
    assert kernel.pipes
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(a)
    await trio.aclose_forcefully(b)
    # Both ends of both connections, and no pipe but those that are kept for others.
    assert descriptors() <= before - 4 + 2 * _pipe._KEPT


async def test_cancelled_anywhere_and_resumed_every_byte_arrives_once(kernel: Kernel) -> None:
    data = DATA[:120_000]

    async def scenario(sweep: Sweep) -> None:
        client, a = await unix_pair()
        b, server = await unix_pair()
        small_buffers(b)
        relay = Relay(a, b, buffer_size=SIZE)
        received = bytearray()

        async def send() -> None:
            await client.send_all(data)
            await client.send_eof()

        async def receive() -> None:
            while chunk := await server.receive_some(40_000):
                received.extend(chunk)
            await server.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            with sweep:
                await relay.run()
            await relay.run()
        assert received == data
        assert relay.a_to_b.bytes == len(data)
        for stream in (client, a, b, server):
            await stream.aclose()

    assert await cancel_everywhere(scenario) > 10
    assert kernel.moved


async def test_a_copy_that_is_cut_short_tears_the_target_and_leaves_no_pipe() -> None:
    client, a = await unix_pair()
    b, server = await unix_pair()
    small_buffers(b)
    client.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 1 << 20)
    await client.send_all(DATA[:200_000])
    before = descriptors()
    with pytest.MonkeyPatch.context() as patch:
        # Else a bulk begins with more than there is.
        patch.setattr(_copy, "DEFAULT_SIZE", SIZE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, a, b)
            await wait_all_tasks_blocked(0.01)
            assert descriptors() > before
            nursery.cancel_scope.cancel()
    with pytest.raises(trio.BrokenResourceError, match="is torn"):
        await b.write(b"x")
    assert descriptors() == before
    with pytest.warns(ResourceWarning, match=r"copy\(\) was cut short with \d+ bytes received"):
        await b.aclose()
    for stream in (client, a, server):
        await stream.aclose()


async def test_a_target_that_another_task_uses_is_left_to_the_shell(kernel: Kernel) -> None:
    client, a = await unix_pair()
    b, server = await unix_pair()
    client.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 1 << 20)
    b.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 1 << 20)
    await client.send_all(DATA[:60_000])
    relay = Relay(a, b, buffer_size=SIZE)
    is_free = Pump._is_target_free
    with pytest.MonkeyPatch.context() as patch:

        def is_inside(pump: Pump) -> bool:
            # From the moment on that the pipe is full.
            b.lifecycle.inside = pump._pipe is not None
            return is_free(pump)

        patch.setattr(Pump, "_is_target_free", is_inside)
        with pytest.raises(trio.BusyResourceError):
            await relay.run()
    b.lifecycle.inside = False
    assert relay._runs[0].pump.held
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await client.shutdown()
        assert await drain(server) == DATA[:60_000]
        await server.shutdown()
    for stream in (client, a, b, server):
        await stream.aclose()


async def test_a_kernel_that_takes_a_little_at_a_time_lets_other_tasks_run(
    kernel: Kernel, autojump_clock: trio.testing.MockClock
) -> None:
    """... and what moves is progress."""
    kernel.limit = 1000
    client, a = await unix_pair()
    b, server = await unix_pair()
    relay = Relay(a, b, half_open=10, buffer_size=SIZE)
    for stream in (client, b):
        stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 1 << 20)
    await client.send_all(DATA[:100_000])
    await server.shutdown()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        assert relay.b_to_a.outcome is LaneOutcome.ENDED
        await client.send_all(DATA[100_000:200_000])
        await client.shutdown()
        assert await drain(server) == DATA[:200_000]
    assert relay.a_to_b.outcome is LaneOutcome.ENDED
    for stream in (client, a, b, server):
        await stream.aclose()


# ---- Never needed --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_without_a_pipe_it_copies(number: int, kernel: Kernel) -> None:
    kernel.fails["pipe2"] = number
    await pass_through(unix_pair, unix_pair)
    assert not kernel.moved


async def test_without_so_large_a_pipe_it_copies(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary user gets 64 of 1 MiB, then EPERM, then new ones of 8 KiB."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    before = descriptors()
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    await pass_through(unix_pair, unix_pair)
    gc.collect()
    assert not kernel.moved
    assert kernel.pipes
    assert descriptors() == before


@pytest.mark.parametrize("where", ["to pipe", "from pipe"])
@pytest.mark.parametrize("maker", [tcp_pair, unix_pair])
async def test_what_the_kernel_does_not_splice_is_copied(
    where: str, maker: Maker, kernel: Kernel
) -> None:
    """Socket to socket is EINVAL; so are some terminals."""
    kernel.fails[where] = errno.EINVAL
    relay = await pass_through(maker, maker)
    assert relay is not None
    assert relay.a_to_b.bytes == len(DATA)


async def test_found_out_by_the_shell_it_goes_on_as_well(kernel: Kernel) -> None:
    """... with what is in the pipe, and with a Buf that was unfinished."""
    relay, (client, a, b, server), _ = await bulk_in_the_pipe()
    kernel.fails["from pipe"] = errno.EINVAL
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await client.shutdown()
        assert await drain(server) == DATA[:200_000]
        await server.shutdown()
    assert relay.a_to_b.bytes == 200_000
    for stream in (client, a, b, server):
        await stream.aclose()


async def test_other_failures_are_the_stream_s(kernel: Kernel) -> None:
    for where, outcome in (
        ("to pipe", LaneOutcome.READ_FAILED),
        ("from pipe", LaneOutcome.WRITE_FAILED),
    ):
        kernel.fails = {where: errno.EIO}
        client, a = await unix_pair()
        b, server = await unix_pair()
        client.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 1 << 20)
        await client.send_all(DATA[:100_000])
        relay = Relay(a, b, buffer_size=SIZE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            await drain_quietly(server)
            await trio.aclose_forcefully(server)
        assert relay.a_to_b.outcome is outcome
        for stream in (client, a, b):
            await trio.aclose_forcefully(stream)


async def drain_quietly(stream: TcpStream) -> None:
    with trio.move_on_after(0.05):
        await drain(stream)


# ---- Pipes ---------------------------------------------------------------------------------------


async def test_pipes_are_kept_for_others_but_not_many(kernel: Kernel) -> None:
    before = descriptors()
    pipes = [take_pipe() for _ in range(10)]
    assert descriptors() == before + 20
    for pipe in pipes:
        assert pipe is not None
        give_pipe(pipe)
    assert descriptors() == before + 2 * _pipe._KEPT
    assert take_pipe() in pipes


def test_they_are_closed_with_the_run() -> None:
    before = descriptors()

    async def main() -> None:
        pipe = take_pipe()
        assert pipe is not None
        give_pipe(pipe)
        assert descriptors() > before

    trio.run(main)
    assert descriptors() == before


def test_a_pipe_that_is_dropped_is_closed() -> None:
    before = descriptors()
    pipe = Pipe()
    assert fcntl.fcntl(pipe.reading, fcntl.F_GETPIPE_SZ) == _pipe.PIPE_SIZE
    os.write(pipe.writing, b"abcdef")
    assert pipe.read_back(4) == b"abcd"
    del pipe
    assert descriptors() == before


@pytest.mark.parametrize("count", [30, pytest.param(2000, marks=pytest.mark.slow)])
async def test_relays_leave_no_descriptor_behind(count: int, kernel: Kernel) -> None:
    before = descriptors()
    for _ in range(count):
        await pass_through(unix_pair, unix_pair, DATA[:60_000])
    assert kernel.moved
    assert descriptors() <= before + 2 * _pipe._KEPT


async def test_a_splice_tells_the_end_of_a_terminal_from_a_failure(kernel: Kernel) -> None:
    """Whether the kernel splices from terminals depends on its version."""
    kernel.fails["to pipe"] = errno.EIO
    pipe = take_pipe()
    assert pipe is not None
    for number, is_main in zip(pty.openpty(), (True, False), strict=True):
        async with PollEvented(number) as stream:
            if is_main:
                assert stream.poll_splice_to(pipe.writing, SIZE) == 0
            else:
                with pytest.raises(trio.BrokenResourceError, match="Input/output error"):
                    stream.poll_splice_to(pipe.writing, SIZE)


@pytest.mark.parametrize("size", [100, 5 * SIZE])
async def test_a_terminal_that_nobody_has_ends_properly(size: int, kernel: Kernel) -> None:
    """Linux says EIO, to a splice, too."""
    data = bytes(size)
    main, side = pty.openpty()
    tty.setraw(side)
    source, written = PollEvented(main), PollEvented(side)
    b, server = await unix_pair()
    relay = Relay(source, b, buffer_size=SIZE)

    async def write() -> None:
        await written.send_all(data)
        await written.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        nursery.start_soon(write)
        assert await drain(server) == data
        await server.shutdown()
    assert relay.a_to_b.outcome is LaneOutcome.ENDED
    for stream in (source, b, server):
        await stream.aclose()
