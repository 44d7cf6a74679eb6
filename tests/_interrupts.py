"""Ctrl-C at every line, without a signal and without chance."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def interrupt_everywhere(call: Callable[[], object]) -> int:
    """Call ``call`` again and again, each time with KeyboardInterrupt one line further on.

    It strikes in all Python code that ``call`` runs, also where Trio would hold Ctrl-C off, and
    in the standard library.

    Returns:
        How many times it struck.
    """
    strikes = 0
    while _is_interrupted(call, strikes):
        strikes += 1
    return strikes


def _is_interrupted(call: Callable[[], object], lines: int) -> bool:
    left = lines

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt  # and Python stops tracing
        return trace

    unraisablehook, tracer = sys.unraisablehook, sys.gettrace()
    sys.unraisablehook = lambda _: None  # a finaliser was interrupted
    try:
        sys.settrace(trace)
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(tracer)
        sys.unraisablehook = unraisablehook
    return left < 0
