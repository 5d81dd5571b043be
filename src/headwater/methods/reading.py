"""How streaming methods read rows: tokens, then length-bucketed batches on the bench's terms."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.core.errors import DataError
from headwater.core.spec import Role
from headwater.data.batches import TokenBatch, plan_batches
from headwater.data.rows import Row
from headwater.data.windows import Window
from headwater.methods.streaming import Bench, Target


def batches(bench: Bench, rows: Sequence[Row], window: Window, role: Role = "train") -> list[TokenBatch]:
    """Batches of the rows, numbered in the order given; a query's hotwords narrow its targets."""
    tokens = bench.token_rows(rows, hotwords=role == "query")
    return plan_batches(tokens, window, tokens_per_batch=bench.tokens_per_batch)


def laid_out(targets: Sequence[Target]) -> list[Row]:
    """The targets' rows end to end."""
    return [row for target in targets for row in target.rows]


def spaced_sample(bench: Bench, most: int, name: str) -> list[Row]:
    """At most `most` rows of the bench's sample, evenly spaced, for the method called `name` to fit itself on.

    Raises:
        DataError: the bench has no sample.
    """
    if not bench.sample:
        raise DataError(f"'{name}' is fitted on rows and was given none", where="bench", remedy="give a sample")
    step = max(1, -(-len(bench.sample) // most))
    return list(bench.sample[::step])
