"""The HTTP server of the documentation, with clients that nobody here wrote, and hostile ones."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio_websocket

from trio_asyncwrite import CloseOutcome, Drain, close_gracefully, duplex

from .._patience import wait_all_tasks_blocked
from .._peers import Pki, find_peer
from .._streams import drain as read_all
from ._load import load, program

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.once

http_server = load("http_server")
PICTURE = bytes(number % 251 for number in range(1_000_000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "hello.txt").write_text("hello\n")
    (folder / "long.txt").write_text("all work and no play\n" * 10_000)
    (folder / "picture.png").write_bytes(PICTURE)
    (tmp_path / "secret").write_text("not for you")
    (folder / "link").symlink_to(tmp_path / "secret")
    return folder


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


async def curl(*arguments: object) -> bytes:
    """What curl prints."""
    command = [find_peer("curl"), "--silent", "--show-error", *map(str, arguments)]
    done = await trio.run_process(command, capture_stdout=True)
    return done.stdout


# ---- As a program --------------------------------------------------------------------------


async def test_curl_gets_files_and_parts_of_them(folder: Path) -> None:
    async with program("http_server", folder) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert await curl(f"{url}/picture.png") == PICTURE
        assert await curl("--range", "100-200", f"{url}/picture.png") == PICTURE[100:201]
        assert await curl("--range", "-7", f"{url}/picture.png") == PICTURE[-7:]
        head = await curl("--head", f"{url}/picture.png")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"Content-Length: 1000000\r\n" in head
        assert b"Content-Type: image/png\r\n" in head
        status = ("--output", "/dev/null", "--write-out", "%{http_code}")
        assert await curl(*status, "--range", "1000000-", f"{url}/picture.png") == b"416"
        for path in ("missing", "link", "", "../secret", "%2e%2e/secret", "a%00b"):
            assert await curl(*status, "--path-as-is", f"{url}/{path}") == b"404"
        assert await curl(*status, "--request", "DELETE", f"{url}/hello.txt") == b"405"
        one_connection = await curl("--verbose", "--stderr", "-", *[f"{url}/hello.txt"] * 2)
        assert b"Re-using existing connection" in one_connection
        assert one_connection.count(b"\nhello\n") == 2
        text = (folder / "long.txt").read_bytes()
        assert await curl("--compressed", f"{url}/long.txt") == text
        assert await curl(f"{url}/long.txt") == text
        packed = await curl("--header", "Accept-Encoding: gzip", f"{url}/long.txt")
        assert len(packed) < len(text) / 10
        assert gzip.decompress(packed) == text
        head = await curl("--head", "--compressed", f"{url}/long.txt")
        assert b"Content-Encoding: gzip\r\n" in head
    assert '"GET /picture.png" 200 1000000' in server.log
    assert '"HEAD /picture.png" 200 0' in server.log


async def test_curl_uploads_and_learns_early_that_it_is_too_much(folder: Path) -> None:
    small, large = folder / "small", folder / "large"
    small.write_bytes(PICTURE)
    large.write_bytes(PICTURE * 5)
    async with program("http_server", folder) as server:
        url = f"http://127.0.0.1:{server.port}/"
        digest = hashlib.sha256(PICTURE).hexdigest().encode() + b"\n"
        # It waits for "100 Continue"; and it does not know how much there will be.
        assert await curl("--data-binary", f"@{small}", url) == digest
        chunked = ("--header", "Transfer-Encoding: chunked")
        assert await curl(*chunked, "--data-binary", f"@{small}", url) == digest
        # It does not wait, and reads the answer after it has sent everything.
        at_once = ("--header", "Expect:")
        for way in ((), at_once, (*at_once, *chunked)):
            answer = await curl("--include", *way, "--data-binary", f"@{large}", url)
            assert answer.startswith(b"HTTP/1.1 413 ") or b"\r\n\r\nHTTP/1.1 413 " in answer


async def test_over_tls_it_finishes_a_download_when_it_is_terminated(
    folder: Path, pki: Pki
) -> None:
    async with (
        program("http_server", folder, "--certificate", pki.chain, "--key", pki.key) as server,
        trio.open_nursery() as nursery,
    ):
        url = f"https://localhost:{server.port}/picture.png"
        downloading = trio.Event()
        received = bytearray()

        async def download() -> None:
            command = [
                find_peer("curl"), "--silent", "--cacert", pki.authority, "--limit-rate", "2M", url,
            ]  # fmt: skip
            start = partial(
                trio.run_process, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
            process: trio.Process = await nursery.start(start)
            assert process.stdout is not None
            async for chunk in process.stdout:
                received.extend(chunk)
                downloading.set()

        nursery.start_soon(download)
        await downloading.wait()
        server.drain()
    assert received == PICTURE
    assert "drained" in server.log


@pytest.mark.slow
@pytest.mark.parametrize("load", [["wrk", "-c20", "-d2"], ["h2load", "--h1", "-c20", "-n5000"]])
async def test_load_generators_get_every_answer(folder: Path, load: list[str]) -> None:
    async with program("http_server", folder) as server:
        url = f"http://127.0.0.1:{server.port}/hello.txt"
        done = await trio.run_process([find_peer(load[0]), *load[1:], url], capture_stdout=True)
    output = done.stdout.decode()
    if load[0] == "wrk":
        assert "requests in" in output
        assert "Socket errors" not in output
        assert "Non-2xx" not in output
    else:
        assert "5000 succeeded, 0 failed, 0 errored" in output


# ---- Hostile clients, in memory ------------------------------------------------------------


class Client:
    """The other end of a connection, and what the server made of it."""

    def __init__(self, folder: Path, nursery: trio.Nursery, **limits: Any) -> None:
        self.site = http_server.Site(folder, **limits)
        self.stream, self._server = duplex(4096)
        self.report: Any = None
        nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        await http_server.Connection(self._server, self.site).serve()
        self.report = await close_gracefully(self._server)  # as a draining server does


async def test_a_head_that_comes_byte_by_byte_runs_out_of_time(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)

        async def dribble() -> None:
            await client.stream.send_all(b"GET /hello.txt HTTP/1.1\r\nHost: here\r\n")
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await trio.sleep(1)
                    await client.stream.send_all(b"x")

        nursery.start_soon(dribble)
        assert (await read_all(client.stream)).startswith(b"HTTP/1.1 408 Request Timeout")
        assert trio.current_time() == 10
        await trio.sleep(10)
        await client.stream.aclose()


async def test_a_head_without_an_end_is_refused(folder: Path, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)
        nursery.start_soon(client.stream.send_all, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000)
        assert (await read_all(client.stream)).startswith(b"HTTP/1.1 431 ")


async def test_an_answer_that_nobody_reads_is_cut_off_and_looks_so(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)
        await client.stream.send_all(b"GET /picture.png HTTP/1.1\r\nHost: here\r\n\r\n")
        await trio.sleep(31)
        with pytest.raises(trio.BrokenResourceError):
            await read_all(client.stream)


async def test_a_flood_of_requests_waits_for_its_answers_to_be_read(
    folder: Path, autojump_clock: MockClock
) -> None:
    request = b"GET /picture.png HTTP/1.1\r\nHost: here\r\n\r\n"
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)
        sent = 0
        with trio.move_on_after(1):
            while True:
                sent += await client.stream.write(request * 100)
        # Two buffers on the way, and what one read takes.
        assert sent < 4096 + 65536 + len(request) * 100
        with pytest.raises(trio.BrokenResourceError):
            await trio.sleep(40)
            await read_all(client.stream)


async def test_a_body_that_stops_coming_ends_the_connection(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)
        await client.stream.send_all(
            b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nab"
        )
        with pytest.raises(trio.BrokenResourceError):
            await read_all(client.stream)
        assert trio.current_time() == 30


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\r\n" * 9])
async def test_garbage_is_a_bad_request(
    folder: Path, garbage: bytes, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)
        await client.stream.send_all(garbage + b"\r\n\r\n")
        assert (await read_all(client.stream)).startswith(b"HTTP/1.1 400 Bad Request")
        await client.stream.aclose()


async def test_a_drain_ends_an_idle_connection_and_answers_what_has_come(
    folder: Path, autojump_clock: MockClock
) -> None:
    request = b"GET /hello.txt HTTP/1.1\r\nHost: here\r\n\r\n"
    drain = Drain()
    async with trio.open_nursery() as nursery:
        idle = Client(folder, nursery, drain=drain)
        busy = Client(folder, nursery, drain=drain)
        for client in (idle, busy):
            await client.stream.send_all(request)
            assert (await client.stream.receive_some()).endswith(b"hello\n")
        await wait_all_tasks_blocked()
        await busy.stream.send_all(request)
        drain.start()
        for client, answers in ((idle, 0), (busy, 1)):
            assert (await read_all(client.stream)).count(b"hello\n") == answers
            await client.stream.aclose()
    assert idle.report.outcome is busy.report.outcome is CloseOutcome.CLEAN


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=1_0-\r\n\r\n", 200),
        (b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=7-\r\n\r\n", 416),
        (b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 200),
        (b"HEAD /picture.png HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n\r\n", 200),
        (b"GET /long.txt HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=0\r\n\r\n", 200),
    ],
)
async def test_odd_requests_get_the_right_status(
    folder: Path, head: bytes, status: int, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)
        await client.stream.send_all(head)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await client.stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"Content-Encoding" not in answer
        nursery.cancel_scope.cancel()


async def test_a_file_that_cannot_be_read_is_forbidden(
    folder: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(type(folder), "open", refuse)
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)
        await client.stream.send_all(b"GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 403 Forbidden")
        nursery.cancel_scope.cancel()


# ---- WebSocket -----------------------------------------------------------------------------


async def test_a_websocket_gets_what_was_read_with_its_head(
    folder: Path, autojump_clock: MockClock
) -> None:
    drain = Drain()
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery, drain=drain)
        socket = await trio_websocket.wrap_client_stream(nursery, client.stream, "here", "/echo")
        for message in ("one", "x" * 100_000):
            await socket.send_message(message)
            assert await socket.get_message() == message
        drain.start()
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await socket.get_message()
        assert closed.value.reason.code == 1001


async def test_a_websocket_may_be_asked_for_behind_another_request(
    folder: Path, autojump_clock: MockClock
) -> None:
    upgrade = (
        b"GET /echo HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)
        await client.stream.send_all(b"GET /hello.txt HTTP/1.1\r\nHost: here\r\n\r\n" + upgrade)
        answer = b""
        while b"101 Switching Protocols" not in answer:
            answer += await client.stream.receive_some()
        assert b"\r\n\r\nhello\n" in answer
        nursery.cancel_scope.cancel()


async def test_a_bad_upgrade_costs_no_more_than_a_while(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        client = Client(folder, nursery)
        await client.stream.send_all(
            b"GET /echo HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n\r\n"
        )
        assert (await read_all(client.stream)).startswith(b"HTTP/1.1 400 ")
        await client.stream.aclose()
    assert trio.current_time() <= 20
    assert client.report is not None
