"""How streaming methods read rows: tokens, then length-bucketed batches on the bench's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headwater.core.errors import UsageError
from headwater.core.spec import Role
from headwater.data.batches import TokenBatch, plan_batches
from headwater.data.rows import Row
from headwater.data.windows import Window
from headwater.methods.streaming import Bench, Target


def batches(bench: Bench, rows: Sequence[Row], window: Window, role: Role = "train") -> list[TokenBatch]:
    """Batches of the rows, numbered in the order given; a query's hotwords narrow its targets."""
    numbered = [replace(row, ordinal=i) for i, row in enumerate(rows)]
    tokens = bench.tokenization.encode(numbered, hotwords=role == "query")
    return plan_batches(tokens, window, tokens_per_batch=bench.tokens_per_batch)


def laid_out(targets: Sequence[Target]) -> list[Row]:
    """The targets' rows end to end."""
    return [row for target in targets for row in target.rows]


def required(bench: Bench | None, name: str) -> Bench:
    """The bench, which the method called `name` cannot do without."""
    if bench is None:
        raise UsageError(f"'{name}' reads a model and was given none", where="bench", remedy="give a bench")
    return bench
