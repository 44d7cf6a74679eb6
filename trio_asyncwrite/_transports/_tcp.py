"""TCP and Unix stream sockets."""

from __future__ import annotations

import contextlib
import functools
import socket as stdlib_socket
import sys
from typing import TYPE_CHECKING, Any, final, overload

import trio

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._checks import connection_advice, inherits
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._shell import claim, drive, leave
from trio_asyncwrite._core._stack import begin_shutdown

from ._address import address
from ._fd import FdWriter, check_byte_stream
from ._linger import prepare_close
from ._send_queue import (
    NOT_OURS,
    change_mark,
    first_mark,
    is_of_send_queue,
    leave_to_user,
    mark_after_full,
    mark_after_wait,
)
from ._tcp_info import is_gone, is_internet, next_pause, unacknowledged_bytes

if TYPE_CHECKING:
    import os

    from typing_extensions import Buffer


@functools.cache
def _closed_socket() -> trio.socket.SocketType:
    sock = trio.socket.socket()
    sock.close()
    return sock


@final
class TcpStream(FdWriter):
    """A connected stream socket, TCP or Unix: half-closeable, with gathered writes.

    It owns the socket: closing it closes the socket. When bytes are lost in closing (a
    cancelled or failed shutdown), the peer of a TCP connection gets a reset and not an
    end-of-file, so that a truncated stream never looks complete. A time in SO_LINGER is switched
    off before, since it would block every task. (Not if you drop the stream in a reference cycle.)

    On Linux, it adapts TCP_NOTSENT_LOWAT to the peer, from 16 KiB (where Trio sets it) to 4 MiB.
    So little waits unsent in the kernel behind a slow reader, and enough for a fast one. Once you
    set that option or SO_SNDBUF, here or on the socket, it is left alone.

    On Windows, sockets are no file descriptors: there, use
    :func:`wrap_stream` on the :class:`trio.SocketStream`.

    Args:
        stream: a :class:`trio.SocketStream`, or a connected Trio socket of type SOCK_STREAM. A
            bare socket gets the options that :class:`trio.SocketStream` sets.

    Raises:
        TypeError: if ``stream`` is neither, or a socket of another type.
        NotImplementedError: on Windows.

    Source: ``tokio::net::TcpStream``.
    """

    # Kept once somebody has asked for it.
    _local_address: Any = None

    def __init__(self, stream: trio.SocketStream | trio.socket.SocketType) -> None:
        if sys.platform == "win32":  # pragma: no cover
            raise NotImplementedError(
                "TcpStream needs sockets that are file descriptors, and on Windows they are not: "
                "use wrap_stream() on the trio.SocketStream"
            )
        if not inherits(stream, trio.SocketStream):
            if not isinstance(stream, trio.socket.SocketType):
                plain = isinstance(stream, stdlib_socket.socket)
                instead = ": use TcpStream(trio.socket.from_stdlib_socket(it))" if plain else ""
                raise TypeError(
                    f"expected a trio.SocketStream or a Trio socket, got {type(stream).__name__}"
                    f"{instead or connection_advice(stream)}"
                )
            check_byte_stream(stream)
            stream = trio.SocketStream(stream)
        self._stream = stream
        #: The Trio socket.
        self.socket: trio.socket.SocketType = stream.socket
        try:
            # The trio.SocketStream has seen to its type.
            self.is_known_as_tcp: bool = is_internet(self.socket)
        except Exception:  # noqa: BLE001 - a socket of a test may know nothing
            self.is_known_as_tcp = False
        # Now: the kernel forgets it when the peer resets the connection.
        self._peer_address: Any = address(self.socket, "getpeername")
        self._mark = first_mark(self.socket) if self.is_known_as_tcp else NOT_OURS
        #: How long waits were, in seconds, that were cut short before there was room.
        self._waited = 0.0
        #: When a write has found the queue full, since the last wait.
        self._full_since: float | None = None

    def accepted_from(self, address: Any) -> None:
        """Keep the address that the accept call has told, however early the peer has left.

        :meta private:
        """
        self._peer_address = address

    @answer
    def peer_address(self) -> Any:
        """The peer's address, as :meth:`socket.socket.getpeername` gives it.

        See :attr:`Layer.peer_address`. It is kept, also when the peer has reset the connection or
        this stream is closed, so that a log can name it. None if the peer had gone before this
        stream was made; a :class:`TcpListener` knows it even then.
        """
        return self._peer_address

    @answer
    def local_address(self) -> Any:
        """This side's address; see :attr:`Layer.local_address`.

        Once asked for, it stays known after the close; None if it was never asked for before.
        """
        if self._local_address is None:
            self._local_address = address(self.socket, "getsockname")
        return self._local_address

    def fileno(self) -> int:
        """The socket's file descriptor, or -1 once it is closed."""
        return self.socket.fileno()

    def poll_shutdown(self) -> None:
        """Send end-of-file to the peer. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            # Perhaps the trio.SocketStream was used for it. Once the peer has answered, a second
            # time is an error: on Linux if it had ended first, on macOS always.
            if not self.socket.did_shutdown_SHUT_WR:
                self._shut_down(self.socket)
            self.lifecycle.end()

    async def _wait_writable(self) -> None:
        if self._mark == NOT_OURS:
            await super()._wait_writable()
            return
        began = trio.current_time()
        is_writable = False
        try:
            await super()._wait_writable()
            is_writable = True
        finally:
            waited = self._waited + trio.current_time() - began
            self._waited = 0.0 if is_writable else waited
            self._full_since = None
            if self._mark != NOT_OURS:
                self._adapt(waited, is_writable=is_writable)

    def _adapt(self, waited: float, *, is_writable: bool) -> None:
        wanted = mark_after_wait(self._mark, waited)
        # Before there is room, it is only known that the queue takes so long, or longer.
        if is_writable or wanted < self._mark:
            self._change_mark(wanted)

    def found_full(self, count: int) -> None:
        """Look how fast the queue empties; see ``_send_queue.py``."""
        # A poll by hand may come outside of trio.run.
        if self._mark != NOT_OURS and trio.lowlevel.in_trio_run():
            now = trio.current_time()
            if self._full_since is not None:
                self._change_mark(mark_after_full(self._mark, count, now - self._full_since))
            self._full_since = now

    def _change_mark(self, wanted: int) -> None:
        if wanted != self._mark:
            self._mark = change_mark(self.socket, self._mark, wanted)

    @answer
    def foreign_below(self) -> tuple[object, ...]:
        """The Trio stream, which is closed with this one."""
        return (self._stream,)

    def end_use_by_others(self) -> None:
        """Close the Trio stream that this one was made of, and keep its socket."""
        with contextlib.suppress(OSError):  # there is no descriptor left
            self._stream.socket = _closed_socket()

    def has_sent_end(self) -> bool:
        """Whether end-of-file was sent, perhaps through the :class:`trio.SocketStream`."""
        return self.socket.did_shutdown_SHUT_WR

    def linger_socket(self) -> trio.socket.SocketType | None:
        """The socket, if it is TCP and open."""
        return self.socket if self.is_known_as_tcp and self.fileno() >= 0 else None

    async def wait_acknowledged(self) -> None:
        """Wait until the peer's kernel has acknowledged every byte handed over.

        It is the most that TCP can say: the bytes have reached the other machine, though not
        necessarily the program there. What a layer above has buffered is not handed over: flush
        that one first. Linux has no event for it, so this looks again after pauses of 1 to 100
        milliseconds.

        Raises:
            NotImplementedError: if the system does not tell: it is not Linux, the socket is not
                TCP, or a sandbox or an emulator refuses the answer.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if the stream is closed, now or meanwhile.
            trio.BrokenResourceError: if the writer has failed before, or the connection ends
                before everything is acknowledged. When a peer is cut off, it takes the kernel
                minutes to give up: set a deadline.

        Cancellation: nothing happened.

        Source: SIOCOUTQ in tcp(7).
        """
        lift = claim(self, writing=False)
        try:
            is_known = sys.platform == "linux" and await drive(
                self, self._poll_acknowledged, trio.current_time(), lift=lift
            )
        finally:
            leave(self)
        if not is_known:
            raise NotImplementedError(
                "the system does not tell what the peer has acknowledged: only Linux does, "
                "only of TCP, and not in every sandbox"
            )

    def _poll_acknowledged(self, since: float) -> bool:
        """Return True when everything is acknowledged, and False if the system does not tell."""
        fd = self._open_fileno()
        ended, is_known = self.socket.did_shutdown_SHUT_WR, self.is_known_as_tcp
        count = unacknowledged_bytes(fd, ended=ended, known_as_tcp=is_known)
        if count == 0:
            return True
        gone = is_gone(fd)
        # Without the second answer, a reset would make this wait for ever.
        if count is None or gone is None:
            return False
        if gone:
            raise trio.BrokenResourceError(
                f"{self!r}: the connection ended with {count} bytes unacknowledged"
            )
        raise NotReady(functools.partial(trio.sleep, next_pause(trio.current_time() - since)))

    release_waits = False

    async def release(self, *, clean: bool) -> None:
        """Close the socket. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        try:
            prepare_close(self.socket, reset=not clean)
        finally:
            self.socket.close()

    @overload
    def setsockopt(self, level: int, option: int, value: int | Buffer) -> None: ...
    @overload
    def setsockopt(self, level: int, option: int, value: None, length: int) -> None: ...

    def setsockopt(
        self, level: int, option: int, value: int | Buffer | None, length: int | None = None
    ) -> None:
        """Set a socket option. See :meth:`socket.socket.setsockopt`.

        TCP_NOTSENT_LOWAT and SO_SNDBUF are yours once you have set one of them.

        Args:
            level: the protocol of the option.
            option: the option.
            value: a number, or bytes; ``None`` for a null pointer.
            length: what the system is told of the length of a null pointer, in bytes.

        Raises:
            OSError: if the system refuses it.
            TypeError: if there is a ``length`` and also a value, or neither.
        """
        if (value is None) == (length is None):
            raise TypeError(
                f"expected a value, or None and a length; got the value {value!r} and the length "
                f"{length!r}"
            )
        if value is None:
            assert length is not None
            self.socket.setsockopt(level, option, None, length)
        else:
            self.socket.setsockopt(level, option, value)
        if is_of_send_queue(level, option):
            self._mark = NOT_OURS
            leave_to_user(self.socket)

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """Get a socket option. See :meth:`socket.socket.getsockopt`."""
        if buffersize == 0:
            return self.socket.getsockopt(level, option)
        return self.socket.getsockopt(level, option, buffersize)

    def __del__(self) -> None:
        """Let the socket, which closes itself now, do it without blocking."""
        super().__del__()
        sock: trio.socket.SocketType | None = getattr(self, "socket", None)
        if sock is not None and not self.lifecycle.released:
            prepare_close(sock, reset=False)

    def __repr__(self) -> str:
        return f"<TcpStream over {self.socket!r}>"


async def open_tcp_stream(
    host: str | bytes,
    port: int,
    *,
    happy_eyeballs_delay: float | None = 0.25,
    local_address: str | None = None,
) -> TcpStream:
    """Connect to a host and port over TCP, as :func:`trio.open_tcp_stream` does.

    Args:
        host: a name or an address.
        port: the port number.
        happy_eyeballs_delay: seconds to wait for one address before the next one is tried as
            well; ``None`` tries them strictly one after the other. The default is Trio's.
        local_address: the address to connect from.

    Returns:
        The connected stream.

    Raises:
        OSError: if no address could be connected to.

    Cancellation: nothing happened; no connection is left behind.

    Source: ``TcpStream::connect``; RFC 8305 ("Happy Eyeballs").
    """
    return TcpStream(
        await trio.open_tcp_stream(
            host, port, happy_eyeballs_delay=happy_eyeballs_delay, local_address=local_address
        )
    )


async def open_unix_stream(
    filename: str | bytes | os.PathLike[str] | os.PathLike[bytes],
) -> TcpStream:
    """Connect to a Unix socket, as :func:`trio.open_unix_socket` does.

    Args:
        filename: the path of the socket.

    Returns:
        The connected stream.

    Raises:
        OSError: if the socket could not be connected to.
        RuntimeError: if the platform has no Unix sockets.

    Cancellation: nothing happened; no connection is left behind.

    Source: ``UnixStream::connect``.
    """
    return TcpStream(await trio.open_unix_socket(filename))
