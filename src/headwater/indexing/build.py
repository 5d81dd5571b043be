"""Build an index: every row of a corpus through a method, committed block by block.

    blocks of consecutive rows → tokens → length-bucketed batches → vectors → one atomic commit a block

A build that was killed goes on from its last commit with `resume=True` and ends with the same bits as one that was
not: blocks are cut by the manifest's plan alone, and batches are planned inside a block.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from headwater.core.errors import DataError, HeadwaterError, MismatchError, StoreError
from headwater.core.fingerprints import require_equal
from headwater.core.spec import Column
from headwater.data.corpus import Corpus
from headwater.data.rows import Row
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization, TokenRow
from headwater.index.info import unfinished
from headwater.index.manifest import Manifest, Plan
from headwater.index.store import Index, create_index, discard, exists, open_index
from headwater.index.upkeep import seal, sweep
from headwater.indexing.encode import TOKENS_PER_BATCH, Reader, Told
from headwater.methods.method import Method
from headwater.models.load import LoadedModel
from headwater.search.codes import coded

Progress = Callable[[int, "int | None", int], None]
"""Called after each batch and each block with rows done, rows in all (None when unknown) and tokens read so far.

The last batch of a block is told of when the block is committed."""

_BLOCK_BYTES = 64 * 2**20
_FEWEST_ROWS, _MOST_ROWS = 256, 8192


def build(
    out: str | Path,
    *,
    loaded: LoadedModel,
    corpus: Corpus,
    method: Method,
    template: str | None = None,
    max_tokens: int = 2048,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    resume: bool = False,
    keep_text: bool = True,
    code: str | None = None,
    progress: Progress | None = None,
) -> Index:
    """Build an index of `corpus` at `out`.

    Args:
        out: a path ending in `.lance` by custom, or an object-store URI.
        loaded: the model whose view of the rows is indexed.
        corpus: the rows.
        method: what is read off the model.
        template: how prompt and response become one text; the tokenizer's own unless given.
        max_tokens: a longer row is cut at its end.
        tokens_per_batch: padded tokens in one forward pass.
        resume: go on with an unfinished build; starts one when there is none.
        keep_text: store the rows' text beside their vectors.
        code: store vectors as `int8`, `sign` (1 KiB a row) or `sign:BITS` instead of numbers; loses accuracy.
        progress: called after each batch and each block.

    Raises:
        StoreError: something is at `out` already, the disk is full, or another process writes there.
        MismatchError: on resume, model, data format, method or plan are not those the build began with.
        DataError: a row cannot be used, or on resume the data is not what the build began with.
        NumericError: a row's vector is not finite.
    """
    tokenization = Tokenization(loaded.tokenizer, resolve_template(template, loaded.tokenizer), max_tokens)
    reader = Reader.bind(loaded, method, tokenization, tokens_per_batch)
    columns = coded(reader.encoder.columns, code)
    manifest = make_manifest(reader, columns, corpus=corpus, keep_text=keep_text)
    index, ours = _begin(str(out), manifest, resume=resume)
    with index.writing():
        try:
            if resume:
                sweep(index)
            _fill(index, corpus, reader, progress)
            if not index.manifest.complete:
                seal(index)
        except HeadwaterError:
            if ours:  # and, while it is held for writing, nobody else's
                discard(index)
            raise
    return index


def make_manifest(reader: Reader, columns: tuple[Column, ...], *, corpus: Corpus, keep_text: bool) -> Manifest:
    """The manifest of an index about to be built."""
    loaded = reader.loaded
    row_bytes = sum(column.row_bytes for column in columns)
    return Manifest(
        method=reader.method.spec,
        columns=columns,
        coverage=reader.encoder.coverage,
        model={"name": loaded.name, "loading": dict(loaded.loading), "fingerprint": dict(loaded.fingerprint)},
        tokenization=reader.tokenization.fingerprint,
        plan=Plan(rows_per_block(row_bytes), reader.tokens_per_batch),
        data=(corpus.name,),
        keeps_text=keep_text,
        library_version=importlib.metadata.version("headwater"),
    )


def rows_per_block(row_bytes: int) -> int:
    """Rows committed together: about 64 MiB of vectors, a power of two between 256 and 8192."""
    fitting = max(_BLOCK_BYTES // max(row_bytes, 1), 1)
    return min(max(1 << (fitting.bit_length() - 1), _FEWEST_ROWS), _MOST_ROWS)


def within(progress: Progress | None, done: int, total: int | None, tokens: int) -> Told | None:
    """What a reader tells of the rows of a block, told of the whole: `done` rows and `tokens` come before them."""
    return None if progress is None else lambda rows, read: progress(done + rows, total, tokens + read)


def blocks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Consecutive rows in lists of `size`, the last one shorter."""
    stream = iter(rows)
    while block := list(itertools.islice(stream, size)):
        yield block


def _begin(out: str, manifest: Manifest, *, resume: bool) -> tuple[Index, bool]:
    """The index to fill and whether it is new; on resume the one there, once its manifest is found to agree."""
    if not (resume and exists(out)):
        return create_index(out, manifest), True
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


def _fill(index: Index, corpus: Corpus, reader: Reader, progress: Progress | None) -> None:
    """Append every row of the corpus that is not yet there, after checking that those there are its first rows."""
    committed = index.digests()
    done = tokens = 0
    for block in blocks(corpus, index.manifest.plan.block_rows):
        token_rows = reader.tokenization.encode(block)
        old = min(max(len(committed) - done, 0), len(block))
        _require_same(token_rows[:old], committed[done : done + old], index)
        new = token_rows[old:]
        tokens += sum(len(row.ids) for row in token_rows[:old])
        if new:
            if index.manifest.complete:
                raise StoreError(
                    f"the index is finished with {len(committed):,} rows and the data has more",
                    where=index.path,
                    remedy="headwater index add adds them",
                )
            reader.append(index, new, within(progress, done + old, corpus.count, tokens))
        done += len(block)
        tokens += sum(len(row.ids) for row in new)
        if progress is not None:
            progress(done, corpus.count, tokens)
    if done < len(committed):
        raise DataError(
            f"the index has {len(committed):,} rows, the data only {done:,}",
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
