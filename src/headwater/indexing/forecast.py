"""Plan a build without the model's weights: from its configuration, a sample of the data, and stated assumptions.

disk    as in `headwater.indexing.plan`: a real block of random vectors is stored
memory  = process + weights + activations + logits + sketch + blocks, for one worker
seconds = passes · FLOPs of a forward pass of all tokens / (FLOPs a second at the peak · efficiency · workers)

Activations and FLOPs come from a forward pass of shapes, in which nothing is computed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from headwater.core.errors import unknown_name
from headwater.core.spec import code_of
from headwater.core.tables import Tabular
from headwater.data.corpus import Corpus
from headwater.data.tokens import TokenRow
from headwater.features.residuals import CHUNK_BYTES
from headwater.indexing.build import make_manifest
from headwater.indexing.live_bytes import LiveBytes
from headwater.indexing.plan import disk_of, readable_bytes
from headwater.indexing.probe import measure_storing, resident_bytes, share_of_characters, survey
from headwater.methods.bound import Bound
from headwater.methods.kept import expected
from headwater.methods.preparing import expected_bytes, preparation
from headwater.models.heads import LOGITS_BYTES
from headwater.models.losses import all_logits

PEAKS: dict[str, dict[torch.dtype, float]] = {
    "h100": {torch.bfloat16: 989e12, torch.float16: 989e12, torch.float32: 67e12, torch.float64: 67e12},
    "a100": {torch.bfloat16: 312e12, torch.float16: 312e12, torch.float32: 19.5e12, torch.float64: 19.5e12},
}
"""FLOPs a second that the vendor names for dense products, without sparsity and without TF32 for float32."""

EFFICIENCY = {"h100": 0.35, "a100": 0.4, "cpu": 0.5}
"""The share of the peak that is assumed where none is given; for `cpu` of a product measured on this machine."""

HELD_BLOCKS = 3
"""Blocks of vectors in memory at a time: one being computed, one waiting, one as the table that is written."""


@dataclass(frozen=True)
class Forecast(Tabular):
    """What a build will take by its shapes.

    Attributes:
        seen, total: parameters that the method reads, and all of the model's.
        rows, tokens: how many rows, and about how many tokens the model will read.
        bytes_per_row: bytes on disk, split into `vectors`, `text` and `other`.
        disk: bytes of the finished index.
        code, kept, disk_by_code: as in `headwater.indexing.plan.BuildPlan`.
        memory: peak bytes of one worker by part; on a GPU, `process` and `blocks` are the host's.
        flops: of the whole build.
        seconds: the time with all workers; None without a device.
        assumptions: what the figures rest on, a sentence each.
    """

    seen: int
    total: int
    rows: int
    tokens: int
    bytes_per_row: Mapping[str, float]
    disk: int
    code: str
    kept: float | None
    disk_by_code: Mapping[str, int]
    memory: Mapping[str, int]
    flops: float
    seconds: float | None
    assumptions: tuple[str, ...]

    def records(self) -> list[dict[str, Any]]:
        """One record with all figures; nested ones get dotted names, such as `memory.weights`."""
        flat = {k: v for k, v in vars(self).items() if not isinstance(v, Mapping | tuple)}
        nested = {f"{k}.{n}": x for k, v in vars(self).items() if isinstance(v, Mapping) for n, x in v.items()}
        return [{**flat, **nested, "assumptions": "; ".join(self.assumptions)}]


@dataclass(frozen=True)
class Machines:
    """What the build is to run on.

    Attributes:
        device: `h100`, `a100`, `cpu` (this machine's), or None for no estimate of the time.
        efficiency: share of the device's peak; None for the usual one (`EFFICIENCY`).
        workers: how many devices compute at the same time, or how many shards run.
        rows: how many rows there will be, like those of the data; None for as many as the data has.
    """

    device: str | None = None
    efficiency: float | None = None
    workers: int = 1
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.device is not None and self.device not in EFFICIENCY:
            raise unknown_name("device", self.device, EFFICIENCY, where="--device")

    def speed(self, dtype: torch.dtype) -> float:
        """FLOPs a second of one worker."""
        assert self.device is not None
        peak = _measured_peak(dtype) if self.device == "cpu" else PEAKS[self.device].get(dtype, 0.0)
        return peak * (self.efficiency or EFFICIENCY[self.device])


def forecast_build(corpus: Corpus, bound: Bound, machines: Machines, **kept: Any) -> Forecast:
    """The forecast of a build with a model that has no weights (`headwater.models.weightless.shapes_of_model`).

    `kept` are the options of `headwater.indexing.build.make_manifest`.
    """
    manifest = make_manifest(corpus, bound, **kept)
    process = resident_bytes()
    found = survey(corpus, manifest.plan.block_rows)
    rows = bound.reader.tokenization.encode(found.sample)
    count = machines.rows or found.rows
    share = share_of_characters(found) * count / found.rows
    stored = measure_storing(rows, manifest)
    disk, by_code = disk_of(count, share * len(rows), stored, manifest, bound.encoder.columns)
    fitted = expected_bytes(bound.method, bound.reader.loaded)
    disk, by_code = disk + fitted, {name: size + fitted for name, size in by_code.items()}
    coverage = bound.encoder.coverage
    lengths = np.array([min(len(row.ids), bound.reader.context) for row in rows])
    tokens = round(sum(len(row.ids) for row in rows) * share)
    forward = _flops(bound, lengths) * share
    fitting = forward / count * _fitting_passes(bound, count)  # by one worker, before the rows
    flops = forward * bound.form.passes + fitting
    held = min(count, manifest.plan.block_rows) * sum(column.row_bytes for column in manifest.columns)
    kind = "cpu" if machines.device in (None, "cpu") else "cuda"
    memory = {"process": process, **_memory(bound, rows, int(lengths.max()), kind), "blocks": HELD_BLOCKS * held}
    memory |= {"fitted": fitted} if fitted else {}
    seconds, assumed = None, [f"a row costs {bound.form.passes:g} forward passes"]
    if machines.device is not None:
        dtype = bound.reader.loaded.model.dtype
        seconds = ((flops - fitting) / machines.workers + fitting) / machines.speed(dtype)
        share_of_peak = machines.efficiency or EFFICIENCY[machines.device]
        name = "this machine's CPU" if machines.device == "cpu" else f"an {machines.device.upper()}"
        assumed.append(f"{share_of_peak:.0%} of the peak of {name} in {str(dtype).removeprefix('torch.')}")
        assumed.append("the model fits the worker: with a device map it takes as many devices as hold its weights")
    if fitted:
        assumed.append(f"what is fitted first takes {readable_bytes(fitted)}, beside the index and in each worker")
    if machines.workers > 1:
        assumed.append(f"{machines.workers} workers share the rows evenly and do not slow one another down")
    return Forecast(
        seen=coverage.seen,
        total=coverage.total,
        rows=count,
        tokens=tokens,
        bytes_per_row={"vectors": stored.vectors, "text": stored.text, "other": stored.other},
        disk=disk,
        code=code_of(manifest.columns),
        kept=expected(manifest.method.name, manifest.columns),
        disk_by_code=by_code,
        memory=memory,
        flops=flops,
        seconds=seconds,
        assumptions=tuple(assumed),
    )


def _fitting_passes(bound: Bound, rows: int) -> float:
    """Forward passes of a row's length for what the method fits before it reads the first row."""
    need = preparation(bound.method)
    return 0.0 if need is None else need.passes * min(rows, bound.method.fit_rows)


def _memory(bound: Bound, rows: Sequence[TokenRow], longest: int, kind: str) -> dict[str, int]:
    """Weights, activations at a batch of the longest rows, logits, and what the sketch holds, in bytes."""
    loaded = bound.reader.loaded
    tensors = {id(t): t for t in (*loaded.model.parameters(), *loaded.model.buffers())}
    items = min(max(bound.reader.tokens_per_batch // longest, 1), len(rows))
    dims = sum(column.dim for column in bound.encoder.columns)
    return {
        "weights": sum(t.numel() * t.dtype.itemsize for t in tensors.values()),
        "activations": _live(bound, items, longest),
        "logits": _logits(bound, items, longest, kind),
        "sketch": sum(t.numel() * t.dtype.itemsize for t in _held(bound.encoder, set(tensors))) + items * dims * 8,
    }


def _logits(bound: Bound, items: int, longest: int, kind: str) -> int:
    """Bytes of logits and what is made of them, of a batch of so many rows of this length on this kind of device.

    A forward pass needs three of a chunk's size; a backward pass logits and their gradient, whole or in parts
    (`headwater.models.heads`). If the head's own gradient is read, it needs the gradient at the logits of every token,
    or a sum of the head's size for each row, whichever is less.
    """
    model = bound.reader.loaded.model
    embedding = model.get_input_embeddings().weight
    vocabulary, width = int(embedding.shape[0]), int(embedding.shape[1])
    whole = items * longest * vocabulary * max(int(model.dtype.itemsize), 4)
    if not bound.form.backward:
        return min(3 * CHUNK_BYTES[kind], 3 * whole)
    limit = LOGITS_BYTES[kind]
    if whole <= limit:
        return 2 * whole
    head = {id(module) for module in model.get_output_embeddings().modules()}
    selection = getattr(bound.encoder, "selection", None)
    if selection is None or not any(id(site.module) in head for site in selection.sites):
        return 2 * limit
    return 2 * limit + items * width * vocabulary * 4 if longest > width else 2 * whole


def _live(bound: Bound, items: int, length: int) -> int:
    """Most bytes alive at a time in a forward pass of the trunk; all that a backward pass needs, if there is one."""
    model = bound.reader.loaded.model
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live, torch.set_grad_enabled(bound.form.backward):
        ids = torch.zeros(items, length, dtype=torch.int64, device="meta")
        embedded = model.get_input_embeddings()(ids)
        states = model.base_model(inputs_embeds=embedded.requires_grad_(bound.form.backward), use_cache=False)
        del states
    return int(live.peak)


def _flops(bound: Bound, lengths: np.ndarray) -> float:
    """FLOPs of a forward pass of rows of these lengths: a parabola in the length, as attention makes it."""
    model = bound.reader.loaded.model
    at = sorted({max(int(q), 1) for q in np.quantile(lengths, (0.0, 0.5, 1.0))} | {max(int(lengths.mean()), 1)})
    found = []
    for length in at:
        with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
            all_logits(model, torch.zeros(1, length, dtype=torch.int64, device="meta"))
        found.append(float(counter.get_total_flops()) / length)
    return float((lengths * np.interp(lengths, at, found)).sum())


def _held(value: Any, known: set[int], depth: int = 3) -> list[torch.Tensor]:
    """The tensors that an encoder holds, other than the model's own."""
    if isinstance(value, torch.Tensor):
        if id(value) in known:
            return []
        known.add(id(value))
        return [value]
    if isinstance(value, Mapping):
        return [t for part in value.values() for t in _held(part, known, depth)]
    if depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, entry.name, None) for entry in dataclasses.fields(value) if entry.name != "loaded")
        return [t for part in parts for t in _held(part, known, depth - 1)]
    return []


def _measured_peak(dtype: torch.dtype, size: int = 768) -> float:
    """FLOPs a second of a matrix product on this machine, with the threads of this process; the best of several."""
    left, best = torch.ones(size, size, dtype=dtype), 0.0
    for _ in range(5):
        began = time.perf_counter()
        left @ left
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
