"""Other people's programs that the tests talk to."""

from __future__ import annotations

import os
import shutil
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

if TYPE_CHECKING:
    from pathlib import Path

#: Set by CI: a test that would be skipped for want of a peer fails instead.
NO_SKIPS = "TRIO_ASYNCWRITE_NO_SKIPS"

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

# Debian keeps servers where an ordinary user's PATH does not look.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def find_peer(program: str) -> str:
    """The path of ``program``; without it the calling test is skipped, and fails on CI."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        missing(f"no {program} on this machine")
    return found


def missing(reason: str) -> None:
    """Skip the calling test for ``reason``; fail it on CI."""
    if os.environ.get(NO_SKIPS):
        pytest.fail(f"{reason}, and {NO_SKIPS} is set")
    pytest.skip(reason)


class Pki:
    """A certificate authority and a server's certificate, as contexts and as files."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self._leaf = self._authority.issue_cert("localhost", "127.0.0.1")
        self.authority = str(folder / "ca.pem")
        self.chain = str(folder / "chain.pem")
        self.key = str(folder / "key.pem")
        self._authority.cert_pem.write_to_path(self.authority)
        self._leaf.private_key_pem.write_to_path(self.key)
        for blob in self._leaf.cert_chain_pems:
            blob.write_to_path(self.chain, append=True)

    def client(self, version: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        context.minimum_version = context.maximum_version = VERSIONS[version]
        return context

    def server(self, version: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._leaf.configure_cert(context)
        context.minimum_version = context.maximum_version = VERSIONS[version]
        return context
