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

**Between two bare descriptors the kernel moves the bytes** (splice), once much comes through: by a
pipe that is filled when it is empty, and drained before it is filled again. (Else nobody could tell
a full pipe from a source that has nothing.) ``held`` is then a cursor over nothing: it counts what
is in the pipe, so that all that is said of it here holds.

**While much comes through**, each call moves four times as much: after the copies of so many bytes,
the processor's caches have nothing of Python left, and each line of it costs ten times as much as
otherwise. With blocks of memory only as long as the target takes as much as a small one at once, or
thousands of slow targets would each hold a large one.

**Who is at fault.** A failing source must not break the target. ``is_writing`` says whose poll or
wait it was that has raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import trio

from trio_asyncwrite._core._async_read import AsyncRead, poll_reader, poll_reader_into
from trio_asyncwrite._core._budget import (
    KERNEL_RATE,
    POLL_COST,
    SPENT,
    rate_of,
    spend,
)
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._checks import accepted, counted
from trio_asyncwrite._core._errors import CannotSplice, NotReady
from trio_asyncwrite._core._layer import overrides
from trio_asyncwrite._core._lifecycle import Unfinished
from trio_asyncwrite._core._shell import (
    POLLS_PER_TURN,
    claim,
    drive,
    leave,
    poll_buf,
)
from trio_asyncwrite._core._stack import (
    attach,
    call_poll,
    fail,
    poll_step,
    resumed,
    set_unfinished,
    warn,
)
from trio_asyncwrite._core._write_cursor import write_cursor

from ._block import give_block, take_block
from ._pipe import PIPE_SIZE, Pipe, give_pipe, take_pipe

if TYPE_CHECKING:
    from trio_asyncwrite._core._async_write import AsyncWrite
    from trio_asyncwrite._core._lifecycle import Call
    from trio_asyncwrite._transports._fd import FdWriter

#: A read of less is no bulk: it costs less to copy than to splice.
_SMALL: Final = 16384

#: How many times as much to move by each call, while much comes through.
_BULK_SHARE: Final = 4

#: What a cursor over a pipe points to. Never read, so the system never gives it memory.
_NOTHING: Final = memoryview(bytes(PIPE_SIZE))


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
        "_bulk",
        "_dirty",
        "_held",
        "_is_kept",
        "_keeps_up",
        "_may_splice",
        "_pipe",
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
        # While the kernel moves the bytes, what is held lies in the pipe.
        self._may_splice = source.splices and target.splices
        self._pipe: Pipe | None = None
        # How many bytes have come since the last small read; and whether the target has taken the
        # last block, or as much as a small one holds.
        self._bulk = 0
        self._keeps_up = False
        self._read = 0
        # Whether something was written since the last flush.
        self._dirty = False
        #: Whether the target was used last, and not the source.
        self.is_writing: bool = False
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
        """Move bytes until the source ends, and flush.

        Raises:
            Exception: whatever the source or the target raises; ``is_writing`` says which.

        Cancellation: resumable.
        """
        await self.move()
        await self.flush()

    async def move(self) -> None:
        """Move bytes until the source ends; then the target is still to be flushed.

        Raises:
            Exception: whatever the source or the target raises; ``is_writing`` says which.

        Cancellation: resumable.
        """
        budget = SPENT
        rate = rate_of(self._target)
        try:
            while True:
                while self._held is not None:
                    await self._write_held()
                try:
                    count = self._poll()
                except NotReady as not_ready:
                    wait = not_ready.wait
                else:
                    if not count:
                        break
                    moved = count // (rate if self._pipe is None else KERNEL_RATE)
                    budget = await spend(budget, POLL_COST + moved)
                    continue
                # Whoever waits needs no pipe.
                self._give_pipe_back()
                if self._dirty:
                    await self.flush()
                self.is_writing = False
                await self._source.lifecycle.wait(self._source, wait, reading=True)
        finally:
            self._give_pipe_back()

    def drop(self) -> None:
        """Nobody goes on: let go of what is held."""
        self._is_kept = False
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()

    def __del__(self) -> None:
        """Tell of bytes that nobody else tells of: a target that keeps messages has begun none."""
        if self._is_kept and self.held and self._target.keeps_messages:
            count = counted(self.held, "byte")
            warn(f"a Relay has received {count} and never sent to {self._target!r}", None)

    def _poll(self) -> int:
        """Read once, and write what is taken at once; how many bytes were read, 0 at the end."""
        self.is_writing = False
        if self._may_splice and self._bulk >= self._size:
            spliced = self._poll_splice()
            if spliced is not None:
                return spliced
        # What is held now lies in memory.
        self._give_pipe_back()
        if not self._reads_into:
            data = poll_reader(self._source, self._size)
            self._pass_on(memoryview(data))
            return len(data)
        size = self._bulk_size() if self._keeps_up and self._bulk >= self._size else self._size
        block = take_block(size)
        try:
            source = self._source
            count = poll_reader_into(source, size, source.poll_read_into, block)
        except BaseException:
            give_block(block)
            raise
        self._note_bulk(count)
        # Held also if the target raises, whatever it is: the Buf refers to the block.
        self._block = block
        if not self._pass_on(block[:count]):
            self._give_block_back()
        return count

    def _note_bulk(self, count: int) -> None:
        self._bulk = self._bulk + count if count >= _SMALL else 0

    def _bulk_size(self) -> int:
        return max(self._size, min(_BULK_SHARE * self._size, PIPE_SIZE))

    def _give_block_back(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            give_block(block)

    # ---- Inside the kernel -----------------------------------------------------------------

    def _poll_splice(self) -> int | None:
        """Do what :meth:`_poll` does; None if it cannot be done, and nothing was read."""
        pipe = self._pipe or take_pipe()
        if pipe is None:
            self._may_splice = False
            return None
        self._pipe = pipe
        source = cast("FdWriter", self._source)
        size = min(_BULK_SHARE * self._size, PIPE_SIZE)
        try:
            count = poll_reader_into(source, size, source.poll_splice_to, pipe.writing, size)
        except CannotSplice:
            self._may_splice = False
            self._give_pipe_back()
            return None
        if not count:
            return 0
        self._note_bulk(count)
        self._read += count
        self.is_writing = True
        self._held = held = Buf(_NOTHING[:count])
        if self._is_target_free():
            try:
                self._poll_drain(held)
                self._held = None
            except NotReady:
                pass
            except CannotSplice:
                self._read_back()
            except BaseException as exc:
                fail(self._target, exc)
                raise
        if self.patience is not None:
            self.note_progress()
        return count

    def _poll_drain(self, held: Buf) -> None:
        assert self._pipe is not None
        target = cast("FdWriter", self._target)
        for _ in range(POLLS_PER_TURN):
            size = held.remaining
            count = target.poll_splice_from(self._pipe.reading, size)
            held.advance(accepted(count, size, target))
            if not held.remaining:
                return
        raise NotReady(trio.lowlevel.checkpoint)

    def _read_back(self) -> None:
        """The target cannot be spliced to, and only now it is known: go on as with any other."""
        held, pipe = self._held, self._pipe
        assert held is not None
        assert pipe is not None
        self._may_splice = False
        self._held = Buf(pipe.read_back(held.remaining))
        self._give_pipe_back(is_empty=True)
        owner = self._target.lifecycle
        if owner.unfinished is not None and owner.unfinished.goes_on_with(held):
            set_unfinished(self._target, Unfinished(self._held))

    def _give_pipe_back(self, *, is_empty: bool = False) -> None:
        """... if it is empty: bytes in it are somebody's."""
        pipe = self._pipe
        if pipe is not None and (is_empty or self._held is None):
            self._pipe = None
            give_pipe(pipe)

    # ---- Writing ---------------------------------------------------------------------------

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
        self._keeps_up = count >= min(size, self._size)
        if self.patience is not None:
            self.note_progress()
        return count < size

    def _poll_write(self, view: memoryview) -> int:
        """Write at once, if nothing speaks against it; else the shell does it."""
        target = self._target
        if not self._is_target_free():
            return 0
        try:
            return accepted(target.poll_write(view), len(view), target)
        except NotReady:
            return 0
        except BaseException as exc:
            fail(target, exc)
            raise

    def _is_target_free(self) -> bool:
        """Whether the target may be polled by hand: nobody is inside, and nothing is refused."""
        lifecycle = self._target.lifecycle
        if not lifecycle.attached:
            attach(self._target)
        return lifecycle.refusal is None and lifecycle.is_simple and not lifecycle.inside

    async def _write_held(self) -> None:
        held, target = self._held, self._target
        assert held is not None
        self.is_writing = self._dirty = True
        # A writer that takes messages whole has not begun this one.
        begun = self._is_kept and not target.keeps_messages
        try:
            await write_cursor(target, held, self._poll_held, resumable=self._is_kept, begun=begun)
        except CannotSplice:
            self._read_back()
        else:
            self._held = None
            self._give_block_back()

    def _poll_held(self, writer: AsyncWrite, call: Call, held: Buf) -> None:
        before = held.remaining
        try:
            if self._pipe is not None:
                self._poll_drain(held)
                return
            for _ in range(POLLS_PER_TURN):
                poll_buf(writer, held)
                if not held.remaining:
                    return
            raise NotReady(trio.lowlevel.checkpoint)
        finally:
            call.accepted += before - held.remaining
            if held.remaining != before:
                self.note_progress()

    async def flush(self) -> None:
        """Hand on what the target and the writers below it hold.

        Cancellation: resumable.
        """
        self.is_writing = True
        target = self._target
        if self._is_target_free():
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
