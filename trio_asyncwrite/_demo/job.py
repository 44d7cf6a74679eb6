"""Every sender does the same job over every transport."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

import trio

from .cancellations import draw_places
from .delivery import Delivery
from .progress import show_progress
from .sender import Resuming, SendingAgain, Skipping
from .source import from_path, standard_library
from .table import introduction, report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .source import Source
    from .transport import Transport

_INTERRUPTED: Final = 128 + signal.SIGINT


def run_demo(path: Path | None, *, cancels: int, seed: int, transports: Sequence[Transport]) -> int:
    """Do the main job and print what came of it.

    Args:
        path: the file or folder to send; ``None`` for the standard library's sources.
        cancels: how often to cancel each sender.
        seed: what the places of the cancellations are drawn from.
        transports: what to send over.

    Returns:
        The exit status: 0 if all arrived whole through our writer, over all transports; 1 if
        not; 130 after Ctrl-C.

    Raises:
        SourceError: if there is nothing to send.
    """
    source = standard_library() if path is None else from_path(path)
    print(introduction(source, cancels, seed))
    job = _Job(source, draw_places(source.size, cancels, seed))
    status = trio.run(job.run, transports)
    if status == _INTERRUPTED:
        print("Interrupted.")
    return status


class _Job:
    def __init__(self, source: Source, places: list[int]) -> None:
        self._source = source
        self._places = places

    async def run(self, transports: Sequence[Transport]) -> int:
        status = _INTERRUPTED
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_interrupt, nursery.cancel_scope)
            whole = [await self._compare(transport) for transport in transports]
            status = 0 if all(whole) else 1
            nursery.cancel_scope.cancel()
        return status

    async def _compare(self, transport: Transport) -> bool:
        ours = await self._deliver(transport, Resuming)
        others = [await self._deliver(transport, guess) for guess in (SendingAgain, Skipping)]
        print(report(transport, self._source, [ours, *others]))
        return ours.is_whole

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

        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_progress, sys.stdout, describe)
            await delivery.run(self._source)
            nursery.cancel_scope.cancel()
        return delivery


async def _cancel_on_interrupt(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
