"""Views against an oracle; the mapping's laws; files that people edit."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import DataError, MismatchError, NumericError, UsageError
from headwater.data.rows import Row
from headwater.unlearning.mapping import FORGET, Mapping, map_scores
from headwater.unlearning.views import Influence, make_views
from headwater.unlearning.weights import influence_weights, uniform_weights
from headwater.unlearning.weights_file import load_weights, save_weights
from oracles.unlearning_oracles import naive_view, published_weights

FINITE = st.floats(-50, 50, allow_nan=False).map(lambda x: round(x, 6))
SCORES = st.lists(FINITE, min_size=1, max_size=40).map(np.array)


def influence(forget: int = 5, retain: int = 7, seed: int = 0) -> Influence:
    rng = np.random.default_rng(seed)
    return Influence(rng.normal(size=(forget + retain, forget + retain)), forget)


def rows(prefix: str, count: int) -> list[Row]:
    return [Row(f"{prefix}{i}", i, prompt=f"{prefix} {i}?", response=f"Answer {i}.") for i in range(count)]


@pytest.mark.parametrize("k", [None, 1, 3, 40])
@pytest.mark.parametrize("exclude_self", [True, False])
def test_views_equal_plain_loops(k, exclude_self):
    made = influence()
    views = make_views(made, k=k, exclude_self=exclude_self)
    f, values = made.forget, made.values
    blocks = {
        "ff": (values[:f, :f], exclude_self),
        "fr": (values[:f, f:], False),
        "rf": (values[f:, :f], False),
        "rr": (values[f:, f:], exclude_self),
    }
    for name, (block, skip) in blocks.items():
        np.testing.assert_allclose(getattr(views, name), naive_view(block.tolist(), k=k, skip_self=skip))
    np.testing.assert_allclose(views.forget, views.ff - views.fr)
    np.testing.assert_allclose(views.retain, views.rr - views.rf)


def test_a_row_that_drives_the_poison_alone_scores_highest():
    vectors = np.array([[1, 0], [1, 0.1], [0.1, 1], [0, 1], [0, 1.0], [0.1, 1]])
    views = make_views(Influence(vectors @ vectors.T, 3))
    assert views.forget.argmin() == 2, "the forget row that points at the retain rows weighs least"


def test_influence_needs_both_kinds_of_rows_and_finite_values():
    with pytest.raises(DataError, match="forget and one retain"):
        Influence(np.eye(3), 3)
    with pytest.raises(NumericError, match="row 1 on row 2"):
        Influence(np.where(np.arange(9).reshape(3, 3) == 5, np.nan, 1.0), 1)
    with pytest.raises(UsageError, match="k = 0"):
        make_views(influence(), k=0)


def test_a_hand_computed_example():
    # median 2, MAD 1, so z = (S - 2) / 1.4826; τ = 1: w = exp(z), clipped to [0.2, 3].
    scores = np.array([0.0, 1.0, 2.0, 3.0, 8.0])
    mapped = map_scores(scores, Mapping(tau=1.0, compat=True))
    np.testing.assert_allclose(mapped.z, [-1.348982, -0.674491, 0.0, 0.674491, 4.046945], rtol=1e-6)
    clipped = [0.259504, 0.509416, 1.0, 1.963034, 3.0]
    np.testing.assert_allclose(mapped.weights, np.array(clipped) / (sum(clipped) / 5), rtol=1e-5)
    assert (mapped.at_low, mapped.at_high) == (0, 1)


@given(SCORES, st.sampled_from([0.7, 1.2]))
def test_compat_is_the_published_order(scores, tau):
    mapped = map_scores(scores, Mapping(tau=tau, compat=True))
    np.testing.assert_allclose(mapped.weights, published_weights(scores.tolist(), tau=tau), rtol=1e-9)


@given(SCORES)
def test_weights_are_monotone_bounded_and_have_mean_one(scores):
    mapped = map_scores(scores, FORGET)
    assert mapped.weights.mean() == pytest.approx(1, abs=1e-9)
    assert mapped.weights.min() >= FORGET.low * (1 - 1e-12)
    assert mapped.weights.max() <= FORGET.high * (1 + 1e-12)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(mapped.weights[order]) >= -1e-12).all()


@settings(max_examples=60)
@given(SCORES, st.floats(-100, 100), st.floats(0.01, 100))
def test_weights_do_not_change_under_shift_and_scale(scores, shift, scale):
    plain = map_scores(scores, FORGET).weights
    if np.ptp(scores) > 1e-3:  # below, the shift's rounding is all there is to see
        np.testing.assert_allclose(map_scores(scores * scale + shift, FORGET).weights, plain, rtol=1e-4)


def test_equal_scores_get_weight_one_and_no_scores_are_refused():
    np.testing.assert_allclose(map_scores(np.full(4, 7.0), FORGET).weights, 1)
    with pytest.raises(NumericError):
        map_scores(np.array([]), FORGET)
    with pytest.raises(UsageError, match="τ > 0"):
        Mapping(tau=0.0)


def test_truncation_collapses_the_published_retain_weights_and_not_ours():
    made = influence(forget=40, retain=120, seed=3)
    forget, retain = rows("f", 40), rows("r", 120)
    published = influence_weights(made, forget, retain, compat=True)
    ours = influence_weights(made, forget, retain)
    assert len({round(w, 6) for w in published.of("retain")}) <= 4
    assert len({round(w, 6) for w in ours.of("retain")}) > 60


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_gives_back_what_was_written(tmp_path, ending):
    forget, retain = rows("f", 5), rows("r", 7)
    for made in (influence_weights(influence(), forget, retain), uniform_weights(forget, retain)):
        path = save_weights(made, tmp_path / f"w.{ending}")
        assert load_weights(path, forget, retain).rows == made.rows
    assert [row.id for row in load_weights(path, forget[::-1], retain).rows][:5] == [row.id for row in forget[::-1]]


def test_the_file_is_a_table_that_says_why_a_row_got_its_weight(tmp_path):
    vectors = np.array([[1, 0], [1, 0.1], [0.9, 0], [1, 0.2], [0.1, 1], [0, 1], [0, 1.0], [0.1, 1], [0, 0.9]])
    made = influence_weights(Influence(vectors @ vectors.T, 5), rows("f", 5), rows("r", 4))
    table = pd.read_csv(save_weights(made, tmp_path / "w.csv"))
    assert list(table.columns[:4]) == ["id", "group", "weight", "why"]
    odd = table[table.id == "f4"].iloc[0]
    assert odd.weight == table[table.group == "forget"].weight.min()
    assert "may be a retain row by mistake" in odd.why
    assert f"influence {made.rows[4].views[0]:.3g} on forget rows" in odd.why
    assert table.why.str.contains("like most|heavier|lighter").all()
    assert uniform_weights(rows("f", 1), rows("r", 1)).rows[0].why.startswith("uniform")
    assert made.shuffled(1).rows[0].why.startswith("shuffled")


def test_an_edited_file_is_used_as_edited(tmp_path):
    forget, retain = rows("f", 5), rows("r", 7)
    path = save_weights(influence_weights(influence(), forget, retain), tmp_path / "w.csv")
    table = pd.read_csv(path)
    table["weight"] = table["weight"].where(table["id"] != "f2", 0)
    table.to_csv(path, index=False)
    assert load_weights(path, forget, retain).of("forget")[2] == 0
    table["weight"] = table["weight"].astype(object).where(table["id"] != "f2", "heavy")
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"weight 'heavy' of row 'f2'"):
        load_weights(path, forget, retain)


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    forget, retain = rows("f", 5), rows("r", 7)
    made = influence_weights(influence(), forget, retain)
    old = [{k: v for k, v in asdict(row).items() if k != "why"} for row in made.rows]
    (tmp_path / "w.json").write_text(json.dumps({"format": "headwater weights 1", "about": {}, "rows": old}))
    back = load_weights(tmp_path / "w.json", forget, retain)
    assert back.of("retain") == made.of("retain")
    assert back.rows[0].views == made.rows[0].views


def test_a_file_of_other_rows_is_refused_by_name(tmp_path):
    forget, retain = rows("f", 5), rows("r", 7)
    path = save_weights(uniform_weights(forget, retain), tmp_path / "w.csv")
    with pytest.raises(MismatchError, match="forget row 'g0' has no weight"):
        load_weights(path, rows("g", 5), retain)
    edited = [Row("f0", 0, prompt="f 0?", response="Another."), *forget[1:]]
    with pytest.raises(MismatchError, match="forget row 'f0' has another text"):
        load_weights(path, edited, retain)
    with pytest.raises(MismatchError, match="retain row 'r6' is not among the rows"):
        load_weights(path, forget, retain[:6])
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError, match="cannot be read: it does not name the format"):
        load_weights(tmp_path / "x.json", forget, retain)
    (tmp_path / "x.csv").write_text("id,weight\nf0,1\n")
    with pytest.raises(DataError, match="no column 'digest'"):
        load_weights(tmp_path / "x.csv", forget, retain)
    with pytest.raises(UsageError, match=r"\.csv, \.jsonl, \.parquet"):
        save_weights(uniform_weights(forget, retain), tmp_path / "w.txt")


def test_shuffling_deals_out_the_same_weights_within_each_group():
    made = influence_weights(influence(), rows("f", 5), rows("r", 7))
    dealt = made.shuffled(1)
    assert sorted(dealt.of("forget")) == sorted(made.of("forget"))
    assert dealt.of("retain") != made.of("retain")
    assert dealt.of("retain") == made.shuffled(1).of("retain")
