"""A task: rows, queries, and the rows that each query should find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headwater.core.errors import DataError
from headwater.data.rows import Record


@dataclass(frozen=True)
class Task:
    """A pool with planted ground truth.

    Attributes:
        name: the task's name on the command line.
        rows: the pool, shuffled; each has `id`, `prompt`, `response` and metadata.
        queries: each has `id`, `prompt` and `response`. If the model itself is to answer, it has `reference` instead of
            `response`: an answer of the kind that the model should have learned.
        positives: query id to the ids of the rows that should rank first for it.
        clean_queries: held-out questions on which the model should behave normally, with `reference` answers.
        late: rows that join the pool when the model is trained, so that it has not learned them.
        anti: the ids of anti-documents, rows that resemble the positives and are none; all late rows are.
    """

    name: str
    rows: tuple[Record, ...]
    queries: tuple[Record, ...]
    positives: Mapping[str, frozenset[str]]
    clean_queries: tuple[Record, ...] = ()
    late: tuple[Record, ...] = ()
    anti: frozenset[str] = frozenset()

    @property
    def prevalence(self) -> float:
        """The share of the pool that is positive, averaged over queries."""
        return sum(len(self.positives[q["id"]]) for q in self.queries) / (len(self.queries) * len(self.rows))


def answered(queries: Sequence[Record], responses: Sequence[str]) -> tuple[Record, ...]:
    """The queries with these responses, in order; raises `DataError` if the counts differ."""
    if len(queries) != len(responses):
        raise DataError(f"{len(responses)} responses for {len(queries)} queries", remedy="give one response a query")
    return tuple({**query, "response": response} for query, response in zip(queries, responses, strict=True))


def numbered(records: Sequence[Record], prefix: str) -> tuple[Record, ...]:
    """The records with ids `prefix0001`, `prefix0002`, ... in order."""
    return tuple({"id": f"{prefix}{number:04d}", **record} for number, record in enumerate(records, start=1))
