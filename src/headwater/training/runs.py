"""What is needed to repeat a training: the weights it started from, its recipe, and the rows in their order.

    folder/run.json             recipe, context, seed, and the digest of every row
    folder/start.safetensors    the trained parameters before the first step
    folder/rows.safetensors     ids and targets of all rows one after the other, and their lengths

`fit` has its recorder write these. A training by another loop has no such record, because its batches are not known.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from headwater.core.errors import DataError, ModelError, UsageError
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.training.fitting import TrainingRecipe, read_recipe
from headwater.training.recorder import ROWS, RUN, START


@dataclass(frozen=True)
class RecordedRun:
    """A training that can be repeated.

    Attributes:
        model: the model before the training, in evaluation mode; what was trained requires gradients.
        rows: what it learned, in order.
        recipe, context, seed: as in `headwater.training.fitting.fit`.
    """

    model: Any
    rows: Sequence[TokenRow]
    recipe: TrainingRecipe
    context: int
    seed: int


def read_run(file: str | Path, trained: Any) -> RecordedRun:
    """The run whose record is `file`.

    Args:
        file: a run's `run.json`, or the folder that holds it.
        trained: the model that the training made; a copy of it gets the weights from before the training.

    Raises:
        DataError: there is no such record, or it is not whole.
        ModelError: the record is of a model with other parameters.
        UsageError: the model has dropout, so its training cannot be repeated.
    """
    path = Path(file) / RUN if Path(file).is_dir() else Path(file)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        recipe, context, seed, digests = (found[name] for name in ("recipe", "context", "seed", "rows"))
        start, tokens = load_file(path.parent / START), load_file(path.parent / ROWS)
        rows = _rows(digests, tokens)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        remedy = "train with headwater.training.fitting.fit and a Recorder, or by an evaluation with a recipe"
        raise DataError(f"no whole record of a training run: {error}", where=str(path), remedy=remedy) from None
    _require_repeatable(trained)
    model = copy.deepcopy(trained)
    _restore(model, start, where=str(path.parent / START))
    return RecordedRun(model.eval(), rows, read_recipe(recipe), context, seed)


def _rows(digests: Sequence[str], tokens: Mapping[str, Tensor]) -> list[TokenRow]:
    lengths = tokens["lengths"].tolist()
    parts = zip(digests, tokens["ids"].split(lengths), tokens["targets"].split(lengths), strict=True)
    return [
        TokenRow(
            Row(str(n), n, text=""), "", ids.numpy(), targets.numpy(), np.zeros((len(ids), 2), np.int64), 0, digest
        )
        for n, (digest, ids, targets) in enumerate(parts)
    ]


def _restore(model: Any, start: Mapping[str, Tensor], *, where: str) -> None:
    """Put the weights from before the training in, and let these alone require gradients."""
    parameters = dict(model.named_parameters())
    for name, tensor in start.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise ModelError(
                f"the model has no parameter '{name}' of this size", where=where, remedy="give its own run"
            )
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in start)
        if name in start:
            parameter.data.copy_(start[name])


def _require_repeatable(model: Any) -> None:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and module.p > 0:
            what = f"dropout of {module.p}: what it dropped is not recorded"
            raise UsageError(what, where=name or "model", remedy="train with dropout 0 to repeat the run")
