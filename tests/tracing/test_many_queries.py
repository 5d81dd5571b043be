"""Many queries are asked in parts, so that the memory they take does not grow with their number."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.tracing import queries
from headwater.tracing.aims import Aim
from headwater.tracing.trace import TraceOptions, trace_rows
from oracles.fake_method import corpus_of, fake_build, fake_session, records


@pytest.mark.parametrize("where", [None, "clean = true"])
def test_queries_asked_in_parts_find_what_each_finds_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str | None
) -> None:
    session = fake_session(fake_build(tmp_path / "a.lance", records(40)))
    asked = list(corpus_of(records(70, 100)))
    sizes: list[int] = []

    ask = queries.ask

    def counted(*given, **options):
        sizes.append(len(given[1].queries))
        return ask(*given, **options)

    monkeypatch.setattr(queries, "ask", counted)
    each = 4 * sum(column.dim for column in session.bound.encoder.columns) * queries._COPIES
    memory = 16 * each * queries._SHARE
    options = TraceOptions(top=5, where=where)
    whole = trace_rows(session, asked, options)
    parts = trace_rows(session, asked, TraceOptions(top=5, where=where, max_memory=max(memory, 1 << 20)))
    assert sizes[0] == 70
    for query, again in zip(whole.queries, parts.queries, strict=True):
        assert [hit.id for hit in query.hits] == [hit.id for hit in again.hits]
    assert whole.hits() == list(whole.each_hit())
    by_id = {}
    for query in parts.queries:  # rows that several queries find are held once
        for hit in query.hits:
            assert by_id.setdefault(hit.id, hit.record) is hit.record


def test_queries_are_divided_by_the_size_of_their_vectors(tmp_path: Path) -> None:
    session = fake_session(fake_build(tmp_path / "a.lance", records(4)))
    each = 4 * sum(column.dim for column in session.bound.encoder.columns) * queries._COPIES
    asked = Aim(tuple(corpus_of(records(70))))
    assert [len(part.queries) for part in queries.in_parts(session, asked, 32 * each)] == [32, 32, 6]
    assert [len(part.queries) for part in queries.in_parts(session, asked, 1)] == [16, 16, 16, 16, 6]
