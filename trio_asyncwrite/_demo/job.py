"""Every sender does the same job over every transport."""

from __future__ import annotations

import signal
import sys
from typing import IO, TYPE_CHECKING, Final

import trio

from .answers import GRACEFULLY, PLAINLY, Answers
from .cancellations import draw_places
from .delivery import Delivery
from .file import LOOP, RESUMED, FileTransfer, FileWay, one_file
from .output import OutputError, say
from .progress import show_progress
from .relay import relay_ways
from .sender import Resuming, SendingAgain, Skipping
from .source import from_path, standard_library
from .table import (
    answers_introduction,
    answers_report,
    file_introduction,
    file_report,
    introduction,
    relay_introduction,
    relay_report,
    report,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from .answers import Way
    from .source import Source
    from .transport import Connect, Transport

_INTERRUPTED: Final = 128 + signal.SIGINT


def run_demo(
    path: Path | None,
    *,
    cancels: int,
    seed: int,
    answers: int,
    transports: Sequence[Transport],
) -> int:
    """Do the main job and print what came of it.

    Args:
        path: the file or folder to send; ``None`` for the standard library's sources.
        cancels: how often to cancel each sender.
        seed: what the places of the cancellations are drawn from.
        answers: how many answers to end early, each way; 0 leaves that part out.
        transports: what to send over.

    Returns:
        The exit status: 0 if all arrived whole through our writer, over all transports, and all
        of our connections ended clean; 1 if not; 130 after Ctrl-C.

    Raises:
        SourceError: if there is nothing to send.
        OutputError: if standard output does not take the result; the rest is left out.
    """
    source = standard_library() if path is None else from_path(path)
    say(introduction(source, cancels, seed))
    job = _Job(source, draw_places(source.size, cancels, seed), answers)
    status = trio.run(job.run, transports)
    if status == _INTERRUPTED:
        say("Interrupted.")
    return status


class _Job:
    def __init__(self, source: Source, places: list[int], answers: int) -> None:
        self._source = source
        self._places = places
        self._answers = answers

    async def run(self, transports: Sequence[Transport]) -> int:
        status = _INTERRUPTED
        failure: OutputError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_interrupt, nursery.cancel_scope)
            try:
                status = await self._compare_all(transports)
            except OutputError as exc:  # raised below: the nursery would make a group of it
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return status

    async def _compare_all(self, transports: Sequence[Transport]) -> int:
        bad = [f"over {each.name}" for each in transports if not await self._compare(each)]
        with one_file(self._source) as file:
            say(file_introduction(file.tell()))
            bad += [
                f"a file over {each.name}"
                for each in transports
                if not await self._compare_file(each, file)
            ]
            say(relay_introduction())
            bad += [
                f"a relay over {each.name}"
                for each in transports
                if not await self._compare_relay(each, file)
            ]
        if self._answers:
            say(answers_introduction(self._answers))
            bad += [
                f"answers over {each.name}"
                for each in transports
                if not await self._compare_answers(each)
            ]
        say(verdict(bad))
        return 1 if bad else 0

    async def _compare(self, transport: Transport) -> bool:
        ours = await self._deliver(transport, Resuming)
        others = [await self._deliver(transport, guess) for guess in (SendingAgain, Skipping)]
        say(report(transport, self._source, [ours, *others]))
        return ours.is_whole and ours.ended_clean

    async def _deliver(
        self, transport: Transport, sender_type: type[Resuming | SendingAgain | Skipping]
    ) -> Delivery:
        resumes = sender_type is Resuming
        connect = transport.connect if resumes else transport.connect_plain
        delivery = Delivery(sender_type, *await connect(), self._places)
        title = f"{transport.name}, {', '.join(sender_type.title)}"

        def describe() -> str:
            received, size = delivery.tape.received / 1e6, self._source.size / 1e6
            hits = delivery.cancellations.total
            return f"{title}: {received:.1f} of {size:.1f} MB, {hits:,} cancellations"

        await _show_progress_of(delivery.run(self._source), describe)
        return delivery

    async def _compare_file(self, transport: Transport, file: IO[bytes]) -> bool:
        ours = await self._transfer(transport, RESUMED, file)
        plain = await self._transfer(transport, LOOP, file)
        say(file_report(transport, [ours, plain]))
        return ours.is_whole

    async def _compare_relay(self, transport: Transport, file: IO[bytes]) -> bool:
        ways = relay_ways(transport)
        transfers = [await self._transfer(transport, way, file) for way in ways]
        say(relay_report(transport, transfers))
        return transfers[0].is_whole

    async def _transfer(self, transport: Transport, way: FileWay, file: IO[bytes]) -> FileTransfer:
        connect = transport.connect if way.is_ours else transport.connect_plain
        transfer = FileTransfer(way, *await connect(), file, self._places)
        title = f"{transport.name}, {', '.join(way.title)}"

        def describe() -> str:
            received, size = transfer.received / 1e6, transfer.size / 1e6
            return f"{title}: {received:.1f} of {size:.1f} MB"

        await _show_progress_of(transfer.run(), describe)
        return transfer

    async def _compare_answers(self, transport: Transport) -> bool:
        ours = await self._answer(transport, GRACEFULLY, transport.connect_server)
        plain = await self._answer(transport, PLAINLY, transport.connect_plain)
        say(answers_report(transport, [ours, plain]))
        return ours.are_well

    async def _answer(self, transport: Transport, way: Way, connect: Connect) -> Answers:
        answers = Answers(way, connect, self._answers)
        title = f"{transport.name}, {', '.join(way.title)}"
        await _show_progress_of(
            answers.run(), lambda: f"{title}: {answers.whole} of {answers.planned} answers whole"
        )
        return answers


async def _show_progress_of(work: Awaitable[None], describe: Callable[[], str]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show_progress, sys.stdout, describe)
        await work
        nursery.cancel_scope.cancel()


async def _cancel_on_interrupt(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
