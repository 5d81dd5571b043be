"""The Python API for looking after an index: functions that take names, paths or values already open.

hw.add(index, "more.jsonl"); hw.delete(index, where="provider = 'a'"); hw.compact(index)
hw.verify(index); hw.info(index); hw.encode(index, "small.lance", code="sign")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater.api.verbs import query_probes
from headwater.core.errors import StoreError, UsageError
from headwater.data.corpus import Corpus, open_corpus
from headwater.index.checks import Fault
from headwater.index.info import describe
from headwater.index.store import Index, open_index
from headwater.index.upkeep import Compacted
from headwater.index.upkeep import compact as compact_index
from headwater.indexing import maintain as lifecycle
from headwater.indexing.build import Progress
from headwater.indexing.maintain import Added
from headwater.indexing.quantise import encode_index
from headwater.indexing.session import open_session
from headwater.models.load import LoadedModel, load_model
from headwater.search.retention import Retention, compare_indexes, compare_rows
from headwater.tracing.queries import Queries

RECOMPUTED = 16
"""Rows that are read again with the model, unless said otherwise."""


def info(index: str | Path | Index) -> dict[str, Any]:
    """What an index is, JSON-ready: rows, bytes a row, versions, coverage, fingerprints."""
    return describe(_open(index))


def add(
    index: str | Path | Index,
    data: Any,
    *,
    model: str | LoadedModel | None = None,
    placement: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Added:
    """Add the rows of `data` that the index does not have yet; see `headwater.indexing.maintain.add`.

    Args:
        index: path or open index.
        data: anything `open_corpus` takes, or a corpus; it may be the old data grown.
        model: a loaded model, or where the index's model is now; None is where the index says.
        placement: `device`, `device_map`: where to load it.
        progress: called after each block.
    """
    corpus = data if isinstance(data, Corpus) else open_corpus(data)
    return lifecycle.add(open_session(_open(index), model, **(placement or {})), corpus, progress=progress)


def delete(
    index: str | Path | Index, *, ids: Sequence[str] | None = None, where: str | None = None, rows: Any = None
) -> int:
    """Take rows out by ids, by an SQL condition, or by their text (`rows`: what `open_corpus` takes); how many went."""
    corpus = rows if rows is None or isinstance(rows, Corpus) else open_corpus(rows)
    return lifecycle.delete(_open(index), ids=ids, where=where, rows=corpus)


def compact(index: str | Path | Index) -> Compacted:
    """Take deleted rows out of every file, and every earlier version with them."""
    return compact_index(_open(index))


def verify(
    index: str | Path | Index,
    *,
    model: str | LoadedModel | None = None,
    recompute: int | None = None,
    placement: Mapping[str, Any] | None = None,
) -> list[Fault]:
    """Every fault of an index; none when it is sound.

    Args:
        index: path or open index; a path may lead to something damaged.
        model: read rows again with this model (loaded, or its name); None reads them only when `recompute` is given.
        recompute: how many rows to read again, `RECOMPUTED` with a model.
        placement: `device`, `device_map`: where to load the model.
    """
    path = index.path if isinstance(index, Index) else str(index)
    if recompute is not None and recompute < 1:
        raise UsageError(f"{recompute} rows to read again", where="--recompute", remedy="1 or more")
    if model is None and recompute is None:
        return lifecycle.verify(path)
    try:
        manifest = open_index(path).manifest
    except StoreError:
        return lifecycle.verify(path)
    if not isinstance(model, LoadedModel):
        model = load_model(model or manifest.model["name"], **manifest.model["loading"], **(placement or {}))
    return lifecycle.verify(path, model, sample=recompute or RECOMPUTED)


def encode(index: str | Path | Index, out: str | Path, *, code: str, **options: Any) -> Index:
    """A new index of the same rows as codes; options as in `headwater.indexing.quantise.encode_index`."""
    return encode_index(_open(index), out, code=code, **options)


def retention(
    coded: str | Path | Index,
    queries: Queries,
    *,
    exact: str | Path | Index | None = None,
    relevant: str | None = None,
    model: str | LoadedModel | None = None,
    placement: Mapping[str, Any] | None = None,
    sample: int = 2000,
) -> Retention:
    """What an index of codes keeps of exact search on the user's own queries.

    With `exact`, the index it was encoded from, all rows are searched; `relevant` is an SQL condition that says which
    rows are, for P@10. Without, `sample` rows are read again with the model and searched both ways.
    """
    index = _open(coded)
    session = open_session(index, model, **(placement or {}))
    _, probes, _ = query_probes(session, queries, None)
    if exact is not None:
        return compare_indexes(_open(exact), index, probes, relevant=relevant)
    if relevant is not None:
        raise UsageError("relevant rows are counted beside the exact index", where="relevant", remedy="give that index")
    if not index.count:
        raise StoreError("there are no rows to measure on", where=index.path)
    places = np.unique(np.linspace(0, index.count - 1, min(sample, index.count)).round().astype(int)).tolist()
    ids = index.take(places, ["id"]).column("id").to_pylist()
    rows = session.reader.encode(index.fetch(ids), "train")
    return compare_rows(rows.vectors, index.manifest.columns, probes)


def _open(index: str | Path | Index) -> Index:
    return index if isinstance(index, Index) else open_index(index)
