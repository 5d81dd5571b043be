"""Value the rows of an index: its own vectors against a target's, and nothing read but the target.

With an index of plain gradients (`graddot`; `gradcos`) this is LinFiK's gradient form (its cosine); with any other it
is that method's score, metrics fitted on the index included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwater.data.rows import Row
from headwater.index.rows import from_record
from headwater.index.store import Index
from headwater.indexing.session import open_session
from headwater.methods.streaming import Target
from headwater.models.load import LoadedModel
from headwater.search.scan import score_all
from headwater.tracing import ranking
from headwater.valuation.intervals import intervals
from headwater.valuing.run import Estimates, Job, check_targets, run, target_digest
from headwater.valuing.survey import survey
from headwater.valuing.value import Settings, Valued


@dataclass(frozen=True)
class IndexRows:
    """An index's rows as a pool."""

    index: Index

    @property
    def name(self) -> str:
        """The index's path."""
        return self.index.path

    @property
    def count(self) -> int:
        """Its rows."""
        return self.index.count

    def __iter__(self) -> Iterator[Row]:
        ordinal = 0
        for batch in self.index.batches(self.index.plain):
            for record in batch.to_pylist():
                record.pop("_rowaddr")
                yield from_record(record, ordinal=ordinal, place=self.index.path, vectors=self.index.vectors)
                ordinal += 1


def value_index(
    index: Index,
    targets: Sequence[Target],
    out: str | Path,
    *,
    model: LoadedModel | str | None = None,
    placement: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> Valued:
    """Values of all rows of an index, from one exact scan; a target's rows give the interval.

    Raises:
        MismatchError: the model or tokenizer is not the index's.
        StoreError: rows times target rows do not fit in memory, or `out` is there already.
    """
    how = settings or Settings()
    check_targets(targets)
    session = open_session(index, model, **(placement or {}))
    rows = [row for target in targets for row in target.rows]
    chosen = ranking.weights(index.manifest.columns, None)
    vectors = session.reader.encode(rows, "query").vectors
    probes, metrics = ranking.prepare(index, session.reader, vectors, chosen)
    scores = score_all(index, probes, metrics=metrics)
    owners = [target.name for target in targets for _ in target.rows]
    place = {name: i for i, name in enumerate(scores.ids)}

    def estimate(block: Sequence[Row]) -> Estimates:
        found = scores.values[np.array([place[row.id] for row in block])]
        return intervals(found, owners, [1] * len(owners))

    pool = IndexRows(index)
    looked = survey(pool, sample=0, target=rows, duplicates=how.duplicates if index.manifest.keeps_text else None)
    manifest = index.manifest
    identity = {
        "method": manifest.method.to_json(),
        "targets": {target.name: target_digest(target) for target in targets},
        "model": dict(manifest.model["fingerprint"]),
        "tokenization": manifest.tokenization,
    }
    notes = {"coverage": str(manifest.coverage), "index": index.path}
    job = Job(pool, looked, tuple(target.name for target in targets), identity, {"notes": notes}, Path(out))
    values = run(job, estimate, resume=how.resume, progress=how.report("writing", looked.count))
    return Valued(values, notes, looked.leaked)
