"""Measure the drain of handlers that the grace ends, against Trio's cancelled nursery.

python bench/drains.py [--count N]... [--rounds N] [--tcp | --tls] [--profile]

Every connection has a handler that waits for its client. Then the drain starts with a grace of 0;
Trio's servers are cancelled. It is over when the server has returned. Seconds are CPU seconds of
this process, which also holds the clients, idle sockets. Memory is the growth of Python's memory,
at its peak.
"""

from __future__ import annotations

import argparse
import cProfile
import functools
import gc
import pstats
import ssl
import time
import tracemalloc
from functools import partial
from typing import Any

import trio
import trio.testing
from harness import allow_descriptors, authority, client_context
from receiver import HOST

from trio_asyncwrite import Drain, TlsStream, serve_tcp, serve_tls_over_tcp

COUNTS = (100, 1000, 4000)


@functools.cache
def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert(HOST).configure_cert(context)
    return context


async def wait_for_client(stream: Any) -> None:
    await stream.receive_some()


def serve_ours(drain: Drain, *, tls: bool) -> Any:
    if tls:
        return partial(
            serve_tls_over_tcp, wait_for_client, 0, server_context(), host=HOST, drain=drain
        )
    return partial(serve_tcp, wait_for_client, 0, host=HOST, drain=drain)


def serve_trios(*, tls: bool) -> Any:
    if tls:

        async def handler(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await stream.do_handshake()
            await stream.receive_some()

        return partial(trio.serve_ssl_over_tcp, handler, 0, server_context(), host=HOST)
    return partial(trio.serve_tcp, wait_for_client, 0, host=HOST)


async def connect(address: Any, count: int, *, tls: bool) -> list[Any]:
    clients: list[Any] = []
    for _ in range(count):
        sock = trio.socket.socket()
        await sock.connect(address)
        if tls:
            client = TlsStream(trio.SocketStream(sock), client_context(), server_hostname=HOST)
            await client.do_handshake()
            clients.append(client)
        clients.append(sock)
    return clients


class Result:
    """What one drain took."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self.peak = 0


async def measure(
    count: int, *, ours: bool, tls: bool, memory: bool, profile: cProfile.Profile | None
) -> Result:
    result = Result()
    drain = Drain(grace=0)
    serve = serve_ours(drain, tls=tls) if ours else serve_trios(tls=tls)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(serve)
        listener = getattr(listener, "transport_listener", listener)
        clients = await connect(listener.socket.getsockname(), count, tls=tls)
        await trio.testing.wait_all_tasks_blocked(0.05)
        gc.collect()
        if memory:
            tracemalloc.start()
        if profile is not None:
            profile.enable()
        began, cpu = time.perf_counter(), time.process_time()
        drain.start()
        if not ours:
            nursery.cancel_scope.cancel()
    result.seconds = time.perf_counter() - began
    result.cpu_seconds = time.process_time() - cpu
    if profile is not None:
        profile.disable()
    if memory:
        result.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    for client in clients:
        sock = client.transport_stream.socket if isinstance(client, TlsStream) else client
        sock.close()
    return result


def show(count: int, rounds: int, *, tls: bool, profile: cProfile.Profile | None) -> None:
    peers = {"trio_asyncwrite": True, "trio": False}
    runs: dict[str, list[Result]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, ours in peers.items():
            part = partial(
                measure,
                count,
                ours=ours,
                tls=tls,
                memory=False,
                profile=profile if ours else None,
            )
            runs[name].append(trio.run(part))
    # Other work on the machine only ever adds to it.
    rows = {name: min(each, key=lambda run: run.cpu_seconds) for name, each in runs.items()}
    for name, ours in peers.items():
        run = rows[name]
        part = partial(measure, count, ours=ours, tls=tls, memory=True, profile=None)
        peak = trio.run(part).peak
        print(
            f"{'TLS' if tls else 'TCP'} {count:5} {name:16}{run.cpu_seconds / count * 1e6:8.0f} us"
            f"{run.seconds:8.3f} s beyond the grace{peak / count / 1024:7.1f} KiB each"
        )
    ratio = rows["trio_asyncwrite"].cpu_seconds / rows["trio"].cpu_seconds
    print(f"{'':10}{'':16}{ratio:8.1f} times Trio's")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", action="append", type=int, help="how many; repeatable")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many (default: 3)")
    parser.add_argument("--tls", action="store_true", help="only over TLS")
    parser.add_argument("--tcp", action="store_true", help="only over TCP")
    parser.add_argument("--profile", action="store_true", help="and say where the time goes")
    options = parser.parse_args()
    counts = options.count or COUNTS
    allow_descriptors(2 * max(counts) + 200)
    profile = cProfile.Profile() if options.profile else None
    for tls in (False, True):
        if not (options.tcp if tls else options.tls):
            for count in counts:
                show(count, options.rounds, tls=tls, profile=profile)
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
