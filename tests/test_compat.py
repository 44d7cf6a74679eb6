"""``trio_asyncwrite.compat``: other libraries take our streams for Trio's, and we do not."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import trio_asyncwrite

PACKAGE = Path(trio_asyncwrite.__file__).parent

#: Run in a process of its own, for it cannot be undone.
PROGRAM = """
import os
import ssl

import trio
import trio.testing

from trio_asyncwrite import *
from trio_asyncwrite import compat

compat.register()
compat.register()


def refused(call, *args):
    try:
        call(*args)
    except TypeError as exc:
        print("TypeError:", exc)
    else:
        raise AssertionError


async def main():
    listener, = await open_tcp_listeners(0, host="127.0.0.1")
    assert isinstance(listener, trio.SocketListener)
    refused(TcpListener, listener)
    left = await open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    right = await listener.accept()
    assert isinstance(left, trio.SocketStream)
    assert not isinstance(left, trio.SSLStream)
    refused(TcpStream, left)
    assert wrap_stream(left) is left

    context = ssl.create_default_context()
    tls = TlsStream(left, context, server_hostname="example.org")
    assert isinstance(tls, trio.SSLStream)
    assert wrap_stream(tls) is tls
    assert not isinstance(TlsListener(listener, context), trio.SocketListener)
    assert isinstance(TlsListener(listener, context), trio.SSLListener)

    first, second = map(PollEvented, os.pipe())
    assert isinstance(first, trio.lowlevel.FdStream)
    assert wrap_stream(second) is second
    pair = ReadWritePair(first, second)
    assert isinstance(pair, trio.StapledStream)
    print((await close_gracefully(pair, linger=0)).outcome)
    print((await close_gracefully(second, linger=0)).outcome)

    # What our close functions do to Trio's streams is not done to ours.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_gracefully, right)
        print((await close_gracefully(tls)).outcome)
    async with trio.open_nursery() as nursery:
        foreign, peer = trio.testing.memory_stream_pair()
        nursery.start_soon(peer.receive_some)
        print((await close_gracefully(trio.StapledStream(foreign, foreign), linger=0)).outcome)
    await listener.aclose()


trio.run(main)
"""


def test_isinstance_says_yes_and_nothing_here_is_confused() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        check=False,
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    )
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["TypeError", "TypeError"]
    assert "got TcpListener" in lines[0]
    assert "got TcpStream" in lines[1]
    assert lines[2:] == [
        "CloseOutcome.CLEAN",
        "CloseOutcome.BROKEN",
        "CloseOutcome.CLEAN",
        "CloseOutcome.PEER_SILENT",
    ]


CLAIMED = {
    "FdStream",
    "SSLListener",
    "SSLStream",
    "SocketListener",
    "SocketStream",
    "StapledStream",
}


def test_the_library_asks_for_the_real_class() -> None:
    """By ``inherits``: after a registration ``isinstance`` would take our streams for Trio's."""
    asked = [
        f"{path.name}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("isinstance", "issubclass")
        and CLAIMED & set(re.findall(r"\w+", ast.unparse(node)))
    ]
    assert asked == []
