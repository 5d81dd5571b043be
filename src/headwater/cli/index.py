"""`headwater index`: build an index and look after it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headwater.cli.arguments import (
    Adapter,
    Code,
    Columns,
    Data,
    Device,
    DeviceMap,
    Dtype,
    IndexPath,
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
from headwater.cli.console import emit_json, emit_pairs, progress, say

app = typer.Typer(help="Build an index of training rows and look after it.", no_args_is_help=True)


@app.command()
def build(
    out: Annotated[str, typer.Argument(help="Folder (or object-store URI) of the index to make.")],
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted build.")] = False,
    dtype: Dtype = "float32",
    device: Device = "auto",
    device_map: DeviceMap = None,
    quantization: Quantization = None,
    as_json: Json = False,
) -> None:
    """Read every row with the model and keep its vectors.

    Example:  headwater index build runs/mine.lance --model my-model --data train.jsonl --method rise
    """
    from headwater.data.corpus import open_corpus
    from headwater.index.info import describe
    from headwater.index.store import require_vacant
    from headwater.indexing.build import build as build_index
    from headwater.indexing.plan import Limits, tokens_that_fit
    from headwater.methods.catalog import find_method
    from headwater.models.load import load_model

    limits = Limits(parse_bytes(max_memory, where="--max-memory"), parse_bytes(max_disk, where="--max-disk"))
    chosen = find_method(method, pairs(settings, "--set"))
    require_vacant(out, resume=resume)
    corpus = open_corpus(
        data, mapping=pairs(columns, "--column") or None, limit=limit, split=split, streaming=streaming
    )
    loaded = load_model(
        model,
        adapter=adapter,
        merge=merge,
        dtype=dtype,
        device=device,
        device_map=device_map,
        quantization=quantization,
    )
    reading: dict[str, Any] = {"template": template, "max_tokens": max_tokens, "keep_text": not no_text, "code": code}
    if limits.memory is not None or limits.disk is not None:
        reading["tokens_per_batch"] = tokens_per_batch
        tokens_per_batch = tokens_that_fit(out, corpus, loaded, chosen, limits=limits, resume=resume, **reading)
        say(f"fits with batches of {tokens_per_batch:,} tokens")
    with progress("reading rows", quiet=as_json) as advance:
        index = build_index(
            out,
            loaded=loaded,
            corpus=corpus,
            method=chosen,
            resume=resume,
            progress=lambda done, total, tokens: advance(done, total, f"{tokens:,} tokens"),
            **{**reading, "tokens_per_batch": tokens_per_batch},
        )
    say(f"covers {index.manifest.coverage}")
    _show(describe(index), as_json)


@app.command()
def info(
    path: IndexPath,
    as_json: Json = False,
) -> None:
    """What an index is: rows, bytes, method, coverage, fingerprints.

    Example:  headwater index info runs/mine.lance
    """
    from headwater.index.info import describe
    from headwater.index.store import open_index

    _show(describe(open_index(path)), as_json)


def _show(facts: dict[str, object], as_json: bool) -> None:
    if facts.get("warning"):
        say(f"warning: {facts['warning']}")
    if as_json:
        emit_json(facts)
    else:
        emit_pairs({name: value for name, value in facts.items() if name not in ("versions", "warning")})
