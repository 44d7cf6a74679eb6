"""Moving ciphertext between a TLS engine and the transport, without waiting.

Both halves of a connection share this: a reader may have to send (a key update, an alert) and a
writer to receive (the handshake). A poll hands on as much as goes at once; the rest is kept in
``engine.out`` and is sent by the next operation, on either half. Since polls cannot be
interrupted, ciphertext leaves in the order in which it was made, without a lock.

**Failures** of sending are kept, in whichever half they are met: the next operation that writes or
closes raises them, and breaks the writing direction. Reading may go on. What is queued is dropped,
and the plaintext in it counts as lost.

**Waits** change nothing. One task makes each of them, on behalf of all. An exception from a wait
goes to the task that waits, and breaks nothing; but a reader that only helps a writer's bytes along
is not told of theirs.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, final

import trio

from trio_asyncwrite._core._async_read import AsyncRead, poll_reader
from trio_asyncwrite._core._checks import RECEIVE_SIZE, accepted, wrong_answer
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._stack import is_refusal
from trio_asyncwrite._core._waits import OneForAll, first_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import TypeVarTuple, Unpack

    from trio_asyncwrite._core._async_write import AsyncWrite
    from trio_asyncwrite._core._layer import Layer

    from ._engine import TlsEngine

    Wait = Callable[[], Awaitable[object]]
    Ts = TypeVarTuple("Ts")

#: How much ciphertext to read at a close, and before a failure is judged: more than a flight of
#: session tickets or than a socket buffer holds by default, and little memory.
_ARRIVED_LIMIT: Final = 256 * 1024


@final
class Ciphertext:
    """The ciphertext of one session, on its way out and in.

    Args:
        engine: the TLS engine.
        writer: the transport to write to.
        reader: the same transport, to read from.
    """

    def __init__(self, engine: TlsEngine, writer: AsyncWrite, reader: AsyncRead) -> None:
        self._engine = engine
        self._writer = writer
        self._reader = reader
        #: Plaintext bytes in ``engine.out``; a record counts until the last of it has gone.
        self.queued = 0
        #: Plaintext bytes that were in ``engine.out`` when a failure emptied it.
        self.lost = 0
        #: Whether there was plaintext in the ciphertext that went since the last flush.
        self.carries_data = writer.unsent_bytes > 0
        #: What sending has met; the next operation that writes or closes raises it.
        self.failure: BaseException | None = None
        #: Whether something that reading has made TLS say has not been flushed yet.
        self.answering = False
        self._receive_error: trio.BrokenResourceError | None = None
        self._sending = OneForAll()
        self._receiving = OneForAll()
        #: Around that wait, while a task makes it.
        self._receive_scope: trio.CancelScope | None = None
        # Whether a task that waits to send can leave its wait at any time, without harm.
        self.exact = not writer.close_patience

    # ---- Out -------------------------------------------------------------------------------

    def held(self) -> int:
        """How many bytes of plaintext are queued, or were lost from the queue."""
        return self.lost + min(self.queued, len(self._engine.out))

    def is_unsent(self) -> bool:
        """Whether plaintext is queued, here or below."""
        return bool(self.held() or (self.carries_data and self._writer.unsent_bytes))

    def has_failed(self) -> bool:
        """Whether no ciphertext can be sent any more."""
        return self.failure is not None or self._writer.lifecycle.failure is not None

    def transfer(self, *, flush: bool) -> None:
        """Hand on what goes; be ready once nothing is queued. A failure empties the queue.

        Raises:
            NotReady: if some of it cannot go now.
            trio.BrokenResourceError: if the transport fails, now or before.
        """
        if self.failure is not None:
            raise self.failure
        engine, writer = self._engine, self._writer
        try:
            while out := engine.out:
                # What poll_data() and poll_flush() do, without their frames: every write comes
                # through here.
                count = writer.poll_write(out)
                if count != len(out) or type(count) is not int:
                    count = accepted(count, len(out), writer)
                engine.sent(count)
            self.queued = 0
            if flush:
                answer: object = writer.poll_flush()  # type: ignore[func-returns-value]
                if answer is not None:
                    wrong_answer(writer, "poll_flush", answer)
                self.answering = self.carries_data = False
        except NotReady as not_ready:
            raise self._not_ready(not_ready) from None
        except BaseException as exc:
            if not is_refusal(exc) or self.has_failed():
                self.failure = exc
                self.drop()
            raise

    def poll(self, poll: Callable[[Unpack[Ts]], None], *args: Unpack[Ts]) -> None:
        """Poll the transport; one task makes its wait, if there is one."""
        try:
            poll(*args)
        except NotReady as not_ready:
            raise self._not_ready(not_ready) from None

    def _not_ready(self, not_ready: NotReady) -> NotReady:
        return NotReady(functools.partial(self._sending.wait, not_ready.wait))

    def answer(self) -> Wait | None:
        """Hand on what goes, for a reader; the wait if something stays.

        A failure is for the next operation that writes or closes.
        """
        if self.has_failed():
            self.drop()
            return None
        try:
            self.transfer(flush=True)
        except NotReady as not_ready:
            return not_ready.wait
        except Exception:  # noqa: BLE001 - see above
            return None
        return None

    def forget_failures(self) -> None:
        """Their tracebacks refer to the stream."""
        self.failure = self._receive_error = None

    def drop(self) -> None:
        """Forget the ciphertext that cannot be sent, and count the plaintext that is lost by it."""
        self.lost += min(self.queued, len(self._engine.out))
        self.queued = 0
        self._engine.out = b""
        self.answering = False

    # ---- In --------------------------------------------------------------------------------

    def receive(self, send_wait: Wait | None = None, *, must_send: bool = True) -> None:
        """Feed the engine what has arrived, or the transport's end.

        Args:
            send_wait: waits until the transport takes more, for a task that this would help, too.
            must_send: whether what is queued is this task's own business.

        Raises:
            NotReady: if nothing has arrived.
            trio.BrokenResourceError: if the transport fails.
        """
        try:
            self._feed(poll_reader(self._reader, RECEIVE_SIZE))
            # A task that waits for what this one has got would never be woken: in a handshake, a
            # writer and a reader wait for the same bytes.
            if self._receiving.is_under_way() and self._receive_scope is not None:
                self._receive_scope.cancel()
        except NotReady as not_ready:
            receive_wait = functools.partial(
                self._receiving.wait, functools.partial(self._receive, not_ready.wait)
            )
        else:
            return
        if send_wait is None:
            raise NotReady(receive_wait)
        if not self.exact:
            # What is sent must not be broken off for what is received. Nor does Trio's SSLStream
            # receive meanwhile.
            raise NotReady(send_wait)
        raise NotReady(
            functools.partial(_wait_either, send_wait, receive_wait, must_send=must_send)
        )

    async def _receive(self, wait: Wait) -> None:
        try:
            with trio.CancelScope() as self._receive_scope:  # noqa: ASYNC912
                await wait()
        except trio.BrokenResourceError as exc:
            self._receive_error = exc
            raise
        finally:
            self._receive_scope = None

    def _feed(self, ciphertext: bytes) -> None:
        if not ciphertext and self._receive_error is not None:
            # A kernel reports a reset once, and then an end-of-file.
            raise trio.BrokenResourceError(
                f"receiving has failed before: {self._receive_error}"
            ) from self._receive_error
        self._engine.feed(ciphertext)

    def receive_arrived(self, *, deeply: bool = False) -> Exception | None:
        """Feed the engine what has arrived, as far as it goes; the failure that it ends with.

        Args:
            deeply: for a last time: also read from the layers further below. One in between that
                can only be awaited hides their input from our polls.
        """
        layers: list[Layer] = [self._reader]
        if deeply:
            lower: Layer | None = self._writer
            while lower is not None and not lower.encodes:
                layers.append(lower)
                lower = lower.lifecycle.inner
        left = _ARRIVED_LIMIT
        for layer in layers:
            if not isinstance(layer, AsyncRead):
                continue
            if layer.drain_source() is None:
                break  # somebody else goes on reading from the descriptor
            try:
                while left > 0:
                    ciphertext = poll_reader(layer, min(left, RECEIVE_SIZE))
                    self._feed(ciphertext)
                    if not ciphertext:
                        return None
                    left -= len(ciphertext)
            except NotReady:
                pass
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                return exc if isinstance(exc, trio.BrokenResourceError) else None
        return None


async def _wait_either(send_wait: Wait, receive_wait: Wait, *, must_send: bool) -> None:
    async def help_along() -> None:
        try:
            await send_wait()
        except Exception:  # noqa: BLE001 - it concerns the writer, who meets it as well
            await trio.sleep_forever()

    await first_of(receive_wait, send_wait if must_send else help_along)
