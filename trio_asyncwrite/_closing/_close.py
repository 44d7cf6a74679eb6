"""Endings that lose nothing, each with a report of what was seen.

What is said here is done in ``_graceful_close.py``, whose header tells why and how.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio
import trio.abc

from ._abort import abort_stream
from ._graceful_close import end_stream
from ._limits import (
    DEFAULT_LINGER,
    DEFAULT_LINGER_BYTES,
    DEFAULT_TIMEOUT,
    Limits,
    check_stream,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typing_extensions import Self

    from ._report import CloseReport

S = TypeVar("S", bound=trio.abc.SendStream)


@trio.lowlevel.enable_ki_protection
async def close_gracefully(
    stream: trio.abc.SendStream,
    *,
    timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - it bounds one part, and never raises
    linger: float = DEFAULT_LINGER,
    linger_bytes: int = DEFAULT_LINGER_BYTES,
) -> CloseReport:
    """End a stream so that nothing is lost, close it, and say what was seen.

    Everything that the stream has accepted is sent, then its end: epilogues such as a TLS
    close_notify, and the half-close. Meanwhile, and until the peer ends the stream too, what
    still comes in is read and thrown away, so that two peers that both only write cannot block
    each other and unread input cannot make the kernel send a reset. Then the stream is closed;
    if not all could be sent, in the way that shows the peer that it is truncated.

    It takes any writer of this library and any Trio stream:

    * With a write-only layer, the stream below it is drained, if it is closed with the layer.
    * Of a stream that can only be written to, the peer's end cannot be seen.
    * A duplex stream that cannot be half-closed can announce the end only by being closed. So it
      is closed without lingering.
    * A TLS stream whose handshake is not complete, and that has nothing to send, ends as its
      transport does, without a close_notify.
    * A handle of :meth:`~AsyncWrite.by_ref` and a half of :func:`split` end as their own
      ``shutdown`` does, and leave the rest of the stream to its owner.

    Other tasks inside the stream, reading or writing, get :exc:`trio.ClosedResourceError`, as
    they would from ``aclose``; what they were writing ends where it is. A stream of another library
    cannot be taken from a task that uses it directly, so the close waits for that task, within the
    limits. If another task is closing the same layers already, the tighter limits count for both
    calls, and their reports differ only in the time.

    A stack whose last message was cut short is truncated: its accepted bytes are delivered, and
    then it ends so that the peer can tell.

    Args:
        stream: the stream to end. It is closed in every case.
        timeout: how long to try to send what is unsent, and the end, in seconds.
        linger: how long to wait for the peer's end after that, in seconds.
        linger_bytes: how many bytes to throw away after that, at most (and one more, to see that
            there are more). What comes in while we still send does not count.

    Returns:
        The report. What fails, and whatever the stream raises, is in it and not raised.

    Raises:
        TypeError: if ``stream`` is not a :class:`trio.abc.SendStream`, or a limit is not a number.
        ValueError: if a limit is negative.

    Cancellation: nothing happened, since it is not cancelled: it is shielded, and bounded by
        ``timeout`` plus ``linger`` seconds. So in a ``finally`` it works as anywhere else. Two
        things may take longer: a Trio stream that hangs in its own ``send_all`` or ``aclose`` gets
        the ``cancel_grace`` of :func:`wrap_stream` as well, and a file in a worker thread is
        waited for until its ``close`` returns.
    Checkpoints: other tasks run meanwhile, but a cancellation is delivered at the next one.

    Source: RFC 1122, 4.2.2.13, and RFC 9112, 9.6: why to read on before closing; "lingering
        close" in nginx and Apache.
    """
    check_stream(stream)
    return await end_stream(stream, Limits(timeout, linger, linger_bytes))


@trio.lowlevel.enable_ki_protection
async def close_all_gracefully(
    streams: Iterable[trio.abc.SendStream],
    *,
    timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - it bounds one part, and never raises
    linger: float = DEFAULT_LINGER,
    linger_bytes: int = DEFAULT_LINGER_BYTES,
) -> list[CloseReport]:
    """:func:`close_gracefully` for many streams, all at once.

    A stuck peer costs the others nothing: it takes as long as the slowest stream.

    Args:
        streams: the streams to end.
        timeout: for each stream, see :func:`close_gracefully`; in seconds.
        linger: for each stream, see :func:`close_gracefully`; in seconds.
        linger_bytes: for each stream, see :func:`close_gracefully`.

    Returns:
        The reports, in the order of ``streams``.

    Raises:
        TypeError: if one of ``streams`` is not a :class:`trio.abc.SendStream`, or a limit no
            number; then none of them was touched.
        ValueError: if a limit is negative; then none of them was touched.

    Cancellation: nothing happened, since it is not cancelled, and bounded as one
        :func:`close_gracefully` is.
    Checkpoints: other tasks run meanwhile, but a cancellation is delivered at the next one.
    """
    if isinstance(streams, trio.abc.AsyncResource):
        name = type(streams).__name__
        raise TypeError(f"expected several streams, got {name}: close_gracefully() takes one")
    streams = list(streams)
    limits = Limits(timeout, linger, linger_bytes)
    for stream in streams:
        check_stream(stream)
    reports: dict[int, CloseReport] = {}
    caller = trio.lowlevel.current_task()

    @trio.lowlevel.enable_ki_protection
    async def close(number: int, stream: trio.abc.SendStream) -> None:
        reports[number] = await end_stream(stream, limits, is_shielded=True, caller=caller)

    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for number, stream in enumerate(streams):
                nursery.start_soon(close, number, stream)
    return [reports[number] for number in range(len(streams))]


@trio.lowlevel.enable_ki_protection
async def abort(stream: trio.abc.SendStream) -> None:
    """Close a stream at once, through all layers, and let the peer of a TCP stream see a reset.

    Nothing is sent any more, neither what is buffered nor an epilogue, and the kernel discards
    what it had not sent yet; there is no warning about it. Use it when what was sent must
    not be taken for complete, or when the peer misbehaves and should cost nothing more, not even
    the kernel's memory. Do not use it otherwise: a reset may destroy what the peer has received
    and not read yet.

    Other tasks inside the stream get :exc:`trio.ClosedResourceError`; a close in progress is cut
    short. If a layer loses bytes that it had accepted, the next ``aclose`` of it in another task
    raises :exc:`trio.ClosedResourceError` and says how many. A handle of
    :meth:`~AsyncWrite.by_ref` ends, its original stays open; a stream split into halves is reset
    when both are closed.

    Args:
        stream: any writer of this library or Trio stream. If it is closed, nothing is done.

    Raises:
        TypeError: if ``stream`` is not a :class:`trio.abc.SendStream`.

    Cancellation: nothing happened, since it is not cancelled; nor is there anything to wait for.
    Checkpoints: other tasks run meanwhile, but a cancellation is delivered at the next one.

    Source: SO_LINGER in socket(7), with a time of 0.
    """
    await abort_stream(stream)


@final
class graceful(Generic[S]):  # noqa: N801 - reads as contextlib.closing does
    """An async context manager that ends with :func:`close_gracefully`.

    ::

        async with graceful(stream) as ending:
            await stream.send_all(b"...")
        log(ending.report)

    When the block ends, the stream is closed gracefully. When it raises, or is cancelled, what was
    sent may be half a message: the bytes that were accepted are still delivered, then the stream
    ends so that the peer can tell, and the outcome is :attr:`CloseOutcome.TRUNCATED`. (A close that
    another task has begun is only waited for, and reported.)

    Args:
        stream: the stream to end.
        timeout: see :func:`close_gracefully`; in seconds.
        linger: see :func:`close_gracefully`; in seconds.
        linger_bytes: see :func:`close_gracefully`.

    Raises:
        TypeError: if ``stream`` is not a :class:`trio.abc.SendStream`, or a limit is not a number.
        ValueError: if a limit is negative.

    Cancellation: as :func:`close_gracefully`.
    """

    def __init__(
        self,
        stream: S,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        linger: float = DEFAULT_LINGER,
        linger_bytes: int = DEFAULT_LINGER_BYTES,
    ) -> None:
        check_stream(stream)
        self._limits = Limits(timeout, linger, linger_bytes)
        #: The stream.
        self.stream: S = stream
        self._report: CloseReport | None = None

    @property
    def report(self) -> CloseReport:
        """What was seen while the stream was closed.

        Raises:
            RuntimeError: if the block has not ended yet.
        """
        if self._report is None:
            raise RuntimeError("there is no report before the block has ended: look at it later")
        return self._report

    async def __aenter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Shielded and bounded by itself.
        self._report = await end_stream(  # noqa: ASYNC102
            self.stream, self._limits, truncated=exc_value is not None
        )
