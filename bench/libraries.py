"""How each library is started, makes a stream of a connected socket, and closes it.

The stream is TLS, its handshake complete, where the workload has it.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import trio
from harness import client_context
from receiver import HOST

from trio_asyncwrite import TcpStream, TlsStream

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from harness import Run


# ---- Starting ------------------------------------------------------------------------------


def call(main: Callable[[Run], None], run: Run) -> None:
    main(run)


def trio_run(main: Callable[[Run], Any], run: Run) -> None:
    trio.run(main, run)


def asyncio_run(main: Callable[[Run], Any], run: Run) -> None:
    asyncio.run(main(run))


def uvloop_run(main: Callable[[Run], Any], run: Run) -> None:
    import uvloop  # noqa: PLC0415 - it may not be installed

    uvloop.run(main(run))


def aiofastnet_run(main: Callable[[Run], Any], run: Run) -> None:
    import aiofastnet  # noqa: PLC0415 - likewise

    async def patched() -> None:
        aiofastnet.patch_loop()
        await main(run)

    asyncio.run(patched())


def fastnet_over_uvloop(main: Callable[[Run], Any], run: Run) -> None:
    import aiofastnet  # noqa: PLC0415 - likewise
    import uvloop  # noqa: PLC0415

    async def patched() -> None:
        aiofastnet.patch_loop()
        await main(run)

    uvloop.run(patched())


# ---- Opening and closing -------------------------------------------------------------------


async def open_ours(run: Run) -> TcpStream | TlsStream[TcpStream]:
    tcp = TcpStream(trio.socket.from_stdlib_socket(run.connect()))
    if not run.workload.tls:
        return tcp
    tls = TlsStream(tcp, client_context(), server_hostname=HOST)
    await tls.do_handshake()
    return tls


async def open_trio(run: Run) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    tcp = trio.SocketStream(trio.socket.from_stdlib_socket(run.connect()))
    if not run.workload.tls:
        return tcp
    tls = trio.SSLStream(tcp, client_context(), server_hostname=HOST)
    await tls.do_handshake()
    return tls


async def open_anyio(run: Run) -> Any:
    from anyio.abc import SocketStream  # noqa: PLC0415 - it may not be installed
    from anyio.streams.tls import TLSStream  # noqa: PLC0415

    tcp = await SocketStream.from_socket(run.connect())
    if not run.workload.tls:
        return tcp
    return await TLSStream.wrap(tcp, hostname=HOST, ssl_context=client_context())


async def open_reader_writer(run: Run) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context, name = (client_context(), HOST) if run.workload.tls else (None, None)
    return await asyncio.open_connection(sock=run.connect(), ssl=context, server_hostname=name)


async def open_writer(run: Run) -> asyncio.StreamWriter:
    return (await open_reader_writer(run))[1]


def open_socket(run: Run) -> socket.socket:
    sock = run.connect()
    return client_context().wrap_socket(sock, server_hostname=HOST) if run.workload.tls else sock


async def aclose(stream: Any) -> None:
    await stream.aclose()


async def close_writer(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def close_socket(sock: Any) -> None:
    if isinstance(sock, ssl.SSLSocket):
        sock = sock.unwrap()
    sock.close()
