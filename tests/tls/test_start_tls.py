"""From plain text to TLS, and back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufWriter,
    ReadWritePair,
    TlsStream,
    duplex,
    start_tls,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._patience import wait_all_tasks_blocked
from .._streams import drain
from .._tls_helpers import (
    HOST,
    TLS13,
    VERSIONS,
    alone,
    both,
    client_context,
    find_hangs,
    memory_pair,
    read_exactly,
    server_context,
)

if TYPE_CHECKING:
    import ssl

    Tls = TlsStream[Any]

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])


@both_versions
async def test_start_tls_and_back(version: ssl.TLSVersion) -> None:
    left, right = duplex(4096)

    async def client() -> None:
        await left.send_all(b"STARTTLS\n")
        assert await left.receive_some() == b"GO\n"
        async with await start_tls(left, client_context(version), server_hostname=HOST) as tls:
            await tls.send_all(b"secret")
            assert await tls.receive_some() == b""
            plain, trailing = await tls.unwrap()
            assert plain is left
            trailing += await read_exactly(plain, 5 - len(trailing))
            assert trailing == b"plain"
        await left.send_all(b"open still")

    async def server() -> None:
        # What comes behind the request belongs to TLS.
        received = await read_exactly(right, 9)
        assert received == b"STARTTLS\n"
        await right.send_all(b"GO\n")
        early = await right.receive_some()
        tls = await start_tls(right, server_context(version), server_side=True, received=early)
        assert await tls.receive_some() == b"secret"
        plain, trailing = await tls.unwrap()
        assert trailing == b""
        await plain.send_all(b"plain")
        assert await plain.receive_some() == b"open still"

    await both(client, server)


async def test_start_tls_refuses_unsent_plain_text() -> None:
    """It would come out in the middle of the handshake."""
    left, _ = duplex(4096)
    writer = BufWriter(left)
    await writer.write(b"STARTTLS\n")
    stream = ReadWritePair(left, writer)
    with pytest.raises(ValueError, match="9 bytes of unsent plain text"):
        await start_tls(stream, client_context(TLS13), server_hostname=HOST)
    await stream.flush()
    assert stream.unsent_bytes == 0


async def test_start_tls_arguments() -> None:
    left, right = await memory_pair()
    with pytest.raises(TypeError):
        await start_tls(left, client_context(), server_hostname=HOST, received="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="server_hostname"):
        await start_tls(left, client_context())
    client = await _started(
        partial(start_tls, left, client_context(), server_hostname=HOST, https_compatible=True),
        partial(start_tls, right, server_context(), server_side=True, received=memoryview(b"")),
    )
    assert client._https_compatible


async def _started(client: Any, server: Any) -> Tls:
    streams = []

    async def run(start: Any) -> None:
        streams.append(await start())

    await both(partial(run, client), partial(run, server))
    return next(stream for stream in streams if not stream.server_side)


async def test_a_failed_start_tls_closes_the_connection() -> None:
    left, right = duplex(4096)
    await right.send_all(b"500 what?\n")
    with pytest.raises(trio.BrokenResourceError, match="(?i)wrong version"):
        await start_tls(left, client_context(), server_hostname=HOST)
    with pytest.raises(trio.ClosedResourceError):
        await left.send_all(b"x")
    assert (await drain(right))[-7:-5] == b"\x15\x03"


async def test_start_tls_cancelled_anywhere() -> None:
    """The connection is closed, and its peer sees no clean end."""

    async def scenario(sweep: Sweep) -> None:
        left, right = duplex(512)
        tls: Tls | None = None
        failed = False

        async def serve() -> None:
            nonlocal failed
            server = alone(right)
            try:
                assert await server.receive_some() == b"through"
            except trio.BrokenResourceError:
                failed = True
            await trio.aclose_forcefully(server)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with sweep:
                tls = await start_tls(left, client_context(), server_hostname=HOST)
            if tls is not None:
                await tls.send_all(b"through")
                await tls.aclose()
            else:
                with pytest.raises(trio.ClosedResourceError):
                    await left.send_all(b"x")
        assert failed == (tls is None)

    await cancel_everywhere(scenario)


find_hangs(globals())


@pytest.mark.parametrize("back", [False, True], ids=["start_tls", "unwrap"])
async def test_a_buf_that_was_begun_above_is_finished_first(*, back: bool) -> None:
    """Its layer is closed with the change; nobody would know that something is missing."""
    left, right = duplex(10)
    client: Any = alone(left, server_side=False) if back else left
    above = ReadWritePair(client, client)
    buf = Buf(bytes(100_000))
    async with trio.open_nursery() as nursery:
        if back:
            server = alone(right)
            nursery.start_soon(server.do_handshake)
            await client.do_handshake()
        run = nursery.cancel_scope
        nursery.start_soon(above.write_all_buf, buf)
        await wait_all_tasks_blocked()
        run.cancel()
    assert 0 < buf.remaining < 100_000
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        if back:
            await client.unwrap()
        else:
            await start_tls(left, client_context(TLS13), server_hostname=HOST)
    assert not above.closed
    with pytest.warns(ResourceWarning, match="was closed: "):
        await trio.aclose_forcefully(left)
