"""Writes to a file in a worker thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from trio_asyncwrite._core._thread_call import ThreadCall

if TYPE_CHECKING:
    from ._std_file import StdFile


#: No bytes.
NOTHING: Final = memoryview(b"")


@final
class Job(ThreadCall):
    """One call of the file in a worker thread, and its outcome."""

    def __init__(self, file: StdFile, rest: memoryview = NOTHING) -> None:
        super().__init__()
        self._file = file
        #: How many bytes were to be written.
        self.size = len(rest)
        #: The bytes that are still to be written, and their number.
        self.rest = rest
        self.left = self.size

    def write(self) -> None:
        """Write all of ``rest``, or as much of it as goes without blocking."""
        while self.rest:
            count = self._file.write(self.rest)
            self.rest = self.rest[count:]
            self.left -= count
