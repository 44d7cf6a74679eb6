"""The limits of a graceful close, checked."""

from __future__ import annotations

import math
from typing import Final, final

import trio.abc

from trio_asyncwrite._core._checks import connection_advice, int_at_least, not_negative

DEFAULT_TIMEOUT: Final = 30.0
#: The pause that nginx allows in its lingering close ("lingering_timeout").
DEFAULT_LINGER: Final = 5.0
#: About as much as 100 Mbit/s bring in the default linger.
DEFAULT_LINGER_BYTES: Final = 64 * 1024 * 1024


@final
class Limits:
    """Checked limits, in seconds and bytes.

    Args:
        timeout: how long to try to send.
        linger: how long to wait for the peer's end after that.
        linger_bytes: how much to discard after that.
        total: how long both may take together; servers set it.
    """

    __slots__ = ("linger", "linger_bytes", "timeout", "total")

    def __init__(
        self, timeout: float, linger: float, linger_bytes: int, *, total: float = math.inf
    ) -> None:
        self.total: float = total
        self.timeout: float = not_negative(timeout, "timeout")
        self.linger: float = not_negative(linger, "linger")
        self.linger_bytes: int = int_at_least(0, linger_bytes, "linger_bytes")

    def at_most(self, seconds: float) -> Limits:
        """The same limits, and all of it within ``seconds``."""
        timeout, linger = min(self.timeout, seconds), min(self.linger, seconds)
        return Limits(timeout, linger, self.linger_bytes, total=seconds)


def check_stream(stream: object) -> None:
    """Refuse everything but a stream to write to.

    Raises:
        TypeError: if ``stream`` is not a :class:`trio.abc.SendStream`.
    """
    if not isinstance(stream, trio.abc.SendStream):
        name = type(stream).__name__
        is_several = name in ("list", "tuple", "set")
        instead = ": close_all_gracefully() takes several" if is_several else ""
        if isinstance(getattr(stream, "writer", None), trio.abc.SendStream):
            instead = ": give its .writer"  # a channel of frames, for example
        instead = instead or connection_advice(stream)
        raise TypeError(f"expected a trio.abc.SendStream, got {name}{instead}")
