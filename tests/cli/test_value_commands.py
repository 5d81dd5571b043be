"""`value`, `select`, `price` and the third-party commands as users run them."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_commands import headwater, lines

from zoo import SENTENCES, tiny_loaded

WORDS = " ".join(SENTENCES).split()


def rows(count: int, seed: int) -> list[dict]:
    generator = np.random.default_rng(seed)
    return [
        {
            "id": f"r{i}",
            "prompt": " ".join(generator.choice(WORDS, 4)),
            "response": " ".join(generator.choice(WORDS, int(generator.integers(3, 9)))),
            "provider": ["acme", "<b>bold</b>", "=SUM(A1)"][i % 3],
        }
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model, a pool, a target and values of it."""
    folder = tmp_path_factory.mktemp("values")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    lines(folder / "pool.jsonl", rows(48, 0))
    lines(folder / "task.jsonl", rows(16, 1))
    done = headwater(
        *("value", "--candidates", "pool.jsonl", "--target", "task.jsonl", "--model", "model", "--set", "folds=2"),
        *("--by", "provider", "--plot", "figures", "--out", "v.parquet", "--json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["rows"] == 48
    assert summary["notes"]["agreement_with_exact_inner_products"] > 0.99
    assert set(summary["groups"]) == {"acme", "<b>bold</b>", "=SUM(A1)"}
    assert [Path(plot).name for plot in summary["plots"]] == ["values.svg", "values-by-provider.svg"]
    return folder


def fails(place: Path, code: int, *words: object) -> str:
    done = headwater(*words, cwd=place)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


def test_select_writes_the_best_rows_as_they_were(place):
    done = headwater("select", "v.parquet", "--top", "10%", "--out", "best.jsonl", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(place / "v.parquet")
    best = table.take(np.argsort(-table.column("value").to_numpy())[:5]).column("id").to_pylist()
    written = [json.loads(line) for line in (place / "best.jsonl").read_text().splitlines()]
    assert [row["id"] for row in written] == json.loads(done.stdout)["ids"] == best
    assert set(written[0]) == {"id", "prompt", "response", "provider"}
    by = ("select", "v.parquet", "--top", "2", "--by", "provider", "--gumbel", "0.3", "--distinct")
    assert headwater(*by, "--out", "some.csv", cwd=place).returncode == 0
    assert len(list(csv.DictReader((place / "some.csv").open()))) == 6


def test_price_spends_the_budget_and_the_statement_is_escaped(place):
    words = (
        "price",
        "v.parquet",
        "--budget",
        "1234.56",
        "--by",
        "provider",
        "--reserve",
        "-100",
        "--out",
        "ledger.csv",
    )
    done = headwater(*words, "--html", "statement.html", "--rows", "rows.csv", "--currency", "€", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    paid = json.loads(done.stdout)["paid"]
    assert sum(Decimal(amount) for amount in paid.values()) == Decimal("1234.56")
    page = (place / "statement.html").read_text(encoding="utf-8")
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "1234.56 €" in page
    assert "http" not in page.replace("http-equiv", "")
    ledger = (place / "ledger.csv").read_text(encoding="utf-8")
    assert "'=SUM(A1)" in ledger


def test_three_parties_need_not_show_their_rows(place):
    export = ("value", "export-target", "--target", "task.jsonl", "--model", "model", "--out", "task.query")
    assert headwater(*export, cwd=place).returncode == 0
    score = ("value", "score", "--candidates", "pool.jsonl", "--query", "task.query", "--model", "model")
    done = headwater(*score, "--out", "q.parquet", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    audit = ("value", "audit", "q.parquet", "--candidates", "pool.jsonl", "--model", "model", "--sample", "20")
    for judge in (("--query", "task.query"), ("--target", "task.jsonl")):
        checked = headwater(*audit, *judge, "--json", cwd=place)
        assert checked.returncode == 0, checked.stderr
        assert json.loads(checked.stdout)["confirmed"]
    table = pq.read_table(place / "q.parquet")
    forged = table.set_column(1, "value", [table.column("value").to_numpy()[::-1].copy()])
    pq.write_table(forged, place / "forged.parquet")
    found = headwater("value", "audit", "forged.parquet", *audit[3:], "--query", "task.query", cwd=place)
    assert found.returncode == 1
    assert "NOT confirmed" in found.stderr


def test_a_student_scores_without_the_model(place):
    words = ("value", "--candidates", "pool.jsonl", "--target", "task.jsonl", "--method", "alinfik", "--model", "model")
    options = ("--set", "teacher=length", "--set", "labels=40", "--set", "recheck=8", "--out", "a.parquet")
    done = headwater(*words, *options, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["notes"]["recheck"]["rows"] == 8
    alone = ("value", "score", "--candidates", "pool.jsonl", "--student", "a.student", "--out", "s.parquet")
    assert headwater(*alone, cwd=place).returncode == 0
    a, s = (pq.read_table(place / name).column("value").to_pylist() for name in ("a.parquet", "s.parquet"))
    assert a == s


def test_a_student_of_the_models_sketches_is_given_the_model(place):
    words = ("value", "--candidates", "pool.jsonl", "--target", "task.jsonl", "--method", "alinfik", "--model", "model")
    options = ("--set", "teacher=length", "--set", "labels=40", "--set", "recheck=0", "--set", "sources=model")
    assert headwater(*words, *options, "--out", "m.parquet", cwd=place).returncode == 0
    score = ("value", "score", "--candidates", "pool.jsonl", "--student", "m.student")
    assert "--model" in fails(place, 2, *score, "--out", "m-again.parquet")
    done = headwater(*score, "--model", "model", "--out", "m-again.parquet", cwd=place)
    assert done.returncode == 0, done.stderr
    m, again = (pq.read_table(place / name).column("value").to_pylist() for name in ("m.parquet", "m-again.parquet"))
    np.testing.assert_allclose(m, again, rtol=1e-5)
    assert "no proxy" in fails(place, 2, *score, "--model", "model", "--student-proxy", "model", "--out", "n.parquet")


def test_a_student_of_noise_prices_nothing_unless_it_is_forced_to(place):
    words = ("value", "--candidates", "pool.jsonl", "--target", "task.jsonl", "--method", "alinfik", "--model", "model")
    noise = ("--set", "teacher=random", "--set", "labels=36", "--set", "recheck=12", "--out", "noise.parquet")
    said = fails(place, 1, *words, *noise)
    assert "below 0.50" in said
    assert "--resume --force" in said
    assert not (place / "noise.parquet").exists()
    forced = headwater(*words, *noise, "--resume", "--force", "--json", cwd=place)
    assert forced.returncode == 0, forced.stderr
    assert "warning: the student ranks rows it has not seen" in forced.stderr
    assert json.loads(forced.stdout)["notes"]["ceiling"] < 0.8
    priced = ("price", "noise.parquet", "--budget", "10", "--also-uncertain", "--out", "n.csv", "--html", "n.html")
    assert "not for prices: the student ranks" in fails(place, 1, *priced)
    assert not (place / "n.csv").exists()
    said = headwater(*priced, "--force", cwd=place)
    assert "warning: the student ranks rows it has not seen" in said.stderr  # whoever pays by such values reads it too
    assert "the student ranks rows it has not seen" in (place / "n.html").read_text(encoding="utf-8")
    again = ("value", "score", "--candidates", "pool.jsonl", "--student", "noise.student", "--out", "again.parquet")
    assert "--force" in fails(place, 1, *again)


def test_faults_are_one_line(place):
    (place / "empty.jsonl").write_text("", encoding="utf-8")
    value = ("value", "--candidates", "pool.jsonl", "--model", "model", "--out", "n.parquet")
    assert "no rows" in fails(place, 1, *value, "--target", "empty.jsonl")
    assert "--target missing" in fails(place, 2, *value)
    assert "did you mean 'linfik'" in fails(place, 2, *value, "--target", "task.jsonl", "--method", "linfic")
    assert "already" in fails(place, 1, *value[:-1], "v.parquet", "--target", "task.jsonl")
    assert "--model" in fails(place, 2, *value[:3], "--target", "task.jsonl", "--out", "n.parquet")
    assert "columns: id, value" in fails(
        place, 1, "price", "v.parquet", "--budget", "1", "--by", "vendor", "--out", "l"
    )
    assert "more than 0" in fails(place, 2, "price", "v.parquet", "--budget", "0", "--out", "l.csv")
    assert "--top" in fails(place, 2, "select", "v.parquet", "--out", "n.jsonl")
    assert "kind of file" in fails(place, 2, "select", "v.parquet", "--top", "1", "--out", "n.doc")
    assert not (place / "n.parquet").exists()
