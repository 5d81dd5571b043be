"""Build an index: every row of a corpus through a method, committed block by block.

    blocks of consecutive rows → tokens → length-bucketed batches → vectors → one atomic commit a block

A build that was killed goes on from its last commit with `resume=True` and ends with the same bits as one that was
not: blocks are cut by the manifest's plan alone, and batches are planned inside a block.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from headwater.core.errors import DataError, HeadwaterError, MismatchError, StoreError
from headwater.core.fingerprints import require_equal
from headwater.data.corpus import Corpus
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.engines.blocks import Block, OnProgress, cut, run
from headwater.index.info import unfinished
from headwater.index.manifest import Manifest, Plan
from headwater.index.rows import infer_schema
from headwater.index.store import Index, create_index, discard, exists, open_index
from headwater.index.upkeep import seal, sweep
from headwater.indexing.blocks import IndexRows, Progress, rows_per_block
from headwater.methods.bound import Bound
from headwater.search.codes import coded


def build(
    out: str | Path,
    corpus: Corpus,
    bound: Bound,
    *,
    resume: bool = False,
    keep_text: bool = True,
    code: str | None = None,
    on_progress: OnProgress | None = None,
) -> Index:
    """Build an index of `corpus` at `out`.

    Args:
        out: a path ending in `.lance` by custom, or an object-store URI.
        corpus: the rows.
        bound: a method on a reader: whose view of the rows is indexed.
        resume: go on with an unfinished build; starts one when there is none.
        keep_text: store the rows' text beside their vectors.
        code: store vectors as `int8`, `sign` (1 KiB a row) or `sign:BITS` instead of numbers; loses accuracy.
        on_progress: called after each batch and, for a block's last batch, when the block is committed.

    Raises:
        StoreError: something is at `out` already, the disk is full, or another process writes there.
        MismatchError: on resume, model, data format, method or plan are not those the build began with.
        DataError: a row cannot be used, or on resume the data is not what the build began with.
        NumericError: a row's vector is not finite.
    """
    manifest = make_manifest(corpus, bound, keep_text=keep_text, code=code)
    rows = iter(corpus)
    first = list(itertools.islice(rows, manifest.plan.block_rows))
    index, ours = _begin(str(out), manifest, first, resume=resume)
    with index.writing():
        try:
            if resume:
                sweep(index)
            progress = Progress(on_progress, corpus.count)
            blocks = _missing_blocks(itertools.chain(first, rows), index, bound, progress)
            run(blocks, IndexRows(index, bound, progress), progress.commit)
            if not index.manifest.complete:
                seal(index)
        except HeadwaterError:
            if ours:  # and, while it is held for writing, nobody else's
                discard(index)
            raise
    return index


def make_manifest(corpus: Corpus, bound: Bound, *, keep_text: bool = True, code: str | None = None) -> Manifest:
    """The manifest of an index about to be built."""
    reader, columns = bound.reader, coded(bound.encoder.columns, code)
    loaded = reader.loaded
    return Manifest(
        method=bound.method.spec,
        columns=columns,
        coverage=bound.encoder.coverage,
        model={"name": loaded.name, "loading": dict(loaded.loading), "fingerprint": dict(loaded.fingerprint)},
        tokenization=reader.tokenization.fingerprint,
        plan=Plan(rows_per_block(sum(column.row_bytes for column in columns)), reader.tokens_per_batch),
        data=(corpus.name,),
        keeps_text=keep_text,
        library_version=importlib.metadata.version("headwater"),
    )


def _begin(out: str, manifest: Manifest, first: Sequence[Row], *, resume: bool) -> tuple[Index, bool]:
    """The index to fill and whether it is new; on resume the one there, once its manifest is found to agree."""
    if not (resume and exists(out)):
        schema = infer_schema(first, manifest.columns, keep_text=manifest.keeps_text)
        return create_index(out, manifest, schema), True
    index = open_index(out)
    require_equal(
        index.manifest.identity(),
        manifest.identity(),
        what=f"{out} was begun with other settings",
        remedy="give the settings it was begun with, or choose another name",
    )
    if index.manifest.data != manifest.data:
        raise MismatchError(
            f"{out} was begun with the data {', '.join(index.manifest.data)}, not {', '.join(manifest.data)}",
            fields=("data",),
            remedy="give the same data; headwater index add adds other rows to a finished index",
        )
    if index.manifest.status not in ("building", "complete"):
        raise StoreError(f"the index was built since: {unfinished(index)}", where=out)
    return index, False


def _missing_blocks(rows: Iterator[Row], index: Index, bound: Bound, progress: Progress) -> Iterator[Block[TokenRow]]:
    """The blocks of rows that are not in the index yet; those that are must be the first rows of the corpus."""
    committed, seen = index.digests(), 0
    for block in cut(rows, index.manifest.plan.block_rows):
        seen += len(block.items)
        token_rows = bound.reader.tokenization.encode(block.items)
        old = min(max(len(committed) - block.start, 0), len(token_rows))
        _require_same(token_rows[:old], committed[block.start : block.start + old], index)
        progress.past(old, sum(len(row.ids) for row in token_rows[:old]))
        if old == len(token_rows):
            progress.within(0, 0)
            continue
        if index.manifest.complete:
            raise StoreError(
                f"the index is finished with {len(committed):,} rows and the data has more",
                where=index.path,
                remedy="headwater index add adds them",
            )
        yield Block(block.number, block.start + old, token_rows[old:])
    if seen < len(committed):
        raise DataError(
            f"the index has {len(committed):,} rows, the data only {seen:,}",
            where=index.path,
            remedy="give the data it was begun with",
        )


def _require_same(rows: list[TokenRow], digests: list[str], index: Index) -> None:
    for row, digest in zip(rows, digests, strict=True):
        if row.digest != digest:
            raise DataError(
                f"row '{row.row.id}' is not the row the build read there before: the data has changed",
                where=row.row.place or index.path,
                remedy="give the data it was begun with, or build under another name",
            )
