"""Choosing rows: amounts, groups, thresholds, noise, near-duplicates, and the file that comes out."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.core.errors import DataError, UsageError
from headwater.data.corpus import open_corpus
from headwater.valuation.chosen import records_of, write_records
from headwater.valuation.duplicates import clusters
from headwater.valuation.selection import Choice, select
from headwater.valuation.values import Values, final_names, intervals, over_targets, read_values, summarise

VALUES = Values(
    pa.table(
        {
            "id": [f"r{i}" for i in range(8)],
            "value": [0.0, 7.0, 3.0, 5.0, -2.0, 6.0, 1.0, 4.0],
            "group": ["a", "b", "a", "b", "a", "b", "a", None],
            "cluster": [0, 1, 2, 3, 4, 1, 6, 7],
        }
    )
)


def chosen(**choice) -> list[str]:
    return [VALUES.ids[i] for i in select(VALUES, Choice(**choice))]


def test_the_best_come_first():
    assert chosen(top="3") == ["r1", "r5", "r3"]
    assert chosen(top="25%") == ["r1", "r5"]
    assert chosen(above=3.5) == ["r1", "r5", "r3", "r7"]
    assert chosen(top="2", above=3.5, distinct=True) == ["r1", "r3"]
    assert chosen(top="50%", by="group") == ["r7", "r2", "r6", "r1", "r5"]
    assert len(chosen(top="100")) == 8


def test_noise_is_seeded_and_keeps_the_odds():
    assert chosen(top="4", gumbel=1.0) == chosen(top="4", gumbel=1.0)
    draws = [chosen(top="1", gumbel=0.5, seed=s)[0] for s in range(300)]
    counts = {name: draws.count(name) for name in VALUES.ids}
    assert counts["r1"] > counts["r5"] > counts["r2"]
    sd = float(np.std(VALUES.numbers()))
    weights = np.exp(VALUES.numbers() / (0.5 * sd))
    assert counts["r1"] / 300 == pytest.approx(weights[1] / weights.sum(), abs=0.08)


def test_what_cannot_be_chosen_is_refused():
    for choice in ({}, {"top": "0"}, {"top": "ten"}, {"top": "120%"}, {"top": "2.5"}, {"top": "2", "gumbel": -1.0}):
        with pytest.raises(UsageError):
            chosen(**choice)
    with pytest.raises(DataError, match="the highest is 7"):
        chosen(above=7.0)
    with pytest.raises(DataError, match="columns: id, value, group, cluster"):
        chosen(top="1", by="vendor")
    constant = Values(pa.table({"id": ["a", "b"], "value": [1.0, 1.0]}))
    with pytest.raises(DataError, match="nothing to choose by"):
        select(constant, Choice(top="1"))


def test_near_copies_share_a_cluster():
    base = "the quick brown fox jumps over the lazy dog and runs to the river every single morning before dawn"
    texts = [
        base,
        "nothing like it at all in any of its words or pieces",
        f"{base} again",
        base.upper(),
        "one",
        "one",
        "two",
    ]
    assert clusters(("", text) for text in texts).tolist() == [0, 1, 0, 0, 4, 4, 6]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "jsonl.gz"])
def test_chosen_rows_keep_every_column(tmp_path, kind):
    records = [{"prompt": f"q{i}", "response": f'a "{i}", é', "vendor": "x" if i % 2 else "y"} for i in range(6)]
    write_records(tmp_path / f"pool.{kind}", records)
    corpus = open_corpus(tmp_path / f"pool.{kind}")
    ids = [row.id for row in corpus]
    out = write_records(tmp_path / f"out.{kind}", records_of(corpus, [ids[4], ids[1]]))
    again = [dict(record) for _, record in open_corpus(out).source.records()]
    assert again == [records[4], records[1]]
    if kind == "jsonl.gz":
        assert json.loads(gzip.decompress(out.read_bytes()).splitlines()[0])["vendor"] == "y"
    with pytest.raises(DataError, match="--candidates"):
        records_of(corpus, ["no such id"])
    with pytest.raises(UsageError, match="kind of file"):
        write_records(tmp_path / "out.xls", records)


def test_intervals_are_students():
    scores = np.array([[1.0, 3.0, 10.0], [2.0, 2.0, 5.0]], dtype=np.float32)
    found = intervals(scores, ["a", "a", "b"], [1, 1, 7])
    assert found[0, 0].tolist() == pytest.approx([2, 2 - 12.706, 2 + 12.706], abs=1e-3)  # t of one degree of freedom
    assert found[1, 0].tolist() == [2, 2, 2]
    assert found[0, 1, 0] == 10
    assert np.isnan(found[0, 1, 1:]).all()
    assert over_targets(found)[:, 0].tolist() == [6, 3.5]


def test_an_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    scores = generator.normal(0.7, 2.0, (2000, 6)).astype(np.float32)
    found = intervals(scores, ["t"] * 6, [1] * 6)[:, 0]
    covered = ((found[:, 1] <= 0.7) & (found[:, 2] >= 0.7)).mean()
    assert covered == pytest.approx(0.95, abs=0.015)


def test_a_values_file_is_any_parquet_with_id_and_value(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "score": [1.0]}), tmp_path / "v.parquet")
    with pytest.raises(DataError, match="columns: id, score"):
        read_values(tmp_path / "v.parquet")
    with pytest.raises(DataError, match="no such file"):
        read_values(tmp_path / "w.parquet")
    (tmp_path / "x.parquet").write_text("hello")
    with pytest.raises(DataError, match="not Parquet"):
        read_values(tmp_path / "x.parquet")
    assert final_names(["value", "vendor", "value_t"], ["t"]) == {
        "value": "value_",
        "vendor": "vendor",
        "value_t": "value_t_",
    }
    assert final_names(["value", "value_", "low_a", "low_a_"], ["a", "a_"]) == {
        "value": "value__",
        "value_": "value_",
        "low_a": "low_a__",
        "low_a_": "low_a___",
    }
    assert summarise(VALUES, by="group")["groups"]["b"]["mean"] == 6
