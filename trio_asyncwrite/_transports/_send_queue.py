"""How many unsent bytes the kernel may hold for a TCP connection: bounded in time, not in bytes.

Theory of operation
===================

What has been written and not sent cannot be taken back: behind a slow reader, a large queue means
that every byte waits for a long time (bufferbloat). So Trio sets TCP_NOTSENT_LOWAT to 16 KiB: a
socket takes more only while fewer bytes are unsent. A fast reader has read these before the sender
is awake again, and the connection idles: with messages of 1 MiB that costs up to half of the
throughput.

The right size depends on how fast the queue empties. Two things show that:

- **A wait for room.** Linux wakes the writer when the queue is half empty. If that took less than a
  millisecond, the mark is doubled; if it took more than 50, it goes back to Trio's. A wait that was
  cancelled, perhaps by a timeout of less than that, counts with those that follow it.
- **Two writes that found the queue full**, the kernel taking less than it was offered, without a
  wait in between: what the second one got in has left the queue meanwhile. If that is half of the
  mark, and it took less than a millisecond, the mark is doubled. (The writer of a fast reader may
  never have to wait: after its checkpoint there is room again.)

So what is unsent leaves within a tenth of a second, and the mark of a slow reader stays where Trio
has set it.

Other rules that were tried: a time for the delivery rate of TCP_INFO (it excludes idle time, so a
slow reader on loopback looks like a fast one: 2.6 MB were unsent); one large mark for all (bloat).

**The user's word counts.** Before each change the option is read back. If it is not what was set
last, or if SO_SNDBUF was set (Linux remembers that in SO_BUF_LOCK), the queue is the user's from
then on.

Source: python-trio/trio#76; TCP_NOTSENT_LOWAT in tcp(7).
"""

from __future__ import annotations

import contextlib
import socket
import sys
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import trio

#: What Trio's SocketStream sets; the least.
LOWEST: Final = 16 * 1024

#: The most: as much as Linux lets a send buffer grow to (net.ipv4.tcp_wmem).
HIGHEST: Final = 4 * 1024 * 1024

#: The mark of a queue that the user has taken over, or that is not adapted at all.
NOT_OURS: Final = 0

# Seconds that a queue takes to become half empty.
_FAST: Final = 0.001
_SLOW: Final = 0.05

# Of include/uapi/asm-generic/socket.h and include/uapi/linux/tcp.h; Python has no names for them.
_SO_BUF_LOCK: Final = 72
_SNDBUF_LOCKED: Final = 1

#: The marks that were set, or left to the user: another stream may be made of the same socket.
_marks: weakref.WeakKeyDictionary[trio.socket.SocketType, int] = weakref.WeakKeyDictionary()


def first_mark(sock: trio.socket.SocketType) -> int:
    """The mark of a new stream over TCP: as it was set last, Trio's, or ``NOT_OURS``."""
    if sys.platform != "linux":
        return NOT_OURS
    mark = _marks.get(sock, LOWEST)
    if mark > LOWEST:
        with contextlib.suppress(OSError):
            # A new trio.SocketStream sets it back.
            if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == LOWEST:
                return LOWEST
    return mark


def leave_to_user(sock: trio.socket.SocketType) -> None:
    """From now on the queue is the user's."""
    _marks[sock] = NOT_OURS


def is_of_send_queue(level: int, option: int) -> bool:
    """Whether the user who sets this option takes the queue over."""
    if level == socket.SOL_SOCKET:
        return option == socket.SO_SNDBUF
    return level == socket.IPPROTO_TCP and option == getattr(socket, "TCP_NOTSENT_LOWAT", None)


def mark_after_wait(mark: int, seconds: float) -> int:
    """What the mark should be after a wait.

    Args:
        mark: what it is.
        seconds: how long the wait for room has taken.
    """
    if seconds < _FAST:
        return min(2 * mark, HIGHEST)
    return LOWEST if seconds > _SLOW else mark


def mark_after_full(mark: int, count: int, seconds: float) -> int:
    """What the mark should be once two writes have found the queue full, with no wait between.

    Args:
        mark: what it is.
        count: how many bytes the second of them got in.
        seconds: how long after the first.
    """
    return min(2 * mark, HIGHEST) if seconds < _FAST and 2 * count >= mark else mark


def change_mark(sock: trio.socket.SocketType, before: int, after: int) -> int:
    """Set the option, if it is still ours.

    Args:
        sock: the socket.
        before: what was set last.
        after: what to set.

    Returns:
        What is set now; ``NOT_OURS`` if the user has taken over, or the system refuses.
    """
    try:
        option = socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT
        if sock.getsockopt(*option) != before or _is_locked(sock):
            return NOT_OURS
        sock.setsockopt(*option, after)
    except OSError:
        return NOT_OURS
    _marks[sock] = after
    return after


def _is_locked(sock: trio.socket.SocketType) -> bool:
    """Whether somebody has set SO_SNDBUF; no, where the system does not tell: Linux before 5.15."""
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK) & _SNDBUF_LOCKED)
    except OSError:
        return False
