"""What becomes of a connection and its server, however a handler ends: the table of servers.rst."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    AsyncWrite,
    BufWriter,
    CloseOutcome,
    Drain,
    DrainReport,
    DuplexStream,
    NotReady,
    close_gracefully,
    duplex,
    graceful,
    serve_listeners,
)

from .._patience import wait_all_tasks_blocked
from .._servers import CLEAN, TRUNCATED, Server, both
from .._streams import drain as read_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

PAGE = Path(__file__).parents[2] / "docs" / "servers.rst"


async def returns(stream: AsyncReadWrite) -> None:
    await stream.write_all(b"hello")


async def closes(stream: AsyncReadWrite) -> None:
    await stream.write_all(b"hello")
    await stream.aclose()


async def ends_gracefully(stream: AsyncReadWrite) -> None:
    await stream.write_all(b"hello")
    await close_gracefully(stream)


async def leaves_graceful(stream: AsyncReadWrite) -> None:
    async with graceful(stream):
        await stream.write_all(b"hello")


class Five(AsyncWrite):
    """It takes five bytes."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self._is_full = False

    def poll_write(self, data: Any) -> int:
        if self._is_full:
            raise NotReady(trio.sleep_forever)
        self._is_full = True
        return self.inner.poll_write(data[:5])


async def cuts_short(stream: AsyncReadWrite) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await Five(stream).write_all(b"hello, world")


async def raises(stream: AsyncReadWrite) -> None:
    await stream.write_all(b"hello")
    raise ZeroDivisionError


async def raises_after_its_shutdown(stream: AsyncReadWrite) -> None:
    await stream.write_all(b"hello")
    await stream.shutdown()
    raise ZeroDivisionError


async def raises_after_its_close(stream: AsyncReadWrite) -> None:
    await closes(stream)
    raise ZeroDivisionError


async def exits(stream: AsyncReadWrite) -> None:
    await stream.write_all(b"hello")
    raise SystemExit


async def never_returns(stream: AsyncReadWrite) -> None:
    await stream.write_all(b"hello")
    await trio.sleep_forever()


class Row(NamedTuple):
    """A row of the table."""

    handlers: list[Callable[[Any], Any]]
    #: Whether the client sees a proper end.
    proper: bool
    #: How the connection counts in the report, if not as closed by its handler.
    outcome: CloseOutcome | None
    #: With these the server ends, unless there is an on_error; and with these in any case.
    error: type[Exception] | None = None
    interrupt: type[BaseException] | None = None


ROWS = {
    "returns": Row([returns], True, CLEAN),
    "closes its stream": Row([closes], True, None),
    "ends it by ``close_gracefully`` or ``graceful``": Row(
        [ends_gracefully, leaves_graceful], True, CLEAN
    ),
    "cuts a message short, and returns": Row([cuts_short], False, TRUNCATED),
    "raises an exception": Row([raises], False, TRUNCATED, ZeroDivisionError),
    "raises one after it has shut its stream down": Row(
        [raises_after_its_shutdown], True, CLEAN, ZeroDivisionError
    ),
    "raises one after it has closed its stream": Row(
        [raises_after_its_close], True, None, ZeroDivisionError
    ),
    "raises ``SystemExit`` or ``KeyboardInterrupt``": Row(
        [exits], False, TRUNCATED, interrupt=SystemExit
    ),
    "runs until the grace is over": Row([never_returns], False, TRUNCATED),
}
CASES = [
    pytest.param(row, handler, drained, id=f"{handler.__name__}-{when}")
    for row in ROWS.values()
    for handler in row.handlers
    for drained, when in ((False, "for ever"), (True, "drained"))
    if drained or handler is not never_returns
]


def test_the_table_has_these_rows() -> None:
    table = PAGE.read_text().partition(".. _handler-ends:")[2].partition("\n\nAll three ")[0]
    assert re.findall(r"^   \* - (.+)$", table, re.MULTILINE) == ["a handler", *ROWS]


@both
@pytest.mark.parametrize("has_on_error", [False, True], ids=["", "on_error"])
@pytest.mark.parametrize(("row", "handler", "drained"), CASES)
async def test_how_it_ends(
    row: Row,
    handler: Any,
    drained: bool,
    *,
    tls: bool,
    has_on_error: bool,
    autojump_clock: MockClock,
) -> None:
    server = Server(tls=tls, grace=10)
    told: list[Exception] = []
    options: dict[str, Any] = {} if drained else {"drain": None}
    if has_on_error:
        options["on_error"] = lambda exc, _stream: told.append(exc)
    error = row.interrupt or (None if has_on_error else row.error)

    async with contextlib.AsyncExitStack() as stack:
        if error is not None:
            stack.enter_context(pytest.RaisesGroup(error, flatten_subgroups=True))
        if handler is cuts_short and not drained:
            stack.enter_context(pytest.warns(ResourceWarning, match="only 5 of the 12 bytes"))
        nursery = await stack.enter_async_context(trio.open_nursery())
        await server.run(handler, nursery, **options)
        with trio.CancelScope(shield=True):
            client = await server.connect()
            await client.send_all(b"")
            received = b""
            try:
                while chunk := await client.receive_some():
                    received += chunk
                    if handler is never_returns:
                        server.drain.start()
            except trio.BrokenResourceError:
                is_proper = False
                await trio.aclose_forcefully(client)
            else:
                is_proper = True
                await client.aclose()
            await wait_all_tasks_blocked()
        if drained:
            server.drain.start()
        else:
            nursery.cancel_scope.cancel()

    # Without a drain, TLS lacks the close_notify of a handler that only returns.
    assert is_proper == (row.proper and (drained or not tls or handler is not returns))
    if drained or handler is not cuts_short:
        assert received == b"hello"
    assert list(map(type, told)) == ([row.error] if row.error and has_on_error else [])
    if drained and error is None:
        report = server.report
        assert report.outcomes == ({} if row.outcome is None else {row.outcome: 1})
        assert report.closed_by_handler == (row.outcome is None)
        assert report.failed_handlers == len(told)
        assert report.cancelled == (handler is never_returns)


# ---- Another task closes the stream --------------------------------------------------------------


class Offering(trio.abc.Listener[DuplexStream]):
    """Gives the server one end of each connection at once, and keeps the other."""

    def __init__(self, connections: int) -> None:
        self.pairs = [duplex(100) for _ in range(connections)]
        self._accepted = 0

    async def accept(self) -> DuplexStream:
        await trio.lowlevel.checkpoint()
        if self._accepted == len(self.pairs):
            await trio.sleep_forever()
        self._accepted += 1
        return self.pairs[self._accepted - 1][0]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def close_for_long(stream: DuplexStream) -> None:
    await close_gracefully(stream, timeout=5, linger=5)


async def aclose_for_long(stream: DuplexStream) -> None:
    with contextlib.suppress(trio.ClosedResourceError):  # the server's limits count for it as well
        await stream.aclose()


@pytest.mark.parametrize("handler_ends", ["returns", "raises", "is evicted"])
@pytest.mark.parametrize("close", [close_for_long, aclose_for_long])
async def test_a_close_of_another_task_is_waited_for_and_counted(
    close: Callable[[DuplexStream], Awaitable[None]], handler_ends: str, autojump_clock: MockClock
) -> None:
    """Until then the connection is open, for ``max_connections`` and for the drain."""
    drain = Drain(timeout=2, linger=0)
    listener = Offering(2)
    times: list[float] = []
    reports: list[DrainReport] = []

    async with trio.open_nursery() as nursery:

        async def handler(stream: DuplexStream) -> None:
            times.append(trio.current_time())
            writer = BufWriter(stream, 2000)
            await stream.write_all(bytes(100))  # all that there is room for
            await writer.write_all(bytes(1000))
            nursery.start_soon(close, stream)
            if handler_ends == "is evicted":
                await stream.receive_some()
            await wait_all_tasks_blocked()
            if handler_ends == "raises":
                raise ZeroDivisionError

        async def serve() -> None:
            options: Any = {"max_connections": 1, "on_error": lambda *_: None}
            reports.append(await serve_listeners(handler, [listener], drain=drain, **options))
            times.append(trio.current_time())

        nursery.start_soon(serve)
        await trio.sleep(3)
        drain.start()

    assert times == pytest.approx([0, 2, 4])
    (report,) = reports
    outcome = CloseOutcome.TRUNCATED if handler_ends == "raises" else CloseOutcome.TIMED_OUT
    assert report.outcomes == {outcome: 2}
    assert report.unsent_bytes == 2000
    for _, client in listener.pairs:
        with pytest.raises(trio.BrokenResourceError):
            await read_all(client)
        await client.aclose()
