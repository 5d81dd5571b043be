"""A task of your own: your model, your rows and queries, and which rows each query should find.

It is the same value as a built-in task (`MeasuredTask`, or for retraining `World`), so everything after it is one path.
Ground truth comes from one of three places:

    relevant        an SQL condition over the rows' columns: the rows that every query should find
    relevant_ids    a column of the queries that lists the ids of the rows to find
    label           a column of rows and queries: a query should find the rows with its own label
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, UsageError, unknown_name
from headwater.core.fingerprints import digest
from headwater.data.corpus import Corpus, open_corpus
from headwater.data.inspection import require_usable
from headwater.data.rows import Row, RowsDigest
from headwater.evaluation.retraining import World
from headwater.evaluation.stage import Stage
from headwater.index.matching_rows import rows_where
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.tracing.queries import with_responses
from headwater.training.fitting import read_recipe

Positives = Mapping[str, frozenset[str]]
"""Query id to the ids of the rows that it should find."""


@dataclass(frozen=True)
class Own:
    """What you give. Paths and names are kept in the run file, so that the evaluation can be run again.

    Attributes:
        model: folder, hub name or loaded model. For `lds` and `removal`, the model before it learns the rows.
        data: the rows: whatever `open_corpus` reads.
        queries: what the model said; a row without a response gets one generated, but for `lds` and `removal`.
        relevant, relevant_ids, label: ground truth, see above; at most one.
        recipe: how a model learns the rows (`lds`, `removal`): a YAML or JSON file, or the names in it.
        name: of the task in tables and file names; empty takes the name of the first data file.
        columns: role to column of the rows; `query_columns` of the queries, by default the same.
        opening: further arguments of `open_corpus` for the rows (`limit`, `split`, `pairs`, `ids`, ...).
        loading: arguments of `load_model` (`adapter`, `dtype`, ...).
        reading: arguments of `Reader.of` (`template`, `targets`, `max_tokens`, `tokens_per_batch`).
    """

    model: Any
    data: Any
    queries: Any
    relevant: str = ""
    relevant_ids: str = ""
    label: str = ""
    recipe: Any = None
    name: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    query_columns: Mapping[str, str] = field(default_factory=dict)
    opening: Mapping[str, Any] = field(default_factory=dict)
    loading: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("model", "data", "queries"):
            value = getattr(self, name)
            if value is None or (isinstance(value, str | list | tuple) and not len(value)):
                what = f"an evaluation on your own data needs --{name}"
                raise UsageError(what, remedy="give --model, --data and --queries, or none of them")
        given = [f"--{n.replace('_', '-')}" for n in ("relevant", "relevant_ids", "label") if getattr(self, n)]
        if len(given) > 1:
            raise UsageError(f"two kinds of ground truth: {' and '.join(given)}", remedy="give one of them")

    @classmethod
    def of(cls, given: Own | Mapping[str, Any]) -> Own:
        """What was given, as this value; raises `UsageError` for an unknown name or for rows that are gone."""
        if isinstance(given, Own):
            return given
        known = [entry.name for entry in dataclasses.fields(cls)]
        for name, value in given.items():
            if name not in known:
                raise unknown_name("setting of one's own data", name, known)
            if isinstance(value, Mapping) and _IN_MEMORY in value:
                what = f"'{name}' was {value[_IN_MEMORY]}, which the run file does not hold"
                raise UsageError(what, where=name, remedy="call headwater.evaluate with it again")
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; what was given in memory is only described."""
        found = {entry.name: _described(getattr(self, entry.name)) for entry in dataclasses.fields(self)}
        return found | ({} if self.recipe is None else {"recipe": dataclasses.asdict(read_recipe(self.recipe))})

    @property
    def title(self) -> str:
        """The task's name."""
        first = self.data[0] if isinstance(self.data, list | tuple) and self.data else self.data
        return self.name or (Path(first).name.split(".")[0] if isinstance(first, str | Path) else "own")


_IN_MEMORY = "in memory"


def _described(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, LoadedModel):
        return {_IN_MEMORY: f"the loaded model '{value.name}'"}
    if isinstance(value, list | tuple) and all(isinstance(one, str | Path) for one in value):
        return [str(one) for one in value]
    try:
        plain = isinstance(value, str | Mapping) or value is None
        return json.loads(json.dumps(value)) if plain else {_IN_MEMORY: f"an object of type {type(value).__name__}"}
    except TypeError:
        return {_IN_MEMORY: f"an object of type {type(value).__name__}"}


def settings_json(settings: Any) -> dict[str, Any]:
    """The settings of an evaluation, JSON-ready."""
    found = {entry.name: getattr(settings, entry.name) for entry in dataclasses.fields(settings)}
    return {name: value.to_json() if isinstance(value, Own) else value for name, value in found.items()}


@dataclass(frozen=True)
class MeasuredTask:
    """What methods are measured on: a model with a pool of rows, queries, and the rows that they should find.

    Attributes:
        name: of the table.
        stage: the model and the pool.
        queries: each has a response.
        positives: query id to the ids of the rows to find; empty if there is no ground truth.
        without: the ids of rows of the pool that this table leaves out.
    """

    name: str
    stage: Stage
    queries: tuple[Row, ...]
    positives: Positives = field(default_factory=dict)
    without: frozenset[str] = frozenset()


def described(measured: MeasuredTask, name: str) -> dict[str, Any]:
    """The `data` of a result: what was measured on, with a digest."""
    rows = RowsDigest()
    for row in (*measured.stage.rows, *measured.queries):
        rows.add(row)
    truth = {query: sorted(ids) for query, ids in measured.positives.items()}
    loaded = measured.stage.loaded
    return {
        "name": name,
        "digest": digest(rows.hexdigest(), truth),
        "rows": len(measured.stage.rows),
        "queries": len(measured.queries),
        "model": {"name": loaded.name, "fingerprint": digest(dict(loaded.fingerprint))},
    }


def measured_on_own(own: Own, folder: Path, *, where: str) -> tuple[MeasuredTask, list[str]]:
    """Open what was given as the task to measure on, and notes for the table.

    Raises:
        DataError: rows or queries cannot be used, or the ground truth names no row, all rows, or unknown ones.
        UsageError, StoreError: the condition cannot be used.
    """
    corpus, queries = _rows_of(own)
    rows = list(corpus)
    positives = _positives(own, rows, queries)
    loaded = own.model if isinstance(own.model, LoadedModel) else load_model(str(own.model), **own.loading)
    reader = Reader.of(loaded, **own.reading)
    corpus = require_usable(corpus, reader.tokenization)
    answered, generated = with_responses(queries, reader)
    kept = {row.id for row in corpus}
    positives = {query: ids & kept for query, ids in positives.items()}
    indexes = folder / "indexes" / f"{where}-{digest(own.title, dict(loaded.fingerprint), dict(own.reading))[:12]}"
    measured = MeasuredTask(own.title, Stage(loaded, corpus, indexes, None, own.reading), tuple(answered), positives)
    return measured, [f"The model generated the answers of {len(generated)} queries."] if generated else []


def own_world(own: Own, folder: Path, seed: int) -> World:
    """Open what was given as a world for retraining: `model` is the one before it learns the rows by `recipe`."""
    if own.recipe is None:
        what = "retraining on your own rows needs a recipe"
        raise UsageError(what, where="--recipe", remedy="give a YAML or JSON file with epochs, batch and rate")
    training = read_recipe(own.recipe)
    measured, _ = measured_on_own(own, folder, where="own")
    stage, reading = measured.stage, dict(own.reading)
    reading.setdefault("max_tokens", stage.reader.context)
    return World(folder, stage.loaded, reading, stage.corpus, measured.queries, training, seed)


def _rows_of(own: Own) -> tuple[Corpus, list[Row]]:
    data = own.data[0] if isinstance(own.data, list | tuple) and len(own.data) == 1 else own.data
    corpus = data if isinstance(data, Corpus) else open_corpus(data, mapping=own.columns or None, **own.opening)
    asked = own.query_columns or own.columns
    retrained = own.recipe is not None  # a model that has not learned the rows cannot answer for the one that has
    queries = list(open_corpus(own.queries, mapping=asked or None, need_response=retrained))
    return require_usable(corpus), queries


def _positives(own: Own, rows: Sequence[Row], queries: Sequence[Row]) -> Positives:
    if own.relevant:
        found = rows_where(rows, own.relevant, where="--relevant")
        if not 0 < len(found) < len(rows):
            what = f"{len(found):,} of {len(rows):,} rows meet the condition {own.relevant!r}"
            remedy = "it must be true of some rows and not of all; `headwater index info` shows an index's columns"
            raise DataError(what, where="--relevant", remedy=remedy)
        return {query.id: found for query in queries}
    if own.relevant_ids:
        return {query.id: _listed(query, own.relevant_ids, {row.id for row in rows}) for query in queries}
    if own.label:
        by_label: dict[str, set[str]] = {}
        for row in rows:
            by_label.setdefault(_label(row, own.label), set()).add(row.id)
        return {query.id: _labelled(query, own.label, by_label) for query in queries}
    return {}


def _listed(query: Row, column: str, known: set[str]) -> frozenset[str]:
    """The ids in the query's column: a list, or text that holds a list as JSON or a single id."""
    value = query.metadata.get(column)
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(f"'{value}' is not a list of ids", where=f"{query.where}, {column}") from None
    ids = {str(one) for one in (value if isinstance(value, list | tuple) else [value] if value else [])}
    if not ids:
        raise DataError(f"query '{query.id}' lists no row in '{column}'", where=query.where, remedy="list ids of rows")
    if unknown := sorted(ids - known):
        what = f"query '{query.id}' lists the row '{unknown[0]}', which is not in the data"
        raise DataError(what, where=query.where, remedy="list ids of rows")
    return frozenset(ids)


def _label(row: Row, column: str) -> str:
    value = row.metadata.get(column)
    if value is None:
        known = ", ".join(sorted(row.metadata)) or "none"
        what = f"row '{row.id}' has no value in the column '{column}'"
        raise DataError(what, where=row.where, remedy=f"its columns: {known}")
    return json.dumps(value, sort_keys=True, default=str)


def _labelled(query: Row, column: str, by_label: Mapping[str, set[str]]) -> frozenset[str]:
    label = _label(query, column)
    if label not in by_label:
        what = f"no row has the label {label} of query '{query.id}'"
        raise DataError(what, where=query.where, remedy=f"labels of rows: {', '.join(sorted(by_label)[:10])}")
    return frozenset(by_label[label])
