"""Random schedules of both directions, cancelled and resumed, equal a model: two byte strings."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    BufReader,
    BufWriter,
    DuplexStream,
    LaneOutcome,
    NotReady,
    ReadWritePair,
    Relay,
    duplex,
)

from .._patience import wait_all_tasks_blocked
from ._fakes import foreign

if TYPE_CHECKING:
    from collections.abc import Callable

SIDES: dict[str, Callable[[Any, random.Random], Any]] = {
    "bare": lambda stream, _: stream,
    "foreign": lambda stream, _: foreign(stream),
    "buffered": lambda stream, rng: ReadWritePair(
        BufReader(stream, rng.randint(1, 9)), BufWriter(stream, rng.randint(1, 9))
    ),
}


class End:
    """What talks at one end: the bytes that it has sent and received, and whether it has ended."""

    def __init__(self, stream: DuplexStream, rng: random.Random) -> None:
        self.stream = stream
        self.rng = rng
        self.sent = bytearray()
        self.received = bytearray()
        self.has_ended = False
        self.saw_end = False

    def write(self) -> None:
        if not self.has_ended:
            data = self.rng.randbytes(self.rng.randint(1, 20))
            self.sent += data[: self.stream.poll_write(data)]

    def read(self) -> None:
        data = self.stream.poll_read(self.rng.randint(1, 20))
        self.received += data
        self.saw_end = self.saw_end or not data

    def end(self) -> None:
        self.has_ended = True
        self.stream.poll_shutdown()


def attempt(step: Callable[[], None]) -> None:
    with contextlib.suppress(NotReady):
        step()


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("seed", range(12))
async def test_a_random_schedule(
    kind: str, seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(f"{kind} {seed}")
    left, a = duplex(rng.randint(1, 30))
    right, b = duplex(rng.randint(1, 30))
    client, server = End(left, rng), End(right, rng)
    relay = Relay(SIDES[kind](a, rng), SIDES[kind](b, rng), buffer_size=rng.randint(1, 40))
    scopes: list[trio.CancelScope] = []

    async def run(scope: trio.CancelScope) -> None:
        with scope:
            await relay.run()
        scopes.remove(scope)

    def start() -> None:
        scopes.append(trio.CancelScope())
        nursery.start_soon(run, scopes[-1])

    def check() -> None:
        for source, target, lane in (
            (client, server, relay.a_to_b),
            (server, client, relay.b_to_a),
        ):
            assert source.sent.startswith(target.received)
            assert len(target.received) <= lane.bytes <= len(source.sent)
            assert not target.saw_end or target.received == source.sent

    async with trio.open_nursery() as nursery:
        for _ in range(120):
            end = rng.choice((client, server))
            step = rng.choice((end.write, end.write, end.read, end.read, None, "cancel"))
            if step == "cancel":
                for scope in scopes:
                    scope.cancel()
                if rng.random() < 0.5:
                    await wait_all_tasks_blocked()
            elif callable(step):
                attempt(step)
            if not scopes and rng.random() < 0.7:
                start()
            for _ in range(rng.randrange(4)):
                await trio.lowlevel.checkpoint()
            check()
        attempt(client.end)
        attempt(server.end)
        while not (client.saw_end and server.saw_end):
            if not scopes and LaneOutcome.RUNNING in (relay.a_to_b.outcome, relay.b_to_a.outcome):
                await wait_all_tasks_blocked()
                start()
            await wait_all_tasks_blocked()
            for end in (client, server):
                attempt(end.read)
            check()
    assert (server.received, client.received) == (client.sent, server.sent)
    assert (relay.a_to_b.bytes, relay.b_to_a.bytes) == (len(client.sent), len(server.sent))
    assert {relay.a_to_b.outcome, relay.b_to_a.outcome} == {LaneOutcome.ENDED}
    for stream in (a, b, left, right):
        await trio.aclose_forcefully(stream)
