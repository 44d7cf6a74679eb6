"""The same file on its way through a relay, which is cancelled meanwhile."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import IO, TYPE_CHECKING, Final

import trio
import trio.abc

from trio_asyncwrite import LaneOutcome, Relay, graceful

from .file import PIECE, FileWay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .cancellations import Cancellations
    from .transport import Connect, Transport

    PassOn = Callable[[trio.abc.Stream, trio.abc.SendStream, Cancellations], Awaitable[None]]

#: How long to wait for the end of the other direction, in which nothing is sent, in seconds. A
#: stream that cannot be half-closed tells its receiver the end only when the relay is over.
_HALF_OPEN: Final = 1


def relay_ways(transport: Transport) -> tuple[FileWay, FileWay]:
    """A relay of this library's, and a loop, each between two connections."""
    return (
        FileWay(("Relay.run", "resumed"), True, partial(_send, transport.connect, _run_relay)),
        FileWay(
            ("read, send_all", "begun again"),
            False,
            partial(_send, transport.connect_plain, _run_loop),
        ),
    )


async def _send(
    connect: Connect,
    pass_on: PassOn,
    stream: trio.abc.SendStream,
    file: IO[bytes],
    cancellations: Cancellations,
) -> None:
    """Send to a relay, which passes it on to ``stream``."""
    sending, front = await connect()
    failure: Exception | None = None
    async with sending, front, trio.open_nursery() as nursery:
        nursery.start_soon(_send_all, sending, file)
        try:
            await pass_on(front, stream, cancellations)
        except (OSError, trio.BrokenResourceError) as exc:
            failure = exc  # raised below: the nursery would make a group of it
        nursery.cancel_scope.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


async def _send_all(stream: trio.abc.Stream, file: IO[bytes]) -> None:
    file.seek(0)
    # A relay that has stopped does not want the rest.
    with contextlib.suppress(trio.BrokenResourceError):
        async with stream:
            while piece := file.read(PIECE):
                await stream.send_all(piece)


async def _run_relay(
    front: trio.abc.Stream, back: trio.abc.SendStream, cancellations: Cancellations
) -> None:
    assert isinstance(back, trio.abc.Stream)
    relay = Relay(front, back, half_open=_HALF_OPEN)
    async with graceful(front), graceful(back):
        while not await cancellations.expose(relay.run):
            pass
        _require_end(relay)


def _require_end(relay: Relay) -> None:
    if relay.a_to_b.outcome is not LaneOutcome.ENDED:
        raise trio.BrokenResourceError(repr(relay.a_to_b))


async def _run_loop(
    front: trio.abc.Stream, back: trio.abc.SendStream, cancellations: Cancellations
) -> None:
    async def pass_on() -> None:
        while data := await front.receive_some(PIECE):
            await back.send_all(data)

    while not await cancellations.expose(pass_on):
        pass
