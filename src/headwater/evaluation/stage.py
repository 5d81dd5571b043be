"""The names of methods on the command line of an evaluation, and the model and pool on which they score.

    rise                         a method of the catalog, with its default options
    rapidin:normalize=row        with options; several are separated by commas; `preset=small` is one
    rise:by=embedding            ranked by another vector column of its index; `by=rise/embedding` by the sum of two
    rise:code=sign               its index stores codes (`int8`, `sign:4096`, `int4`, ...) instead of numbers
    rise+0.5*bm25                the weighted sum of the scores of two methods or more, standardised by query
    embedding=>ekfac             two stages: the second re-ranks the tenth of the rows that the first ranks highest

Index methods build a real index and stream over it, so their cost is that of `headwater index build` and `score`.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.errors import UsageError
from headwater.core.fingerprints import digest
from headwater.core.scores import Scores, fuse
from headwater.data.corpus import Corpus
from headwater.data.rows import Row
from headwater.evaluation.result import Cost
from headwater.indexing.build import build
from headwater.indexing.prepared import prepared_beside
from headwater.indexing.quantise import quantise_index
from headwater.indexing.session import Session
from headwater.methods.bound import Bound
from headwater.methods.catalog import CATALOG, find_entry, find_method
from headwater.methods.method import Method
from headwater.methods.scoring import attribute
from headwater.methods.targets import each
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.search.codes import PLAIN, coded
from headwater.search.scan import score_all
from headwater.tracing.queries import LAST, ask

CONTROLS = ("random", "length", "loss", "bm25", "embedding")
"""These methods are part of every table of scores."""

_WEIGHT = re.compile(r"(\d+(?:\.\d+)?)\*")

SHORTLIST = 0.1
"""The share of the rows that the second of two stages re-ranks."""


@dataclass(frozen=True)
class LabelledMethod:
    """One method with options; `label` is its text on the command line. `by` and `code` say how its index is used."""

    label: str
    name: str
    settings: Mapping[str, str]
    by: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Scored:
    """Scores and their cost."""

    scores: Scores
    cost: Cost


def with_controls(methods: Sequence[str]) -> tuple[str, ...]:
    """The given methods and then the controls, each once; all names are checked."""
    labels = tuple(dict.fromkeys([*methods, *(c for c in CONTROLS if c in CATALOG)]))
    for label in labels:
        for stage in label.split("=>"):
            for part, _ in addends(stage):
                parse_label(part)
    return labels


def addends(label: str) -> list[tuple[str, float]]:
    """The parts and weights of a sum such as `rise+0.5*bm25`."""
    found = []
    for part in label.split("+"):
        weight = _WEIGHT.match(part)
        found.append((part[weight.end() :], float(weight[1])) if weight else (part, 1.0))
    return found


def parse_label(label: str) -> LabelledMethod:
    """The single method that `label` names.

    Raises:
        UsageError: an unknown method, or an option that is not name=value.
    """
    name, _, given = label.partition(":")
    entry = find_entry(name)
    settings: dict[str, str] = {}
    for pair in filter(None, given.split(",")):
        option, sign, value = pair.partition("=")
        if not sign:
            raise UsageError(f"'{pair}' is not name=value", where=f"--method {label}", remedy="rapidin:normalize=row")
        settings[option] = value
    by, code = settings.pop("by", None), settings.pop("code", None)
    entry.settle(settings)  # checks the options; the stage adds the files that a method needs
    coded((), code)  # checks the code
    if (by or code) is not None and entry.typical().vectors is None:
        raise UsageError("a method without an index has no vector columns", where=f"--method {label}")
    return LabelledMethod(label, name, settings, by.replace("/", "+") if by else None, code)


@dataclass
class Stage:
    """A model and a pool; the indexes built on it are kept for the next queries.

    Attributes:
        loaded: the model.
        corpus: the pool.
        folder: where indexes are built; no other stage may use it.
        recorded: folder of the recorded training run, for methods that need its files (Adam's moments); options of the
            method come before these.
        reading: how the model reads rows: arguments of `Reader.of` (`template`, `targets`, `max_tokens`, ...).
    """

    loaded: LoadedModel
    corpus: Corpus
    folder: Path
    recorded: Path | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    _indexes: dict[str, tuple[Session, float]] = field(default_factory=dict, repr=False)

    def score(self, label: str, queries: Sequence[Row]) -> Scored:
        """Score every row of the pool on every query with the method called `label`; positive = proponent."""
        if "=>" in label:
            return self._staged(label, queries)
        if "+" in label:
            names, weights = zip(*addends(label), strict=True)
            parts = [self.score(name, queries) for name in names]
            return Scored(fuse([p.scores for p in parts], weights, method=label), _sum(p.cost for p in parts))
        named = parse_label(label)
        left = find_entry(named.name).recorded if self.recorded is not None else {}
        files = {option: str(Path(str(self.recorded)) / file) for option, file in left.items()}
        method = find_method(named.name, {**files, **named.settings})
        return self._search(named, method, queries) if method.vectors else self._stream(named, method, queries)

    @cached_property
    def rows(self) -> list[Row]:
        """The pool's rows."""
        return list(self.corpus)

    @cached_property
    def reader(self) -> Reader:
        """The model with the way it reads rows; of a query, the last answer is asked about, as in a trace."""
        reader = Reader.of(self.loaded, **self.reading)
        return replace(reader, tokenization=replace(reader.tokenization, asked=LAST))

    def _stream(self, named: LabelledMethod, method: Method, queries: Sequence[Row]) -> Scored:
        start = time.perf_counter()
        scores = attribute(method, self.reader, self.rows, each(queries))
        took = time.perf_counter() - start
        return Scored(Scores(scores.ids, scores.queries, scores.values, named.label), Cost(took, 0, 0.0))

    def _search(self, named: LabelledMethod, method: Method, queries: Sequence[Row]) -> Scored:
        code = method.require_vectors().code if named.code is None else named.code
        session, built = self._session(method, code)
        start = time.perf_counter()
        asked = ask(session, queries, by=named.by)
        scores = score_all(session.index, asked.probes, queries=asked.names, metrics=asked.metrics)
        took = (time.perf_counter() - start) / len(queries)
        row_bytes = sum(c.row_bytes for c in session.index.manifest.columns if c.name in asked.weights)
        labelled = Scores(scores.ids, scores.queries, scores.values, named.label)
        return Scored(labelled, Cost(built, row_bytes, took))

    def _session(self, method: Method, code: str) -> tuple[Session, float]:
        """The method's index, or a copy of it as codes; and the seconds that making it took."""
        key = digest([method.spec.to_json(), code])
        if key not in self._indexes:
            plain, reading = self._session(method, PLAIN) if code != PLAIN else (None, 0.0)
            start = time.perf_counter()
            file = self.folder / f"{method.spec.name}-{key[:8]}.lance"
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(file, ignore_errors=True)  # build again, because the time of an earlier build is not known
            if plain is not None:
                made = Session(quantise_index(plain.index, file, code=code), plain.bound)
            else:
                reader = Reader.of(self.loaded, **self.reading)
                bound = Bound.of(prepared_beside(method, reader, self.corpus, str(file)), reader)
                made = Session(build(file, self.corpus, bound, keep_text=False, code=PLAIN), bound)
            self._indexes[key] = made, reading + time.perf_counter() - start
        return self._indexes[key]

    def _staged(self, label: str, queries: Sequence[Row]) -> Scored:
        first_label, _, second_label = label.partition("=>")
        first, second = self.score(first_label, queries), self.score(second_label, queries)
        values = two_stages(first.scores, second.scores, SHORTLIST)
        return Scored(Scores(first.scores.ids, first.scores.queries, values, label), _sum([first.cost, second.cost]))


def two_stages(first: Scores, second: Scores, share: float) -> np.ndarray:
    """Negative ranks: first the `share` highest of `first` in the order of `second`, then the others as in `first`."""
    kept = max(1, round(share * len(first.ids)))
    ranks, again = first.ranks(), second.ranks()
    order = np.where(ranks <= kept, again - len(first.ids), ranks)
    return (-order).astype(np.float32)


def _sum(costs: Any) -> Cost:
    parts = list(costs)
    return Cost(
        sum(c.build_seconds or 0.0 for c in parts),
        sum(c.row_bytes or 0 for c in parts),
        sum(c.query_seconds or 0.0 for c in parts),
    )
