"""The name that is sent and checked: without the parts that no certificate has."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from trio_asyncwrite import TlsStream, duplex, open_tls_over_tcp_stream, start_tls
from trio_asyncwrite._tls._server_name import server_name

from .._tls_helpers import (
    HOST,
    TLS12,
    TLS13,
    both,
    certificate,
    find_hangs,
    new_client_context,
    new_server_context,
)

LONG = "x" * 63
LONG_UNICODE = "ß" * 63


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (None, None),
        ("example.org", "example.org"),
        ("example.org.", "example.org"),
        (b"example.org.", "example.org"),
        (bytearray(b"example.org"), "example.org"),
        ("localhost.", "localhost"),
        ("faß.de", "xn--fa-hia.de"),  # IDNA 2003: fass.de, which is somebody else's
        ("faß.de.", "xn--fa-hia.de"),
        ("faß。de。", "xn--fa-hia.de"),
        ("my_host", "my_host"),
        (f"{LONG}.org", f"{LONG}.org"),
        (f"{LONG}.{LONG}.{LONG}.{LONG[:61]}.", f"{LONG}.{LONG}.{LONG}.{LONG[:61]}"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        (b"fe80::1%eth0", "fe80::1"),
        ("fe80::1%3", "fe80::1"),
        ("fe80::1%größer.", "fe80::1"),
        ("fe80::g", "fe80::g"),  # no address
    ],
    ids=repr,
)
def test_the_name_that_certificates_have(host: Any, name: str | None) -> None:
    assert server_name(host) == name


REFUSED: dict[Any, str] = {
    "": "is empty",
    b"": "is empty",
    ".": "is empty",
    "。": "is empty",
    "..": "empty label",
    "a..b": "empty label",
    ".example.org": "empty label",
    "example.org..": "empty label",
    "ä..de": "empty label",
    f"a.{LONG}x.org": f"label '{LONG}x' is longer than 63",
    f"{LONG}x": f"label '{LONG}x' is longer than 63",
    f"a.{LONG_UNICODE}.org": f"label '{LONG_UNICODE}': ",
    "a.ä_b.org": "label 'ä_b': ",
    "\ud800.org": "server name",
    f"{LONG}.{LONG}.{LONG}.{LONG[:62]}": "longer than 253",
    b"fa\xdf.de": "bytes must be ASCII",
    "a\0b": "null byte",
}
refused = pytest.mark.parametrize("host", REFUSED, ids=ascii)


@refused
def test_a_name_that_no_certificate_can_be_valid_for(host: Any) -> None:
    """It is a plain ValueError: UnicodeError is one, too, and names no label."""
    with pytest.raises(ValueError, match=REFUSED[host]) as caught:
        server_name(host)
    assert type(caught.value) is ValueError


def test_a_name_is_str_or_bytes() -> None:
    for wrong in (3, ["example.org"], memoryview(b"example.org")):
        with pytest.raises(TypeError, match="expected a server name"):
            server_name(wrong)  # type: ignore[arg-type]


@refused
async def test_all_ways_in_refuse_it_before_anything_happens(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = new_client_context()
    transport, peer = duplex(4096)
    with pytest.raises(ValueError, match=REFUSED[host]):
        TlsStream(transport, context, server_hostname=host)
    with pytest.raises(ValueError, match=REFUSED[host]):
        await start_tls(transport, context, server_hostname=host)
    await transport.send_all(b"still open")
    assert await peer.receive_some() == b"still open"

    def connect(*args: object, **kwargs: object) -> None:
        raise AssertionError("it has connected")

    monkeypatch.setattr("trio_asyncwrite._tls._over_tcp.open_tcp_stream", connect)
    with pytest.raises(ValueError, match=REFUSED[host]):
        await open_tls_over_tcp_stream(host, 443, ssl_context=context)
    for stream in (transport, peer):
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    ("host", "name"),
    [
        (f"{HOST}.", HOST),
        (f"{HOST}.".encode(), HOST),
        ("fe80::1%eth0", "fe80::1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("faß.de.", "xn--fa-hia.de"),
    ],
    ids=ascii,
)
async def test_the_bare_name_is_checked_and_sent(host: Any, name: str, version: Any) -> None:
    """An address is checked, but not sent (RFC 6066, section 3)."""
    server_side = new_server_context(version)
    certificate(name).configure_cert(server_side)
    heard: list[str | None] = []
    server_side.sni_callback = lambda _object, sent, _context: heard.append(sent)
    left, right = memory_stream_pair()
    client = TlsStream(left, new_client_context(version), server_hostname=host)
    server = TlsStream(right, server_side, server_side=True)
    await both(client.do_handshake, server.do_handshake)
    assert client.server_hostname == name
    assert heard == [None if name[-1].isdigit() else name]
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


find_hangs(globals())
