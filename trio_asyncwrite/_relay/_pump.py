"""One direction: what a source gives goes to a target, each byte once.

Theory of operation
===================

A pump reads once and writes at once, by two polls without an await in between. What the target has
not taken is in ``held``, a Buf, and nothing more is read until that is empty. So at each await all
bytes that were read are either accepted by the target or in ``held``, and a cancelled pump goes on
where it was.

**Held bytes are an unfinished Buf of the target** (``_shell.py``): until they are written, nobody
else's bytes may come in between, and an end of the target is a truncated one.

**It flushes when the source stalls**, before it waits: the source may be waiting for the answer to
what the target still buffers. It does so only if something was written since the last flush.

**Who is at fault.** A failing source must not break the target. ``is_writing`` says whose poll or
wait it was that has raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_asyncwrite._core._async_read import AsyncRead, poll_reader, poll_reader_into
from trio_asyncwrite._core._budget import pay
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._checks import accepted
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._layer import overrides
from trio_asyncwrite._core._shell import claim, drive, leave, poll_all_of_buf, write_from
from trio_asyncwrite._core._stack import attach, call_poll, fail, poll_step, resumed

from ._block import give_block, take_block

if TYPE_CHECKING:
    from trio_asyncwrite._core._async_write import AsyncWrite
    from trio_asyncwrite._core._lifecycle import Call


class Pump:
    """Moves bytes from ``source`` to ``target``; its user has claimed the source's reading side.

    Args:
        source: the reader.
        target: the writer.
        size: how many bytes to read at once.
        is_kept: whether somebody keeps it, to go on with what it holds.
    """

    __slots__ = (
        "_block",
        "_dirty",
        "_held",
        "_is_kept",
        "_read",
        "_reads_into",
        "_size",
        "_source",
        "_target",
        "is_writing",
        "patience",
        "scope",
    )

    def __init__(
        self,
        source: AsyncRead,
        target: AsyncWrite,
        size: int,
        *,
        is_kept: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._size = size
        self._is_kept = is_kept
        self._reads_into = overrides(type(source), "poll_read_into", AsyncRead)
        # What was read and not accepted yet, and the block that it lies in.
        self._held: Buf | None = None
        self._block: memoryview | None = None
        self._read = 0
        # Whether something was written since the last flush.
        self._dirty = False
        #: Whether the target was used last, and not the source.
        self.is_writing = False
        #: How long no byte may move, in seconds; and what is cancelled then.
        self.patience: float | None = None
        self.scope: trio.CancelScope | None = None

    def note_progress(self) -> None:
        """Bytes have moved just now: be patient again."""
        if self.patience is not None and self.scope is not None:
            self.scope.deadline = trio.current_time() + self.patience

    @property
    def held(self) -> int:
        """How many bytes were read and not accepted by the target."""
        return 0 if self._held is None else self._held.remaining

    @property
    def moved(self) -> int:
        """How many bytes the target has accepted."""
        return self._read - self.held

    async def run(self) -> None:
        """Move bytes until the source ends; and flush.

        Raises:
            Exception: whatever the source or the target raises; ``is_writing`` says which.

        Cancellation: resumable.
        """
        while True:
            if self._held is not None:
                await self._write_held()
            try:
                count = self._poll()
            except NotReady as not_ready:
                wait = not_ready.wait
            else:
                if not count:
                    break
                await pay(8 + count // 4096)
                continue
            if self._dirty:
                await self.flush()
            self.is_writing = False
            await self._source.lifecycle.wait(self._source, wait, reading=True)
        await self.flush()

    def _poll(self) -> int:
        """Read once, and write what is taken at once; how many bytes were read, 0 at the end."""
        self.is_writing = False
        if not self._reads_into:
            data = poll_reader(self._source, self._size)
            self._pass_on(memoryview(data))
            return len(data)
        block = take_block(self._size)
        try:
            count = poll_reader_into(self._source, block)
        except BaseException:
            give_block(block)
            raise
        # Held also if the target raises, whatever it is: the Buf refers to the block.
        self._block = block
        if not self._pass_on(block[:count]):
            self._give_block_back()
        return count

    def _give_block_back(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            give_block(block)

    def _pass_on(self, view: memoryview) -> bool:
        """Write what is taken at once; whether something is left."""
        size = len(view)
        if not size:
            return False
        self._read += size
        self.is_writing = self._dirty = True
        # First all of it, in case the target fails.
        self._held = held = Buf(view)
        count = self._poll_write(view)
        if count == size:
            self._held = None
        else:
            held.advance(count)
        if self.patience is not None:
            self.note_progress()
        return count < size

    def _poll_write(self, view: memoryview) -> int:
        """Write at once, if nothing speaks against it; else the shell does it."""
        target = self._target
        lifecycle = target.lifecycle
        if not lifecycle.attached:
            attach(target)
        if lifecycle.refusal is not None or not lifecycle.is_simple or lifecycle.inside:
            return 0
        try:
            return accepted(target.poll_write(view), len(view), target)
        except NotReady:
            return 0
        except BaseException as exc:
            fail(target, exc)
            raise

    async def _write_held(self) -> None:
        held, target = self._held, self._target
        assert held is not None
        self.is_writing = self._dirty = True
        # A writer that takes messages whole has not begun this one.
        begun = self._is_kept and not target.keeps_messages
        await write_from(
            target, held, self._poll_held, whole=True, resumable=self._is_kept, begun=begun
        )
        self._held = None
        self._give_block_back()

    def _poll_held(self, writer: AsyncWrite, call: Call, held: Buf) -> None:
        before = held.remaining
        try:
            poll_all_of_buf(writer, call, held)
        finally:
            if held.remaining != before:
                self.note_progress()

    async def flush(self) -> None:
        """Hand on what the target and the writers below it hold.

        Cancellation: resumable.
        """
        self.is_writing = True
        target = self._target
        lifecycle = target.lifecycle
        if not lifecycle.attached:
            attach(target)
        if lifecycle.refusal is None and lifecycle.is_simple and not lifecycle.inside:
            try:
                poll_step(target, "poll_flush")
            except NotReady:
                pass
            else:
                self._dirty = False
                return
        lift = claim(target, writing=False)
        try:
            await drive(target, self._poll_flush, lift=lift)
            resumed(target)
        finally:
            leave(target)
        self._dirty = False

    def _poll_flush(self) -> None:
        if self.patience is None:
            call_poll(self._target, "poll_flush")
            return
        before = self._target.unsent_bytes
        try:
            call_poll(self._target, "poll_flush")
        finally:
            if self._target.unsent_bytes != before:
                self.note_progress()
