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


#: Our streams and functions, by the module of Trio where its own stand.
NAMES: dict[str, dict[str, Any]] = {
    "trio._highlevel_generic": {"StapledStream": StapledStream},
    "trio._highlevel_open_tcp_listeners": {
        "open_tcp_listeners": ours.open_tcp_listeners,
        "serve_tcp": ours.serve_tcp,
    },
    "trio._highlevel_open_tcp_stream": {"open_tcp_stream": ours.open_tcp_stream},
    "trio._highlevel_open_unix_stream": {"open_unix_socket": ours.open_unix_stream},
    "trio._highlevel_serve_listeners": {"serve_listeners": ours.serve_listeners},
    "trio._highlevel_socket": {
        "SocketListener": ours.TcpListener,
        "SocketStream": ours.TcpStream,
    },
    "trio._highlevel_ssl_helpers": {
        "open_ssl_over_tcp_listeners": ours.open_tls_over_tcp_listeners,
        "open_ssl_over_tcp_stream": ours.open_tls_over_tcp_stream,
        "serve_ssl_over_tcp": ours.serve_tls_over_tcp,
    },
    "trio._ssl": {"SSLListener": ours.TlsListener, "SSLStream": ours.TlsStream},
    "trio._unix_pipes": {"FdStream": ours.PollEvented},
}

for one in (ours.TcpStream, ours.TlsStream, ours.PollEvented):
    count_objects(one)


def stand_in(module: types.ModuleType, names: dict[str, Any]) -> types.ModuleType:
    """Let whoever imports ``module`` from now on find ``names`` in it."""
    copy = types.ModuleType(module.__name__)
    vars(copy).update(vars(module), **names)
    sys.modules[module.__name__] = copy
    return copy


public: dict[str, Any] = {}
for name, names in NAMES.items():
    public |= names
    stand_in(sys.modules[name], names)
lowlevel = stand_in(trio.lowlevel, {"FdStream": public.pop("FdStream")})
# Trio makes the pipes to a child with it.
trio._subprocess_platform.trio = stand_in(trio, {"lowlevel": lowlevel, **public})  # noqa: SLF001


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show that our streams were used at all."""
    terminalreporter.write_line(f"{made} streams were ours")
