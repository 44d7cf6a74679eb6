"""TLS against other people's implementations, in both roles, on TLS 1.2 and 1.3.

Each conversation ends properly on both sides, and that is checked from the peer's own output as
well: nobody is told of a clean end but by the other's close_notify.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_asyncwrite import (
    TcpStream,
    TlsStream,
    open_tls_over_tcp_stream,
    serve_tls_over_tcp,
)

from .._peers import VERSIONS, Pki, find_peer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from pathlib import Path

REQUEST = b"a request\n"
# More than a kernel's buffers hold.
ANSWER = bytes(range(65, 91)) * 40_000 + b"\n"

# SSL_OP_ALLOW_CLIENT_RENEGOTIATION of OpenSSL 3, which Python has no name for.
ALLOW_CLIENT_RENEGOTIATION = 1 << 8


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.asynccontextmanager
async def our_server(
    context: ssl.SSLContext, handler: Callable[[TlsStream[TcpStream]], Awaitable[object]]
) -> AsyncGenerator[int, None]:
    """Serve; the body gets the port, and each handler may end before the server does."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(serve_tls_over_tcp, handler, 0, context, host="127.0.0.1")
        )
        yield listeners[0].transport_listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        assert chunk, f"the end came after {bytes(data)!r}"
        data += chunk
    return bytes(data)


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


class Handler:
    """Answers a request, half-closes, and then waits for the peer's own proper end."""

    def __init__(self) -> None:
        self.after_the_end = trio.Event()
        self.rest = b"never"

    async def __call__(self, stream: TlsStream[TcpStream]) -> None:
        assert await receive_exactly(stream, len(REQUEST)) == REQUEST
        await stream.write_all(ANSWER)
        await stream.shutdown()
        self.rest = await receive_all(stream)
        await stream.aclose()
        self.after_the_end.set()


async def run(command: list[str], text: bytes = b"") -> tuple[bytes, bytes]:
    done = await trio.run_process(command, stdin=text, capture_stdout=True, capture_stderr=True)
    return done.stdout, done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.asynccontextmanager
async def their_program(
    command: list[str],
) -> AsyncGenerator[tuple[trio.Process, bytearray], None]:
    """Run a program with its input open; what it prints is collected."""
    printed = bytearray()

    async def collect(stream: trio.abc.ReceiveStream) -> None:
        async for chunk in stream:
            printed.extend(chunk)

    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        )
        assert process.stdout is not None
        nursery.start_soon(collect, process.stdout)
        yield process, printed
        nursery.cancel_scope.cancel()


async def seen(printed: bytearray, text: bytes) -> None:
    """Wait until a program has printed ``text``."""
    while text not in printed:  # noqa: ASYNC110 - it is another program that prints
        await trio.sleep(0.01)


@contextlib.asynccontextmanager
async def their_server(
    command: list[str], port: int
) -> AsyncGenerator[tuple[trio.Process, bytearray], None]:
    """Run a server, and wait until it listens."""
    async with their_program(command) as (process, printed):
        # Without connecting, as a server may serve but once.
        while is_free(port):  # noqa: ASYNC110 - it is another program that listens
            await trio.sleep(0.02)
        yield process, printed


def is_free(port: int) -> bool:
    """Whether nobody listens on ``port``."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


# ---- OpenSSL ----------------------------------------------------------------------------------


async def test_openssl_s_client_gets_the_answer_and_a_clean_end(pki: Pki, version: str) -> None:
    handler = Handler()
    async with our_server(pki.server(version), handler) as port:
        out, err = await run(
            [
                find_peer("openssl"), "s_client", "-connect", f"127.0.0.1:{port}",
                "-CAfile", pki.authority, "-verify_return_error", "-servername", "localhost",
                "-ign_eof", f"-tls1_{version[-1]}",
            ],
            REQUEST,
        )  # fmt: skip
        await handler.after_the_end.wait()

    assert ANSWER in out
    assert b"Verification: OK" in out
    assert out.endswith(b"closed\n")  # and not "read:errno=0"
    assert b"error" not in err
    assert handler.rest == b""


@pytest.mark.parametrize(
    ("version", "letter", "says"),
    [("1.3", b"K", b"KEYUPDATE"), ("1.3", b"k", b"KEYUPDATE"), ("1.2", b"R", b"RENEGOTIATING")],
    ids=["update of both keys", "update of its own key", "renegotiation"],
)
async def test_openssl_s_client_changes_keys_while_we_only_read(
    pki: Pki, version: str, letter: bytes, says: bytes
) -> None:
    send, received = trio.open_memory_channel[bytes](10)

    async def handler(stream: TlsStream[TcpStream]) -> None:
        for _ in range(2):
            await send.send(await receive_exactly(stream, len(REQUEST)))
        await stream.write_all(ANSWER)
        await stream.shutdown()
        await stream.receive_some()

    context = pki.server(version)
    context.options |= ALLOW_CLIENT_RENEGOTIATION
    async with our_server(context, handler) as port:
        command = [
            find_peer("openssl"), "s_client", "-connect", f"127.0.0.1:{port}",
            "-CAfile", pki.authority, "-verify_return_error", f"-tls1_{version[-1]}",
        ]  # fmt: skip
        async with their_program(command) as (process, printed):
            assert process.stdin is not None
            await process.stdin.send_all(REQUEST)
            assert await received.receive() == REQUEST
            # A letter is a command if a line, and what is read at once, starts with it.
            await process.stdin.send_all(letter + b"\n")
            await seen(printed, says)
            await process.stdin.send_all(REQUEST)
            assert await received.receive() == REQUEST
            await seen(printed, ANSWER)
            await seen(printed, b"closed\n")


@pytest.mark.parametrize("command_letter", [b"K\n", b"r\n"], ids=["key update", "renegotiation"])
async def test_openssl_s_server_changes_keys_while_we_write(
    pki: Pki, command_letter: bytes
) -> None:
    version = "1.3" if command_letter == b"K\n" else "1.2"
    port = free_port()
    command = [
        find_peer("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-naccept", "1",
        "-cert", pki.chain, "-key", pki.key, "-client_renegotiation",
    ]  # fmt: skip
    async with their_server(command, port) as (process, printed):
        assert process.stdin is not None
        stream = await open_tls_over_tcp_stream("127.0.0.1", port, ssl_context=pki.client(version))
        await stream.write_all(b"before\n")
        await seen(printed, b"before\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_all, stream)
            await process.stdin.send_all(command_letter)
            await stream.write_all(ANSWER)
            await stream.shutdown()
            await seen(printed, b"CONNECTION CLOSED\n")
            nursery.cancel_scope.cancel()
        await stream.aclose()

    # It prints what it is doing in between.
    for noise in (b"SSL_do_handshake -> 1\n", b"Read BLOCK\n"):
        printed[:] = printed.replace(noise, b"")
    assert ANSWER in printed


async def test_openssl_s_server_sees_our_clean_end(pki: Pki, version: str) -> None:
    port = free_port()
    command = [
        find_peer("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-naccept", "1",
        "-cert", pki.chain, "-key", pki.key, "-rev",
    ]  # fmt: skip
    async with their_server(command, port) as (process, printed):
        stream = await open_tls_over_tcp_stream("127.0.0.1", port, ssl_context=pki.client(version))
        await stream.write_all(REQUEST)
        assert await receive_exactly(stream, len(REQUEST)) == REQUEST[-2::-1] + b"\n"
        assert stream.version() == f"TLSv{version}"
        await stream.shutdown()
        await seen(printed, b"CONNECTION CLOSED\n")
        await process.wait()
        await stream.aclose()

    assert b"error" not in printed


# ---- GnuTLS -----------------------------------------------------------------------------------


async def test_gnutls_cli_gets_the_answer_and_a_clean_end(pki: Pki, version: str) -> None:
    async def handler(stream: TlsStream[TcpStream]) -> None:
        assert await receive_exactly(stream, len(REQUEST)) == REQUEST
        await stream.write_all(ANSWER)
        await stream.shutdown()
        # The program just goes when it is told of our end, unless its own input has ended before.
        with contextlib.suppress(trio.BrokenResourceError):
            assert await receive_all(stream) == b""

    async with our_server(pki.server(version), handler) as port:
        command = [
            find_peer("gnutls-cli"), "--x509cafile", pki.authority, "--port", str(port),
            "--priority", f"NORMAL:-VERS-ALL:+VERS-TLS{version}", "localhost",
        ]  # fmt: skip
        out, err = await run(command, REQUEST)

    assert ANSWER in out
    assert b"The certificate is trusted" in out
    assert b"non-properly terminated" not in out + err


async def test_gnutls_serv_echoes_and_ends_cleanly(pki: Pki, version: str) -> None:
    port = free_port()
    command = [
        find_peer("gnutls-serv"), "--echo", "--port", str(port),
        "--x509certfile", pki.chain, "--x509keyfile", pki.key,
        "--priority", f"NORMAL:-VERS-ALL:+VERS-TLS{version}",
    ]  # fmt: skip
    async with their_server(command, port) as (_, printed):
        stream = await open_tls_over_tcp_stream("127.0.0.1", port, ssl_context=pki.client(version))
        await stream.write_all(REQUEST)
        assert await receive_exactly(stream, len(REQUEST)) == REQUEST
        await stream.shutdown()
        assert await receive_all(stream) == b""
        await stream.aclose()

    assert b"rror" not in printed


# ---- HTTP: curl and nginx ---------------------------------------------------------------------


async def test_curl_takes_an_answer_that_only_our_close_notify_ends(pki: Pki, version: str) -> None:
    async def handler(stream: TlsStream[TcpStream]) -> None:
        request = bytearray()
        while not request.endswith(b"\r\n\r\n"):
            request += await stream.receive_some()
        assert request.startswith(b"GET / HTTP/1.1\r\n")
        await stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n" + ANSWER)
        await stream.aclose()

    async with our_server(pki.server(version), handler) as port:
        command = [
            find_peer("curl"), "--cacert", pki.authority, f"--tlsv{version}", "--fail",
            "--silent", "--show-error", f"https://localhost:{port}/",
        ]  # fmt: skip
        # curl 7.88 with OpenSSL 3 fails with status 56 when there is no close_notify.
        out, err = await run(command)

    assert (out, err) == (ANSWER, b"")


async def test_nginx_serves_us_to_its_close_notify(pki: Pki, version: str, tmp_path: Path) -> None:
    nginx = find_peer("nginx")
    port = free_port()
    (tmp_path / "answer").write_bytes(ANSWER)
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"""
        daemon off; master_process off; pid {tmp_path}/pid; error_log stderr;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
            fastcgi_temp_path {tmp_path}/fcgi; uwsgi_temp_path {tmp_path}/uwsgi;
            scgi_temp_path {tmp_path}/scgi;
            server {{
                listen 127.0.0.1:{port} ssl; root {tmp_path};
                ssl_certificate {pki.chain}; ssl_certificate_key {pki.key};
                ssl_protocols TLSv{version};
            }}
        }}
        """
    )
    async with their_server([nginx, "-e", "stderr", "-c", str(config)], port):
        stream = await open_tls_over_tcp_stream("127.0.0.1", port, ssl_context=pki.client(version))
        await stream.write_all(b"GET /answer HTTP/1.0\r\n\r\n")
        response = await receive_all(stream)
        await stream.aclose()

    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body == ANSWER


# ---- Node.js ----------------------------------------------------------------------------------

NODE_CLIENT = """
const [port, ca, request] = process.argv.slice(1);
const socket = require('tls').connect({port, host: '127.0.0.1', servername: 'localhost',
    ca: require('fs').readFileSync(ca), allowHalfOpen: true});
let size = 0;
socket.write(request);
socket.on('data', (chunk) => { size += chunk.length; });
socket.on('end', () => { console.log('end after', size); socket.end(); });
socket.on('close', (failed) => console.log('close', failed));
"""

NODE_SERVER = """
const [port, cert, key] = process.argv.slice(1);
const fs = require('fs');
require('tls').createServer(
    {cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHalfOpen: true}, (socket) => {
        let size = 0;
        socket.on('data', (chunk) => { size += chunk.length; });
        socket.on('end', () => { console.log('end after', size); socket.end('an answer'); });
        socket.on('close', (failed) => { console.log('close', failed); process.exit(); });
    }).listen(Number(port), '127.0.0.1');
"""


async def test_node_reads_our_answer_to_its_end(pki: Pki, version: str) -> None:
    handler = Handler()
    async with our_server(pki.server(version), handler) as port:
        out, err = await run(
            [find_peer("node"), "-e", NODE_CLIENT, str(port), pki.authority, REQUEST.decode()]
        )
        await handler.after_the_end.wait()

    assert out == b"end after %d\nclose false\n" % len(ANSWER)
    assert err == b""
    assert handler.rest == b""


async def test_node_answers_after_our_half_close(pki: Pki, version: str) -> None:
    port = free_port()
    command = [find_peer("node"), "-e", NODE_SERVER, str(port), pki.chain, pki.key]
    async with their_server(command, port) as (process, printed):
        stream = await open_tls_over_tcp_stream("127.0.0.1", port, ssl_context=pki.client(version))
        await stream.write_all(ANSWER)
        await stream.shutdown()
        assert await receive_all(stream) == b"an answer"
        await stream.aclose()
        await process.wait()
        await seen(printed, b"end after %d\nclose false\n" % len(ANSWER))


# ---- Python's own -----------------------------------------------------------------------------


def blocking_client(port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port)) as tcp,
        context.wrap_socket(tcp, server_hostname="localhost", suppress_ragged_eofs=False) as stream,
    ):
        stream.sendall(REQUEST)
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
        stream.unwrap()
        return answer


async def test_a_blocking_client_gets_the_answer_and_a_clean_end(pki: Pki, version: str) -> None:
    handler = Handler()
    async with our_server(pki.server(version), handler) as port:
        answer = await trio.to_thread.run_sync(blocking_client, port, pki.client(version))
        await handler.after_the_end.wait()

    assert answer == ANSWER
    assert handler.rest == b""


@contextlib.contextmanager
def blocking_server(context: ssl.SSLContext) -> Iterator[tuple[int, list[bytes]]]:
    """Echo in a thread what one client sends, once the client has ended properly."""
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        tcp, _ = listener.accept()
        with tcp, context.wrap_socket(tcp, server_side=True, suppress_ragged_eofs=False) as stream:
            received.append(b"".join(iter(lambda: stream.recv(65536), b"")))
            stream.unwrap()

    thread = threading.Thread(target=serve)
    thread.start()
    with listener:
        yield listener.getsockname()[1], received
    thread.join()


async def test_a_blocking_server_gets_everything_and_our_clean_end(pki: Pki, version: str) -> None:
    with blocking_server(pki.server(version)) as (port, received):
        stream = await open_tls_over_tcp_stream("localhost", port, ssl_context=pki.client(version))
        await stream.write_all(ANSWER)
        await stream.shutdown()
        assert await receive_all(stream) == b""
        await stream.aclose()

    assert received == [ANSWER]


async def test_trio_sslstream_gets_the_answer_and_a_clean_end(pki: Pki, version: str) -> None:
    handler = Handler()
    async with our_server(pki.server(version), handler) as port:
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", port, ssl_context=pki.client(version)
        )
        await stream.send_all(REQUEST)
        assert await receive_exactly(stream, len(ANSWER)) == ANSWER
        transport, trailing = await stream.unwrap()
        assert trailing == b""
        await transport.aclose()
        await handler.after_the_end.wait()

    assert handler.rest == b""


async def test_trio_sslstream_serves_us(pki: Pki, version: str) -> None:
    async def handler(stream: trio.SSLStream[trio.SocketStream]) -> None:
        assert await receive_exactly(stream, len(ANSWER)) == ANSWER
        await stream.send_all(REQUEST)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_ssl_over_tcp, handler, 0, pki.server(version), host="127.0.0.1")
        )
        port = listeners[0].transport_listener.socket.getsockname()[1]
        stream = await open_tls_over_tcp_stream("127.0.0.1", port, ssl_context=pki.client(version))
        await stream.write_all(ANSWER)
        assert await receive_all(stream) == REQUEST
        await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_asyncio_gets_the_answer_and_a_clean_end(pki: Pki, version: str) -> None:
    async def client(port: int, context: ssl.SSLContext) -> bytes:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        writer.write(REQUEST)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def handler(stream: TlsStream[TcpStream]) -> None:
        await stream.write_all(ANSWER)
        await stream.shutdown()
        assert await receive_exactly(stream, len(REQUEST)) == REQUEST
        # Before 3.11, asyncio closes without a close_notify of its own once it has had ours.
        with contextlib.suppress(*[trio.BrokenResourceError] * (sys.version_info < (3, 11))):
            assert await receive_all(stream) == b""
        ended.set()

    ended = trio.Event()
    async with our_server(pki.server(version), handler) as port:
        answer = await trio.to_thread.run_sync(
            lambda: asyncio.run(client(port, pki.client(version)))
        )
        await ended.wait()

    assert answer == ANSWER


async def test_asyncio_serves_us(pki: Pki, version: str) -> None:
    ports: list[int] = []
    listening = threading.Event()

    async def serve(context: ssl.SSLContext) -> bytes:
        received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.readexactly(len(ANSWER))
            writer.write(REQUEST)
            writer.close()
            await writer.wait_closed()
            received.set_result(data)

        server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        listening.set()
        data = await received
        server.close()
        await server.wait_closed()
        return data

    async def talk() -> None:
        await trio.to_thread.run_sync(listening.wait)
        stream = await open_tls_over_tcp_stream(
            "127.0.0.1", ports[0], ssl_context=pki.client(version)
        )
        await stream.write_all(ANSWER)
        assert await receive_all(stream) == REQUEST
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        data = await trio.to_thread.run_sync(lambda: asyncio.run(serve(pki.server(version))))

    assert data == ANSWER
