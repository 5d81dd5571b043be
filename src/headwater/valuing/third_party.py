"""Valuation between parties who do not show each other their rows.

    owner        export_target    model + target → a query file: sketched gradients or readouts, no text
    provider     score_query      candidates + query file (+ the model) → values; or a saved student → values
    third party  audit            scores a random sample of the candidates again and compares

The query file holds the target's vectors, averaged within a few folds. A values file holds numbers and the candidates'
own metadata. Neither holds text. But a sketch is not encryption: whoever has the model can guess a row and test whether
it is likely in the target.
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
from headwater.valuing.request import Valued, ValueOptions
from headwater.valuing.run import Job, of_scorer, require_vacant, run, run_folder
from headwater.valuing.survey import Pool, survey

FOLDS = 8
"""The target's rows are split into so many folds, and the query file holds the mean vectors of each fold alone."""

_KEY = "headwater.query"
_FORMAT = 1


@dataclass(frozen=True)
class QueryFile:
    """A target in the form that its owner gives to others.

    Attributes:
        probes: its vectors.
        spec: the method that computed them.
        model: fingerprint of the model that computed them.
        tokenization: fingerprint of how rows become tokens.
    """

    probes: Probes
    spec: MethodSpec
    model: Mapping[str, Any]
    tokenization: Mapping[str, Any]

    @property
    def targets(self) -> dict[str, str]:
        """The name of each target, with a digest of the vectors."""
        raw = [np.ascontiguousarray(v.numpy()).tobytes() for _, v in sorted(self.probes.vectors.items())]
        found = digest(*raw)
        return {part.target: found for part in self.probes.parts}

    def scorer(self, loaded: LoadedModel, tokens_per_batch: int = TOKENS_PER_BATCH) -> Scorer:
        """Prepare a scorer of candidates; raises `MismatchError` for another model or tokenizer."""
        reader = Reader.like(loaded, self.model, self.tokenization, tokens_per_batch, where="the query file")
        return score_probes(restore_method(self.spec), reader, self.probes)


@dataclass(frozen=True)
class Audit:
    """How well a values file agrees with the scores of a third party.

    Attributes:
        rows: how many rows were scored again.
        spearman: correlation of the values with the new scores.
        inside: share of the new scores inside the values' intervals; NaN if there are no intervals.
        largest: id of the row with the largest difference, and the difference in standard deviations of the new scores.
        threshold: least Spearman correlation that confirms the values.
    """

    rows: int
    spearman: float
    inside: float
    largest: tuple[str, float]
    threshold: float

    @property
    def confirmed(self) -> bool:
        """Whether the correlation reaches the threshold."""
        return self.spearman >= self.threshold

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {**asdict(self), "confirmed": self.confirmed}


def export_target(reader: Reader, target: Target, out: str | Path, *, method: Method) -> QueryFile:
    """Write the target as a query file: its vectors averaged within `FOLDS` folds, with method, model and tokenizer.

    Raises:
        UsageError: a fold would have a single row, or the method has no vectors.
        StoreError: the file exists already, or cannot be written.
    """
    if len(target.rows) < 2 * FOLDS:
        what = f"the target has {len(target.rows)} rows, and each of {FOLDS} folds must average at least 2"
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
    """Read the query file that an owner wrote.

    Raises:
        DataError: it is not a query file, or has another format.
    """
    remedy = "headwater value export-target writes one"
    try:
        with safe_open(str(path), framework="pt") as file:
            described = json.loads((file.metadata() or {})[_KEY])
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        if described["format"] != _FORMAT:
            what = f"its format is {described['format']}, not {_FORMAT}"
            raise DataError(what, where=str(path), remedy="export the target again")
        parts = tuple(Part(**part) for part in described["parts"])
        spec = MethodSpec.from_json(described["method"])
        return QueryFile(Probes(vectors, parts), spec, described["model"], described["tokenization"])
    except FileNotFoundError:
        raise DataError("there is no such file", where=str(path), remedy=remedy) from None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError("this is not a query file", where=str(path), remedy=remedy) from error


def score_query(
    candidates: Pool,
    query: QueryFile,
    loaded: LoadedModel,
    out: str | Path,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    options: ValueOptions | None = None,
) -> Valued:
    """Value candidates for a target of which only the vectors are known."""
    how, place = options or ValueOptions(), Path(out)
    require_vacant(place)
    scorer = query.scorer(loaded, tokens_per_batch)
    found = survey(candidates, sample=0, duplicates=how.duplicates, keep=run_folder(place) / "pool.jsonl")
    identity = {"method": query.spec.to_json(), "targets": query.targets}
    identity |= {"model": dict(query.model), "tokenization": dict(query.tokenization)}
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
    """Check values: score a random sample of the candidates again and compare.

    Args:
        values: the values that the provider delivered; a student's values are compared with its teacher's scores.
        candidates: the rows, as shown to the third party.
        reader: the model, and how it reads rows.
        judge: the owner's query file, or the target itself.
        sample: how many rows to score again.
        threshold: least Spearman correlation that confirms the values.
        seed: of the sample.

    Raises:
        MismatchError: the candidates are not the rows the values are of.
        UsageError: a query file without a model.
        DataError: the values file does not name its method.
    """
    looked = survey(candidates, sample=sample, seed=seed)
    if (values.about.get("pool") or looked.digest) != looked.digest:
        what = f"the candidates are not the {values.table.num_rows:,} rows the values are of"
        raise MismatchError(what, fields=("pool",), where=values.path, remedy="give the pool that was valued")
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
    """The scorer to compare with: that of the query file, or the values' own method on the target."""
    if isinstance(judge, QueryFile):
        if reader is None:
            raise UsageError("a query file needs the model it was made with", remedy="name it with --model")
        return judge.scorer(reader.loaded, reader.tokens_per_batch)
    identity = values.about.get("identity", {})
    spec = identity.get("teacher") or identity.get("method") or identity.get("student", {}).get("teacher")
    if spec is None:
        what = "the file does not name the method of its values"
        raise DataError(what, where=values.path, remedy="audit a file that headwater value wrote")
    method = restore_method(MethodSpec.from_json(spec))
    return prepare(method, reader, [judge], sample[: method.fit_rows])
