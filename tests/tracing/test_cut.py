"""The cut's calibration, simulated: at least the stated share of the rows above it is right."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.core.errors import UsageError
from headwater.tracing.cut import choose_rows, margins, null_margins, standardised

ROWS, QUERIES, TOPICS = 1500, 60, 30


def world(rng, planted, strength):
    """Scores as in a real index: each row has a topic, each query raises the rows of its own, hubs raise all scores."""
    topic, hub = rng.integers(TOPICS, size=ROWS), rng.gamma(2, 0.3, ROWS)
    asked = rng.integers(TOPICS, size=QUERIES)
    related = topic[:, None] == asked
    clean = hub[:, None] + rng.normal(size=(ROWS, QUERIES)) + related * rng.gamma(3, 1, (ROWS, QUERIES))
    bad = np.arange(ROWS) < planted
    odd = 3 * (hub + rng.normal(size=ROWS) + bad * rng.gamma(4, strength, ROWS)) + 7
    return odd, clean, ~related, bad


def test_the_stated_precision_holds_on_average():
    rng = np.random.default_rng(0)
    right, counts = [], []
    for _ in range(60):
        odd, clean, unrelated, bad = world(rng, planted=120, strength=2.0)
        cut = choose_rows(odd, clean, unrelated, precision=0.9)
        if len(cut.chosen):
            right.append(bad[cut.chosen].mean())
            counts.append(len(cut.chosen))
            assert cut.expected >= 0.9
    assert len(right) >= 55
    assert np.mean(right) >= 0.9
    assert np.median(counts) >= 40, "a third of the planted rows or more"
    looser = choose_rows(odd, clean, unrelated, precision=0.6)
    assert len(looser.chosen) >= len(cut.chosen)


def test_nothing_is_chosen_where_nothing_stands_out():
    rng = np.random.default_rng(1)
    chosen = [len(choose_rows(*world(rng, 0, 0.0)[:3], precision=0.9).chosen) for _ in range(40)]
    assert np.mean([count > 0 for count in chosen]) <= 0.2, "0.1 in expectation"


def test_scale_and_offset_of_a_query_do_not_matter_and_hubs_are_not_chosen():
    rng = np.random.default_rng(2)
    odd, clean, unrelated, _ = world(rng, 100, 2.0)
    cut = choose_rows(odd, clean, unrelated, precision=0.9)
    again = choose_rows(5 * odd - 3, clean * rng.uniform(1, 9, QUERIES), unrelated, precision=0.9)
    assert again.chosen.tolist() == cut.chosen.tolist()
    hub = clean.mean(axis=1)
    assert not choose_rows(hub + 0.1 * rng.normal(size=ROWS), clean, unrelated, precision=0.9).chosen.size


def test_a_slow_loop_gives_the_same_margins():
    rng = np.random.default_rng(3)
    odd, clean = rng.normal(size=30), rng.normal(size=(30, 9))
    clean[4, 2] = np.nan
    unit = standardised(clean)
    expected = [standardised(odd[:, None])[r, 0] - max(u for u in unit[r] if np.isfinite(u)) for r in range(30)]
    np.testing.assert_allclose(margins(odd, clean), expected)
    unrelated = rng.random((30, 9)) < 0.7
    null = [
        unit[r, c] - max(unit[r, d] for d in range(9) if d != c and np.isfinite(unit[r, d]))
        for r in range(30)
        for c in range(9)
        if unrelated[r, c] and np.isfinite(unit[r, c])
    ]
    np.testing.assert_allclose(null_margins(clean, unrelated), null)


def test_what_cannot_be_cut_is_refused():
    odd, clean, unrelated, _ = world(np.random.default_rng(4), 10, 1.0)
    for precision in (0.0, 1.0):
        with pytest.raises(UsageError, match="expected precision"):
            choose_rows(odd, clean, unrelated, precision=precision)
    with pytest.raises(UsageError, match="too few for a null"):
        choose_rows(odd, clean[:, :7], unrelated[:, :7], precision=0.9)
