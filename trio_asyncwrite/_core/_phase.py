"""How far a writer's life has come."""

from __future__ import annotations

import enum
from typing import Final


class Phase(enum.Enum):
    """Moves downwards only; ``BROKEN`` is reached from ``OPEN`` and ``ENDING``."""

    OPEN = "open"
    ENDING = "shutting down"
    ENDED = "shut down"
    BROKEN = "broken"
    CLOSED = "closed"


# An attribute of an Enum class is a slow look-up (before 3.12 it runs Python code), and
# the phase is asked at every poll.
OPEN: Final = Phase.OPEN
ENDING: Final = Phase.ENDING
ENDED: Final = Phase.ENDED
BROKEN: Final = Phase.BROKEN
CLOSED: Final = Phase.CLOSED
