"""How much of what a TCP socket was given the peer's kernel has not acknowledged."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

if sys.platform != "win32":  # pragma: no branch
    import fcntl
    import termios

#: TCP_CLOSE of the kernel's include/net/tcp_states.h.
_TCP_CLOSE: Final = 7

#: SO_NWRITE of macOS's <sys/socket.h>: bytes in the send buffer, which keeps them until they are
#: acknowledged.
_SO_NWRITE: Final = 0x1024

# Seconds. On a local network an acknowledgement takes less than the first; with a peer that has
# delayed it (RFC 1122, 4.2.3.2) or reads slowly, the last does not waste much.
_FIRST_PAUSE: Final = 0.001
_LAST_PAUSE: Final = 0.1


def _as_tcp(fd: int) -> socket.socket | None:
    """``fd`` with a socket's methods, to be detached after use; None if it is not TCP."""
    try:
        sock = socket.socket(fileno=fd)
    except (OSError, ValueError):  # no socket, or closed
        return None
    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
        return sock
    sock.detach()
    return None


def unacknowledged_bytes(fd: int, *, ended: bool) -> int | None:
    """How many bytes the peer's kernel has not acknowledged; None if the system cannot tell.

    Args:
        fd: the descriptor.
        ended: whether its write side was shut down.

    Source: SIOCOUTQ in tcp(7); SO_NWRITE of macOS.
    """
    sock = _as_tcp(fd)
    if sock is None:
        return None
    count: int | None = None
    try:
        if sys.platform == "linux":
            # SIOCOUTQ is TIOCOUTQ by another name. It answers with a difference of sequence
            # numbers, and the FIN has one of them, the last.
            (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
            if count and ended:
                count -= 1
        elif sys.platform == "darwin":  # pragma: no cover
            count = sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    finally:
        sock.detach()
    return count


def is_gone(fd: int) -> bool:
    """Whether there is no TCP connection any more, so that no acknowledgement will come.

    Where the system does not tell, the answer is no, and the caller's own limit ends the wait.
    """
    sock = _as_tcp(fd)
    if sock is None:
        return True
    try:
        # Not SO_ERROR: to read it is to clear it, and then the reader would take the reset for
        # an end-of-file. The state is the first byte of struct tcp_info.
        return (
            sys.platform == "linux"
            and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
        )
    finally:
        sock.detach()


def next_pause(waited: float) -> float:
    """How long to wait before looking again, in seconds: as long as was waited already.

    No system wakes a task when an acknowledgement arrives.
    """
    return min(max(waited, _FIRST_PAUSE), _LAST_PAUSE)
