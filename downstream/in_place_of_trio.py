"""A pytest plugin: whoever imports Trio from now on finds our streams under the names of Trio's.

Load it with ``-p in_place_of_trio``. What was imported before, such as Trio itself and this
library, keeps the real ones.
"""

from __future__ import annotations

import sys
import types
from typing import Any, Generic, TypeVar

import trio
import trio.abc
import trio.testing

import trio_asyncwrite as ours
from trio_asyncwrite import compat

compat.register()

S = TypeVar("S", bound=trio.abc.SendStream)
R = TypeVar("R", bound=trio.abc.ReceiveStream)

#: How many streams the tests have made.
made = 0


def count_objects(cls: type) -> None:
    """Count the objects that are made of ``cls``."""
    original = cls.__init__  # type: ignore[misc]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        global made  # noqa: PLW0603
        made += 1
        original(self, *args, **kwargs)

    cls.__init__ = __init__  # type: ignore[misc]


class StapledStream(ours.ReadWritePair[R, Any], Generic[S, R]):  # type: ignore[misc]
    """A pair, with the order of Trio's."""

    def __init__(self, send_stream: S, receive_stream: R) -> None:
        super().__init__(send_stream=send_stream, receive_stream=receive_stream)


NAMES = {
    "SSLListener": ours.TlsListener,
    "SSLStream": ours.TlsStream,
    "SocketListener": ours.TcpListener,
    "SocketStream": ours.TcpStream,
    "StapledStream": StapledStream,
    "open_ssl_over_tcp_listeners": ours.open_tls_over_tcp_listeners,
    "open_ssl_over_tcp_stream": ours.open_tls_over_tcp_stream,
    "open_tcp_listeners": ours.open_tcp_listeners,
    "open_tcp_stream": ours.open_tcp_stream,
    "open_unix_socket": ours.open_unix_stream,
    "serve_listeners": ours.serve_listeners,
    "serve_ssl_over_tcp": ours.serve_tls_over_tcp,
    "serve_tcp": ours.serve_tcp,
}

for one in (ours.TcpStream, ours.TlsStream, ours.PollEvented):
    count_objects(one)

lowlevel = types.ModuleType("trio.lowlevel")
vars(lowlevel).update(vars(trio.lowlevel), FdStream=ours.PollEvented)
stand_in = types.ModuleType("trio")
vars(stand_in).update(vars(trio), lowlevel=lowlevel, **NAMES)
sys.modules.update({"trio": stand_in, "trio.lowlevel": lowlevel})


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show that our streams were used at all."""
    terminalreporter.write_line(f"{made} streams were ours")
