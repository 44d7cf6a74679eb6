"""Whether a file can be read now, without waiting for the disk.

Theory of operation
===================

**A disk is neither ready nor not.** A read of what the page cache has takes microseconds; of what
it has not, milliseconds or, over a network, minutes, and the kernel has no event for it. So the
first byte of each piece, and others at a distance, are asked for with RWF_NOWAIT, which answers
EAGAIN instead of reading the disk.

**The distance follows the answers.** Each question costs about as much as sending 16 KiB. A file is
mostly in memory as a whole or not at all, so after a stretch without a miss the distance grows, and
a miss makes it small again.

A file system that does not know RWF_NOWAIT (tmpfs, /proc, some network ones) counts as memory.
"""

from __future__ import annotations

import os
import sys
from typing import Final, final

#: The small distance, in bytes; and how much a worker thread reads at once. Measured on a cold
#: file: a call takes up to 1.8 ms for so much.
PIECE: Final = 128 * 1024

#: The large distance. The same measurement: up to 8 ms, if all of it is missing.
STRETCH: Final = 4 * PIECE

# What is read into; nobody looks at it.
_PROBE: Final = [bytearray(1)]


@final
class PageCache:
    """What the page cache has of one file, as far as it was asked."""

    __slots__ = ("_distance", "_knows")

    def __init__(self) -> None:
        # Whether it can be asked.
        self._knows = hasattr(os, "RWF_NOWAIT")
        self._distance = PIECE

    def ask(self, number: int, offset: int, size: int) -> int:
        """How many of ``size`` bytes can be read without the disk.

        Args:
            number: the file's descriptor.
            offset: where they begin.
            size: how many are wanted.
        """
        if sys.platform != "linux" or not self._knows or not size:
            return size
        done = 0
        try:
            os.preadv(number, _PROBE, offset, os.RWF_NOWAIT)
            while done < size:
                end = min(done + self._distance, size)
                try:
                    os.preadv(number, _PROBE, offset + end - 1, os.RWF_NOWAIT)
                except BlockingIOError:
                    if self._distance == PIECE:
                        raise
                    self._distance = PIECE
                else:
                    done = end
        except BlockingIOError:
            self._distance = PIECE
            return done
        except OSError:
            self._knows = False  # the file system does not know
            return size
        if size >= STRETCH:
            self._distance = STRETCH
        return size
