"""Trio's order of tasks, which is random, made to depend on a seed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from trio._core import _run as trio_run

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def scheduled_by(seed: int) -> Generator[None, None, None]:
    """Let the order of tasks depend on ``seed`` alone."""
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before[0]
        trio_run._r.setstate(before[1])
