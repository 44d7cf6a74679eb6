"""What a CompressWriter does, whatever its encoder: order, ends, failures, threads."""

from __future__ import annotations

import gc
import socket
import struct
import threading
import weakref
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    BufWriter,
    CloseOutcome,
    Epilogue,
    FilePart,
    NotReady,
    SharedWriter,
    Sink,
    abort,
    close_gracefully,
    duplex,
    graceful,
    simplex,
)
from trio_asyncwrite._core._budget import rate_of
from trio_asyncwrite._core._errors import ClosedRefusal
from trio_asyncwrite._core._lifecycle import Torn
from trio_asyncwrite.compression import CompressWriter, gzip_compressor, zlib_compressor

from .._patience import wait_all_tasks_blocked
from .._streams import tcp_pair
from .._tls_helpers import open_tls
from ..core._fakes import Wire, begin, cut_short, each, resource_warnings, run_cancelled
from ._codecs import GZIP, ZLIB, Decoding, EagerZlib, Stored, decoded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from pathlib import Path

    from trio_asyncwrite import AsyncWrite

LARGE = 300_000


def open_wire() -> Wire:
    return Wire(float("inf"))


# ---- State ---------------------------------------------------------------------------------------


def test_a_poll_takes_32_kib() -> None:
    """Whatever is offered, and as however many buffers."""
    for offer in (
        lambda writer: writer.poll_write(bytes(100_000)),
        lambda writer: writer.poll_write(memoryview(bytearray(100_000))),
        lambda writer: writer.poll_write_vectored([bytes(30_000), b"", bytearray(30_000), b"x"]),
        lambda writer: writer.poll_write_vectored([bytes(1000)] * 1000),
    ):
        stored = Stored()
        writer = CompressWriter(open_wire(), stored)
        assert offer(writer) == 32768
        assert stored.calls == ["compress 32768"]
        writer.poll_flush()


def test_small_buffers_are_encoded_together() -> None:
    stored = Stored()
    wire = open_wire()
    writer = CompressWriter(wire, stored)
    assert writer.poll_write_vectored([b"a", b"", memoryview(b"bc")]) == 3
    assert writer.poll_write_vectored([]) == writer.poll_write(b"") == 0
    assert stored.calls == ["compress 3"]
    writer.poll_flush()
    assert wire.sent == b"abc"


def test_nothing_is_taken_while_output_waits() -> None:
    stored = Stored()
    wire = Wire(1)
    writer = CompressWriter(wire, stored)
    assert writer.poll_write(b"first") == 5
    assert writer.poll_write(b"second") == 6  # the encoder holds one piece
    for poll in (
        partial(writer.poll_write, b"third"),
        partial(writer.poll_write_vectored, [b"third"]),
        writer.poll_ready,
        writer.poll_flush,
        writer.poll_shutdown,
    ):
        with pytest.raises(NotReady):
            poll()
    assert stored.calls == ["compress 5", "compress 6"]
    assert (wire.sent, writer.held_bytes) == (b"f", 11)
    wire.give(float("inf"))
    writer.poll_shutdown()
    assert stored.calls == ["compress 5", "compress 6", "finish"]
    assert wire.sent == b"firstsecond."


def test_a_flush_that_was_begun_ends_before_more_input() -> None:
    """Source: async-compression, PR 327."""
    stored = Stored()
    wire = Wire(0)
    writer = CompressWriter(wire, stored)
    writer.poll_write(b"one")
    with pytest.raises(NotReady):
        writer.poll_flush()
    with pytest.raises(NotReady):
        writer.poll_write(b"two")
    wire.give(3)
    assert writer.poll_write(b"two") == 3
    assert stored.calls == ["compress 3", "flush", "compress 3"]
    assert (wire.sent, writer.held_bytes) == (b"one", 3)
    wire.give(3)
    with pytest.raises(NotReady):
        writer.poll_flush()  # for the flush of the wire
    assert (wire.sent, writer.held_bytes) == (b"onetwo", 0)


def test_a_flush_flushes_what_is_below_and_closes_nothing() -> None:
    """Source: async-compression #455 (not called) and PR 91 (closed instead)."""
    wire = open_wire()
    writer = CompressWriter(BufWriter(wire), EagerZlib())
    writer.poll_write(b"hello")
    writer.poll_flush()
    assert wire.log == ["write", "flush"]
    writer.poll_flush()
    assert wire.log == ["write", "flush", "flush"]


def test_a_flush_after_the_shutdown_began_is_legal_and_a_second_shutdown_too() -> None:
    """Source: async-compression #246, #308."""
    stored = Stored(b"the end")
    wire = Wire(7)
    writer = CompressWriter(wire, stored)
    writer.poll_write(b"hello")
    with pytest.raises(NotReady):
        writer.poll_shutdown()
    for poll in (writer.poll_flush, writer.poll_shutdown, writer.poll_flush):
        with pytest.raises(NotReady):
            poll()
    with pytest.raises(trio.ClosedResourceError, match="was shut down"):
        writer.poll_write(b"x")
    wire.give(float("inf"))
    writer.poll_flush()
    writer.poll_shutdown()
    writer.poll_shutdown()
    writer.poll_flush()
    assert stored.calls == ["compress 5", "finish"]
    assert wire.sent == b"hellothe end"
    assert wire.log.count("shutdown") == 1


async def test_held_bytes_are_the_plain_ones_until_all_was_passed_on() -> None:
    wire = open_wire()
    writer = CompressWriter(wire, gzip_compressor())
    await writer.write_all(bytes(1000))
    assert writer.held_bytes == writer.unsent_bytes == 1000
    await writer.flush()
    assert writer.held_bytes == 0
    await writer.write_all(bytes(50_000))
    assert writer.held_bytes == 50_000
    await writer.shutdown()
    assert writer.held_bytes == 0


async def test_a_message_for_sse_does_not_stick() -> None:
    """Source: starlette PR 2753, Go's ReverseProxy #41642."""
    pipe, raw = simplex(1000)
    reader = Decoding(raw, GZIP())
    writer = CompressWriter(pipe, gzip_compressor())
    for number in range(5):
        event = b"data: %d\n\n" % number
        await writer.send_all(event)
        assert await reader.receive_some(1000) == event
    await writer.aclose()
    assert await reader.receive_some(1000) == b""


async def test_it_stands_over_anything_of_trio_s(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream, peer = trio.testing.memory_stream_one_way_pair()
    async with CompressWriter(stream, zlib_compressor()) as writer:
        await writer.write_all(bytes(LARGE))
        assert repr(writer) == f"<CompressWriter over {writer.inner!r}>"
    assert decoded(b"".join([bytes(chunk) async for chunk in peer]), ZLIB()) == bytes(LARGE)


async def test_over_a_writer_that_keeps_messages_it_does_not() -> None:
    writer = CompressWriter(SharedWriter(Sink()), EagerZlib())
    assert not writer.keeps_messages
    assert writer.poll_write_vectored([bytes(40_000), b"x"]) == 32768
    await writer.aclose()


def test_its_share_of_the_budget_is_the_encoder_s() -> None:
    assert rate_of(CompressWriter(Sink(), zlib_compressor())) == 240
    assert rate_of(CompressWriter(Sink(), EagerZlib())) == 256  # it does not say


async def test_a_file_is_compressed(tmp_path: Path) -> None:
    """It goes by reads, though the transport could send it by itself."""
    path = tmp_path / "file"
    path.write_bytes(b"hello " * 50_000)
    stream, peer = await tcp_pair()
    received = bytearray()

    async def read() -> None:
        async for chunk in peer:
            received.extend(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async with CompressWriter(stream, gzip_compressor()) as writer:
            with path.open("rb") as file:
                await writer.write_all_file(FilePart(file))
    assert len(received) < 10_000
    assert decoded(bytes(received), GZIP()) == path.read_bytes()
    await peer.aclose()


async def test_it_is_freed_at_once_when_it_was_not_used_and_when_it_is_closed() -> None:
    """Without the garbage collector. In between, what is below keeps it for its trailer."""
    wire = open_wire()
    gone = []
    gc.disable()
    try:
        unused = CompressWriter(wire.by_ref(), gzip_compressor())
        gone.append(weakref.ref(unused))
        del unused
        ended = CompressWriter(wire.by_ref(), gzip_compressor())
        gone.append(weakref.ref(ended))
        await ended.send_all(b"hello")
        await ended.aclose()
        del ended
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


# ---- What it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (zlib.compressobj(), "such as gzip_compressor.., got Compress"),
        (zlib, "got zlib"),
        (Stored, "got Stored"),
        (gzip_compressor, "got gzip_compressor"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_encoder_is_refused(wrong: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        CompressWriter(Sink(), wrong)


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(TypeError, match="list"):
        CompressWriter([], gzip_compressor())  # type: ignore[call-overload]


async def test_bytes_of_another_layer_must_not_come_in_between() -> None:
    wire = open_wire()
    buffer = BufWriter(wire)
    await buffer.write_all(b"plain")
    with pytest.raises(ValueError, match="flush it before you make a CompressWriter"):
        CompressWriter(wire, Stored())
    await buffer.flush()
    await CompressWriter(wire, Stored()).aclose()
    assert wire.sent == b"plain."


# ---- Ends ----------------------------------------------------------------------------------------


async def read_to_the_end(reader: trio.abc.ReceiveStream) -> str:
    received = bytearray()
    try:
        async for chunk in reader:
            received += chunk
    except trio.BrokenResourceError:
        received += b" cut"
    return received.decode()


async def fail_in_the_block(writer: AsyncWrite) -> None:
    with pytest.raises(KeyError):
        async with writer:
            raise KeyError


@pytest.mark.parametrize("way", [trio.aclose_forcefully, fail_in_the_block, abort])
async def test_an_unclean_end_writes_no_trailer(
    way: Callable[[AsyncWrite], Awaitable[object]],
) -> None:
    """What was accepted is flushed once, if it is no abort."""
    pipe, reader = simplex(1000)
    writer = CompressWriter(pipe, zlib_compressor())
    await writer.send_all(b"hello")
    await writer.write_all(b", you")
    with resource_warnings():
        await way(writer)
    expected = "hello cut" if way is abort else "hello, you cut"
    assert await read_to_the_end(Decoding(reader, ZLIB())) == expected


async def test_a_torn_stream_is_never_given_a_proper_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Until its close what is below is whole, for the records there are."""
    stream, peer = duplex(100)
    writer = CompressWriter(stream, EagerZlib())
    await cut_short(partial(writer.write_all, bytes(LARGE)))
    assert writer.lifecycle.torn is Torn.HERE
    assert stream.lifecycle.torn is None
    with pytest.raises(trio.BrokenResourceError, match="is torn"):
        await writer.shutdown()
    decoder = ZLIB()
    received = bytearray()

    async def read() -> None:
        async for chunk in peer:
            received.extend(decoder.decode(bytes(chunk)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await writer.flush()
        with resource_warnings() as messages:
            await writer.aclose()
    assert received == bytes(32768)
    assert not decoder.eof
    assert ["only 32768 of the 300000" in message for message in messages] == [True]
    await peer.aclose()


async def test_a_trailer_that_the_peer_did_not_get_is_never_clean(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """All data were delivered, and the close ran out of time."""
    stream, peer = duplex(15)
    writer = CompressWriter(stream, Stored(bytes(20)))
    assert writer.epilogue is Epilogue.DATA
    await writer.send_all(b"hello")
    assert writer.unsent_bytes == 0
    report = await close_gracefully(writer, timeout=1)
    assert report.outcome is not CloseOutcome.CLEAN
    await trio.aclose_forcefully(peer)


async def test_a_graceful_close_is_clean_with_its_trailer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream, peer = duplex(15)
    writer = CompressWriter(stream, Stored(bytes(20)))
    await writer.send_all(b"hello")

    async def read() -> None:
        async for _ in peer:
            pass
        await peer.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        report = await close_gracefully(writer, timeout=1)
    assert report.outcome is CloseOutcome.CLEAN


async def test_a_graceful_body_that_fails_is_truncated(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream, peer = duplex(1000)
    writer = CompressWriter(stream, zlib_compressor())
    ending = graceful(writer, linger=1)
    with pytest.raises(KeyError):
        async with ending:
            await writer.write_all(b"half of it")
            raise KeyError
    assert ending.report.outcome is CloseOutcome.TRUNCATED
    assert await read_to_the_end(Decoding(peer, ZLIB())) == "half of it cut"


async def test_a_forgotten_layer_is_ended_with_what_is_below() -> None:
    pipe, reader = simplex(1000)
    await CompressWriter(pipe, zlib_compressor()).write_all(b"hello")
    await pipe.aclose()
    assert await read_to_the_end(Decoding(reader, ZLIB())) == "hello"


@each({"nothing": b"", "something": b"hello"}, "sent")
@each({"reads": True, "does not read": False}, "goes")
async def test_a_tcp_stream_that_is_cut_short_shows_it(sent: bytes, *, goes: bool) -> None:
    """By the missing trailer, for a reset would destroy bytes on their way.

    Before it has begun there is nothing to miss, and it may look like an empty stream: a reset.
    """
    stream, peer = await tcp_pair()
    writer = CompressWriter(stream, zlib_compressor())
    if sent:
        await writer.send_all(sent)
    assert writer.shows_truncation is bool(sent)
    await run_cancelled_write(writer)
    linger = stream.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    assert linger == struct.pack("ii", not sent, 0)
    if not goes:
        stream.poll_write = not_ready  # type: ignore[method-assign]
    with resource_warnings():
        await writer.aclose()
    if goes or sent:
        assert (await read_to_the_end(Decoding(peer, ZLIB()))).endswith(" cut")
        await peer.aclose()
        return
    with pytest.raises(trio.BrokenResourceError):
        await peer.receive_some()
    await trio.aclose_forcefully(peer)


def not_ready(*_: object) -> int:
    raise NotReady(trio.sleep_forever)


async def run_cancelled_write(writer: CompressWriter[Any]) -> None:
    """Accept a part of a message, and no more."""

    def poll_write(data: bytes) -> int:
        if writer.held_bytes:
            raise NotReady(trio.sleep_forever)
        return CompressWriter.poll_write(writer, data[:10])

    writer.poll_write = poll_write  # type: ignore[method-assign, assignment]
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(writer.write_all, bytes(LARGE)))
        run.scope.cancel()
    assert writer.lifecycle.torn is Torn.HERE


async def test_over_tls() -> None:
    """Both write what they must at their ends, the upper one first."""
    tls, peer = await open_tls()
    received: list[str] = []

    async def read() -> None:
        received.append(await read_to_the_end(Decoding(peer, GZIP())))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async with CompressWriter(tls, gzip_compressor()) as writer:
            await writer.send_all(b"a" * LARGE)
    assert received == ["a" * LARGE]
    await peer.aclose()


# ---- Encoders that fail --------------------------------------------------------------------------


class Oops(Exception):
    pass


class Failing(Stored):
    """One of its calls answers something else."""

    def __init__(self, name: str, answer: Callable[[], Any]) -> None:
        super().__init__()
        setattr(self, name, lambda *_: answer())


def oops() -> None:
    raise Oops


def os_error() -> None:
    raise OSError("no more")


async def a_coroutine() -> bytes:
    return b""


def refused() -> None:
    """By a writer of this library that the encoder uses."""
    raise ClosedRefusal("<Cursor> is closed")


ANSWERS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "raises": (oops, Oops, "^$"),
    "raises OSError": (os_error, trio.BrokenResourceError, "no more"),
    # As if nothing had happened, the stream would go on without what the encoder has kept.
    "is refused by a writer": (refused, trio.BrokenResourceError, "its encoder raised Closed"),
    "is not ready": (not_ready, trio.BrokenResourceError, "its encoder raised NotReady"),
    "None": (lambda: None, TypeError, "of Failing must return bytes, one has returned None"),
    "a text": (lambda: "abc", TypeError, "must return bytes, one has returned 'abc'"),
    "a bytearray": (lambda: bytearray(2), TypeError, "must return bytes, .* bytearray"),
    "a coroutine": (a_coroutine, TypeError, "returned a coroutine"),
}


@pytest.mark.parametrize("offload", [False, True], ids=["inline", "offload"])
@pytest.mark.parametrize("name", ["compress", "flush", "finish"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_an_encoder_that_fails_breaks_its_writer(
    answer: tuple[Callable[[], Any], type[Exception], str], name: str, *, offload: bool
) -> None:
    """And never is a trailer written."""
    what, error, text = answer
    wire = open_wire()
    writer = CompressWriter(wire, Failing(name, what), offload=offload)
    with pytest.raises(error, match=text) as caught:
        await writer.write_all(bytes(LARGE))
        await writer.flush()
        await writer.write_all(b"more")
        await writer.shutdown()
    raised: Any = caught.value.__cause__ or caught.value
    for operation in (partial(writer.write, b"x"), writer.flush, writer.shutdown):
        with pytest.raises(trio.BrokenResourceError, match="has failed before|torn") as caught:
            await operation()
    assert wire.lifecycle.failure is None
    assert caught.value.__cause__ in (raised, None)
    with resource_warnings():
        await writer.aclose()
    assert not wire.sent.endswith(b".")
    assert wire.releases == ["release True" if wire.sent else "release False"]


class Generous(bytes):
    pass


async def test_an_encoder_that_gives_bytes_for_ever_is_asked_once() -> None:
    """Source: isal gives 6 bytes for each flush."""

    class Endless(Stored):
        def compress(self, data: bytes) -> bytes:
            self.calls.append("compress")
            return Generous(1000)

        def flush(self) -> bytes:
            self.calls.append("flush")
            return bytes(6)

    endless = Endless()
    wire = open_wire()
    writer = CompressWriter(wire, endless)
    for _ in range(2):
        await writer.send_all(b"a")
        await writer.flush()
    await writer.aclose()
    assert endless.calls == ["compress", "flush"] * 2 + ["finish"]
    assert len(wire.sent) == 2 * 1006 + 1


class Bad(Wire):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data) + 1


async def test_a_wrong_answer_from_below_is_that_layer_s_failure() -> None:
    bad = Bad(1)
    writer = CompressWriter(bad, EagerZlib())
    with pytest.raises(RuntimeError, match="of Bad claims to have accepted"):
        await writer.send_all(b"hello")
    assert bad.lifecycle.failure is not None
    with resource_warnings():
        await writer.aclose()


async def test_a_failure_below_takes_nothing_more() -> None:
    wire = open_wire()
    writer = CompressWriter(wire, Stored())
    await writer.write_all(b"one")
    await writer.write_all(b"two")
    wire.error = OSError("gone")
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await writer.write_all(b"three")
    assert writer.held_bytes == 6
    with resource_warnings() as messages:
        await writer.aclose()
    assert wire.sent == b""
    assert messages == []  # the error has told


# ---- In a thread ---------------------------------------------------------------------------------


class Held(Stored):
    """Its calls wait until they are let go, if they are made in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.inline = 0
        self.main = threading.get_ident()

    def wait(self) -> None:
        if threading.get_ident() == self.main:
            self.inline += 1
        else:
            assert self.gate.wait(20)

    def compress(self, data: bytes) -> Any:
        self.wait()
        return super().compress(data)

    def flush(self) -> Any:
        self.wait()
        return super().flush()

    def finish(self) -> Any:
        self.wait()
        return super().finish()


@pytest.fixture
def held() -> Generator[Held, None, None]:
    held = Held()
    yield held
    held.gate.set()


async def test_what_is_small_is_encoded_at_once(held: Held) -> None:
    wire = open_wire()
    async with CompressWriter(wire, held, offload=True) as writer:
        await writer.write_all(bytes(32767))
        await writer.send_all(b"x")
    assert held.inline == 4 - 1  # a flush of 32 KiB went to a thread
    assert held.calls == ["compress 32767", "compress 1", "flush", "finish"]


@pytest.fixture(autouse=True)
def let_small_ones_go(request: pytest.FixtureRequest) -> None:
    if "small" in request.node.name:
        request.getfixturevalue("held").gate.set()


async def test_what_is_large_is_accepted_and_encoded_in_a_thread(held: Held) -> None:
    """A thread for 256 KiB, and nothing else is done meanwhile."""
    wire = open_wire()
    writer = CompressWriter(wire, held, offload=True)
    data = bytearray(b"a" * 600_000)
    assert writer.poll_write(memoryview(data)) == 262_144
    data[:] = bytes(600_000)
    for poll in (partial(writer.poll_write, b"x"), writer.poll_flush, writer.poll_ready):
        with pytest.raises(NotReady):
            poll()
    assert held.calls == []
    assert writer.held_bytes == 262_144
    held.gate.set()
    await writer.flush()
    assert wire.sent == b"a" * 262_144
    assert held.inline == 0
    await writer.write_all_vectored([bytes(50_000)] * 4)
    await writer.aclose()
    assert held.calls == ["compress 262144", "flush", "compress 200000", "finish"]
    assert held.inline == 0


async def test_cancelled_while_a_thread_encodes_nothing_is_lost_or_sent_twice(held: Held) -> None:
    wire = open_wire()
    writer = CompressWriter(wire, held, offload=True)
    await writer.write_all(b"b" * 100_000)
    for operation in (writer.flush, partial(writer.write, b"x"), writer.shutdown):
        run = await run_cancelled(operation)
        assert run.outcome == "cancelled"
    held.gate.set()
    await writer.shutdown()
    assert wire.sent == b"b" * 100_000 + b"."
    assert held.calls == ["compress 100000", "finish"]


async def test_a_cancelled_close_waits_for_the_thread(held: Held) -> None:
    """Then what was accepted is flushed as by any other such close."""
    wire = open_wire()
    writer = CompressWriter(wire, held, offload=True)
    await writer.write_all(bytes(100_000))
    assert writer.close_patience == 1.0
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            closing = await begin(nursery, writer.aclose)
            closing.scope.cancel()
            await wait_all_tasks_blocked()
            held.gate.set()
    assert ["the epilogue" in message for message in messages] == [True]
    assert held.calls == ["compress 100000", "flush"]
    assert wire.sent == bytes(100_000)
    assert writer.close_patience == 0


async def test_a_cancelled_close_does_not_wait_for_ever(
    held: Held, autojump_clock: trio.testing.MockClock
) -> None:
    writer = CompressWriter(open_wire(), held, offload=True)
    await writer.write_all(bytes(100_000))
    before = trio.current_time()
    with resource_warnings() as messages:
        await trio.aclose_forcefully(writer)
    assert trio.current_time() - before == 1
    assert "100000" in messages[0]
    assert writer.unsent_bytes == 100_000


def test_a_thread_of_one_run_is_waited_for_in_another(held: Held) -> None:
    wire = open_wire()

    async def first() -> CompressWriter[Wire]:
        writer = CompressWriter(wire, held, offload=True)
        await writer.write_all(b"c" * 40_000)
        return writer

    async def second(writer: CompressWriter[Wire]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.aclose)
            await wait_all_tasks_blocked()
            held.gate.set()

    trio.run(second, trio.run(first))
    assert wire.sent == b"c" * 40_000 + b"."


async def test_without_threads_it_encodes_by_itself(
    monkeypatch: pytest.MonkeyPatch, held: Held
) -> None:
    def start_thread_soon(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("trio.lowlevel.start_thread_soon", start_thread_soon)
    wire = open_wire()
    async with CompressWriter(wire, held, offload=True) as writer:
        await writer.send_all(b"d" * 100_000)
    assert wire.sent == b"d" * 100_000 + b"."
    assert held.inline == 3
