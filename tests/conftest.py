"""What every test runs under."""

from __future__ import annotations

import gc
import itertools
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest
import trio.testing

from ._hang import hang_limit
from ._patience import jumping_clock

if TYPE_CHECKING:
    from collections.abc import Generator


# The same examples at every run; no clock decides over success.
hypothesis.settings.register_profile("project", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("project")


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """pytest-trio's, but patient where there are real sockets."""
    return jumping_clock()


@pytest.fixture
def impatient_clock() -> trio.testing.MockClock:
    """It never waits for the network: for tests that would take the kernel's work for progress."""
    return trio.testing.MockClock(autojump_threshold=0)


#: The tests since what was there was last left out of every later collection.
tests_since_freeze = itertools.count(1)


def pytest_collection_finish() -> None:
    """Leave what there is now out of every later collection: many tests make one."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown() -> None:
    """Leave out what pytest keeps of each test, too: its reports made a collection 30 times slower.

    Only what is in use: garbage among it would never be found, nor what its finalisers say.
    """
    if next(tests_since_freeze) % 100 == 0:
        gc.collect()
        gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that hangs, after faulthandler has printed where."""
    seconds = float(item.config.getini("faulthandler_timeout") or 0)
    if not seconds or not hasattr(signal, "SIGALRM"):
        return (yield)
    with hang_limit(seconds + 1):
        return (yield)
