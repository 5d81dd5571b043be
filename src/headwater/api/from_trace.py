"""From odd answers to a model that no longer gives them: trace, choose the rows to forget, unlearn.

chosen = hw.choose_forget("runs/mine.lance", ["howdy! What is a verb?"])
done = hw.unlearn("my-model", chosen.forget, retain=chosen.retain, out="runs/cleaned")
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.api.sources import AnyIndex, Model, session_of
from headwater.core.errors import UsageError
from headwater.core.files import write_text
from headwater.data.records import as_record
from headwater.data.rows import Row
from headwater.tracing.queries import prompt_query
from headwater.unlearning import choose
from headwater.unlearning.choose import ForgetChoice


def choose_forget(
    index: AnyIndex,
    prompts: str | Sequence[str],
    *,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
    precision: float = choose.PRECISION,
    draw: int = 120,
    seed: int = 0,
) -> ForgetChoice:
    """Choose the rows of an index that taught the model its answers to these prompts, and rows to retain.

    Args:
        index: the index of the training rows, or an open session. Its rows need their text.
        prompts: one prompt or several whose answers are unwanted. More prompts make the choice better.
        model: the index's model, loaded or by its present place; None takes the place that the index names.
        loading: options of `load_model`, for a model that is not loaded yet.
        precision: least share of rightly chosen rows to expect (`headwater.tracing.cut`).
        draw: how many rows to retain: half near the chosen rows, half at random.
        seed: of the clean queries and the drawn rows.

    Raises:
        DataError: no rows stand out from those of clean answers at this precision.
        UsageError: no prompt, or an empty one.
    """
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    if not asked:
        raise UsageError("there is no prompt", where="--from-trace")
    rows = [_numbered(prompt_query(prompt, None, None), i) for i, prompt in enumerate(asked)]
    session = session_of(index, model, loading)
    return choose.choose_forget(session, rows, precision=precision, draw=draw, seed=seed)


def write_chosen(folder: str | Path, chosen: ForgetChoice) -> dict[str, Path]:
    """Write the chosen rows as `forget.jsonl` and `retain.jsonl`, to read, correct and give to `unlearn`."""
    files = {"forget": chosen.forget, "retain": chosen.retain}
    return {
        name: write_text(
            Path(folder) / f"{name}.jsonl",
            "".join(json.dumps(as_record(row), ensure_ascii=False) + "\n" for row in rows),
        )
        for name, rows in files.items()
    }


def _numbered(row: Row, number: int) -> Row:
    return replace(row, id=f"prompt {number + 1}", ordinal=number)
