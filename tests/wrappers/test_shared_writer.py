from __future__ import annotations

import contextlib
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    Cursor,
    NotReady,
    SimplexReader,
    TcpStream,
    TimeoutWriter,
    close_gracefully,
    duplex,
    simplex,
)
from trio_asyncwrite._wrappers._shared_writer import SharedWriter
from trio_asyncwrite.testing import (
    BrokenAfterWriter,
    OneByteWriter,
    Sweep,
    cancel_everywhere,
    check_async_write,
)

from .._patience import wait_all_tasks_blocked
from .._streams import assert_leaves_no_cycle, clog, connected, drain, reset, tcp_pair
from .._tls_helpers import duplex_1, duplex_7, open_tls, plain_pair
from ..core._fakes import cut_short

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from trio.testing import MockClock


def pair(capacity: int = 4) -> tuple[SharedWriter[Any], SimplexReader]:
    writer, reader = simplex(capacity)
    return SharedWriter(writer), reader


async def start(nursery: trio.Nursery, *calls: Callable[[], Awaitable[object]]) -> None:
    """Let each call come to its first wait before the next."""
    for call in calls:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()


@pytest.mark.parametrize("tasks", [100, 400])
async def test_a_message_costs_the_same_however_many_wait(tasks: int) -> None:
    """Python calls of the library per message, and no list of who waits."""

    async def calls_per_message(count: int) -> float:
        writer, reader = simplex(1)
        shared = SharedWriter(writer)
        calls = 0

        def profile(frame: FrameType, event: str, _: object) -> None:
            nonlocal calls
            calls += event == "call" and frame.f_globals["__name__"].startswith("trio_asyncwrite.")

        clog(writer)
        async with trio.open_nursery() as nursery:
            await start(nursery, *[partial(shared.write_all, b"x")] * 2)
            sys.setprofile(profile)
            try:
                for _ in range(count):
                    nursery.start_soon(shared.write_all, b"x")
                await wait_all_tasks_blocked()
                for _ in range(count + 3):
                    await reader.receive_some(1)
            finally:
                sys.setprofile(None)
        return calls / count

    assert await calls_per_message(tasks) < 1.3 * await calls_per_message(10)


async def read_and_close(writer: SharedWriter[Any], reader: trio.abc.ReceiveStream) -> bytes:
    received = b""

    async def read() -> None:
        nonlocal received
        received = await drain(reader)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await writer.aclose()
    return received


@pytest.mark.parametrize("operation", ["write_all", "send_all", "write"])
async def test_messages_of_many_tasks_are_whole_and_in_order(operation: str) -> None:
    writer, reader = pair()
    messages = [b"<%d:%s>" % (n, b"x" * n) for n in range(1, 20)]
    async with trio.open_nursery() as nursery:
        await start(nursery, *[partial(getattr(writer, operation), one) for one in messages])
        assert writer.unsent_bytes
        nursery.start_soon(writer.flush)
        received = bytearray()
        while len(received) < len(b"".join(messages)):
            received += await reader.receive_some()

    assert received == b"".join(messages)
    assert await read_and_close(writer, reader) == b""


async def test_every_kind_of_write_is_one_message() -> None:
    writer, reader = pair(1)
    async with trio.open_nursery() as nursery:
        await start(
            nursery,
            partial(writer.write_vectored, [b"ab", b"cd"]),
            partial(writer.write_all_vectored, [b"ef", b"", b"gh"]),
            partial(writer.write_struct, "!HH", 0x6969, 0x6A6A),
            partial(writer.write_buf, Buf(b"kk", b"ll")),
            partial(writer.write_all_buf, Buf(b"mm", b"nn")),
            writer.wait_send_all_might_not_block,
            partial(writer.write_all, b""),
            writer.shutdown,
            writer.flush,
        )
        assert await drain(reader) == b"abcdefghiijjkkllmmnn"
    await writer.aclose()


@pytest.mark.parametrize("layer", [SharedWriter, lambda one: SharedWriter(BufWriter(one))])
async def test_a_message_is_whole_of_however_many_parts(
    layer: Callable[[Cursor], SharedWriter[Any]],
) -> None:
    """A poll is offered no more than a thousand of them by the shell."""
    cursor = Cursor()
    async with layer(cursor) as writer:
        buf = Buf(*[b"a"] * 3000)
        await writer.write_all_buf(buf)
        assert buf.remaining == 0
        assert await writer.write_vectored([b"b"] * 3000) == 3000
        await writer.write_all_vectored([b"c"] * 3000)
        async with writer.by_ref() as handle:
            assert await handle.write_vectored([b"d"] * 3000) == 3000
    assert cursor.getvalue() == b"".join(letter * 3000 for letter in (b"a", b"b", b"c", b"d"))


async def test_a_message_that_has_not_begun_is_withdrawn() -> None:
    writer, reader = pair()
    scope = trio.CancelScope()

    async def withdrawn() -> None:
        with scope:
            await writer.write_all(b"withdrawn")

    async with trio.open_nursery() as nursery:
        await start(
            nursery,
            partial(writer.write_all, b"the first one"),
            withdrawn,
            partial(writer.write_all, b", the third"),
        )
        scope.cancel()
        await wait_all_tasks_blocked()
        assert writer.unsent_bytes == len("the first one") - 4
        nursery.start_soon(writer.shutdown)
        assert await drain(reader) == b"the first one, the third"
    assert scope.cancelled_caught
    await writer.aclose()


async def test_a_message_that_has_begun_goes_out_whole_before_the_next() -> None:
    writer, reader = pair()
    buf = Buf(b"begun and cancelled")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await start(nursery, partial(writer.write_all_buf, buf))
            scope.cancel()

    assert scope.cancelled_caught
    assert buf.remaining == 0
    assert writer.unsent_bytes == len("begun and cancelled") - 4
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(writer.send_all, b", and the next"))
        received = bytearray()
        while not received.endswith(b"next"):
            received += await reader.receive_some()
    assert received == b"begun and cancelled, and the next"
    await writer.aclose()


async def test_the_line_goes_on_when_its_first_is_cancelled() -> None:
    writer, reader = pair()
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await writer.write_all(b"first, ")

    async with trio.open_nursery() as nursery:
        await start(nursery, first, partial(writer.send_all, b"second"))
        scope.cancel()
        received = bytearray()
        while not received.endswith(b"second"):
            received += await reader.receive_some()
    assert received == b"first, second"
    await writer.aclose()


async def test_the_callers_buffer_is_not_kept() -> None:
    writer, reader = pair()
    data = bytearray(b"0123456789")
    assert await writer.write(data) == 10
    data[:] = b"changed"  # a bytearray of which a view exists cannot be resized

    assert await read_and_close(writer, reader) == b"0123456789"


async def test_small_messages_stay_in_the_buffer_below_without_a_checkpoint() -> None:
    cursor = Cursor()
    writer = SharedWriter(BufWriter(cursor))
    await writer.write(b"a")
    with trio.testing.assert_no_checkpoints():
        await writer.write(b"b")
        await writer.write_all(b"c")
        await writer.write_all_buf(Buf(b"d"))
    assert writer.unsent_bytes == 4
    await writer.aclose()
    assert cursor.getvalue() == b"abcd"


@pytest.mark.parametrize(
    "write",
    [SharedWriter.write, SharedWriter.write_all, lambda one, d: one.write_all_buf(Buf(d))],
)
async def test_a_loop_of_small_messages_lets_others_run_and_be_cancelled(
    write: Callable[[SharedWriter[Any], bytes], Awaitable[object]],
) -> None:
    async with SharedWriter(BufWriter(Cursor())) as writer:
        with trio.CancelScope() as scope:
            scope.cancel()
            for _ in range(1000):
                await write(writer, b"x")
        assert scope.cancelled_caught
        assert writer.unsent_bytes <= 128


@pytest.mark.parametrize("write", [SharedWriter.write, SharedWriter.write_all])
async def test_one_in_128_small_messages_makes_a_checkpoint(
    write: Callable[[SharedWriter[Any], bytes], Awaitable[object]],
) -> None:
    in_a_row = longest = 0
    async with SharedWriter(BufWriter(Cursor())) as writer:
        for _ in range(400):
            try:
                with trio.testing.assert_no_checkpoints():
                    await write(writer, b"x")
            except AssertionError:
                in_a_row = 0
            else:
                in_a_row += 1
            longest = max(longest, in_a_row)
    assert longest <= 128


async def test_tasks_that_wait_for_nothing_do_not_wait_for_each_other() -> None:
    """A line, once there, would stay, and cost every message a trip through the scheduler."""

    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += 1

    steps = Steps()
    async with SharedWriter(BufWriter(Cursor())) as writer:

        async def write() -> None:
            for _ in range(1000):
                await writer.write(b"x")

        trio.lowlevel.add_instrument(steps)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(write)
        trio.lowlevel.remove_instrument(steps)
    assert steps.count < 2 * 5000 / 128


async def test_nobody_is_overtaken_when_the_budget_is_spent() -> None:
    cursor = Cursor()
    writer = SharedWriter(BufWriter(cursor))

    async def write(number: int) -> None:
        await writer.write_all(b"%d," % number)

    # Whose call comes first is Trio's choice.
    calls: list[int] = []

    async def one(number: int) -> None:
        calls.append(number)
        await write(number)

    for _ in range(127):
        await writer.write(b"")
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(one, number)
    await writer.flush()
    assert cursor.getvalue() == b"".join(b"%d," % number for number in calls)
    await writer.aclose()


@pytest.mark.parametrize("write", [SharedWriter.write, SharedWriter.write_all])
async def test_a_small_message_does_not_overtake_those_in_line(
    write: Callable[[SharedWriter[Any], bytes], Awaitable[object]],
) -> None:
    """Though the buffer has room for it."""
    inner, reader = simplex(4)
    writer = SharedWriter(BufWriter(inner, 100))
    await writer.write_all(b"a" * 50)
    async with trio.open_nursery() as nursery:
        await start(
            nursery,
            writer.flush,
            partial(writer.write_all, b"b" * 90),
            partial(write, writer, b"c"),
            writer.shutdown,
        )
        assert await drain(reader) == b"a" * 50 + b"b" * 90 + b"c"
    await writer.aclose()


@pytest.mark.parametrize("write", [SharedWriter.write, SharedWriter.write_all])
@pytest.mark.parametrize("end", ["shutdown", "aclose", "failure"])
async def test_a_small_message_is_refused_though_the_buffer_has_room(
    write: Callable[[SharedWriter[Any], bytes], Awaitable[object]], end: str
) -> None:
    """Also if the buffer has ended without this writer's knowledge."""
    inner = BufWriter(BrokenAfterWriter(Cursor(), limit=2), 100)
    writer = SharedWriter(inner)
    await write(writer, b"ab")
    if end == "failure":
        await inner.flush()
        with pytest.raises(trio.BrokenResourceError):
            await inner.write_all(b"c" * 200)
    else:
        await getattr(inner, end)()
    with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
        await write(writer, b"d")
    assert not writer.unsent_bytes
    await writer.aclose()


@pytest.mark.filterwarnings("ignore:.*a Buf was begun:ResourceWarning")
@pytest.mark.parametrize("write", [SharedWriter.write, SharedWriter.write_all])
async def test_a_small_message_does_not_come_into_an_unfinished_buf_of_the_buffer(
    write: Callable[[SharedWriter[Any], bytes], Awaitable[object]],
) -> None:
    stream, reader = simplex(10)
    writer = SharedWriter(inner := BufWriter(stream, 20))
    await write(writer, b"ab")
    buf = Buf(bytes(100))
    await cut_short(partial(inner.write_all_buf, buf))
    assert (buf.remaining, inner.spare_capacity) == (92, 20)
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        await write(writer, b"d")
    await trio.aclose_forcefully(writer)
    await reader.aclose()


async def test_who_waits_for_a_write_sends_what_was_begun() -> None:
    writer, reader = pair()
    await writer.write(b"0123456789")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.wait_send_all_might_not_block)
        received = b""
        while len(received) < 10:
            received += await reader.receive_some()
    assert received == b"0123456789"
    await writer.aclose()


async def test_a_writer_that_is_always_ready_does_not_starve_other_tasks() -> None:
    cursor = Cursor()
    writer = SharedWriter(OneByteWriter(cursor))
    ran = 0

    async def count() -> None:
        nonlocal ran
        while True:
            await trio.lowlevel.checkpoint()
            ran += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await writer.write_all(bytes(400))
        nursery.cancel_scope.cancel()
    assert ran >= 400 // 16 // 2  # about one turn in 16 bytes
    assert cursor.getvalue() == bytes(400)
    await writer.aclose()


async def test_aclose_goes_first_and_those_in_line_get_closed() -> None:
    writer, reader = pair()
    errors = 0

    async def refused(call: Callable[[], Awaitable[object]]) -> None:
        nonlocal errors
        with pytest.raises(trio.ClosedResourceError):
            await call()
        errors += 1

    async with trio.open_nursery() as nursery:
        await start(
            nursery,
            *[
                partial(refused, partial(writer.write_all, message))
                for message in (b"has begun", b"has not", b"nor has this")
            ],
        )
        assert await read_and_close(writer, reader) == b"has begun"
    assert errors == 3


async def test_a_graceful_close_goes_first_and_finishes_what_has_begun() -> None:
    left, right = duplex(7)
    writer = SharedWriter(left)
    received = b""

    async def refused(message: bytes) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.send_all(message)

    async def read() -> None:
        nonlocal received
        received = await drain(right)
        await right.aclose()

    async with trio.open_nursery() as nursery:
        await start(nursery, partial(refused, b"has begun"), partial(refused, b"has not"))
        nursery.start_soon(read)
        report = await close_gracefully(writer)
    assert report.outcome is CloseOutcome.CLEAN
    assert received == b"has begun"


async def test_it_leaves_no_cycle() -> None:
    async def scenario() -> None:
        stream, peer = await tcp_pair()
        writer: SharedWriter[TcpStream] = SharedWriter(stream)
        clog(stream)

        async def broken() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await writer.write_all(b"message")

        async with trio.open_nursery() as nursery:
            await start(nursery, partial(writer.write_all, b"cancelled"), writer.flush)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            await start(nursery, broken, broken)
            reset(peer)
        await writer.aclose()

    await assert_leaves_no_cycle(scenario)


async def test_a_failure_is_everybodys() -> None:
    writer = SharedWriter(BrokenAfterWriter(Cursor(), 5))
    outcomes: list[str] = []

    async def write(message: bytes) -> None:
        try:
            await writer.write_all(message)
        except trio.BrokenResourceError:
            outcomes.append("broken")
        else:
            outcomes.append("sent")

    async with trio.open_nursery() as nursery:
        await start(nursery, *[partial(write, b"abc")] * 3)
    assert outcomes == ["sent", "broken", "broken"]
    with pytest.raises(trio.BrokenResourceError):
        await writer.flush()
    assert writer.unsent_bytes == 1
    await writer.aclose()


async def test_who_waits_in_line_is_told_of_a_failure_as_well() -> None:
    async with connected(tcp_pair) as (stream, peer):
        writer: SharedWriter[TcpStream] = SharedWriter(stream)
        clog(stream)
        told = 0

        async def write(message: bytes) -> None:
            nonlocal told
            for _ in range(2):  # it is sticky
                with pytest.raises(trio.BrokenResourceError):
                    await writer.send_all(message)
                told += 1

        async with trio.open_nursery() as nursery:
            await start(nursery, *[partial(write, b"message")] * 5)
            reset(peer)
        assert told == 10


async def test_a_message_that_cannot_be_kept_breaks_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of it has gone, so nothing may follow it."""

    class Small(Buf):  # type: ignore[misc]
        def __init__(self, *parts: Any) -> None:
            if parts == (b"efgh",):
                raise MemoryError
            super().__init__(*parts)

    writer, reader = pair()
    monkeypatch.setattr("trio_asyncwrite._wrappers._shared_writer.Buf", Small)
    with pytest.raises(MemoryError):
        await writer.write_all(b"abcdefgh")
    assert await reader.receive_some() == b"abcd"
    with pytest.raises(trio.BrokenResourceError):
        await writer.write_all(b"next")
    await writer.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await reader.receive_some()


async def test_a_timeout_below_is_no_failure(autojump_clock: MockClock) -> None:
    """Each task in line has its own period, and the stream stays in step."""
    inner, reader = simplex(4)
    writer = SharedWriter(TimeoutWriter(inner, idle=3))
    timeouts: list[float] = []

    async def write(buf: Buf) -> None:
        with pytest.raises(trio.TooSlowError):
            await writer.write_all_buf(buf)
        timeouts.append(trio.current_time())

    bufs = [Buf(b"<first>"), Buf(b"<second>"), Buf(b"<third>")]
    async with trio.open_nursery() as nursery:
        await start(nursery, *[partial(write, buf) for buf in bufs])
    assert timeouts == [3, 6, 9]
    assert [buf.remaining for buf in bufs] == [0, 8, 7]
    async with trio.open_nursery() as nursery:
        await start(nursery, *[partial(writer.write_all_buf, buf) for buf in bufs])
        nursery.start_soon(writer.shutdown)
        assert await drain(reader) == b"<first><second><third>"
    await writer.aclose()


class Careless(AsyncWrite):
    """Keeps no phase: it relies on not being used any more once it was shut down."""

    def __init__(self) -> None:
        self.go_on = trio.Event()
        self.down = False

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)

    def poll_flush(self) -> None:
        assert not self.down
        if not self.go_on.is_set():
            raise NotReady(self.go_on.wait)

    def poll_shutdown(self) -> None:
        self.poll_flush()
        self.down = True


async def test_in_line_behind_a_shutdown_nothing_is_left_to_do_or_to_write() -> None:
    writer = SharedWriter(Careless())

    async def refused(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await call()

    async with trio.open_nursery() as nursery:
        await start(
            nursery,
            writer.flush,
            writer.shutdown,
            writer.flush,
            writer.shutdown,
            partial(refused, partial(writer.write_all, b"x")),
            partial(refused, partial(writer.write_all_vectored, [b"x", b"y"])),
            partial(refused, writer.wait_send_all_might_not_block),
        )
        writer.inner.go_on.set()
    await writer.aclose()


async def test_handles_and_raw_polls_keep_messages_whole_over_a_real_socket() -> None:
    """They wait together with the line for what only one task at a time may wait for."""
    async with connected(tcp_pair) as (stream, peer):
        writer: SharedWriter[TcpStream] = SharedWriter(stream)
        clogging = clog(stream)
        messages = [b"[%s]" % (bytes([65 + n]) * 100_000) for n in range(6)]

        async def by_handle(message: bytes) -> None:
            async with writer.by_ref() as handle:
                await handle.write_all(message)

        async with trio.open_nursery() as nursery:
            await start(
                nursery,
                *[partial(writer.send_all, one) for one in messages[::2]],
                *[partial(by_handle, one) for one in messages[1::2]],
            )
            with pytest.raises(NotReady):
                writer.poll_write(b"x")
            received = bytearray()
            while len(received) < clogging + len(b"".join(messages)):
                received += await peer.receive_some()
        del received[:clogging]
        found = {bytes(received[at : at + 100_002]) for at in range(0, len(received), 100_002)}
        assert found == set(messages)
        # The line keeps its order.
        begins = [received.index(one) for one in messages[::2]]
        assert begins == sorted(begins)


async def test_after_shutdown_nothing_is_written() -> None:
    writer, reader = pair()
    await writer.shutdown()
    await writer.shutdown()
    with pytest.raises(trio.ClosedResourceError):
        await writer.write_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        writer.poll_write(b"x")
    assert await drain(reader) == b""
    await writer.aclose()


@pytest.mark.outer
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    capacity=st.integers(1, 20),
    cancelled=st.sets(st.integers(0, 7)),
)
def test_any_messages_and_cancellations(
    sizes: list[int], capacity: int, cancelled: set[int]
) -> None:
    """What arrives is messages, each whole or absent; a Buf says which; order is that of calls."""

    async def main() -> None:
        writer, reader = pair(capacity)
        messages = [bytes([n]) * size for n, size in enumerate(sizes)]
        bufs = [Buf(message) for message in messages]
        scopes = [trio.CancelScope() for _ in sizes]

        async def write(n: int) -> None:
            with scopes[n]:
                await writer.write_all_buf(bufs[n])

        async with trio.open_nursery() as nursery:
            await start(nursery, *[partial(write, n) for n in range(len(sizes))])
            for n in cancelled & set(range(len(sizes))):
                scopes[n].cancel()
            nursery.start_soon(writer.shutdown)
            received = await drain(reader)
        await writer.aclose()
        begun = [n for n in range(len(sizes)) if not bufs[n].remaining]
        assert received == b"".join(messages[n] for n in begun)
        assert set(range(len(sizes))) - set(begun) <= cancelled

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("operation", ["write", "write_all", "send_all", "flush", "shutdown"])
async def test_wherever_one_of_two_tasks_is_cancelled_the_stream_stays_in_step(
    operation: str, autojump_clock: MockClock
) -> None:
    async def scenario(sweep: Sweep) -> None:
        writer, reader = pair()
        received = b""

        async def read() -> None:
            nonlocal received
            received = await drain(reader)

        async with trio.open_nursery() as nursery:
            await start(nursery, partial(writer.write_all, b"<before>"))
            nursery.start_soon(read)
            with sweep:
                if operation in ("flush", "shutdown"):
                    await getattr(writer, operation)()
                else:
                    await getattr(writer, operation)(b"<swept>")
            if operation != "shutdown":
                await writer.write_all(b"<after>")
            await writer.shutdown()
        await writer.aclose()

        with_it, without = b"<before><swept><after>", b"<before><after>"
        if operation == "shutdown":
            assert received == b"<before>"
        elif operation == "flush":
            assert received == without
        elif operation == "write" or not sweep.cancelled:
            assert received == (without if sweep.cancelled else with_it)
        else:
            assert received in (with_it, without)

    assert await cancel_everywhere(scenario) > 2


#: Where bytes go, what is over it, and how many bytes fill it several times.
TRANSPORTS: dict[
    str, tuple[Callable[[], Awaitable[Any]], Callable[..., SharedWriter[Any]], int]
] = {
    "duplex, 1": (duplex_1, SharedWriter, 5),
    "duplex, 7": (duplex_7, SharedWriter, 20),
    "TcpStream": (tcp_pair, SharedWriter, 200_000),
    "TlsStream": (open_tls, SharedWriter, 30_000),
    "TlsStream over TcpStream": (partial(open_tls, tcp_pair), SharedWriter, 200_000),
    "BufWriter": (tcp_pair, lambda one: SharedWriter(BufWriter(one, 3000)), 200_000),
    "only send_all": (plain_pair, SharedWriter, 10_000),
}


@pytest.mark.outer
@pytest.mark.parametrize(("maker", "layer", "size"), TRANSPORTS.values(), ids=TRANSPORTS)
async def test_wherever_two_of_four_tasks_are_cancelled_messages_are_whole_and_in_order(
    maker: Callable[[], Awaitable[Any]],
    layer: Callable[..., SharedWriter[Any]],
    size: int,
    autojump_clock: MockClock,
) -> None:
    """Those that have begun, that is: the others are withdrawn, and a Buf says which."""
    messages = [bytes([number]) * size for number in range(4)]

    async def scenario(sweep: Sweep) -> None:
        stream, peer = await maker()
        writer = layer(stream)
        bufs = [Buf(message[:1], message[1:]) for message in messages]
        received = bytearray()

        async def read() -> None:
            while chunk := await peer.receive_some(max(size // 10, 1)):
                received.extend(chunk)

        async with trio.open_nursery() as others:
            others.start_soon(read)
            others.start_soon(writer.write_all_buf, bufs[0])
            with sweep:
                async with trio.open_nursery() as swept:
                    for nursery, buf in zip((swept, others, swept), bufs[1:], strict=True):
                        nursery.start_soon(writer.write_all_buf, buf)
            await writer.send_all(b"the end")
            await writer.aclose()
        await peer.aclose()

        assert {buf.remaining for buf in bufs} <= {0, size}
        begun = [message for message, buf in zip(messages, bufs, strict=True) if not buf.remaining]
        assert begun == messages if not sweep.cancelled else {messages[0], messages[2]} <= {*begun}
        assert received == b"".join(begun) + b"the end"

    assert await cancel_everywhere(scenario) > 15


async def test_wherever_an_aclose_is_cancelled_all_in_line_are_told_and_no_end_is_a_lie(
    autojump_clock: MockClock,
) -> None:
    async def scenario(sweep: Sweep) -> None:
        writer, reader = pair()
        told = 0
        received = b""

        async def write(message: bytes) -> None:
            nonlocal told
            with pytest.raises(trio.ClosedResourceError):
                await writer.send_all(message)
            told += 1

        async def read() -> None:
            nonlocal received
            try:
                received = await drain(reader)
            except trio.BrokenResourceError:
                received = b"truncated"

        async with trio.open_nursery() as nursery:
            await start(nursery, *[partial(write, b"<message %d>" % n) for n in range(4)])
            nursery.start_soon(read)
            with warnings.catch_warnings(record=True) as caught, sweep:
                warnings.simplefilter("always")
                await writer.aclose()
        assert told == 4
        assert received == (b"truncated" if writer.unsent_bytes else b"<message 0>")
        assert len(caught) == bool(writer.unsent_bytes) <= sweep.cancelled

    assert await cancel_everywhere(scenario) > 5


@pytest.mark.outer
@pytest.mark.parametrize("layer", [SharedWriter, lambda one: SharedWriter(BufWriter(one, 50))])
async def test_the_contract(
    layer: Callable[[AsyncWrite], SharedWriter[Any]], autojump_clock: MockClock
) -> None:
    async def maker() -> tuple[SharedWriter[Any], trio.abc.ReceiveStream]:
        # Large enough that the longest message needs no thousand polls.
        writer, reader = simplex(65536)
        return layer(writer), reader

    async def clogged_maker() -> tuple[SharedWriter[Any], trio.abc.ReceiveStream]:
        writer, reader = simplex(100)
        shared = layer(writer)
        with contextlib.suppress(NotReady):
            while True:
                shared.poll_write(bytes(10))
        return shared, reader

    await check_async_write(maker, clogged_maker, exclusive=False)


async def test_what_it_wraps() -> None:
    writer, _ = pair()
    assert repr(writer) == f"<SharedWriter over {writer.inner!r}>"
    await writer.aclose()
    with pytest.raises(TypeError):
        SharedWriter(object())  # type: ignore[call-overload]
