"""Ctrl-C that a poll meets after it has accepted bytes: the poll returns, the next call raises."""

from __future__ import annotations

import contextlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    AsyncWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    FilePart,
    InspectWriter,
    LineWriter,
    MeteredWriter,
    SharedWriter,
    Sink,
    TeeWriter,
    abort,
    close_gracefully,
    copy,
    duplex,
    write_from_thread,
)
from trio_asyncwrite.codecs import FramedWriter, LengthDelimitedCodec
from trio_asyncwrite.compression import CompressWriter, gzip_compressor

from .._patience import wait_all_tasks_blocked
from .._tls_helpers import established
from ._fakes import Wire, each, resource_warnings, run_cancelled

if TYPE_CHECKING:
    import io
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Make = Callable[[AsyncWrite], Any]


class Interrupted(Wire):
    """Ctrl-C strikes once, after ``left`` polls that write; each of them takes ``step`` bytes."""

    def __init__(self, left: int, *, step: int = 1) -> None:
        super().__init__(math.inf)
        self.left = left
        self.step = step

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        if not self.left:
            self.left = -1
            raise KeyboardInterrupt
        self.left -= 1
        return super().poll_write(data[: self.step])


class Fails(Interrupted):
    """What strikes is a mistake."""

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        try:
            return super().poll_write(data)
        except KeyboardInterrupt:
            raise ZeroDivisionError from None


def strike(_view: memoryview) -> None:
    raise KeyboardInterrupt


#: Each accepts a first message of three bytes, and meets Ctrl-C in doing so.
STACKS: dict[str, Callable[[], Any]] = {
    "shared": lambda: SharedWriter(Interrupted(1)),
    "shared over a buffer": lambda: SharedWriter(BufWriter(Interrupted(1), 1)),
    "above a shared one": lambda: MeteredWriter(SharedWriter(Interrupted(2))),
    "two above it": lambda: BufWriter(MeteredWriter(SharedWriter(Interrupted(2))), 1),
    "shared over a meter": lambda: SharedWriter(MeteredWriter(Interrupted(1))),
    "tee": lambda: TeeWriter(Sink(), Interrupted(0)),
    "tee into a buffer": lambda: TeeWriter(Sink(), BufWriter(Interrupted(0), 1)),
    "detaching tee": lambda: TeeWriter(Sink(), Interrupted(0), on_failure="detach"),
    "detaching tee into a buffer": lambda: TeeWriter(
        Sink(), BufWriter(Interrupted(0), 1), on_failure="detach"
    ),
    "inspect": lambda: InspectWriter(Wire(math.inf), strike),
    "inspect over a buffer": lambda: InspectWriter(BufWriter(Wire(math.inf)), strike),
    "above inspect": lambda: LineWriter(InspectWriter(Wire(math.inf), strike), 1),
}

#: The same, of a mistake in the innermost layer.
MISTAKEN: dict[str, Callable[[], Any]] = {
    "shared": lambda: SharedWriter(Fails(1)),
    "shared over a buffer": lambda: SharedWriter(BufWriter(Fails(1), 1)),
    "above a shared one": lambda: MeteredWriter(SharedWriter(Fails(2))),
    "two above it": lambda: BufWriter(MeteredWriter(SharedWriter(Fails(2))), 1),
}

every_stack = each(STACKS, "make")


async def write_more(writer: Any) -> None:
    await writer.write(b"more")


def broken_below(writer: Any) -> Any:
    """A layer below whose close meets it: of a tee, not the stream that is well."""
    if isinstance(writer, TeeWriter):
        return writer if writer.layers_below == (writer.inner,) else writer.copy
    return writer.inner


async def leave_block(writer: Any) -> None:
    async with writer:
        raise ZeroDivisionError


NEXT: dict[str, Callable[[Any], Awaitable[object]]] = {
    "write": write_more,
    "write_all_buf": lambda writer: writer.write_all_buf(Buf(b"more")),
    "flush": lambda writer: writer.flush(),
    "send_all": lambda writer: writer.send_all(b"more"),
    "shutdown": lambda writer: writer.shutdown(),
    "might not block": lambda writer: writer.wait_send_all_might_not_block(),
    "aclose": lambda writer: writer.aclose(),
    "aclose_forcefully": trio.aclose_forcefully,
    "close_gracefully": close_gracefully,
    "abort": abort,
    "async with": leave_block,
    "a handle": lambda writer: writer.by_ref().write(b"more"),
    "a new layer": lambda writer: BufWriter(writer).write(b"more"),
    "below, aclose": lambda writer: broken_below(writer).aclose(),
    "below, close_gracefully": lambda writer: close_gracefully(broken_below(writer)),
}


@every_stack
@each(NEXT, "call")
async def test_the_cursor_is_exact_and_the_next_call_raises_it_once(
    make: Callable[[], Any],
    call: Callable[[Any], Awaitable[object]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Law 1, then law 2: unchanged the first time, from then on as a failure; nothing hangs."""
    with resource_warnings():
        writer = make()
        buf = Buf(b"a\nb")
        assert await writer.write_buf(buf) == 3
        assert not buf.remaining
        with trio.fail_after(1):
            with pytest.raises(KeyboardInterrupt):
                await call(writer)
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await writer.write(b"more")
            was_closed = writer.closed
            report = await close_gracefully(writer)
            assert was_closed or report.outcome is CloseOutcome.BROKEN
            await abort(writer)
        assert writer.closed
        assert writer.inner.closed


@each(MISTAKEN, "make")
@each({name: call for name, call in NEXT.items() if name not in ("abort", "async with")}, "call")
async def test_a_mistake_passes_unchanged_as_well(
    make: Callable[[], Any],
    call: Callable[[Any], Awaitable[object]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Law 2. A report tells of it where the call makes one."""
    with resource_warnings():
        writer = make()
        assert await writer.write(b"abc") == 3
        try:
            report: Any = await call(writer)
        except ZeroDivisionError:
            pass
        else:
            assert report.outcome is CloseOutcome.BROKEN
            assert isinstance(report.error.__cause__ or report.error, ZeroDivisionError)
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await writer.write(b"more")
        await abort(writer)


@every_stack
async def test_a_cancelled_close_raises_it_all_the_same(make: Callable[[], Any]) -> None:
    with resource_warnings():
        writer = make()
        await writer.write(b"abc")
        with pytest.raises(KeyboardInterrupt):
            await run_cancelled(writer.aclose)
        assert writer.closed


async def note(outcomes: list[str], call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
        outcomes.append("returned")
    except BaseException as exc:  # noqa: BLE001 - the test looks at it
        outcomes.append(type(exc).__name__)


@every_stack
@pytest.mark.parametrize("first", [AsyncWrite.aclose, abort])
async def test_of_two_closes_at_once_one_raises_it(
    make: Callable[[], Any], first: Callable[[Any], Awaitable[object]]
) -> None:
    outcomes: list[str] = []
    with resource_warnings():
        writer = make()
        await writer.write(b"abc")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, outcomes, partial(first, writer))
            nursery.start_soon(note, outcomes, broken_below(writer).aclose)
        assert outcomes.count("KeyboardInterrupt") == 1
        await abort(writer)


async def test_those_in_line_are_not_left_waiting(autojump_clock: trio.testing.MockClock) -> None:
    wire = Interrupted(1)
    wire.room = 0
    writer = SharedWriter(wire)
    outcomes: list[str] = []
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(note, outcomes, partial(writer.write_all, b"abc"))
            await wait_all_tasks_blocked()
        wire.give(math.inf)
    assert outcomes == ["KeyboardInterrupt", *["BrokenResourceError"] * 3]
    with resource_warnings():
        await writer.aclose()


@pytest.mark.parametrize("is_file", [False, True])
async def test_a_call_that_sees_its_message_through_raises_it_itself(
    is_file: bool, tmp_path: Path
) -> None:
    """Nothing more of the message goes, and its cursor says that it is accepted."""
    wire = Interrupted(1)
    writer = SharedWriter(wire)
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    with path.open("rb") as file:
        cursor: Any = FilePart(file) if is_file else Buf(b"abc")
        write = writer.write_all_file if is_file else writer.write_all_buf
        with pytest.raises(KeyboardInterrupt):
            await write(cursor)
        assert not cursor.remaining
        assert len(wire.sent) == 1
        with pytest.raises(trio.BrokenResourceError):
            await writer.flush()
        with resource_warnings():
            await writer.aclose()
    assert len(wire.sent) == 1


def to_file(file: io.BufferedWriter) -> None:
    """It goes on, whatever its writes raise."""
    for _ in range(3):
        with contextlib.suppress(BaseException):
            file.write(b"abc")
            file.flush()


async def copied(writer: AsyncWrite) -> None:
    source, peer = duplex(100)
    await peer.send_all(b"abcabcabc")
    await peer.send_eof()
    await copy(source, writer)


async def framed(writer: AsyncWrite) -> None:
    channel = FramedWriter(writer, LengthDelimitedCodec())
    await channel.send(b"abc")
    await channel.send_many([b"abc", b"abc"])


async def compressed(writer: AsyncWrite) -> None:
    layer = CompressWriter(writer, gzip_compressor())
    for _ in range(2):
        await layer.send_all(b"abc")


USERS: dict[str, Callable[[Any], Awaitable[None]]] = {
    "thread": lambda writer: write_from_thread(writer, to_file, buffer_size=4),
    "copy": copied,
    "frames": framed,
    "compression": compressed,
}


@each(USERS, "use")
@pytest.mark.parametrize("left", range(4))
@each({"alone": lambda writer: writer, "shared": SharedWriter}, "layer")
async def test_those_who_write_for_others_raise_it_once(
    use: Callable[[Any], Awaitable[None]],
    left: int,
    layer: Callable[[Any], Any],
) -> None:
    with resource_warnings():
        writer = layer(Interrupted(left))
        outcomes: list[str] = []
        for call in (partial(use, writer), partial(writer.write, b"x"), writer.aclose):
            await note(outcomes, call)
        assert outcomes == ["KeyboardInterrupt", "BrokenResourceError", "returned"]


class OverDuplex(AsyncReadWrite):
    """The transport of a TLS stream; Ctrl-C strikes after one record and a half."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.polls = 0

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.polls += 1
        if self.polls == 2:
            raise KeyboardInterrupt
        return int(self.inner.poll_write(data[:24576]))

    def poll_read(self, size: int, /) -> bytes:
        return bytes(self.inner.poll_read(size))


@pytest.mark.parametrize("layers", [0, 1, 2])
@each(NEXT, "call")
async def test_tls_keeps_it_too(
    layers: int,
    call: Callable[[Any], Awaitable[object]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also if layers lie between it and the one that Ctrl-C has struck.

    What was encrypted and not sent is lost.
    """
    left, right = duplex(1 << 20)
    transport: Any = OverDuplex(left)
    for _ in range(layers):
        transport = _Plain(transport)
    tls, peer = established((transport, right))
    with resource_warnings():
        count = await tls.write(bytes(65536))
        assert count == 16384
        with pytest.raises(KeyboardInterrupt):
            await call(tls)
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await tls.write(b"more")
        assert (await close_gracefully(tls)).outcome is CloseOutcome.BROKEN
        await abort(peer)


class _Plain(AsyncReadWrite):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def poll_read(self, size: int, /) -> bytes:
        return bytes(self.inner.poll_read(size))
