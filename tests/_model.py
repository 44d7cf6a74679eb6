"""A random stack, random tasks that use it, a random peer; and the laws that must hold after it.

Everything follows from the seed: the stack, the script of each task, and Trio's own scheduling.
Each task writes bytes of its own alphabet, and trailers have another one, so what the peer has
received tells who wrote it.
"""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    ByRef,
    CloseOutcome,
    CloseReport,
    Cursor,
    DuplexStream,
    InspectWriter,
    LineWriter,
    MeteredWriter,
    PollEvented,
    ReadHalf,
    ReadWritePair,
    SharedWriter,
    TcpStream,
    TeeWriter,
    ThrottledWriter,
    TimeoutWriter,
    TlsStream,
    TokenBucket,
    abort,
    close_gracefully,
    duplex,
    graceful,
    simplex,
    split,
    wrap_stream,
)
from trio_asyncwrite.compression import CompressWriter
from trio_asyncwrite.testing import NeverReadyTwiceWriter

from ._model_laws import TRAILERS, check
from ._patience import jumping_clock
from ._scheduling import scheduled_by
from ._streams import small_buffers, tcp_sockets
from ._tls_helpers import HOST, client_context, server_context
from .compression._codecs import Stored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: So many letters has the alphabet of a task.
LETTERS = 48


# ---- Layers as users write them ----------------------------------------------------------------


class Plain(AsyncWrite):
    """Passes everything on, at most 100 bytes at a time."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return self.inner.poll_write(data[:100])  # type: ignore[no-any-return]


class Trailer(AsyncWrite):
    """Keeps bytes until a flush, or until it has 64, and ends with a trailer."""

    shows_truncation = True

    def __init__(self, inner: AsyncWrite, number: int, *, encodes: bool) -> None:
        self.inner = inner
        self.encodes = encodes
        self.trailer = bytes([TRAILERS + number, 254, 255])
        self.rest: bytes | None = None
        self.store = bytearray()

    @property
    def held_bytes(self) -> int:  # type: ignore[override]
        return len(self.store)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        while len(self.store) >= 64:
            del self.store[: self.inner.poll_write(bytes(self.store))]
        taken = data[:64]
        self.store += taken
        return len(taken)

    def poll_flush(self) -> None:
        while self.store:
            del self.store[: self.inner.poll_write(bytes(self.store))]
        self.inner.poll_flush()

    def poll_shutdown(self) -> None:
        while self.store:
            del self.store[: self.inner.poll_write(bytes(self.store))]
        if self.rest is None:
            self.rest = self.trailer
        while self.rest:
            self.rest = self.rest[self.inner.poll_write(self.rest) :]
        self.inner.poll_shutdown()


# ---- What is known of a run --------------------------------------------------------------------


@dataclass
class Message:
    """What one call has written.

    Args:
        content: its bytes.
        least: how many were accepted, at least.
    """

    content: bytes
    least: int


@dataclass
class Ending:
    """A close that no other one has met.

    Args:
        state: what the stack was like before.
        way: the way in which it was closed.
        how: how the call ended.
        seconds: how long it took.
        report: its report, if there is one.
    """

    state: str
    way: str
    how: str
    seconds: float
    report: CloseReport | None


@dataclass
class Run:
    """A stack at work.

    Args:
        seed: decides over everything.
    """

    seed: int
    random: random.Random = field(init=False)
    sizes: list[int] = field(default_factory=list)
    script: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    #: By task, in the order of writing.
    messages: list[list[Message]] = field(default_factory=list)
    reports: list[CloseReport] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    #: How the peer saw the end: "proper", "cut", or "" if it did not stay.
    end: str = ""
    sent_by_peer: bytearray = field(default_factory=bytearray)
    read: bytearray = field(default_factory=bytearray)
    #: What has happened that may explain a failure, a loss, or a truncated end.
    events: set[str] = field(default_factory=set)
    #: A word that says why the last call was refused.
    why: str = ""
    warnings: list[str] = field(default_factory=list)
    #: The close that no other one has met, if there was one.
    ending: Ending | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        #: How likely a call is to be cancelled, and the peer to leave.
        self.unrest = self.random.choice([0, 0, 0.1, 0.4])

    def log(self, who: str, text: str) -> None:
        self.script.append(f"{trio.current_time():7.3f} {who}: {text}")

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def pause(
        self, steps: int | None = None, seconds: float | None = None
    ) -> Callable[[], Awaitable[None]]:
        """A pause of some steps, and then of some time."""
        if steps is None or seconds is None:
            steps = self.random.choice([0, 1, 1, 2, 3, 5, 10, 30])
            seconds = self.random.choice([0, 0, 0.25, 1, 1, 3])

        async def pause() -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await trio.sleep(seconds)

        return pause


# ---- The stack ---------------------------------------------------------------------------------


@dataclass
class Stack:
    """A stack: its layers, the lowest one first, and the peer's end."""

    layers: list[Any]
    peer: Any
    #: One for each task; several tasks may have the same.
    writers: list[AsyncWrite] = field(default_factory=list)
    reader: Any = None
    #: The trailers that a proper end has, in the order in which they are written.
    trailer: bytes = b""
    #: Whether the peer can tell a truncated end, and whether unsent bytes can be counted.
    shows_truncation: bool = True
    counts: bool = True
    #: Whether tasks share a writer, so that their messages must not mix.
    has_messages: bool = True
    #: Whether one close ends all of it.
    is_one: bool = True
    #: Whether a layer writes to several streams, so that a close of one leaves it open.
    has_branches: bool = False
    has_timeout: bool = False
    #: Whether a close that must not wait takes no time.
    ends_at_once: bool = True
    #: What layers that copy have written elsewhere.
    copies: list[Cursor] = field(default_factory=list)
    #: Writers of which a send_all was given up with bytes unsent, and nothing was flushed since.
    abandoned: set[AsyncWrite] = field(default_factory=set)


async def make_stack(run: Run) -> Stack:
    choice = run.random.choice
    transport = choice(["duplex"] * 5 + ["simplex", "unix", "tcp", "pipe", "foreign", "TLS"])
    stack = await _make_transport(transport, run)
    names = [transport]
    base = stack.layers[-1]
    is_duplex = transport in {"duplex", "unix", "tcp", "TLS"}
    for number in range(choice([0, 1, 1, 2, 2, 3])):
        below = stack.layers[-1]
        kinds = ["buffer", "buffer", "timeout", "trailer", "encoding trailer", "plain", "shared"]
        kinds += ["metered", "inspecting", "throttled", "lines", "tee"]
        kinds.append("compression")
        if is_duplex:
            kinds += ["pair"] + ["split"] * (number == 0)
        name = choice(kinds)
        if name == "buffer":
            capacity = choice([1, 10, 100, 1000])
            name = f"buffer of {capacity}"
            layer: Any = BufWriter(below, capacity)
        elif name == "timeout":
            stack.has_timeout = True
            layer = TimeoutWriter(below, idle=choice([0.5, 2]))
        elif "trailer" in name:
            layer = Trailer(below, number, encodes=name != "trailer")
            stack.trailer = layer.trailer + stack.trailer
        elif name == "compression":
            encoder = Stored(bytes([TRAILERS + number, 254, 255]))
            layer = CompressWriter(below, encoder)
            stack.trailer = encoder.trailer + stack.trailer
            # It counts what was passed on in part.
            stack.counts = False
        elif name == "plain":
            layer = Plain(below)
        elif name == "shared":
            layer = SharedWriter(below)
        elif name == "metered":
            layer = MeteredWriter(below)
        elif name == "inspecting":
            layer = InspectWriter(below, bytearray().extend)
        elif name == "lines":
            # The letters have newlines among them, for some tasks.
            layer = LineWriter(below, choice([1, 10, 100]))
        elif name == "tee":
            stack.copies.append(Cursor())
            copy = choice([BufWriter, Plain, NeverReadyTwiceWriter])(stack.copies[-1])
            on_failure = choice(["raise", "detach"])
            stack.has_branches = stack.has_branches or on_failure == "raise"
            layer = TeeWriter(below, copy, on_failure=on_failure)
        elif name == "throttled":
            # As slow as a peer that pauses, or only in pieces.
            layer = ThrottledWriter(below, choice([TokenBucket(100), TokenBucket(1e9, burst=7)]))
        elif name == "pair":
            layer = ReadWritePair(base, below)
            stack.reader = layer
        else:
            stack.reader, layer = split(below)
            stack.is_one = False
        names.append(name)
        stack.layers.append(layer)
    _make_writers(stack, run, names)
    run.log("stack", " < ".join(names))
    return stack


async def _make_transport(name: str, run: Run) -> Stack:
    capacity = run.random.choice([1, 7, 64, 64, 1000])
    # A byte is a trip through the scheduler where only one fits.
    run.sizes = [1, 2, 5, 20] if capacity < 64 else [1, 2, 5, 20, 20, 99, 100, 101, 500, 2000]
    if name == "simplex":
        writer, reader = simplex(capacity)
        return Stack([writer], reader)
    if name == "unix":
        left, right = trio.socket.socketpair()
        small_buffers(left)
        stream = TcpStream(left)
        peer = trio.SocketStream(right)
        return Stack([stream], peer, reader=stream, shows_truncation=False, counts=False)
    if name == "tcp":
        near, far = await tcp_sockets()
        connection = TcpStream(near)
        return Stack([connection], trio.SocketStream(far), reader=connection, counts=False)
    if name == "pipe":
        reading, writing = os.pipe()
        end = trio.lowlevel.FdStream(reading)
        return Stack([PollEvented(writing)], end, shows_truncation=False, counts=False)
    if name == "foreign":
        ours, theirs = trio.testing.lockstep_stream_pair()
        writer = wrap_stream(ours)
        return Stack([writer], theirs, shows_truncation=False, counts=False, ends_at_once=False)
    left_end, right_end = duplex(capacity if name == "duplex" else 1000)
    if name == "duplex":
        return Stack([left_end], right_end, reader=left_end)
    client = TlsStream(left_end, client_context(), server_hostname=HOST)
    server = trio.SSLStream(right_end, server_context(), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return Stack([left_end, client], server, reader=client, counts=False)


def _make_writers(stack: Stack, run: Run, names: list[str]) -> None:
    """Decide through what the tasks write."""
    top = stack.layers[-1]
    tasks = run.random.choice([1, 1, 2, 3])
    if isinstance(top, SharedWriter) and run.random.random() < 0.4:
        stack.writers = [BufWriter(top, run.random.choice([10, 100])) for _ in range(tasks)]
        stack.layers += stack.writers
        stack.has_messages = False
        names.append(f"{tasks} buffers")
    elif run.random.random() < 0.2:
        handle = top.by_ref()
        stack.layers.append(handle)
        stack.writers = [handle] * tasks
        stack.is_one = False
        names.append("by_ref")
    else:
        stack.writers = [top] * tasks


# ---- Tasks -------------------------------------------------------------------------------------

REFUSALS = (trio.ClosedResourceError, trio.BrokenResourceError)


async def attempt(
    run: Run,
    stack: Stack,
    who: str,
    name: str,
    operation: Callable[[], Awaitable[object]],
    *,
    pause: Callable[[], Awaitable[None]] | None = None,
) -> str:
    """Make a call, which may be cancelled after ``pause``, and say how it ended."""
    if pause is None and run.random.random() < run.unrest:
        pause = run.pause()
    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await pause()
            nursery.cancel_scope.cancel()

        if pause is not None:
            nursery.start_soon(cancel)
        how = await _call(run, stack, name, operation)
        nursery.cancel_scope.cancel()
    run.log(who, f"{name}: {how}")
    return how


async def _call(
    run: Run, stack: Stack, name: str, operation: Callable[[], Awaitable[object]]
) -> str:
    how = ""
    allowed: tuple[type[Exception], ...] = REFUSALS
    if stack.has_timeout:
        allowed = (*allowed, trio.TooSlowError)
    if "close" not in name:
        allowed = (*allowed, trio.BusyResourceError)
    if name == "shutdown":
        allowed = (*allowed, ValueError)
    try:
        await operation()
        how = "done"
    except trio.Cancelled:
        run.events.add("cancelled")
        how = "cancelled"
    except allowed as exc:
        how = type(exc).__name__
        run.why = next((word for word in ("torn", "Buf") if f" {word}" in str(exc)), how)
        # A peer that leaves in the middle of its own message breaks reading only.
        run.events.add(f"{name}: {how}" if name == "read" else how)
    except Exception as exc:  # noqa: BLE001 - that is what the model looks for
        run.fault(f"{name} raised {exc!r}")
        how = "fault"
    return how


VERBS = (
    *("write", "write_vectored", "write_all", "write_all", "write_all_vectored"),
    *("send_all", "send_all", "write_all_buf", "flush"),
)


async def write(run: Run, stack: Stack, number: int) -> None:
    """The task that writes, flushes and goes on, whatever happens."""
    task = Writer(run, stack, number)
    for _ in range(run.random.randrange(2, 9)):
        await run.pause()()
        verb = run.random.choice(VERBS)
        if run.random.random() < 0.01:
            await task.end("shutdown")
        elif verb == "flush":
            await task.end(verb)
        else:
            await task.write(verb, run.random.choice(run.sizes))
    if run.unrest and run.random.random() < 0.5:
        # A message is cut short before time passes, while there may be no room for it.
        large = 3 * max(run.sizes)
        await task.write("write", large, pause=run.pause(10, 0))
        verb = run.random.choice(["write_all", "send_all", "send_all", "write_all_buf"])
        size = run.random.choice([5, 20, large])
        await task.write(verb, size, pause=run.pause(run.random.choice([1, 5, 20]), 0))


class Writer:
    """A task that writes, and notes what was accepted.

    Args:
        run: the run.
        stack: its stack.
        number: of the task.
    """

    def __init__(self, run: Run, stack: Stack, number: int) -> None:
        self.run = run
        self.stack = stack
        self.number = number
        self.writer: Any = stack.writers[number]
        self.messages = run.messages[number]
        #: A Buf that was begun.
        self.rest: tuple[Buf, Message] | None = None

    async def attempt(
        self, name: str, operation: Callable[[], Awaitable[object]], **options: Any
    ) -> str:
        who = f"writer {self.number}"
        return await attempt(self.run, self.stack, who, name, operation, **options)

    async def end(self, verb: str) -> None:
        """Flush or shut down."""
        if verb == "shutdown":
            self.run.events |= {"closed", "ended in part"}
        if await self.attempt(verb, getattr(self.writer, verb)) == "done":
            self.stack.abandoned.discard(self.writer)
            is_alone = len(self.stack.writers) == 1 and not self.writer.closed
            if is_alone and self.writer.unsent_bytes:
                self.run.fault(f"{verb} has left {self.writer.unsent_bytes} bytes")

    async def write(self, verb: str, size: int, **options: Any) -> None:
        """Write a message of ``size`` bytes, or some of them."""
        first = self.number * 64
        content = bytes(self.run.random.choices(range(first, first + LETTERS), k=size))
        if verb == "write_all_buf":
            await self._write_buf(content, **options)
            return
        data: Any = content
        if verb.endswith("vectored"):
            cut = self.run.random.randrange(size)
            data = [content[:cut], content[cut:]]
        counts: list[int] = []

        async def operation() -> None:
            counts.append(await getattr(self.writer, verb)(data) or size)

        message = Message(content, 0)
        how = await self.attempt(f"{verb} {size}", operation, **options)
        if verb in {"write", "write_vectored"}:
            # If it was cancelled, or has failed, nothing was accepted.
            message = Message(content[: sum(counts)], sum(counts))
        elif counts:
            message.least = size
        if message.content:
            self.messages.append(message)
        if verb == "send_all" and how == "done":
            self.stack.abandoned.discard(self.writer)
        elif verb == "send_all" and how != "BusyResourceError" and self.writer.unsent_bytes:
            self.stack.abandoned.add(self.writer)

    async def _write_buf(self, content: bytes, **options: Any) -> None:
        """Begin a Buf, or go on with it."""
        buf, message = self.rest or (Buf(content), Message(content, 0))
        size = len(message.content)
        await self.attempt(
            f"write_all_buf {size}", lambda: self.writer.write_all_buf(buf), **options
        )
        message.least = size - buf.remaining
        if message.least and self.rest is None:
            self.messages.append(message)
        self.rest = (buf, message) if buf.remaining and message.least else None


async def read(run: Run, stack: Stack) -> None:
    """The task that reads."""
    while True:
        await run.pause()()
        size = run.random.choice([1, 10, 1000])

        async def operation() -> None:
            data = await stack.reader.receive_some(size)  # noqa: B023 - awaited here
            run.read.extend(data)
            if not data:
                run.events.add("read to the end")

        how = await attempt(run, stack, "reader", "read", operation)
        if how not in {"done", "cancelled"} or "read to the end" in run.events:
            return


class Oops(Exception):
    """What a body raises."""


WAYS = (
    *("aclose", "aclose", "aclose", "gracefully", "gracefully"),
    *("aclose now", "body", "graceful body", "abort"),
)


async def look(run: Run, stack: Stack) -> str:
    """What the stack is like, as far as its user can tell."""
    if any(layer.closed for layer in stack.layers):
        return "closed"
    for writer in stack.writers:
        how = await _call(run, stack, "write", partial(writer.write, b""))
        if how != "done":
            return run.why if how == "BrokenResourceError" else how
    return "abandoned" if stack.abandoned else "whole"


async def _leave_by_an_exception(manager: Any) -> None:
    with contextlib.suppress(Oops):
        async with manager:
            raise Oops


async def end(run: Run, stack: Stack, layer: Any, who: str, state: str = "") -> Ending:
    """End a layer in some way."""
    # A reader has no graceful end.
    is_writer = isinstance(layer, AsyncWrite)
    way = run.random.choice(WAYS if is_writer else ("aclose", "aclose now", "body"))
    limits: dict[str, float] = {"timeout": run.random.choice([1, 20, 1000]), "linger": 10}
    run.events.add("closed")
    if way in {"abort", "graceful body"}:
        run.events.add(way)
    # The end of a write half is that of the whole; that of a handle leaves a SharedWriter unharmed.
    is_handle = isinstance(layer, ByRef) and isinstance(layer.inner, SharedWriter)
    if is_handle or isinstance(stack.reader, ReadHalf):
        run.events.add("ended in part")

    async def operation() -> None:
        if way == "aclose":
            await layer.aclose()
        elif way == "aclose now":
            run.events.add("cancelled")
            await trio.aclose_forcefully(layer)
        elif way == "gracefully":
            reports.append(await close_gracefully(layer, **limits))
        elif way == "abort":
            await abort(layer)
        elif way == "body":
            await _leave_by_an_exception(layer)
            run.events.add("cancelled")
        else:
            ending = graceful(layer, **limits)
            await _leave_by_an_exception(ending)
            reports.append(ending.report)

    reports: list[CloseReport] = []
    started = trio.current_time()
    run.log(who, f"{way} of {type(layer).__name__} ...")
    how = await attempt(run, stack, who, f"close ({way})", operation)
    if way not in {"aclose", "aclose now"} and how not in {"done", "cancelled"}:
        run.fault(f"{way} raised {how}")
    if "graceful" in way and not reports:
        run.fault(f"{way} gave no report: {how}")
    for report in reports:
        run.log(who, f"report: {report}")
        if report.outcome is CloseOutcome.TIMED_OUT:
            run.events.add("timed out")
    run.reports += reports
    if how == "done" and not layer.closed:
        run.fault(f"{layer!r} is not closed after {way}")
    seconds = trio.current_time() - started
    most = {"gracefully": limits["timeout"] + limits["linger"], "aclose now": 0, "abort": 0}.get(
        way
    )
    grace = 0 if stack.ends_at_once else 2  # of a stream that is not ours, for sending and closing
    if most is not None and seconds > most + grace:
        run.fault(f"{way} has taken {seconds} seconds, and {most} were allowed")
    return Ending(state, way, how, seconds, reports[0] if reports else None)


# ---- The peer ----------------------------------------------------------------------------------


async def play_peer(run: Run, stack: Stack) -> None:
    """Read in pieces, stall, write, half-close; leave before the end, or stay."""
    peer = stack.peer
    async with trio.open_nursery() as nursery:
        has_written = trio.Event()
        nursery.start_soon(_write_as_peer, run, peer, has_written)
        await _read_as_peer(run, stack)
        with trio.move_on_after(0 if "peer left" in run.events else 5):
            await has_written.wait()
        nursery.cancel_scope.cancel()
    if "peer left" in run.events:
        run.end = ""
    run.log("peer", f"{len(run.received)} bytes received, end {run.end!r}")
    if run.end != "proper" or "peer cut" in run.events:
        await trio.aclose_forcefully(peer)
    else:
        await peer.aclose()


async def _read_as_peer(run: Run, stack: Stack) -> None:
    patience = run.random.choice([0, 5, 20, 20])
    leaves = run.random.random() < run.unrest / 2
    try:
        while not run.end:
            if patience:
                patience -= 1
                await run.pause()()
            elif leaves:
                run.log("peer", "leaves")
                run.events.add("peer left")
                return
            data = await stack.peer.receive_some(run.random.choice([1, 10, 1000]))
            run.received += data
            if not data:
                run.end = "cut" if "reset" in run.events else "proper"
    except trio.BrokenResourceError as exc:
        # A Unix socket tells of a reset, too, if we have left bytes unread; and so does a pipe in
        # memory, which has another word for a truncated end.
        is_reset = isinstance(stack.peer, DuplexStream) and isinstance(
            exc.__cause__, ConnectionResetError
        )
        run.end = "cut" if stack.shows_truncation and not is_reset else "proper"


async def _write_as_peer(run: Run, peer: Any, has_written: trio.Event) -> None:
    run.events.add("peer cut")
    if isinstance(peer, trio.abc.SendStream):
        try:
            await _write_all_as_peer(run, peer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            if isinstance(exc.__cause__, ConnectionResetError):
                run.events.add("reset")  # a read that follows gives end-of-file
            if isinstance(peer, trio.SSLStream):
                # From then on it does not read either.
                run.events.add("peer left")
            return
        finally:
            has_written.set()
    run.events.discard("peer cut")
    has_written.set()


async def _write_all_as_peer(run: Run, peer: trio.abc.SendStream) -> None:
    for _ in range(run.random.choice([0, 0, 1, 3])):
        await run.pause()()
        data = run.random.randbytes(run.random.choice([1, 20, 500]))
        run.sent_by_peer += data
        await peer.send_all(data)
    is_tls = isinstance(peer, trio.SSLStream)
    if isinstance(peer, trio.abc.HalfCloseableStream) and not is_tls and run.random.random() < 0.4:
        await run.pause()()
        run.log("peer", "half-closes")
        await peer.send_eof()


# ---- A run -------------------------------------------------------------------------------------


async def _play(run: Run) -> Stack:
    stack = await make_stack(run)
    run.messages = [[] for _ in stack.writers]
    async with trio.open_nursery() as peers:
        peers.start_soon(play_peer, run, stack)
        async with trio.open_nursery() as closers:
            async with trio.open_nursery() as nursery:
                if stack.reader is not None and run.random.random() < 0.7:
                    closers.start_soon(read, run, stack)
                for number in range(len(stack.writers)):
                    nursery.start_soon(write, run, stack, number)
                others = run.random.choice([0, 0, 0, 1, 2])
                for number in range(others):
                    closers.start_soon(_close_some_time, run, stack, f"closer {number}")
            layer = run.random.choice(stack.layers)
            ending = await end(run, stack, layer, "end", await look(run, stack))
            if not others and stack.is_one:
                if all(one.closed for one in stack.layers):
                    run.ending = ending
                elif not stack.has_branches:
                    run.fault("a close has not closed all")
            await _close_all(run, stack)
    return stack


async def _close_some_time(run: Run, stack: Stack, who: str) -> None:
    for _ in range(3):
        await run.pause()()
    layers = [*stack.layers, stack.reader or stack.layers[-1]]
    await end(run, stack, run.random.choice(layers), who)


async def _close_all(run: Run, stack: Stack) -> None:
    layers = [*reversed(stack.layers)]
    if stack.reader is not None:
        layers.append(stack.reader)
    for layer in layers:
        await _call(run, stack, "close (last)", layer.aclose)
    now = trio.current_time()
    for layer in layers:
        if not layer.closed:
            run.fault(f"{layer!r} was left open")
        await layer.aclose()
    if trio.current_time() != now:
        run.fault("a later aclose has waited")


def play(seed: int) -> Run:
    """Make and run what the seed says, and compare it with the laws."""
    run = Run(seed)

    async def main() -> None:
        try:
            with trio.fail_after(100_000):
                stack = await _play(run)
        except trio.TooSlowError:
            run.fault("it hangs")
            return
        for one in caught:
            run.warnings.append(str(one.message))
            run.log("warning", run.warnings[-1])
        check(run, stack)

    with scheduled_by(seed), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trio.run(main, clock=jumping_clock())
    return run
