"""A rate that many writers share."""

from __future__ import annotations

from typing import Final, final

from trio_asyncwrite._core._checks import above_zero

from ._tokens import Tokens

#: A burst is what comes in within so many seconds.
_BURST_SECONDS: Final = 0.1


@final
class TokenBucket:
    """How many bytes per second may be written, by all :class:`ThrottledWriter` over it together.

    Those that have to wait are served in the order of their coming, and get equal shares. The
    clock is Trio's. A bucket serves one ``trio.run`` at a time.

    Args:
        rate: bytes per second; ``math.inf`` for no limit.
        burst: how many bytes may go at once after idle time. ``None``: as many as come in within a
            tenth of a second, at least 1. If you choose another, compare it with the rate: 64 KiB
            at 10 kB/s would be no limit for six seconds.

    Raises:
        TypeError: if ``rate`` or ``burst`` is not a number.
        ValueError: if ``rate`` is not greater than 0, or ``burst`` is less than 1.

    Source: ``async_speed_limit::Limiter``; ``golang.org/x/time/rate``.
    """

    def __init__(self, rate: float, burst: float | None = None) -> None:
        number = _positive(rate, "rate")
        self._burst = None if burst is None else _positive(burst, "burst")
        if self._burst is not None and self._burst < 1:
            raise ValueError(f"burst must be at least 1 byte, got {burst!r}")
        #: What is left, and who waits; for :class:`ThrottledWriter`.
        #:
        #: :meta private:
        self.tokens: Tokens = Tokens(number, self._burst_at(number))

    @property
    def rate(self) -> float:
        """Bytes per second. You may set it at any time, also while tasks wait.

        Raises:
            TypeError: if you set it to something that is not a number.
            ValueError: if you set it to a number that is not greater than 0.
        """
        return self.tokens.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        number = _positive(rate, "rate")
        self.tokens.change(number, self._burst_at(number))

    @property
    def burst(self) -> float:
        """How many bytes may go at once after idle time. By default it follows the rate."""
        return self.tokens.burst

    def _burst_at(self, rate: float) -> float:
        return max(rate * _BURST_SECONDS, 1.0) if self._burst is None else self._burst

    def __repr__(self) -> str:
        return f"<TokenBucket of {self.rate:g} bytes per second, {self.burst:g} at once>"


def _positive(value: float, name: str) -> float:
    return float(above_zero(value, name, "use math.inf"))
