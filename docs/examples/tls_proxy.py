"""A TLS-terminating proxy: clients speak TLS to it, and it speaks plain TCP to the backend.

    python tls_proxy.py HOST PORT --certificate FILE --key FILE [--listen N]

* Half-closes pass through, so a client may end its request before it reads the answer.
* If the backend fails in the middle of an answer, the client's connection is cut off without
  close_notify: half an answer never looks like a whole one.
* A tunnel that is open both ways is left alone, however idle it is. Once one side has ended, the
  other one may be idle for a minute at most.
* SIGTERM and SIGINT drain it: open tunnels have 20 seconds to end.
"""

from __future__ import annotations

import argparse
import logging
import ssl
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_asyncwrite import (
    Drain,
    LaneOutcome,
    TcpStream,
    TlsStream,
    abort,
    copy_bidirectional,
    graceful,
    log_errors,
    open_tcp_stream,
    serve_tls_over_tcp,
)

if TYPE_CHECKING:
    from trio_asyncwrite import Relay, TlsListener

log = logging.getLogger("tls_proxy")


@dataclass
class Proxy:
    """Connects each client to the backend."""

    host: str
    port: int
    #: How long a handshake, and a connection to the backend, may take, in seconds.
    timeout: float = 10
    #: How many clients are served at once; others wait to be accepted.
    connections: int = 1000
    #: How long one side may be silent after the other one has ended, in seconds.
    half_open: float = 60

    async def handle(self, client: TlsStream[TcpStream]) -> None:
        """Serve one client."""
        relay = None
        try:
            with trio.fail_after(self.timeout):
                server = await open_tcp_stream(self.host, self.port)
            async with graceful(server):
                relay = await copy_bidirectional(client, server, half_open=self.half_open)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as exc:
            log.warning("%s: %s", client.peer_address, str(exc) or type(exc).__name__)
            if relay is None:
                await abort(client)  # no proper end: nothing was answered
        if relay is not None:
            self.note(client, relay)

    def note(self, client: TlsStream[TcpStream], relay: Relay) -> None:
        """Log how a tunnel has ended, and how much went each way."""
        up, down = relay.a_to_b, relay.b_to_a
        whole = up.outcome is down.outcome is LaneOutcome.ENDED
        log.log(
            logging.INFO if whole else logging.WARNING,
            "%s: %d bytes up, %d bytes down%s",
            client.peer_address, up.bytes, down.bytes,
            "" if whole else f"; cut short: {up}, {down}",
        )  # fmt: skip


async def run(proxy: Proxy, port: int, context: ssl.SSLContext) -> None:
    """Serve until a signal comes."""
    drain = Drain(grace=20)
    async with trio.open_nursery() as nursery:
        await nursery.start(drain.start_on_signal)
        serve = partial(
            serve_tls_over_tcp, proxy.handle, port, context, host="127.0.0.1", drain=drain,
            handshake_timeout=proxy.timeout, max_connections=proxy.connections,
            on_error=log_errors,
        )  # fmt: skip

        async def serve_and_report(
            task_status: trio.TaskStatus[list[TlsListener[TcpStream]]],
        ) -> None:
            log.info("%s", await serve(task_status=task_status))
            nursery.cancel_scope.cancel()

        (listener,) = await nursery.start(serve_and_report)
        number = listener.transport_listener.socket.getsockname()[1]
        print("listening on port", number, flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Terminate TLS, and pass everything on.")
    parser.add_argument("host", help="the backend")
    parser.add_argument("port", type=int)
    parser.add_argument("--certificate", required=True, help="a file in PEM format")
    parser.add_argument("--key", required=True, help="the certificate's private key")
    parser.add_argument("--listen", type=int, default=0, help="the system chooses one by default")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate, arguments.key)
    trio.run(run, Proxy(arguments.host, arguments.port), arguments.listen, context)


if __name__ == "__main__":
    main()
