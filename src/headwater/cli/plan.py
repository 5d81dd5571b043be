"""`headwater plan`: disk, memory and time of a build, measured on some of the rows before anything runs."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import TYPE_CHECKING

from headwater.cli.arguments import (
    Adapter,
    Code,
    Columns,
    Data,
    Device,
    DeviceMap,
    Dtype,
    Json,
    Limit,
    MaxDisk,
    MaxMemory,
    MaxTokens,
    Merge,
    MethodName,
    ModelName,
    NoText,
    Quantization,
    Settings,
    Split,
    Streaming,
    Template,
    TokensPerBatch,
    pairs,
    parse_bytes,
)
from headwater.cli.console import emit_json, emit_pairs

if TYPE_CHECKING:
    from headwater.indexing.plan import BuildPlan


def plan(
    model: ModelName,
    data: Data,
    method: MethodName = "rise",
    settings: Settings = [],
    adapter: Adapter = None,
    merge: Merge = False,
    template: Template = None,
    columns: Columns = [],
    limit: Limit = None,
    split: Split = "train",
    streaming: Streaming = False,
    max_tokens: MaxTokens = 2048,
    tokens_per_batch: TokensPerBatch = 8192,
    no_text: NoText = False,
    code: Code = None,
    max_memory: MaxMemory = None,
    max_disk: MaxDisk = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    device_map: DeviceMap = None,
    quantization: Quantization = None,
    as_json: Json = False,
) -> None:
    """What `headwater index build` with the same options will take, and settings that fit.

    Example:  headwater plan --model my-model --data train.jsonl --method rise --max-memory 8GiB
    """
    from headwater.data.corpus import open_corpus
    from headwater.indexing.plan import Limits, plan_build, prepare
    from headwater.methods.catalog import find_method
    from headwater.models.load import load_model

    limits = Limits(parse_bytes(max_memory, where="--max-memory"), parse_bytes(max_disk, where="--max-disk"))
    chosen = find_method(method, pairs(settings, "--set"))
    mapping = pairs(columns, "--column") or None
    corpus = open_corpus(data, mapping=mapping, limit=limit, split=split, streaming=streaming)
    loaded = load_model(
        model,
        adapter=adapter,
        merge=merge,
        dtype=dtype,
        device=device,
        device_map=device_map,
        quantization=quantization,
    )
    reader, manifest = prepare(
        loaded,
        corpus,
        chosen,
        template=template,
        max_tokens=max_tokens,
        tokens_per_batch=tokens_per_batch,
        keep_text=not no_text,
        code=code,
    )
    found = plan_build(corpus, reader, manifest, limits)
    if as_json:
        emit_json({**asdict(found), "block_rows": manifest.plan.block_rows, "coverage": str(manifest.coverage)})
    else:
        emit_pairs(_lines(found))


def _lines(found: BuildPlan) -> dict[str, str]:
    from headwater.indexing.plan import readable_bytes

    by_code = ", ".join(f"{code} {readable_bytes(size)}" for code, size in found.disk_by_code.items())
    split = ", ".join(f"{kind} {size:,.0f}" for kind, size in found.bytes_per_row.items())
    took = datetime.timedelta(seconds=round(found.seconds))
    return {
        "rows": f"{found.rows:,}, about {found.tokens:,} tokens",
        "disk": f"{readable_bytes(found.disk)}  (bytes a row: {split})",
        "disk by --code": by_code,
        "memory": f"{readable_bytes(found.memory)} at the peak, with --tokens-per-batch {found.tokens_per_batch}",
        "time": f"{took}  ({found.rows / max(found.seconds, 1e-9):,.1f} rows a second)",
        "measured on": f"{found.probed_rows:,} rows",
    }
