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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from headwater.core.errors import DataError, MismatchError, UsageError
from headwater.core.files import whole_file
from headwater.core.fingerprints import digest
from headwater.core.spec import MethodSpec
from headwater.core.statistics import spearman
from headwater.data.rows import Row
from headwater.methods.catalog import restore_method
from headwater.methods.method import Method
from headwater.methods.scoring import Probes, prepare, read_probes, score_probes
from headwater.methods.targets import Part, Scorer, Target
from headwater.models.load import LoadedModel
from headwater.models.reader import TOKENS_PER_BATCH, Reader
from headwater.valuation.values import Values
from headwater.valuing.run import Job, of_scorer, require_vacant, run, run_folder
from headwater.valuing.survey import Pool, survey
from headwater.valuing.value import Valued, ValueOptions

FOLDS = 8
"""Folds a target's rows are split into before their vectors are averaged: the finest thing that is handed out."""

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

    def scorer(self, loaded: LoadedModel, tokens_per_batch: int = TOKENS_PER_BATCH) -> Scorer:
        """The scorer of candidates; raises `MismatchError` for another model or tokenizer."""
        reader = Reader.like(loaded, self.model, self.tokenization, tokens_per_batch, where="the query file")
        return score_probes(restore_method(self.spec), reader, self.probes)


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


def export_target(reader: Reader, target: Target, out: str | Path, *, method: Method) -> QueryFile:
    """Write the target as a query file: vectors averaged over `FOLDS` folds, and what is needed to match them.

    Raises:
        UsageError: a target of so few rows that a fold would be a single one, or a method without vectors.
        StoreError: the file is there, or cannot be written.
    """
    if len(target.rows) < 2 * FOLDS:
        what = f"a target of {len(target.rows)} rows: each of {FOLDS} folds must average at least 2"
        raise UsageError(what, where=f"target '{target.name}'", remedy=f"give {2 * FOLDS} rows or more")
    probes = read_probes(method, reader, [target], folds=FOLDS)
    vectors = {name: vector.float().cpu().contiguous() for name, vector in probes.vectors.items()}
    described = {
        "format": _FORMAT,
        "method": method.spec.to_json(),
        "parts": [asdict(part) for part in probes.parts],
        "model": dict(reader.loaded.fingerprint),
        "tokenization": reader.tokenization.fingerprint,
    }
    require_vacant(Path(out))
    with whole_file(out) as part:
        save_file(vectors, part, metadata={_KEY: json.dumps(described)})
    return read_query(out)


def read_query(path: str | Path) -> QueryFile:
    """The query file an owner wrote.

    Raises:
        DataError: it is not one, or of another format.
    """
    remedy = "headwater value export-target writes one"
    try:
        with safe_open(str(path), framework="pt") as file:
            described = json.loads((file.metadata() or {})[_KEY])
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        if described["format"] != _FORMAT:
            raise DataError(
                f"format {described['format']}, not {_FORMAT}", where=str(path), remedy="export the target again"
            )
        parts = tuple(Part(**part) for part in described["parts"])
        spec = MethodSpec.from_json(described["method"])
        return QueryFile(Probes(vectors, parts), spec, described["model"], described["tokenization"])
    except (OSError, SafetensorError) as error:
        raise DataError(f"not a query file: {str(error).splitlines()[0]}", where=str(path), remedy=remedy) from None
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"not a query file: {error!r}", where=str(path), remedy=remedy) from None


def score_query(
    candidates: Pool,
    query: QueryFile,
    loaded: LoadedModel,
    out: str | Path,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    options: ValueOptions | None = None,
) -> Valued:
    """Values of candidates against a target that is known by its vectors alone."""
    how, place = options or ValueOptions(), Path(out)
    require_vacant(place)
    scorer = query.scorer(loaded, tokens_per_batch)
    found = survey(candidates, sample=0, duplicates=how.duplicates, keep=run_folder(place) / "pool.jsonl")
    identity = {
        **{"method": query.spec.to_json(), "targets": query.targets},
        **{"model": dict(query.model), "tokenization": dict(query.tokenization)},
    }
    job = Job(found, tuple(query.targets), identity, {"notes": dict(scorer.notes)}, place)
    values = run(job, of_scorer(scorer), resume=how.resume, on_rows=how.on_rows("valuing", found.count))
    return Valued(values, scorer.notes)


def audit(
    values: Values,
    candidates: Pool,
    reader: Reader | None,
    *,
    judge: QueryFile | Target,
    sample: int = 100,
    threshold: float = 0.9,
    seed: int = 0,
) -> Audit:
    """Label a random sample of the candidates again and hold the values beside the labels.

    Args:
        values: what the provider handed in; a student's values are held beside those of its teacher.
        candidates: the rows, as shown to the third party.
        reader: the model, and how it reads rows.
        judge: the owner's query file, or the target itself.
        sample: rows to label.
        threshold: Spearman correlation from which the values are confirmed.
        seed: of the sample.

    Raises:
        MismatchError: the candidates are not the rows the values are of.
    """
    looked = survey(candidates, sample=sample, seed=seed)
    if values.about.get("pool", looked.digest) != looked.digest:
        what = f"the candidates are not the {values.table.num_rows:,} rows the values are of"
        raise MismatchError(what, fields=("pool",), where=values.path, remedy="ask for the pool that was valued")
    scorer = _judge(values, reader, judge, looked.sample)
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
    return Audit(len(truth), spearman(claimed, truth, if_constant=0.0), inside, largest, threshold)


def _judge(values: Values, reader: Reader | None, judge: QueryFile | Target, sample: Sequence[Row]) -> Scorer:
    """The scorer a third party trusts: the query file's, or the values' own method on the target."""
    if isinstance(judge, QueryFile):
        if reader is None:
            raise UsageError("a query file is used with the model it was read off", remedy="name it with --model")
        return judge.scorer(reader.loaded, reader.tokens_per_batch)
    identity = values.about.get("identity", {})
    spec = identity.get("teacher") or identity.get("method") or identity.get("student", {}).get("teacher")
    if spec is None:
        what = "the file does not say which method its values are of"
        raise DataError(what, where=values.path, remedy="audit a file that headwater value wrote")
    method = restore_method(MethodSpec.from_json(spec))
    return prepare(method, reader, [judge], sample[: method.fit_rows])
