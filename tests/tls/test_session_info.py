"""What a TLS stream tells of its session: the same as trio.SSLStream."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import TlsStream

from .._tls_helpers import (
    HOST,
    TLS13,
    VERSIONS,
    both,
    client_context,
    find_hangs,
    memory_pair,
    new_client_context,
    new_server_context,
    open_tls,
    over,
)

if TYPE_CHECKING:
    Tls = TlsStream[Any]

both_kinds = pytest.mark.parametrize("kind", [TlsStream, trio.SSLStream], ids=["ours", "trio's"])
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])


AFTER_HANDSHAKE = (
    "cipher",
    "compression",
    "get_channel_binding",
    "getpeercert",
    "selected_alpn_protocol",
    "selected_npn_protocol",
    "shared_ciphers",
    "version",
)


@both_kinds
async def test_attributes_before_the_handshake(kind: Any) -> None:
    transport, _ = await memory_pair()
    stream = kind(transport, client_context(), server_hostname=HOST)
    assert stream.transport_stream is transport
    assert stream.context is client_context()
    assert stream.server_side is False
    assert stream.server_hostname == HOST
    assert stream.session is None
    assert stream.pending() == 0
    assert stream._ssl_object.server_hostname == HOST
    assert getattr(stream, "ssl_object", stream._ssl_object) is stream._ssl_object
    for name in AFTER_HANDSHAKE:
        with pytest.raises(trio.NeedHandshakeError, match=name):
            getattr(stream, name)()
    with pytest.raises(trio.NeedHandshakeError, match="session_reused"):
        stream.session_reused  # noqa: B018
    with pytest.raises(AttributeError):
        stream.no_such_attribute  # noqa: B018
    for name in ("server_side", "server_hostname"):
        with pytest.raises(AttributeError):
            setattr(stream, name, 1)
    assert {*AFTER_HANDSHAKE, "context", "session", "transport_stream"} <= set(dir(stream))


@both_kinds
async def test_the_context_can_be_replaced_before_the_handshake(kind: Any) -> None:
    """As an SNI callback does: here by one that trusts nobody."""
    client, server = over(await memory_pair(), kind=kind)
    distrustful = ssl.create_default_context()
    client.context = distrustful
    assert client.context is distrustful

    async def fails(stream: Any) -> None:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.do_handshake()
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        await trio.aclose_forcefully(stream)

    await both(partial(fails, client), partial(fails, server))


@both_kinds
@both_versions
async def test_attributes_after_the_handshake(kind: Any, version: ssl.TLSVersion) -> None:
    client_side, server_side = new_client_context(version), new_server_context(version)
    for context in (client_side, server_side):
        context.set_alpn_protocols(["echo"])
    client, server = await open_tls(memory_pair, kind=kind, client=client_side, server=server_side)
    for stream in (client, server):
        assert stream.version() == ("TLSv1.3" if version is TLS13 else "TLSv1.2")
        assert stream.cipher()[1] in {"TLSv1.3", "TLSv1.2"}
        assert stream.compression() is None
        assert stream.selected_alpn_protocol() == "echo"
        assert stream.session_reused is False
        assert stream.pending() == 0
    assert client.get_channel_binding() == server.get_channel_binding()
    assert client.get_channel_binding("tls-unique")
    assert server.getpeercert() is None
    assert ("DNS", HOST) in client.getpeercert()["subjectAltName"]
    assert isinstance(client.getpeercert(binary_form=True), bytes)
    assert isinstance(client.getpeercert(True), bytes)
    assert len(server.shared_ciphers()) > 0
    await client.send_all(b"four")
    assert await server.receive_some(1) == b"f"
    assert server.pending() == 3
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


@both_kinds
@pytest.mark.filterwarnings("ignore:.*NPN is deprecated")
async def test_alpn_and_npn_when_nobody_wants_them(kind: Any) -> None:
    client, server = await open_tls(memory_pair, kind=kind)
    for stream in (client, server):
        assert stream.selected_alpn_protocol() is None
        assert stream.selected_npn_protocol() is None
        await trio.aclose_forcefully(stream)


find_hangs(globals())
