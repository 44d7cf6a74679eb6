"""For libraries that ask for Trio's own classes: lets ``isinstance`` say yes to this library's.

Streams of this library have the members of Trio's, but they do not inherit from them, so code such
as ``if isinstance(stream, trio.SSLStream)`` turns them away. Call :func:`register` once, when your
program starts.
"""

from __future__ import annotations

import sys

import trio

import trio_asyncwrite

__all__ = ("register",)


def register() -> None:
    """Make our classes virtual subclasses of the classes of Trio whose place they take.

    From then on, in the whole process, :class:`TcpStream` counts as :class:`trio.SocketStream`,
    :class:`TlsStream` as :class:`trio.SSLStream`, :class:`TcpListener` as
    :class:`trio.SocketListener`, :class:`TlsListener` as :class:`trio.SSLListener`,
    :class:`ReadWritePair` as :class:`trio.StapledStream`, and :class:`PollEvented` as
    ``trio.lowlevel.FdStream``. It cannot be undone; calling it again does nothing.

    It changes what ``isinstance`` and ``issubclass`` say, and nothing else. A type checker does
    not see it: there, use :func:`typing.cast` where you hand a stream over.

    Source: :meth:`abc.ABCMeta.register`.
    """
    trio.SocketStream.register(trio_asyncwrite.TcpStream)
    trio.SSLStream.register(trio_asyncwrite.TlsStream)
    trio.SocketListener.register(trio_asyncwrite.TcpListener)
    trio.SSLListener.register(trio_asyncwrite.TlsListener)
    trio.StapledStream.register(trio_asyncwrite.ReadWritePair)
    if sys.platform != "win32":  # pragma: no branch
        trio.lowlevel.FdStream.register(trio_asyncwrite.PollEvented)
