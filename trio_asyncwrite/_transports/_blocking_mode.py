"""Non-blocking mode for as long as a stream needs it.

O_NONBLOCK belongs to the open file, which several descriptors may share: standard input, output
and error of a program on a terminal are one. If the first of two streams over it restored the
mode at its close, the polls of the other one would block the whole run.

No portable call says whether two descriptors are the same open file. Here they count as one if
they are the same file, opened for the same access, and the flag was already on because of a live
stream. If that is a mistake (a terminal opened twice, and one of the descriptors duplicated), the
mode is restored late or not at all, but never while a stream still needs it.
"""

from __future__ import annotations

import os
import sys
import weakref
from typing import Final, final

if sys.platform != "win32":  # pragma: no branch
    import fcntl

_FileId = tuple[int, int, int, int]


class _SharedFile:
    """How many live streams there are over the open files that cannot be told apart."""

    __slots__ = ("__weakref__", "joined", "switched")

    def __init__(self) -> None:
        #: Streams that found the flag off and switched it on, and streams that found it on.
        self.switched = 0
        self.joined = 0


_shared_files: Final[weakref.WeakValueDictionary[_FileId, _SharedFile]] = (
    weakref.WeakValueDictionary()
)


def _file_id(fd: int) -> _FileId:
    found = os.fstat(fd)
    # The two ends of a pipe are the same file, but surely not the same open file.
    access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    return found.st_dev, found.st_ino, found.st_rdev, access


@final
class NonBlockingMode:
    """Makes a descriptor non-blocking; :meth:`restore` gives it back the mode that it had.

    If other streams need the mode then, the last one of them restores it. A finaliser may call
    ``restore``: it uses nothing that has a finaliser.

    Args:
        fd: the descriptor.

    Raises:
        OSError: if ``fd`` is not open.
    """

    __slots__ = ("_file_id", "_joined", "_shared_file", "fd")

    def __init__(self, fd: int) -> None:
        #: The descriptor.
        self.fd = fd
        self._file_id = _file_id(fd)
        self._joined = not os.get_blocking(fd)
        self._shared_file = _shared_files.get(self._file_id)
        if self._joined:
            # Without a stream of ours, its owner has switched the flag on, and keeps it.
            if self._shared_file is not None:
                self._shared_file.joined += 1
            return
        os.set_blocking(fd, False)
        if self._shared_file is None:
            self._shared_file = _shared_files.setdefault(self._file_id, _SharedFile())
        self._shared_file.switched += 1

    def restore(self) -> None:
        """Restore the mode, or leave that to the streams that still need it. Once is enough."""
        shared_file, self._shared_file = self._shared_file, None
        if shared_file is None:
            return
        if self._joined:
            shared_file.joined -= 1
            is_needed = shared_file.joined or shared_file.switched
        else:
            shared_file.switched -= 1
            is_needed = shared_file.joined
        if not is_needed and self.names_same_file():
            os.set_blocking(self.fd, True)

    def names_same_file(self) -> bool:
        """Whether the descriptor is still the one that it was, and not closed or replaced."""
        try:
            return _file_id(self.fd) == self._file_id
        except OSError:
            return False
