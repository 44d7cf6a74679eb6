"""The checker is checked by mutation: each of these writers breaks one rule, and is told which."""

from __future__ import annotations

import contextlib
import struct
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    AsyncWrite,
    Buf,
    Cursor,
    FilePart,
    NotReady,
    SharedWriter,
    Sink,
    TcpStream,
    abort,
    simplex,
)
from trio_asyncwrite.testing import _check_tools, check_async_write

from .._streams import clog, clogged, unix_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio.testing import MockClock


class Good(AsyncWrite):
    """What somebody might write: collects 8 bytes before it hands them on."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self.held = bytearray()

    @property
    def held_bytes(self) -> int:
        return len(self.held)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        while len(self.held) >= 8:
            self.push()
        part = bytes(data[: 8 - len(self.held)])
        self.held += part
        return len(part)

    def poll_flush(self) -> None:
        while self.held:
            self.push()
        self.inner.poll_flush()

    def push(self) -> None:
        count = self.inner.poll_write(bytes(self.held))
        del self.held[:count]


MUTANTS: list[tuple[type[Good], str]] = []


def breaks(rule: str) -> Callable[[type[Good]], type[Good]]:
    """Put a class into the table: it has to fail with a message that begins so."""

    def add(cls: type[Good]) -> type[Good]:
        MUTANTS.append((cls, rule))
        return cls

    return add


# ---- Accepting -----------------------------------------------------------------------------


@breaks("poll_write() of 1 byte must return how many it accepted: it returned 0")
class AcceptsNothing(Good):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return 0


@breaks("poll_write() of 1 byte must return how many it accepted: it returned 2")
class ClaimsMore(Good):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return super().poll_write(data) + bool(data)


@breaks("poll_write() of 0 bytes must return how many it accepted: it returned None")
class ReturnsNothing(Good):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> Any:
        super().poll_write(data)


@breaks("write_vectored() of 1024 bytes must return how many it accepted: it returned 1024.0")
class ReturnsFloat(Good):
    async def write_vectored(self, buffers: Sequence[Any]) -> Any:
        count = await super().write_vectored(buffers)
        return 1024.0 if sum(map(len, buffers)) == 1024 else count


@breaks("poll_write_vectored() must accept something, or raise NotReady: it raised Blocking")
class RaisesBlockingIOError(Good):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        if len(self.held) == 8:
            raise BlockingIOError
        return super().poll_write(data)


@breaks("after flush(), just the bytes that were accepted must have arrived, in order: ")
class AcceptsAndIsNotReady(Good):
    rested = False

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        count = super().poll_write(data)
        self.rested = not self.rested
        if self.rested and data:
            raise NotReady(trio.lowlevel.checkpoint)
        return count


@breaks("poll_write() must make progress at last: it raised NotReady 100 times")
class IsNeverReady(Good):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        raise NotReady(trio.lowlevel.checkpoint)


@breaks("after flush(), just the bytes that were accepted must have arrived, in order: ")
class Reorders(Good):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        count = super().poll_write(data)
        self.held.reverse()
        return count


@breaks("after flush(), just the bytes that were accepted must have arrived, in order: there came")
class Loses(Good):
    def push(self) -> None:
        super().push()
        del self.held[:1]


@breaks("after flush(), just the bytes that were accepted must have arrived, in order: ")
class GathersBackwards(Good):
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        return super().poll_write_vectored(buffers[::-1])


@breaks("write_buf() must advance the Buf past exactly what it accepted: 2 bytes for 1")
class MovesTheBufTooFar(Good):
    async def write_buf(self, buf: Buf) -> int:
        count = await super().write_buf(buf)
        buf.advance(min(buf.remaining, 1))
        return count


@breaks("write_all_buf() must leave nothing in the Buf")
class ForgetsTheBuf(Good):
    async def write_all_buf(self, buf: Buf) -> None:
        await self.write_all(b"".join(buf.chunks()))


@breaks("after flush(), all that write_struct() was given must have arrived once: there came")
class PacksTwice(Good):
    async def write_struct(self, format: str, /, *values: Any) -> None:
        await super().write_struct(format + format, *values, *values)


@breaks("after flush(), write_all_vectored() must write all parts, however many: there came")
class TakesATenthOfManyParts(Good):
    async def write_all_vectored(self, buffers: Sequence[Any]) -> None:
        await super().write_all_vectored(buffers[:250])


@breaks("poll_write_file() of 7 bytes must return how many it accepted: it returned 8")
class IgnoresTheLimit(Good):
    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        return super().poll_write_file(part, limit + 1)


@breaks("poll_write_file() must leave the part as it is")
class MovesThePart(Good):
    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        count = super().poll_write_file(part, limit)
        part.advance(count)
        return count


@breaks("after flush(), just the bytes of a file must have arrived, in order")
class SendsFilesTwice(Good):
    async def write_all_file(self, part: FilePart) -> None:
        await super().write_all_file(FilePart(part.fileno()))
        await super().write_all_file(part)


# ---- Flushing ------------------------------------------------------------------------------


@breaks("after flush(), just the bytes that were accepted must have arrived, in order: there came")
class NeverFlushes(Good):
    def poll_flush(self) -> None:
        pass


@breaks("flush() must complete while the reader reads: it hung for 60 seconds")
class FlushesForEver(Good):
    def poll_flush(self) -> None:
        super().poll_flush()
        raise NotReady(trio.sleep_forever)


@breaks("what send_all() has sent must arrive without a flush(): there came")
class SendsWithoutFlush(Good):
    async def send_all(self, data: Any) -> None:
        await self.write_all(data)


@breaks("after send_all() unsent_bytes must be 0: it is 1")
class CountsWhatIsGone(Good):
    sent = False

    async def send_all(self, data: Any) -> None:
        await super().send_all(data)
        self.sent = True

    @property
    def held_bytes(self) -> int:
        return super().held_bytes + self.sent


@breaks("what does not arrive without a flush must be unsent_bytes: there came 1022 for 1024")
class DoesNotCountWhatWaits(Good):
    held_bytes = 0


@breaks("unsent_bytes must be a number of bytes: it is -2")
class CountsBackwards(Good):
    @property
    def held_bytes(self) -> int:
        return -super().held_bytes


# ---- Arguments -----------------------------------------------------------------------------


@breaks("write() of 'text' must raise TypeError: it raised nothing")
class TakesText(Good):
    async def write(self, data: Any) -> int:
        return await super().write(data.encode() if isinstance(data, str) else data)


@breaks("write_all() of [1, 2] must raise TypeError: it raised nothing")
class TakesLists(Good):
    async def write_all(self, data: Any) -> None:
        await super().write_all(bytes(data) if isinstance(data, list) else data)


@breaks("send_all() of a view with gaps must raise BufferError: it raised nothing")
class TakesGaps(Good):
    async def send_all(self, data: Any) -> None:
        await super().send_all(bytes(data) if isinstance(data, memoryview) else data)


@breaks("write_vectored() of 'text' must raise TypeError: it raised nothing")
class LooksAtTheFirst(Good):
    async def write_vectored(self, buffers: Sequence[Any]) -> int:
        return await self.write(next(filter(len, buffers), b""))


@breaks("write_buf() of what is not a Buf must raise TypeError: it raised nothing")
class TakesBytesForABuf(Good):
    async def write_buf(self, buf: Any) -> int:
        return await super().write_buf(buf if isinstance(buf, Buf) else Buf(buf))


@breaks("after flush(), of what was refused, nothing must have been accepted: ")
class PacksPieceByPiece(Good):
    async def write_struct(self, format: str, /, *values: Any) -> None:
        if format == "!BH":
            await self.write_all(struct.pack("!B", values[0]))
        await super().write_struct(format, *values)


@breaks("after flush(), a contiguous view of another item format must count as its bytes: ")
class CountsItems(Good):
    async def write_all(self, data: Any) -> None:
        view = memoryview(data)
        await super().write_all(view.cast("B")[: len(view)] if view.format == "I" else data)


@breaks("poll_write() must not keep the caller's buffer: it cannot be resized")
class KeepsAView(Good):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.view = data[:8]
        return super().poll_write(data)


@breaks("write() must not change the caller's buffer")
class ScribblesOnTheBuffer(Good):
    async def write(self, data: Any) -> int:
        count = await super().write(data)
        if isinstance(data, bytearray):
            data[0] ^= 1
        return count


@breaks("what becomes of the caller's buffer after the call must not matter: there came")
class KeepsTheObject(Good):
    kept: bytearray | None = None

    async def write_all(self, data: Any) -> None:
        if isinstance(data, bytearray):
            self.kept = data
        else:
            await super().write_all(data)

    async def send_all(self, data: Any) -> None:
        await self.flush()
        await super().send_all(data)

    async def flush(self) -> None:
        if self.kept is not None:
            kept, self.kept = self.kept, None
            await super().write_all(bytes(kept))
        await super().flush()


# ---- Ending --------------------------------------------------------------------------------


@breaks("shutdown() must deliver every byte before it ends the stream: there came 1022 for 1024")
class ShutsDownUnflushed(Good):
    def poll_shutdown(self) -> None:
        self.inner.poll_shutdown()


@breaks("after shutdown() unsent_bytes must be 0: it is 1")
class CountsItsEpilogue(Good):
    ending = False

    @property
    def held_bytes(self) -> int:
        return super().held_bytes + self.ending

    async def shutdown(self) -> None:
        await super().shutdown()
        self.ending = True


@breaks("shutdown() after a completed one must do nothing: it raised ClosedResourceError")
class ShutsDownOnce(Good):
    down = False

    async def shutdown(self) -> None:
        if self.down:
            raise trio.ClosedResourceError
        await super().shutdown()
        self.down = True


@breaks("flush() after a completed shutdown() must do nothing: it raised ClosedResourceError")
class FlushesOnlyOpen(Good):
    down = False

    async def shutdown(self) -> None:
        await super().shutdown()
        self.down = True

    async def flush(self) -> None:
        if self.down:
            raise trio.ClosedResourceError
        await super().flush()


@breaks("write() after shutdown() must raise ClosedResourceError: it raised nothing")
class WritesAfterTheEnd(Good):
    async def write(self, data: Any) -> int:
        if self.lifecycle.refusal is None:
            return await super().write(data)
        return len(data)


@breaks("write_all() after shutdown() must raise ClosedResourceError: it raised nothing")
class WritesNothingAfterTheEnd(Good):
    async def write_all(self, data: Any) -> None:
        if data == b"":
            await trio.lowlevel.checkpoint()
        else:
            await super().write_all(data)


@breaks("a closed writer's reader must see end-of-file after the last byte: there came 1022 for")
class ClosesUnflushed(Good):
    async def aclose(self) -> None:
        if not self.held:
            await super().aclose()
        else:
            self.held.clear()
            await super().aclose()


@breaks("a closed writer's reader must come to an end: it hung for 60 seconds")
class KeepsTheReaderWaiting(Good):
    def poll_shutdown(self) -> None:
        self.poll_flush()

    def owns_below(self, is_closing: object) -> bool:
        return False


@breaks("a closed writer's reader must see end-of-file after the last byte: there came 1024 for ")
class EndsUncleanly(Good):
    async def aclose(self) -> None:
        try:
            if not self.closed:
                await self.flush()
        finally:
            await abort(self)


@breaks("aclose() after aclose() must do nothing: it raised ClosedResourceError")
class ClosesOnce(Good):
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError
        self.closed = True
        await super().aclose()


@breaks("flush() after aclose() must raise ClosedResourceError: it raised nothing")
class FlushesClosed(Good):
    closed = False

    async def aclose(self) -> None:
        self.closed = True
        await super().aclose()

    async def flush(self) -> None:
        if not self.closed:
            await super().flush()


@breaks("aclose() must always be a full checkpoint: in a cancelled scope it must raise Cancelled")
class ClosesShielded(Good):
    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await super().aclose()


@breaks("aclose() must always be a full checkpoint: it raised ValueError")
class ClosesWithAnError(Good):
    async def aclose(self) -> None:
        try:
            await super().aclose()
        except trio.Cancelled:
            raise ValueError("cancelled") from None


@breaks("a cancelled aclose() must give one ResourceWarning if it loses bytes, and say how many: ")
class WarnsTwice(Good):
    async def release(self, *, clean: bool) -> None:
        if not clean:
            warnings.warn("it loses bytes", ResourceWarning, source=self, stacklevel=1)


@breaks("what a cancelled aclose() has lost must be in unsent_bytes: there came")
class LosesSilently(Good):
    async def release(self, *, clean: bool) -> None:
        self.held.clear()


@breaks("write() after a cancelled aclose() must raise ClosedResourceError: it raised nothing")
class StaysOpenWhenCancelled(Good):
    cancelled = False

    async def aclose(self) -> None:
        try:
            await super().aclose()
        except trio.Cancelled:
            self.cancelled = True
            raise

    async def write(self, data: Any) -> int:
        if self.cancelled:
            return len(data)
        return await super().write(data)


@breaks("what arrives before a cancelled aclose() must be what was written: there came")
class WritesWhenItIsReleased(Good):
    async def release(self, *, clean: bool) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            await self.inner.write(b"the end")


@breaks("aclose() of the layer below must flush a writer that was forgotten: there came")
class AnnouncesNothing(Good):
    announces_held_bytes = True
    held_bytes = Good.held_bytes


# ---- Failing -------------------------------------------------------------------------------


@breaks("when the reader has closed, writing must end in BrokenResourceError: it goes on and on")
class NeverBreaks(Good):
    async def send_all(self, data: Any) -> None:
        try:
            await super().send_all(data)
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()


@breaks("when the reader has closed, writing must end in BrokenResourceError: it raised ValueEr")
class BreaksWithAnotherError(Good):
    def push(self) -> None:
        try:
            super().push()
        except trio.BrokenResourceError:
            raise ValueError from None


@breaks("a write that raises must have accepted nothing: unsent_bytes has grown from ")
class AcceptsAndBreaks(Good):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        if len(self.held) == 8:
            self.push()
        part = bytes(data[: 8 - len(self.held)])
        self.held += part
        with contextlib.suppress(NotReady):
            self.push()
        return len(part)


@breaks("write_all() after such an error must raise BrokenResourceError: it raised nothing")
class Recovers(Good):
    broken = False

    async def send_all(self, data: Any) -> None:
        try:
            await super().send_all(data)
        except trio.BrokenResourceError:
            self.broken = True
            raise

    async def write_all(self, data: Any) -> None:
        if self.broken:
            self.broken = False
        else:
            await super().write_all(data)


@breaks("aclose() must not raise what was raised before: it raised BrokenResourceError")
class BreaksAgainInTheEnd(Good):
    broken = False

    async def send_all(self, data: Any) -> None:
        try:
            await super().send_all(data)
        except trio.BrokenResourceError:
            self.broken = True
            raise

    async def aclose(self) -> None:
        await super().aclose()
        if self.broken:
            raise trio.BrokenResourceError


# ---- Checkpoints ---------------------------------------------------------------------------


@breaks("flush() must always be a full checkpoint: it returned without one")
class FlushesWithoutACheckpoint(Good):
    async def flush(self) -> None:
        if self.held or self.lifecycle.refusal is not None:
            await super().flush()


@breaks("aclose() must always be a full checkpoint: it returned without one")
class ClosesTwiceWithoutACheckpoint(Good):
    closed = False

    async def aclose(self) -> None:
        if not self.closed:
            await super().aclose()
        self.closed = True


@breaks("send_all() must always be a full checkpoint: in a cancelled scope it must raise Cancelled")
class SendsShielded(Good):
    async def send_all(self, data: Any) -> None:
        with trio.CancelScope(shield=True):
            await super().send_all(data)


@breaks("of 129 calls of write(), to whatever writers, one must be a checkpoint")
class HasABudgetOfItsOwn(Good):
    calls = 0

    async def write(self, data: Any) -> int:
        self.calls += 1
        if (
            data == b"x"
            and self.lifecycle.refusal is None
            and not self.lifecycle.inside
            and self.calls % 60
        ):
            self.held += data
            return 1
        return await super().write(data)


@breaks("of 129 calls of write(), to whatever writers, one must be a checkpoint: in a cancelled")
class WritesShielded(Good):
    async def write(self, data: Any) -> int:
        with trio.CancelScope(shield=True):
            return await super().write(data)


@breaks("after flush(), a write that raises Cancelled must have accepted nothing: ")
class IsCancelledTooLate(Good):
    async def write(self, data: Any) -> int:
        with trio.CancelScope(shield=True):
            count = await super().write(data)
        await trio.lowlevel.checkpoint()
        return count


@breaks("after flush(), a write that raises Cancelled must have accepted nothing: ")
class GathersTooEarly(Good):
    async def write_vectored(self, buffers: Sequence[Any]) -> int:
        if sum(map(len, buffers)) != 1024:
            return await super().write_vectored(buffers)
        self.held += b"".join(buffers)
        await trio.lowlevel.checkpoint()
        return 1024


@breaks("a write that raises Cancelled must have accepted nothing: but its Buf has moved")
class MovesTheBufFirst(Good):
    async def write_buf(self, buf: Buf) -> int:
        if not isinstance(buf, Buf) or not buf.remaining:
            return await super().write_buf(buf)
        data = bytes(buf.chunk()[:1])
        buf.advance(1)
        return await self.write(data)


# ---- Two tasks -----------------------------------------------------------------------------


@breaks("of two tasks in a writer, one must get BusyResourceError and one be unharmed: ")
class LetsThemQueue(Good):
    def __init__(self, inner: AsyncWrite) -> None:
        super().__init__(inner)
        self.lock = trio.Lock()

    async def send_all(self, data: Any) -> None:
        async with self.lock:
            await super().send_all(data)


@breaks("aclose() must get in while other tasks use the writer: it raised BusyResourceError")
class IsTooBusyToClose(Good):
    async def aclose(self) -> None:
        if self.lifecycle.inside:
            raise trio.BusyResourceError
        await super().aclose()


@breaks("a flush() that another task's aclose() ends must raise ClosedResourceError: ")
class FlushesIntoTheVoid(Good):
    async def flush(self) -> None:
        await super().flush()
        if self.closed:
            raise ValueError


# ---- Messages that are cut short -----------------------------------------------------------


@breaks("write() after a message was cut short must raise BrokenResourceError: it raised None")
class WritesPieceByPiece(Good):
    async def write_all(self, data: Any) -> None:
        if not isinstance(data, bytes) or not data:
            await super().write_all(data)
        else:
            while data:
                data = data[await self.write(data) :]


@breaks("aclose() after a message was cut short must not wait for the reader")
class FlushesBeforeItCloses(Good):
    async def aclose(self) -> None:
        try:
            with contextlib.suppress(Exception):
                await self.flush()
        finally:
            await super().aclose()


@breaks("write() while a Buf is unfinished must raise BrokenResourceError: it raised None")
class WritesBufsPieceByPiece(Good):
    async def write_all_buf(self, buf: Buf) -> None:
        if not isinstance(buf, Buf) or not buf.remaining:
            await super().write_all_buf(buf)
        while buf.remaining:
            await self.write_buf(buf)


@breaks("an unfinished Buf must be finished by write_all_buf() of the same: it raised Broken")
class WritesACopyOfTheBuf(Good):
    async def write_all_buf(self, buf: Buf) -> None:
        if not isinstance(buf, Buf):
            await super().write_all_buf(buf)
        copy = Buf(*buf.chunks())
        try:
            await super().write_all_buf(copy)
        finally:
            left, _ = copy.remaining, copy.release()
            buf.advance(buf.remaining - left)


# ---- Borrowing -----------------------------------------------------------------------------


@breaks("aclose() of a by_ref() must leave its original open: it raised ClosedResourceError")
class LendsItself(Good):
    def by_ref(self) -> Any:
        return self


class Careless(AsyncWrite):
    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner

    def poll_shutdown(self) -> None:
        pass

    def owns_below(self, is_closing: object) -> bool:
        return False


@breaks("aclose() of a by_ref() must flush its original: there came")
class LendsCarelessly(Good):
    def by_ref(self) -> Any:
        return Careless(self)


# ---- Waiting -------------------------------------------------------------------------------


class Waits(Good):
    """A base for those that wait in a wrong way, but not in the end, when nothing could help."""

    def push(self) -> None:
        try:
            super().push()
        except NotReady as not_ready:
            if self.closed:
                raise
            raise NotReady(partial(self.wait, not_ready.wait)) from None

    async def wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        raise NotImplementedError


@breaks("NotReady.wait() must be a checkpoint, and return when polling may make progress: it hung")
class WaitsForEver(Waits):
    async def wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        await trio.sleep_forever()


@breaks("NotReady.wait() must be a checkpoint, and return when polling may make progress: it ret")
class WaitsNot(Waits):
    async def wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        pass


@breaks("NotReady.wait() must be a checkpoint, and return when polling may make progress: it rai")
class WaitsSynchronously(Waits):
    def wait(self, wait: object) -> None:  # type: ignore[override]
        pass


@breaks("NotReady.wait() must be a checkpoint: in a cancelled scope it must raise Cancelled")
class WaitsShielded(Waits):
    async def wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        with trio.move_on_after(5, shield=True):
            await wait()


@breaks("after flush(), a write that raises Cancelled must have accepted nothing: there came")
class LosesInAWait(Waits):
    async def wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        try:
            await wait()
        except trio.Cancelled:
            self.held.clear()
            raise


@breaks("after flush(), an exception that a wait raises must break nothing: there came")
class LosesWhenAWaitFails(Waits):
    async def wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        try:
            await wait()
        except Exception:
            self.held.clear()
            raise


@breaks("write() must raise what a wait raises: it raised BrokenResourceError")
class BreaksWhenAWaitFails(Waits):
    async def wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        try:
            await wait()
        except Exception as exc:
            raise trio.BrokenResourceError from exc


@breaks("wait_send_all_might_not_block() must always be a full checkpoint: it hung")
class IsNeverReadyToSend(Good):
    async def wait_send_all_might_not_block(self) -> None:
        if self.lifecycle.refusal is None:
            await trio.sleep_forever()
        await super().wait_send_all_might_not_block()


@breaks("wait_send_all_might_not_block() must see that somebody reads: it hung")
class OverlooksTheReader(Good):
    async def wait_send_all_might_not_block(self) -> None:
        if self.held == b"clogged!":
            await trio.sleep_forever()
        await super().wait_send_all_might_not_block()


@breaks("poll_write() that raises NotReady must not keep the buffer: it cannot be resized")
class KeepsWhatItRefuses(Good):
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        try:
            return super().poll_write(data)
        except NotReady:
            if self.held == b"clogged!":
                self.refused = data[:]
            raise


@breaks("flush() while another task waits in the writer must raise BusyResourceError: it raised n")
class FlushesForAnother(Good):
    async def flush(self) -> None:
        # Flushes at once are busy in the ordinary way.
        if self.lifecycle.inside and len(self.held) == 8:
            await trio.lowlevel.checkpoint()
        else:
            await super().flush()


@breaks("a second task that gets BusyResourceError must not harm the first: it raised Broken")
class IsHarmed(Good):
    harmed = False

    async def write(self, data: Any) -> int:
        self.harmed |= self.lifecycle.inside
        return await super().write(data)

    def push(self) -> None:
        if self.harmed:
            raise trio.BrokenResourceError
        super().push()


@breaks("write() must let itself be cancelled while it waits: it hung")
class WaitsForTheReader(Good):
    async def write(self, data: Any) -> int:
        with trio.CancelScope(shield=len(self.held) == 8 and len(data) == 40):
            return await super().write(data)


@breaks("aclose() must end another task's write() with ClosedResourceError: it raised None")
class WritesIntoTheVoid(Good):
    async def write(self, data: Any) -> int:
        was_open = self.lifecycle.refusal is None
        try:
            return await super().write(data)
        except trio.ClosedResourceError:
            if was_open:
                return len(data)
            raise


@breaks("a cancelled aclose() must cut another task's aclose() short: it raised ValueError")
class ClosesBadlyWithOthers(Good):
    async def aclose(self) -> None:
        was_open = self.lifecycle.refusal is None
        try:
            await super().aclose()
        except trio.ClosedResourceError:
            if was_open:
                raise ValueError from None
            raise


# ---- What only the sweep sees --------------------------------------------------------------


@breaks("after flush(), a write that raises Cancelled must have accepted nothing: ")
class IsCancelledBetween(Good):
    async def write(self, data: Any) -> int:
        if len(data) != 7:
            return await super().write(data)
        await trio.lowlevel.checkpoint_if_cancelled()
        count = await super().write(data)
        await trio.lowlevel.checkpoint()
        return count


@breaks("cancelled and resumed, every byte must arrive exactly once: there came")
class FlushesFromACopy(Good):
    async def flush(self) -> None:
        if not self.held or self.lifecycle.inside or self.lifecycle.refusal is not None:
            await super().flush()
            return
        copy = Buf(bytes(self.held))
        self.held.clear()
        await self.inner.write_all_buf(copy)
        await super().flush()


class Ends(Good):
    """Writes a dot in the end."""

    ending = False

    def poll_shutdown(self) -> None:
        if not self.ending:
            self.held += b"."
            self.ending = True
        super().poll_shutdown()


@breaks("cancelled and resumed, every byte must arrive exactly once: there came")
class RepeatsItsEpilogue(Ends):
    def poll_shutdown(self) -> None:
        self.ending = False
        super().poll_shutdown()


@breaks("what arrives must be a beginning of what was written: there came")
class SendsTheEndWhenCancelled(Good):
    async def send_all(self, data: Any) -> None:
        try:
            await super().send_all(data)
        except trio.Cancelled:
            if len(data) == 32:
                self.held = bytearray(data[-8:])
            raise


# ---- The tests -----------------------------------------------------------------------------

#: Found in no other way than by cancelling at every checkpoint.
SWEPT = {IsCancelledBetween, FlushesFromACopy, SendsTheEndWhenCancelled, RepeatsItsEpilogue}


class WithoutEpilogue(trio.abc.ReceiveStream):
    """What arrives, but for a dot at the end."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self.stream = stream
        self.held = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while chunk := bytes(await self.stream.receive_some(max_bytes)):
            received = self.held + chunk
            self.held = b"." * received.endswith(b".")
            if received != self.held:
                return received.removesuffix(b".")
        return b""

    async def aclose(self) -> None:
        await self.stream.aclose()


def makers(make: Callable[[AsyncWrite], AsyncWrite]) -> dict[str, Any]:
    """A maker and a clogged maker for a layer over a small pipe in memory."""

    async def maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        writer, reader = simplex(13)
        outer = make(writer)
        return outer, WithoutEpilogue(reader) if isinstance(outer, Ends) else reader

    async def clogged_maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        outer, reader = await maker()
        assert isinstance(outer, Good)
        clog(outer.inner)
        outer.held += b"clogged!"
        return outer, reader

    return {"maker": maker, "clogged_maker": clogged_maker}


class FinishesWhatItHasBegun(Good):
    """Says so, at least: then a message that was cut short does not tear it."""

    can_be_torn = False


@pytest.mark.parametrize("cls", [Good, Ends, FinishesWhatItHasBegun])
async def test_a_good_writer_passes(cls: type[Good], autojump_clock: MockClock) -> None:
    await check_async_write(**makers(cls))


@pytest.mark.parametrize(("cls", "rule"), MUTANTS, ids=[cls.__name__ for cls, _ in MUTANTS])
async def test_a_bad_writer_is_told_which_rule_it_breaks(
    cls: type[Good], rule: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_check_tools, "_MAX_WAKEUPS", 100)
    with pytest.raises(AssertionError) as caught:
        await check_async_write(**makers(cls))

    assert str(caught.value)[: len(rule)] == rule
    notes = getattr(caught.value, "__notes__", [""])
    assert notes[0].startswith("cancel_everywhere") == (cls in SWEPT)


@pytest.mark.outer
@pytest.mark.parametrize("lend", [lambda cursor: cursor, AsyncWrite.by_ref], ids=["it", "handle"])
async def test_a_writer_that_ends_alone_passes(lend: Callable[[Cursor], AsyncWrite]) -> None:
    """A transport has nothing below it, and a handle leaves its original open."""

    async def maker() -> tuple[AsyncWrite, Callable[[], bytes]]:
        cursor = Cursor()
        return lend(cursor), cursor.getvalue

    await check_async_write(maker)


async def test_without_a_clogged_maker_what_waits_is_not_checked(
    autojump_clock: MockClock,
) -> None:
    maker = makers(WaitsShielded)["maker"]

    await check_async_write(maker)


async def test_the_other_end_may_be_a_callable() -> None:
    async def maker() -> tuple[AsyncWrite, Callable[[], bytes]]:
        cursor = Cursor()
        return Good(cursor), cursor.getvalue

    await check_async_write(maker)


@pytest.mark.parametrize(
    ("cls", "rule"),
    [
        (Reorders, "after flush(), just the bytes that were accepted must have arrived, in order"),
        (NeverFlushes, "after flush(), just the bytes that were accepted must have arrived, in or"),
        (ShutsDownUnflushed, "shutdown() must deliver every byte before it ends the stream"),
    ],
)
async def test_a_callable_convicts_a_writer_as_well(cls: type[Good], rule: str) -> None:
    async def maker() -> tuple[AsyncWrite, Callable[[], bytes]]:
        cursor = Cursor()
        return cls(cursor), cursor.getvalue

    with pytest.raises(AssertionError) as caught:
        await check_async_write(maker)

    assert str(caught.value).startswith(rule)


async def test_there_may_be_no_other_end() -> None:
    async def maker() -> tuple[AsyncWrite, None]:
        return Good(Sink()), None

    await check_async_write(maker)


async def test_without_another_end_the_rest_of_the_contract_is_checked() -> None:
    async def maker() -> tuple[AsyncWrite, None]:
        return TakesText(Sink()), None

    with pytest.raises(AssertionError, match=r"^write\(\) of 'text' must raise TypeError"):
        await check_async_write(maker)


@pytest.mark.outer
async def test_it_works_over_the_real_thing() -> None:
    async def maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        writer, reader = await unix_pair()
        return Good(writer), reader

    async def clogged_maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        writer, reader = await clogged(unix_pair)()
        good = Good(writer)
        good.held += b"clogged!"
        return good, reader

    await check_async_write(maker, clogged_maker)


@pytest.mark.outer
async def test_a_half_closeable_stream_is_checked_as_one() -> None:
    ended = []

    class Ended(AsyncReadWrite):
        def __init__(self, inner: TcpStream) -> None:
            self.inner = inner

        async def receive_some(self, max_bytes: int | None = None) -> Any:
            raise NotImplementedError

        async def send_eof(self) -> None:
            await super().send_eof()
            ended.append(True)

    async def maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        writer, reader = await unix_pair()
        return Ended(writer), reader

    await check_async_write(maker)

    assert ended


# ---- Writers to share ----------------------------------------------------------------------


def shared_makers(make: Callable[[AsyncWrite], AsyncWrite]) -> dict[str, Any]:
    """As ``makers``, for what tasks may use at once."""

    async def maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        writer, reader = simplex(1300)  # they take large messages whole
        return make(writer), reader

    async def clogged_maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        writer, reader = simplex(1300)
        clog(writer)
        return make(writer), reader

    return {"maker": maker, "clogged_maker": clogged_maker}


class Interleaves(SharedWriter[AsyncWrite]):
    async def send_all(self, data: Any) -> None:
        if len(data) == 100:
            await super().send_all(data[:50])
            data = data[50:]
        await super().send_all(data)


class LetsOthersGoFirst(SharedWriter[AsyncWrite]):
    went = False

    async def send_all(self, data: Any) -> None:
        if len(data) == 100 and not self.went:
            self.went = True
            await trio.lowlevel.checkpoint()
        await super().send_all(data)


class KeepsItsPlace(SharedWriter[AsyncWrite]):
    async def write_all_buf(self, buf: Buf) -> None:
        with trio.CancelScope(shield=isinstance(buf, Buf) and buf.remaining == 100):
            await super().write_all_buf(buf)


class WithdrawsHalf(SharedWriter[AsyncWrite]):
    async def write_all_buf(self, buf: Buf) -> None:
        if isinstance(buf, Buf) and buf.remaining == 100:
            buf.advance(50)
        await super().write_all_buf(buf)


class HarmsTheNext(SharedWriter[AsyncWrite]):
    harmed = False

    async def write_all_buf(self, buf: Buf) -> None:
        try:
            await super().write_all_buf(buf)
        except trio.Cancelled:
            self.harmed = buf.remaining == 100
            raise

    async def write_all(self, data: Any) -> None:
        await super().write_all(data)
        if self.harmed:
            raise trio.BrokenResourceError


async def test_a_writer_to_share_passes(autojump_clock: MockClock) -> None:
    await check_async_write(**shared_makers(SharedWriter), exclusive=False)


@pytest.mark.parametrize(
    ("cls", "rule"),
    [
        (Good, "tasks that share a writer must be served in order, and each message stay whole: "),
        (Interleaves, "after flush(), tasks that share a writer must be served in order, and each"),
        (LetsOthersGoFirst, "after flush(), tasks that share a writer must be served in order, an"),
        (KeepsItsPlace, "a task that waits for its turn must let itself be cancelled: it hung"),
        (
            WithdrawsHalf,
            "a task that waits for its turn must let itself be cancelled: it has writt",
        ),
        (HarmsTheNext, "a task that is cancelled while it waits for its turn must not harm the ot"),
    ],
)
async def test_a_bad_writer_to_share_is_told_which_rule_it_breaks(
    cls: Callable[[AsyncWrite], AsyncWrite], rule: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(AssertionError) as caught:
        await check_async_write(**shared_makers(cls), exclusive=False)

    assert str(caught.value)[: len(rule)] == rule


async def test_a_writer_to_share_is_not_exclusive(autojump_clock: MockClock) -> None:
    rule = "of two tasks in a writer, one must get BusyResourceError and one be unharmed: "
    with pytest.raises(AssertionError) as caught:
        await check_async_write(**shared_makers(SharedWriter))

    assert str(caught.value)[: len(rule)] == rule


# ---- What the makers do wrong --------------------------------------------------------------


async def test_a_maker_must_make_a_writer() -> None:
    async def maker() -> Any:
        return trio.testing.memory_stream_pair()

    with pytest.raises(AssertionError, match="a maker must return an AsyncWrite"):
        await check_async_write(maker)


class TakesOneByte(Good):
    """When it is full for a message, there is room for one byte yet."""

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        while len(self.held) >= 8 and (len(self.held) > 8 or len(data) > 1):
            self.push()
        part = bytes(data[: max(8 - len(self.held), 1)])
        self.held += part
        return len(part)


async def test_a_clogged_writer_must_not_take_a_single_byte(autojump_clock: MockClock) -> None:
    rule = "write() of one byte returned instead of waiting: clogged_maker must return a writer"
    with pytest.raises(AssertionError) as caught:
        await check_async_write(**makers(TakesOneByte))

    assert str(caught.value)[: len(rule)] == rule


@pytest.mark.parametrize("clogged", [False, True], ids=["maker", "clogged_maker"])
@pytest.mark.parametrize(
    ("made", "returned"),
    [(Cursor(), "<Cursor"), ((Cursor(), None), r"\(<Cursor")],
    ids=["not async", "not async, a pair"],
)
async def test_a_maker_must_be_async(
    made: object, returned: str, autojump_clock: MockClock, *, clogged: bool
) -> None:
    """It is told so, in words."""
    good: Any = makers(Good)
    bad: Any = {"clogged_maker" if clogged else "maker": lambda: made}
    name = "clogged_maker" if clogged else "maker"
    rule = rf"^{name} must be an async function that returns \(writer, reader\): it returned "

    with pytest.raises(AssertionError, match=rule + returned):
        await check_async_write(**{**good, **bad})


@pytest.mark.parametrize("made", [Cursor(), (Cursor(),)], ids=["no pair", "too short"])
async def test_a_maker_must_return_a_pair(made: object) -> None:
    async def maker() -> Any:
        return made

    rule = r"^maker must be an async function that returns \(writer, reader\): it returned .*Cursor"
    with pytest.raises(AssertionError, match=rule):
        await check_async_write(maker)


async def test_a_reader_must_decode_what_a_writer_encodes(autojump_clock: MockClock) -> None:
    class Encodes(Good):
        def push(self) -> None:
            count = self.inner.poll_write(bytes(self.held).swapcase())
            del self.held[:count]

    with pytest.raises(AssertionError, match="maker must return a reader that decodes"):
        await check_async_write(**makers(Encodes))


async def test_without_a_reader_the_transport_must_take_everything(
    autojump_clock: MockClock,
) -> None:
    async def maker() -> tuple[AsyncWrite, None]:
        writer, reader = simplex(13)
        readers.append(reader)  # while it lives, the writer waits for it
        return Good(writer), None

    readers: list[trio.abc.ReceiveStream] = []
    rule = r"it hung for 1 second \(without a reader, the transport must take everything\)$"
    with pytest.raises(AssertionError, match=rule):
        await check_async_write(maker, hang_after=1)


async def test_a_clogged_maker_must_make_a_stream(autojump_clock: MockClock) -> None:
    async def clogged_maker() -> tuple[AsyncWrite, None]:
        return Good(simplex(1)[0]), None

    with pytest.raises(AssertionError, match="clogged_maker must return a stream: None"):
        await check_async_write(makers(Good)["maker"], clogged_maker)


async def test_a_clogged_maker_must_clog(autojump_clock: MockClock) -> None:
    maker = makers(Good)["maker"]

    with pytest.raises(
        AssertionError, match=r"poll_write\(\) raises NotReady: it accepted 8 bytes"
    ):
        await check_async_write(maker, maker)


async def test_what_a_maker_raises_comes_through() -> None:
    async def maker() -> tuple[AsyncWrite, None]:
        raise OSError("no more sockets")

    with pytest.raises(OSError, match="no more sockets"):
        await check_async_write(maker)


# ---- How it behaves ------------------------------------------------------------------------


async def test_a_hang_is_reported_after_the_given_time(autojump_clock: MockClock) -> None:
    start = trio.current_time()

    with pytest.raises(AssertionError, match=r"it hung for 2\.5 seconds"):
        await check_async_write(**makers(FlushesForEver), hang_after=2.5)

    assert trio.current_time() - start == 2.5


async def test_the_whole_has_a_bound_and_says_how_far_it_came(autojump_clock: MockClock) -> None:
    rule = r"the whole check must end within 0 seconds .*: it had come to polls, part 1 of \d+$"
    with pytest.raises(AssertionError, match=rule):
        await check_async_write(**makers(Good), total=0)


async def test_it_tells_its_progress(autojump_clock: MockClock) -> None:
    told: list[str] = []

    with pytest.raises(AssertionError, match="hung"):
        await check_async_write(**makers(FlushesForEver), progress=told.append)

    assert told == [f"polls, part 1 of {told[0].split()[-1]}"]


async def test_it_closes_what_the_makers_made(autojump_clock: MockClock) -> None:
    made = []

    async def maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        writer, reader = simplex(13)
        made.append(writer)
        return Reorders(writer), reader

    with pytest.raises(AssertionError):
        await check_async_write(maker)

    for writer in made:
        with pytest.raises(trio.ClosedResourceError):
            await writer.flush()


async def test_it_can_be_cancelled(autojump_clock: MockClock) -> None:
    with trio.move_on_after(5) as scope:
        await check_async_write(**makers(FlushesForEver))

    assert scope.cancelled_caught
