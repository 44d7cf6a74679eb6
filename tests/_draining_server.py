"""A server as a process of its own, which SIGTERM ends: see serving/test_processes.py.

Arguments: the grace in seconds, and for TLS a file with the certificate and its key. It prints its
port, and in the end its report, as JSON. To a request, a line with a number, it sends half of so
many bytes, and the other half when the drain has started; when the line begins with "now", at once.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_asyncwrite import AsyncReadWrite, Drain, serve_tcp, serve_tls_over_tcp

if TYPE_CHECKING:
    from collections.abc import Callable


def say(words: object) -> None:
    print(words, flush=True)  # noqa: T201 - that is how the test hears of it


async def main(grace: str, certificate: str = "") -> None:
    drain = Drain(grace=float(grace))

    async def answer(stream: AsyncReadWrite, request: bytes) -> None:
        at_once = request.startswith(b"now ")
        half = int(request.removeprefix(b"now ")) // 2
        await stream.send_all(bytes(half))
        if not at_once:
            await drain.wait_started()
        await stream.write_all(bytes(half))

    async def handler(stream: AsyncReadWrite) -> None:
        # A client that connects only to see whether it can, and closes: no handshake with that one.
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                request = b""
                with drain.until_started():
                    request += await stream.receive_some()
                while request and not request.endswith(b"\n"):
                    request += await stream.receive_some(1)
                if not request:
                    return
                await answer(stream, request)

    serve: Callable[..., Any] = serve_tcp
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        serve = partial(serve_tls_over_tcp, ssl_context=context)

    async def report(task_status: trio.TaskStatus[Any]) -> None:
        report = await serve(
            handler,
            port=0,
            host="127.0.0.1",
            backlog=1000,
            drain=drain,
            task_status=task_status,
        )
        outcomes = {outcome.value: count for outcome, count in report.outcomes.items()}
        say(json.dumps({"outcomes": outcomes, "elapsed": report.elapsed}))

    async with trio.open_nursery() as nursery:
        await nursery.start(drain.start_on_signal)
        (listener,) = await nursery.start(report)
        listener = getattr(listener, "transport_listener", listener)
        say(listener.socket.getsockname()[1])


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
