"""DataInf: a closed form in which a mean of inverses replaces the inverse of a mean (Kwon et al., arXiv 2310.00902)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from headwater.core.spec import MethodSpec
from headwater.curvature.rank_ones import RankOnes, SquaredSizes
from headwater.data.batches import CONTEXT, TokenBatch, Window
from headwater.data.rows import Row
from headwater.features.capture import visit_gradients
from headwater.features.exact import Whole, products_with, whole_gradients
from headwater.features.parameters import select_parameters
from headwater.features.sites import ParameterSelection
from headwater.methods.method import Method, MethodEntry
from headwater.methods.targets import RowScorer, Target, laid_out
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader


@dataclass(frozen=True)
class DataInfOptions:
    """damping: λ as a share of a tensor's mean squared entry. fit_rows: at most so many rows are averaged over.

    parameters, window as in `rapidin`.
    """

    damping: float = 0.1
    fit_rows: int = 2048
    parameters: str = ""
    window: int = CONTEXT


def datainf(options: DataInfOptions) -> Method:
    """The method with these options; positive = proponent.

    Score: Σ_tensors ⟨∇L(row), (1/n) Σ_i (g_i g_iᵀ + λI)⁻¹ ∇L(query)⟩.
    """

    def scoring(reader: Reader, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
        loaded, window = reader.loaded, Window(options.window)
        selection = select_parameters(loaded.model, options.parameters)
        queries = laid_out(targets)
        gradients = whole_gradients(loaded, selection, reader.batches(queries, window, "query"), len(queries))
        probes = precondition(loaded, selection, reader.batches(sample, window), gradients, options.damping)

        def score(rows: Sequence[Row]) -> np.ndarray:
            return products_with(loaded, selection, reader.batches(rows, window), probes, len(rows)).numpy()

        return RowScorer(targets, score, {"coverage": str(selection.coverage), "fitted on rows": len(sample)})

    return Method(MethodSpec("datainf", asdict(options)), scoring=scoring, fit_rows=options.fit_rows)


def precondition(
    loaded: LoadedModel, selection: ParameterSelection, rows: Iterable[TokenBatch], queries: Whole, damping: float
) -> Whole:
    """Apply the closed form to the queries' gradients: one pass over `rows` for λ, one for the sum."""
    moved = [batch.to(loaded.device) for batch in rows]
    count = sum(len(batch.rows) for batch in moved)
    sizes = SquaredSizes()
    for batch in moved:
        visit_gradients(loaded.model, selection, batch, sizes.add)
    closed = RankOnes(queries, sizes.damping(damping, count), rows=count)
    for batch in moved:
        visit_gradients(loaded.model, selection, batch, closed.add)
    return closed.finish()


ENTRY = MethodEntry(
    name="datainf",
    summary="Influence through a closed form for the inverse curvature, exact for one row and averaged over all.",
    reads="one forward and one activation-only backward pass: whole gradients; two more to fit",
    cost="about 3 forward passes, 6 for each row fitted on",
    source="Kwon et al., arXiv 2310.00902",
    presets={"default": DataInfOptions()},
    make=datainf,
)
