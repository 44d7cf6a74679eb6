"""What the checks of a writer are made with: the writer at one end, an account at the other.

Theory of operation
===================

Two context managers carry the words of a rule: ``_rule`` for what must end in time and without an
error, ``_refused`` for what must raise.

Every check opens a fresh :class:`Link` with the caller's maker. A link knows what the writer says
it has accepted, and compares that with what comes out at the other end. So "nothing was accepted"
needs no separate check: what was accepted against the rules arrives, and is not in the
account.

A receiving stream is read by a task in the checker's own nursery, since a writer without a buffer
gets nothing done before somebody reads. Out of a clogged writer the maker's own bytes come first,
nobody knows how many; there, the end of what arrives is compared.
"""

from __future__ import annotations

import contextlib
import inspect
import time
import types
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import trio
import trio.abc
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import current_budget
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._checks import counted
from trio_asyncwrite._core._errors import NotReady

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from typing import TypeAlias

    from typing_extensions import Buffer

    Call: TypeAlias = Callable[[], Awaitable[Any]]
    Calls: TypeAlias = dict[str, Call]
    Receiver: TypeAlias = trio.abc.ReceiveStream | Callable[[], Buffer] | None
    Maker: TypeAlias = Callable[[], Awaitable[tuple[AsyncWrite, Receiver]]]

# Spurious wake-ups are allowed, though not without end: that is for a TLS record of 16 KiB that
# waits for each byte, and as many wake-ups for nothing.
_MAX_WAKEUPS = 1 << 15

_MUST_RAISE = object()


def fail(text: str) -> NoReturn:
    raise AssertionError(text)


def require(condition: object, text: str) -> None:
    if not condition:
        fail(text)


def writes(writer: AsyncWrite, data: bytes) -> Calls:
    """All calls that write."""
    return {
        "write": partial(writer.write, data),
        "write_all": partial(writer.write_all, data),
        "write_buf": partial(writer.write_buf, Buf(data)),
        "write_all_buf": partial(writer.write_all_buf, Buf(data)),
        "write_vectored": partial(writer.write_vectored, [data]),
        "write_all_vectored": partial(writer.write_all_vectored, [data]),
        "write_struct": partial(writer.write_struct, f"{len(data)}s", data),
        "send_all": partial(writer.send_all, data),
    }


def uses(writer: AsyncWrite) -> Calls:
    """All calls but ``aclose`` that need an open writer, or one to be flushed."""
    return {
        **writes(writer, b"x"),
        "wait_send_all_might_not_block": writer.wait_send_all_might_not_block,
        "flush": writer.flush,
        "shutdown": writer.shutdown,
    }


class Link:
    """A writer, what it has accepted, and what has arrived at the other end."""

    def __init__(self, writer: AsyncWrite, receiver: Receiver, *, clogged: bool) -> None:
        self.writer = writer
        self.receiver = receiver
        self.clogged = clogged
        self.accepted = bytearray()
        #: How the stream has ended: "" if properly.
        self.end: str | None = None
        self._arrived = bytearray()
        self._reading = trio.CancelScope()
        self._news = trio.Event()

    @property
    def stream(self) -> trio.abc.ReceiveStream | None:
        """The other end, if it is a stream."""
        return self.receiver if isinstance(self.receiver, trio.abc.ReceiveStream) else None

    async def read(self) -> None:
        """Receive until the end."""
        assert self.stream is not None
        with self._reading:
            try:
                while chunk := await self.stream.receive_some():
                    self._arrived += chunk
                    self._tell()
                self.end = ""
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                self.end = f" and then {exc!r}"
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def news(self) -> None:
        """Wait until something arrives, or the stream ends."""
        await self._news.wait()

    def has_arrived(self, text: str) -> bool:
        """Whether all that was accepted has arrived; nothing else may have.

        Raises:
            AssertionError: with ``text``, if something else has.
        """
        if self.receiver is None:
            return True
        if callable(self.receiver):
            self._arrived = bytearray(self.receiver())
        if self.clogged:
            # A doubled beginning would be taken for the maker's bytes.
            starts = self._arrived.count(self.accepted[:8]) if self.accepted else 0
            require(starts < 2, f"{text}: they came twice")
            return self._arrived.endswith(self.accepted)
        if not self.accepted.startswith(self._arrived):
            pairs = zip(self._arrived, self.accepted, strict=False)
            right = next((i for i, (a, b) in enumerate(pairs) if a != b), len(self.accepted))
            fail(
                f"{text}: {self.account()}, only the first {right} of them right (if your writer "
                f"encodes, maker must return a reader that decodes)"
            )
        return len(self._arrived) == len(self.accepted)

    def account(self) -> str:
        """What has arrived, in words."""
        return f"there came {len(self._arrived)} for {len(self.accepted)} bytes{self.end or ''}"

    def count(self) -> int:
        """How many bytes have arrived."""
        return len(self._arrived)

    def forget_writer(self) -> None:
        """Drop the writer; what is below it stays."""
        inner = self.writer.lifecycle.inner
        assert isinstance(inner, AsyncWrite)
        self.writer = inner

    async def discard(self) -> None:
        """Close both ends, whatever state they are in."""
        self._reading.cancel()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            for end in (self.writer, self.stream):
                if end is not None:
                    with contextlib.suppress(Exception):
                        await trio.aclose_forcefully(end)


class Task:
    """A call in a separate task."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.error: Exception | None = None

    async def run(self) -> None:
        """Make the call, and keep what it raises."""
        try:
            with self.scope:
                await self._call()
        except Exception as exc:  # noqa: BLE001 - the checks look at it
            self.error = exc
        self.done.set()


class _WaitError(Exception):
    """Raised in a wait, for a test of what it breaks."""


@types.coroutine
def _fail_if_cancelled(call: Call) -> Generator[Any, Any, object]:
    """Make a call; where Trio delivers a cancellation, the call meets another exception.

    So it seems to come out of the very wait that the call makes, however deep.
    """
    coroutine: Any = call()
    answer: Any = None
    try:
        while True:
            answer = yield coroutine.send(answer)
            # Trio answers with an outcome; one that is an error has it as an attribute.
            if isinstance(getattr(answer, "error", None), trio.Cancelled):
                answer = type(answer)(_WaitError())
    except StopIteration as stop:
        return stop.value


async def _made(maker: Maker, name: str) -> tuple[AsyncWrite, Receiver]:
    text = f"{name} must be an async function that returns (writer, reader)"
    made: Any = maker()
    if inspect.isawaitable(made):
        made = await made
        with contextlib.suppress(TypeError, ValueError):
            writer, receiver = made
            return writer, receiver
    fail(f"{text}: it returned {made!r}")


class Tools:
    """What a check does to writers, and how it finds out what comes of it."""

    def __init__(
        self,
        maker: Maker,
        clogged_maker: Maker | None,
        hang_after: float,
        total: float,
        nursery: trio.Nursery,
    ) -> None:
        self._maker = maker
        self._clogged_maker = clogged_maker
        self._hang_after = hang_after
        self._total = total
        self._started_at = time.monotonic()
        self._part = ""
        self._nursery = nursery
        self._has_reader = True

    @contextlib.asynccontextmanager
    async def _link(
        self, *, clogged: bool = False, reading: bool = True
    ) -> AsyncGenerator[Link, None]:
        maker = self._clogged_maker if clogged else self._maker
        assert maker is not None
        require(
            time.monotonic() - self._started_at < self._total,
            f"the whole check must end within {counted(self._total, 'second')} (total=...): "
            f"it had come to {self._part}",
        )
        writer, receiver = await _made(maker, "clogged_maker" if clogged else "maker")
        link = Link(writer, receiver, clogged=clogged)
        require(isinstance(writer, AsyncWrite), f"a maker must return an AsyncWrite: {writer!r}")
        del writer  # a check may forget it
        require(
            link.stream is not None or not clogged,
            f"clogged_maker must return a stream: {receiver!r}",
        )
        self._has_reader = link.stream is not None
        if reading:
            self._start_reading(link)
        try:
            yield link
        finally:
            await link.discard()  # noqa: ASYNC102 - it waits for nobody

    def _start_reading(self, link: Link) -> None:
        if link.stream is not None:
            self._nursery.start_soon(link.read)

    @contextlib.contextmanager
    def _rule(self, text: str) -> Generator[None, None, None]:
        """What is in the block must come to its end, in time."""
        with trio.move_on_after(self._hang_after) as scope:
            try:
                yield
            except AssertionError:
                raise
            except Exception as exc:
                raise AssertionError(f"{text}: it raised {exc!r}") from exc
        if scope.cancelled_caught:
            why = (
                ""
                if self._has_reader
                else " (without a reader, the transport must take everything)"
            )
            fail(f"{text}: it hung for {counted(self._hang_after, 'second')}{why}")

    @contextlib.contextmanager
    def _refused(self, error: type[Exception], text: str) -> Generator[None, None, None]:
        """What is in the block must raise ``error``."""
        text = f"{text} must raise {error.__name__}"
        with self._rule(text):
            try:
                yield
            except error:
                return
            fail(f"{text}: it raised nothing")

    async def _checkpoint(self, call: Call, text: str) -> None:
        """Make a call, which must be a full checkpoint."""
        with self._rule(text):
            try:
                with assert_checkpoints():
                    await call()
            except AssertionError as exc:
                raise AssertionError(f"{text}: it returned without one") from exc

    async def _cancelled(self, call: Call, text: str, *, otherwise: object = _MUST_RAISE) -> Any:
        """Make a call in a cancelled scope; if it raises Cancelled, return ``otherwise``."""
        result: object = otherwise
        current_budget().left = 0  # so that a write looks for the cancellation
        with trio.CancelScope() as scope, self._rule(text):
            scope.cancel()
            result = await call()
        require(
            scope.cancelled_caught or otherwise is not _MUST_RAISE,
            f"{text}: in a cancelled scope it must raise Cancelled, and did not",
        )
        return result

    def _start(self, call: Call) -> Task:
        task = Task(call)
        self._nursery.start_soon(task.run)
        return task

    async def _rest(self) -> None:
        with self._rule("while nobody reads, all tasks must come to rest"):
            await wait_all_tasks_blocked()

    async def _join(self, task: Task, text: str, *errors: type[Exception | None]) -> None:
        """Wait for a task, which must raise one of ``errors``, or nothing if there are none."""
        with self._rule(text):
            await task.done.wait()
        fine = isinstance(task.error, errors) if errors else task.error is None
        require(fine, f"{text}: it raised {task.error!r}")

    async def _arrive(self, link: Link, text: str) -> None:
        """Wait until all that was accepted has arrived."""
        deadline = trio.current_time() + self._hang_after
        while not link.has_arrived(text) and link.stream is not None and link.end is None:
            with trio.move_on_at(deadline) as scope:
                await link.news()
            if scope.cancelled_caught:
                break
        require(link.has_arrived(text), f"{text}: {link.account()}")

    async def _end(self, link: Link) -> None:
        """Wait for the end of the stream."""
        if link.stream is not None:
            with self._rule("a closed writer's reader must come to an end"):
                while link.end is None:
                    await link.news()

    async def _clean_end(self, link: Link) -> None:
        """Wait for all that was accepted, and end-of-file behind it."""
        text = "a closed writer's reader must see end-of-file after the last byte"
        await self._arrive(link, text)
        await self._end(link)
        link.has_arrived(text)
        require(not link.end, f"{text}: {link.account()}")

    async def _write(self, link: Link, data: bytes) -> None:
        with self._rule("write_all() must complete while the reader reads"):
            await link.writer.write_all(data)
        link.accepted += data

    async def _flush(self, link: Link, text: str) -> None:
        """Flush behind one more byte: when it has arrived, nothing else can come before it."""
        await self._write(link, b"\n")
        with self._rule("flush() must complete while the reader reads"):
            await link.writer.flush()
        await self._arrive(link, f"after flush(), {text}")
        self._require_sent(link, "flush()")

    def _require_sent(self, link: Link, after: str) -> None:
        unsent = link.writer.unsent_bytes
        require(unsent == 0, f"after {after} unsent_bytes must be 0: it is {unsent!r}")

    async def _poll(self, poll: Callable[..., int], *args: object) -> int:
        """Poll until it is ready."""
        for _ in range(_MAX_WAKEUPS):
            with self._rule(f"{poll.__name__}() must accept something, or raise NotReady"):
                try:
                    return poll(*args)
                except NotReady as not_ready:
                    wait = not_ready.wait
            text = "NotReady.wait() must be a checkpoint, and return when polling may make progress"
            await self._checkpoint(wait, text)
        fail(
            f"{poll.__name__}() must make progress at last: it raised NotReady {_MAX_WAKEUPS} times"
        )

    def _require_free(self, data: bytearray, text: str) -> None:
        try:
            data.append(0)
        except BufferError:
            fail(f"{text}: it cannot be resized")

    async def _require_closed(self, link: Link, by: str) -> None:
        with self._rule(f"aclose() after {by} must do nothing"):
            await link.writer.aclose()
        for calls in (writes(link.writer, b""), uses(link.writer)):
            await self._require_refusals(calls, trio.ClosedResourceError, f"after {by}")

    async def _require_refusals(self, calls: Calls, error: type[Exception], when: str) -> None:
        for name, call in calls.items():
            with self._refused(error, f"{name}() {when}"):
                await call()

    async def _close_forcefully(self, link: Link) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await self._cancelled(link.writer.aclose, "aclose() must always be a full checkpoint")
        unsent = link.writer.unsent_bytes
        reports = [str(one.message) for one in caught if isinstance(one.source, AsyncWrite)]
        require(
            len(reports) == bool(unsent) and all(str(unsent) in report for report in reports),
            "a cancelled aclose() must give one ResourceWarning if it loses bytes, and say how "
            f"many: unsent_bytes is {unsent}, the warnings are {reports}",
        )
        await self._require_closed(link, "a cancelled aclose()")

    async def _fail_waiting(self, call: Call, text: str) -> None:
        """Let the wait that a call makes raise something."""
        task = self._start(partial(_fail_if_cancelled, call))
        await self._rest()
        task.scope.cancel()
        # Where several tasks wait for one call, some meet the cancellation itself.
        await self._join(task, text, _WaitError, type(None))

    async def _cancel_waiting(self, call: Call, name: str) -> None:
        """Cancel a call while it waits."""
        task = self._start(call)
        await self._rest()
        task.scope.cancel()
        await self._join(task, f"{name} must let itself be cancelled while it waits")
