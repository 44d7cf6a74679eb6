"""One stream of bytes to two writers.

Theory of operation
===================

**The order.** ``inner`` accepts first, and decides how much. The same bytes are offered to ``copy``
at once; what it does not take is kept, and nothing more is accepted before it has. So each of the
two gets every byte once and in order, wherever a call is cancelled, and the slower one sets the
pace. No more is offered at once than may be kept.

**With "raise"** both are layers below this one, and equal: they are closed with it, a message that
is cut short tears both, and a failure of one is a failure of this writer. A failure of ``copy``
that comes after ``inner`` has accepted is raised by the next operation (law 1: those bytes were
accepted).

**With "detach"** ``copy`` must not be able to spoil ``inner``: neither by a failure, nor by what it
holds when a stack is closed, nor when somebody else closes it. So the stack does not know it as a
layer below; this writer ends it, by the polls of its own end and in its release. When it fails, it
is closed forcefully with this writer, and forgotten.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Final, Literal, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import rate_of
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._checks import byte_view, checked_buffers
from trio_asyncwrite._core._close import abort_layer
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._frames import without_frames
from trio_asyncwrite._core._lifecycle import ENDED
from trio_asyncwrite._core._shell import POLLS_PER_TURN, poll_buf, poll_data
from trio_asyncwrite._core._stack import (
    attach,
    begin_shutdown,
    fail,
    hold,
    is_refusal,
    keep_for_next_call,
    let_go,
    poll_below,
    poll_step,
    register,
    shut_down,
    writing_chain,
)
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._parts import back, front, poll_parts, release
from ._wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_asyncwrite._core._file_part import FilePart
    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

W = TypeVar("W", bound=AsyncWrite)

#: How much is accepted at once, and so how much may have to be kept, in bytes.
_MAX_CHUNK: Final = 65536


@final
class TeeWriter(Wrapper[W]):
    """Writes everything to two writers: to ``inner``, and a copy to ``copy``.

    It accepts what ``inner`` accepts, at most 64 KiB at once. What ``copy`` has not taken yet is
    kept, and nothing more is accepted until it has: the slower one sets the pace, and no more
    memory is used than that. :attr:`~trio_asyncwrite.Layer.unsent_bytes` counts it.

    A flush, a shutdown and a close are those of both. Reports and probes tell of ``inner``. It is
    write-only. A file is read once for both.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to; it goes through
            :func:`wrap_stream`.
        copy: the other one, likewise.
        on_failure: what a failure of ``copy`` does. ``"raise"``: the writer is broken, as by one of
            ``inner``. ``"detach"``: writing goes on without it, and :attr:`copy_failure` keeps the
            reason. So it does if somebody else closes ``copy``. A failure of ``inner`` is raised in
            any case.

    Raises:
        TypeError: if ``inner`` or ``copy`` is no stream to write to.
        ValueError: if both are the same, or ``on_failure`` is neither of the two.

    Source: tee(1), whose ``--output-error`` has the same choice; ``io.MultiWriter`` of Go.
    """

    #: The writer below.
    inner: W

    @overload
    def __init__(
        self, inner: W, copy: trio.abc.SendStream, *, on_failure: Literal["raise", "detach"] = ...
    ) -> None: ...
    @overload
    def __init__(
        self: TeeWriter[TcpStream],
        inner: trio.SocketStream,
        copy: trio.abc.SendStream,
        *,
        on_failure: Literal["raise", "detach"] = ...,
    ) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(
            self: TeeWriter[PollEvented],
            inner: trio.lowlevel.FdStream,
            copy: trio.abc.SendStream,
            *,
            on_failure: Literal["raise", "detach"] = ...,
        ) -> None: ...

    @overload
    def __init__(
        self: TeeWriter[AsyncWrite],
        inner: trio.abc.SendStream,
        copy: trio.abc.SendStream,
        *,
        on_failure: Literal["raise", "detach"] = ...,
    ) -> None: ...

    def __init__(
        self,
        inner: trio.abc.SendStream,
        copy: trio.abc.SendStream,
        *,
        on_failure: Literal["raise", "detach"] = "raise",
    ) -> None:
        #: What ``copy`` has not taken yet.
        self._kept: Buf | None = None
        #: What came out of ``copy`` after ``inner`` had accepted, until a poll has raised it.
        self._failure: Exception | None = None
        self._copy_failure: Exception | None = None
        if on_failure not in {"raise", "detach"}:
            raise ValueError(f'on_failure must be "raise" or "detach", got {on_failure!r}')
        self._detaches = on_failure == "detach"
        upper, lower = wrap_stream(inner), wrap_stream(copy)
        if upper is lower:
            raise ValueError("inner and copy are the same stream: it would get every byte twice")
        self._copy = lower
        self.inner = upper  # type: ignore[assignment]
        if self._detaches:
            attach(lower)
        else:
            register(self, lower)

    @property
    def copy(self) -> AsyncWrite:
        """The writer that gets a copy."""
        return self._copy

    @property
    def copy_failure(self) -> Exception | None:
        """Why ``copy`` was detached; None if it was not.

        What it had accepted and not sent by then is lost, as is what was kept for it.
        """
        return self._copy_failure

    @answer
    def layers_below(self) -> tuple[object, ...]:
        """Both, unless one can be detached."""
        return (self.inner,) if self._detaches else (self.inner, self._copy)

    announces_held_bytes = True

    @property
    def held_bytes(self) -> int:
        """How many bytes ``inner`` has accepted, and ``copy`` has not."""
        return 0 if self._kept is None else self._kept.remaining

    @property
    def spare_capacity(self) -> int:  # type: ignore[override]
        """What both take at once."""
        if self._kept is not None:
            return 0
        below: int = super().spare_capacity
        return min(below, self._copy.spare_capacity if self._has_copy else below, _MAX_CHUNK + 1)

    @property
    def bytes_per_budget_unit(self) -> int:  # type: ignore[override]
        """Every byte is written twice."""
        return max(min(rate_of(self.inner), rate_of(self._copy)) // 2, 1)

    @answer
    def keeps_messages(self) -> bool:
        """No: a message may go in pieces."""
        return False

    @answer
    def close_patience(self) -> float:
        """That of the more patient one."""
        return max(self.inner.close_patience, self._copy.close_patience)

    @property
    def _has_copy(self) -> bool:
        return self._copy_failure is None

    # Ctrl-C must not fall between what one has accepted and what the other one gets.
    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write ``data`` to both. See :meth:`AsyncWrite.poll_write`."""
        self._make_ready()
        with byte_view(data) as whole, whole[:_MAX_CHUNK] as view:
            inner = self.inner
            count = poll_below(inner, poll_data, inner, view)
            self._copy_parts([view], count)
        return count

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Write the buffers to both, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self._make_ready()
        views = [byte_view(data) for data in checked_buffers(buffers)]
        parts = front(views, _MAX_CHUNK)
        try:
            count = poll_below(self.inner, poll_parts, self.inner, parts)
            self._copy_parts(parts, count)
        finally:
            release(parts)
            release(views)
        return count

    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Read some of the file, and write it. See :meth:`AsyncWrite.poll_write_file`."""
        return AsyncWrite.poll_write_file(self, part, limit)

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Flush both. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        not_ready: NotReady | None = None
        try:
            self._push_kept()
            self._poll_copy(poll_step, self._copy, "poll_flush")
        except NotReady as exc:
            not_ready = exc  # which is no reason to let the other one wait
        try:
            poll_step(self.inner, "poll_flush")
            if not_ready is not None:
                raise not_ready
        finally:
            not_ready = None  # its traceback refers to this frame

    def held_for(self, lower: object) -> int:
        """Everything that is held is for ``copy``; with "detach" nobody but this writer ends it."""
        return self.held_bytes if self._detaches or lower is self._copy else 0

    def poll_flush_side(self, _lower: object, /) -> None:
        """Give ``copy`` what was kept for it. See :meth:`AsyncWrite.poll_flush_side`."""
        self.lifecycle.check_flush(self)
        self._push_kept()

    @trio.lowlevel.enable_ki_protection
    def poll_shutdown(self) -> None:
        """Shut both down. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self.poll_flush()
            self._poll_copy(shut_down, self._copy)
            shut_down(self.inner)
            self.lifecycle.end()

    def poll_close(self) -> None:
        """Let ``copy`` write what it writes in its close. See :meth:`AsyncWrite.poll_close`."""
        if self._detaches:
            # Also if only ``inner`` was shut down.
            self._push_kept()
            self._poll_copy(shut_down, self._copy)
            for layer in writing_chain(self._copy):
                self._poll_copy(poll_step, layer, "poll_close")

    def poll_ready(self) -> None:
        """Return if both may be written to. See :meth:`AsyncWrite.poll_ready`."""
        self._make_ready()
        poll_step(self.inner, "poll_ready")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            try:
                fail(self._copy, failure)
                raise failure
            finally:
                del failure  # its traceback refers to this frame

    def _make_ready(self) -> None:
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        self._push_kept()

    def _copy_parts(self, parts: list[memoryview], count: int) -> None:
        """Give ``copy`` the first ``count`` bytes; that they were accepted cannot be undone."""
        if not count or not self._has_copy:
            return
        copy = self._copy
        accepted = front(parts, count)
        taken = 0
        try:
            taken = (
                poll_data(copy, accepted[0]) if len(accepted) == 1 else poll_parts(copy, accepted)
            )
        except NotReady:
            pass
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - the next operation raises it
            self._note_failure(exc)
        if taken < count and self._has_copy:
            rest = back(accepted, taken)
            self._kept = Buf(b"".join(rest))
            hold(self)
            release(rest)
        release(accepted)

    def _note_failure(self, exc: BaseException) -> None:
        if not isinstance(exc, Exception):
            fail(self._copy, exc)
            keep_for_next_call(self, exc)
        elif self._detaches:
            self._detach(exc)
        elif not is_refusal(exc):  # which the next poll would meet again
            self._failure = exc

    @trio.lowlevel.enable_ki_protection
    def _push_kept(self) -> None:
        """Give ``copy`` what was kept for it; or raise what it has raised before."""
        self._raise_failure()
        for _ in range(POLLS_PER_TURN):
            kept = self._kept
            if kept is None:
                return
            self._poll_copy(poll_buf, self._copy, kept)
            if self._kept is not None and not kept:
                self._kept = None
                let_go(self)
        if self._kept is not None:
            raise NotReady(trio.lowlevel.checkpoint)

    def _poll_copy(self, poll: Callable[..., object], *args: object) -> None:
        """Poll ``copy``, if it is still there."""
        if not self._detaches:
            poll_below(self._copy, poll, *args)
        elif self._has_copy:
            try:
                poll(*args)
            except NotReady:
                raise
            except Exception as exc:  # noqa: BLE001 - it must not spoil the other one
                self._detach(exc)

    def _detach(self, exc: Exception) -> None:
        self._copy_failure = without_frames(exc)  # which refer to us
        if self._kept is not None:
            self._kept = None
            let_go(self)
        with contextlib.suppress(trio.BrokenResourceError):
            fail(self._copy, exc)

    async def release(self, *, clean: bool) -> None:
        """Close ``copy``, if the stack does not. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        """
        copy = self._copy
        if not self._detaches:
            return
        if self._has_copy and copy.lifecycle.phase is ENDED:
            if copy.lifecycle.close is not None:
                return  # another task, which may linger: nothing is left to be done here
            try:
                await copy.aclose()
            except Exception as exc:  # noqa: BLE001 - it must not spoil the other one
                self._copy_failure = without_frames(exc)
            return
        if not clean:
            # What could be flushed at once, was. A copy must not look complete, either; and that
            # the stream was cut short, whoever closes it is told already.
            await abort_layer(copy)
            return
        with contextlib.suppress(Exception):
            await trio.aclose_forcefully(copy)

    def __repr__(self) -> str:
        return f"<TeeWriter over {self.inner!r} and {self._copy!r}>"
