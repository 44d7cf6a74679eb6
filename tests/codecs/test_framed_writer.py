"""Sending frames: whole or not at all, in order, from many tasks; flushing, endings, failures."""

from __future__ import annotations

import contextlib
import gc
import struct
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufReader,
    BufWriter,
    Cursor,
    NotReady,
    SharedWriter,
    Sink,
    TimeoutWriter,
    abort,
    close_gracefully,
    graceful,
    simplex,
)
from trio_asyncwrite._core._budget import current_budget
from trio_asyncwrite.codecs import (
    Codec,
    DelimiterCodec,
    FramedReader,
    FramedWriter,
    LengthDelimitedCodec,
    LinesCodec,
)
from trio_asyncwrite.testing import OneByteWriter, Sweep, cancel_everywhere

from .._patience import wait_all_tasks_blocked
from .._servers import CLEAN, Server, both
from .._streams import drain, reset, tcp_pair
from .._tls_helpers import open_tls
from ..core._fakes import begin, cut_short, each, resource_warnings, run_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LENGTHS = LengthDelimitedCodec()
LINES = LinesCodec()


def pair(capacity: int = 4, codec: Codec = LINES) -> tuple[FramedWriter, trio.abc.ReceiveStream]:
    writer, reader = simplex(capacity)
    return FramedWriter(writer, codec), reader


def buffered(capacity: int = 100) -> tuple[FramedWriter, Cursor]:
    cursor = Cursor()
    return FramedWriter(BufWriter(cursor, capacity), LINES), cursor


async def end(frames: FramedWriter, reader: trio.abc.ReceiveStream) -> bytes:
    """Close, and all that the other side gets."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(frames.aclose)
        return await drain(reader)


class Sized:
    """A codec as a user writes one: nothing of ours, and a trailer."""

    def encode(self, frame: bytes | memoryview) -> list[bytes | memoryview]:
        return [bytes([len(frame)]), frame, b"!"]


# ---- What goes out -------------------------------------------------------------------------------


async def test_frames_go_out_in_their_codec_s_format() -> None:
    """``struct``'s, for lengths."""
    cursor = Cursor()
    frames = FramedWriter(cursor, LENGTHS)
    expected = b""
    for payload in (b"", b"abc", bytes(5000), bytearray(b"xyz"), memoryview(b"uvw")):
        await frames.send(payload)
        expected += struct.pack(">I", len(payload)) + bytes(payload)
    await frames.flush()
    assert cursor.getvalue() == expected
    assert type(frames.writer) is SharedWriter
    assert frames.codec is LENGTHS
    assert repr(frames) == f"<FramedWriter of {LENGTHS!r} over {cursor!r}>"
    await frames.aclose()


async def test_a_view_counts_as_its_bytes() -> None:
    cursor = Cursor()
    frames = FramedWriter(cursor, LENGTHS)
    await frames.send(memoryview(struct.pack("2I", 1, 2)).cast("I"))
    assert cursor.getvalue()[:4] == struct.pack(">I", 8)
    await frames.aclose()


async def test_a_codec_of_one_s_own_needs_no_base() -> None:
    cursor = Cursor()
    frames = FramedWriter(cursor, Sized())  # type: ignore[arg-type]
    await frames.send(b"ab")
    frames.send_nowait(b"c")
    await frames.send(memoryview(b"d"))
    assert cursor.getvalue() == b"\2ab!\1c!\1d!"
    await frames.aclose()


async def test_a_shared_writer_is_used_as_it_is() -> None:
    """Frames of two codecs, and plain messages, in one line."""
    cursor = Cursor()
    shared = SharedWriter(cursor)
    lines, lengths = FramedWriter(shared, LINES), FramedWriter(shared, LENGTHS)
    assert lines.writer is shared
    await lines.send(b"a")
    await lengths.send(b"b")
    await shared.write(b"c")
    assert cursor.getvalue() == b"a\n\0\0\0\1bc"
    await lines.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await lengths.send(b"d")


@pytest.mark.parametrize("size", [3, 5000, 60_000])
async def test_a_buffer_collects_frames_until_a_flush(size: int) -> None:
    cursor = Cursor()
    frames = FramedWriter(BufWriter(cursor, 1 << 20), LINES)
    await frames.send(bytes(size))
    await frames.send(bytes(size))
    assert cursor.getvalue() == b""
    await frames.flush()
    assert cursor.getvalue() == 2 * (bytes(size) + b"\n")
    await frames.aclose()


async def test_small_frames_make_no_trip_to_the_scheduler_within_the_budget() -> None:
    frames = FramedWriter(BufWriter(Sink()), LINES)
    steps = 0

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal steps
            steps += 1

    await frames.send(b"x")
    instrument = Steps()
    trio.lowlevel.add_instrument(instrument)
    for _ in range(1280):
        await frames.send(b"x")
    trio.lowlevel.remove_instrument(instrument)
    assert 10 <= steps <= 11
    with trio.CancelScope() as scope:
        scope.cancel()
        for _ in range(129):
            await frames.send(b"x")
    assert scope.cancelled_caught
    await frames.aclose()


async def test_a_close_during_a_budget_s_checkpoint_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames, cursor = buffered()
    await frames.send(b"a")

    async def checkpoint() -> None:
        monkeypatch.undo()
        await frames.aclose()

    monkeypatch.setattr(trio.lowlevel, "checkpoint", checkpoint)
    current_budget().left = 0
    with pytest.raises(trio.ClosedResourceError):
        await frames.send(b"b")
    assert cursor.getvalue() == b"a\n"


# ---- Many tasks, and those that are cancelled ----------------------------------------------------


async def tiny() -> tuple[Any, Any]:
    return simplex(3)


@each({"tcp": tcp_pair, "tls": open_tls, "tiny": tiny}, "maker")
async def test_frames_of_many_tasks_never_mix(
    maker: Callable[[], Awaitable[tuple[Any, Any]]], autojump_clock: object
) -> None:
    """Each task's are in order; half of the tasks are cancelled now and then, and go on."""
    left, right = await maker()
    frames = FramedWriter(BufWriter(left, 50), LENGTHS)
    sent: dict[int, list[bytes]] = {number: [] for number in range(8)}
    received: dict[int, list[bytes]] = {number: [] for number in range(8)}

    async def send(number: int) -> None:
        for turn in range(20):
            payload = b"%d %d " % (number, turn) + bytes(number * 13)
            with trio.CancelScope() as scope:
                if number % 2 and turn % 3 == 0:
                    scope.cancel()
                    current_budget().left = 0
                await frames.send(payload)
            if not scope.cancelled_caught:
                sent[number].append(payload)

    async def receive() -> None:
        async for frame in FramedReader(right, LENGTHS):
            received[int(frame[:1])].append(frame)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        async with frames, trio.open_nursery() as senders:
            for number in sent:
                senders.start_soon(send, number)
    assert received == sent
    assert 100 < sum(map(len, sent.values())) < 160
    await trio.aclose_forcefully(right)


@pytest.mark.parametrize("size", [5, 5000])
@pytest.mark.parametrize("capacity", [1, 40])
async def test_cancelled_anywhere_a_frame_is_whole_or_withdrawn(capacity: int, size: int) -> None:
    """Tokio #5310, PR 6417: there the message itself is lost."""
    payloads = [bytes([65 + number]) * size for number in range(4)]

    async def scenario(sweep: Sweep) -> None:
        writer, reader = simplex(max(size // 2, 4))
        frames = FramedWriter(BufWriter(writer, capacity), LENGTHS)
        accepted = 0
        received: list[bytes] = []

        async def receive() -> None:
            received.extend([frame async for frame in FramedReader(reader, LENGTHS)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with sweep:
                for payload in payloads:
                    await frames.send(payload)
                    accepted += 1
                await frames.flush()
            for payload in payloads[accepted:]:
                await frames.send(payload)
            await frames.aclose()
        assert received == payloads

    assert await cancel_everywhere(scenario) > 5


async def test_an_accepted_frame_is_completed_by_the_next_operation() -> None:
    frames, reader = pair(4)
    await frames.send(b"abcdef")
    assert frames.writer.held_bytes == 3
    run = await run_cancelled(partial(frames.send, b"gh"))
    assert run.outcome == "cancelled"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(frames.flush)
        assert await reader.receive_some(100) == b"abcd"
    assert await end(frames, reader) == b"ef\n"


async def test_a_small_frame_overtakes_nobody() -> None:
    """Though the buffer has room for it: neither the rest of a frame, nor a task in the line."""
    stream, below = simplex(4)
    frames, reader = FramedWriter(BufWriter(stream, 20), LINES), BufReader(below)
    await frames.send(b"x" * 30)
    assert (frames.writer.held_bytes, frames.writer.inner.spare_capacity) == (27, 20)
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, partial(frames.send, b"a"))
        second = await begin(nursery, partial(frames.send, b"b"))
        first.scope.cancel()
        await begin(nursery, frames.flush)
        assert await reader.receive_exactly(33) == b"x" * 30 + b"\nb\n"
    assert (first.outcome, second.outcome) == ("cancelled", "returned None")
    await frames.send(b"c")
    assert await end(frames, reader) == b"c\n"


async def test_frames_of_any_size_have_their_length_in_front() -> None:
    """Also beyond the number of fields that a codec keeps."""
    cursor = Cursor()
    frames = FramedWriter(BufWriter(cursor), codec := LengthDelimitedCodec())
    payloads = [bytes(size) for size in range(600)] * 2
    for payload in payloads[:600]:
        await frames.send(payload)
    await frames.send_many(payloads[600:])
    await frames.flush()
    sent = [struct.pack(">I", len(payload)) + payload for payload in payloads]
    assert cursor.getvalue() == b"".join(sent)
    assert len(codec.headers) < 300
    await frames.aclose()


async def test_a_close_ends_frames_whole() -> None:
    frames, reader = pair(4)
    await frames.send(b"abcdef")
    assert await end(frames, reader) == b"abcdef\n"
    with pytest.raises(trio.ClosedResourceError):
        await frames.send(b"x")
    with pytest.raises(trio.ClosedResourceError):
        frames.send_nowait(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await frames.flush()
    await frames.aclose()


async def test_a_task_that_waits_is_told_of_a_close() -> None:
    frames, reader = pair(4)
    await frames.send(b"abcdef")
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(frames.send, b"x"))
        await begin(nursery, frames.aclose)
        assert await drain(reader) == b"abcdef\n"
    assert run.outcome == "ClosedResourceError"


# ---- send_many ---------------------------------------------------------------------------------


@each({"ours": LENGTHS, "a user's": Sized()}, "codec")
async def test_several_frames_go_out_in_order(codec: Any) -> None:
    """SinkExt::send_all."""
    cursor = Cursor()
    frames = FramedWriter(BufWriter(cursor), codec)
    payloads: list[Any] = [b"ab", b"", b"c" * 200]
    await frames.send_many(payloads)
    await frames.send_many(iter(payloads))
    payloads.append(bytearray(b"xyz"))
    await frames.send_many(payloads)
    if codec is LENGTHS:
        payloads.append(bytes(70_000))
        await frames.send_many(payloads)
    await frames.send_many([])
    await frames.aclose()
    sent = [*payloads[:3], *payloads[:3], *payloads[:4], *(payloads if codec is LENGTHS else [])]
    parts = [part for payload in sent for part in codec.encode(bytes(payload))]
    assert cursor.getvalue() == b"".join(parts)


@pytest.mark.parametrize("size", [3, 5000])
async def test_several_frames_are_accepted_together_or_not_at_all(size: int) -> None:
    payloads = [bytes([65 + number]) * size for number in range(3)]

    async def scenario(sweep: Sweep) -> None:
        writer, reader = simplex(size)
        frames = FramedWriter(writer, LINES)
        received: list[bytes] = []

        async def receive() -> None:
            received.extend([frame async for frame in FramedReader(reader, LINES)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            done = 0
            with sweep:
                await frames.send_many(payloads)
                done = 1
                await frames.send_many(payloads)
                done = 2
            for _ in range(2 - done):
                await frames.send_many(payloads)
            await frames.aclose()
        assert received == payloads * 2

    assert await cancel_everywhere(scenario) > 4


async def test_if_one_cannot_be_encoded_none_is_sent() -> None:
    frames, cursor = buffered()
    for wrong in ([b"a", b"b\n"], [b"a", "b"], b"abc", "abc", [bytes(5000), bytes(70_000)]):
        with pytest.raises((ValueError, TypeError)):
            await frames.send_many(wrong)  # type: ignore[arg-type]
    await frames.aclose()
    assert cursor.getvalue() == b""


# ---- send_nowait ---------------------------------------------------------------------------------


async def test_at_once_or_not_at_all() -> None:
    """MemorySendChannel.send_nowait."""
    frames, reader = pair(6)
    frames.send_nowait(b"ab")
    frames.send_nowait(memoryview(b"cdefgh"))  # begun, so accepted
    for _ in range(2):
        with pytest.raises(trio.WouldBlock) as caught:
            frames.send_nowait(b"x")
        assert not isinstance(caught.value, NotReady)
    assert await reader.receive_some(100) == b"ab\ncde"
    frames.send_nowait(b"i")
    assert await end(frames, reader) == b"fgh\ni\n"


async def test_nobody_who_waits_is_overtaken() -> None:
    writer, reader = simplex(4)
    frames = FramedWriter(writer, LINES)
    await frames.send(b"abcdef")
    async with trio.open_nursery() as nursery:
        await begin(nursery, partial(frames.send, b"1"))
        assert reader.poll_read(100) == b"abcd"  # there is room, and nobody was woken yet
        with pytest.raises(trio.WouldBlock):
            frames.send_nowait(b"2")
        await wait_all_tasks_blocked()
        assert await reader.receive_some(100) == b"ef\n1"
    frames.send_nowait(b"2")
    assert await end(frames, reader) == b"\n2\n"


# ---- What is refused -----------------------------------------------------------------------------


@each({"text": "a", "several": [b"a"], "number": 7, "gaps": memoryview(bytes(9))[::2]}, "wrong")
async def test_a_frame_is_bytes_like(wrong: Any) -> None:
    frames, cursor = buffered()
    for _ in range(2):
        with pytest.raises((TypeError, BufferError)):
            await frames.send(wrong)
        with pytest.raises((TypeError, BufferError)):
            frames.send_nowait(wrong)
    await frames.send(b"a")
    await frames.aclose()
    assert cursor.getvalue() == b"a\n"


async def test_what_cannot_be_encoded_is_refused_and_breaks_nothing() -> None:
    """Tokio #5080."""
    cursor = Cursor()
    frames = FramedWriter(cursor, LengthDelimitedCodec(1))
    for send in (frames.send, frames.send_nowait):
        for size in (256, 5000):
            with pytest.raises(ValueError, match="larger than max_size, 255"):
                await send(bytes(size))  # type: ignore[misc]
    await frames.send(b"a")
    assert cursor.getvalue() == b"\1a"
    await frames.aclose()


@each(
    {
        "bytes": b"abc",
        "nothing": [],
        "empty": [b""],
        "text": ["a"],
        "None": None,
        "iterator": map(bytes, [[1]] * 99),  # a look at it uses it up
        "set": {b"a"},
    },
    "answer",
)
async def test_a_codec_whose_parts_are_none_is_named(answer: Any) -> None:
    class Liar:
        def encode(self, frame: object) -> Any:
            return answer

    frames = FramedWriter(Cursor(), Liar())  # type: ignore[arg-type]
    for payload in (b"a", bytes(5000), bytearray(3)):
        with pytest.raises(TypeError, match=r"Liar.encode\(\) must return a sequence of bytes"):
            await frames.send(payload)
        with pytest.raises(TypeError, match="together at least one byte, it returned"):
            frames.send_nowait(payload)
    assert frames.writer.lifecycle.refusal is None
    await frames.aclose()


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (LinesCodec, "the class LinesCodec: give an instance"),
        (7, r"codec with encode\(\), got int"),
        ("lines", r"codec with encode\(\), got str"),
    ],
)
def test_a_codec_is_a_codec(codec: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        FramedWriter(Cursor(), codec)


def test_it_is_over_a_stream() -> None:
    with pytest.raises(TypeError, match="SendStream"):
        FramedWriter(b"", LINES)  # type: ignore[arg-type]


# ---- Failures, and writers that break their word -------------------------------------------------


async def test_a_peer_that_is_gone_breaks_it() -> None:
    left, right = await tcp_pair()
    frames = FramedWriter(left, LENGTHS)
    reset(right)
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await frames.send(bytes(10_000))
    for send in (frames.send, frames.send_nowait):
        with pytest.raises(trio.BrokenResourceError, match="failed before"):
            await send(b"x")  # type: ignore[misc]
    with contextlib.suppress(trio.BrokenResourceError), resource_warnings():
        await frames.aclose()


async def test_an_unfinished_buf_of_the_buffer_below_stands_in_the_way() -> None:
    writer, reader = simplex(10)
    buffer = BufWriter(writer, 100)
    frames = FramedWriter(buffer, LINES)
    await frames.send(b"abc")
    await frames.flush()
    buf = Buf(bytes(500))
    await cut_short(partial(buffer.write_all_buf, buf))
    for size in (1, 5000):
        with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
            await frames.send(bytes(size))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            assert await drain(reader) == b"abc\n" + bytes(500) + b"d\n"

        await buffer.write_all_buf(buf)
        await frames.send(b"d")
        await frames.aclose()


async def test_a_buffer_that_cannot_be_sent_breaks_it() -> None:
    writer, reader = simplex(10)
    frames = FramedWriter(BufWriter(writer, 100), LINES)
    await frames.send(b"abc")
    await reader.aclose()
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(100):
            await frames.send(b"abc")
    with pytest.raises(trio.BrokenResourceError, match="failed before"):
        await frames.send(b"abc")
    with resource_warnings():
        await trio.aclose_forcefully(frames.writer)


async def test_over_a_writer_that_takes_a_byte_at_a_time() -> None:
    cursor = Cursor()
    frames = FramedWriter(OneByteWriter(cursor), LINES)
    for payload in (b"abc", b"", bytes(5000)):
        await frames.send(payload)
        await frames.flush()
        frames.send_nowait(payload[:3])
    await frames.aclose()
    assert cursor.getvalue() == b"abc\nabc\n\n\n" + bytes(5000) + b"\n" + bytes(3) + b"\n"


# ---- Endings -------------------------------------------------------------------------------------


@both
async def test_a_draining_server_sends_what_a_handler_has_forgotten(tls: bool) -> None:
    server = Server(tls=tls, timeout=5, linger=5)

    async def handler(stream: trio.abc.Stream) -> None:
        frames = FramedWriter(BufWriter(stream), LINES)
        await frames.send(b"forgotten")

    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery)
        client = await server.connect()
        assert [frame async for frame in FramedReader(client, LINES)] == [b"forgotten"]
        await client.aclose()
        server.drain.start()
    assert server.report.outcomes == {CLEAN: 1}


async def test_close_gracefully_and_graceful_take_its_writer() -> None:
    for buffer in (partial(BufWriter, capacity=100), lambda stream: stream):
        left, right = await tcp_pair()
        frames = FramedWriter(buffer(left), LENGTHS)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                received = [frame async for frame in FramedReader(right, LENGTHS)]  # noqa: B023
                assert received == [b"a", bytes(100_000)]
                await right.aclose()  # noqa: B023

            async with graceful(frames.writer) as ending:
                await frames.send(b"a")
                await frames.send(bytes(100_000))
        assert ending.report.outcome is CLEAN
        with pytest.raises(trio.ClosedResourceError):
            await frames.send(b"x")
    with pytest.raises(TypeError, match=r"got FramedWriter: give its \.writer"):
        await close_gracefully(frames)  # type: ignore[arg-type]


async def test_an_aclose_of_the_stream_below_sends_what_is_held() -> None:
    writer, reader = simplex(4)
    frames = FramedWriter(BufWriter(writer, 100), LINES)
    await frames.send(b"abcdef")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.aclose)
        assert await drain(reader) == b"abcdef\n"
    with pytest.raises(trio.ClosedResourceError):
        await frames.send(b"x")


async def test_a_block_that_raises_does_not_wait_for_the_peer() -> None:
    writer, reader = simplex(4)
    with resource_warnings() as messages, pytest.raises(ZeroDivisionError), trio.fail_after(5):
        async with FramedWriter(writer, LINES) as frames:
            await frames.send(b"abcdef")
            raise ZeroDivisionError
    assert len(messages) == 1
    with pytest.raises(trio.BrokenResourceError):
        await drain(reader)


async def test_a_dropped_channel_is_freed_at_once() -> None:
    gc.disable()
    try:
        for codec in (LINES, Sized()):
            writer, _ = simplex(100)
            frames = FramedWriter(BufWriter(writer), codec)  # type: ignore[arg-type]
            await frames.send(b"abc")
            await frames.flush()
            gone = weakref.ref(frames.writer)
            del frames
            assert gone() is None
            await writer.aclose()
    finally:
        gc.enable()


async def test_it_goes_wherever_trio_takes_a_channel() -> None:
    async def feed(channel: trio.abc.SendChannel[bytes]) -> None:
        async with channel:
            for number in range(3):
                await channel.send(b"%d" % number)

    writer, reader = simplex(100)
    await feed(FramedWriter(TimeoutWriter(BufWriter(writer), idle=60), DelimiterCodec(b";")))
    assert await drain(reader) == b"0;1;2;"


async def test_an_abort_of_its_writer_drops_what_is_held() -> None:
    frames, reader = pair(4)
    await frames.send(b"abcdef")
    await abort(frames.writer)
    with pytest.raises(trio.BrokenResourceError):
        await drain(reader)


def test_in_another_run_it_goes_on() -> None:
    cursor = Cursor()
    frames = FramedWriter(BufWriter(cursor), LINES)
    for payload in (b"a", b"b"):
        trio.run(frames.send, payload)
    trio.run(frames.aclose)
    assert cursor.getvalue() == b"a\nb\n"
