"""A task: rows, queries and which rows a query should find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headwater.core.errors import DataError
from headwater.data.rows import Record


@dataclass(frozen=True)
class Task:
    """A pool with planted ground truth.

    Attributes:
        name: what the task is called on the command line.
        rows: the pool, shuffled; each has `id`, `prompt`, `response` and metadata.
        queries: what is traced; each has `id`, `prompt` and either `response` or, where the answer is to be the
            model's own, `reference` (an answer of the kind the model should have learnt).
        positives: query id to the ids of the rows that should rank first for it.
        clean_queries: held-out questions the planting should not have touched, with `reference` answers.
    """

    name: str
    rows: tuple[Record, ...]
    queries: tuple[Record, ...]
    positives: Mapping[str, frozenset[str]]
    clean_queries: tuple[Record, ...] = ()

    @property
    def prevalence(self) -> float:
        """Mean share of the pool that is positive, over queries."""
        return sum(len(self.positives[q["id"]]) for q in self.queries) / (len(self.queries) * len(self.rows))


def answered(queries: Sequence[Record], responses: Sequence[str]) -> tuple[Record, ...]:
    """The queries with these responses, in order; raises `DataError` when the counts differ."""
    if len(queries) != len(responses):
        raise DataError(f"{len(responses)} responses for {len(queries)} queries", remedy="give one response a query")
    return tuple({**query, "response": response} for query, response in zip(queries, responses, strict=True))


def numbered(records: Sequence[Record], prefix: str) -> tuple[Record, ...]:
    """The records with ids `prefix0001`, `prefix0002`, ... in order."""
    return tuple({"id": f"{prefix}{number:04d}", **record} for number, record in enumerate(records, start=1))
