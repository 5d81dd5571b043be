"""The public verbs take names, paths, frames, records and opened things; results convert and show themselves."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headwater as hw
from headwater.core.errors import DataError, UsageError
from zoo import tiny_loaded

ROWS = [
    {
        "id": f"r{i}",
        "prompt": f"What is {i} plus {i}?",
        "response": f"It is {2 * i}, of course.",
        "provider": "ab"[i % 2],
    }
    for i in range(24)
]
QUERY = [{"id": "q", "prompt": "What is 7 plus 7?", "response": "It is 14, of course."}]


@pytest.fixture(scope="module")
def loaded():
    return tiny_loaded("llama")


@pytest.fixture(scope="module")
def index(loaded, tmp_path_factory):
    return hw.build(tmp_path_factory.mktemp("api") / "i.lance", model=loaded, data=ROWS, settings={"preset": "small"})


FRAMES = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow": pa.Table.from_pylist,
    "datasets": datasets.Dataset.from_list,
    "generator": iter,
}


@pytest.mark.parametrize("kind", FRAMES)
def test_rows_come_as_frames_and_give_the_same_index(kind, loaded, index, tmp_path):
    made = hw.build(tmp_path / "f.lance", model=loaded, data=FRAMES[kind](ROWS), settings={"preset": "small"})
    columns = ["id", "digest", "provider", "rise"]
    assert made.dataset.to_table(columns=columns) == index.dataset.to_table(columns=columns)


def test_gaps_of_a_frame_are_gaps():
    rows = [{"text": "a b", "year": 3}, {"text": "c d", "year": None}]
    assert [row.metadata.get("year") for row in hw.open_corpus(pd.DataFrame(rows))] == [3.0, None]


def test_a_frame_without_a_usable_column_says_which_it_has_and_which_are_known():
    with pytest.raises(DataError) as caught:
        list(hw.open_corpus(pd.DataFrame([{"question_text": "a", "reply": "b"}])))
    assert "question_text" in str(caught.value)
    assert "prompt" in str(caught.value)


def test_a_session_serves_many_traces_and_takes_no_other_model(index, loaded):
    session = hw.open_session(index, loaded)
    first, again = (hw.trace(session, QUERY, top=3).to_pandas() for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert first["id"].iloc[0] == "r7"
    with pytest.raises(UsageError, match="has its model already"):
        hw.trace(session, QUERY, model=loaded)
    with pytest.raises(UsageError, match="'device' cannot be chosen"):
        hw.trace(session, QUERY, loading={"device": "cpu"})


def test_a_loaded_model_takes_no_loading_options(loaded, tmp_path):
    with pytest.raises(UsageError, match="loaded already, so 'dtype' cannot be chosen"):
        hw.build(tmp_path / "x.lance", model=loaded, data=ROWS, loading={"dtype": "bfloat16"})
    assert not (tmp_path / "x.lance").exists()


def test_an_opened_corpus_takes_no_columns(loaded, tmp_path):
    with pytest.raises(UsageError, match="has its columns already"):
        hw.build(tmp_path / "x.lance", model=loaded, data=hw.open_corpus(ROWS), columns={"prompt": "ask"})


def test_results_convert_and_show_themselves(index, loaded, tmp_path):
    trace = hw.trace(index, QUERY, top=3, model=loaded)
    scores = hw.score(index, QUERY, model=loaded)
    valued = hw.value(pd.DataFrame(ROWS), QUERY, method="bm25")
    chosen = hw.select(valued, top=5, candidates=ROWS)
    bought = hw.price(valued, 100, by="provider")
    planned = hw.plan(model=loaded, data=ROWS, method="rapidin")
    for result, rows in ((trace, 3), (scores, 24), (valued, 24), (chosen, 5), (bought, 2), (planned, 1)):
        assert len(result.to_pandas()) == rows
        assert pq.read_table(result.to_parquet(tmp_path / "t.parquet")).num_rows == rows
        assert result._repr_html_().startswith("<iframe" if result is trace else "<table>")
    assert bought.to_pandas()["amount"].sum() == pytest.approx(100)
    assert chosen.rows[0]["response"] in {row["response"] for row in ROWS}


def test_what_a_notebook_shows_is_escaped():
    rows = [{"id": "<script>x</script>", "text": "some words"}]
    valued = hw.value(rows, [{"text": "some words"}], method="bm25", settings={"fields": "all"})
    assert "<script>" not in valued._repr_html_()


def test_targets_are_rows_paths_frames_or_named(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text(json.dumps(QUERY[0]) + "\n")
    for target, name in (
        (QUERY, "target"),
        (path, "sums"),
        (pd.DataFrame(QUERY), "target"),
        ({"arithmetic": QUERY}, "arithmetic"),
        (hw.Target("mine", tuple(hw.open_corpus(QUERY))), "mine"),
    ):
        valued = hw.value(ROWS, target, method="bm25")
        assert list(valued.values.about["targets"]) == [name]
    both = hw.value(ROWS, {"one": QUERY, "two": QUERY}, method="bm25").to_pandas()
    assert {"value_one", "value_two"} <= set(both.columns)


def test_settings_are_the_methods_options_in_every_verb(loaded):
    with pytest.raises(UsageError, match="did you mean 'form'"):
        hw.value(ROWS, QUERY, model=loaded, settings={"forn": "gradient"})
    with pytest.raises(UsageError, match="did you mean 'steps'"):
        hw.unlearn(loaded, QUERY, settings={"step": 3})


@pytest.mark.parametrize("method", ["length", "loss", "random", "bm25", "embedding"])
def test_a_score_whose_sign_says_nothing_does_not_claim_to_help(method, loaded):
    valued = hw.value(ROWS, QUERY, model=loaded, method=method)
    assert not valued.values.signed
    assert "helps" not in valued.values.meaning.replace("no value says that a row harms", "")
    from headwater.valuation.values import summarise

    assert "helpful" not in summarise(valued.values)
    assert "helpful" in summarise(hw.value(ROWS, QUERY, model=loaded).values)


def test_a_pool_is_inspected_and_then_read_once_by_value(loaded):
    class Counted:
        def __init__(self) -> None:
            self.passes = 0

        def __iter__(self):
            self.passes += 1
            return iter(ROWS)

        def __len__(self) -> int:
            return len(ROWS)

    pool = Counted()
    corpus = hw.open_corpus(pool)
    opened = pool.passes  # the first row is looked at when it is opened
    hw.value(corpus, QUERY, model=loaded)
    assert pool.passes == opened + 2


def test_values_kept_in_memory_leave_no_file(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(hw.value(ROWS, QUERY, method="bm25").to_pandas()) == 24
    assert list(tmp_path.iterdir()) == []
