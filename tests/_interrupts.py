"""Ctrl-C at every line, without a signal and without chance."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import trio

from trio_asyncwrite._core._checks import consists_of

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType


def interrupt_everywhere(call: Callable[[], object]) -> int:
    """Call ``call`` again and again, each time with KeyboardInterrupt one line further on.

    It strikes in all Python code that ``call`` runs, also where Trio would hold Ctrl-C off, and
    in the standard library.

    Returns:
        How many times it struck.
    """
    strikes = 0
    while _is_interrupted(call, strikes, lambda _: True):
        strikes += 1
    return strikes


def interrupt_as_trio_would(call: Callable[[], object], files: Sequence[str]) -> int:
    """Like :func:`interrupt_everywhere`, where Trio lets Ctrl-C through, and in some files only.

    Args:
        call: what to call.
        files: how the names of the files end.

    Returns:
        How many times it struck.
    """
    names = tuple(files)

    def is_open(frame: FrameType) -> bool:
        return (
            frame.f_code.co_filename.endswith(names) and not trio.lowlevel.currently_ki_protected()
        )

    strikes = 0
    while _is_interrupted(call, strikes, is_open):
        strikes += 1
    return strikes


def _is_interrupted(
    call: Callable[[], object], lines: int, strikes_at: Callable[[FrameType], bool]
) -> bool:
    left = lines

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        left -= strikes_at(frame)
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
    except BaseExceptionGroup as exc:
        # Out of a nursery it comes in a group.
        if not consists_of(exc, (KeyboardInterrupt,)):
            raise
    finally:
        sys.settrace(tracer)
        sys.unraisablehook = unraisablehook
    return left < 0
