"""Value rows block by block into a values file.

    pool ─survey─▶ its rows, kept beside the output ─▶ blocks ─estimates─▶ one file a block ─▶ values.parquet

The pool itself is read once; the run's folder keeps its rows until the values file is written. A run that was killed
continues after its last finished block, if the survey finds that the pool is the same.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from headwater.core.errors import StoreError, UsageError
from headwater.core.files import whole_file, write_text
from headwater.core.fingerprints import digest, require_equal
from headwater.data.rows import Row
from headwater.engines.blocks import Block, Engine, Receipt, WorkRecipe, cut
from headwater.engines.local import Local
from headwater.methods.method import PROPONENT, Meaning
from headwater.methods.targets import Scorer, Target
from headwater.valuation.normal_form import visible_length
from headwater.valuation.values import Values, final_names, intervals, over_targets, read_values, schema_of
from headwater.valuing.survey import SurveyedPool, cell, text_of

Estimates = Float[np.ndarray, "rows targets 3"]
"""Value, low and high of every row on every target; the method's `meaning` states unit and sign."""
Estimate = Callable[[Sequence[Row]], Estimates]
"""Computes the estimates of a block of rows."""
OnRows = Callable[[int], None]
"""Called after each block with the rows done."""

BLOCK_ROWS = 256
"""Rows whose estimates are saved together; a killed run loses at most one such block."""


@dataclass(frozen=True)
class Job:
    """One run: the pool and the targets, and the file to write.

    Attributes:
        survey: the pool after its survey.
        targets: names of the targets.
        identity: everything the numbers depend on, JSON-ready; a run is continued only with an equal identity.
        about: further metadata of the values file.
        out: the Parquet file.
        meaning: unit and sign of a value.
        block_rows: rows that are estimated together.
    """

    survey: SurveyedPool
    targets: tuple[str, ...]
    identity: Mapping[str, Any]
    about: Mapping[str, Any]
    out: Path
    meaning: Meaning = PROPONENT
    block_rows: int = BLOCK_ROWS

    @property
    def folder(self) -> Path:
        """Where the run keeps its finished blocks until the values file is written."""
        return run_folder(self.out)


def run_folder(out: Path) -> Path:
    """The folder of the run that writes the values file `out`."""
    return out.with_name(f"{out.name}.run")


def run(
    job: Job,
    estimate: Estimate,
    *,
    resume: bool = False,
    on_rows: OnRows | None = None,
    engine: Engine | None = None,
    recipe: Recipe | None = None,
) -> Values:
    """Estimate every row of the pool and write the values file; `engine` and `recipe` as in `estimate_rows`.

    Raises:
        StoreError: the file exists already, or it has an unfinished run and `resume` is not set.
        MismatchError: on resume, something that the numbers depend on differs.
    """
    begin(job, resume=resume)
    work = EstimateFiles(job.folder, estimate, recipe)
    estimate_rows(work, job.survey.rows, job.block_rows, on_rows=on_rows, engine=engine)
    _write(job)
    shutil.rmtree(job.folder)
    return read_values(job.out)


Recipe = Callable[[], WorkRecipe]
"""Describes how another process makes the same estimates."""


@dataclass(frozen=True)
class EstimateFiles:
    """The `Work` of estimating rows: a block's numbers travel in its receipt, and become a file when it is committed.

    Attributes:
        folder: where the files go.
        estimate: computes the numbers.
        described: says how another process computes them; None if none can.
    """

    folder: Path
    estimate: Estimate
    described: Recipe | None = None

    def path(self, number: int) -> Path:
        """The file of a finished block."""
        return self.folder / f"{number:06d}.npy"

    def prepare(self, block: Block[Row]) -> Block[Row]:
        """Nothing is prepared."""
        return block

    def compute(self, prepared: Block[Row]) -> tuple[Block[Row], Estimates]:
        """Estimate the rows."""
        return prepared, self.estimate(prepared.items)

    def write(self, computed: tuple[Block[Row], Estimates]) -> Receipt:
        """The receipt, with the numbers as little-endian float64, and their shape."""
        block, estimates = computed
        numbers = base64.b64encode(np.ascontiguousarray(estimates, "<f8").tobytes()).decode("ascii")
        found = {"shape": list(estimates.shape), "estimates": numbers}
        return Receipt(block.number, block.start, len(block.items), 0, found)

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Write the blocks' files."""
        for receipt in receipts:
            numbers = np.frombuffer(base64.b64decode(receipt.written["estimates"]), "<f8")
            with whole_file(self.path(receipt.block)) as part:
                np.save(part, numbers.reshape(receipt.written["shape"]))

    def recipe(self) -> WorkRecipe:
        """How another process makes the same estimates."""
        if self.described is None:
            what = "these values are computed in this process alone"
            raise UsageError(what, where="--engine", remedy="leave --engine out")
        return self.described()


def estimate_rows(
    work: EstimateFiles,
    rows: Iterable[Row],
    block_rows: int,
    *,
    on_rows: OnRows | None = None,
    engine: Engine | None = None,
) -> None:
    """Estimate the rows block by block on an engine (None: here); blocks whose files are there are skipped."""

    def missing() -> Iterator[Block[Row]]:
        for block in cut(rows, block_rows):
            if not work.path(block.number).exists():
                yield block
            elif on_rows is not None:
                on_rows(block.start + len(block.items))

    told = None if on_rows is None else lambda r: on_rows(r.start + r.rows)
    (engine or Local()).run(missing(), work, told)


def of_scorer(scorer: Scorer) -> Estimate:
    """Turn a method's scores into estimates: the interval comes from the spread over a target's parts."""
    targets, weights = [part.target for part in scorer.parts], [part.rows for part in scorer.parts]
    return lambda rows: intervals(scorer(rows), targets, weights)


def target_digest(target: Target) -> str:
    """Digest of the texts of a target's rows, in any order."""
    return digest(sorted(digest(dict(row.fields())) for row in target.rows))


def check_targets(targets: Sequence[Target]) -> None:
    """Raise `UsageError` if there is no target, or if two have the same name."""
    if not targets:
        raise UsageError("no target", where="--target", remedy="give rows of the task you want data for")
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two targets are called '{name}'", where="--target", remedy="rename one of the files")


def require_vacant(out: Path) -> None:
    """Raise `StoreError` if the file exists already."""
    if out.exists():
        raise StoreError("there is a file already", where=str(out), remedy="remove it, or choose another name")


def begin(job: Job, *, resume: bool) -> None:
    """Make the run's folder, or check that the existing one is of the same run; errors as in `run`."""
    require_vacant(job.out)
    note = job.folder / "run.json"
    identity = {**job.identity, "pool": job.survey.identity, "block_rows": job.block_rows}
    if note.exists():
        if not resume:
            remedy = f"continue it with --resume, or remove {job.folder}"
            raise StoreError("an unfinished run is there", where=str(job.folder), remedy=remedy)
        what = f"the run at {job.folder} was begun with other settings"
        remedy = "give the settings it was begun with, or remove the folder"
        require_equal(json.loads(note.read_text(encoding="utf-8")), identity, what=what, remedy=remedy)
        return
    write_text(note, json.dumps(identity, indent=2, sort_keys=True, default=str) + "\n")


def _write(job: Job) -> None:
    """Write the blocks and the rows' metadata as one Parquet file."""
    survey = job.survey
    names = final_names(list(survey.metadata), job.targets)
    kinds = {names[name]: kind for name, kind in survey.metadata.items()}
    about = {
        **job.about,
        "identity": dict(job.identity),
        "pool": survey.digest,
        "rows": survey.count,
        **survey.origin,
        "columns": dict(survey.columns),
        "leaked": len(survey.leaked),
        "renamed": {name: final for name, final in names.items() if name != final},
        "targets": job.identity.get("targets", {}),
        "headwater": importlib.metadata.version("headwater"),
        "sign": job.meaning.text,
        "signed": job.meaning.signed,
    }
    schema = schema_of(kinds, job.targets, about)
    with whole_file(job.out) as part, pq.ParquetWriter(part, schema) as writer:
        for table in _tables(job, schema, names):
            writer.write_table(table)


def _tables(job: Job, schema: pa.Schema, names: Mapping[str, str]) -> Iterator[pa.Table]:
    for block in cut(job.survey.rows, job.block_rows):
        rows = block.items
        estimates = np.load(job.folder / f"{block.number:06d}.npy")
        whole = over_targets(estimates)
        columns: dict[str, Any] = {"id": [row.id for row in rows]}
        columns |= {name: whole[:, i] for i, name in enumerate(("value", "low", "high"))}
        for place, target in enumerate(job.targets if len(job.targets) > 1 else ()):
            columns |= {f"{n}_{target}": estimates[:, place, i] for i, n in enumerate(("value", "low", "high"))}
        for name, kind in job.survey.metadata.items():
            columns[names[name]] = [cell(row.metadata.get(name), kind) for row in rows]
        columns["characters"] = [visible_length(text_of(row)) for row in rows]
        found = job.survey.clusters
        columns["cluster"] = [None] * len(rows) if found is None else found[block.start : block.start + len(rows)]
        yield pa.table([pa.array(columns[field.name], field.type, from_pandas=True) for field in schema], schema=schema)
