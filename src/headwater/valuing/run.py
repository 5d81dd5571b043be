"""Value a pool: every candidate row's influence on one or more targets, block by block, into a values file.

    survey ─▶ method made ready for the targets ─▶ blocks of rows ─▶ estimates ─▶ values.parquet

Each block's estimates are a file of the run's folder, written whole; a run that was killed goes on after the last of
them, once the survey has found the pool to be the same.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from headwater.core.errors import DataError, StoreError, UsageError
from headwater.core.fingerprints import digest, require_equal
from headwater.data.rows import Row
from headwater.indexing.build import blocks
from headwater.methods.streaming import Scorer, Target
from headwater.valuation.intervals import intervals, over_targets
from headwater.valuation.values import Values, final_names, read_values, schema_of
from headwater.valuing.survey import Pool, Survey, cell, content, text_of

Estimates = Float[np.ndarray, "rows targets 3"]
"""Value, low and high of every row on every target; positive = the row helps."""
Estimate = Callable[[Sequence[Row]], Estimates]
"""Estimates of a block of rows."""
Progress = Callable[[int], None]
"""Called after each block with the rows done."""

BLOCK_ROWS = 256
"""Rows whose estimates are kept together: what a killed run loses at most."""


@dataclass(frozen=True)
class Job:
    """What is to be valued, and where to.

    Attributes:
        corpus: the pool.
        survey: what a pass over it found.
        targets: names of the targets.
        identity: all that the numbers depend on, JSON-ready; a run goes on only with an equal one.
        about: what else the values file says of itself.
        out: the Parquet file.
        block_rows: rows estimated together.
    """

    corpus: Pool
    survey: Survey
    targets: tuple[str, ...]
    identity: Mapping[str, Any]
    about: Mapping[str, Any]
    out: Path
    block_rows: int = BLOCK_ROWS

    @property
    def folder(self) -> Path:
        """Where the run keeps its blocks until it is done."""
        return self.out.with_name(f"{self.out.name}.run")


def run(job: Job, estimate: Estimate, *, resume: bool = False, progress: Progress | None = None) -> Values:
    """Estimate every row of the pool and write the values file.

    Raises:
        StoreError: the file is there already, or a run of it that `resume` was not given for.
        MismatchError: on resume, something the numbers depend on differs.
    """
    begin(job, resume=resume)
    fill(job.folder, job.corpus, estimate, job.block_rows, progress)
    _write(job)
    shutil.rmtree(job.folder)
    return read_values(job.out)


def fill(
    folder: Path, rows: Iterable[Row], estimate: Estimate, block_rows: int, progress: Progress | None = None
) -> None:
    """Estimate the rows block by block into `folder`, leaving out the blocks that are there."""
    done = 0
    for number, block in enumerate(blocks(rows, block_rows)):
        path = folder / f"{number:06d}.npy"
        if not path.exists():
            _save(path, estimate(block))
        done += len(block)
        if progress is not None:
            progress(done)


def of_scorer(scorer: Scorer) -> Estimate:
    """Estimates from a method's scores: the spread over a target's parts gives the interval."""
    targets, weights = [part.target for part in scorer.parts], [part.rows for part in scorer.parts]
    return lambda rows: intervals(scorer(rows), targets, weights)


def target_digest(target: Target) -> str:
    """A target by what its rows say, whatever their order."""
    return digest(sorted(content(row) for row in target.rows))


def check_targets(targets: Sequence[Target]) -> None:
    """Refuse targets that share a name."""
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two targets are called '{name}'", where="--target", remedy="rename one of the files")


def begin(job: Job, *, resume: bool) -> None:
    """Make the run's folder, or find that the one there is of the same run."""
    if job.out.exists():
        raise StoreError("there is a file already", where=str(job.out), remedy="remove it, or choose another name")
    note = job.folder / "run.json"
    identity = {**job.identity, "pool": job.survey.digest, "block_rows": job.block_rows}
    if note.exists():
        if not resume:
            remedy = f"--resume goes on with it; or remove {job.folder}"
            raise StoreError("an unfinished run is there", where=str(job.folder), remedy=remedy)
        what = f"the run at {job.folder} was begun with other settings"
        remedy = "give the settings it was begun with, or remove the folder"
        require_equal(json.loads(note.read_text(encoding="utf-8")), identity, what=what, remedy=remedy)
        return
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(identity, indent=2, sort_keys=True, default=str))
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise StoreError(what, where=str(job.folder), remedy="choose a folder you own") from error


def write_text(path: Path, text: str) -> None:
    """A whole file or none."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)


def _save(path: Path, estimates: Estimates) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.save(file, estimates)
    os.replace(part, path)


def _write(job: Job) -> None:
    """The blocks and the rows' metadata as one Parquet file."""
    names = final_names(list(job.survey.metadata), job.targets)
    kinds = {names[name]: kind for name, kind in job.survey.metadata.items()}
    renamed = {name: final for name, final in names.items() if name != final}
    about = {
        **job.about,
        **{"identity": dict(job.identity), "pool": job.survey.digest, "rows": job.survey.count},
        **{"candidates": job.corpus.name, "leaked": len(job.survey.leaked), "renamed": renamed},
        **{"targets": job.identity.get("targets", {}), "headwater": importlib.metadata.version("headwater")},
        "sign": "positive = the row helps: training on it lowers the target's loss",
    }
    schema = schema_of(kinds, job.targets, about)
    part = job.out.with_name(f".{job.out.name}.part")
    try:
        with pq.ParquetWriter(part, schema) as writer:
            for table in _tables(job, schema, names):
                writer.write_table(table)
        os.replace(part, job.out)
    finally:
        part.unlink(missing_ok=True)


def _tables(job: Job, schema: pa.Schema, names: Mapping[str, str]) -> Iterator[pa.Table]:
    start = 0
    for number, rows in enumerate(blocks(job.corpus, job.block_rows)):
        estimates = np.load(job.folder / f"{number:06d}.npy")
        if len(estimates) != len(rows):
            raise DataError("the pool changed while it was valued", where=job.corpus.name, remedy="value it again")
        whole = over_targets(estimates)
        columns: dict[str, Any] = {"id": [row.id for row in rows]}
        columns |= {name: whole[:, i] for i, name in enumerate(("value", "low", "high"))}
        for place, target in enumerate(job.targets if len(job.targets) > 1 else ()):
            columns |= {f"{n}_{target}": estimates[:, place, i] for i, n in enumerate(("value", "low", "high"))}
        for name, kind in job.survey.metadata.items():
            columns[names[name]] = [cell(row.metadata.get(name), kind) for row in rows]
        columns["characters"] = [len(text_of(row)) for row in rows]
        found = job.survey.clusters
        columns["cluster"] = [None] * len(rows) if found is None else found[start : start + len(rows)]
        yield pa.table([pa.array(columns[field.name], field.type, from_pandas=True) for field in schema], schema=schema)
        start += len(rows)
