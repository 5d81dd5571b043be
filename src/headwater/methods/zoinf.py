"""Z0-Inf: influence from losses at checkpoints, without gradients (arXiv 2510.11832)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from headwater.core.errors import UsageError
from headwater.core.spec import MethodSpec, Role
from headwater.curvature.checkpoint_losses import Path
from headwater.data.batches import CONTEXT, Window
from headwater.data.rows import Row
from headwater.features.row_losses import mean_losses
from headwater.methods.method import PROPONENT, Meaning, Method, MethodEntry
from headwater.methods.targets import RowScorer, Target, laid_out, same_for_all
from headwater.models.checkpoints import load_checkpoint, read_checkpoints
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader

MEANINGS = {
    "pair": PROPONENT,
    "self": Meaning("higher = the row influences itself more; the query plays no part", signed=False),
    "variance": Meaning(
        "higher = the row's loss moved more between checkpoints; the query plays no part", signed=False
    ),
}


@dataclass(frozen=True)
class ZoInfOptions:
    """checkpoints: the folder of a `Recorder`, or of a Trainer's `checkpoint-N`. neighbours: how many nearest
    checkpoints are used; 0 for all.

    form: `pair` (influence on the query), `self` (influence of the row on itself) or `variance` (of the row's loss over
    checkpoints); the latter two are the same for every query. window: as in `rapidin`.
    """

    checkpoints: str = ""
    neighbours: int = 2
    form: str = "pair"
    window: int = CONTEXT


def zoinf(options: ZoInfOptions) -> Method:
    """The method with these options; positive = proponent. The models of all checkpoints are held in memory.

    Raises:
        UsageError: `checkpoints` is not given.
    """
    if not options.checkpoints:
        remedy = "give checkpoints=FOLDER, as a recorded training run leaves it"
        raise UsageError("losses are compared between checkpoints", where="zoinf.checkpoints", remedy=remedy)

    def scoring(reader: Reader, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
        models = [load_checkpoint(c, reader.loaded) for c in read_checkpoints(options.checkpoints)]
        path = Path(weight_gram([loaded.model for loaded in models]), options.neighbours)
        query_losses = _losses(reader, models, laid_out(targets), options, "query")

        def score(rows: Sequence[Row]) -> np.ndarray:
            losses = _losses(reader, models, rows, options, "train")
            if options.form == "pair":
                return path.influence(losses, query_losses)
            return same_for_all(path.self_influence(losses) if options.form == "self" else losses.var(axis=0), targets)

        return RowScorer(targets, score, {"checkpoints": len(models)})

    return Method(MethodSpec("zoinf", asdict(options)), scoring=scoring, meaning=MEANINGS[options.form])


@torch.no_grad()
def weight_gram(models: Sequence[Any]) -> Float[np.ndarray, "checkpoints checkpoints"]:
    """⟨θ_a − θ_last, θ_b − θ_last⟩ over all floating-point parameters, float64."""
    gram = np.zeros((len(models), len(models)))
    for tensors in zip(*(model.parameters() for model in models), strict=True):
        if tensors[0].is_floating_point():
            steps = torch.stack([tensor.double() - tensors[-1].double() for tensor in tensors]).flatten(1)
            gram += (steps @ steps.mT).cpu().numpy()
    return gram


def _losses(
    reader: Reader, models: Sequence[LoadedModel], rows: Sequence[Row], options: ZoInfOptions, role: Role
) -> Float[np.ndarray, "checkpoints rows"]:
    planned = reader.batches(rows, Window(options.window), role)
    return np.stack([mean_losses(loaded, planned, len(rows)).double().numpy() for loaded in models])


ENTRY = MethodEntry(
    name="zoinf",
    summary="Influence from how losses move between checkpoints: forward passes only.",
    reads="one forward pass a checkpoint: losses",
    cost="1 forward pass a checkpoint",
    source="Z0-Inf, arXiv 2510.11832",
    presets={"default": ZoInfOptions()},
    make=zoinf,
    choices={"form": tuple(MEANINGS)},
    recorded={"checkpoints": "."},
)
