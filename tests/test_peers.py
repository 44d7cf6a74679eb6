"""The helper that finds other people's programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ._peers import NO_SKIPS, find_peer


def test_a_peer_is_found_by_its_name() -> None:
    assert Path(find_peer(Path(sys.executable).name)).is_file()


def test_a_missing_peer_skips_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NO_SKIPS, raising=False)

    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        find_peer("no-such-program")


def test_a_missing_peer_fails_the_test_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_SKIPS, "1")

    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        find_peer("no-such-program")
