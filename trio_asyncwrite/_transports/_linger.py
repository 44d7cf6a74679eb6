"""SO_LINGER: what a close of a socket does with bytes that were not sent."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import trio

_LINGER: Final = struct.Struct("ii")  # struct linger { int l_onoff; int l_linger; }

#: SO_LINGER: close at once, with a reset.
RESET_ON_CLOSE: Final = _LINGER.pack(1, 0)
_NO_LINGER: Final = _LINGER.pack(0, 0)


def _has_time(sock: socket.socket | trio.socket.SocketType) -> bool:
    """Whether a time is set in SO_LINGER."""
    try:
        linger = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
        is_on, seconds = _LINGER.unpack(linger)
    except Exception:  # noqa: BLE001 - besides what a kernel refuses: a fake socket has no options
        return False
    return bool(is_on and seconds)


def prepare_close(sock: socket.socket | trio.socket.SocketType, *, reset: bool) -> None:
    """Set SO_LINGER for a close that returns at once, even if the kernel still has data to send.

    With a time in SO_LINGER, close() blocks the whole run for up to that time, though the socket
    is non-blocking. If the user has asked for a reset, it stays one.

    Args:
        sock: the socket; closed is all right.
        reset: whether the close of a TCP connection is to be a reset.
    """
    if _has_time(sock):
        with contextlib.suppress(Exception):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    if reset:
        with contextlib.suppress(Exception):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


def swap_linger(
    sock: socket.socket | trio.socket.SocketType, before: bytes | None, *, on: bool
) -> bytes | None:
    """Set SO_LINGER so that a close is a reset, or set it back.

    Args:
        sock: the socket.
        before: the user's setting, while ours is set; else None.
        on: False sets it back.

    Returns:
        What is to be given as ``before`` the next time.
    """
    with contextlib.suppress(OSError, ValueError):
        if on and before is None:
            before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        elif not on and before is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, before)
            before = None
    return before
