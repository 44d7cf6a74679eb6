"""The shell for a cursor that is written by a poll of its own: a file, or a relay's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from ._checks import counted
from ._errors import BrokenRefusal
from ._file_part import FilePart
from ._lifecycle import Call
from ._shell import claim, drive, leave
from ._stack import finished, resumed, set_unfinished, settle, tear

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._async_write import AsyncWrite
    from ._buf import Buf

C = TypeVar("C", "Buf", FilePart)
T = TypeVar("T")


class _CursorCall(Call):
    """The progress of a call that writes from a cursor.

    Args:
        cursor: the cursor, before the first poll.
        sends: as :class:`Call` has it.
    """

    __slots__ = ("_cursor", "_start")

    def __init__(self, cursor: Buf | FilePart, *, sends: bool) -> None:
        super().__init__(cursor.remaining, sends=sends)
        # A Buf that is written by a poll of its own is nobody else's.
        self._cursor = cursor if isinstance(cursor, FilePart) else None
        self._start = 0 if self._cursor is None else self._cursor.offset

    def is_moved(self) -> bool:
        """Whether somebody else has moved the part before all of it was accepted."""
        part = self._cursor
        if part is None or (self.flushing and not self.sends):
            return False
        return part.offset - self._start != self.accepted

    def moved_text(self) -> str:
        """What to say then."""
        count = counted(self.accepted, "byte")
        return f"a FilePart was moved by somebody else after {count} of it had been accepted"


@trio.lowlevel.enable_ki_protection
async def write_cursor(
    writer: AsyncWrite,
    cursor: C,
    poll: Callable[[AsyncWrite, Call, C], T],
    *,
    resumable: bool = True,
    begun: bool = False,
    sends: bool = False,
) -> T:
    """Write all that is ahead of a cursor; what ``poll`` returns.

    Args:
        writer: the writer.
        cursor: what to write. If it was begun, it is then unfinished, until it is written.
        poll: writes all of it and advances it. It returns a false value if the file ends early.
        resumable: whether the caller keeps the cursor, and can go on with it.
        begun: whether it is unfinished even before a part of it was accepted.
        sends: whether ``poll`` flushes, and the call is not resumed when it is cancelled.
    """
    lifecycle = writer.lifecycle
    unfinished = (lifecycle.original or lifecycle).unfinished
    goes_on = unfinished is not None and unfinished.goes_on_with(cursor)
    if goes_on:
        # Everybody else is refused; this is the one call that may go on.
        set_unfinished(writer, None)
    try:
        lift = claim(writer, writing=True)
    except BaseException:
        if goes_on:
            set_unfinished(writer, unfinished)
        raise
    call = _CursorCall(cursor, sends=sends)
    call.buf, call.goes_on = cursor if resumable else None, goes_on or begun
    lifecycle.add_call(call)
    is_done = returned = False
    try:
        result = await drive(
            writer, _poll_unmoved, writer, call, cursor, poll, lift=lift, is_full=sends
        )
        returned, is_done = True, bool(result)
        if sends and is_done:
            resumed(writer)
        return result
    finally:
        is_moved = not returned and call.is_moved()
        if goes_on and not cursor and not is_moved:
            finished(writer)
        is_whole = is_done if sends else not cursor
        _leave(writer, call, is_done=is_whole and not is_moved, is_moved=is_moved)


def _poll_unmoved(
    writer: AsyncWrite, call: _CursorCall, cursor: C, poll: Callable[[AsyncWrite, Call, C], T]
) -> T:
    """Poll, and refuse a part that somebody else has moved: its bytes would be missing."""
    if not call.is_moved():
        result = poll(writer, call, cursor)
        if not call.is_moved():
            return result
    raise BrokenRefusal(f"{writer!r}: {call.moved_text()}")


def _leave(writer: AsyncWrite, call: _CursorCall, *, is_done: bool, is_moved: bool) -> None:
    lifecycle = writer.lifecycle
    is_ours = lifecycle.remove_call(call)
    try:
        if not is_done and is_ours:
            if is_moved:
                call.buf = None  # nobody can go on with it
                if call.accepted or call.goes_on:
                    tear(writer, call.moved_text())
            settle(writer, call, closed=lifecycle.is_closed(reading=False))
    finally:
        leave(writer)
