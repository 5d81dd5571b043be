"""Open what users give to the public functions: names, paths, data frames, records, or objects already open."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from headwater.core.arguments import named
from headwater.core.errors import UsageError, unknown_name
from headwater.data.corpus import Corpus, open_corpus
from headwater.data.inspection import require_usable
from headwater.data.pairs import BETA
from headwater.index.store import Index, open_index
from headwater.indexing.session import Session, open_session
from headwater.methods.method import Method
from headwater.methods.targets import Target
from headwater.models.beforehand import tokenization_beforehand
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.models.reference import Reference
from headwater.valuation.values import Values, read_values
from headwater.valuing.request import Valued

Rows: TypeAlias = Any
"""Rows: a path (file, folder or pattern), a hub name, a list of these, a pandas or polars `DataFrame`, an Arrow table,
a `datasets.Dataset`, dictionaries, rows as `hw.choose_forget` gives them, or an opened corpus."""

Model: TypeAlias = "str | Path | LoadedModel"
"""A model: a local folder, a hub name, or a loaded model."""

AnyIndex: TypeAlias = "str | Path | Index | Session"
"""An index: its path or URI, an open index, or a session (an index that is open together with its model)."""

AnyValues: TypeAlias = "str | Path | Values | Valued"
"""Values: the path of a values file, or the result of `value`."""


def corpus_of(
    rows: Rows,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    need_response: bool = True,
    compared: bool = False,
    pairs: str | None = None,
) -> Corpus:
    """The rows as a corpus; `columns` (role to column name), `split` and `pairs` are for rows that are not open yet.

    Raises:
        UsageError: preference pairs are read as one row each, for the DPO loss, and `compared` does not allow that.
    """
    mapping = named(columns, where="columns", example={"prompt": "ask"})
    if isinstance(rows, Corpus):
        if rows.pairs == "dpo" and not compared:
            what = "only an index holds preference pairs with the DPO loss"
            raise UsageError(what, where="--pairs dpo", remedy="--pairs rows reads the two answers as two rows")
        if mapping:
            raise UsageError("an opened corpus has its columns already", where="columns", remedy="leave columns out")
        return rows
    how: dict[str, Any] = {"split": split, "need_response": need_response, "pairs": pairs}
    return open_corpus(rows, mapping=mapping or None, **how)


def model_of(model: Any, loading: Mapping[str, Any] | None = None) -> LoadedModel:
    """The loaded model; `loading` holds options of `load_model`, for a model given by name."""
    options = named(loading, where="loading", example={"device": "cpu"})
    if isinstance(model, LoadedModel):
        _refuse_loading("a loaded model", options)
        return model
    if not isinstance(model, str | Path):
        remedy = "give a folder or a hub name, or headwater.wrap_model(model, tokenizer)"
        raise UsageError(f"an object of type {type(model).__name__}", where="model", remedy=remedy)
    known = list(inspect.signature(load_model).parameters)[1:]
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known, where="loading")
    return load_model(str(model), **options)


def reader_for(
    rows: Corpus,
    model: Any,
    loading: Mapping[str, Any] | None = None,
    *,
    method: Method,
    tokens_per_batch: int,
    **reading: Any,
) -> tuple[Reader, Corpus]:
    """The reader of a model, and the rows after a check that each of them can be read by it.

    The check comes before the model's weights are loaded, unless only the model can tell (a loaded model, or an adapter
    that may bring tokens of its own). Rows that cannot be used are left out if the corpus says so.

    Args:
        rows: the rows to check.
        model: the model.
        loading: options of `load_model`, for a model given by name.
        method: the method that will read the rows.
        tokens_per_batch: padded tokens in one forward pass.
        reading: arguments of `Tokenization.of` but for the tokenizer: `template`, `max_tokens`, `targets`, `beta`; and
            `reference`, of `Reader.of`.

    Raises:
        DataError: rows cannot be used; names them all, the first ten with their places and reasons.
        UsageError: the method's windows are longer than the model's positions.
    """
    early = None
    if isinstance(model, str | Path):
        options = named(loading, where="loading", example={"device": "cpu"})
        of_tokens = {name: value for name, value in reading.items() if name != "reference"}
        early = tokenization_beforehand(str(model), options, **of_tokens)
        rows = require_usable(rows, early)
    reader = Reader.of(model_of(model, loading), tokens_per_batch=tokens_per_batch, **reading)
    reader.require_windows(method.spec.options)
    vocabulary = reader.tokenization.vocabulary
    known = early is not None and (early.vocabulary == vocabulary or len(early.tokenizer) <= (vocabulary or 0))
    return reader, rows if known else require_usable(rows, reader.tokenization)


def preference(
    rows: Corpus, beta: float | None, reference: str | Path | None, loading: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The arguments `beta` and `reference` of `reader_for`: both None unless the rows are pairs under the DPO loss.

    The reference is loaded as the model is, without the model's adapter and tokenizer.

    Raises:
        UsageError: one of the two is given and the rows are read otherwise.
    """
    if rows.pairs != "dpo":
        for option, value in (("--beta", beta), ("--reference", reference)):
            if value is not None:
                what = "only the DPO loss of preference pairs has this"
                raise UsageError(what, where=option, remedy="leave it out, or read pairs with --pairs dpo")
        return {}
    if reference is None:
        return {"beta": BETA if beta is None else beta}
    own = ("adapter", "merge", "tokenizer", "revision")
    shared = {name: value for name, value in (loading or {}).items() if name not in own and value is not None}
    return {"beta": BETA if beta is None else beta, "reference": Reference(str(reference), shared)}


def index_of(index: AnyIndex) -> Index:
    """The open index, at its latest version: rows that were added or deleted since it was opened count."""
    opened = index.index if isinstance(index, Session) else index
    if not isinstance(opened, Index):
        return open_index(opened)
    opened.refresh()
    return opened


def session_of(index: AnyIndex, model: Model | None = None, loading: Mapping[str, Any] | None = None) -> Session:
    """The session of an index; a given session is used as it is and cannot take another model."""
    loading = named(loading, where="loading", example={"device": "cpu"})
    if isinstance(index, Session):
        if model is not None:
            remedy = "give the index instead, or leave the model out"
            raise UsageError("a session has its model already", where="model", remedy=remedy)
        _refuse_loading("a session", loading)
        index_of(index)
        return index
    if isinstance(model, LoadedModel):
        _refuse_loading("a loaded model", loading)
        return open_session(index_of(index), model)
    return open_session(index_of(index), None if model is None else str(model), loading)


def targets_of(target: Rows) -> list[Target]:
    """One or several targets, each given as a `Target` or as rows; a dictionary names them, a path gives its stem."""
    if isinstance(target, Target):
        return [target]
    if isinstance(target, Mapping):
        return [_target(rows, str(name)) for name, rows in target.items()]
    several = isinstance(target, Sequence) and not isinstance(target, str) and bool(target)
    if several and all(isinstance(one, Target | str | Path) for one in target):
        return [found for one in target for found in targets_of(one)]
    return [_target(target)]


def target_of(target: Rows) -> Target:
    """The one target; raises `UsageError` if several are given."""
    found = targets_of(target)
    if len(found) != 1:
        raise UsageError(f"{len(found)} targets", where="target", remedy="give one; call again for each of the others")
    return found[0]


def values_of(values: AnyValues) -> Values:
    """The values; a path is read."""
    if isinstance(values, Valued):
        return values.values
    return values if isinstance(values, Values) else read_values(values)


def _target(rows: Rows, name: str | None = None) -> Target:
    stem = Path(rows).name.split(".")[0] if isinstance(rows, str | Path) else "target"
    return Target(name or stem, tuple(corpus_of(rows)))


def _refuse_loading(what: str, loading: Mapping[str, Any] | None) -> None:
    given = [name for name, value in (loading or {}).items() if value is not None]
    if given:
        fault = f"{what} is loaded already, so '{given[0]}' cannot be chosen"
        raise UsageError(fault, where="loading", remedy="give the model by name, or leave the option out")


def placing(loading: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where a model is loaded, of the options of `load_model`: the rest is recorded with the loaded model."""
    return {name: (loading or {}).get(name) for name in ("device", "device_map", "trust_remote_code", "compile")}
