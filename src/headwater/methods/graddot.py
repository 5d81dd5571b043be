"""GradDot, GradCos and TracIn: plain gradient similarity, the baselines of RapidIn, on the same engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headwater.core.errors import UsageError
from headwater.core.spec import MethodSpec
from headwater.features.checkpoints import CheckpointEncoder
from headwater.features.encoder import Encoder
from headwater.methods import rapidin
from headwater.methods.method import Method, MethodEntry
from headwater.methods.rapidin import RapidInOptions
from headwater.models.checkpoints import Checkpoint, read_checkpoints
from headwater.models.load import LoadedModel, load_model


@dataclass(frozen=True)
class GradientOptions:
    """buckets, parameters, sketch, window, overlap, seed as in `rapidin`; `identity` keeps the whole gradient."""

    buckets: int = 65_536
    parameters: str = ""
    sketch: str = "shift"
    window: int = 512
    overlap: int = 0
    seed: int = 0


@dataclass(frozen=True)
class TracInOptions(GradientOptions):
    """checkpoints: the folder a `CheckpointRecorder` wrote; empty: the model alone, with weight 1."""

    checkpoints: str = ""


def _rapidin_options(options: GradientOptions, normalize: str) -> RapidInOptions:
    known = {name: value for name, value in asdict(options).items() if name != "checkpoints"}
    return RapidInOptions(**known, normalize=normalize, tokens="row")


def _method(name: str, normalize: str, options: GradientOptions) -> Method:
    inner = rapidin.rapidin(_rapidin_options(options, normalize))
    return Method(MethodSpec(name, asdict(options)), inner.windows, inner.bind)


def tracin(options: TracInOptions) -> Method:
    """Σ over checkpoints of learning rate × inner product of gradients; positive = proponent.

    Every checkpoint's model is held in memory. The model given is the base of recorded adapters; recorded whole models
    replace it.
    """
    inner = rapidin.rapidin(_rapidin_options(options, "none"))
    spec = MethodSpec("tracin", asdict(options))
    return Method(spec, inner.windows, partial(_bind_tracin, options))


def _bind_tracin(options: TracInOptions, loaded: LoadedModel) -> Encoder:
    settings = _rapidin_options(options, "none")
    if not options.checkpoints:
        return rapidin.encoder(settings, loaded)
    recorded = read_checkpoints(options.checkpoints)
    encoders = {f"step-{c.step}": rapidin.encoder(settings, load_checkpoint(c, loaded)) for c in recorded}
    return CheckpointEncoder(encoders, {f"step-{c.step}": c.learning_rate for c in recorded})


def load_checkpoint(checkpoint: Checkpoint, loaded: LoadedModel) -> LoadedModel:
    """The recorded model, in the precision and place of the one given."""
    dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
    if (Path(checkpoint.path) / "adapter_config.json").is_file():
        if not Path(loaded.name).exists() and loaded.name == "in-memory":
            raise UsageError("adapters need a base model that can be loaded by name", where="checkpoints")
        return load_model(loaded.name, adapter=checkpoint.path, dtype=dtype, device=str(loaded.device))
    own = (Path(checkpoint.path) / "tokenizer.json").is_file()
    tokenizer = None if own else loaded.tokenizer.name_or_path
    return load_model(checkpoint.path, dtype=dtype, device=str(loaded.device), tokenizer=tokenizer)


_COMMON: dict[str, Any] = {
    "choices": {"sketch": rapidin.CHOICES["sketch"]},
    "reads": "one forward and one activation-only backward pass: gradients of all selected parameters",
    "source": "Pruthi et al., arXiv 2002.08484",
}

GRADDOT = MethodEntry(
    name="graddot",
    summary="Inner product of the two gradients, sketched.",
    stores="256 KiB",
    cost="about 3 forward passes",
    presets={"default": GradientOptions()},
    make=partial(_method, "graddot", "none"),
    **_COMMON,
)
GRADCOS = MethodEntry(
    name="gradcos",
    summary="Cosine of the two gradients, sketched.",
    stores="128 KiB",
    cost="about 3 forward passes",
    presets={"default": GradientOptions()},
    make=partial(_method, "gradcos", "row"),
    **_COMMON,
)
TRACIN = MethodEntry(
    name="tracin",
    summary="Inner products of gradients summed over recorded checkpoints with their learning rates, sketched.",
    stores="256 KiB a checkpoint",
    cost="about 3 forward passes a checkpoint",
    presets={"default": TracInOptions()},
    make=tracin,
    **_COMMON,
)
