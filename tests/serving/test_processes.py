"""Servers as processes of their own, which SIGTERM ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    open_tcp_stream,
)

from .._servers import (
    Server,
    both,
)
from .._streams import drain as read_all
from .._tls_helpers import certificate


async def check_a_process_under_load(
    server: Server, arguments: list[str], *, clients: int, stopped: int
) -> None:
    """SIGTERM in the middle of everybody's answer."""
    size = 200_000
    halfway = 0
    all_halfway, go_on = trio.Event(), trio.Event()
    answers: list[int] = []
    output = bytearray()
    told = trio.Event()

    async def client() -> None:
        nonlocal halfway
        stream = await server.connect()
        await stream.send_all(b"%d\n" % size)
        received = 0
        while received < size // 2:
            received += len(await stream.receive_some())
        halfway += 1
        if halfway == clients:
            all_halfway.set()
        await go_on.wait()
        received += len(await read_all(stream))
        await stream.aclose()
        answers.append(received)

    async def read(stdout: trio.abc.ReceiveStream) -> None:
        async for chunk in stdout:
            output.extend(chunk)
            told.set()

    silent = []
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, Path(__file__).parents[1] / "_draining_server.py", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        nursery.start_soon(read, process.stdout)
        await told.wait()
        server.address = ("127.0.0.1", int(output))
        output.clear()
        async with trio.open_nursery() as load:
            for _ in range(stopped):
                silent.append(await server.connect())
                await silent[-1].send_all(b"50000000\n")
            for _ in range(clients):
                load.start_soon(client)
            await all_halfway.wait()
            process.terminate()
            with pytest.raises(OSError, match="onnect"):
                while True:
                    (await open_tcp_stream(*server.address)).socket.close()
            assert process.returncode is None
            go_on.set()
    for stream in silent:
        await trio.aclose_forcefully(stream)

    assert answers == [size] * clients
    assert process.returncode == 0
    report = json.loads(output)
    assert report["outcomes"].get("truncated", 0) == stopped
    assert report["outcomes"]["clean"] >= clients
    # The grace, and a minute for a machine that is busy.
    assert report["elapsed"] < float(arguments[0]) + 60


def process_arguments(grace: int, tmp_path: Path, *, tls: bool) -> list[str]:
    if not tls:
        return [str(grace)]
    file = tmp_path / "server.pem"
    certificate().private_key_and_cert_chain_pem.write_to_path(file)
    return [str(grace), str(file)]


@both
async def test_a_process_that_gets_sigterm_under_load_loses_nothing(
    *, tls: bool, tmp_path: Path
) -> None:
    arguments = process_arguments(60, tmp_path, tls=tls)
    await check_a_process_under_load(Server(tls=tls), arguments, clients=10, stopped=0)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 10])
@both
async def test_a_process_that_gets_sigterm_under_the_load_of_200_connections(
    *, tls: bool, stopped: int, tmp_path: Path
) -> None:
    arguments = process_arguments(15, tmp_path, tls=tls)
    await check_a_process_under_load(Server(tls=tls), arguments, clients=200, stopped=stopped)


# ---- Under load --------------------------------------------------------------------------------


@pytest.mark.slow
@both
async def test_sigterm_while_clients_come_and_go(*, tls: bool, tmp_path: Path) -> None:
    """Each gets its whole answer, or nothing.

    A request that has arrived when the drain starts is not read by its handler any more. TCP resets
    the connection then. TLS reads it first, and ends properly.
    """
    server = Server(tls=tls)
    size, grace = 6000, 20
    seen: Counter[str] = Counter()
    busy = trio.Event()
    output = bytearray()

    async def client() -> None:
        while not seen["refused"]:
            received = b""
            try:
                stream = await server.connect()
                try:
                    await stream.send_all(b"now %d\n" % size)
                    while len(received) < size:
                        chunk = await stream.receive_some()
                        if not chunk:
                            break
                        received += chunk
                finally:
                    await trio.aclose_forcefully(stream)
            except ConnectionRefusedError:
                seen["refused"] += 1
            except (OSError, trio.BrokenResourceError):
                seen[f"reset after {len(received)}"] += 1
            else:
                seen[f"received {len(received)}"] += 1
            if seen[f"received {size}"] == 500:
                busy.set()

    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [
                    sys.executable,
                    Path(__file__).parents[1] / "_draining_server.py",
                    *process_arguments(grace, tmp_path, tls=tls),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        async with process.stdout as stdout:
            server.address = ("127.0.0.1", int(await stdout.receive_some()))
            async with trio.open_nursery() as clients:
                for _ in range(40):
                    clients.start_soon(client)
                await busy.wait()
                process.terminate()
            async for chunk in stdout:
                output += chunk

    assert process.returncode == 0
    nothing = {"refused", "reset after 0", *(["received 0"] if tls else [])}
    assert set(seen) <= {*nothing, f"received {size}"}
    assert json.loads(output)["elapsed"] < grace
