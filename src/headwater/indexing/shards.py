"""Build an index in shards, each in a process that knows nothing of the others, and commit them all at the end.

    headwater index build mine.lance ... --shard 1/16      on any machine that sees the path; 2/16, ... 16/16 beside it
    headwater index commit mine.lance                      once, when all have ended

Shard i of n computes every n-th block. Its receipts go beside the index (`headwater.index.receipts`), which stays empty
until they are committed in the order of the blocks. A shard that was killed goes on with --resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headwater.core.errors import MismatchError, StoreError, UsageError
from headwater.data.corpus import Corpus
from headwater.data.rows import Row, RowsDigest
from headwater.engines.blocks import Block, Engine, OnProgress, Receipt, cut, versions
from headwater.engines.local import Local
from headwater.index.receipts import ShardNote, append_notes, drop_notes, has_receipts, read_notes
from headwater.index.store import Index
from headwater.index.upkeep import seal, sweep
from headwater.indexing.blocks import IndexRows, Progress, commit_receipts, digest_of
from headwater.indexing.build import begin_build, begun_with, make_manifest
from headwater.methods.bound import Bound

FINISHED = -1
"""The block number of the note that a shard is finished."""

_AT_ONCE = 64
"""So many blocks are committed as one version."""


@dataclass(frozen=True)
class Shard:
    """Part `number` of `of` parts, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, block: int) -> bool:
        """Whether a block belongs to the shard."""
        return block % self.of == self.number - 1


def parse_shard(text: str, *, limited: bool = False) -> Shard:
    """`3/16` as a shard; raises `UsageError` if it is none, or if the build is `limited` in memory or disk."""
    number, _, of = text.partition("/")
    try:
        shard = Shard(int(number), int(of))
    except ValueError:
        raise UsageError(f"'{text}' is no shard", where="--shard", remedy="number/how many, such as 3/16") from None
    if shard.of < 1:
        raise UsageError(f"{shard.of} shards are none", where="--shard", remedy="number/how many, such as 3/16")
    if not 1 <= shard.number <= shard.of:
        what = f"there is no shard {shard.number} of {shard.of}"
        raise UsageError(
            what, where="--shard", remedy=f"number them 1/{max(shard.of, 1)} to {max(shard.of, 1)}/{shard.of}"
        )
    if limited:
        what = "each shard would measure for itself how large batches may be, and they must be equal"
        raise UsageError(what, where="--shard", remedy="leave the limits out; headwater plan says what fits")
    return shard


def build_shard(
    out: str | Path,
    corpus: Corpus,
    bound: Bound,
    shard: Shard,
    *,
    resume: bool = False,
    keep_text: bool = True,
    code: str | None = None,
    block_rows: int | None = None,
    engine: Engine | None = None,
    loading: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Index:
    """Compute one shard of an index; arguments as in `headwater.indexing.build.build`.

    The first shard that comes makes the index. Returns the index, which is empty until `commit_shards`.

    Raises:
        StoreError: the shard was computed before, or was begun and `resume` is not set, or the index is finished.
        MismatchError: the index was begun with another model, method, plan, data, number of shards or version.
    """
    code = begun_with(out) if code is None else code
    manifest = make_manifest(corpus, bound, keep_text=keep_text, code=code, block_rows=block_rows)
    index, _ = begin_build(str(out), corpus, manifest, resume=True)
    _require_same_version(index)
    ours = _begun(index, shard, resume=resume)
    progress = Progress(on_progress, None if corpus.count is None else corpus.count // shard.of)
    seen = _Seen()
    blocks = _blocks_of(cut(seen.all(iter(corpus)), index.manifest.plan.block_rows), shard, ours, progress)
    work = _ShardRows(index, bound, progress, loading or {}, shard=shard)
    (engine or Local()).run(blocks, work, progress.commit)
    whole = {"blocks": -(-seen.rows // index.manifest.plan.block_rows), "rows": seen.rows, "digest": seen.digest}
    append_notes(index.path, [work.note(FINISHED, whole)])
    return index


def commit_shards(index: Index) -> Index:
    """Append all shards' blocks to the index, in their order, and seal it; a commit that was killed goes on.

    Raises:
        StoreError: a shard is missing or unfinished, or there are no receipts.
        MismatchError: shards differ in plan, data, number or version.
    """
    with index.writing():
        if index.manifest.complete and has_receipts(index.path):  # killed after sealing
            drop_notes(index.path)
            return index
        receipts = _all_receipts(index, read_notes(index.path))
        ends, rows = [], 0
        for receipt in receipts:
            rows += receipt.rows
            ends.append(rows)
        first = 0 if not index.count else ends.index(index.count) + 1 if index.count in ends else None
        if first is None:
            what = f"the index has {index.count:,} rows, which are not the first blocks of its shards"
            raise StoreError(what, where=index.path, remedy="build it again under another name")
        for start in range(first, len(receipts), _AT_ONCE):
            commit_receipts(index, receipts[start : start + _AT_ONCE])
        _require_as_computed(index, receipts)
        seal(index, filled=True)
        drop_notes(index.path)
        sweep(index)
    return index


@dataclass(frozen=True)
class _ShardRows(IndexRows):
    """`Work` of a shard: committing a block writes its receipt down."""

    shard: Shard = Shard(1, 1)

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Write the blocks' receipts beside the index."""
        there = {note.block for note in read_notes(self.index.path) if note.shard == self.shard.number}
        for receipt in receipts:
            if receipt.block in there:
                what = f"another process computes shard {self.shard} at the same time"
                raise StoreError(what, where=self.index.path, remedy="run every shard once")
        append_notes(self.index.path, [self.note(receipt.block, asdict(receipt)) for receipt in receipts])

    def keep(self, part: Any) -> None:
        """A shard keeps whole blocks: the index stays empty until all shards are committed."""

    def note(self, block: int, body: Mapping[str, Any]) -> ShardNote:
        """The note of this shard."""
        key, library = self.index.manifest.key().hex(), versions()["headwater"]
        return ShardNote(self.shard.number, self.shard.of, block, key, library, body)


class _Seen:
    """Counts and digests the rows that pass by, of all shards, so that shards which read other data are found out."""

    def __init__(self) -> None:
        self.rows, self._digest = 0, RowsDigest()

    @property
    def digest(self) -> str:
        """Of the rows so far."""
        return self._digest.hexdigest()

    def all(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows, while they are counted."""
        for row in rows:
            self.rows += 1
            self._digest.add(row)
            yield row


def _begun(index: Index, shard: Shard, *, resume: bool) -> set[int]:
    """The blocks that the shard has computed already."""
    if index.manifest.complete:
        raise StoreError("the index is finished", where=index.path, remedy="headwater index add adds rows to it")
    notes = read_notes(index.path)
    for note in notes:
        if note.of != shard.of:
            what = f"{index.path} is built in {note.of} shards, not in {shard.of}"
            raise MismatchError(what, fields=("shard",), remedy=f"give --shard {shard.number}/{note.of}")
    ours = {note.block for note in notes if note.shard == shard.number}
    if FINISHED in ours:
        remedy = "headwater index commit puts all shards together"
        raise StoreError(f"shard {shard} was computed already", where=index.path, remedy=remedy)
    if ours and not resume:
        what = f"shard {shard} was begun already and has {len(ours)} blocks"
        raise StoreError(what, where=index.path, remedy="go on with --resume, if no other process computes it")
    return ours


def _blocks_of(blocks: Iterator[Block[Row]], shard: Shard, done: set[int], progress: Progress) -> Iterator[Block[Row]]:
    for block in blocks:
        if not shard.has(block.number):
            continue
        if block.number in done:
            progress.past(len(block.items), 0)
            progress.within(0, 0)
        else:
            yield block


def _require_same_version(index: Index) -> None:
    """Raise `MismatchError` if another version of headwater began the index: vectors might differ."""
    then, now = index.manifest.library_version, versions()["headwater"]
    if then != now:
        what = f"{index.path} was begun with headwater {then}, this is {now}"
        raise MismatchError(what, fields=("library_version",), remedy="compute all shards with one version")


def _all_receipts(index: Index, notes: Sequence[ShardNote]) -> list[Receipt]:
    """The receipts of all blocks in order, once every shard is there and they belong together."""
    if not notes:
        what = "there are no shards to commit"
        raise StoreError(what, where=index.path, remedy="headwater index build --shard 1/N computes them")
    ours = {"plan": index.manifest.key().hex(), "library": index.manifest.library_version, "of": notes[0].of}
    for note in notes:
        differ = tuple(name for name, value in ours.items() if getattr(note, name) != value)
        if differ:
            words = {"plan": "another plan", "library": f"headwater {note.library}", "of": f"{note.of} shards"}
            what = f"shard {note.shard}/{note.of} was computed with {words[differ[0]]} than the index"
            raise MismatchError(what, fields=differ, where=index.path, remedy="compute it again, all with the same")
    ends = {note.shard: note.body for note in notes if note.block == FINISHED}
    found = {note.block: Receipt(**note.body) for note in reversed(notes) if note.block != FINISHED}
    _require_all(index, notes, ends)
    first = ends[1]
    for number, body in ends.items():
        if dict(body) != dict(first):
            what = f"shard {number} read other data than shard 1: {body['rows']:,} rows, and {first['rows']:,}"
            same = body["rows"] == first["rows"]
            what = f"shard {number} read other data than shard 1" if same else what
            raise MismatchError(
                what, fields=("data",), where=index.path, remedy="compute all shards from the same data"
            )
    missing = sorted(set(range(first["blocks"])) - set(found))
    if missing:
        what = f"block {missing[0]} has no receipt, and {len(missing) - 1:,} more have none"
        raise StoreError(what, where=index.path, remedy="build it again under another name")
    return [found[number] for number in range(first["blocks"])]


def _require_all(index: Index, notes: Sequence[ShardNote], ends: Mapping[int, Any]) -> None:
    of = notes[0].of
    missing = [number for number in range(1, of + 1) if number not in ends]
    if not missing:
        return
    begun = {note.shard for note in notes}
    told = [f"{number}/{of} ({'unfinished' if number in begun else 'missing'})" for number in missing]
    shown = ", ".join(told[:8]) + (f" and {len(told) - 8} more" if len(told) > 8 else "")
    more = " --resume" if missing[0] in begun else ""
    what = f"{len(missing)} of {of} shards are not there: {shown}"
    raise StoreError(what, where=index.path, remedy=f"run the build with --shard {missing[0]}/{of}{more}")


def _require_as_computed(index: Index, receipts: Sequence[Receipt]) -> None:
    """Raise `StoreError` unless the rows' checksums are those that the receipts were given with."""
    sums = [value for batch in index.batches(["checksum"]) for value in batch.column("checksum").to_pylist()]
    start = 0
    for receipt in receipts:
        if digest_of(sums[start : start + receipt.rows]) != receipt.written["checksum"]:
            what = f"block {receipt.block} is not what its shard computed"
            raise StoreError(what, where=index.path, remedy="build it again under another name")
        start += receipt.rows
