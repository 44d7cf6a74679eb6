"""A clock that jumps, and a wait for all tasks, that let a real network finish first.

On a busy machine, bytes take a moment from one socket to the other. In that moment nothing seems to
happen: Trio's clock would jump, and its wait for all tasks would return.
"""

from __future__ import annotations

import select
import sys
import weakref
from typing import Final

import trio
import trio.abc
import trio.testing

#: For how long nothing must have happened between real sockets, in real seconds. No result depends
#: on it; if it is too short, tests fail now and then.
PATIENCE: Final = 0.02
#: Longer than Linux delays an acknowledgement, which makes room.
TIME_TO_ACKNOWLEDGE: Final = 0.05

_patient_clocks: Final[weakref.WeakSet[trio.abc.Clock]] = weakref.WeakSet()
_HAS_NETWORK: Final = trio.lowlevel.RunVar("has_network", default=False)


def jumping_clock() -> trio.testing.MockClock:
    """A clock that jumps at once, until the run has a socket of the network."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    _patient_clocks.add(clock)
    return clock


async def wait_all_tasks_blocked(cushion: float = 0) -> None:
    """Trio's, but patient where there are real sockets."""
    await trio.testing.wait_all_tasks_blocked(max(cushion, PATIENCE * _HAS_NETWORK.get()))


def let_the_network_settle(descriptor: int | None) -> None:
    """Wait until a socket has room for more, or it is certain that only its peer can make room."""
    if descriptor is not None and _HAS_NETWORK.get():
        select.select([], [descriptor], [], TIME_TO_ACKNOWLEDGE)


def _watch(event: str, args: tuple[object, ...]) -> None:
    is_network = event in {"socket.bind", "socket.connect"} and isinstance(args[1], tuple)
    if is_network and trio.lowlevel.in_trio_run():
        _HAS_NETWORK.set(True)
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, trio.testing.MockClock) and clock in _patient_clocks:
            clock.autojump_threshold = PATIENCE


sys.addaudithook(_watch)
