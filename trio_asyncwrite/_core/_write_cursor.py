"""The shell for a cursor that is written by a poll of its own: a file, or a relay's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from ._lifecycle import Call
from ._shell import claim, drive, leave
from ._stack import finished, resumed, set_unfinished, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._async_write import AsyncWrite
    from ._buf import Buf
    from ._file_part import FilePart

C = TypeVar("C", "Buf", "FilePart")
T = TypeVar("T")


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
        poll: writes all of it, and moves it; false if there turns out to be less.
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
    call = Call(cursor.remaining, sends=sends)
    call.buf, call.goes_on = cursor if resumable else None, goes_on or begun
    lifecycle.calls += (call,)
    is_done = False
    try:
        result = await drive(writer, poll, writer, call, cursor, lift=lift, is_full=sends)
        is_done = bool(result)
        if sends and is_done:
            resumed(writer)
        return result
    finally:
        if goes_on and not cursor:
            finished(writer)
        _leave(writer, call, is_done=is_done if sends else not cursor)


def _leave(writer: AsyncWrite, call: Call, *, is_done: bool) -> None:
    lifecycle = writer.lifecycle
    calls = lifecycle.calls
    lifecycle.calls = tuple(one for one in calls if one is not call)
    try:
        if not is_done and call in calls:  # a close that has evicted the call has settled it, too
            settle(writer, call, closed=lifecycle.is_closed(reading=False))
    finally:
        leave(writer)
