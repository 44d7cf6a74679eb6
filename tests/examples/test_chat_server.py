"""The chat of the documentation: openssl and socat as members, and members that do not keep up."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import BufReader, CloseOutcome, Drain, DuplexStream, close_gracefully, duplex

from .._patience import wait_all_tasks_blocked
from .._peers import Pki, find_peer
from .._streams import drain as read_all
from ._load import load, program

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.once

chat = load("chat_server")


async def until(stream: trio.abc.ReceiveStream, said: bytes) -> bytes:
    """Read until ``said`` has come."""
    received = b""
    while said not in received:
        chunk = await stream.receive_some()
        assert chunk, received
        received += chunk
    return received


async def test_openssl_and_socat_talk_to_each_other_and_hear_the_end(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    arguments = ("--certificate", pki.chain, "--key", pki.key)
    async with program("chat_server", *arguments) as server, trio.open_nursery() as nursery:
        where = f"localhost:{server.port}"
        commands = {
            b"anna": [
                find_peer("openssl"), "s_client", "-quiet", "-verify_quiet", "-CAfile",
                pki.authority, "-verify_return_error", "-connect", where,
            ],
            b"bert": [find_peer("socat"), "-", f"OPENSSL:{where},cafile={pki.authority}"],
        }  # fmt: skip
        members: dict[bytes, Any] = {}
        for name, command in commands.items():
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = await nursery.start(partial(trio.run_process, command, **pipes))
            await process.stdin.send_all(name + b"\n")
            await until(process.stdout, b"* %s is here" % name)
            members[name] = process
        await members[b"anna"].stdin.send_all("grüß dich\x1b[2J\n".encode())
        for process in members.values():
            assert "anna: grüß dich?[2J\r\n".encode() in await until(process.stdout, b"2J\r\n")
        server.drain()
        for process in members.values():
            assert b"* the chat closes\r\n" in await read_all(process.stdout)
    assert "2 connections, 2 clean" in server.log


# ---- In memory ------------------------------------------------------------------------------


class Guest:
    """The other end of a member's connection."""

    def __init__(self, room: Any, name: str, nursery: trio.Nursery) -> None:
        self.name = name
        self.stream, self._server = duplex(4096)
        self.reader = BufReader(self.stream)
        self.heard: list[str] = []
        self.report: Any = None
        nursery.start_soon(self._serve, room)

    async def _serve(self, room: Any) -> None:
        await room.handle(self._server)
        self.report = await close_gracefully(self._server)  # as a draining server does

    async def enter(self) -> DuplexStream:
        await self.stream.send_all(self.name.encode() + b"\n")
        await self.hear("here")
        return self.stream

    async def hear(self, said: str) -> None:
        while True:
            line = await self.reader.receive_until(b"\n", max_bytes=2000)
            assert line, f"it never said {said}"
            self.heard.append(line.decode())
            if said in line.decode():
                return


async def test_who_does_not_keep_up_is_out_and_holds_nobody_up(autojump_clock: MockClock) -> None:
    drain = Drain()
    room = chat.Room(drain)
    async with trio.open_nursery() as nursery:
        anna, carol = (Guest(room, name, nursery) for name in ("anna", "carol"))
        await anna.enter()
        await carol.enter()
        for number in range(100):
            await anna.stream.send_all(b"x" * 900 + b"%d\n" % number)
            await anna.hear(f"x{number}")
        assert "* carol has left\r\n" in anna.heard
        assert trio.current_time() == 0
        with pytest.raises(trio.BrokenResourceError):
            await read_all(carol.stream)
        drain.start()
        await anna.hear("the chat closes")
        await anna.stream.aclose()
    assert anna.report.outcome is CloseOutcome.CLEAN


async def test_a_member_whose_connection_fails_is_nobody_elses_trouble(
    autojump_clock: MockClock,
) -> None:
    room = chat.Room(Drain())
    async with trio.open_nursery() as nursery:
        anna, carol = (Guest(room, name, nursery) for name in ("anna", "carol"))
        await anna.enter()
        await carol.enter()
        room.members["carol"].outbox.lifecycle.failure = OSError("the network is down")
        room.members["carol"].outbox.lifecycle.update()
        await anna.stream.send_all(b"one\ntwo\n")
        for said in ("anna: one", "anna: two", "* carol has left"):
            if not any(said in line for line in anna.heard):
                await anna.hear(said)
        assert list(room.members) == ["anna"]
        nursery.cancel_scope.cancel()


async def test_half_a_line_does_not_hold_up_a_drain(autojump_clock: MockClock) -> None:
    drain = Drain()
    room = chat.Room(drain)
    async with trio.open_nursery() as nursery:
        nameless, anna = Guest(room, "", nursery), Guest(room, "anna", nursery)
        await anna.enter()
        await wait_all_tasks_blocked()
        drain.start()
        assert await read_all(nameless.stream) == b""
        await nameless.stream.aclose()
        await anna.hear("the chat closes")
        await anna.stream.aclose()
    assert trio.current_time() == 0


async def test_who_takes_nothing_is_out_after_a_while(autojump_clock: MockClock) -> None:
    room = chat.Room(Drain())
    async with trio.open_nursery() as nursery:
        anna, carol = (Guest(room, name, nursery) for name in ("anna", "carol"))
        await anna.enter()
        await carol.enter()
        await anna.hear("carol is here")
        for _ in range(6):
            await anna.stream.send_all(b"x" * 900 + b"\n")
            await anna.hear("xxx")
        await anna.hear("* carol has left")
        assert trio.current_time() == 30
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("talk", [b"", b"anna\n", b"x" * 1000, b"\n"])
async def test_who_has_no_good_name_does_not_come_in(
    talk: bytes, autojump_clock: MockClock
) -> None:
    room = chat.Room(Drain())
    async with trio.open_nursery() as nursery:
        anna, other = (Guest(room, name, nursery) for name in ("anna", "other"))
        await anna.enter()
        if talk:
            await other.stream.send_all(talk)
        with trio.move_on_after(60):
            if talk.endswith(b"\n"):
                assert await read_all(other.stream) == b"* choose another name\r\n"
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await read_all(other.stream)
        assert list(room.members) == ["anna"]
        nursery.cancel_scope.cancel()


async def test_a_line_without_an_end_ends_the_connection(autojump_clock: MockClock) -> None:
    room = chat.Room(Drain())
    async with trio.open_nursery() as nursery:
        anna, carol = (Guest(room, name, nursery) for name in ("anna", "carol"))
        await anna.enter()
        await carol.enter()
        await carol.stream.send_all(b"x" * 3000)
        await anna.hear("* carol has left")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
