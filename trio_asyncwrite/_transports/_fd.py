"""What all writers over a file descriptor share: sockets, pipes, terminals.

``os.write`` and ``os.writev`` serve every kind of non-blocking descriptor, so one core does for
all. The descriptor is asked for at every poll and never kept: the number of a closed one is
soon somebody else's.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import trio

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncReadWrite
from trio_asyncwrite._core._budget import TRANSPORT_RATE
from trio_asyncwrite._core._checks import writable_view
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import BrokenRefusal, CannotSplice, ClosedRefusal, NotReady
from trio_asyncwrite._core._file_part import check_part
from trio_asyncwrite._core._lifecycle import ENDED
from trio_asyncwrite._core._stack import fail
from trio_asyncwrite._core._waits import OneForAll

from ._linger import swap_linger
from ._send_queue import LOWEST
from ._tcp_info import has_ended, has_untold_error, is_gone, unacknowledged_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_asyncwrite._core._file_part import FilePart

assert not TYPE_CHECKING or sys.platform != "win32"

#: How many buffers one writev takes. POSIX guarantees 16, in case the system does not tell.
try:
    IOV_MAX: Final = os.sysconf("SC_IOV_MAX")
except (AttributeError, ValueError, OSError):  # pragma: no cover - no such platform in CI
    IOV_MAX: Final = 16  # type: ignore[misc]

#: How many bytes to read at once. Memory for as many as are asked for is allocated before it is
#: known how many there are, and no kernel has as many as this.
_MOST_READ: Final = 1 << 24

# That a queue is full says how fast it empties only if it has taken as many bytes: half of the
# least mark.
_TELLING: Final = LOWEST // 2

# The master of a pseudo-terminal, on Linux.
_PTMX: Final = (5, 2)

# macOS and BSD answer ENOBUFS when the interface's queue is full, and then still report the
# socket as writable; there is nothing to wait for but time. The figure is arbitrary: about
# as long as a 100 Mbit/s interface needs for a hundred full packets.
_ENOBUFS_PAUSE: Final = 0.01


async def _wait_for_buffers() -> None:
    await trio.sleep(_ENOBUFS_PAUSE)


def check_byte_stream(sock: socket.socket | trio.socket.SocketType) -> None:
    """Refuse packet sockets: of a packet that is read in part, the rest is lost.

    Args:
        sock: the socket.

    Raises:
        TypeError: if ``sock`` is not of type SOCK_STREAM.
    """
    if sock.type != socket.SOCK_STREAM:
        name = getattr(sock.type, "name", sock.type)
        raise TypeError(f"expected a byte stream (SOCK_STREAM), got a socket of type {name}")


def is_terminal_master(status: os.stat_result) -> bool:
    """Whether a descriptor is the master of a pseudo-terminal; False except on Linux.

    Args:
        status: what ``os.fstat`` says of it.
    """
    device = os.major(status.st_rdev), os.minor(status.st_rdev)
    return sys.platform == "linux" and device == _PTMX


def _is_of_connection(exc: OSError) -> bool:
    return isinstance(exc, (ConnectionError, TimeoutError)) or exc.errno in (
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    )


def _splice(source: int, target: int, size: int) -> int:
    if sys.platform == "linux":  # pragma: no branch
        # Never SPLICE_F_MORE: the last bytes would wait for 200 ms (golang/go#10948).
        return os.splice(source, target, size, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
    raise OSError(errno.EINVAL, "no splice on this system")  # pragma: no cover on linux


def _prefer(cls: type[FdWriter], base: type, *names: str) -> None:
    """Let ``cls`` have the methods of ``base`` in place of those of :class:`FdWriter`."""
    for name in names:
        if getattr(cls, name) is getattr(FdWriter, name):
            setattr(cls, name, getattr(base, name))


class FdWriter(AsyncReadWrite):
    """A writer over the non-blocking descriptor that ``fileno()`` names.

    **Who overrides a poll sees all bytes**, in a subclass or on one object: then the other polls of
    the same direction are the trait's defaults, which use that one.
    """

    announces_held_bytes = True
    bytes_per_budget_unit: int | None = TRANSPORT_RATE

    # The error that a read reported; kept after our own shutdown.
    _read_error: OSError | None = None
    # The user's SO_LINGER, while ours is set.
    _linger_before: bytes | None = None
    # Made when they are needed. A kernel's wait bears one task only.
    _writable: OneForAll | None = None
    _readable: OneForAll | None = None
    #: Whether the descriptor is a socket, and whether that of a TCP connection for certain.
    is_socket = True
    is_known_as_tcp: bool = False
    #: Whether EIO is the end of the stream: the master's side of a pseudo-terminal whose other side
    #: nobody has open any more. Linux says so after all that was written there has been read.
    ends_with_eio: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class that has polls of its own has to see all bytes."""
        super().__init_subclass__(**kwargs)
        if cls.poll_write is not FdWriter.poll_write:
            _prefer(cls, AsyncReadWrite, "poll_write_vectored", "poll_write_file")
        if cls.poll_read is not FdWriter.poll_read:
            _prefer(cls, AsyncReadWrite, "poll_read_into")

    def fileno(self) -> int:
        """The descriptor, or -1 once it is closed."""
        raise NotImplementedError

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Hand ``data`` to the kernel. See :meth:`AsyncWrite.poll_write`."""
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        try:
            count = os.write(self.fileno(), data)
        except OSError as exc:
            self._raise(exc)
        if _TELLING <= count < len(data):
            self.found_full(count)
        return count

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Hand ``buffers`` to the kernel, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        if "poll_write" in vars(self):
            return super().poll_write_vectored(buffers)
        if len(buffers) > IOV_MAX:
            # Empty ones must not take the places of others: 0 would say that all are empty.
            buffers = [data for data in buffers if len(data)]
        buffers = buffers[:IOV_MAX]
        try:
            count = os.writev(self.fileno(), buffers)
        except OSError as exc:
            self._raise(exc)
        if _TELLING <= count < sum(map(len, buffers)):
            self.found_full(count)
        return count

    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Let the kernel send the file. See :meth:`AsyncWrite.poll_write_file`.

        Where it cannot, or fails, the bytes are read and written: then it shows whether the file or
        the descriptor is to blame.
        """
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        check_part(part, limit)
        can_send = hasattr(os, "sendfile") and "poll_write" not in vars(self)
        size = part.poll_cached(limit) if can_send else 0
        if size:
            try:
                count = os.sendfile(self.fileno(), part.fileno(), part.offset, size)
            except (BlockingIOError, InterruptedError):
                raise NotReady(self._wait_writable) from None
            except OSError as exc:
                # The kernel reports a reset once: a write that follows would meet a mere EPIPE.
                if _is_of_connection(exc) and part.can_be_read():
                    self._raise(exc)
            else:
                if _TELLING <= count < size:
                    self.found_full(count)
                if count:
                    return count
        return super().poll_write_file(part, limit)

    def poll_flush(self) -> None:
        """The kernel has everything already. See :meth:`AsyncWrite.poll_flush`."""
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_flush(self)

    def found_full(self, count: int) -> None:
        """The kernel has taken ``count`` bytes, and has no room for more now."""

    def _raise(self, exc: OSError) -> NoReturn:
        """Raise Trio's words for ``exc``.

        No frame may hold what it raises in a variable: the two would keep each other alive, and
        with them the buffers of the layers above, until the garbage collector comes.
        """
        # Python makes an interrupted call again by itself (PEP 475), os.write's stand-ins may not.
        if isinstance(exc, (BlockingIOError, InterruptedError)):
            raise NotReady(self._wait_writable) from None
        if exc.errno == errno.ENOBUFS:
            raise NotReady(_wait_for_buffers) from None
        if exc.errno == errno.EBADF:
            raise self._closed() from None
        fail(self, exc)
        raise AssertionError  # pragma: no cover - fail() raises for an OSError

    def _closed(self) -> ClosedRefusal:
        return ClosedRefusal(f"{self!r} is closed, or not open for writing")

    def _open_fileno(self) -> int:
        """The descriptor, for calls that take -1 for a mistake and not for a closed file."""
        fd = self.fileno()
        if fd < 0:
            raise self._closed()
        return fd

    def _shut_down(self, sock: socket.socket | trio.socket.SocketType) -> None:
        """Send end-of-file through ``sock``.

        It may have been sent through another descriptor, another process's perhaps. If the peer
        has ended as well by then, the kernel says ENOTCONN, and there is nothing left to do.
        """
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            is_failure = exc.errno != errno.ENOTCONN or self._read_error is not None
            if is_failure or not has_ended(self._open_fileno()):
                self._raise(exc)

    def _keep_read_error(self, exc: BaseException | None) -> None:
        """Keep an error that a read has reported: the kernel reports it once only."""
        assert isinstance(exc, OSError)
        # A copy: the traceback of this one refers to this stream.
        self._read_error = type(exc)(*exc.args)

    def _check_end_of_file(self) -> None:
        """Raise if an error was reported before the end-of-file that was just read.

        The kernel gives end-of-file after a reset or a timeout was reported, and a truncated
        stream would look complete. (EPIPE and ENOTCONN say nothing about reading: the peer may
        have sent everything.)
        """
        reported = self._read_error or self.lifecycle.failure
        if isinstance(reported, OSError) and reported.errno not in (errno.EPIPE, errno.ENOTCONN):
            raise trio.BrokenResourceError(f"{self!r} has failed before: {reported}") from reported

    async def _wait_writable(self) -> None:
        try:
            if self._writable is None:
                self._writable = OneForAll()
            await self._writable.wait(
                functools.partial(trio.lowlevel.wait_writable, self._open_fileno())
            )
        except OSError as exc:  # closed behind our back
            self._raise(exc)

    def poll_ready(self) -> None:
        """Ask the kernel. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        poller = select.poll()
        poller.register(self._open_fileno(), select.POLLOUT)
        if not poller.poll(0):
            raise NotReady(self._wait_writable)

    # ---- Reading ---------------------------------------------------------------------------

    def poll_read(self, size: int, /) -> bytes:
        """Take what has arrived from the kernel. See :meth:`AsyncRead.poll_read`."""
        try:
            data = os.read(self.fileno(), min(size, _MOST_READ))
        except (BlockingIOError, InterruptedError):
            raise NotReady(self._wait_readable) from None
        except OSError as exc:
            if not self._is_end(exc):
                self._raise_for_reading(exc)
            data = b""
        if not data:
            self._check_end_of_file()
        return data

    def poll_read_into(self, buffer: bytearray | memoryview, /) -> int:
        """Let the kernel write into ``buffer``. See :meth:`AsyncRead.poll_read_into`."""
        if "poll_read" in vars(self):
            return super().poll_read_into(buffer)
        with writable_view(buffer) as view:
            try:
                count = os.readv(self.fileno(), [view])
            except (BlockingIOError, InterruptedError):
                raise NotReady(self._wait_readable) from None
            except OSError as exc:
                if not self._is_end(exc):
                    self._raise_for_reading(exc)
                count = 0
        if not count:
            self._check_end_of_file()
        return count

    def poll_splice_to(self, pipe: int, size: int) -> int:
        """Let the kernel move what has arrived into a pipe, which is empty.

        Args:
            pipe: the descriptor of the pipe's writing end.
            size: the most to move, in bytes.

        Returns:
            How many bytes were moved; 0 at the end of the stream.

        Raises:
            NotReady: if nothing has arrived.
            CannotSplice: if the kernel does not do it. Nothing was moved.
            trio.BrokenResourceError: if reading fails, now or before.
        """
        try:
            count = _splice(self.fileno(), pipe, size)
        except (BlockingIOError, InterruptedError):
            raise NotReady(self._wait_readable) from None
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise CannotSplice(f"{self!r} cannot be spliced from") from None
            if not self._is_end(exc):
                self._raise_for_reading(exc)
            count = 0
        if not count:
            self._check_end_of_file()
        return count

    def poll_splice_from(self, pipe: int, size: int) -> int:
        """Let the kernel move bytes out of a pipe, which holds ``size`` at least.

        Args:
            pipe: the descriptor of the pipe's reading end.
            size: the most to move, in bytes.

        Returns:
            How many bytes were moved. The others stay in the pipe, also after a failure.

        Raises:
            NotReady: if nothing can be accepted now.
            CannotSplice: if the kernel does not do it. Nothing was moved.
            trio.BrokenResourceError: if the writer has failed, now or before.
        """
        self.lifecycle.check_write(self)
        try:
            count = _splice(pipe, self.fileno(), size)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise CannotSplice(f"{self!r} cannot be spliced to") from None
            self._raise(exc)
        if _TELLING <= count < size:
            self.found_full(count)
        return count

    def _is_end(self, exc: OSError) -> bool:
        return self.ends_with_eio and exc.errno == errno.EIO

    def _raise_for_reading(self, exc: OSError) -> NoReturn:
        if exc.errno == errno.EBADF:
            raise ClosedRefusal(f"{self!r} is closed, or not open for reading") from None
        if self.is_socket:
            # It ends both directions, and aclose need not say it again.
            self._keep_read_error(exc)
            fail(self, exc)
        # Of a terminal, say, that this process may not read from now: nothing is broken.
        raise BrokenRefusal(f"{self!r}: {exc}") from exc

    async def _wait_readable(self) -> None:
        try:
            if self._readable is None:
                self._readable = OneForAll()
            await self._readable.wait(
                functools.partial(trio.lowlevel.wait_readable, self._open_fileno())
            )
        except OSError as exc:  # closed behind our back
            self._raise_for_reading(exc)

    # ---- What others ask -------------------------------------------------------------------

    @answer
    def splices(self) -> bool:
        """Yes, on Linux, if no poll is overridden; the kernel says no when it is tried."""
        cls = type(self)
        return (
            sys.platform == "linux"
            and cls.poll_write is FdWriter.poll_write
            and cls.poll_read is FdWriter.poll_read
            and vars(self).keys().isdisjoint(("poll_write", "poll_read"))
        )

    @property
    def has_own_receive_some(self) -> bool:
        """Whether a subclass, or this object, overrides ``receive_some`` and not ``poll_read``."""
        return (
            type(self).receive_some is not FdWriter.receive_some or "receive_some" in vars(self)
        ) and (type(self).poll_read is FdWriter.poll_read and "poll_read" not in vars(self))

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing: the kernel says the end."""
        return Epilogue.NOTHING

    @answer
    def descriptor(self) -> int | None:
        """The descriptor; None once it is closed."""
        fd = self.fileno()
        return fd if fd >= 0 else None

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the peer's end-of-file was read."""
        return self.lifecycle.at_end and self._read_error is None

    @answer
    def unacknowledged_bytes(self) -> int | None:
        """What the kernel says; see ``_tcp_info.py``."""
        ended, is_known = self.has_sent_end(), self.is_known_as_tcp
        return unacknowledged_bytes(self.fileno(), ended=ended, known_as_tcp=is_known)

    @answer
    def was_reset(self) -> bool:
        """Whether a read was told so, or the connection is gone though we have not ended it.

        Of a Unix socket also whether its peer has ended, and closed with bytes unread. A timeout is
        no reset: the network has gone, and the peer has said nothing.
        """
        known = self._read_error or self.lifecycle.failure
        if isinstance(known, TimeoutError):
            return False
        if self._read_error is not None:
            return True
        fd = self.fileno()
        if fd < 0:
            return False
        # First the questions whose answers are mostly no.
        if not self.has_sent_end() and is_gone(fd) is True:
            return self.unacknowledged_bytes is not None
        # After the peer's end no read will tell. TCP tells more by its counters.
        return (
            self.lifecycle.at_end
            and self.is_socket
            and not self.is_known_as_tcp
            and has_untold_error(fd)
            and self.unacknowledged_bytes is None
        )

    def has_sent_end(self) -> bool:
        """Whether an end-of-file was sent, by this stream or by another object over the socket."""
        return self.lifecycle.phase is ENDED

    def linger_socket(self) -> socket.socket | trio.socket.SocketType | None:
        """The socket to set SO_LINGER on; None if that would do nothing."""
        return None

    def arm_reset(self, *, on: bool) -> None:
        """Let the kernel reset a TCP connection if the process ends now."""
        sock = self.linger_socket()
        if sock is not None:
            self._linger_before = swap_linger(sock, self._linger_before, on=on)
