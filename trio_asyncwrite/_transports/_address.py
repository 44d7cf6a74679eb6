"""The addresses of a socket, and of the one below a stream of another library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    import socket
    from typing import Literal

#: How many streams of other libraries are looked through: a bound for one that names itself.
_DEPTH: Final = 10


def address(
    sock: socket.socket | trio.socket.SocketType, name: Literal["getpeername", "getsockname"]
) -> Any:
    """What the method ``name`` of ``sock`` returns; None if it is refused.

    The kernel refuses it for a socket that is closed, and for a peer that has reset the connection.
    """
    try:
        return getattr(sock, name)()
    except Exception:  # noqa: BLE001 - besides what a kernel refuses: a fake socket has no addresses
        return None


def foreign_address(stream: object, name: Literal["getpeername", "getsockname"]) -> Any:
    """The address of the Trio socket below ``stream``; None if there is none that we know of."""
    for _ in range(_DEPTH):
        sock: object = getattr(stream, "socket", None)
        if isinstance(sock, trio.socket.SocketType):
            return address(sock, name)
        stream = getattr(stream, "transport_stream", None) or getattr(stream, "send_stream", None)
        if stream is None:
            break
    return None
