"""Build an index: read every row of a corpus with a method, and commit block by block.

    blocks of consecutive rows → tokens → length-bucketed batches → vectors → one atomic commit a block

With `resume=True` a killed or interrupted build continues from its last commit and ends with the same bits as one that
was not: the blocks follow from the manifest's plan alone, and batches are planned inside a block.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, MismatchError, StoreError
from headwater.core.spec import code_of
from headwater.data.corpus import Corpus
from headwater.data.found_columns import FoundColumns
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.engines.blocks import Block, Engine, OnProgress, cut
from headwater.engines.local import Local
from headwater.index.info import unfinished
from headwater.index.manifest import Manifest, Plan
from headwater.index.rows import infer_schema
from headwater.index.store import Index, exists, open_index
from headwater.indexing import places
from headwater.indexing.blocks import IndexRows, Progress, begin, filling, rows_per_block
from headwater.indexing.open_block import OpenBlock, read_open
from headwater.methods.bound import Bound
from headwater.models.reader import Reader
from headwater.search.codes import coded

_log = logging.getLogger(__name__)


def build(
    out: str | Path,
    corpus: Corpus,
    bound: Bound,
    *,
    resume: bool = False,
    keep_text: bool = True,
    code: str | None = None,
    block_rows: int | None = None,
    engine: Engine | None = None,
    loading: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Index:
    """Build an index of `corpus` at `out`.

    Args:
        out: a path, by convention one that ends in `.lance`, or an object-store URI.
        corpus: the rows.
        bound: the method and the reader that read the rows.
        resume: continue an unfinished build, or start one if there is none.
        keep_text: store the rows' text as well as their vectors.
        code: how vectors are stored (see `headwater.search.codes`); `none`: as numbers; None: as the method says.
        block_rows: rows that are computed and committed together; None: about 64 MiB of vectors.
        engine: where blocks are computed; None: in this process.
        loading: where an engine's other processes load the model (`device`, `device_map`).
        on_progress: called after each batch; for the last batch of a block, after the block's commit.

    Raises:
        StoreError: something is at `out` already, the disk is full, or another process writes there.
        MismatchError: on resume, the model, data format, method or plan are not those the build began with.
        DataError: a row cannot be used, or on resume the data is not what the build began with.
        NumericError: a row's vector is not finite.
    """
    code = begun_with(out) if code is None and resume else code
    manifest = make_manifest(corpus, bound, keep_text=keep_text, code=code, block_rows=block_rows)
    index, is_new = begin_build(str(out), corpus, manifest, resume=resume)
    with filling(index, is_new=is_new):
        if index.manifest.complete:
            _require_built(corpus, index, bound)
            return index
        progress, opened = Progress(on_progress, corpus.count), read_open(index)
        blocks = _missing_blocks(iter(corpus), index, bound, progress, opened)
        work = IndexRows(index, bound, progress, loading or {}, opened)
        (engine or Local()).run(blocks, work, progress.commit)
    return index


def begun_with(out: str | Path) -> str | None:
    """The code of the index that is there, which wins over the method's own; None if there is none."""
    return code_of(open_index(str(out)).manifest.columns) if exists(str(out)) else None


def begin_build(out: str, corpus: Corpus, manifest: Manifest, *, resume: bool) -> tuple[Index, bool]:
    """The index to fill, and whether it is new; errors as in `build`.

    The columns of a new index are those that an inspection of all rows found, else those of the first block.
    """
    manifest = replace(manifest, places=places.from_index(out, manifest.model))
    known: Iterable[Row] | FoundColumns = corpus.found or itertools.islice(corpus, manifest.plan.block_rows)
    if resume and exists(out):
        manifest = replace(manifest, model=places.like_before(manifest.model, open_index(out).manifest.model))
        known = ()
    schema = infer_schema(known, manifest.columns, keep_text=manifest.keeps_text, declared=corpus.schemas)
    remedy = "give the settings it was begun with, or choose another name"
    index, is_new = begin(out, manifest, schema, resume=resume, other="other settings", remedy=remedy)
    _require_same_data(index, manifest.data)
    return index, is_new


def make_manifest(
    corpus: Corpus, bound: Bound, *, keep_text: bool = True, code: str | None = None, block_rows: int | None = None
) -> Manifest:
    """The manifest of an index that is about to be built."""
    reader, columns = bound.reader, coded(bound.encoder.columns, bound.form.code if code is None else code)
    return Manifest(
        method=bound.method.spec,
        columns=columns,
        coverage=bound.encoder.coverage,
        model=places.recorded(_model(reader)),
        tokenization=reader.tokenization.fingerprint,
        plan=Plan(block_rows or rows_per_block(sum(c.row_bytes for c in columns)), reader.tokens_per_batch),
        data=(corpus.name,),
        keeps_text=keep_text,
        left_out=len(corpus.left_out),
        library_version=importlib.metadata.version("headwater"),
    )


def _model(reader: Reader) -> dict[str, Any]:
    loaded = reader.loaded
    own = {"name": loaded.name, "loading": dict(loaded.loading), "fingerprint": dict(loaded.fingerprint)}
    return own if reader.reference is None else {**own, "reference": reader.reference.to_json()}


def _require_same_data(index: Index, data: tuple[str, ...]) -> None:
    """Raise an error unless the index's build reads the corpora `data` and is unfinished or complete."""
    if index.manifest.data != data:
        what = f"{index.path} was begun with the data {', '.join(index.manifest.data)}, not {', '.join(data)}"
        remedy = "give the same data; headwater index add adds other rows to a finished index"
        raise MismatchError(what, fields=("data",), remedy=remedy)
    if index.manifest.status not in ("building", "complete"):
        raise StoreError(f"the index was built and then changed: {unfinished(index)}", where=index.path)


def _missing_blocks(
    rows: Iterator[Row], index: Index, bound: Bound, progress: Progress, opened: OpenBlock | None
) -> Iterator[Block[Row | TokenRow]]:
    """The blocks of rows that the index does not have yet; the rows it has must be the first of the corpus.

    The open block, if there is one, comes first, and whole.
    """
    committed, seen = index.digests(), 0
    whole = len(committed) - (len(opened.places) if opened else 0)
    committed = committed[:whole]
    for block in cut(rows, index.manifest.plan.block_rows):
        seen += len(block.items)
        old = min(max(len(committed) - block.start, 0), len(block.items))
        there = bound.reader.tokenization.encode(block.items[:old])
        _require_same_rows(there, committed[block.start : block.start + old], index)
        progress.past(old, sum(len(row.ids) for row in there))
        if old == len(block.items):
            progress.within(0, 0)
            continue
        if opened and block.start == whole:
            there = bound.reader.tokenization.encode(block.items)
            if not opened.within(there):
                raise _changed(f"a row of {block} that the build read before is not among its rows now", index.path)
            yield Block(block.number, block.start, there)
            continue
        yield Block(block.number, block.start + old, block.items[old:])
    _require_all_seen(index, seen)


def _require_built(corpus: Corpus, index: Index, bound: Bound) -> None:
    """Raise an error unless a finished index holds the rows of the corpus that were not deleted since its build."""
    names, found, seen = list(zip(index.digests(), index.ids(), strict=True)), 0, 0
    passed: TokenRow | None = None  # the first row since the last one that the index has
    for block in cut(corpus, index.manifest.plan.block_rows):
        for row in bound.reader.tokenization.encode(block.items):
            there = found < len(names) and names[found] == (row.digest, row.row.id)
            passed = None if there else passed or row
            found, seen = found + there, seen + 1
    built = len(names) if index.manifest.rows_built is None else index.manifest.rows_built
    if found < len(names) and passed is not None:
        what = f"row '{passed.row.id}' is not the row the build read there before"
        raise _changed(what, passed.row.place or index.path)
    _require_all_seen(index, seen)
    if seen > built:
        what = f"the index is finished with {len(names):,} rows and the data has more"
        raise StoreError(what, where=index.path, remedy="headwater index add adds them")
    if found < seen:
        text = "%s is finished; %s rows of the data were deleted from it since, and stay deleted"
        _log.warning(text, index.path, f"{seen - found:,}")


def _require_all_seen(index: Index, seen: int) -> None:
    if seen < index.count:
        what = f"the index has {index.count:,} rows, the data only {seen:,}"
        raise DataError(what, where=index.path, remedy="give the data it was begun with")


def _require_same_rows(rows: Sequence[TokenRow], digests: list[str], index: Index) -> None:
    for row, digest in zip(rows, digests, strict=True):
        if row.digest != digest:
            what = f"row '{row.row.id}' is not the row the build read there before"
            raise _changed(what, row.row.place or index.path)


def _changed(what: str, where: str) -> DataError:
    remedy = "give the data it was begun with, or build under another name"
    return DataError(f"{what}: the data has changed", where=where, remedy=remedy)
