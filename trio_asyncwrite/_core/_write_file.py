"""Files: what the shell does with a part of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ._errors import NotReady
from ._file_part import FilePart, ended_early, file_count
from ._shell import POLLS_PER_TURN, write_from
from ._stack import call_poll

if TYPE_CHECKING:
    from ._async_write import AsyncWrite
    from ._lifecycle import Call


async def write_all_file(writer: AsyncWrite, part: FilePart) -> None:
    """What ``AsyncWrite.write_all_file`` does."""
    if not await write_from(writer, part, poll_all_of_file, whole=True, kind=FilePart):
        raise ended_early(part)


async def send_file(writer: AsyncWrite, part: FilePart) -> None:
    """What ``AsyncWrite.send_file`` does."""
    if not await write_from(
        writer, part, poll_send_file, whole=True, resumable=False, sends=True, kind=FilePart
    ):
        raise ended_early(part)


# Ctrl-C must not fall between what was accepted and the part that says so.
@trio.lowlevel.enable_ki_protection
def poll_file(writer: AsyncWrite, part: FilePart) -> int:
    """Write some of a part, and move it past what was accepted; 0 if the file has ended."""
    limit = part.most()
    count = file_count(writer.poll_write_file(part, limit), limit, writer)
    part.advance(count)
    return count


def poll_all_of_file(writer: AsyncWrite, call: Call, part: FilePart) -> bool:
    """Write all of a part; False if the file ends before."""
    for _ in range(POLLS_PER_TURN):
        if not part:
            return True
        count = poll_file(writer, part)
        if not count:
            return part.end_here()
        call.accepted += count
        if call.buf is None:
            # How much is left without it being resumed; of some files the end is not known.
            call.size = call.accepted + max(part.remaining, bool(part))
    raise NotReady(trio.lowlevel.checkpoint)


def poll_send_file(writer: AsyncWrite, call: Call, part: FilePart) -> bool:
    """Write all of a part, and flush; False if the file ends before."""
    if not call.flushing:
        if not poll_all_of_file(writer, call, part):
            return False
        call.flushing = True
    call_poll(writer, "poll_flush")
    return True
