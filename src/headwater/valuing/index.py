"""Value the rows of an index by its own vectors; the model reads the target alone.

With an index of `graddot` the value is LinFiK's gradient form, with `gradcos` its cosine. With any other index it is
the method's own score, with the metrics that were fitted on the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headwater.data.rows import Row
from headwater.index.rows import from_record
from headwater.index.store import Index
from headwater.indexing.searching import score_all
from headwater.indexing.session import Session
from headwater.methods.targets import Part, Target, evenly_spaced, laid_out
from headwater.tracing.queries import ask
from headwater.valuation.values import intervals
from headwater.valuing.request import Valued, ValueOptions
from headwater.valuing.run import Estimates, Job, check_targets, require_vacant, run, target_digest
from headwater.valuing.survey import survey
from headwater.valuing.trust import Doubts, ceilings

SOME = 1000
"""Rows of the index on which the target's ceiling is measured."""


@dataclass(frozen=True)
class IndexPool:
    """An index's rows as a pool."""

    index: Index

    @property
    def name(self) -> str:
        """The index's path."""
        return self.index.path

    @property
    def count(self) -> int:
        """How many rows the index has."""
        return self.index.count

    def __iter__(self) -> Iterator[Row]:
        ordinal = 0
        for batch in self.index.batches(self.index.plain):
            for record in batch.to_pylist():
                record.pop("_rowaddr")
                yield from_record(record, ordinal=ordinal, place=self.index.path, vectors=self.index.vectors)
                ordinal += 1


def value_index(
    session: Session, targets: Sequence[Target], out: str | Path, *, options: ValueOptions | None = None
) -> Valued:
    """Value all rows of an index in one exact scan; the interval comes from the spread over the target's rows.

    Raises:
        StoreError: rows times target rows do not fit in memory, or `out` exists already.
    """
    how, index, method = options or ValueOptions(), session.index, session.bound.method
    check_targets(targets)
    require_vacant(Path(out))
    rows = laid_out(targets)
    asked = ask(session, rows)
    scores = score_all(index, asked.probes, metrics=asked.metrics, engine=how.engine)
    owners = [target.name for target in targets for _ in target.rows]
    place = {name: i for i, name in enumerate(scores.ids)}

    def estimate(block: Sequence[Row]) -> Estimates:
        found = scores.values[np.array([place[row.id] for row in block])]
        return intervals(found, owners, [1] * len(owners))

    manifest = index.manifest
    pool = IndexPool(index)
    looked = survey(pool, sample=0, target=rows, duplicates=how.duplicates if manifest.keeps_text else None)
    identity = {
        "method": manifest.method.to_json(),
        "targets": {target.name: target_digest(target) for target in targets},
        "model": dict(manifest.model["fingerprint"]),
        "tokenization": manifest.tokenization,
    }
    some = evenly_spaced(range(len(scores.ids)), SOME)
    doubts = Doubts(ceilings(scores.values[some], [Part(name) for name in owners]))
    notes = {"coverage": str(manifest.coverage), "index": index.path, **doubts.notes}
    names = tuple(target.name for target in targets)
    job = Job(looked, names, identity, {"notes": notes}, Path(out), method.meaning)
    values = run(job, estimate, resume=how.resume, on_rows=how.on_rows("writing", looked.count))
    return Valued(values, notes, looked.leaked, warnings=doubts.warnings)
