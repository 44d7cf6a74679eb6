"""Files: what the shell does with a part of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ._budget import KERNEL_RATE, POLL_COST, TRANSPORT_RATE, rate_of
from ._errors import NotReady, WriteZeroError
from ._file_part import FilePart, ended_early, file_count
from ._stack import call_poll
from ._write_cursor import write_cursor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._async_write import AsyncWrite
    from ._lifecycle import Call


async def write_all_file(
    writer: AsyncWrite,
    part: FilePart,
    poll: Callable[[AsyncWrite, Call, FilePart], bool] | None = None,
) -> None:
    """What ``AsyncWrite.write_all_file`` does.

    Args:
        writer: the writer.
        part: what to write.
        poll: writes all of it; False if the file ends before.
    """
    if not await _write(writer, part, poll or poll_all_of_file, sends=False):
        raise ended_early(part)


async def send_file(writer: AsyncWrite, part: FilePart) -> None:
    """What ``AsyncWrite.send_file`` does."""
    if not await _write(writer, part, poll_send_file, sends=True):
        raise ended_early(part)


# Ctrl-C must not leave the part claimed.
@trio.lowlevel.enable_ki_protection
async def _write(
    writer: AsyncWrite,
    part: FilePart,
    poll: Callable[[AsyncWrite, Call, FilePart], bool],
    *,
    sends: bool,
) -> bool:
    """Write a part by ``poll``; False if its file ends before."""
    if not isinstance(part, FilePart):
        raise TypeError(f"expected a FilePart, got {type(part).__name__}: give FilePart(file)")
    part.claim()
    try:
        return await write_cursor(writer, part, poll, resumable=not sends, sends=sends)
    finally:
        part.leave()


# Ctrl-C must not fall between what was accepted and the part that says so.
@trio.lowlevel.enable_ki_protection
def poll_file(writer: AsyncWrite, part: FilePart) -> int:
    """Write some of a part, and move it past what was accepted; 0 if the file has ended.

    Raises:
        WriteZeroError: if the writer accepts nothing, and the file has not ended.
    """
    limit = part.most()
    # Whether it has bytes for certain, and not because it has grown during the poll.
    is_certain = part.known_ahead > 0
    while True:
        try:
            count = file_count(writer.poll_write_file(part, limit), limit, writer)
        except NotReady:
            part.forget()
            raise
        if count or part.may_end_here():
            break
        if is_certain:
            name = type(writer).__name__
            raise WriteZeroError(f"poll_write_file() of {name} accepted 0 bytes of {part!r}")
        is_certain = True
    file_count(count, part.bound(count), writer)
    part.advance(count)
    return count


def file_rate(writer: AsyncWrite) -> int:
    """How many bytes of a file a unit of the budget pays for."""
    rate = writer.lifecycle.rate or rate_of(writer)
    return max(rate, KERNEL_RATE) if rate >= TRANSPORT_RATE else rate


def poll_all_of_file(writer: AsyncWrite, call: Call, part: FilePart) -> bool:
    """Write all of a part; False if the file ends before."""
    budget = writer.lifecycle.budget
    rate = file_rate(writer)
    while part:
        count = poll_file(writer, part)
        if not count:
            return part.end_here()
        budget.left = max(budget.left - POLL_COST - count // rate, 0)
        call.accepted += count
        if call.buf is None:
            # How much is left without it being resumed; of some files the end is not known.
            call.size = call.accepted + part.known_remaining
        if part and not budget.left:
            raise NotReady(trio.lowlevel.checkpoint)
    return True


def poll_send_file(writer: AsyncWrite, call: Call, part: FilePart) -> bool:
    """Write all of a part, and flush; False if the file ends before."""
    if not call.flushing:
        if not poll_all_of_file(writer, call, part):
            return False
        call.flushing = True
    call_poll(writer, "poll_flush")
    return True
