"""A limit for tests that hang: it fails one test and leaves the others alone."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# A test may catch the first interrupt, or shield itself from it.
_AGAIN_AFTER = 10.0


@contextlib.contextmanager
def hang_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block after so many seconds by the wall clock, as Ctrl-C does, and fail it.

    Trio takes care of the interrupt: a run that hangs is cancelled, and closes what it has opened.
    """
    went_off = False

    def interrupt(signum: int, frame: object) -> None:
        nonlocal went_off
        went_off = True
        signal.raise_signal(signal.SIGINT)

    handler = signal.signal(signal.SIGALRM, interrupt)
    timer = signal.getitimer(signal.ITIMER_REAL)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_AFTER)
        yield
    except BaseException as exc:
        if not went_off:
            raise
        raise pytest.fail.Exception(f"it hung: interrupted after {seconds:g} seconds") from exc
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
