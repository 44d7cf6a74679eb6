"""The contract of AsyncWrite as an executable checker.

Theory of operation
===================

Each rule of the contract is stated in words where it is checked, and the words are what a
violation says. The simplest rules come first, so that a writer is told what is plainly wrong with
it before the sweeps find the consequences. What the checks are made with is in
``_check_tools.py``.
"""

from __future__ import annotations

import contextlib
import random
import struct
import tempfile
import warnings
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any, final

import trio
from trio.testing import assert_checkpoints

from trio_asyncwrite._core._async_write import AsyncReadWrite
from trio_asyncwrite._core._budget import LIMIT
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._checks import counted
from trio_asyncwrite._core._close import extent_of
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._file_part import FilePart
from trio_asyncwrite._core._stack import contains

from ._cancel import Sweep, cancel_everywhere, fair_scheduler
from ._check_tools import Tools, fail, require, uses, writes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._check_tools import Call, Calls, Maker

# Random, so that bytes lost, doubled or out of order are told from the right ones, and do not
# turn up in what a maker has clogged its writer with.
_TEXT = random.Random(0).randbytes(1024)  # noqa: S311

# More than a pipe takes at once.
_LARGE = _TEXT * 128

# More than a transport takes while nobody reads: one of them is.
_GROWING = (_TEXT, _LARGE, _LARGE * 8)

_SIZES = (b"", _TEXT[:1], _TEXT[:2], _TEXT[:100], _TEXT, _LARGE)

# The limit of a poll that writes a file.
_PIECE_OF_FILE = 7

# A sweep may take several runs for each byte.
_SWEPT = _TEXT[:40]

# More parts than one poll is offered.
_MANY_PARTS = [bytes([byte]) for byte in _LARGE[:1030]]


async def check_async_write(
    maker: Maker,
    clogged_maker: Maker | None = None,
    *,
    exclusive: bool = True,
    hang_after: float = 60.0,
    total: float = 600.0,
    progress: Callable[[str], object] | None = None,
) -> None:
    """Check a writer against the contract of :class:`~trio_asyncwrite.AsyncWrite`.

    It checks all promises of the contract: arguments, counts, checkpoints, errors, two tasks at
    once, every way to end, and, with :func:`cancel_everywhere`, cancellation at each checkpoint::

        async def maker():
            inner, reader = simplex(capacity=16)
            return MyWriter(inner), reader

        await check_async_write(maker)

    A writer of fixed size needs room for 1 MiB. Under a :class:`trio.testing.MockClock` with an
    ``autojump_threshold`` of 0, a hang is found at once.

    Args:
        maker: an async callable that returns a new writer and its other end: a
            :class:`trio.abc.ReceiveStream`, which yields the bytes written and ends when the
            writer is closed; or a plain callable, which returns all bytes that have arrived so
            far, also after the close; or ``None`` if the bytes cannot be read. If the writer
            encodes, the other end must decode, give out data as soon as it can, and leave out a
            trailer. Without a stream, the writer's transport must take everything.
        clogged_maker: the same, for a writer that cannot accept a single byte before its stream is
            read from. Only with it can calls that wait be checked. Leave it out if a wait is
            not safe to cancel, as with :func:`~trio_asyncwrite.wrap_stream` over a plain stream.
        exclusive: whether the writer is for one task at a time, so that a second one gets
            :exc:`trio.BusyResourceError`. False for a writer made to be shared, such as
            :class:`~trio_asyncwrite.SharedWriter`: it must serve tasks in the order in which they
            come, and keep together what one call writes.
        hang_after: how many seconds a call may take by Trio's clock.
        total: how many seconds the whole check may take, by the wall clock: what a mock clock
            skips does not count. It is looked at before each writer that is made.
        progress: called with a line of text before each of the parts of the check. ``print``
            shows where it is.

    Raises:
        AssertionError: if the writer breaks a rule of the contract; it says which, in words.

    Cancellation: nothing happened; a later call is not affected.
    """
    failure: Exception | None = None
    with fair_scheduler:
        async with trio.open_nursery() as nursery:
            try:
                checker = _Checker(maker, clogged_maker, hang_after, total, nursery)
                await checker.check(progress or (lambda _: None), exclusive=exclusive)
            except Exception as exc:  # noqa: BLE001 - raised below; here, a group would wrap it
                failure = exc
            nursery.cancel_scope.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


@final
class _Checker(Tools):
    async def check(self, progress: Callable[[str], object], *, exclusive: bool) -> None:
        """Make all checks."""
        parts = self._parts(exclusive=exclusive)
        for number, (name, part) in enumerate(parts, 1):
            self._part = f"{name}, part {number} of {len(parts)}"
            progress(self._part)
            await part()

    def _parts(self, *, exclusive: bool) -> list[tuple[str, Call]]:
        """The checks in their order, each with a name for those who wait."""
        parts: list[tuple[str, Call]] = [
            ("polls", self._check_polls),
            ("counts", self._check_counts),
            ("whole writes", self._check_whole_writes),
            ("unsent_bytes", self._check_unsent_bytes),
            ("arguments", self._check_arguments),
            ("ownership of the data", self._check_ownership),
            ("shutdown", self._check_shutdown),
            ("aclose", self._check_aclose),
            ("a cancelled aclose", self._check_cancelled_aclose),
            ("a broken writer", self._check_broken),
            ("a failed write", self._check_failed_write),
            ("a close of the layer below", self._check_closing_below),
            ("checkpoints", self._check_checkpoints),
            ("files", self._check_files),
            ("the budget", self._check_budget),
            ("cancelled writes", self._check_cancelled_writes),
            ("two tasks", self._check_two_tasks if exclusive else self._check_sharing),
            ("a close beside other tasks", self._check_closing_beside_others),
            ("by_ref", self._check_by_ref),
        ]
        if self._clogged_maker is not None:
            parts += [
                ("NotReady", self._check_not_ready),
                ("waiting", self._check_waiting),
                ("two tasks that wait", self._check_busy if exclusive else self._check_line),
                ("cancelled waits", self._check_cancelled_waits),
                ("failing waits", self._check_failing_waits),
                ("losses", partial(self._check_losses, exclusive=exclusive)),
                ("a close under a task", self._check_closing_under_a_task),
                ("a close while another closes", self._check_closing_while_closing),
            ]
        for clogged in (False, True) if self._clogged_maker is not None else (False,):
            when = " while it waits" if clogged else ""
            for name, sweep in (
                ("resuming", self._resuming),
                ("counting", self._counting),
                ("losing", self._losing),
            ):
                swept = partial(cancel_everywhere, partial(sweep, clogged=clogged))
                parts.append((f"cancelled everywhere{when}: {name}", swept))
        return parts

    async def _check_losses(self, *, exclusive: bool) -> None:
        for data in _GROWING:
            had_to_wait = await self._check_lossy_close(data)
            if exclusive:
                await self._check_torn(data)
                await self._check_unfinished(data)
            if had_to_wait:
                break

    # ---- Any writer ------------------------------------------------------------------------

    async def _check_polls(self) -> None:
        # First of all, for what polls do wrong, the rest does in a less plain way.
        async with self._link() as link:
            for data in _SIZES:
                parts = [memoryview(part) for part in (b"", data[:1], b"", data[1:])]
                count = await self._poll(link.writer.poll_write, memoryview(data))
                link.accepted += data[: self._counted(count, len(data), "poll_write()")]
                count = await self._poll(link.writer.poll_write_vectored, parts)
                link.accepted += data[: self._counted(count, len(data), "poll_write_vectored()")]
            await self._flush(link, "just the bytes that were accepted must have arrived, in order")

    def _counted(self, count: Any, size: int, name: str) -> int:
        fine = isinstance(count, int) and min(size, 1) <= count <= size
        require(
            fine,
            f"{name} of {counted(size, 'byte')} must return how many it accepted: it returned "
            f"{count!r}",
        )
        return int(count)

    async def _check_counts(self) -> None:
        async with self._link() as link:
            writer = link.writer
            for data in _SIZES:
                parts = [b"", data[:1], b"", data[1:]]
                buf = Buf(*parts)
                calls: Calls = {
                    "write()": partial(writer.write, data),
                    "write_vectored()": partial(writer.write_vectored, parts),
                    "write_buf()": partial(writer.write_buf, buf),
                }
                count = 0
                for name, call in calls.items():
                    with self._rule(f"{name} must complete while the reader reads"):
                        count = await call()
                    link.accepted += data[: self._counted(count, len(data), name)]
                moved = len(data) - buf.remaining
                text = "write_buf() must advance the Buf past exactly what it accepted"
                require(moved == count, f"{text}: {moved} bytes for {count}")
            await self._flush(link, "just the bytes that were accepted must have arrived, in order")

    async def _check_files(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(_TEXT)
            file.flush()
            async with self._link() as link:
                writer, part = link.writer, FilePart(file)
                if not writer.keeps_messages:
                    count = await self._poll(writer.poll_write_file, part, _PIECE_OF_FILE)
                    self._counted(count, _PIECE_OF_FILE, "poll_write_file()")
                    require(part.offset == 0, "poll_write_file() must leave the part as it is")
                    part.advance(count)
                with self._rule("write_all_file() must complete while the reader reads"):
                    await writer.write_all_file(part)
                link.accepted += _TEXT
                await self._flush(link, "just the bytes of a file must have arrived, in order")
                end = FilePart(file, len(_TEXT))
                count = await self._poll(writer.poll_write_file, end, _PIECE_OF_FILE)
                require(
                    count == 0, f"poll_write_file() at the end of a file must return 0: {count!r}"
                )

    async def _check_whole_writes(self) -> None:
        async with self._link() as link:
            writer = link.writer
            for data in (_TEXT, b""):
                buf = Buf(data[:1], data[1:])
                calls: Calls = {
                    "write_all": partial(writer.write_all, data),
                    "write_all_vectored": partial(writer.write_all_vectored, [data[:9], data[9:]]),
                    "write_all_buf": partial(writer.write_all_buf, buf),
                    "write_struct": partial(writer.write_struct, f"{len(data)}s", data),
                }
                for name, call in calls.items():
                    with self._rule(f"{name}() must complete while the reader reads"):
                        await call()
                    link.accepted += data
                    await self._flush(link, f"all that {name}() was given must have arrived once")
                require(not buf.remaining, "write_all_buf() must leave nothing in the Buf")
                with self._rule("send_all() must complete while the reader reads"):
                    await writer.send_all(data)
                link.accepted += data
                await self._arrive(link, "what send_all() has sent must arrive without a flush()")
                self._require_sent(link, "send_all()")
            text = "write_all_vectored() must write all parts, however many"
            with self._rule(text):
                await writer.write_all_vectored(_MANY_PARTS)
            link.accepted += b"".join(_MANY_PARTS)
            await self._flush(link, text)

    async def _check_unsent_bytes(self) -> None:
        async with self._link() as link:
            await self._write(link, _TEXT)
            unsent: Any = link.writer.unsent_bytes
            fine = isinstance(unsent, int) and unsent >= 0
            require(fine, f"unsent_bytes must be a number of bytes: it is {unsent!r}")
            if not unsent:
                await self._arrive(
                    link, "what does not arrive without a flush must be unsent_bytes"
                )

    async def _check_arguments(self) -> None:
        async with self._link() as link:
            writer = link.writer
            gaps = memoryview(_TEXT)[::2]
            bad: Any
            for bad in ("text", None, [1, 2], gaps):
                error = BufferError if bad is gaps else TypeError
                what = "a view with gaps" if bad is gaps else repr(bad)
                calls: Calls = {
                    "write": partial(writer.write, bad),
                    "write_all": partial(writer.write_all, bad),
                    "write_vectored": partial(writer.write_vectored, [b"x", bad]),
                    "write_all_vectored": partial(writer.write_all_vectored, [b"x", bad]),
                    "send_all": partial(writer.send_all, bad),
                }
                for name, call in calls.items():
                    with self._refused(error, f"{name}() of {what}"):
                        await call()
            for name in ("write_buf", "write_all_buf"):
                with self._refused(TypeError, f"{name}() of what is not a Buf"):
                    await getattr(writer, name)(b"bytes")
            with self._refused(struct.error, "write_struct() of what does not fit its format"):
                await writer.write_struct("!BH", 1, -1)

            await self._flush(link, "of what was refused, nothing must have been accepted")
            text = "a contiguous view of another item format must count as its bytes"
            for view in (memoryview(array("I", [1, 2])), memoryview(b"123456").cast("B", (2, 3))):
                with self._rule(text):
                    await writer.write_all(view)
                    count = await writer.write(view)
                require(0 < count <= view.nbytes, f"{text}: write() returned {count}")
                link.accepted += view.tobytes() + view.tobytes()[:count]
            await self._flush(link, text)

    async def _check_ownership(self) -> None:
        async with self._link() as link:
            original = _TEXT[:100]
            for name in ("poll_write", "write", "write_all", "send_all", "write_vectored"):
                method = getattr(link.writer, name)
                data = bytearray(original)
                if name == "poll_write":
                    with memoryview(data) as view:
                        count = await self._poll(method, view)
                else:
                    with self._rule(f"{name}() of a bytearray must complete"):
                        count = await method([data] if name == "write_vectored" else data)
                link.accepted += original[:count]
                require(data == original, f"{name}() must not change the caller's buffer")
                self._require_free(data, f"{name}() must not keep the caller's buffer")
                # Whoever kept it in another way sends this now.
                data[:] = bytes(len(data))
            text = "what becomes of the caller's buffer after the call must not matter"
            with self._rule(text):
                await link.writer.flush()
            await self._arrive(link, text)

    async def _check_shutdown(self) -> None:
        async with self._link() as link:
            writer = link.writer
            await self._write(link, _TEXT)
            shutdown = writer.send_eof if isinstance(writer, AsyncReadWrite) else writer.shutdown
            with self._rule("shutdown() must complete while the reader reads"):
                await shutdown()
            await self._arrive(link, "shutdown() must deliver every byte before it ends the stream")
            self._require_sent(link, "shutdown()")
            with self._rule("shutdown() after a completed one must do nothing"):
                await writer.shutdown()
            with self._rule("flush() after a completed shutdown() must do nothing"):
                await writer.flush()
            for calls in (writes(writer, b""), uses(writer)):
                left = {name: calls[name] for name in calls if name not in {"flush", "shutdown"}}
                await self._require_refusals(left, trio.ClosedResourceError, "after shutdown()")
            with self._rule("aclose() after shutdown() must complete"):
                await writer.aclose()
            await self._clean_end(link)

    async def _check_aclose(self) -> None:
        async with self._link() as link:
            await self._write(link, _TEXT)
            with self._rule("aclose() must complete while the reader reads"):
                await link.writer.aclose()
            await self._clean_end(link)
            self._require_sent(link, "aclose()")
            await self._require_closed(link, "aclose()")

    async def _check_cancelled_aclose(self) -> None:
        async with self._link() as link:
            await self._write(link, _TEXT)
            await self._close_forcefully(link)
            await self._end(link)
            text = "what arrives before a cancelled aclose() must be what was written"
            complete = link.has_arrived(text)
            text = "what a cancelled aclose() has lost must be in unsent_bytes"
            require(complete or link.writer.unsent_bytes, f"{text}: {link.account()}")

    async def _check_broken(self) -> None:
        async with self._link(reading=False) as link:
            if link.stream is None:
                return
            writer = link.writer
            await trio.aclose_forcefully(link.stream)
            text = "when the reader has closed, writing must end in BrokenResourceError"
            with self._rule(text), contextlib.suppress(trio.BrokenResourceError):
                # A network may take a while to tell.
                for _ in range(10_000):
                    await writer.send_all(_TEXT)
                fail(f"{text}: it goes on and on")
            for calls in (writes(writer, b""), uses(writer), uses(writer)):
                await self._require_refusals(calls, trio.BrokenResourceError, "after such an error")
            with self._rule("aclose() must not raise what was raised before"):
                await writer.aclose()
            await self._require_closed(link, "aclose()")

    async def _check_failed_write(self) -> None:
        async with self._link(reading=False) as link:
            if link.stream is None:
                return
            writer = link.writer
            await trio.aclose_forcefully(link.stream)
            text = "when the reader has closed, write() must end in BrokenResourceError"
            before = 0
            with self._rule(text), contextlib.suppress(trio.BrokenResourceError):
                while True:
                    before = writer.unsent_bytes
                    await writer.write(_TEXT)
            text = "a write that raises must have accepted nothing"
            after = writer.unsent_bytes
            require(after <= before, f"{text}: unsent_bytes has grown from {before} to {after}")

    async def _check_closing_below(self) -> None:
        async with self._link() as link:
            inner = link.writer.lifecycle.inner
            if inner is None or not contains(extent_of([inner])[0], link.writer):
                return
            text = "aclose() of the layer below must flush a writer that was forgotten"
            await self._write(link, _TEXT[:100])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                link.forget_writer()
                with self._rule(text):
                    await inner.aclose()
            await self._arrive(link, text)

    async def _check_checkpoints(self) -> None:
        async with self._link() as link:
            writer = link.writer
            for name, call in (
                ("send_all", partial(writer.send_all, b"x")),
                ("send_all", partial(writer.send_all, b"")),
                ("flush", writer.flush),
                ("wait_send_all_might_not_block", writer.wait_send_all_might_not_block),
                ("shutdown", writer.shutdown),
                ("shutdown", writer.shutdown),
                ("flush", writer.flush),
                ("aclose", writer.aclose),
                ("aclose", writer.aclose),
            ):
                await self._checkpoint(call, f"{name}() must always be a full checkpoint")
        async with self._link() as link:
            writer = link.writer
            for name, call in (
                ("send_all", partial(writer.send_all, b"x")),
                ("flush", writer.flush),
                ("wait_send_all_might_not_block", writer.wait_send_all_might_not_block),
                ("shutdown", writer.shutdown),
            ):
                await self._cancelled(call, f"{name}() must always be a full checkpoint")

    async def _check_budget(self) -> None:
        async with self._link() as one, self._link() as two, self._link() as three:
            text = f"of {LIMIT + 1} calls of write(), to whatever writers, one must be a checkpoint"
            links = (one, two, three)
            in_a_row = 0
            for number in range(3 * LIMIT):
                link = links[number % 3]
                with self._rule("write() of one byte must accept it"):
                    try:
                        with assert_checkpoints():
                            await link.writer.write(b"x")
                    except AssertionError:
                        in_a_row += 1
                    else:
                        in_a_row = 0
                link.accepted += b"x"
                require(in_a_row <= LIMIT, text)

            async def write_on() -> None:
                for _ in range(LIMIT + 1):
                    await one.writer.write(b"x")
                    one.accepted += b"x"

            await self._cancelled(write_on, text)
            for link in links:
                await self._flush(link, "a write that raises Cancelled must have accepted nothing")

    async def _check_cancelled_writes(self) -> None:
        async with self._link() as link:
            writer = link.writer
            buf = Buf(_TEXT)
            text = "a write that raises Cancelled must have accepted nothing"
            for call in (
                partial(writer.write, _TEXT),
                partial(writer.write_vectored, [_TEXT[:1], _TEXT[1:]]),
                partial(writer.write_buf, buf),
            ):
                count = await self._cancelled(call, text, otherwise=0)
                link.accepted += _TEXT[:count]
            require(buf.remaining == len(_TEXT) - count, f"{text}: but its Buf has moved")
            await self._flush(link, text)

    async def _check_two_tasks(self) -> None:
        async with self._link() as link:
            writer = link.writer
            text = "of two tasks in a writer, one must get BusyResourceError and one be unharmed"
            for call in (writer.flush, partial(writer.send_all, _TEXT)):
                tasks = [self._start(call), self._start(call)]
                with self._rule(text):
                    for task in tasks:
                        await task.done.wait()
                errors = [task.error for task in tasks if task.error is not None]
                fine = len(errors) == 1 and isinstance(errors[0], trio.BusyResourceError)
                require(fine, f"{text}: they raised {errors}")
            link.accepted += _TEXT
            await self._flush(link, "a task that gets BusyResourceError must have written nothing")

    async def _check_sharing(self) -> None:
        async with self._link() as link:
            writer = link.writer
            text = "tasks that share a writer must be served in order, and each message stay whole"
            messages = [_TEXT[at : at + 100] for at in range(0, 500, 100)]
            calls: list[Call] = [partial(writer.send_all, message) for message in messages]
            tasks = [self._start(call) for call in (*calls, writer.flush, writer.flush)]
            for task in tasks:
                await self._join(task, text)
            link.accepted += b"".join(messages)
            await self._flush(link, text)

    async def _check_closing_beside_others(self) -> None:
        async with self._link() as link:
            writer = link.writer
            flush, *closes = map(self._start, (writer.flush, writer.aclose, writer.aclose))
            for close in closes:
                await self._join(close, "aclose() must get in while other tasks use the writer")
            text = "a flush() that another task's aclose() ends must raise ClosedResourceError"
            await self._join(flush, text, trio.ClosedResourceError, type(None))
            await self._clean_end(link)

    async def _check_by_ref(self) -> None:
        async with self._link() as link:
            for end in ("aclose", "shutdown"):
                async with link.writer.by_ref() as ref:
                    with self._rule("write_all() to a by_ref() must do what its original's does"):
                        await ref.write_all(_TEXT[:100])
                    link.accepted += _TEXT[:100]
                    with self._rule(f"{end}() of a by_ref() must complete"):
                        await getattr(ref, end)()
                    await self._arrive(link, f"{end}() of a by_ref() must flush its original")
                    with self._refused(
                        trio.ClosedResourceError, f"write() to a by_ref() after {end}()"
                    ):
                        await ref.write(b"x")
                text = f"{end}() of a by_ref() must leave its original open"
                with self._rule(text):
                    await link.writer.send_all(_TEXT[:100])
                link.accepted += _TEXT[:100]
                await self._arrive(link, text)

    # ---- Clogged writers -------------------------------------------------------------------

    async def _check_not_ready(self) -> None:
        async with self._link(clogged=True, reading=False) as link:
            poll = link.writer.poll_write
            text = "clogged_maker must return a writer whose poll_write() raises NotReady"
            data = bytearray(_TEXT[:100])
            with self._rule(text):
                try:
                    with memoryview(data) as view:
                        count = poll(view)
                    fail(f"{text}: it accepted {count} bytes")
                except NotReady as not_ready:
                    wait = not_ready.wait
            self._require_free(data, "poll_write() that raises NotReady must not keep the buffer")
            await self._cancelled(wait, "NotReady.wait() must be a checkpoint")
            await self._cancel_waiting(wait, "NotReady.wait()")
            self._start_reading(link)
            while rest := _SWEPT[len(link.accepted) :]:
                link.accepted += rest[: await self._poll(poll, memoryview(rest))]
            await self._flush(
                link, "every byte must have arrived exactly once, whatever waits were cancelled"
            )

    async def _check_waiting(self) -> None:
        async with self._link(clogged=True, reading=False) as link:
            task = self._start(link.writer.wait_send_all_might_not_block)
            await self._rest()
            self._start_reading(link)
            await self._join(task, "wait_send_all_might_not_block() must see that somebody reads")

    async def _check_busy(self) -> None:
        async with self._link(clogged=True, reading=False) as link:
            task = self._start(partial(link.writer.write_all_buf, Buf(_SWEPT)))
            await self._rest()
            await self._require_refusals(
                uses(link.writer), trio.BusyResourceError, "while another task waits in the writer"
            )
            self._start_reading(link)
            link.accepted += _SWEPT
            text = "a second task that gets BusyResourceError must not harm the first"
            await self._join(task, text)
            await self._flush(link, text)

    async def _check_line(self) -> None:
        async with self._link(clogged=True, reading=False) as link:
            writer = link.writer
            buf = Buf(_TEXT[100:150], _TEXT[150:200])
            first = self._start(partial(writer.write_all_buf, Buf(_SWEPT)))
            await self._rest()
            second = self._start(partial(writer.write_all_buf, buf))
            await self._rest()
            third = self._start(partial(writer.write_all, _TEXT[200:300]))
            await self._rest()
            second.scope.cancel()
            text = "a task that waits for its turn must let itself be cancelled"
            await self._join(second, text)
            require(
                buf.remaining in (0, 100), f"{text}: it has written {100 - buf.remaining} bytes"
            )
            self._start_reading(link)
            link.accepted += _SWEPT + _TEXT[100 : 200 - buf.remaining] + _TEXT[200:300]
            text = "a task that is cancelled while it waits for its turn must not harm the others"
            for task in (first, third):
                await self._join(task, text)
            await self._flush(link, text)

    async def _check_cancelled_waits(self) -> None:
        async with self._link(clogged=True, reading=False) as link:
            writer = link.writer
            calls = writes(writer, _SWEPT)
            for name in ("write", "write_vectored", "write_buf"):
                await self._cancel_waiting(calls[name], f"{name}()")
            buf = Buf(_SWEPT)
            for _ in range(2):
                await self._cancel_waiting(partial(writer.write_all_buf, buf), "write_all_buf()")
            self._start_reading(link)
            link.accepted += _SWEPT
            with self._rule("write_all_buf() must complete when it is called again"):
                await writer.write_all_buf(buf)
            await self._flush(link, "a write that raises Cancelled must have accepted nothing")

    async def _check_failing_waits(self) -> None:
        async with self._link(clogged=True, reading=False) as link:
            writer = link.writer
            text = "an exception that a wait raises must break nothing"
            buf = Buf(_SWEPT)
            for name, call in (
                ("write", partial(writer.write, _SWEPT)),
                ("flush", writer.flush),
                ("wait_send_all_might_not_block", writer.wait_send_all_might_not_block),
                ("write_all_buf", partial(writer.write_all_buf, buf)),
            ):
                await self._fail_waiting(call, f"{name}() must raise what a wait raises")
            self._start_reading(link)
            link.accepted += _SWEPT
            with self._rule(text):
                await writer.write_all_buf(buf)
            await self._flush(link, text)

    async def _check_closing_under_a_task(self) -> None:
        for name in ("write", "write_all_buf", "send_all", "wait_send_all_might_not_block"):
            for graceful in (False, True):
                async with self._link(clogged=True, reading=False) as link:
                    task = self._start(uses(link.writer)[name])
                    await self._rest()
                    # It is allowed to return too early.
                    early = name.startswith("wait") and task.done.is_set()
                    require(
                        early or task.error is not None or not task.done.is_set(),
                        f"{name}() of one byte returned instead of waiting: clogged_maker must "
                        f"return a writer that cannot accept a single byte",
                    )
                    if graceful:
                        closing = self._start(link.writer.aclose)
                        await self._rest()
                        self._start_reading(link)
                        await self._join(closing, "aclose() must complete once the reader reads")
                        await self._clean_end(link)
                    else:
                        await self._close_forcefully(link)
                    text = f"aclose() must end another task's {name}() with ClosedResourceError"
                    await self._join(task, text, type(None) if early else trio.ClosedResourceError)

    async def _check_closing_while_closing(self) -> None:
        async with self._link(clogged=True, reading=False) as link:
            first = self._start(link.writer.aclose)
            await self._rest()
            await self._close_forcefully(link)
            text = "a cancelled aclose() must cut another task's aclose() short"
            await self._join(first, text, trio.ClosedResourceError, type(None))

    # ---- Writers that take a part and then wait ----------------------------------------------

    async def _check_lossy_close(self, data: bytes) -> bool:
        """Write, and close by force; whether only a part of ``data`` was accepted."""
        async with self._link(reading=False) as link:
            writer = link.writer

            async def write_on() -> None:
                while rest := data[len(link.accepted) :]:
                    link.accepted += rest[: await writer.write(rest)]

            task = self._start(write_on)
            await self._rest()
            task.scope.cancel()
            await self._join(task, "write() must let itself be cancelled while it waits")
            await self._close_forcefully(link)
            self._start_reading(link)
            await self._end(link)
            complete = link.has_arrived(
                "what arrives before a cancelled aclose() must be a beginning"
            )
            text = "what a cancelled aclose() has lost must be in unsent_bytes"
            require(complete or writer.unsent_bytes, f"{text}: {link.account()}")
        return len(link.accepted) < len(data)

    async def _check_torn(self, data: bytes) -> None:
        async with self._link(reading=False) as link:
            writer = link.writer
            if writer.keeps_messages or not writer.can_be_torn:
                return
            link.accepted += data
            task = self._start(partial(writer.write_all, data))
            await self._rest()
            task.scope.cancel()
            await self._join(task, "write_all() must let itself be cancelled while it waits")
            following = self._start(partial(writer.write, b"x"))
            await self._rest()
            following.scope.cancel()
            closing = self._start(writer.aclose)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                await self._rest()
                waits = not closing.done.is_set()
                self._start_reading(link)
                await self._join(closing, "aclose() must complete after a message was cut short")
            await self._end(link)
            when = "after a message was cut short"
            # Else nothing was accepted, or nothing that a reset has left.
            if 0 < link.count() < len(data):
                link.has_arrived(f"{when}, what arrives must be a beginning of it")
                error = following.error
                text = f"write() {when} must raise BrokenResourceError: it raised {error!r}"
                require(isinstance(error, trio.BrokenResourceError), text)
                require(not waits, f"aclose() {when} must not wait for the reader")

    async def _check_unfinished(self, data: bytes) -> None:
        async with self._link(reading=False) as link:
            writer = link.writer
            buf = Buf(data)
            task = self._start(partial(writer.write_all_buf, buf))
            await self._rest()
            task.scope.cancel()
            await self._join(task, "write_all_buf() must let itself be cancelled while it waits")
            if not 0 < buf.remaining < len(data):
                return
            other = self._start(partial(writer.write, b"x"))
            await self._rest()
            other.scope.cancel()
            text = "write() while a Buf is unfinished must raise BrokenResourceError"
            fine = isinstance(other.error, trio.BrokenResourceError)
            require(fine, f"{text}: it raised {other.error!r}")
            self._start_reading(link)
            link.accepted += data
            with self._rule("an unfinished Buf must be finished by write_all_buf() of the same"):
                await writer.write_all_buf(buf)
            await self._flush(link, "a Buf that was finished later must have arrived exactly once")

    # ---- Cancellation everywhere: scenarios ------------------------------------------------

    async def _resuming(self, sweep: Sweep, *, clogged: bool) -> None:
        """write_all_buf, flush and shutdown are called again and go on where they were."""
        async with self._link(clogged=clogged) as link:
            writer = link.writer
            bufs = [Buf(_SWEPT[:19], _SWEPT[19:20]), Buf(_SWEPT[20:21], _SWEPT[21:])]
            link.accepted += _SWEPT

            async def write_rest() -> None:
                for buf in bufs:
                    if buf.remaining:
                        await writer.write_all_buf(buf)
                        # Not after the second: a shutdown has to flush, too.
                        if bufs[1].remaining:
                            await writer.flush()
                await writer.shutdown()

            with self._rule("write_all_buf(), flush() and shutdown() must complete"), sweep:
                await write_rest()
            with self._rule("what was cancelled must complete when it is called again"):
                await write_rest()
                await writer.flush()
            await self._arrive(link, "cancelled and resumed, every byte must arrive exactly once")
            with self._rule("aclose() after shutdown() must complete"):
                await writer.aclose()
            await self._clean_end(link)

    async def _counting(self, sweep: Sweep, *, clogged: bool) -> None:
        """A write that was cancelled has accepted nothing, any other what it returned."""
        async with self._link(clogged=clogged) as link:
            writer = link.writer

            async def write_rest() -> None:
                while rest := _SWEPT[len(link.accepted) :]:
                    if len(rest) % 2:
                        count = await writer.write(rest[:7])
                    else:
                        count = await writer.write_vectored([rest[:1], rest[1:7]])
                    link.accepted += rest[:count]
                    await writer.wait_send_all_might_not_block()

            with self._rule("write() must complete while the reader reads"), sweep:
                await write_rest()
            with self._rule("write() must complete after a cancelled one"):
                await write_rest()
            await self._flush(link, "a write that raises Cancelled must have accepted nothing")

    async def _losing(self, sweep: Sweep, *, clogged: bool) -> None:
        """What arrives of a cancelled send_all or aclose is a beginning of it."""
        async with self._link(clogged=clogged) as link:
            writer = link.writer
            link.accepted += _SWEPT
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                with self._rule("send_all() and aclose() must complete"), sweep:
                    await writer.send_all(_SWEPT[:32])
                    await writer.write_all(_SWEPT[32:])
                    await writer.aclose()
                with self._rule("aclose() must complete after a cancellation"):
                    await writer.aclose()
            await self._require_closed(link, "aclose()")
            if sweep.cancelled:
                await self._end(link)
                link.has_arrived("what arrives must be a beginning of what was written")
            else:
                await self._clean_end(link)
