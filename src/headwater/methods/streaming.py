"""Methods that need no index: rows stream past the targets and leave scores.

    scorer = method.prepare(bench, targets)      once: what is read off the model and the targets
    scorer(rows)                                 float32 [rows, parts], for any block of rows

A part is what one column of scores stands for: one row of a target, or several taken together. A row's score on a
target is the mean over the target's parts, each counted by its rows; the parts' spread gives its standard error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from headwater.core.errors import DataError, UsageError
from headwater.core.scores import Scores
from headwater.core.spec import MethodSpec
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization, TokenRow
from headwater.methods.method import Options, settle
from headwater.models.load import LoadedModel

Item = TypeVar("Item")

SAMPLE = 32
"""Rows of the pool a method may look at while it is made ready."""


@dataclass(frozen=True)
class Bench:
    """What a method reads rows with.

    Attributes:
        loaded: the model, as it is now.
        tokenization: how rows become its tokens.
        tokens_per_batch: padded tokens in one forward pass.
        sample: rows of the pool, for methods that set themselves by looking at some (a step size, labels).
    """

    loaded: LoadedModel
    tokenization: Tokenization
    tokens_per_batch: int = 8192
    sample: tuple[Row, ...] = ()

    def token_rows(self, rows: Sequence[Row], *, hotwords: bool = False) -> list[TokenRow]:
        """The rows as tokens, numbered in the order given; with `hotwords`, only these words are targets."""
        numbered = [dataclasses.replace(row, ordinal=i) for i, row in enumerate(rows)]
        return self.tokenization.encode(numbered, hotwords=hotwords)


@dataclass(frozen=True)
class Target:
    """Rows that are asked about together: a task's test rows, or a single query."""

    name: str
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError("there is no row in it", where=f"target '{self.name}'", remedy="give it at least one row")


@dataclass(frozen=True)
class Part:
    """One column of scores: it stands for `rows` rows of the target called `target`."""

    target: str
    rows: int = 1


@runtime_checkable
class Scorer(Protocol):
    """A method made ready for some targets."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the columns are; a target's parts stand next to each other, in the order of the targets."""
        ...

    @property
    def notes(self) -> Mapping[str, Any]:
        """What was chosen or measured on the way (step size, agreement, coverage); JSON-ready, for reports."""
        ...

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        """Influence of each row on each part, float32; positive = proponent. Raises `NumericError` naming the row."""
        ...


@dataclass(frozen=True)
class StreamingMethod:
    """A method with its options settled.

    Attributes:
        spec: name and resolved options.
        prepare: makes it ready for targets; `bench` is None only if `reads_model` is False.
        reads_model: whether it needs a bench at all.
        whole: a row's score depends on the other rows (BM25's word counts), so the pool must come as one block.
    """

    spec: MethodSpec
    prepare: Callable[[Bench | None, Sequence[Target]], Scorer]
    reads_model: bool = True
    whole: bool = False


@dataclass(frozen=True)
class StreamingEntry(Generic[Options]):
    """A line of the catalog; attributes as in `MethodEntry`, and `make` gives a streaming method."""

    name: str
    summary: str
    reads: str
    cost: str
    source: str
    presets: Mapping[str, Options]
    make: Callable[[Options], StreamingMethod]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    stores: ClassVar[str] = "nothing"

    def resolve(self, settings: Mapping[str, Any]) -> StreamingMethod:
        """The method with `settings` over the named or default preset."""
        return self.make(settle(settings, self.presets, self.choices, where=self.name))


@dataclass(frozen=True)
class QueryScorer:
    """A `Scorer` made of a function, for methods that score every row of a target by itself.

    `score` takes rows and the targets' rows, laid end to end, to float `[rows, queries]`.
    """

    targets: tuple[Target, ...]
    score: Callable[[Sequence[Row], Sequence[Row]], Float[np.ndarray, "rows queries"]]
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        """One a row of each target."""
        return tuple(Part(target.name) for target in self.targets for _ in target.rows)

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows queries"]:
        """Scores of the rows."""
        queries = [row for target in self.targets for row in target.rows]
        return np.asarray(self.score(rows, queries), dtype=np.float32)


def require_bench(bench: Bench | None, method: str) -> Bench:
    """The bench; raises `UsageError` where a method that reads the model was given none."""
    if bench is None:
        raise UsageError(f"'{method}' reads a model and was given none", remedy="name one with --model")
    return bench


def each(queries: Sequence[Row]) -> tuple[Target, ...]:
    """Every query as a target of its own."""
    return tuple(Target(query.id, (query,)) for query in queries)


def attribute(method: StreamingMethod, bench: Bench | None, rows: Sequence[Row], targets: Sequence[Target]) -> Scores:
    """Every row's influence on every target, in memory; positive = proponent.

    For every row on every query give `each(queries)` as the targets. A bench without a sample gets one of `rows`.
    """
    if bench is not None and not bench.sample:
        bench = dataclasses.replace(bench, sample=spaced(rows, SAMPLE))
    scorer = method.prepare(bench, targets)
    values = pool_parts(scorer(rows), scorer.parts)
    return Scores(tuple(row.id for row in rows), tuple(t.name for t in targets), values, method.spec.name)


def deal(rows: Sequence[Item], folds: int) -> list[tuple[Item, ...]]:
    """Dealt like cards into `folds` parts, or into one each where there are fewer."""
    count = min(folds, len(rows))
    return [tuple(rows[start::count]) for start in range(count)]


def spaced(rows: Sequence[Row], count: int) -> tuple[Row, ...]:
    """At most `count` of the rows, evenly spaced."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))
    return tuple(rows[i] for i in places)


def pool_parts(values: Float[np.ndarray, "rows parts"], parts: Sequence[Part]) -> Float[np.ndarray, "rows targets"]:
    """Scores on whole targets: Σ_parts rows·score / Σ_parts rows, in the targets' order; float32."""
    columns = []
    for name in dict.fromkeys(part.target for part in parts):
        own = [i for i, part in enumerate(parts) if part.target == name]
        weights = np.array([parts[i].rows for i in own], dtype=np.float64)
        columns.append(values[:, own].astype(np.float64) @ (weights / weights.sum()))
    return np.stack(columns, axis=1).astype(np.float32)
