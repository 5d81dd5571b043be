"""Plan a build of a model that is not here, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.api.sources import Rows, corpus_of
from headwater.core.arguments import named
from headwater.core.errors import UsageError
from headwater.data.inspection import require_usable
from headwater.data.tokens import MAX_TOKENS
from headwater.indexing.choosing import named_method
from headwater.indexing.forecast import Forecast, Machines, forecast_build
from headwater.methods.bound import Bound
from headwater.models.reader import TOKENS_PER_BATCH, Reader
from headwater.models.weightless import shapes_of_model

_LOADING = ("dtype", "tokenizer", "revision", "trust_remote_code")


def forecast(
    *,
    model: str,
    data: Rows,
    method: str = "rise",
    settings: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    template: str | None = None,
    max_tokens: int = MAX_TOKENS,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    targets: str | None = None,
    keep_text: bool = True,
    code: str | None = None,
    block_rows: int | None = None,
    device: str | None = None,
    efficiency: float | None = None,
    workers: int = 1,
    rows: int | None = None,
) -> Forecast:
    """Estimate what `build` needs without the model's weights: its configuration and tokenizer are read.

    Args:
        model: folder or hub name; a folder may hold the configuration and the tokenizer alone.
        data: rows like those of the build; they are counted, and some are tokenised.
        method: as in `build`.
        settings: as in `build`.
        loading: `dtype`, `tokenizer`, `revision` and `trust_remote_code` of `load_model`.
        columns: as in `build`.
        template: as in `build`.
        max_tokens: as in `build`.
        tokens_per_batch: as in `build`.
        targets: as in `build`.
        keep_text: as in `build`.
        code: as in `build`.
        block_rows: as in `build`.
        device: `h100`, `a100` or `cpu` (this machine's); None gives no time.
        efficiency: the share of the device's peak that is reached; None is the usual one.
        workers: how many devices, workers or shards compute at the same time.
        rows: how many rows there will be; None is as many as `data` has.

    Raises:
        UsageError: an unknown method, option or device; an adapter, whose shapes are not in a configuration; or
            preference pairs under the DPO loss.
        ModelError: there is no configuration or tokenizer.
    """
    chosen = named_method(method, settings)
    chosen.require_vectors()
    opened = corpus_of(data, columns=columns, compared=True)
    if opened.pairs == "dpo":
        what = "a plan without weights cannot foretell the DPO loss, which a second model takes part in"
        raise UsageError(what, where="--pairs dpo", remedy="plan with the weights")
    given = {name: value for name, value in named(loading, where="loading", example={}).items() if value is not None}
    for name in given:
        if name not in _LOADING:
            what = "a plan without weights reads the configuration of a whole model"
            raise UsageError(what, where=f"--{name.replace('_', '-')}", remedy="leave it out, or plan with the weights")
    machines = Machines(device, efficiency, workers, rows)
    how: dict[str, Any] = {"template": template, "max_tokens": max_tokens, "tokens_per_batch": tokens_per_batch}
    reader = Reader.of(shapes_of_model(model, **given), targets=targets, **how)
    corpus = require_usable(opened, reader.tokenization)
    kept: dict[str, Any] = {"keep_text": keep_text, "code": code, "block_rows": block_rows}
    return forecast_build(corpus, Bound.of(chosen, reader), machines, **kept)
