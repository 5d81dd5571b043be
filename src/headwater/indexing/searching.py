"""Search an index by an engine: blocks of fragments are scored where the engine likes, and put together in row order.

    fragments ─cut─▶ blocks ─score─▶ receipts: the k best rows, or all scores, as JSON ═ in order ═▶ merged here

A process that scores a block opens the index at the version of this one, and gets the query vectors with its recipe: it
loads no model. Scores have the bits of a search in one process, because no batch of rows spans two fragments.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from headwater.core.errors import StoreError
from headwater.core.scores import Scores
from headwater.curvature.gram import FittedMetric, Metric
from headwater.engines.blocks import Block, Engine, Place, Receipt, WorkRecipe, versions
from headwater.index.store import Index, locator, open_index
from headwater.search import export
from headwater.search import scan as here
from headwater.search.export import Part
from headwater.search.products import Metrics, QueryVectors
from headwater.search.scan import DEFAULT_MEMORY, PLAIN, Best, Found, ScoredBlock

_BLOCK_BYTES = 64 * 2**20
_MOST_SENT = 1 << 30
"""At most so many bytes of query vectors and metrics are sent to each worker."""


@dataclass(frozen=True)
class Search:
    """A search: what `headwater.search.scan.scan` is given, and which of the scores are wanted.

    Attributes:
        index, probes, metrics, where, max_memory: as in `scan`.
        k: the best rows for each query; 0 for the scores of all rows.
        lowest: whether the best rows are those of lowest score.
    """

    index: Index
    probes: QueryVectors
    metrics: Metrics = field(default_factory=lambda: PLAIN)
    where: str | None = None
    max_memory: int = DEFAULT_MEMORY
    k: int = 0
    lowest: bool = False

    @property
    def queries(self) -> int:
        """The number of queries."""
        return len(next(iter(self.probes.values())))


Take = Callable[[Receipt], None]


@dataclass(frozen=True)
class SearchFragments:
    """`Work` of a search: a block's items are numbers of fragments, and its receipt holds what was found in them."""

    search: Search
    take: Take = lambda receipt: None

    def prepare(self, block: Block[int]) -> Block[int]:
        """Nothing is prepared."""
        return block

    def compute(self, prepared: Block[int]) -> tuple[Block[int], int, dict[str, Any]]:
        """Score the rows of the fragments."""
        asked, rows = self.search, 0
        how: dict[str, Any] = {"where": asked.where, "max_memory": asked.max_memory, "metrics": asked.metrics}
        blocks = here.scan(asked.index, asked.probes, with_ids=not asked.k, fragments=set(prepared.items), **how)
        if not asked.k:
            scored = list(blocks)
            return prepared, sum(len(one.ids) for one in scored), {"scored": [_packed(one) for one in scored]}
        best = Best(asked.k, lowest=asked.lowest)
        for one in blocks:
            best.add(one)
            rows += len(one.addresses)
        return prepared, rows, {"best": best.found(asked.queries)}

    def write(self, computed: tuple[Block[int], int, dict[str, Any]]) -> Receipt:
        """The receipt, which holds the result itself."""
        block, rows, found = computed
        return Receipt(block.number, block.start, rows, 0, found)

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Hand the results of the blocks over."""
        for receipt in receipts:
            self.take(receipt)

    def recipe(self) -> WorkRecipe:
        """How another process opens the index and scores with the same vectors."""
        asked = self.search
        tensors = {f"probe {name}": vectors.cpu().contiguous() for name, vectors in asked.probes.items()}
        metrics: dict[str, Any] = {}
        for name, metric in asked.metrics.items():
            scaled = metric.scales_rows  # else its factors are not needed any more
            metrics[name] = {"metric": asdict(metric.metric), "damping": metric.damping, "scaled": scaled}
            for i, factor in enumerate(metric.factors if scaled else ()):
                tensors[f"factor {name} {i:06d}"] = factor.contiguous()
        if (size := sum(tensor.nbytes for tensor in tensors.values())) > _MOST_SENT:
            what = f"query vectors and metrics of {size / 2**30:.1f} GiB would be sent to every worker"
            raise StoreError(what, where="--engine", remedy="search in this process, or ask fewer queries at a time")
        arguments = {
            "index": locator(asked.index.path),
            "version": asked.index.dataset.version,
            "tensors": base64.b64encode(save(tensors)).decode("ascii"),
            "metrics": metrics,
            **{name: getattr(asked, name) for name in ("where", "max_memory", "k", "lowest")},
        }
        return WorkRecipe("headwater.indexing.searching:search_like", arguments, versions())


def search_like(
    place: Place, *, index: str, version: int, tensors: str, metrics: Mapping[str, Any], **how: Any
) -> SearchFragments:
    """The work that `SearchFragments.recipe` describes, on the place's accelerator if it has one."""
    if place.threads is not None:
        torch.set_num_threads(place.threads)
    device, held = "cuda:0" if place.accelerators else "cpu", load(base64.b64decode(tensors))
    probes = {name.removeprefix("probe "): t.to(device) for name, t in held.items() if name.startswith("probe ")}
    fitted = {name: _restored(known, _factors(held, name)) for name, known in metrics.items() if known["scaled"]}
    return SearchFragments(Search(open_index(index, version), probes, fitted, **how))


def top_k(
    index: Index,
    probes: QueryVectors,
    k: int,
    *,
    engine: Engine | None = None,
    on_rows: Callable[[int], None] | None = None,
    **how: Any,
) -> list[list[Found]]:
    """`headwater.search.scan.top_k`, on an engine; None is this process. `how` are its further arguments."""
    if engine is None or not engine.elsewhere:
        return here.top_k(index, probes, k, on_rows=on_rows, **how)
    best, done = Best(k, lowest=how.get("lowest", False)), 0

    def take(receipt: Receipt) -> None:
        nonlocal done
        best.join([[Found(*hit) for hit in hits] for hits in receipt.written["best"]])
        done += receipt.rows
        if on_rows is not None:
            on_rows(done)

    search = Search(index, probes, k=k, **how)
    engine.run(_blocks(index), SearchFragments(search, take))
    return best.found(search.queries)


def score_all(index: Index, probes: QueryVectors, *, engine: Engine | None = None, **how: Any) -> Scores:
    """`headwater.search.scan.score_all`, on an engine; None is this process. `how` are its further arguments."""
    return here.score_all(index, probes, through=_through(engine), **how)


def write_scores(
    index: Index,
    parts: Iterable[Part],
    queries: Sequence[str],
    *,
    out: str | Path,
    engine: Engine | None = None,
    **how: Any,
) -> int:
    """`headwater.search.export.write_scores`, on an engine; None is this process. `how` are its further arguments."""
    return export.write_scores(index, parts, queries, out=out, through=_through(engine), **how)


def _through(engine: Engine | None) -> here.Through:
    """How all blocks of scores are made, in row order."""
    if engine is None or not engine.elsewhere:
        return here.in_this_process

    def through(take: Callable[[ScoredBlock], None], index: Index, probes: QueryVectors, /, **how: Any) -> None:
        def unpack(receipt: Receipt) -> None:
            for one in receipt.written["scored"]:
                take(_unpacked(one))

        engine.run(_blocks(index), SearchFragments(Search(index, probes, **how), unpack))

    return through


def _blocks(index: Index) -> Iterator[Block[int]]:
    """Consecutive fragments, together about 64 MiB of vectors; the blocks' starts count fragments."""
    held: list[int] = []
    number = size = start = 0
    for fragment in index.dataset.get_fragments():
        held.append(fragment.fragment_id)
        size += fragment.count_rows() * max(index.rows_bytes, 1)
        if size >= _BLOCK_BYTES:
            yield Block(number, start, held)
            number, start, held, size = number + 1, start + len(held), [], 0
    if held:
        yield Block(number, start, held)


def _packed(block: ScoredBlock) -> dict[str, Any]:
    """A block of scores, JSON-ready; the numbers as base64 of little-endian float32."""
    values = block.scores.cpu().numpy()
    text = base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
    return {"ids": block.ids, "queries": len(values), "scores": text}


def _unpacked(packed: Mapping[str, Any]) -> ScoredBlock:
    values = np.frombuffer(base64.b64decode(packed["scores"]), dtype="<f4").reshape(packed["queries"], -1)
    ids = tuple(packed["ids"])
    return ScoredBlock(np.empty(0, np.int64), torch.from_numpy(values.astype(np.float32)), ids)


def _factors(held: Mapping[str, Tensor], column: str) -> tuple[Tensor, ...]:
    names = sorted(name for name in held if name.rpartition(" ")[0] == f"factor {column}")
    return tuple(held[name] for name in names)


def _restored(known: Mapping[str, Any], factors: tuple[Tensor, ...]) -> FittedMetric:
    metric = Metric(**{**known["metric"], "blocks": tuple(known["metric"]["blocks"])})
    return FittedMetric(metric, factors, tuple(known["damping"]))
