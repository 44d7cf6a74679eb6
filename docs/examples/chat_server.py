r"""A chat over TLS: the first line that you send is your name, every other one goes to everybody.

    python chat_server.py --certificate FILE --key FILE [--port N]
    openssl s_client -quiet -connect localhost:N

To say something to the room never waits for a member. Each one has an outbox of 64 KiB, into which
a line goes whole or not at all, and a task that empties it. A member that does not keep up, so that
a line does not fit any more, is removed, and everybody else notices nothing. SIGTERM and SIGINT
drain it: the last lines arrive, and then the connections end properly.
"""

from __future__ import annotations

import argparse
import logging
import ssl
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trio_asyncwrite import (
    BufReader,
    BufWriter,
    Drain,
    TimeoutWriter,
    abort,
    log_errors,
    serve_tls_over_tcp,
)

if TYPE_CHECKING:
    from trio_asyncwrite import AsyncReadWrite, TcpStream, TlsListener

log = logging.getLogger("chat_server")

#: How many bytes a line may have, how many an outbox holds, and how many members there may be.
LONGEST: Final = 1000
OUTBOX: Final = 65536
MEMBERS: Final = 1000

#: How long a handshake and a name may take, and for how long a member may take nothing, in seconds.
TIMEOUT: Final = 30.0


class Member:
    """Somebody in the room."""

    def __init__(self, name: str, stream: AsyncReadWrite) -> None:
        self.name = name
        self.stream = stream
        self.outbox = BufWriter(TimeoutWriter(stream, idle=TIMEOUT), OUTBOX)
        self.is_slow = False
        #: Around all that is done for the member.
        self.scope = trio.CancelScope()
        self._news = trio.Event()

    def tell(self, line: bytes) -> None:
        """Put a line into the outbox; it never waits, and its failures are the member's."""
        if len(line) >= self.outbox.spare_capacity:
            self.is_slow = True
            self.scope.cancel()
            return
        try:
            self.outbox.poll_write(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.scope.cancel()
        else:
            self._news.set()

    async def send(self) -> None:
        """Empty the outbox whenever there is something in it."""
        try:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                # More may be put in while it waits, and goes out with the rest.
                await self.outbox.flush()
        except trio.TooSlowError:
            self.is_slow = True
        except trio.BrokenResourceError as exc:
            log.info("%s: %s", self.name, exc)
        self.scope.cancel()


class Room:
    """Who is here."""

    def __init__(self, drain: Drain) -> None:
        self.drain = drain
        self.members: dict[str, Member] = {}

    def say(self, line: str) -> None:
        """Tell everybody."""
        for member in list(self.members.values()):
            member.tell(f"{line}\r\n".encode())

    async def handle(self, stream: AsyncReadWrite) -> None:
        """Serve one connection."""
        reader = BufReader(stream)
        try:
            with self.drain.until_started() as scope, trio.fail_after(TIMEOUT):
                await reader.fill()
            if scope.cancelled_caught:
                return
            with trio.fail_after(TIMEOUT):
                name = await receive_line(reader)
            if not name or name in self.members:
                await stream.send_all(b"* choose another name\r\n")
                return
        except (trio.BrokenResourceError, trio.TooSlowError):
            await abort(stream)
            return
        member = Member(name, stream)
        with member.scope:
            self.members[name] = member
            try:
                self.say(f"* {name} is here; members: {', '.join(self.members)}")
                await self.listen(member, reader)
            finally:
                del self.members[name]
                self.say(f"* {name} has left")
        if member.is_slow:
            log.warning("%s does not keep up", name)
            await abort(stream)
        # What is left in the outbox is sent when the server closes the stream.

    async def listen(self, member: Member, reader: BufReader[AsyncReadWrite]) -> None:
        """Pass on what a member says, until it leaves or the server is drained."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.send)
            try:
                while True:
                    with self.drain.until_started() as scope:
                        await reader.fill()
                    if scope.cancelled_caught:
                        member.tell(b"* the chat closes\r\n")
                        break
                    with trio.fail_after(TIMEOUT):
                        line = await receive_line(reader)
                    if line is None:
                        break
                    self.say(f"{member.name}: {line}")
            except (trio.BrokenResourceError, trio.TooSlowError) as exc:
                log.info("%s: %s", member.name, str(exc) or "half a line, and no more")
            nursery.cancel_scope.cancel()


async def receive_line(reader: BufReader[AsyncReadWrite]) -> str | None:
    """The next line, without what could move somebody's cursor; None at the end."""
    line = await reader.receive_until(b"\n", max_bytes=LONGEST)
    if not line:
        return None
    text = line.decode(errors="replace").strip()
    return "".join(letter if letter.isprintable() else "?" for letter in text)


async def run(port: int, context: ssl.SSLContext) -> None:
    """Serve until a signal comes."""
    drain = Drain(grace=10)
    serve = partial(
        serve_tls_over_tcp, Room(drain).handle, port, context, host="127.0.0.1", drain=drain,
        handshake_timeout=TIMEOUT, max_connections=MEMBERS, on_error=log_errors,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(drain.start_on_signal)

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
    parser = argparse.ArgumentParser(description="A chat over TLS.")
    parser.add_argument("--certificate", required=True, help="a file in PEM format")
    parser.add_argument("--key", required=True, help="the certificate's private key")
    parser.add_argument("--port", type=int, default=0, help="the system chooses one by default")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate, arguments.key)
    trio.run(run, arguments.port, context)


if __name__ == "__main__":
    main()
