"""Fragments: files of rows, written apart from the version that takes them in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata

from headwater.index.failures import storing
from headwater.index.store import Index


def write_fragments(index: Index, table: pa.Table) -> list[dict[str, Any]]:
    """Write a table as files that belong to no version yet, and return the JSON-ready input of `commit_fragments`.

    The table has all the index's columns; `checksum` is filled here if it is empty. `headwater.index.upkeep.sweep`
    removes files that are never committed.
    """
    with storing(index.path):
        filled = index.summed(table) if table.column("checksum").null_count else table
        made = lance.fragment.write_fragments(filled, index.dataset, mode="append")
    return [fragment.to_json() for fragment in made]


def commit_fragments(index: Index, fragments: Sequence[Mapping[str, Any]], *, instead_of: Sequence[int] = ()) -> None:
    """Append written fragments to the index, in this order, as one commit, which removes the fragments `instead_of`."""
    with index.writing(), storing(index.path):
        new = [FragmentMetadata.from_json(json.dumps(f)) for f in fragments]
        change: Any = lance.LanceOperation.Append(new)
        if instead_of:
            change = lance.LanceOperation.Update(removed_fragment_ids=list(instead_of), new_fragments=new)
        index.dataset = lance.LanceDataset.commit(index.dataset, change, read_version=index.dataset.version)


def fragment_numbers(index: Index) -> list[int]:
    """The numbers of the fragments whose rows the index has, ascending; a later fragment has a higher number."""
    return sorted(fragment.fragment_id for fragment in index.dataset.get_fragments())
