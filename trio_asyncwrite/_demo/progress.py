"""What happens meanwhile, on a terminal."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Final, TextIO

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_INTERVAL: Final = 0.1  # seconds


async def show_progress(out: TextIO, describe: Callable[[], str]) -> None:
    """Keep one line of ``out`` up to date until cancelled, and then clear it.

    Does nothing if ``out`` is no terminal, or one that has gone.
    """
    if not out.isatty():
        return
    # The last column stays free: some terminals wrap the line when it is written to.
    width = shutil.get_terminal_size().columns - 1
    with contextlib.suppress(OSError):  # the table meets it, too
        try:
            while True:
                out.write("\r" + describe().ljust(width)[:width])
                out.flush()
                await trio.sleep(_INTERVAL)
        finally:
            out.write("\r" + " " * width + "\r")
            out.flush()
