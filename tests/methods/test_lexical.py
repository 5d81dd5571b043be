"""The lexical baselines: BM25 against its formula, chance and length against what they promise."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from headwater.core.errors import DataError
from headwater.data.rows import Row
from headwater.methods.lexical import bm25_scores, length_scores, random_scores
from oracles.naive_bm25 import naive_bm25

TEXTS = (
    ("How do I sail?", "Hoist the sail and hold the rope."),
    ("What is a rope?", "A rope is a thick cord; a sailor needs rope, rope and rope."),
    ("howdy! What is a cord?", "The starship fell through the nebula."),
    ("Name a sea.", "The Baltic sea."),
)
ROWS = [Row(f"row{n}", n, prompt=prompt, response=response) for n, (prompt, response) in enumerate(TEXTS)]
QUERIES = [
    Row("q0", 0, prompt="howdy! Name a rope.", response="The starship needs rope and rope."),
    Row("q1", 1, prompt="Why?", response="Zebras gallop."),
]


@pytest.mark.parametrize("fields", ["response", "prompt", "all"])
def test_bm25_equals_its_formula(fields: str) -> None:
    def text(row: Row) -> str:
        return {"response": row.response, "prompt": row.prompt, "all": f"{row.prompt}\n{row.response}"}[fields]

    scores = bm25_scores(ROWS, QUERIES, fields=fields)
    for column, query in enumerate(QUERIES):
        expected = naive_bm25([text(row) for row in ROWS], text(query))
        np.testing.assert_allclose(scores.values[:, column], expected, rtol=1e-5, atol=1e-6)
    assert scores.method == f"bm25-{fields}"


def test_a_query_without_a_known_word_scores_nothing() -> None:
    np.testing.assert_array_equal(bm25_scores(ROWS, QUERIES).values[:, 1], 0)


def test_a_text_row_is_read_as_response_and_has_no_prompt() -> None:
    rows = [Row("t", 0, text="rope and sail", place="rows.jsonl:1"), *ROWS]
    assert bm25_scores(rows, QUERIES[:1]).values[0, 0] > 0
    with pytest.raises(DataError, match=r"rows.jsonl:1: row 't' has no prompt"):
        bm25_scores(rows, QUERIES[:1], fields="prompt")


def test_random_scores_follow_names_not_places() -> None:
    forth, back = random_scores(ROWS, QUERIES, seed=3), random_scores(ROWS[::-1], QUERIES, seed=3)
    np.testing.assert_array_equal(forth.values, back.values[::-1])
    assert not np.array_equal(forth.values, random_scores(ROWS, QUERIES, seed=4).values)


def test_random_scores_are_uniform_and_independent_over_queries() -> None:
    rows = [Row(f"r{n}", n, text="x") for n in range(4000)]
    values = random_scores(rows, QUERIES, seed=0).values
    assert np.abs(np.quantile(values, [0.25, 0.5, 0.75], axis=0).T - [0.25, 0.5, 0.75]).max() < 0.03
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.05


def test_longer_rows_rank_higher_whatever_the_query() -> None:
    values = length_scores(ROWS, QUERIES).values
    assert values[:, 0].argmax() == 1
    np.testing.assert_array_equal(values[:, 0], values[:, 1])
    assert values[3, 0] == len("Name a sea.") + len("The Baltic sea.")


def test_a_query_with_hotwords_is_its_hotwords_alone() -> None:
    asked = Row("q", 0, prompt="Why?", response="The starship needs a cord and rope.", hotwords=("rope", "cord"))
    expected = bm25_scores(ROWS, [Row("q", 0, prompt="", response="rope cord")])
    np.testing.assert_array_equal(bm25_scores(ROWS, [asked]).values, expected.values)
    as_rows = [Row(row.id, row.ordinal, prompt=row.prompt, response=row.response, hotwords=("sail",)) for row in ROWS]
    np.testing.assert_array_equal(bm25_scores(as_rows, [asked]).values, expected.values)


def test_bm25_does_not_start_jax(tmp_path):
    """Where JAX is installed or loaded, bm25s would run it on import, which takes a GPU's memory or fails."""
    (tmp_path / "jax.py").write_text(
        "import sys\nif sys.argv[1:] != ['may load']: raise AssertionError('JAX was started')"
    )
    (tmp_path / "lax.py").write_text("raise AssertionError('JAX was started')")  # found as jax.lax below
    code = f"""
import sys
from headwater.methods import lexical
lexical._bm25s()
assert "jax" not in sys.modules, "the module is hidden for good"
for name in [name for name in sys.modules if name.startswith("bm25s")]:
    del sys.modules[name]
lexical._bm25s.cache_clear()
sys.argv[1:] = ["may load"]
import jax
jax.__path__ = [{str(tmp_path)!r}]
lexical._bm25s()
assert sys.modules["jax"] is jax
assert "jax.lax" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
