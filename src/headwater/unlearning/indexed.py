"""The influence of rows on each other from a trace index that holds their vectors: no second pass through the model."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.core.errors import DataError
from headwater.core.fingerprints import require_equal
from headwater.data.tokens import TokenRow
from headwater.index.store import open_index
from headwater.models.reader import Reader
from headwater.search.codes import stored_names, stored_vectors
from headwater.unlearning.views import Influence, influence_of


def indexed_influence(
    path: str, reader: Reader, forget: Sequence[TokenRow], retain: Sequence[TokenRow], *, cosine: bool = True
) -> Influence:
    """Influence of the rows on each other, from the vectors that the index at `path` holds of them.

    Rows are found by the digest of their tokens, so it does not matter what they are called.

    Raises:
        StoreError: there is no index.
        MismatchError: the index is of another model.
        DataError: rows that the index does not hold; names them.
    """
    index = open_index(path)
    what = f"the index '{path}' is of another model than the one that unlearns"
    remedy = "give the index of this model, or leave --index out: the rows are then read with the model"
    kept = index.manifest.model["fingerprint"]
    ours = {name: value for name, value in reader.loaded.fingerprint.items() if name in kept}  # older ones have fewer
    require_equal(kept, ours, what=what, remedy=remedy)
    place = {value: i for i, value in enumerate(index.digests())}
    rows = [*forget, *retain]
    missing = [row.row.id for row in rows if row.digest not in place]
    if missing:
        shown = ", ".join(f"'{name}'" for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{len(missing)} of {len(rows)} rows are not in the index: {shown}",
            where=path,
            remedy="add them (headwater index add), or leave --index out: the rows are then read with the model",
        )
    positions = [place[row.digest] for row in rows]
    columns = [column for column in index.manifest.columns if column.weight]
    found = {c.name: stored_vectors(index.take(positions, stored_names(c)), c) for c in columns}
    return influence_of(found, columns, forget=len(forget), cosine=cosine, method=index.manifest.method.name)
