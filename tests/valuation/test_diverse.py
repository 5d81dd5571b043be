"""`select --diverse`: valuable rows that are not all alike."""

import itertools

import numpy as np
import pytest

from headwater.api.choosing import select
from headwater.core.errors import UsageError
from headwater.valuation import diverse as module
from headwater.valuation.diverse import diverse

WORDS = [f"word{i}" for i in range(30)]


def worth_of(chosen: tuple[int, ...], values: np.ndarray, alike: np.ndarray) -> float:
    """The objective, as its formula says it."""
    return float((values - min(0.0, values.min())) @ alike[:, list(chosen)].max(axis=1))


def test_greedy_choice_is_as_good_as_it_must_be_and_lazy_gains_change_nothing():
    dice = np.random.default_rng(0)
    for _ in range(5):
        texts = [" ".join(dice.choice(WORDS[:8], 4)) for _ in range(9)]
        values, alike = dice.normal(size=9), module._similarities(texts)
        best = max(worth_of(some, values, alike) for some in itertools.combinations(range(9), 3))
        found = tuple(diverse(values, texts, 3).tolist())
        assert worth_of(found, values, alike) >= (1 - 1 / np.e) * best
        slow: list[int] = []
        for _ in range(3):
            rest = [i for i in range(9) if i not in slow]
            slow.append(max(rest, key=lambda i: worth_of((*slow, i), values, alike)))
        assert worth_of(found, values, alike) == pytest.approx(worth_of(tuple(slow), values, alike), rel=1e-5)


def test_a_theme_that_is_a_little_better_does_not_take_all_places(tmp_path):
    themes = [WORDS[:10], WORDS[10:20], WORDS[20:]]
    dice = np.random.default_rng(1)
    rows = [{"id": f"r{i}", "text": " ".join(dice.choice(themes[i % 3], 6))} for i in range(45)]
    values = pd_values([1.2 - 0.1 * (i % 3) for i in range(45)])
    plain = select(values, top=6, candidates=rows).ids
    spread = select(values, top=6, diverse=True, candidates=rows).ids
    kinds = {int(name[1:]) % 3 for name in spread}
    assert {int(name[1:]) % 3 for name in plain} == {0}
    assert len(spread) == 6
    assert len(kinds) >= 2
    for wrong in ({"above": 0.0}, {"top": 3, "by": "id"}):
        with pytest.raises(UsageError, match="--diverse"):
            select(values, diverse=True, candidates=rows, **wrong)


def pd_values(numbers: list[float]) -> object:
    """Values in memory."""
    import pyarrow as pa

    from headwater.valuation.values import Values

    return Values(pa.table({"id": [f"r{i}" for i in range(len(numbers))], "value": numbers}))
