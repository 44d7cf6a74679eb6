"""What the kernel tells about a TCP connection, without changing anything.

A sandbox, an emulator or another protocol may refuse to answer. (An SCTP socket looks like a TCP
one by its family and type.) Every probe then answers None: unknown.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

from ._borrowed_socket import BorrowedSocket

if sys.platform != "win32":  # pragma: no branch
    import fcntl
    import termios

if TYPE_CHECKING:
    import trio

#: SO_NWRITE of macOS's <sys/socket.h>: bytes in the send buffer, which keeps them until they are
#: acknowledged.
_SO_NWRITE: Final = 0x1024

# Seconds. On a local network an acknowledgement takes less than the first; with a peer that has
# delayed it (RFC 1122, 4.2.3.2) or reads slowly, the last does not waste much.
_FIRST_PAUSE: Final = 0.001
_LAST_PAUSE: Final = 0.1


def is_internet(sock: socket.socket | trio.socket.SocketType) -> bool:
    """Whether a socket is of the internet's families; one of type SOCK_STREAM is TCP then."""
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def _is_tcp(sock: socket.socket) -> bool:
    return is_internet(sock) and sock.type == socket.SOCK_STREAM


def unacknowledged_bytes(fd: int, *, ended: bool, known_as_tcp: bool = False) -> int | None:
    """How many bytes the peer's kernel has not acknowledged.

    Args:
        fd: the descriptor.
        ended: whether its write side was shut down.
        known_as_tcp: whether the kernel need not be asked for the kind of socket.

    Returns:
        The count, or None if it is unknown: ``fd`` is not TCP or not open, or the system does
        not tell.

    Source: SIOCOUTQ in tcp(7); SO_NWRITE of macOS.
    """
    try:
        if not (known_as_tcp or _is_tcp(BorrowedSocket(fd))):
            return None
        if sys.platform == "darwin":  # pragma: no cover
            return BorrowedSocket(fd).getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
        if sys.platform != "linux":  # pragma: no cover
            return None
        # SIOCOUTQ is TIOCOUTQ by another name.
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError, struct.error):
        return None
    # It is a difference of sequence numbers, and the FIN has one of them, the last.
    return int(count) - 1 if count and ended else int(count)


def is_gone(fd: int) -> bool | None:
    """Whether the connection does not exist any more, so that no acknowledgement will come.

    Args:
        fd: the descriptor.

    Returns:
        True after a reset or a timeout, after both sides have ended properly, and before a
        connection was made; None if it is unknown: ``fd`` is not an open socket, or the system does
        not tell.
    """
    # Not SO_ERROR: to read it is to clear it, and then the reader would take the reset for an
    # end-of-file. Not TCP_INFO: the systems that refuse it are many, and getpeername() knows.
    try:
        BorrowedSocket(fd).getpeername()
    except OSError as exc:
        return True if exc.errno == errno.ENOTCONN else None
    except ValueError:
        return None
    return False


def has_untold_error(fd: int) -> bool:
    """Whether the kernel keeps an error that nobody was told of yet; it stays for those who read.

    Of a Unix socket, for example, whose peer has closed with bytes unread.

    Args:
        fd: the descriptor.
    """
    poller = select.poll()
    poller.register(fd, 0)
    return any(events & select.POLLERR for _, events in poller.poll(0))


def has_ended(fd: int) -> bool:
    """Whether both sides of a connection have ended it properly, and it is gone.

    Not after a reset or a timeout, unless another descriptor was told of it and the peer's kernel
    had everything by then: that looks the same.

    Args:
        fd: the descriptor.
    """
    if not is_gone(fd) or has_untold_error(fd):
        return False
    try:
        # ENOTCONN if there never was a connection, else data or an end-of-file.
        BorrowedSocket(fd).recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return not unacknowledged_bytes(fd, ended=True)


def next_pause(waited: float) -> float:
    """How long to wait before looking again, in seconds: as long as was waited already.

    No system wakes a task when an acknowledgement arrives.
    """
    return min(max(waited, _FIRST_PAUSE), _LAST_PAUSE)
