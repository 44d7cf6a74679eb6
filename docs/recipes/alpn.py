"""Agree on a protocol during the handshake (ALPN).

The two contexts say what each side speaks, in the order of its liking, and the handshake finds what
both have. If there is nothing, it goes on without a protocol: look before you send.

Prints::

    offered ['h2', 'http/1.1']: the server chose h2
    offered ['http/1.1']: the server chose http/1.1
    offered ['gopher']: no protocol in common
"""

from __future__ import annotations

import ssl

import trio
import trustme

from trio_asyncwrite import TlsStream, duplex


async def agree(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> str | None:
    left, right = duplex(4096)
    client = TlsStream(left, client_context, server_hostname="localhost")
    server = TlsStream(right, server_context, server_side=True)
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client.selected_alpn_protocol()


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    server_context.set_alpn_protocols(["h2", "http/1.1"])

    for offer in (["h2", "http/1.1"], ["http/1.1"], ["gopher"]):
        client_context = ssl.create_default_context()
        authority.configure_trust(client_context)
        client_context.set_alpn_protocols(offer)
        chosen = await agree(client_context, server_context)
        outcome = f"the server chose {chosen}" if chosen else "no protocol in common"
        print(f"offered {offer}: {outcome}")


if __name__ == "__main__":
    trio.run(main)
