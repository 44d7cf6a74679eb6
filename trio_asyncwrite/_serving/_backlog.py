"""The kernel's queue of connections that nobody has accepted yet."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
from typing import Any, Final

import trio
import trio.abc

#: How many connections may wait in a listener's queue where the system does not say how many do:
#: SOMAXCONN of macOS and BSD, which bounds any backlog there.
LAST_CALL: Final = 128

#: Where Linux's struct tcp_info has tcpi_unacked, a number of 32 bits.
_TCPI_UNACKED: Final = 24


def socket_of(listener: trio.abc.Listener[Any]) -> trio.socket.SocketType | None:
    """The listening socket; None if there is none that we know of."""
    sock: object = getattr(getattr(listener, "transport_listener", listener), "socket", None)
    return sock if isinstance(sock, trio.socket.SocketType) else None


def queue_length(sock: trio.socket.SocketType) -> int:
    """How many wait to be accepted, at most.

    Source: TCP_INFO in tcp(7), and for a listening socket, where tcpi_unacked is an alias, Linux's
        tcp_get_info in net/ipv4/tcp.c.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a Unix socket
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_UNACKED + 4)
            (length,) = struct.unpack_from("=I", info, _TCPI_UNACKED)
            return int(length)
    return LAST_CALL


def has_waiting(sock: trio.socket.SocketType) -> bool:
    """Whether somebody waits to be accepted."""
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN)
    return bool(poller.poll(0))
