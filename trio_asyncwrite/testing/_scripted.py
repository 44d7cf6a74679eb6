"""The writer that follows a script."""

from __future__ import annotations

import operator
import reprlib
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn, final

import trio

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._checks import byte_view, counted
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._stack import begin_shutdown, fail

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Buffer, Self

_reprs = reprlib.Repr()
# Long enough to recognise a message by, short enough for two of them in a line.
_reprs.maxother = 60


@dataclass
class _Step:
    #: The call that put it into the script.
    call: str


@dataclass
class _Accept(_Step):
    #: How many bytes are still to be accepted; ``None`` for all of one write.
    count: int | None


@dataclass
class _Expect(_Step):
    #: What is still to be written.
    data: bytes


@dataclass
class _Pause(_Step):
    #: In seconds.
    length: float
    #: When it is over, once a poll has found it.
    end: float | None = None


class _NotReady(_Step):
    pass


@dataclass
class _Fail(_Step):
    error: BaseException


class _Flush(_Step):
    pass


class _Shutdown(_Step):
    pass


@final
class ScriptedWriter(AsyncWrite):
    """A writer that does what a script says, and complains about what the script does not say.

    The script is written step by step; each method that adds one returns the writer::

        writer = ScriptedWriter().expect(b"HELO").not_ready().accept(3).fail(OSError("gone"))

    Polls take the steps in order. :meth:`accept` and :meth:`expect` are for writes, and last until
    their bytes were written, in however many polls. :meth:`not_ready`, :meth:`wait` and
    :meth:`fail` are for the next poll, of whatever kind. Flushes that the script does not mention
    do nothing, and a shutdown that it does not mention is right at its end.

    Anything else is an :exc:`AssertionError` that names the step, what was expected and what came.
    Steps left over are one as well: at a shutdown, at the end of ``async with writer:`` and in
    :meth:`assert_done`. The last two also repeat an earlier complaint, in case the code under test
    has swallowed it.

    Source: ``tokio_test::io::Builder``.
    """

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque()
        self._length = 0
        self._received = bytearray()
        self._complaint: str | None = None

    @property
    def received(self) -> bytes:
        """All bytes accepted so far."""
        return bytes(self._received)

    # ---- The script ------------------------------------------------------------------------

    def accept(self, count: int | None = None) -> Self:
        """Accept the next ``count`` bytes, whatever they are.

        Args:
            count: how many, in bytes. By default, all that the next write offers. 0 accepts
                nothing of the next write, which is how a writer says that it is full.

        Raises:
            TypeError: if ``count`` is not an integer.
            ValueError: if ``count`` is negative.
        """
        if count is None:
            return self._add(_Accept("accept()", None))
        count = operator.index(count)
        if count < 0:
            raise ValueError(f"cannot accept {count} bytes")
        return self._add(_Accept(f"accept({count})", count))

    def expect(self, data: Buffer) -> Self:
        """Accept the next ``len(data)`` bytes, which have to be ``data``.

        Args:
            data: the bytes; at least one.

        Raises:
            TypeError: if ``data`` is not bytes-like.
            BufferError: if ``data`` is a view with gaps.
            ValueError: if ``data`` is empty.

        Source: ``Builder::write``.
        """
        with byte_view(data) as view:
            expected = bytes(view)
        if not expected:
            raise ValueError("cannot expect 0 bytes: a write of nothing is always accepted")
        return self._add(_Expect(f"expect({_reprs.repr(expected)})", expected))

    def not_ready(self) -> Self:
        """Be not ready at the next poll. Its wait is a mere checkpoint."""
        return self._add(_NotReady("not_ready()"))

    def wait(self, seconds: float) -> Self:
        """Be not ready for so long, from the first poll that comes to this step.

        Args:
            seconds: how long, by Trio's clock.

        Raises:
            ValueError: if ``seconds`` is negative or not a number.

        Source: ``Builder::wait``.
        """
        if not seconds >= 0:
            raise ValueError(f"cannot wait for {seconds} seconds")
        return self._add(_Pause(f"wait({seconds})", seconds))

    def fail(self, error: BaseException) -> Self:
        """Fail at the next poll and, since failures are sticky, at every one after it.

        Args:
            error: what to raise. An :exc:`OSError` is raised as :exc:`trio.BrokenResourceError`
                from it, as from a transport; anything else is raised unchanged.

        Source: ``Builder::write_error``.
        """
        return self._add(_Fail(f"fail({error!r})", error))

    def expect_flush(self) -> Self:
        """Insist on a flush here. A shutdown is one, too."""
        return self._add(_Flush("expect_flush()"))

    def expect_shutdown(self) -> Self:
        """Insist on a shutdown here, at the end of the script."""
        return self._add(_Shutdown("expect_shutdown()"))

    def _add(self, step: _Step) -> Self:
        if self._steps and isinstance(self._steps[-1], (_Fail, _Shutdown)):
            raise ValueError(f"nothing can come after {self._steps[-1].call}, got {step.call}")
        self._steps.append(step)
        self._length += 1
        return self

    # ---- The writer ------------------------------------------------------------------------

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Do what the script says. See :meth:`AsyncWrite.poll_write`."""
        return self.poll_write_vectored([data])

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Take ``buffers`` for one write. See :meth:`AsyncWrite.poll_write_vectored`."""
        self.lifecycle.check_write(self)
        data = b"".join(map(byte_view, buffers))
        if not data:
            return 0
        step = self._next_step()
        if isinstance(step, _Expect):
            return self._take_expected(step, data)
        if not isinstance(step, _Accept):
            self._complain(step, _reprs.repr(data))
        if step.count is None:
            step.count = len(data)
        count = min(step.count, len(data))
        step.count -= count
        if not step.count:
            self._steps.popleft()
        self._received += data[:count]
        return count

    def poll_flush(self) -> None:
        """Do what the script says. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        if isinstance(self._next_step(), _Flush):
            self._steps.popleft()

    def poll_shutdown(self) -> None:
        """Do what the script says. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            step = self._next_step()
            while isinstance(step, (_Flush, _Shutdown)):
                self._steps.popleft()
                step = self._next_step()
            if step is not None:
                self._complain(step, "a shutdown")
            self.lifecycle.end()

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing, unless the script says so."""
        return Epilogue.NOTHING

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the writer; if the block has raised nothing, :meth:`assert_done`."""
        await super().__aexit__(exc_type, exc_value, traceback)  # noqa: ASYNC102 - as every close
        if exc_value is None:
            self.assert_done()

    def assert_done(self) -> None:
        """Raise :exc:`AssertionError` if there was a complaint, or steps are left over."""
        if self._complaint is not None:
            raise AssertionError(self._complaint)
        if self._steps:
            rest = ", ".join(step.call for step in self._steps)
            raise AssertionError(
                f"ScriptedWriter: {len(self._steps)} of {self._length} steps are left over: {rest}"
            )

    def _next_step(self) -> _Step | None:
        """The step for a poll to do, once those that are for any poll are through."""
        while self._steps:
            step = self._steps[0]
            if isinstance(step, _NotReady):
                self._steps.popleft()
                raise NotReady(trio.lowlevel.checkpoint)
            if isinstance(step, _Pause):
                now = trio.current_time()
                step.end = end = now + step.length if step.end is None else step.end
                if now < end:
                    raise NotReady(partial(trio.sleep_until, end))
                self._steps.popleft()
            elif isinstance(step, _Fail):
                self._steps.popleft()
                raise self._broken_by(step.error)
            else:
                return step
        return None

    def _broken_by(self, error: BaseException) -> BaseException:
        fail(self, error)
        return error

    def _take_expected(self, step: _Expect, data: bytes) -> int:
        count = min(len(step.data), len(data))
        if data[:count] != step.data[:count]:
            wrong = next(i for i in range(count) if data[i] != step.data[i])
            came, to_come = _reprs.repr(data), _reprs.repr(step.data)
            self._complain(step, f"{came} for {to_come}, and byte {wrong} differs")
        step.data = step.data[count:]
        if not step.data:
            self._steps.popleft()
        self._received += data[:count]
        return count

    def _complain(self, step: _Step | None, what: str) -> NoReturn:
        number = self._length - len(self._steps) + 1
        place = (
            f"step {number}, {step.call}"
            if step
            else f"the end after {counted(self._length, 'step')}"
        )
        self._complaint = f"ScriptedWriter, at {place}: there came {what}"
        fail(self, AssertionError(self._complaint))
        raise AssertionError(self._complaint)

    def __repr__(self) -> str:
        return f"<ScriptedWriter: {len(self._steps)} of {self._length} steps to come>"
