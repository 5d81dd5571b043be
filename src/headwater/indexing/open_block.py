"""Rows of a block that Ctrl-C interrupted: the index holds them, and the next run computes the others.

The batches of a block are planned over all its rows, so the rows that are there when a build is interrupted are not the
block's first ones. They are committed all the same (`keep_open`), and the manifest notes where they begin. The next run
divides the whole block into the same batches, computes those that are missing, and puts the whole block, in order, in
place of these rows, in one commit. So it ends with the bits of a run that nobody interrupted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.core.spec import Column
from headwater.data.tokens import TokenRow
from headwater.index.failures import storing
from headwater.index.fragments import commit_fragments, fragment_numbers
from headwater.index.rows import vector_array
from headwater.index.store import Index
from headwater.methods.gathered import Gathered
from headwater.search.codes import stored_names


@dataclass(frozen=True)
class OpenBlock:
    """The rows of an open block that an index holds.

    Attributes:
        fragments: the numbers of the fragments that hold them, and no other rows.
        places: a row's `name_of` to its place in `table`.
        table: their losses and vectors.
    """

    fragments: tuple[int, ...]
    places: Mapping[str, int]
    table: pa.Table

    def within(self, rows: Sequence[TokenRow]) -> bool:
        """Whether all of them are among these rows of one block, which then is the open one."""
        return self.places.keys() <= {name_of(row) for row in rows}

    def fill(self, found: Gathered, columns: Sequence[Column]) -> None:
        """Put their losses and vectors, `columns`, to the rows of `found`."""
        mine = [(i, self.places[name]) for i, row in enumerate(found.rows) if (name := name_of(row)) in self.places]
        to, table = [i for i, _ in mine], self.table.take([place for _, place in mine])
        vectors = {name: _array(table.column(name)) for column in columns for name in stored_names(column)}
        found.put(to, table.column("loss").to_numpy(), vectors)


def name_of(row: TokenRow) -> str:
    """What tells a row from others: its digest and its id."""
    return row.digest + row.row.id


def read_open(index: Index) -> OpenBlock | None:
    """The open block of an index; None if there is none, or no row of it is left."""
    after = index.manifest.open_after
    if after is None:
        return None
    fragments = [one for one in index.dataset.get_fragments() if one.fragment_id > after]
    if not fragments:
        return None
    columns = [name for column in index.manifest.columns for name in stored_names(column)]
    with storing(index.path):
        wanted = ["id", "digest", "loss", *columns]
        table = index.dataset.scanner(columns=wanted, fragments=fragments, scan_in_order=True).to_table()
    if not table.num_rows:
        return None
    names = zip(table.column("digest").to_pylist(), table.column("id").to_pylist(), strict=True)
    places = {row_digest + row_id: i for i, (row_digest, row_id) in enumerate(names)}
    return OpenBlock(tuple(one.fragment_id for one in fragments), places, table)


def keep_open(index: Index, fragments: Sequence[Mapping[str, Any]], instead_of: Sequence[int]) -> None:
    """Commit rows of a block that is not finished; those that the index had of it are in `instead_of`."""
    with index.writing():
        if not instead_of:  # noted first: a note without rows does no harm
            after = max(fragment_numbers(index), default=-1)
            index.set_manifest(dataclasses.replace(index.manifest, open_after=after))
        commit_fragments(index, fragments, instead_of=instead_of)


def commit_whole(index: Index, fragments: Sequence[Mapping[str, Any]], instead_of: Sequence[int]) -> None:
    """Commit whole blocks; if the open one is among them, they take the place of its rows, `instead_of`."""
    with index.writing():
        if instead_of:
            commit_fragments(index, fragments, instead_of=instead_of)
        close(index)
        if not instead_of:
            commit_fragments(index, fragments)


def close(index: Index) -> None:
    """From now on the rows of the open block, if there is one, are rows like others."""
    if index.manifest.open_after is not None:
        index.set_manifest(dataclasses.replace(index.manifest, open_after=None))


def _array(column: pa.ChunkedArray) -> NDArray[np.generic]:
    return vector_array(column) if pa.types.is_fixed_size_list(column.type) else column.to_numpy()
