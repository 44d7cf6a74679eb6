"""Any file descriptor that the kernel can wait for: pipes, terminals, serial lines, sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib_socket
import stat
import sys
import warnings
from typing import TYPE_CHECKING, Any, Protocol, final

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._close import close_at_once
from trio_asyncwrite._core._stack import begin_shutdown

from ._address import address
from ._blocking_mode import NonBlockingMode
from ._borrowed_socket import BorrowedSocket
from ._fd import FdWriter, check_byte_stream, is_terminal_master
from ._linger import prepare_close

if TYPE_CHECKING:
    from typing import Literal

if sys.platform != "win32":  # pragma: no branch
    import fcntl


class HasFileno(Protocol):
    """What :class:`PollEvented` takes besides a number: sockets, pipes, ``proc.stdin``."""

    def fileno(self) -> int:  # pyright: ignore[reportReturnType] - there is nothing to return
        """The file descriptor."""

    def close(self) -> object:
        """Close it."""


@final
class PollEvented(FdWriter):
    """A duplex stream over any descriptor that the kernel can wait for.

    Pipes, pseudo-terminals and terminals, serial lines, sockets, a subprocess's stdin. The
    descriptor is made non-blocking, which concerns everybody who shares it (see
    ``trio.lowlevel.FdStream``). Closing the stream restores the mode; if several streams share one
    open file, such as a terminal's standard input and output, the last one of them does.

    Its shutdown is ``SHUT_WR`` on a socket, closes a descriptor that can only be written to
    (that is what gives the reader end-of-file), and flushes anything else.

    When nobody has the other side of a pseudo-terminal open any more, reading from its master ends
    with ``b""``, after all that was written there: Linux says EIO, other systems an end-of-file.

    A number belongs to this stream from now on: :meth:`~AsyncWrite.aclose` closes it. An object
    is closed by its own ``close()``, and asked for its number at every use.

    Args:
        fd: a file descriptor, or an object with ``fileno()`` and ``close()``.
        close: whether closing the stream closes ``fd``. If false, ``fd`` stays open.

    Raises:
        TypeError: if ``fd`` is neither, or a packet socket (SOCK_DGRAM, SOCK_SEQPACKET).
        ValueError: if ``fd`` is an object without an open descriptor, or a regular file or
            directory, for which the kernel cannot wait: use :class:`AllowStdIo`.
        OSError: if ``fd`` is not an open descriptor.
        NotImplementedError: on Windows.

    Source: ``tokio::io::PollEvented``, ``tokio::io::unix::AsyncFd``.
    """

    _close_fd = False  # until the constructor has taken it
    _mode: NonBlockingMode | None = None  # while it is open

    # Ctrl-C must not fall between the mode and the field that restores it.
    @trio.lowlevel.enable_ki_protection
    def __init__(self, fd: int | HasFileno | trio.lowlevel.FdStream, *, close: bool = True) -> None:
        if sys.platform == "win32":  # pragma: no cover
            raise NotImplementedError("PollEvented needs descriptors that Windows cannot wait for")
        # Not a runtime protocol: from Python 3.12 on these overlook a __getattr__.
        is_owner = all(callable(getattr(fd, name, None)) for name in ("fileno", "close"))
        if isinstance(fd, bool) or not (isinstance(fd, int) or is_owner):
            raise TypeError(
                "expected a file descriptor or an object with fileno() and close(), "
                f"got {type(fd).__name__}"
            )
        self._fd = fd
        number = self.fileno()
        if number < 0 and not isinstance(fd, int):
            raise ValueError(f"expected an open file descriptor, and {fd!r} has none")
        try:
            status = os.fstat(number)
        except (OSError, OverflowError):
            raise OSError(errno.EBADF, f"expected an open file descriptor, got {fd!r}") from None
        mode = status.st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            raise ValueError(
                f"expected something that the kernel can wait for, got the file or directory "
                f"{fd!r}: use AllowStdIo"
            )
        self.is_socket: bool = stat.S_ISSOCK(mode)
        if self.is_socket:
            with contextlib.suppress(OSError):  # of unknown type
                check_byte_stream(BorrowedSocket(number))
        self.ends_with_eio: bool = is_terminal_master(status)
        access = fcntl.fcntl(number, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR)
        self._write_only = access == os.O_WRONLY
        self._mode = NonBlockingMode(number)
        self._close_fd = close

    def fileno(self) -> int:
        """The file descriptor, or -1 once it is closed."""
        if isinstance(self._fd, int):
            return self._fd
        try:
            return self._fd.fileno()
        except ValueError:  # how the standard library's files say that they are closed
            return -1

    def poll_shutdown(self) -> None:
        """End the stream, as far as the descriptor can. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            if self.is_socket:
                self._shut_down_socket()
            elif self._write_only and self._close_fd:
                self._close_now()
            self.lifecycle.end()

    def _shut_down_socket(self) -> None:
        number = self._open_fileno()
        try:
            sock = BorrowedSocket(number, is_asked=False)
        except OSError as exc:
            self._raise(exc)
        self._shut_down(sock)

    @answer
    def peer_address(self) -> Any:
        """Of a socket, while it is open and connected; see :attr:`Layer.peer_address`."""
        return self._address("getpeername")

    @answer
    def local_address(self) -> Any:
        """The address of an open socket; else None. See :attr:`Layer.local_address`."""
        return self._address("getsockname")

    def _address(self, name: Literal["getpeername", "getsockname"]) -> Any:
        if not self.is_socket:
            return None
        with contextlib.suppress(OSError, ValueError):
            return address(BorrowedSocket(self.fileno()), name)
        return None

    @answer
    def half_closes(self) -> bool:
        """Not a terminal: it has no way to say an end."""
        return self.is_socket or self._write_only

    def drain_source(self) -> trio.abc.ReceiveStream | None:
        """This stream, unless somebody else goes on reading from the descriptor."""
        return self if self._close_fd and not self._write_only else None

    def linger_socket(self) -> BorrowedSocket | None:
        """The socket, if it is TCP, open, and ours to close."""
        if not self.is_socket or not self._close_fd:
            return None
        with contextlib.suppress(OSError, ValueError):
            sock = BorrowedSocket(self.fileno())
            if sock.family in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6):
                return sock
        return None

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Close the descriptor at once, as :class:`trio.lowlevel.FdStream` does.

        Nothing is flushed or waited for. Another task inside the stream gets
        :exc:`trio.ClosedResourceError`, and so do later writes to a layer above it. Once closed,
        calling it again does nothing.

        Source: ``trio.lowlevel.FdStream.close``.
        """
        try:
            close_at_once(self)
        finally:
            if self.fileno() >= 0:
                self._close_now()

    release_waits = False

    async def release(self, *, clean: bool) -> None:
        """Close the descriptor, or give it back. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        if self.fileno() >= 0:
            self._close_now(reset=not clean)

    # Ctrl-C must not fall between the field and the descriptor.
    @trio.lowlevel.enable_ki_protection
    def _close_now(self, *, reset: bool = False) -> None:
        fd, number, mode = self._fd, self.fileno(), self._mode
        assert mode is not None
        self._fd, self._mode = -1, None
        try:
            trio.lowlevel.notify_closing(number)
            # Also before it is closed: the mode is that of the open file, which others may share.
            mode.restore()
            if self._close_fd:
                self._prepare_close(number, reset=reset)
        finally:
            if self._close_fd:
                self._close_descriptor(fd)

    def _prepare_close(self, number: int, *, reset: bool) -> None:
        if self.is_socket:
            with contextlib.suppress(OSError):  # closed behind our back
                prepare_close(BorrowedSocket(number, is_asked=False), reset=reset)

    def _close_descriptor(self, fd: int | HasFileno | trio.lowlevel.FdStream) -> None:
        try:
            if isinstance(fd, int):
                os.close(fd)
            else:
                fd.close()
        except OSError as exc:
            self._raise(exc)

    def __del__(self) -> None:
        """Close a number, as the standard library's files and sockets do, and complain."""
        super().__del__()
        mode = self._mode
        if mode is None:  # closed, or never made
            return
        mode.restore()
        if not self._close_fd:
            return
        # The object that owns it may have been finalised before: do not ask that for its number.
        if mode.names_same_file():
            self._prepare_close(mode.fd, reset=False)
            if isinstance(self._fd, int):
                os.close(mode.fd)
        if isinstance(self._fd, int):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<PollEvented over {self._fd!r}>"
