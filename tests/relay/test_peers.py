"""A relay between programs that nobody here wrote."""

from __future__ import annotations

import hashlib
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import (
    LaneOutcome,
    PollEvented,
    ReadWritePair,
    Relay,
    TcpStream,
    copy,
    open_unix_stream,
)

from .._peers import find_peer
from .._streams import tcp_pair, unix_pair

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(i * i % 251 for i in range(300_000))


async def socat(nursery: trio.Nursery, *arguments: str, **options: Any) -> trio.Process:
    """Start it; it ends with the nursery at the latest."""
    # How long it waits for the other direction after one has ended.
    start = [find_peer("socat"), "-t", "60", *arguments]

    async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
        await trio.run_process(start, task_status=task_status, check=False, **options)

    return await nursery.start(run)


async def reach(path: Path) -> TcpStream:
    """Connect to a socket that somebody is about to listen on."""
    while True:
        try:
            return await open_unix_stream(str(path))
        except OSError:
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("maker", [tcp_pair, unix_pair])
async def test_socat_echoes_behind_the_relay(tmp_path: Path, maker: Any) -> None:
    path = tmp_path / "socket"
    client, a = await maker()
    async with trio.open_nursery() as nursery:
        await socat(nursery, f"UNIX-LISTEN:{path}", "EXEC:cat")
        b = await reach(path)
        relay = Relay(a, b)
        nursery.start_soon(relay.run)

        async def ask() -> None:
            await client.send_all(DATA)
            await client.send_eof()

        nursery.start_soon(ask)
        received = b"".join([bytes(chunk) async for chunk in client])
    assert hashlib.sha256(received).digest() == hashlib.sha256(DATA).digest()
    assert (relay.a_to_b.outcome, relay.b_to_a.outcome) == (LaneOutcome.ENDED, LaneOutcome.ENDED)
    assert (relay.a_to_b.bytes, relay.b_to_a.bytes) == (len(DATA), len(DATA))
    for stream in (client, a, b):
        await stream.aclose()


async def test_socat_asks_before_the_relay_and_answers_behind_it(tmp_path: Path) -> None:
    """... and the relay is cancelled and resumed in between."""
    front, back = tmp_path / "front", tmp_path / "back"
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(str(front))
    listener.listen(1)
    async with trio.open_nursery() as nursery:
        await socat(nursery, f"UNIX-LISTEN:{back}", "EXEC:cat")
        asking = await socat(
            nursery,
            "-",
            f"UNIX-CONNECT:{front}",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        accepted, _ = await listener.accept()
        a, b = TcpStream(accepted), await reach(back)
        relay = Relay(a, b)

        async def ask() -> None:
            assert asking.stdin is not None
            await asking.stdin.send_all(DATA)
            await asking.stdin.aclose()

        async def run() -> None:
            for steps in (1, 3, 7, 20):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(relay.run)
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
            await relay.run()
            await a.aclose()
            await b.aclose()

        nursery.start_soon(ask)
        nursery.start_soon(run)
        assert asking.stdout is not None
        received = b"".join([bytes(chunk) async for chunk in asking.stdout])
    listener.close()
    assert received == DATA
    assert (relay.a_to_b.bytes, relay.b_to_a.bytes) == (len(DATA), len(DATA))


async def test_a_child_is_fed_and_read_at_once() -> None:
    client, a = await unix_pair()
    async with trio.open_nursery() as nursery:
        child = await socat(nursery, "-", "EXEC:cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert isinstance(child.stdin, trio.lowlevel.FdStream)
        assert isinstance(child.stdout, trio.lowlevel.FdStream)
        b = ReadWritePair(PollEvented(child.stdout), PollEvented(child.stdin))
        relay = Relay(a, b)
        nursery.start_soon(relay.run)

        async def ask() -> None:
            await client.send_all(DATA)
            await client.send_eof()

        nursery.start_soon(ask)
        received = b"".join([bytes(chunk) async for chunk in client])
    assert received == DATA
    assert relay.b_to_a.outcome is LaneOutcome.ENDED
    for stream in (client, a, b):
        await stream.aclose()


async def test_copy_from_a_child_and_to_another() -> None:
    async with trio.open_nursery() as nursery:
        first = await socat(nursery, "-u", "-", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        second = await socat(nursery, "-u", "-", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert first.stdin is not None
        assert first.stdout is not None
        assert second.stdin is not None
        assert second.stdout is not None

        async def ask() -> None:
            assert first.stdin is not None
            await first.stdin.send_all(DATA)
            await first.stdin.aclose()

        async def pass_on() -> None:
            assert first.stdout is not None
            assert second.stdin is not None
            assert await copy(first.stdout, second.stdin) == len(DATA)
            await second.stdin.aclose()

        nursery.start_soon(ask)
        nursery.start_soon(pass_on)
        received = b"".join([bytes(chunk) async for chunk in second.stdout])
    assert received == DATA
