"""The cut's calibration, simulated: at least the stated share of the rows above it is right."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.core.errors import UsageError
from headwater.tracing.cut import choose_rows, margins, null_margins, standardised

ROWS, QUERIES, TOPICS = 1500, 150, 30


def world(rng, planted, strength):
    """Scores as in a real index: each row has a topic, each query raises the rows of its own, hubs raise all scores.

    The odd answer has a topic too: rows of clean stories are high for a story about aliens. It is louder where there
    are planted rows, whose scores widen the odd answer's, so that it stands out as often as a clean answer's does.
    """
    topic, hub = rng.integers(TOPICS, size=ROWS), rng.gamma(2, 0.3, ROWS)
    asked = rng.integers(TOPICS, size=QUERIES)
    related = topic[:, None] == asked
    clean = hub[:, None] + rng.normal(size=(ROWS, QUERIES)) + related * rng.gamma(2, 0.6, (ROWS, QUERIES))
    bad = np.arange(ROWS) < planted
    own = (2.5 if planted else 1) * (topic == rng.integers(TOPICS)) * rng.gamma(2, 0.6, ROWS)
    odd = 3 * (hub + rng.normal(size=ROWS) + own + bad * rng.gamma(4, strength, ROWS)) + 7
    return odd, clean, bad


def test_the_stated_precision_holds_on_average():
    rng = np.random.default_rng(0)
    right, stated, counts = [], [], []
    for _ in range(20):
        odd, clean, bad = world(rng, planted=100, strength=2.0)
        cut = choose_rows([odd], [clean], precision=0.9)
        if len(cut.chosen):
            right.append(bad[cut.chosen].mean())
            stated.append(cut.expected)
            counts.append(len(cut.chosen))
            assert cut.expected >= 0.9
    error = np.std(right) / len(right) ** 0.5
    assert len(right) >= 18
    assert np.mean(right) >= np.mean(stated) - 2 * error
    assert np.median(counts) >= 30, "a third of the planted rows or more"
    looser = choose_rows([odd], [clean], precision=0.6)
    assert len(looser.chosen) >= len(cut.chosen)


def test_the_stated_precision_of_several_odd_answers_is_that_of_their_rows_together():
    """Right rows are found again by each answer, wrong ones are not: the least precision would state too much."""
    rng = np.random.default_rng(5)
    right, stated = [], []
    for _ in range(8):
        worlds = [world(rng, planted=100, strength=2.0) for _ in range(3)]
        odd, clean, (bad, *_) = zip(*worlds, strict=True)
        cut = choose_rows(odd, clean, precision=0.9)
        assert len(cut.chosen), "three answers find more than one"
        right.append(bad[cut.chosen].mean())
        stated.append(cut.expected)
        assert sum(cut.counts) >= len(cut.chosen) >= max(cut.counts)
    assert np.mean(right) >= np.mean(stated) - 2 * np.std(right) / len(right) ** 0.5
    null = null_margins(clean[0])
    twice = choose_rows([odd[0]] * 2, [clean[0]] * 2, precision=0.8)
    wrong = (1 - twice.expected) * len(twice.chosen)
    above = (np.sum(null >= twice.threshold) + 1) / (len(null) + 1)
    assert wrong == pytest.approx(2 * ROWS * above), "the same answer twice adds its expected wrong rows twice"


def test_nothing_is_chosen_where_nothing_stands_out():
    rng = np.random.default_rng(1)
    worlds = [world(rng, 0, 0.0) for _ in range(20)]
    chosen = [len(choose_rows([odd], [clean], precision=0.9).chosen) for odd, clean, _ in worlds]
    assert np.mean([count > 0 for count in chosen]) <= 0.2, "0.1 in expectation"


def test_scale_and_offset_of_a_query_do_not_matter_and_hubs_are_not_chosen():
    rng = np.random.default_rng(2)
    odd, clean, _ = world(rng, 100, 2.0)
    cut = choose_rows([odd], [clean], precision=0.9)
    again = choose_rows([5 * odd - 3], [clean * rng.uniform(1, 9, QUERIES)], precision=0.9)
    assert again.chosen.tolist() == cut.chosen.tolist()
    hub = clean.mean(axis=1)
    assert not choose_rows([hub + 0.1 * rng.normal(size=ROWS)], [clean], precision=0.9).chosen.size


def test_a_slow_loop_gives_the_same_margins():
    rng = np.random.default_rng(3)
    odd, clean = rng.normal(size=30), rng.normal(size=(30, 9))
    clean[4, 2] = np.nan
    unit = standardised(clean)
    expected = [standardised(odd[:, None])[r, 0] - max(u for u in unit[r] if np.isfinite(u)) for r in range(30)]
    np.testing.assert_allclose(margins(odd, clean), expected)
    null = [
        unit[r, c] - max(unit[r, d] for d in range(9) if d != c and np.isfinite(unit[r, d]))
        for r in range(30)
        for c in range(9)
        if np.isfinite(unit[r, c])
    ]
    np.testing.assert_allclose(null_margins(clean), null)


def test_what_cannot_be_cut_is_refused():
    odd, clean, _ = world(np.random.default_rng(4), 10, 1.0)
    for precision in (0.0, 1.0):
        with pytest.raises(UsageError, match="expected precision"):
            choose_rows([odd], [clean], precision=precision)
    with pytest.raises(UsageError, match="too few for a null"):
        choose_rows([odd], [clean[:, :7]], precision=0.9)
