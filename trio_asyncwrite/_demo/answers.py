"""Endings while the peer still sends: a server that answers early, and closes.

What comes in then and is not read makes the kernel send a reset, which destroys what is still on
its way of the answer.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import trio
import trio.abc
import trio.testing

from trio_asyncwrite import BufWriter, CloseOutcome, CloseReport, graceful

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .transport import Connect

ANSWER_SIZE: Final = 4 * 1024 * 1024

#: How much the client sends. The server reads the first byte.
UPLOAD_SIZE: Final = 200_000


@dataclass(frozen=True)
class Way:
    """A way to answer and to close."""

    #: Two lines to head a column of the table with.
    title: tuple[str, str]
    #: What the server does; returns how it ended, if it can tell.
    answer: Callable[[trio.abc.Stream], Awaitable[CloseReport | None]]


async def _answer_gracefully(stream: trio.abc.Stream) -> CloseReport:
    async with graceful(BufWriter(stream)) as ending:
        await stream.receive_some(1)
        await ending.stream.write_all(bytes(ANSWER_SIZE))
    return ending.report


async def _answer_plainly(stream: trio.abc.Stream) -> None:
    async with stream:
        await stream.receive_some(1)
        await stream.send_all(bytes(ANSWER_SIZE))


GRACEFULLY: Final = Way(("BufWriter", "close_gracefully"), _answer_gracefully)
PLAINLY: Final = Way(("send_all", "aclose"), _answer_plainly)


@final
class Answers:
    """Everything that is known of some answers in the same way.

    Args:
        way: how to answer.
        connect: each answer has its own connection.
        planned: how many.
    """

    def __init__(self, way: Way, connect: Connect, planned: int) -> None:
        self.way = way
        self.planned = planned
        self._connect = connect
        #: How many the client has received to their end.
        self.whole = 0
        #: How many bytes it has not received, of all.
        self.missing = 0
        self.reports: list[CloseReport] = []
        #: What ended answers early.
        self.errors: list[str] = []
        self.seconds = 0.0

    @property
    def are_well(self) -> bool:
        """Whether all are whole, and are known to have ended as they should."""
        clean = sum(report.outcome is CloseOutcome.CLEAN for report in self.reports)
        return self.whole == clean == self.planned

    async def run(self) -> None:
        """Ask and answer, as often as planned."""
        began = trio.current_time()
        for _ in range(self.planned):
            client, server = await self._connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer, server)
                nursery.start_soon(self._ask, client)
        self.seconds = trio.current_time() - began

    async def _answer(self, server: trio.abc.Stream) -> None:
        try:
            report = await self.way.answer(server)
        except trio.BrokenResourceError as exc:
            self.errors.append(f"the server stopped: {exc!r}")
        else:
            if report is not None:
                self.reports.append(report)

    async def _ask(self, client: trio.abc.Stream) -> None:
        received = 0
        # A reset shows in what is missing.
        with contextlib.suppress(trio.BrokenResourceError):
            async with client, trio.open_nursery() as nursery:
                nursery.start_soon(_upload, client)
                with contextlib.suppress(trio.BrokenResourceError):
                    while data := await _receive_slowly(client):
                        received += len(data)
        self.whole += received == ANSWER_SIZE
        self.missing += ANSWER_SIZE - received


async def _upload(client: trio.abc.Stream) -> None:
    # A server that has closed does not want it any more.
    with contextlib.suppress(trio.BrokenResourceError):
        await client.send_all(bytes(UPLOAD_SIZE))


async def _receive_slowly(client: trio.abc.Stream) -> bytes | bytearray:
    """Let the server do all it can before; so it does not depend on the speed of the machine."""
    await trio.testing.wait_all_tasks_blocked()
    return await client.receive_some()
