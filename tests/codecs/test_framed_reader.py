"""Receiving frames: every split, every end, hostile peers, and codecs that lie."""

from __future__ import annotations

import gc
import struct
import tracemalloc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.lowlevel
import trio.testing
from hypothesis import given, settings, strategies as st

from trio_asyncwrite import AsyncRead, BufReader, NotReady, ReadWritePair, duplex, simplex
from trio_asyncwrite._core._budget import current_budget
from trio_asyncwrite.codecs import (
    Codec,
    DelimiterCodec,
    Frame,
    FramedReader,
    LengthDelimitedCodec,
    LinesCodec,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._streams import drain, pipe_pair, reset, tcp_pair
from .._tls_helpers import open_tls
from ..core._fakes import Source, begin, cut_short, each

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LENGTHS = LengthDelimitedCodec()
LINES = LinesCodec()
NULLS = DelimiterCodec(b"\0")
CRLF = DelimiterCodec(b"\r\n")


def from_chunks(codec: Codec, *chunks: bytes | BaseException) -> FramedReader:
    return FramedReader(Source(*chunks), codec)


#: The two ways to the next frame.
WAYS: dict[str, Callable[[FramedReader], Awaitable[bytes]]] = {
    "receive": lambda frames: frames.receive(),
    "async for": lambda frames: frames.__anext__(),
}


async def all_of(frames: FramedReader) -> list[bytes]:
    return [frame async for frame in frames]


class Plain:
    """A codec of ours as a user would write it: only what every codec has."""

    def __init__(self, codec: Any) -> None:
        self.locate = codec.locate
        if hasattr(codec, "locate_eof"):
            self.locate_eof = codec.locate_eof


class Says:
    """A codec that answers as it is told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def locate(self, buffer: bytearray, start: int) -> Any:
        return self.say(buffer) if buffer else 1

    def say(self, buffer: bytearray) -> Any:
        return self.answer(buffer) if callable(self.answer) else self.answer


# ---- Frames, however they come -------------------------------------------------------------------

WIRES: dict[str, tuple[Any, bytes, list[bytes]]] = {
    "lengths": (
        LENGTHS,
        b"\0\0\0\3abc\0\0\0\0\0\0\0\1d\0\0\1\0" + bytes(256),
        [b"abc", b"", b"d", bytes(256)],
    ),
    "little-endian": (LengthDelimitedCodec(2, "little"), b"\2\0ab\1\0c", [b"ab", b"c"]),
    "counting itself": (LengthDelimitedCodec(1, adjust=-1), b"\3ab\1\2c", [b"ab", b"", b"c"]),
    "lines": (LINES, b"ab\r\n\n\r\nc\rd\ne\r\nlast", [b"ab", b"", b"", b"c\rd", b"e", b"last"]),
    "CRLF": (CRLF, b"ab\r\n\r\nc\rd\ne\r\r\n", [b"ab", b"", b"c\rd\ne\r"]),
    "nulls": (NULLS, b"ab\0\0c\0", [b"ab", b"", b"c"]),
}
CODECS: dict[str, Callable[[Any], Any]] = {"ours": lambda codec: codec, "plain": Plain}


@each(CODECS, "kind")
@each(WIRES, "wire")
async def test_frames_may_be_split_anywhere(wire: Any, kind: Callable[[Any], Any]) -> None:
    r"""Every split in two, and byte by byte; "\r\n" over two reads is one end."""
    codec, data, expected = wire
    for cut in range(len(data) + 1):
        chunks = [data[:cut], data[cut:], b""]
        frames = from_chunks(kind(codec), *filter(None, chunks), b"")
        assert await all_of(frames) == expected
    frames = from_chunks(kind(codec), *[data[i : i + 1] for i in range(len(data))], b"")
    assert await all_of(frames) == expected
    with pytest.raises(trio.EndOfChannel):
        await frames.receive()


@given(st.data())
@settings(max_examples=40)
def test_many_frames_in_any_pieces(data: st.DataObject) -> None:
    """Also while somebody takes bytes out of the reader between two frames, or puts some back."""
    name = data.draw(st.sampled_from(["lengths", "lines", "nulls"]))
    codec = {"lengths": LENGTHS, "lines": LINES, "nulls": NULLS}[name]
    size = data.draw(st.sampled_from([None, 0, 3]))  # any sizes, or one
    texts = st.text("ab", min_size=size or 0, max_size=9 if size is None else size)
    payloads = data.draw(st.lists(texts.map(str.encode), max_size=20))
    wire = b"".join(part for payload in payloads for part in codec.encode(payload))
    chunks, start = [], 0
    while start < len(wire):
        piece = data.draw(st.integers(1, 100))
        chunks.append(wire[start : start + piece])
        start += piece
    actions = st.sampled_from(["receive", "next", "now", "bytes", "back", "look"])

    async def main() -> None:
        frames = from_chunks(codec, *chunks, b"")
        reader = frames.reader
        position = 0
        rest = payloads
        while rest:
            encoded = b"".join(codec.encode(rest[0]))
            assert reader.position <= position or reader.position == position
            action = data.draw(actions)
            if action == "receive":
                assert await frames.receive() == rest[0]
            elif action == "next":
                assert await frames.__anext__() == rest[0]
            elif action == "now":
                try:
                    assert frames.receive_nowait() == rest[0]
                except trio.WouldBlock:
                    continue
            elif action == "bytes":
                assert await reader.receive_exactly(len(encoded)) == encoded
            elif action == "back":
                assert await reader.receive_exactly(len(encoded)) == encoded
                reader.unread(encoded)
                continue
            else:
                there = reader.peek()
                assert wire[position:].startswith(there)
                assert reader.remaining == len(there)
                continue
            position += len(encoded)
            rest = rest[1:]
            assert reader.position == position
        with pytest.raises(trio.EndOfChannel):
            await frames.receive()
        assert await all_of(frames) == []

    trio.run(main)


async def test_two_channels_over_one_reader() -> None:
    """A codec for the greeting, and another one from then on; what was found ahead is not lost."""
    reader = BufReader(Source(b"a\nb\n\0\0\0\1\n\0\0\0\1xc\n", b""))
    lines, lengths = FramedReader(reader, LINES), FramedReader(reader, LENGTHS)
    assert lines.reader is reader
    assert await lines.receive() == b"a"
    assert await lines.receive() == b"b"
    assert await lengths.receive() == b"\n"
    assert await lengths.receive() == b"x"
    assert await lines.receive() == b"c"
    with pytest.raises(trio.EndOfChannel):
        await lengths.receive()


async def test_leftovers_are_in_the_reader() -> None:
    frames = from_chunks(LINES, b"upgrade\nok\n\x16\x03raw", b"more", b"")
    assert await frames.receive() == b"upgrade"
    assert await frames.receive() == b"ok"
    assert frames.reader.peek() == b"\x16\x03raw"
    assert frames.reader.position == len(b"upgrade\nok\n")
    assert await drain(frames.reader) == b"\x16\x03rawmore"
    assert type(frames.reader) is BufReader
    assert frames.codec is LINES
    assert repr(frames) == "<FramedReader of <LinesCodec: max_size=65536> over <Source>>"


async def test_who_looks_into_the_buffer_after_each_frame_does_not_find_all_again() -> None:
    found = 0

    def locate_all(data: bytes) -> tuple[list[bytes], int]:
        nonlocal found
        found += 1
        return LINES.locate_all(data)

    frames = from_chunks(codec := LinesCodec(), b"x\n" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "locate_all", locate_all)
        for left in reversed(range(100)):
            assert await frames.receive() == b"x"
            assert frames.reader.remaining == 2 * left
    assert found == 1
    with pytest.raises(AttributeError):
        frames.reader.buffer.unknown  # type: ignore[attr-defined]  # noqa: B018


async def test_a_message_that_comes_byte_by_byte_is_searched_once() -> None:
    """Tokio's next_index: or the time is quadratic."""
    starts: list[int] = []

    class Counting:
        def locate(self, buffer: bytearray, start: int) -> Frame | int:
            starts.append(len(buffer) - start)
            return LINES.locate(buffer, start)

    frames = from_chunks(Counting(), *[b"x"] * 300, b"\n", b"y\n")  # type: ignore[arg-type]
    assert await frames.receive() == b"x" * 300
    assert await frames.receive() == b"y"
    assert max(starts) == 2


async def test_what_somebody_else_has_put_back_is_searched() -> None:
    frames = from_chunks(LINES, b"abc")
    await cut_short(frames.receive)
    frames.reader.advance(3)
    frames.reader.unread(b"d\ne")
    assert await frames.receive() == b"d"


@each(WAYS, "receive")
async def test_buffered_frames_make_no_trip_to_the_scheduler_within_the_budget(
    receive: Callable[[FramedReader], Awaitable[bytes]],
) -> None:
    frames = from_chunks(LENGTHS, *[(b"\0\0\0\1x" * 640)] * 2)
    steps = 0

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal steps
            steps += 1

    await receive(frames)
    instrument = Steps()
    trio.lowlevel.add_instrument(instrument)
    for _ in range(1279):
        await receive(frames)
    trio.lowlevel.remove_instrument(instrument)
    assert 9 <= steps <= 11


@each(WAYS, "receive")
async def test_cancelled_with_the_budget_spent_it_has_consumed_nothing(
    receive: Callable[[FramedReader], Awaitable[bytes]],
) -> None:
    frames = from_chunks(LENGTHS, b"\0\0\0\1x" * 100)
    await receive(frames)
    current_budget().left = 0
    with trio.CancelScope() as scope:
        scope.cancel()
        await receive(frames)
    assert scope.cancelled_caught
    assert frames.reader.remaining == 5 * 99
    assert await receive(frames) == b"x"
    assert frames.reader.position == 5 * 2


@each(WAYS, "receive")
async def test_a_close_during_a_checkpoint_of_the_budget_is_seen(
    receive: Callable[[FramedReader], Awaitable[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = from_chunks(LENGTHS, b"\0\0\0\1x" * 100)
    await receive(frames)

    async def checkpoint() -> None:
        monkeypatch.undo()
        await frames.aclose()

    monkeypatch.setattr(trio.lowlevel, "checkpoint", checkpoint)
    current_budget().left = 0
    with pytest.raises(trio.ClosedResourceError):
        await receive(frames)
    assert frames.reader.remaining == 5 * 99


@each(WAYS, "receive")
async def test_who_comes_during_a_checkpoint_of_the_budget_is_not_disturbed(
    receive: Callable[[FramedReader], Awaitable[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = from_chunks(LENGTHS, b"\0\0\0\1x" * 100)
    await receive(frames)
    async with trio.open_nursery() as nursery:

        async def checkpoint() -> None:
            monkeypatch.undo()
            nonlocal other
            other = await begin(nursery, partial(frames.reader.receive_exactly, 5 * 99 + 1))

        other: Any = None
        monkeypatch.setattr(trio.lowlevel, "checkpoint", checkpoint)
        current_budget().left = 0
        with pytest.raises(trio.BusyResourceError):
            await receive(frames)
        source = frames.reader.inner
        assert isinstance(source, Source)
        source.feed(b"y")
    rest = b"\0\0\0\1x" * 99 + b"y"
    assert other.outcome == f"returned {rest!r}"


async def test_reading_on_after_the_own_direction_has_ended() -> None:
    ours, theirs = duplex(10_000)
    frames = FramedReader(ours, LENGTHS)
    await theirs.send_all(b"\0\0\0\1x" * 300)
    await ours.send_eof()
    for _ in range(300):
        assert await frames.receive() == b"x"
    await ours.aclose()
    await theirs.aclose()


# ---- Cancellation --------------------------------------------------------------------------------


async def lockstep() -> tuple[Any, Any]:
    return trio.testing.lockstep_stream_one_way_pair()


async def memory() -> tuple[Any, Any]:
    return simplex(7)


@each(
    {
        "memory": memory,
        "lockstep": lockstep,
        "tcp": tcp_pair,
        "tls": open_tls,
        "pipe": pipe_pair,
    },
    "maker",
)
async def test_cancelled_anywhere_nothing_is_lost(
    maker: Callable[[], Awaitable[tuple[Any, Any]]],
) -> None:
    """Tokio's read_exact and #5310."""
    payloads = [b"", b"first", b"x" * 40, b"last", b"", b"y"]
    wire = b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads)

    async def scenario(sweep: Sweep) -> None:
        left, right = await maker()
        frames = FramedReader(right, LENGTHS)
        received: list[bytes] = []

        async def receive() -> None:
            while True:
                try:
                    received.append(await frames.receive())
                except trio.EndOfChannel:
                    return

        async def send() -> None:
            for start in range(0, len(wire), 11):
                await left.send_all(wire[start : start + 11])
            await left.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with sweep:
                await receive()
            await receive()
        assert received == payloads
        await frames.aclose()

    assert await cancel_everywhere(scenario) > 8


# ---- The end, and failures -----------------------------------------------------------------------


@each(CODECS, "kind")
async def test_the_end_within_a_frame_is_broken(kind: Callable[[Any], Any]) -> None:
    """Tokio's decode_eof: "bytes remaining on stream"."""
    for codec, data in (
        (LENGTHS, b"\0\0"),
        (LENGTHS, b"\0\0\0\5abc"),
        (LengthDelimitedCodec(2), b"\0"),
        (NULLS, b"abc"),
        (CRLF, b"abc\r"),
    ):
        frames = from_chunks(kind(codec), *[b"".join(codec.encode(b"ok"))] * 2, data, b"")
        assert await frames.receive() == b"ok"
        assert await frames.receive() == b"ok"
        for _ in range(2):
            with pytest.raises(
                trio.BrokenResourceError, match=f"within a frame, after {len(data)}"
            ):
                await frames.receive()
        assert await drain(frames.reader) == data
        with pytest.raises(trio.EndOfChannel):
            await frames.receive()


@each(CODECS, "kind")
async def test_the_last_line_needs_no_end(kind: Callable[[Any], Any]) -> None:
    r"""Tokio #2331; a lone "\r" is no line."""
    for rest, expected in ((b"a", [b"a"]), (b"a\r", [b"a"]), (b"\r", []), (b"", [])):
        frames = from_chunks(kind(LINES), b"x\ny\n", *filter(None, [rest]), b"")
        assert await all_of(frames) == [b"x", b"y", *expected]
        assert await all_of(frames) == []


@each(CODECS, "kind")
@each(
    {
        "length": (LengthDelimitedCodec(max_size=3), b"\0\0\0\4", b"abc"),
        "all at once": (LengthDelimitedCodec(max_size=3), b"\0\0\0\4abcd", b"\0\0\0\1a"),
        "adjusted": (LengthDelimitedCodec(adjust=-4), b"\0\0\0\3", b"abc"),
        "line": (LinesCodec(3), b"abcd", b"\nabc\n"),
        "last line": (LinesCodec(3), b"abcd", b""),
        "delimiter": (DelimiterCodec(b"\0", 3), b"abcde", b"\0"),
    },
    "wire",
)
async def test_a_frame_that_is_too_large_breaks_the_channel(
    wire: Any, kind: Callable[[Any], Any]
) -> None:
    """Tokio #3555: no resynchronising; what came can still be read."""
    codec, bad, more = wire
    good = b"".join(codec.encode(b"ok"))
    frames = from_chunks(kind(codec), good * 3 + bad, more, b"")
    for _ in range(3):
        assert await frames.receive() == b"ok"
    with pytest.raises(trio.BrokenResourceError, match=r"max_size|with adjust"):
        await frames.receive()
    for receive in (frames.receive, frames.receive_nowait):
        with pytest.raises(trio.BrokenResourceError, match="has failed before") as caught:
            await receive()  # type: ignore[misc]
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
    assert await drain(frames.reader) == bad + more


async def test_what_came_before_a_failure_is_received() -> None:
    frames = from_chunks(LINES, b"a\nb\nc", OSError("gone"))
    assert await frames.receive() == b"a"
    assert await frames.receive() == b"b"
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="gone"):
            await frames.receive()
    assert frames.reader.peek() == b"c"


async def test_a_reset_is_no_end() -> None:
    left, right = await tcp_pair()
    frames = FramedReader(right, LINES)
    await left.send_all(b"a\nhalf a line")
    assert await frames.receive() == b"a"
    reset(left)
    with pytest.raises(trio.BrokenResourceError):
        await frames.receive()
    await frames.aclose()


# ---- Hostile peers -------------------------------------------------------------------------------


async def test_memory_grows_with_what_arrives_and_not_with_what_is_claimed() -> None:
    """Tokio PR 590, 632: 8 MiB are claimed, and a few bytes come."""
    source = Source(struct.pack(">I", 8 << 20) + b"some")
    frames = FramedReader(source, LENGTHS)
    tracemalloc.start()
    try:
        await cut_short(frames.receive)
        for _ in range(100):
            source.feed(b"a byte")
            await cut_short(frames.receive)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert max(source.sizes) <= 65536


@each({"lines": LINES, "delimiter": CRLF}, "codec")
async def test_a_frame_without_an_end_is_given_up(codec: Any) -> None:
    class Endless(AsyncRead):
        given = 0

        def poll_read(self, size: int, /) -> bytes:
            self.given += size
            return bytes(size)

    source = Endless()
    frames = FramedReader(source, codec)
    with pytest.raises(trio.BrokenResourceError, match="max_size"):
        await frames.receive()
    assert source.given <= 2 * 65536


async def test_a_source_that_is_always_ready_lets_others_run() -> None:
    frames = from_chunks(LengthDelimitedCodec(max_size=1 << 30), b"\0\0\x20\0", *[b"x"] * 8192)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert len(await frames.receive()) == 8192
        nursery.cancel_scope.cancel()
    assert turns > 100


async def test_large_frames_are_received_and_leave_no_memory() -> None:
    payload = bytes(1 << 20)
    wire = struct.pack(">I", len(payload)) + payload
    frames = from_chunks(LENGTHS, wire + wire + b"\0\0\0\1x", b"")
    assert [len(frame) for frame in await all_of(frames)] == [1 << 20, 1 << 20, 1]
    assert frames.reader.remaining == 0
    assert frames.reader.buffer.data.__alloc__() == 0


# ---- Codecs that lie -----------------------------------------------------------------------------


async def coroutine() -> None: ...


LIES: dict[str, tuple[Any, type[Exception], str]] = {
    "None": (None, TypeError, "must return a Frame, or the number of bytes to fetch, it returned"),
    "bool": (True, TypeError, "it returned True"),
    "float": (9.0, TypeError, "it returned 9.0"),
    "coroutine": (lambda _: coroutine(), TypeError, "a coroutine"),
    "a tuple": ((0, 1, 1), RuntimeError, r"\(0, 1, 1\) does not lie in the 3 bytes"),
    "too few": (3, RuntimeError, "3 is not more than the 3 in the buffer"),
    "negative": (-1, RuntimeError, "-1 is not more than the 3"),
    "beyond": (Frame(0, 3, 4), RuntimeError, "does not lie in the 3 bytes"),
    "backwards": (Frame(2, 1, 3), RuntimeError, "does not lie in"),
    "before": (Frame(-1, 1, 3), RuntimeError, "does not lie in"),
    "nothing": (Frame(0, 0, 0), RuntimeError, "does not lie in"),
    "no numbers": (Frame("a", "b", "c"), RuntimeError, "does not lie in"),  # type: ignore[arg-type]
    "a mistake": (lambda _: 1 // 0, ZeroDivisionError, "division"),
}


@each(LIES, "lie")
async def test_a_codec_that_makes_no_sense_is_named(lie: Any) -> None:
    answer, error, text = lie
    frames = from_chunks(Says(answer), b"abc")  # type: ignore[arg-type]
    with pytest.raises(error, match=text) as caught:
        await frames.receive()
    assert error is ZeroDivisionError or "Says.locate()" in str(caught.value)
    with pytest.raises(trio.BrokenResourceError, match="has failed before") as again:
        await frames.receive()
    assert isinstance(again.value.__cause__, error)
    assert again.value.__cause__.__traceback__ is None
    assert frames.reader.peek() == b"abc"


class SaysAtEnd(Says):
    def locate(self, buffer: bytearray, start: int) -> int:
        return len(buffer) + 1

    def locate_eof(self, buffer: bytearray, start: int) -> Any:
        return self.say(buffer)


@each(
    {
        "None": (None, trio.EndOfChannel, "^$"),
        "more": (9, trio.BrokenResourceError, "ended within a frame, after 3 bytes"),
        "too few": (3, RuntimeError, r"SaysAtEnd.locate_eof\(\) must return"),
        "beyond": (Frame(0, 3, 4), RuntimeError, r"SaysAtEnd.locate_eof\(\) must return"),
        "text": ("abc", TypeError, "it returned 'abc'"),
        "a mistake": (lambda _: 1 // 0, ZeroDivisionError, "division"),
    },
    "answer",
)
async def test_what_a_codec_says_at_the_end(answer: Any) -> None:
    says, error, text = answer
    frames = from_chunks(SaysAtEnd(says), b"abc", b"")  # type: ignore[arg-type]
    with pytest.raises(error, match=text):
        await frames.receive()
    with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
        await frames.receive()


async def test_a_view_that_a_codec_keeps_loses_no_bytes() -> None:
    kept: list[memoryview] = []

    class Keeping:
        def locate(self, buffer: bytearray, start: int) -> Frame | int:
            kept.append(memoryview(buffer))
            return LINES.locate(buffer, start)

    frames = from_chunks(Keeping(), b"a\nb", b"c", b"\nd\n")  # type: ignore[arg-type]
    assert await frames.receive() == b"a"
    assert await frames.receive() == b"bc"
    kept.append(memoryview(frames.reader.buffer.data))
    frames.reader.unread(b"x")
    assert await frames.receive() == b"xd"


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (LinesCodec, "the class LinesCodec: give an instance"),
        (7, r"codec with locate\(\), got int"),
    ],
)
def test_a_codec_is_a_codec(codec: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        FramedReader(Source(), codec)


def test_it_is_over_a_stream() -> None:
    with pytest.raises(TypeError):
        FramedReader(b"", LINES)  # type: ignore[arg-type]


# ---- Tasks, closing, dropping --------------------------------------------------------------------


async def test_at_once_or_not_at_all() -> None:
    """MemoryReceiveChannel.receive_nowait."""
    source = Source(b"a\nb\nc")
    frames = FramedReader(source, LINES)
    assert frames.receive_nowait() == b"a"
    assert frames.receive_nowait() == b"b"
    with pytest.raises(trio.WouldBlock) as caught:
        frames.receive_nowait()
    assert not isinstance(caught.value, NotReady)
    source.feed(b"\n", b"")
    assert frames.receive_nowait() == b"c"
    with pytest.raises(trio.EndOfChannel):
        frames.receive_nowait()


@each({"lines": LINES, "length": LengthDelimitedCodec()})
async def test_at_once_however_large_it_is_or_in_how_many_pieces(operation: Codec) -> None:
    """A poll lets other tasks run after a while; that is not to say that nothing has arrived."""
    codec = operation
    large = b"x" * 3_000_000 if codec is not LINES else b"x" * 60_000
    wire = b"".join(map(bytes, codec.encode(large)))
    writer, reader = simplex(1 << 22)
    await writer.write_all(wire)
    assert FramedReader(reader, codec).receive_nowait() == large
    await trio.aclose_forcefully(writer)

    wire = b"".join(map(bytes, codec.encode(b"y" * 5000)))
    frames = FramedReader(Source(*(bytes([byte]) for byte in wire[:-1])), codec)
    with pytest.raises(trio.WouldBlock):
        frames.receive_nowait()
    assert frames.reader.peek() == wire[:-1]
    frames.reader.inner.feed(wire[-1:])  # type: ignore[attr-defined]
    assert frames.receive_nowait() == b"y" * 5000


async def test_at_once_it_is_not_there_if_the_reader_below_only_yields() -> None:
    class Yields(AsyncRead):
        def poll_read(self, size: int, /) -> bytes:
            raise NotReady(trio.lowlevel.checkpoint)

    with pytest.raises(trio.WouldBlock):
        FramedReader(Yields(), LINES).receive_nowait()


async def test_a_second_task_is_refused_and_the_first_goes_on() -> None:
    source = Source(b"a\nb\nc\nd")
    frames = FramedReader(source, LINES)
    assert [await frames.receive() for _ in range(3)] == [b"a", b"b", b"c"]
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, frames.receive)
        for receive in (frames.receive, frames.receive_nowait, frames.reader.receive_some):
            with pytest.raises(trio.BusyResourceError):
                await receive()  # type: ignore[misc]
        source.feed(b"\n")
    assert first.outcome == "returned b'd'"


@each({"the channel": lambda frames: frames, "the stream": lambda frames: frames.reader.inner})
async def test_a_close_ends_a_call_and_refuses_the_next(operation: Any) -> None:
    writer, reader = simplex(100)
    await writer.send_all(b"a\nb\nc\nd\n")
    frames = FramedReader(reader, LINES)
    assert [await frames.receive() for _ in range(2)] == [b"a", b"b"]
    await operation(frames).aclose()
    for receive in (frames.receive, frames.receive_nowait):
        with pytest.raises(trio.ClosedResourceError):
            await receive()  # type: ignore[misc]
    assert frames.reader.peek() == b"c\nd\n"
    await trio.aclose_forcefully(writer)

    writer, reader = simplex(100)
    frames = FramedReader(reader, LINES)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, frames.receive)
        await operation(frames).aclose()
    assert run.outcome == "ClosedResourceError"
    await trio.aclose_forcefully(writer)


async def test_a_block_that_raises_closes_it_too() -> None:
    _, reader = simplex(100)
    with pytest.raises(ZeroDivisionError):
        async with FramedReader(reader, LINES) as frames:
            raise ZeroDivisionError
    assert frames.reader.closed


async def test_a_dropped_channel_is_freed_at_once_also_with_frames_found_ahead() -> None:
    gc.disable()
    try:
        frames = from_chunks(LINES, b"a\nb\nc\n")
        assert await frames.receive() == b"a"
        gone = weakref.ref(frames.reader)
        del frames
        assert gone() is None
    finally:
        gc.enable()


async def test_it_goes_wherever_trio_takes_a_channel() -> None:
    async def read(channel: trio.abc.ReceiveChannel[bytes]) -> list[bytes]:
        async with channel:
            return [value async for value in channel]

    ours, theirs = duplex(100)
    await theirs.send_all(b"a\nb\n")
    await theirs.send_eof()
    assert await read(FramedReader(ReadWritePair(BufReader(ours), ours), LINES)) == [b"a", b"b"]
    await theirs.aclose()


def test_in_another_run_it_goes_on() -> None:
    frames = from_chunks(LINES, b"a\nb\nc\n", b"d\n")
    for expected in (b"a", b"b", b"c", b"d"):
        assert trio.run(frames.receive) == expected


async def test_whoever_is_called_from_its_close_may_drain_it() -> None:
    writer, reader = simplex(100)
    frames = FramedReader(reader, LINES)
    await writer.send_all(b"a\nb\n")
    drained: list[bytes] = []

    class Above(AsyncRead):
        def __init__(self, inner: AsyncRead) -> None:
            self.inner = inner

        async def release(self, *, clean: bool) -> None:
            drained.append(await frames.receive())
            drained.append(frames.receive_nowait())

    above = Above(frames.reader)
    await above.aclose()
    assert drained == [b"a", b"b"]
    await trio.aclose_forcefully(writer)
