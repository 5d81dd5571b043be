"""EK-FAC cosine: the cosine of two gradients under EK-FAC's inverse curvature, sketched so that it fills an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from headwater.core.errors import UsageError
from headwater.core.spec import Role
from headwater.curvature.kronecker import Ekfac
from headwater.curvature.whitening import Whitening, read_factors, write_factors
from headwater.data.batches import CONTEXT, HALF, Window
from headwater.data.rows import Row
from headwater.features.checkpoints import CheckpointEncoder
from headwater.features.encoder import Encoder
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

    checkpoints: the folder of a `Recorder`, or of a Trainer's `checkpoint-N`. Gradients are then read at the checkpoint
    at which half of the run's learning (the sum of its learning rates) was done. Empty: only at the model itself.

    readings: `both` reads them at the model itself too, and the score is the mean of the two cosines; `halfway` only
    there.

    damping: λ as a share of a layer's mean eigenvalue; 0 chooses it by how well two halves of the rows agree.

    fit_rows: at most so many rows fit the curvature. dim: numbers for each row and reading. parameters, sketch, window,
    overlap, seed as in `rapidin`; only weights of linear layers are read.
    """

    curvature: str = ""
    checkpoints: str = ""
    readings: str = "halfway"
    damping: float = 0.1
    fit_rows: int = 1024
    dim: int = 32_768
    parameters: str = ""
    sketch: str = "shift"
    window: int = CONTEXT
    overlap: int = HALF
    seed: int = 0


Options = TypeVar("Options", bound=EkfacCosOptions)


def ekfac_cos(options: EkfacCosOptions) -> Method:
    """The method with these options: cos(S (F + λI)^(−½) ∇L(row), S (F + λI)^(−½) ∇L(query)); positive = proponent."""
    form = {"alike": True, "preparation": curvature_file(options, ekfac_cos), "passes": 3.0 * readings(options)}
    method = method_of_vectors("ekfac-cos", options, partial(cosine_encoder, options), **form)
    return replace(method, fit_rows=0 if options.curvature else options.fit_rows)


def readings(options: EkfacCosOptions) -> int:
    """At how many models a row's gradient is read."""
    return 2 if options.checkpoints and options.readings == "both" else 1


def curvature_file(options: Options, make: Callable[[Options], Method]) -> Preparation:
    """The file of factors that a method with these options needs, and that `make` makes the method with."""
    return Preparation(
        options.curvature,
        ".curvature.safetensors",
        partial(_fit, options),
        lambda file: make(replace(options, curvature=str(file))),
        size=partial(_file_bytes, options),
        passes=9.0 * readings(options),
    )


def _file_bytes(options: EkfacCosOptions, loaded: LoadedModel) -> int:
    """For each layer and reading the eigenvectors of both sides and the eigenvalues, in float32."""
    shapes = select_linear(loaded.model, options.parameters).shapes.values()
    return readings(options) * sum(4 * (out * out + width * width + out * width) for out, width in shapes)


def cosine_encoder(options: EkfacCosOptions, loaded: LoadedModel) -> Encoder:
    """Unit vectors whose inner products are the cosines: one column for each reading, of equal weight."""
    encoders = {name: _encoder(options, name, there) for name, there in _models(options, loaded).items()}
    if len(encoders) == 1:
        return next(iter(encoders.values()))
    return CheckpointEncoder(encoders, dict.fromkeys(encoders, 1 / len(encoders)))


def _encoder(options: EkfacCosOptions, name: str, loaded: LoadedModel) -> TransformedSketch:
    """The encoder of one reading."""
    selection = select_linear(loaded.model, options.parameters)
    sketch = make_sketch(options.sketch, selection.shapes, dim=options.dim, seed=options.seed)
    whitening = Whitening(partial(_factors, options, name, loaded))

    def scaled(name: str, turned: Tensor) -> Tensor:
        return whitening.scaled(name, turned, transposed=name in selection.transposed)

    transforms: dict[Role, Transform] = {"train": scaled, "query": scaled}
    return TransformedSketch(loaded, selection, sketch, transforms, unit=True, turned=whitening.turned)


def _factors(options: EkfacCosOptions, name: str, loaded: LoadedModel) -> Ekfac:
    if not options.curvature:
        remedy = "build an index with it, which fits the curvature first; or give curvature=FILE of such an index"
        raise UsageError("EK-FAC's factors are not fitted yet", where="ekfac-cos.curvature", remedy=remedy)
    return read_factors(options.curvature, name, loaded.fingerprint, loaded.device)


def _fit(options: EkfacCosOptions, reader: Reader, rows: Sequence[Row], file: Path) -> None:
    fitted = {}
    for name, there in _models(options, reader.loaded).items():
        selection = select_linear(there.model, options.parameters)
        batches = replace(reader, loaded=there).batches(rows, Window(options.window, options.overlap))
        ekfac = fit_ekfac(there, selection, batches, EkfacOptions(options.damping, seed=options.seed))
        fitted[name] = ekfac, there.fingerprint
    write_factors(file, fitted)


def _models(options: EkfacCosOptions, loaded: LoadedModel) -> dict[str, LoadedModel]:
    """The models at which gradients are read, by the name of the reading; a single one has the empty name."""
    if not options.checkpoints:
        return {"": loaded}
    half = load_checkpoint(midway(read_checkpoints(options.checkpoints)), loaded)
    return {"halfway": half, "end": loaded} if readings(options) == 2 else {"": half}


ENTRY = MethodEntry(
    name="ekfac-cos",
    summary="Cosine of the two gradients under EK-FAC's inverse curvature, sketched.",
    reads="one forward and one activation-only backward pass: gradients of linear layers, formed; two more to fit",
    stores="2 KiB a reading; 32 times that with preset=full",
    code="sign:16352",
    cost="about 3 forward passes a reading, and forming every gradient once; 9 for each row fitted on",
    source="curvature: Grosse et al., arXiv 2308.03296; cosine and sketch: headwater",
    presets={"default": EkfacCosOptions(readings="both"), FULL: EkfacCosOptions(readings="both")},
    make=ekfac_cos,
    choices={"sketch": tuple(SKETCHES), "readings": ("both", "halfway")},
    recorded={"checkpoints": "."},
)
