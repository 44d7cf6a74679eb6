"""A socket's methods for a descriptor that belongs to somebody else."""

from __future__ import annotations

import socket
from typing import final


@final
class BorrowedSocket(socket.socket):
    """The socket behind the descriptor ``fd``, which it never closes.

    ``socket.socket(fileno=fd)`` owns ``fd`` until ``detach()``: if Ctrl-C or a MemoryError
    strikes before that, its finaliser closes the descriptor under its owner, and the number is
    soon somebody else's. A duplicate (``os.dup``) could be closed, but it costs a descriptor,
    and there may be none left. This class has no such finaliser, so nothing is to be undone.

    Args:
        fd: the descriptor. It must stay open while this object is used.
        is_asked: whether the kernel is asked for its family and type, which it may refuse. If
            not, ``family``, ``type`` and ``proto`` mean nothing, and only the methods that need
            no address work: ``shutdown``, ``recv``, ``getsockopt`` and ``setsockopt``.

    Raises:
        OSError: if ``fd`` is not an open socket, or the kernel refuses to say of which kind it is.
        ValueError: if ``fd`` is negative.
    """

    __slots__ = ()

    def __init__(self, fd: int, *, is_asked: bool = True) -> None:
        if is_asked:
            super().__init__(fileno=fd)
        else:
            super().__init__(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)

    def __del__(self) -> None:
        """Take the place of the base's finaliser, which would close the descriptor."""
