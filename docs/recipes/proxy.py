"""A proxy that ends TLS: TCP or TLS in front, plain TCP behind.

It serves at most 100 connections at once. When one side of a tunnel has ended, the other may be
silent for a minute; a tunnel that is open both ways is left alone, however idle it is. SIGTERM
drains the proxy: a tunnel that ends within 20 seconds is not cut short.

Prints::

    over TCP: b'HELLO'
    over TLS: b'HELLO'
    nobody listens behind: b''
    SIGTERM: 3 connections, {'clean': 3}
"""

from __future__ import annotations

import os
import signal
import ssl
from functools import partial

import trio
import trustme

from trio_asyncwrite import (
    AsyncReadWrite,
    Drain,
    LaneOutcome,
    TcpStream,
    TlsListener,
    copy_bidirectional,
    graceful,
    open_tcp_listeners,
    open_tcp_stream,
    open_tls_over_tcp_stream,
    serve_listeners,
    serve_tcp,
)


class Proxy:
    """Connects each client to a server on this machine."""

    def __init__(self, port: int, *, limit: int = 100) -> None:
        self.port = port
        self.slots = trio.CapacityLimiter(limit)
        self.drained = trio.Event()

    async def handle(self, client: AsyncReadWrite) -> None:
        async with self.slots:
            try:
                server = await open_tcp_stream("127.0.0.1", self.port)
            except OSError:
                return  # the proxy closes the client's connection
            # A failure of either side is an outcome, and no exception: it must not end the proxy.
            async with graceful(server):
                relay = await copy_bidirectional(client, server, half_open=60)
            for lane in (relay.a_to_b, relay.b_to_a):
                if lane.outcome is not LaneOutcome.ENDED:
                    print("cut short:", lane)

    async def serve(
        self, context: ssl.SSLContext, *, task_status: trio.TaskStatus[list[int]]
    ) -> None:
        plain, below = [(await open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in ("TCP", "TLS")]
        encrypted = TlsListener(below, context)
        drain = Drain(grace=20)
        async with trio.open_nursery() as nursery:
            await nursery.start(drain.start_on_signal)
            task_status.started([one.socket.getsockname()[1] for one in (plain, below)])
            report = await serve_listeners(self.handle, [plain, encrypted], drain=drain)
        outcomes = {outcome.value: count for outcome, count in report.outcomes.items()}
        print(f"SIGTERM: {report.connections} connections, {outcomes}")
        self.drained.set()


# ---- A server behind it, and clients before it ---------------------------------------------------


async def shout(stream: TcpStream) -> None:
    async with stream:
        async for chunk in stream:
            await stream.send_all(bytes(chunk).upper())


async def ask(stream: AsyncReadWrite) -> bytes:
    async with stream:
        await stream.send_all(b"hello")
        await stream.send_eof()
        return b"".join([bytes(chunk) async for chunk in stream])


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    async with trio.open_nursery() as nursery:
        behind = await nursery.start(partial(serve_tcp, shout, 0, host="127.0.0.1"))
        proxy = Proxy(behind[0].socket.getsockname()[1])
        plain, encrypted = await nursery.start(proxy.serve, server_context)

        print("over TCP:", await ask(await open_tcp_stream("127.0.0.1", plain)))
        over_tls = await open_tls_over_tcp_stream(
            "localhost", encrypted, ssl_context=client_context
        )
        print("over TLS:", await ask(over_tls))
        (unused,) = await open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = unused.socket.getsockname()[1]
        await unused.aclose()
        print("nobody listens behind:", await ask(await open_tcp_stream("127.0.0.1", plain)))

        os.kill(os.getpid(), signal.SIGTERM)
        await proxy.drained.wait()
        nursery.cancel_scope.cancel()  # the server behind


if __name__ == "__main__":
    trio.run(main)
