"""Every public member of Trio's streams and listeners is here, under its name and signature.

What differs is listed, with its reason; what is not on the list fails.
"""

from __future__ import annotations

import inspect
import ssl
import sys
from typing import Any

import pytest
import trio

from trio_asyncwrite import (
    PollEvented,
    ReadWritePair,
    TcpListener,
    TcpStream,
    TlsListener,
    TlsStream,
    duplex,
)

PAIRS: list[tuple[Any, Any]] = [
    (trio.SocketStream, TcpStream),
    (trio.SSLStream, TlsStream),
    (trio.SocketListener, TcpListener),
    (trio.SSLListener, TlsListener),
    (trio.StapledStream, ReadWritePair),
]
if sys.platform != "win32":
    PAIRS.append((trio.lowlevel.FdStream, PollEvented))

TAKES_MORE = "it takes what Trio's class takes, and more"

#: (class of Trio, member) -> why its parameters have other names, orders or defaults.
DIFFERENT = {
    ("SocketStream", "__init__"): TAKES_MORE,
    ("SocketListener", "__init__"): TAKES_MORE,
    ("StapledStream", "__init__"): "the order of tokio_io::join; Trio's by keyword",
    ("FdStream", "__init__"): TAKES_MORE,
}


def members(cls: type) -> list[str]:
    public = [name for name in dir(cls) if not name.startswith("_")]
    return [*public, "__init__", "__aenter__", "__aexit__"]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default) for one in found]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=[one.__name__ for one, _ in PAIRS])
def test_every_member_is_here(theirs: type, ours: type) -> None:
    missing = [name for name in members(theirs) if not hasattr(ours, name)]
    assert missing == []

    different = {
        (theirs.__name__, name)
        for name in members(theirs)
        if callable(getattr(theirs, name))
        and parameters(getattr(theirs, name)) != parameters(getattr(ours, name))
    }
    assert different == {one for one in DIFFERENT if one[0] == theirs.__name__}


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=[one.__name__ for one, _ in PAIRS])
def test_what_is_async_there_is_async_here(theirs: type, ours: type) -> None:
    for name in members(theirs):
        is_async = inspect.iscoroutinefunction(getattr(theirs, name))
        assert inspect.iscoroutinefunction(getattr(ours, name)) == is_async, name


async def test_the_attributes_that_constructors_set_are_here() -> None:
    transport, _ = duplex(100)
    context = ssl.create_default_context()
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        sock.listen()
        listener = TcpListener(sock)
        assert listener.socket is sock
        assert TlsListener(listener, context).transport_listener is listener
    left, right = trio.socket.socketpair()
    with left, right:
        assert TcpStream(left).socket is left
    assert TlsStream(transport, context, server_hostname="x").transport_stream is transport
    pair = ReadWritePair(send_stream=transport, receive_stream=transport)
    assert (pair.send_stream, pair.receive_stream) == (transport, transport)
