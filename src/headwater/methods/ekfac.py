"""EK-FAC: inner products of rows' gradients with queries' gradients under the inverse curvature (arXiv 2308.03296)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headwater.core.seeds import hash32, key
from headwater.core.spec import MethodSpec
from headwater.curvature.gauss_newton import Fisher, Vectors, conjugate_gradients
from headwater.curvature.kronecker import Covariances, Eigenvalues, Ekfac
from headwater.data.batches import CONTEXT, TokenBatch, Window
from headwater.data.rows import Row
from headwater.features.capture import visit_gradients
from headwater.features.exact import products_with, whole_gradients
from headwater.features.parameters import select_linear
from headwater.features.sites import ParameterSelection
from headwater.methods.method import Method, MethodEntry
from headwater.methods.targets import RowScorer, Target, evenly_spaced, laid_out
from headwater.models.load import LoadedModel
from headwater.models.losses import target_logits
from headwater.models.reader import Reader

Labels = Literal["sampled", "data"]


@dataclass(frozen=True)
class EkfacOptions:
    """damping: λ as a share of a layer's mean eigenvalue; 0 chooses it by how well two halves of the rows agree.

    fit_rows: at most so many rows fit the curvature.

    refine: so many steps of conjugate gradients from EK-FAC's answer towards that of the whole Fisher matrix F of
    `refine_rows` of these rows, with the same λ. A step costs about 6 forward passes for each of them and each query.

    labels: the target tokens that the curvature is fitted with, `sampled` from the model (the true Fisher) or those of
    the `data`. parameters, window, seed as in `rapidin`; only weights of linear layers are read.
    """

    damping: float = 0.1
    labels: str = "sampled"
    fit_rows: int = 2048
    refine: int = 0
    refine_rows: int = 256
    parameters: str = ""
    window: int = CONTEXT
    seed: int = 0


def ekfac(options: EkfacOptions) -> Method:
    """The method with these options: ⟨∇L(row), (F + λI)⁻¹ ∇L(query)⟩; positive = proponent."""

    def scoring(reader: Reader, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
        loaded, window = reader.loaded, Window(options.window)
        selection = select_linear(loaded.model, options.parameters)
        curvature = fit_ekfac(loaded, selection, reader.batches(sample, window), options)
        queries = laid_out(targets)
        gradients = whole_gradients(loaded, selection, reader.batches(queries, window, "query"), len(queries))
        few = [replace(row, ordinal=i) for i, row in enumerate(evenly_spaced(sample, options.refine_rows))]
        some = reader.batches(few, window) if options.refine else []
        fisher = Fisher(loaded, selection.shapes, some, transposed=selection.transposed)
        probes = refined(curvature, gradients, fisher, options.refine)

        def score(rows: Sequence[Row]) -> np.ndarray:
            return products_with(loaded, selection, reader.batches(rows, window), probes, len(rows)).numpy()

        notes = {"coverage": str(selection.coverage), "fitted on rows": len(sample), "damping": curvature.damping}
        return RowScorer(targets, score, notes)

    return Method(MethodSpec("ekfac", asdict(options)), scoring=scoring, fit_rows=options.fit_rows)


def fit_ekfac(
    loaded: LoadedModel, selection: ParameterSelection, rows: Iterable[TokenBatch], options: EkfacOptions
) -> Ekfac:
    """Fit the preconditioner on rows in two passes, one for the bases and one for the eigenvalues."""
    drawn = [labelled(loaded, batch.to(loaded.device), options) for batch in rows]
    covariances = Covariances()
    for batch in drawn:
        visit_gradients(loaded.model, selection, batch, covariances.add, head="tokens")
    eigenvalues = Eigenvalues(covariances.bases())
    for batch in drawn:
        visit_gradients(loaded.model, selection, batch, eigenvalues.add, head="tokens")
        eigenvalues.rows += len(batch.rows)
    return eigenvalues.finish(options.damping)


def refined(curvature: Ekfac, gradients: Vectors, fisher: Fisher, steps: int) -> dict[str, Tensor]:
    """(F + λI)⁻¹ of each gradient: EK-FAC's answer, or so many conjugate gradients from it with the whole F."""
    if not steps:
        return curvature.solve(gradients)
    fitted = {name: gradient for name, gradient in gradients.items() if name in curvature.factors}

    def damped(vectors: Vectors) -> dict[str, Tensor]:
        found = fisher.times(vectors)
        return {name: found[name] + curvature.factors[name].damping * value for name, value in vectors.items()}

    return {**curvature.solve(gradients), **conjugate_gradients(damped, curvature.solve, fitted, steps)}


@torch.no_grad()
def labelled(loaded: LoadedModel, batch: TokenBatch, options: EkfacOptions) -> TokenBatch:
    """The batch with targets sampled from the model's predictions, by seed, row and position; unchanged for `data`."""
    if cast(Labels, options.labels) == "data":
        return batch
    logits, place = target_logits(loaded.model, batch.input_ids, batch.response)
    targets = batch.targets.clone()
    for item, row in enumerate(batch.item_row.tolist()):
        token = batch.start[item] + place[item]
        chance = hash32(token, key(options.seed, "labels", batch.rows[row].row.id)).double() / 2**32
        targets[item, place[item]] = sample(logits[item], chance).to(targets.device)
    return replace(batch, targets=torch.where(batch.response, targets, batch.targets))


def sample(logits: Float[Tensor, "tokens vocab"], chance: Float[Tensor, " tokens"]) -> Int[Tensor, " tokens"]:
    """A token for each position, drawn from softmax(logits) by its uniform number in [0, 1): the same on every device.

    The token is the first whose cumulative probability is above the number.
    """
    cumulative = logits.double().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(cumulative, chance.to(cumulative)[:, None] * cumulative[:, -1:], right=True)
    return drawn[:, 0].clamp_max(logits.shape[-1] - 1)


ENTRY = MethodEntry(
    name="ekfac",
    summary="Influence through eigenvalue-corrected Kronecker factors, rows streamed past preconditioned queries.",
    reads="one forward and one activation-only backward pass: whole gradients of linear layers; two more to fit",
    cost="about 3 forward passes, 9 for each row fitted on",
    source="Grosse et al., arXiv 2308.03296",
    presets={"default": EkfacOptions(), "empirical": EkfacOptions(labels="data"), "refined": EkfacOptions(refine=4)},
    make=ekfac,
    choices={"labels": ("sampled", "data")},
)
