"""EK-FAC cosine: the cosine of two gradients under EK-FAC's inverse curvature, sketched so that it fills an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from headwater.core.errors import UsageError
from headwater.core.spec import Role
from headwater.curvature.kronecker import Ekfac
from headwater.curvature.whitening import Whitening, read_factors, write_factors
from headwater.data.batches import CONTEXT, HALF, Window
from headwater.data.rows import Row
from headwater.features.parameters import select_linear
from headwater.features.transformed_sketch import Transform, TransformedSketch
from headwater.methods.ekfac import EkfacOptions, fit_ekfac
from headwater.methods.method import FULL, Method, MethodEntry, Preparation, method_of_vectors
from headwater.models.checkpoints import load_checkpoint, midway, read_checkpoints
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.sketch.sketch import SKETCHES, make_sketch


@dataclass(frozen=True)
class EkfacCosOptions:
    """curvature: the file of EK-FAC's factors; an index is built with its own, which lies beside it.

    checkpoints: the folder of a `Recorder`, or of a Trainer's `checkpoint-N`: gradients are then those of the one
    checkpoint at which half of the run's learning (the sum of its learning rates) was done. Empty: the model's own.

    damping: λ as a share of a layer's mean eigenvalue; 0 chooses it by how well two halves of the rows agree.

    fit_rows: at most so many rows fit the curvature. dim: numbers for each row. parameters, sketch, window, overlap,
    seed as in `rapidin`; only weights of linear layers are read.
    """

    curvature: str = ""
    checkpoints: str = ""
    damping: float = 0.0
    fit_rows: int = 1024
    dim: int = 32_768
    parameters: str = ""
    sketch: str = "shift"
    window: int = CONTEXT
    overlap: int = HALF
    seed: int = 0


def ekfac_cos(options: EkfacCosOptions) -> Method:
    """The method with these options: cos(S (F + λI)^(−½) ∇L(row), S (F + λI)^(−½) ∇L(query)); positive = proponent."""
    needs = Preparation(
        options.curvature,
        ".curvature.safetensors",
        partial(_fit, options),
        lambda file: ekfac_cos(replace(options, curvature=str(file))),
    )
    method = method_of_vectors("ekfac-cos", options, partial(_bind, options), alike=True, preparation=needs)
    return replace(method, fit_rows=0 if options.curvature else options.fit_rows)


def _bind(options: EkfacCosOptions, loaded: LoadedModel) -> TransformedSketch:
    there = _at(options, loaded)
    selection = select_linear(there.model, options.parameters)
    sketch = make_sketch(options.sketch, selection.shapes, dim=options.dim, seed=options.seed)
    whitening = Whitening(partial(_factors, options, there))

    def scaled(name: str, turned: Tensor) -> Tensor:
        return whitening.scaled(name, turned, transposed=name in selection.transposed)

    transforms: dict[Role, Transform] = {"train": scaled, "query": scaled}
    return TransformedSketch(there, selection, sketch, transforms, unit=True, turned=whitening.turned)


def _factors(options: EkfacCosOptions, loaded: LoadedModel) -> Ekfac:
    if not options.curvature:
        remedy = "build an index with it, which fits the curvature first; or give curvature=FILE of such an index"
        raise UsageError("EK-FAC's factors are not fitted yet", where="ekfac-cos.curvature", remedy=remedy)
    return read_factors(options.curvature, loaded.fingerprint, loaded.device)


def _fit(options: EkfacCosOptions, reader: Reader, rows: Sequence[Row], file: Path) -> None:
    there = replace(reader, loaded=_at(options, reader.loaded))
    selection = select_linear(there.loaded.model, options.parameters)
    batches = there.batches(rows, Window(options.window, options.overlap))
    fitted = fit_ekfac(there.loaded, selection, batches, EkfacOptions(options.damping, seed=options.seed))
    write_factors(file, fitted, there.loaded.fingerprint)


def _at(options: EkfacCosOptions, loaded: LoadedModel) -> LoadedModel:
    """The model at the checkpoint that is read, or the model itself."""
    if not options.checkpoints:
        return loaded
    return load_checkpoint(midway(read_checkpoints(options.checkpoints)), loaded)


ENTRY = MethodEntry(
    name="ekfac-cos",
    summary="Cosine of the two gradients under EK-FAC's inverse curvature, sketched.",
    reads="one forward and one activation-only backward pass: gradients of linear layers, formed; two more to fit",
    stores="4 KiB",
    code="sign:32768",
    cost="about 3 forward passes, and forming every gradient once; 9 for each row fitted on",
    source="curvature: Grosse et al., arXiv 2308.03296; cosine and sketch: headwater",
    presets={"default": EkfacCosOptions(), FULL: EkfacCosOptions()},
    make=ekfac_cos,
    choices={"sketch": tuple(SKETCHES)},
    recorded={"checkpoints": "."},
)
