"""The manifest: what an index is and what its vectors depend on, kept as JSON in the Lance schema's metadata.

Any Arrow, DuckDB, Polars or pandas user sees it under the key `headwater`. Each field that the vectors depend on is
stored with a short digest, its seal, so that an edit by hand is noticed and named. Together these fields key every
row's checksum, so that a row copied from an index of another model or method is noticed as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from headwater.core.errors import StoreError
from headwater.core.fingerprints import canonical, digest
from headwater.core.spec import Column, Coverage, MethodSpec, as_json, column_from_json

METADATA_KEY = "headwater"
FORMAT_VERSION = 1

Status = Literal["building", "adding", "deleting", "compacting", "complete"]
"""All but `complete` mean that a run has not finished: each row is valid, but the set of rows is not final."""

_IDENTITY = ("format_version", "method", "columns", "model", "tokenization", "plan", "keeps_text")
_SEALED = (*_IDENTITY, "coverage", "tally", "status")


@dataclass(frozen=True)
class Plan:
    """How a build is divided. With the same plan a resumed build makes the same batches, and so the same bits.

    Attributes:
        block_rows: how many consecutive rows are committed together.
        tokens_per_batch: how many tokens one forward pass reads, padding included.
    """

    block_rows: int
    tokens_per_batch: int


@dataclass(frozen=True)
class Tally:
    """What a finished index holds: the number of its rows, and a digest of all their checksums in row order."""

    rows: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """What an index is.

    Attributes:
        method: the method with its options resolved.
        columns: the vector columns.
        coverage: the share of parameters the scores see.
        model: its `name`, and two dictionaries: `loading` (the arguments that load it again) and `fingerprint`.
        tokenization: template, tokenizer digest and maximal tokens, as in `Tokenization.fingerprint`.
        plan: how the build was divided into blocks and batches.
        data: names of the corpora the rows came from.
        keeps_text: whether the index stores the rows' text as well as their vectors.
        status: `complete`, or which change of the index is unfinished.
        tally: what the index held when it was last finished; None if it never was.
        created: UTC, ISO 8601.
        left_out: how many rows of the data were left out because they cannot be used.
        widened: columns that held whole numbers before additions brought fractions.
        places: `name`, `adapter` and `tokenizer` of a model in local folders, as paths from the index's own folder; by
            them the model is found again after all was moved together.
        rows_built: how many rows the index had when its build ended; None before, and in older indexes.
        open_after: while a block is open that Ctrl-C interrupted, the highest number of a fragment before it: the
            fragments behind hold some of that block's rows, until the whole block takes their place. Else None.
        library_version: the version of headwater that made the index.
        format_version: the version of this layout.
    """

    method: MethodSpec
    columns: tuple[Column, ...]
    coverage: Coverage
    model: Mapping[str, Any]
    tokenization: Mapping[str, Any]
    plan: Plan
    data: tuple[str, ...]
    keeps_text: bool = True
    status: Status = "building"
    tally: Tally | None = None
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    left_out: int = 0
    widened: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    rows_built: int | None = None
    open_after: int | None = None
    library_version: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def complete(self) -> bool:
        """True unless a build, an addition or a deletion is unfinished."""
        return self.status == "complete"

    @property
    def pairs(self) -> str | None:
        """How preference pairs are read: `dpo` if the rows are pairs under the DPO loss, else None."""
        return None if self.tokenization.get("beta") is None else "dpo"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            **{name: getattr(self, name) for name in ("format_version", "library_version", "created", "status")},
            "method": self.method.to_json(),
            "columns": [as_json(column) for column in self.columns],
            "coverage": as_json(self.coverage),
            "model": json.loads(canonical(dict(self.model))),
            "tokenization": json.loads(canonical(dict(self.tokenization))),
            "plan": asdict(self.plan),
            "data": list(self.data),
            "keeps_text": self.keeps_text,
            "left_out": self.left_out,
            "widened": list(self.widened),
            "places": dict(self.places),
            "rows_built": self.rows_built,
            "open_after": self.open_after,
            "tally": None if self.tally is None else asdict(self.tally),
        }

    def identity(self) -> dict[str, Any]:
        """The fields the stored vectors depend on. A build can only be resumed if they are all equal."""
        raw = self.to_json()
        return {name: raw[name] for name in _IDENTITY}

    def key(self) -> bytes:
        """16 bytes, a digest of `identity()`; every row's checksum is keyed with them."""
        return bytes.fromhex(digest(self.identity()))

    def dumps(self) -> str:
        """JSON text with the seals."""
        raw = self.to_json()
        return json.dumps({**raw, "seals": {n: _seal(raw[n]) for n in _SEALED}}, ensure_ascii=False, indent=1)


def loads(text: str, *, where: str) -> Manifest:
    """The manifest that `Manifest.dumps` wrote; `where` is the index's path, for messages.

    Raises:
        StoreError: the text is no manifest, was written by a newer headwater, or was edited.
    """
    try:
        raw = json.loads(text)
        version = raw["format_version"]
        if version != FORMAT_VERSION:
            what = f"the index has format version {version}, this headwater reads version {FORMAT_VERSION}"
            remedy = "upgrade headwater" if version > FORMAT_VERSION else "build the index again"
            raise StoreError(what, where=where, remedy=remedy)
        edited = [name for name in _SEALED if raw["seals"].get(name) != _seal(raw[name])]
        manifest = _parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"the index's manifest cannot be read: {type(error).__name__} {error}"
        raise StoreError(what, where=where, remedy="build it again") from error
    if edited:
        what = f"the manifest's {', '.join(edited)} was changed after it was written"
        raise StoreError(what, where=where, remedy="restore the index from a copy or build it again")
    return manifest


def _parse(raw: Mapping[str, Any]) -> Manifest:
    if raw["status"] not in get_args(Status):
        raise ValueError(f"status '{raw['status']}'")
    return Manifest(
        method=MethodSpec.from_json(raw["method"]),
        columns=tuple(map(column_from_json, raw["columns"])),
        coverage=Coverage(**raw["coverage"]),
        model=raw["model"],
        tokenization=raw["tokenization"],
        plan=Plan(**raw["plan"]),
        data=tuple(raw["data"]),
        left_out=raw.get("left_out", 0),
        widened=tuple(raw.get("widened", ())),
        places=raw.get("places", {}),
        rows_built=raw.get("rows_built"),
        open_after=raw.get("open_after"),
        tally=None if raw["tally"] is None else Tally(**raw["tally"]),
        **{name: raw[name] for name in ("keeps_text", "status", "created", "library_version", "format_version")},
    )


def _seal(value: Any) -> str:
    return digest(canonical(value))[:8]
