"""Standard output, which may be closed, or full, or have lost its reader."""

from __future__ import annotations

import sys


class OutputError(Exception):
    """Standard output did not take the text; the cause, if there is one, says why."""


def say(text: str) -> None:
    """Print ``text`` now.

    Raises:
        OutputError: if standard output does not take all of it.
    """
    # Python leaves it None if the descriptor was closed from the beginning.
    if sys.stdout is None:
        raise OutputError("it is closed")
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except (OSError, ValueError) as exc:
        raise OutputError(str(exc)) from exc
