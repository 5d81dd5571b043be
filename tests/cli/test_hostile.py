"""Commands among hostile data and careless typing: nothing is overwritten, nothing steers a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_commands import QUERY, ROWS, headwater, lines

from headwater.cli.console import harmless
from zoo import tiny_loaded

ESCAPE = "\x1b]0;OWNED\x07\x1b[2J\u202e\x9b31m"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model, rows, queries, an index and values."""
    folder = tmp_path_factory.mktemp("faults")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    lines(folder / "rows.jsonl", ROWS)
    lines(folder / "queries.jsonl", [QUERY])
    lines(folder / "odd.jsonl", [{**row, "id": row["id"] + ESCAPE, "provider": ESCAPE} for row in ROWS])
    for words in (
        ("index", "build", "i.lance", "--model", "model", "--data", "odd.jsonl", "--set", "preset=small"),
        ("value", "--candidates", "odd.jsonl", "--target", "queries.jsonl", "--method", "bm25", "--out", "v.parquet"),
    ):
        assert headwater(*words, cwd=folder).returncode == 0
    return folder


TRACE = ("trace", "i.lance", "--queries", "queries.jsonl", "--top", "2")


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ("queries.jsonl", (*TRACE, "--out", "queries.jsonl")),
        ("queries.jsonl", (*TRACE, "--html", "./queries.jsonl")),
        ("queries.jsonl", ("score", "i.lance", "--queries", "queries.jsonl", "--out", "queries.jsonl")),
        ("odd.jsonl", ("select", "v.parquet", "--top", "5", "--out", "odd.jsonl")),
        ("v.parquet", ("select", "v.parquet", "--top", "5", "--out", "v.parquet")),
        ("v.parquet", ("price", "v.parquet", "--budget", "10", "--out", "v.parquet")),
        ("v.parquet", ("price", "v.parquet", "--budget", "10", "--out", "l.csv", "--html", "l.csv")),
        ("v.parquet", (*TRACE, "--out", "i.lance/hits.jsonl")),
        ("odd.jsonl", ("value", "--candidates", "odd.jsonl", "--target", "queries.jsonl", "--out", "odd.jsonl")),
    ],
)
def test_an_output_never_overwrites_an_input_or_another_output(place, kept, words):
    before = (place / kept).read_bytes()
    done = headwater(*words, cwd=place)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "another name" in done.stderr
    assert (place / kept).read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("trace", "i.lance", "--queries", "odd.jsonl", "--top", "1"),
        ("index", "delete", "i.lance", "--id", f"nope{ESCAPE}"),
        ("price", "v.parquet", "--budget", "10", "--by", "provider", "--out", "ledger.csv"),
        ("index", "build", f"x{ESCAPE}", "--model", "model", "--data", f"none{ESCAPE}.jsonl"),
    ],
)
def test_control_characters_of_the_data_do_not_reach_the_terminal(place, words):
    done = headwater(*words, cwd=place)
    shown = done.stdout + done.stderr
    assert "·" in shown
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(shown)


def test_plain_text_of_any_script_is_shown_as_it_is():
    for text in ("héllo → 你好", "مرحبا", "नमस्ते", "a\tb\nc", "🙂"):
        assert harmless(text) == text


def test_a_takedown_says_which_rows_its_condition_cannot_see(place):
    rows = [{"id": f"t{i}", "text": f"row number {i}", "batch": i % 2 if i < 6 else str(i % 2)} for i in range(12)]
    for name, some in (("a", rows[:6]), ("b", rows)):
        lines(place / f"{name}.jsonl", some)
    headwater(
        *("index", "build", "t.lance", "--model", "model", "--data", "a.jsonl", "--set", "preset=small"), cwd=place
    )
    headwater("index", "add", "t.lance", "--data", "b.jsonl", cwd=place)
    done = headwater("index", "delete", "t.lance", "--where", "batch = 1", "--json", cwd=place)
    assert json.loads(done.stdout)["deleted"] == 3
    assert "cannot see 6 rows, whose 'batch'" in done.stderr
