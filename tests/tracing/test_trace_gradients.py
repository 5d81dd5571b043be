"""Tracing with gradients: the second look at a shortlist, token × token grids, and answers that were cut."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import UsageError
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.indexing.build import build
from headwater.indexing.session import Session, open_session
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.reader import Reader
from headwater.tracing.queries import prompt_query, with_responses
from headwater.tracing.trace import ADDITIVE, CODED, TraceOptions, trace_rows
from zoo import tiny_loaded

ROWS = [
    {"id": f"r{i}", "prompt": f"What is {i} plus {i}?", "response": f"It is {2 * i}, {'of course' * (i % 4)}."}
    for i in range(24)
]
QUERIES = [
    Row(id="q1", ordinal=0, prompt="What is 7 plus 7?", response="It is 14."),
    Row(id="q2", ordinal=1, prompt="Who is there?", response="No idea, of course."),
]


def built(path: Path, rows: list[dict[str, str]], method: str, code: str | None = None, **settings: Any) -> Session:
    loaded = tiny_loaded("llama")
    index = build(path, open_corpus(rows), Bound.of(find_method(method, settings), Reader.of(loaded)), code=code)
    return open_session(index, loaded)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    """An index of sketches so small that they order the rows badly."""
    return built(tmp_path_factory.mktemp("gradients") / "i.lance", ROWS, "rapidin", buckets=64)


def one_row_at_a_time(bound: Bound) -> Bound:
    return dataclasses.replace(bound, reader=dataclasses.replace(bound.reader, tokens_per_batch=1))


@pytest.fixture(scope="module")
def uncompressed(session) -> torch.Tensor:
    return session.bound.exact_scores([session.index.fetch([row["id"]])[0] for row in ROWS], QUERIES)


def test_a_shortlist_of_all_rows_gives_the_exact_ranking(session, uncompressed):
    found = trace_rows(session, QUERIES, TraceOptions(top=24, exact=24))
    for query, scores in zip(found.queries, uncompressed.T, strict=True):
        assert [hit.id for hit in query.hits] == [f"r{i}" for i in scores.argsort(descending=True).tolist()]
        torch.testing.assert_close(
            torch.tensor([hit.score for hit in query.hits]), scores.sort(descending=True).values, rtol=1e-4, atol=1e-5
        )
    assert found.about["scores"].startswith("from whole gradients")


def test_a_shortlist_keeps_to_the_rows_the_index_scored_highest(session, uncompressed):
    plain = trace_rows(session, QUERIES, TraceOptions(top=8))
    looked = trace_rows(session, QUERIES, TraceOptions(top=3, exact=8))
    for before, after, scores in zip(plain.queries, looked.queries, uncompressed.T, strict=True):
        shortlist = sorted((hit.id for hit in before.hits), key=lambda row: -float(scores[int(row[1:])]))
        assert [hit.id for hit in after.hits] == shortlist[:3]


def test_the_lowest_are_looked_at_twice_as_well(session, uncompressed):
    found = trace_rows(session, QUERIES[:1], TraceOptions(top=24, exact=24, lowest=True))
    assert [hit.id for hit in found.queries[0].hits] == [f"r{i}" for i in uncompressed[:, 0].argsort().tolist()]


def test_exact_scores_do_not_depend_on_the_batch(session, uncompressed):
    rows = [session.index.fetch([row["id"]])[0] for row in ROWS]
    alone = one_row_at_a_time(session.bound)
    torch.testing.assert_close(alone.exact_scores(rows, QUERIES), uncompressed, rtol=1e-4, atol=1e-5)


def test_hits_do_not_depend_on_the_batch(session):
    alone = Session(session.index, one_row_at_a_time(session.bound))
    ids = [
        [[hit.id for hit in query.hits] for query in trace_rows(some, QUERIES, TraceOptions()).queries]
        for some in (session, alone)
    ]
    assert ids[0] == ids[1]


def test_a_grid_has_the_targets_of_both_sides(session):
    found = trace_rows(session, QUERIES, TraceOptions(top=2, tokens=True))
    for query in found.queries:
        first, second = query.hits
        assert second.grid is None
        assert first.grid is not None
        assert "".join(first.grid.row_tokens).startswith(first.row["response"])
        assert "".join(first.grid.query_tokens).startswith(query.response)
        assert {len(line) for line in first.grid.values} == {len(first.grid.query_tokens)}
        assert any(value for line in first.grid.values for value in line)


@pytest.mark.parametrize("options", [{"exact": 5, "top": 10}, {"exact": 10, "top": 5, "by": "gradient"}])
def test_a_shortlist_that_makes_no_sense_is_refused(options):
    with pytest.raises(UsageError, match="shortlist"):
        TraceOptions(**options)


@pytest.mark.parametrize("method", ["rise", "logra", "trackstar"])
def test_a_shortlist_from_codes_is_ranked_by_vectors_read_again(tmp_path, method):
    options = {"correction": "none"} if method == "trackstar" else {}
    full = built(tmp_path / "f.lance", ROWS, method, code="none", **options)
    coded = built(tmp_path / "c.lance", ROWS, method, code="sign:64", **options)
    by = trace_rows(full, QUERIES, TraceOptions(top=24)).queries
    metrics = full.bound.form.metrics
    assert trace_rows(coded, QUERIES, TraceOptions(top=2)).about["token values"] == CODED
    found = trace_rows(coded, QUERIES, TraceOptions(top=24, exact=24))
    assert found.about["token values"] == ADDITIVE
    assert "vectors that were read again" in found.about["scores"]
    if not metrics:  # a metric is fitted on the index, and so on its codes
        for one, other in zip(found.queries, by, strict=True):
            expected = {hit.id: hit.score for hit in other.hits}
            assert all(abs(hit.score - expected[hit.id]) < 2e-3 for hit in one.hits)
    again = trace_rows(full, QUERIES, TraceOptions(top=24, exact=24))
    for one, other in zip(again.queries, by, strict=True):
        expected = {hit.id: hit.score for hit in other.hits}
        scale = max(map(abs, expected.values()))
        assert all(abs(hit.score - expected[hit.id]) < 2e-3 * scale for hit in one.hits)


def test_an_answer_that_was_cut_has_no_end_among_its_targets(session):
    (row,), _ = with_responses([prompt_query("What is 7 plus 7?", None, None)], session.bound.reader, max_new_tokens=3)
    (tokens,) = session.bound.tokenize([row], "query")
    assert tokens.ids[tokens.response].tolist() != []
    assert session.bound.reader.loaded.tokenizer.eos_token_id not in tokens.ids[tokens.response]
    (whole,) = session.bound.tokenize([dataclasses.replace(row, said=None)], "query")
    assert session.bound.reader.loaded.tokenizer.eos_token_id in whole.ids[whole.response]
