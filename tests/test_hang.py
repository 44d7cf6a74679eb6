"""The limit for tests that hang."""

from __future__ import annotations

import signal
import sys

import pytest
import trio

from ._hang import hang_limit
from ._patience import wait_all_tasks_blocked

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGALRM")

failed = pytest.raises(pytest.fail.Exception, match="it hung: interrupted after 600 seconds")

pytestmark = pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="Ctrl-C is ignored: a background job"
)


def test_every_test_runs_under_the_limit_of_the_configuration(
    pytestconfig: pytest.Config,
) -> None:
    limit = float(pytestconfig.getini("faulthandler_timeout"))
    left, _ = signal.getitimer(signal.ITIMER_REAL)

    assert 0 < left <= limit + 1


def test_a_loop_without_end_is_interrupted() -> None:
    with failed, hang_limit(600):
        signal.raise_signal(signal.SIGALRM)
        pytest.fail("it was not interrupted")


def test_a_trio_run_that_hangs_is_cancelled_and_cleans_up() -> None:
    cleaned_up = False

    async def hang() -> None:
        nonlocal cleaned_up
        try:
            await trio.sleep_forever()
        finally:
            cleaned_up = True

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            await wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGALRM)

    with failed, hang_limit(600):
        trio.run(main)

    assert cleaned_up


def test_other_failures_pass_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), hang_limit(600):
        raise ZeroDivisionError


def test_the_limit_of_the_test_is_there_again_after_one_of_a_block() -> None:
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)

    with hang_limit(600):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > before[1][0]

    after = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    assert after[0] is before[0]
    assert 0 < after[1][0] <= before[1][0]
