"""What the commands of `headwater index` print with `--json`; see `headwater.cli.results`."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

Number = float | None
"""A number, or null where there is none."""


class RowBytes(TypedDict):
    """Bytes of a row, by what they hold."""

    vectors: float
    text: float
    other: float


class Version(TypedDict):
    """One version of the index's dataset."""

    version: int
    written: Annotated[str, "Date and time, ISO 8601."]


class Chosen(TypedDict):
    """A method with all its options."""

    name: str
    options: dict[str, Any]


class VectorColumn(TypedDict):
    """A vector column of an index."""

    name: str
    dim: Annotated[int, "Numbers in a vector."]
    dtype: Annotated[str, "float16, float32, int8, sign, int2, int4 or factors."]
    weight: Annotated[float, "What multiplies its inner product in a score; 0: it is not in the method's own score."]
    bits: Annotated[int, "Length of a code of rotated coordinates; 0 for others."]
    matrices: NotRequired[Annotated[list[list[int]], "Sides of the matrices of a two-sided sketch."]]
    rank: NotRequired[Annotated[int, "Rank of the factors that are stored."]]


class Covered(TypedDict):
    """The part of the model that enters the scores."""

    seen: Annotated[int, "Parameters."]
    total: int
    note: str
    tensors_seen: int
    tensors_total: int


class ReadingFacts(TypedDict):
    """How many rows and tokens were cut or read in windows."""

    rows_cut: int
    tokens_cut: int
    targets_unread: int
    rows_in_windows: int
    rows_without_beginning: int
    targets_without_beginning: int


class Tallied(TypedDict):
    """What the index held when it was last finished."""

    rows: int
    checksum: str


class Batches(TypedDict):
    """How a build was divided."""

    block_rows: int
    tokens_per_batch: int


class IndexFacts(TypedDict):
    """An index, described."""

    path: str
    rows: int
    deleted_rows: Annotated[int, "Deleted rows that are still in the files."]
    warning: Annotated[str | None, "What is unfinished."]
    bytes: Annotated[int, "Data files of this version."]
    bytes_on_disk: Annotated[int | None, "All files; null on an object store."]
    bytes_per_row: RowBytes
    vector_bytes: Annotated[dict[str, int], "Vector column to what it takes of a row, before the files compress it."]
    code: Annotated[str, "How vectors are stored, as --code says it; none: as numbers."]
    kept: Annotated[float | None, "Share of the full vectors' quality that the code kept; null: not measured."]
    covers: Annotated[str, "The coverage as a sentence."]
    reading: Annotated[ReadingFacts | None, "Null in an index that does not keep it."]
    column_names: list[str]
    vector_indices: Annotated[dict[str, str], "Column to the kind of its vector index."]
    versions: list[Version]
    format_version: int
    library_version: str
    created: str
    status: str
    method: Chosen
    columns: list[VectorColumn]
    coverage: Covered
    model: Annotated[dict[str, Any], "Name, fingerprint and loading options."]
    tokenization: dict[str, Any]
    plan: Batches
    data: Annotated[list[str], "The corpora the rows came from."]
    keeps_text: bool
    left_out: Annotated[int, "Rows that cannot be used."]
    tally: Tallied | None
    places: Annotated[dict[str, str], "Where the model's folders are, seen from the index."]
    rows_built: Annotated[int | None, "Rows when the build ended; null before, and in older indexes."]
    open_after: Annotated[int | None, "Last fragment before those of an interrupted block; else null."]
    widened: Annotated[list[str], "Columns of whole numbers that became numbers."]


class AddedRows(TypedDict):
    """Rows added to an index."""

    index: str
    added: Annotated[int, "Rows that were computed and stored."]
    duplicates: Annotated[int, "Rows that were there already."]
    left_out: Annotated[int, "Rows that cannot be used."]
    rows: Annotated[int, "Rows in the index now."]
    kept_aside: Annotated[dict[str, int], "Metadata name to the rows whose value no column holds."]


class ShardComputed(TypedDict):
    """A shard of an index, which `index commit` puts together with the others."""

    index: str
    shard: Annotated[str, "Which of how many, such as 3/16."]


class DeletedRows(TypedDict):
    """Rows deleted from an index."""

    index: str
    deleted: int
    rows: Annotated[int, "Rows left."]


class CompactedIndex(TypedDict):
    """An index without its deleted rows."""

    index: str
    rows: int
    bytes_before: int | None
    bytes_after: int | None


class FaultFound(TypedDict):
    """A fault of an index."""

    kind: str
    what: str
    where: str


class Verified(TypedDict):
    """The faults of an index."""

    index: str
    sound: bool
    faults: list[FaultFound]


class Agreement(TypedDict):
    """How well a search agrees with the exact one."""

    queries: int
    rows: int
    top: Annotated[int, "Top rows of a query that were compared."]
    agreement: Annotated[float, "Mean share of the exact top rows that were found."]
    precision: Annotated[Number, "Mean share of relevant rows among those found; null without --relevant."]
    exact_precision: Number
    precision_kept: Annotated[Number, "precision / exact_precision."]


class Quantised(TypedDict):
    """An index of codes."""

    index: str
    out: str
    code: str
    rows: int
    bytes: int
    bytes_per_row: RowBytes
    retention: Annotated[Agreement, "On the queries; without them, on some of the index's own rows."]


class Retained(Agreement):
    """How well a quantised index agrees with exact search."""

    index: str


class VectorIndex(TypedDict):
    """A vector index for approximate search."""

    index: str
    column: str
    kind: str
    bytes_on_disk: int | None
