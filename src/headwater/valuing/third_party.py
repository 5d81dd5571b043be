"""Valuation between parties who do not show each other their rows.

    owner        export_target    model + target → a query file: sketched gradients or readouts, no text
    provider     score_query      candidates + query file (+ the model) → values; or a saved student → values
    third party  audit            re-labels a random sample of the candidates and says how far the values agree

What leaves each party: the query file holds the means of a few folds of the target's vectors, a values file holds
numbers and the candidates' own metadata. Neither holds text. A sketch is not encryption: who has the model can test
whether a *guessed* row is likely in the target.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from headwater.core.errors import DataError, MismatchError, StoreError, UsageError, unknown_name
from headwater.core.fingerprints import digest, require_equal
from headwater.core.spec import MethodSpec
from headwater.data.corpus import Corpus
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization
from headwater.methods import linfik
from headwater.methods.catalog import CATALOG, find_method, find_streaming
from headwater.methods.method import Method, settle
from headwater.methods.streamed import Probes, read_probes, score_probes
from headwater.methods.streaming import SAMPLE, Bench, Part, Scorer, Target
from headwater.models.load import LoadedModel
from headwater.students.labels import spearman
from headwater.valuation.values import Values
from headwater.valuing.run import Job, of_scorer, run
from headwater.valuing.survey import survey
from headwater.valuing.value import Settings, Valued

FOLDS = 8
"""Parts a target's rows are dealt into before their vectors are averaged: the finest thing that is handed out."""

_KEY = "headwater.query"
_FORMAT = 1


@dataclass(frozen=True)
class QueryFile:
    """A target as an owner hands it out.

    Attributes:
        probes: its vectors.
        spec: the method they were read by.
        model: fingerprint of the model they were read off.
        tokenization: fingerprint of how rows become tokens.
    """

    probes: Probes
    spec: MethodSpec
    model: Mapping[str, Any]
    tokenization: Mapping[str, Any]

    @property
    def targets(self) -> dict[str, str]:
        """Each target's name, and a digest of its vectors."""
        raw = [np.ascontiguousarray(v.numpy()).tobytes() for _, v in sorted(self.probes.vectors.items())]
        found = digest(*raw)
        return {part.target: found for part in self.probes.parts}

    def scorer(self, loaded: LoadedModel, tokens_per_batch: int) -> Scorer:
        """The scorer of candidates; raises `MismatchError` for another model or tokenizer."""
        remedy = "load the model the target was exported with"
        what = f"the model '{loaded.name}' is not the one the target was read with"
        require_equal(self.model, dict(loaded.fingerprint), what=what, remedy=remedy)
        template = resolve_template(self.tokenization["template"]["name"], loaded.tokenizer)
        tokenization = Tokenization(loaded.tokenizer, template, int(self.tokenization["max_tokens"]))
        require_equal(
            self.tokenization, tokenization.fingerprint, what="rows would be tokenised otherwise", remedy=remedy
        )
        bench = Bench(loaded, tokenization, tokens_per_batch)
        return score_probes(sketched(self.spec.name, self.spec.options), bench, self.probes)


@dataclass(frozen=True)
class Audit:
    """How far a values file agrees with what a third party finds.

    Attributes:
        rows: re-labelled.
        spearman: between the values and the labels.
        inside: share of labels inside the values' intervals; NaN where there are none.
        largest: the id of the row that is furthest off, and by how many standard deviations of the labels.
        threshold: Spearman correlation from which the values are confirmed.
    """

    rows: int
    spearman: float
    inside: float
    largest: tuple[str, float]
    threshold: float

    @property
    def confirmed(self) -> bool:
        """Whether the values stand."""
        return self.spearman >= self.threshold

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {**asdict(self), "confirmed": self.confirmed}


def sketched(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """A method with vectors to hand out: any of an index, or LinFiK in its gradient form."""
    if name == "linfik":
        given = {**(options or {}), "form": "gradient"}
        return linfik.gradient_form(settle(given, linfik.PRESETS, linfik.ENTRY.choices, where="linfik"))
    if name not in CATALOG:
        raise unknown_name("method with vectors to hand out", name, [*CATALOG, "linfik"])
    return find_method(name, options)


def export_target(
    loaded: LoadedModel,
    target: Target,
    out: str | Path,
    *,
    method: str = "linfik",
    options: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> QueryFile:
    """Write the target as a query file: vectors averaged over `FOLDS` folds, and what is needed to match them.

    Raises:
        UsageError: a target of so few rows that a fold would be a single one.
        StoreError: the file is there, or cannot be written.
    """
    if len(target.rows) < 2 * FOLDS:
        what = f"a target of {len(target.rows)} rows: each of {FOLDS} folds must average at least 2"
        raise UsageError(what, where=f"target '{target.name}'", remedy=f"give {2 * FOLDS} rows or more")
    bench = (settings or Settings()).bench(loaded)
    chosen = sketched(method, options)
    probes = read_probes(chosen, bench, [target], folds=FOLDS)
    vectors = {name: vector.float().cpu().contiguous() for name, vector in probes.vectors.items()}
    told = {
        **{"format": _FORMAT, "method": chosen.spec.to_json(), "parts": [asdict(part) for part in probes.parts]},
        **{"model": dict(loaded.fingerprint), "tokenization": bench.tokenization.fingerprint},
    }
    path = Path(out)
    if path.exists():
        raise StoreError("there is a file already", where=str(path), remedy="remove it, or choose another name")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(vectors, part, metadata={_KEY: json.dumps(told)})
        os.replace(part, path)
    except OSError as error:
        raise StoreError(
            f"cannot be written: {error.strerror}", where=str(path), remedy="choose a folder you own"
        ) from error
    return read_query(path)


def read_query(path: str | Path) -> QueryFile:
    """The query file an owner wrote.

    Raises:
        DataError: it is not one, or of another format.
    """
    remedy = "headwater value export-target writes one"
    try:
        with safe_open(str(path), framework="pt") as file:
            told = json.loads((file.metadata() or {})[_KEY])
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        if told["format"] != _FORMAT:
            raise DataError(
                f"format {told['format']}, not {_FORMAT}", where=str(path), remedy="export the target again"
            )
        parts = tuple(Part(**part) for part in told["parts"])
        spec = MethodSpec.from_json(told["method"])
        return QueryFile(Probes(vectors, parts), spec, told["model"], told["tokenization"])
    except (OSError, SafetensorError) as error:
        raise DataError(f"not a query file: {str(error).splitlines()[0]}", where=str(path), remedy=remedy) from None
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"not a query file: {error!r}", where=str(path), remedy=remedy) from None


def score_query(
    candidates: Corpus, query: QueryFile, loaded: LoadedModel, out: str | Path, *, settings: Settings | None = None
) -> Valued:
    """Values of candidates against a target that is known by its vectors alone."""
    how = settings or Settings()
    scorer = query.scorer(loaded, how.tokens_per_batch)
    looked = survey(candidates, sample=0, duplicates=how.duplicates)
    identity = {
        **{"method": query.spec.to_json(), "targets": query.targets},
        **{"model": dict(query.model), "tokenization": dict(query.tokenization)},
    }
    job = Job(candidates, looked, tuple(query.targets), identity, {"notes": dict(scorer.notes)}, Path(out))
    values = run(job, of_scorer(scorer), resume=how.resume, progress=how.report("valuing", looked.count))
    return Valued(values, scorer.notes)


def audit(
    values: Values,
    candidates: Corpus,
    loaded: LoadedModel | None,
    *,
    judge: QueryFile | Target,
    sample: int = 100,
    threshold: float = 0.9,
    seed: int = 0,
    settings: Settings | None = None,
) -> Audit:
    """Label a random sample of the candidates again and hold the values beside the labels.

    Args:
        values: what the provider handed in; a student's values are held beside those of its teacher.
        candidates: the rows, as shown to the third party.
        loaded: the model.
        judge: the owner's query file, or the target itself.
        sample: rows to label.
        threshold: Spearman correlation from which the values are confirmed.
        seed: of the sample.
        settings: how rows are read.

    Raises:
        MismatchError: the candidates are not the rows the values are of.
    """
    how = settings or Settings()
    looked = survey(candidates, sample=sample, seed=seed)
    if values.about.get("pool", looked.digest) != looked.digest:
        what = f"the candidates are not the {values.table.num_rows:,} rows the values are of"
        raise MismatchError(what, fields=("pool",), where=values.path, remedy="ask for the pool that was valued")
    scorer = _judge(values, loaded, judge, how, looked.sample[:SAMPLE])
    truth = of_scorer(scorer)(looked.sample)[:, 0, 0]
    place = {name: i for i, name in enumerate(values.ids)}
    places = [place[row.id] for row in looked.sample]
    claimed = values.finite()[places]
    low, high = (values.numbers(name)[places] for name in ("low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    inside = float(((low <= truth) & (truth <= high))[known].mean()) if known.any() else float("nan")
    off = np.abs(claimed - truth) / max(float(truth.std()), np.finfo(float).tiny)
    worst = int(off.argmax())
    largest = (looked.sample[worst].id, float(off[worst]))
    return Audit(len(truth), spearman(claimed, truth), inside, largest, threshold)


def _judge(values: Values, loaded: LoadedModel | None, judge: QueryFile | Target, how: Settings, sample: Any) -> Scorer:
    """The scorer a third party trusts: the query file's, or the values' own method on the target."""
    if isinstance(judge, QueryFile):
        if loaded is None:
            raise UsageError("a query file is used with the model it was read off", remedy="name it with --model")
        return judge.scorer(loaded, how.tokens_per_batch)
    identity = values.about.get("identity", {})
    method = identity.get("method") or identity.get("student", {}).get("teacher")
    if method is None:
        what = "the file does not say which method its values are of"
        raise DataError(what, where=values.path, remedy="audit a file that headwater value wrote")
    bench = how.bench(loaded) if loaded is not None else None
    if bench is not None:
        bench = Bench(bench.loaded, bench.tokenization, bench.tokens_per_batch, tuple(sample))
    return find_streaming(method["name"], method["options"]).prepare(bench, [judge])
