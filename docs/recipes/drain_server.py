"""Restart a server under load, and lose no byte.

SIGTERM comes while three answers are under way and a fourth client is idle. The server stops
listening, finishes the answers and ends the idle connection; its report says how each one ended.

Prints::

    SIGTERM, with 3 answers under way
    received [0, 300000, 300000, 300000] bytes
    4 connections: {'clean': 4}
"""

from __future__ import annotations

import contextlib
import os
import signal

import trio

from trio_asyncwrite import Drain, TcpStream, open_tcp_stream, serve_tcp


async def main() -> None:
    drain = Drain(grace=20)
    halfway = 0
    all_halfway = trio.Event()

    async def handler(stream: TcpStream) -> None:
        # What a handler raises ends the server, and a client that resets its connection must not.
        with contextlib.suppress(trio.BrokenResourceError):
            await answer_all(stream)

    async def answer_all(stream: TcpStream) -> None:
        nonlocal halfway
        while True:
            request = b""
            # The wait for the first bytes of a request ends when the drain starts, and no other: an
            # answer is never cut short. A request that has arrived already is still received.
            with drain.until_started():
                request = bytes(await stream.receive_some())
            if not request:
                return  # and the server closes the connection gracefully
            await stream.send_all(bytes(150_000))
            halfway += 1
            if halfway == 3:
                all_halfway.set()
            await drain.wait_started()  # so that it comes in the middle of this answer
            await stream.send_all(bytes(150_000))

    received: list[int] = []

    async def client(port: int, request: bytes) -> None:
        async with await open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request)
            received.append(sum([len(chunk) async for chunk in stream]))

    async def clients(port: int) -> None:
        async with trio.open_nursery() as nursery:
            for request in (b"please", b"please", b"please", b""):
                nursery.start_soon(client, port, request)
            await all_halfway.wait()
            print("SIGTERM, with", halfway, "answers under way")
            os.kill(os.getpid(), signal.SIGTERM)

    async def serve(task_status: trio.TaskStatus[object]) -> None:
        # Readiness is Trio's: the listeners come through task_status when they listen.
        report = await serve_tcp(handler, 0, host="127.0.0.1", drain=drain, task_status=task_status)
        outcomes = {outcome.value: count for outcome, count in report.outcomes.items()}
        # The report comes when the last connection is closed.
        print("received", sorted(received), "bytes")
        print(f"{report.connections} connections: {outcomes}")

    async with trio.open_nursery() as nursery:
        await nursery.start(drain.start_on_signal)
        listeners = await nursery.start(serve)
        nursery.start_soon(clients, listeners[0].socket.getsockname()[1])


if __name__ == "__main__":
    trio.run(main)
