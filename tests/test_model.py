"""Random stacks, tasks and peers keep the laws: see ``_model.py``.

A seed that fails prints its script; ``pytest tests/test_model.py -k seed0123`` plays it again, and
needs ``-m slow`` from seed 300 on.
"""

from __future__ import annotations

import pytest

from ._model import play

ORDINARY = 300
SEEDS = [
    pytest.param(seed, id=f"seed{seed:04}", marks=[pytest.mark.slow] * (seed >= ORDINARY))
    for seed in range(ORDINARY + 2000)
]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_laws_hold(seed: int) -> None:
    run = play(seed)
    assert not run.faults, "\n".join([*run.faults, f"seed {seed}:", *run.script])
