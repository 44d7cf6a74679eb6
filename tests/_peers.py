"""Other people's programs that the tests talk to."""

from __future__ import annotations

import os
import shutil

import pytest

#: Set by CI: a test that would be skipped for want of a peer fails instead.
NO_SKIPS = "TRIO_ASYNCWRITE_NO_SKIPS"

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
