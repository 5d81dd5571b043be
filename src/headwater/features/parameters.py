"""Which parameters a method reads: globs over names, the default set, and what of it the gradient engine can see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from headwater.core.errors import ModelError, UsageError
from headwater.core.spec import Coverage
from headwater.features.sites import Site, find_sites


def select_linear(model: Any, globs: str = "") -> ParameterSelection:
    """The selected parameters that are weights of linear layers; without globs, of the adapter or of all layers.

    The head is left out: its output is the vocabulary, and its factors would be the largest by far. Biases and norms
    are not linear layers' weights; the coverage says what share is seen.

    Raises:
        ModelError: no linear layer among them.
        UsageError: a glob matches no parameter.
    """
    chosen = set(select_parameters(model, globs).shapes)
    head = model.get_output_embeddings()
    kept = [
        name
        for where, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
        for name in [f"{where}.weight"]
        if name in chosen
    ]
    if not kept:
        raise ModelError("no linear layer among the selected parameters", where="parameters", remedy="select others")
    return select_parameters(model, ",".join(name.replace("[", "[[]") for name in kept))


_WRAPPER = "base_model.model."
"""What PEFT puts before every name; globs may leave it out."""


@dataclass(frozen=True)
class ParameterSelection:
    """The parameters to read and the modules at which their gradients are caught.

    Attributes:
        sites: the modules.
        shapes: name of each gradient tensor to its shape as `Gradient.shape` has it, in the model's order; a fused
            expert parameter counts as one tensor an expert.
        coverage: share of the model's parameters, with what was asked for and cannot be seen.
        proved_idle: modules that did not run in some batch and were proved to be unused there; filled as batches come.
    """

    sites: tuple[Site, ...]
    shapes: Mapping[str, tuple[int, ...]]
    coverage: Coverage
    proved_idle: set[str] = field(default_factory=set, repr=False, compare=False)


def select_parameters(model: nn.Module, globs: str = "") -> ParameterSelection:
    """The parameters whose names match one of the comma-separated `globs` (`model.layers.*.mlp.*`).

    Without globs: the adapter's when the model carries one, else all weights, biases and norms. A parameter shared by
    several modules has the name under which the model lists it first, and counts once.

    Raises:
        UsageError: a glob matches no parameter.
        ModelError: of what was selected nothing can be seen.
    """
    names = dict(model.named_parameters())
    wanted = parameter_names(model, globs)
    sites, unseen = find_sites(model, wanted)
    if not sites:
        raise ModelError(
            f"no gradient can be read of any of the {len(wanted)} selected parameters: {_some(wanted)}",
            remedy="select linear layers, embeddings or norms",
        )
    missing = [name for name in wanted if name in unseen]
    seen = sum(names[name].numel() for name in wanted if name not in unseen)
    total = sum(parameter.numel() for parameter in names.values())
    share = sum(names[name].numel() for name in missing)
    note = f"selected but NOT seen: {share:,} in {len(missing)} parameters ({_some(missing)})" if missing else ""
    return ParameterSelection(sites, _ordered(wanted, sites), Coverage(seen, total, note))


def parameter_names(model: nn.Module, globs: str = "") -> list[str]:
    """Names of the parameters that `globs` asks for, in the model's order, whether or not they can be seen."""
    names = dict(model.named_parameters())
    return _match(names, globs) if globs.strip() else _default(model, names)


def _ordered(wanted: Iterable[str], sites: Iterable[Site]) -> dict[str, tuple[int, ...]]:
    """Shapes in the order of the model's parameters, whatever order modules are visited in."""
    shapes = {name: shape for site in sites for name, shape in site.shapes.items()}
    place = {name: position for position, name in enumerate(wanted)}
    return dict(sorted(shapes.items(), key=lambda pair: place[pair[0].split("[")[0]]))


def _default(model: Any, names: Mapping[str, nn.Parameter]) -> list[str]:
    if not hasattr(model, "peft_config"):
        return list(names)
    prefix = getattr(model.base_model, "prefix", "prompt_encoder")
    marks = (prefix, ".modules_to_save.", ".trainable_tokens_")
    return [name for name in names if any(mark in name for mark in marks)]


def _match(names: Mapping[str, Any], globs: str) -> list[str]:
    chosen: set[str] = set()
    for glob in filter(None, (part.strip() for part in globs.split(","))):
        hits = {n for n in names if fnmatchcase(n, glob) or fnmatchcase(n.removeprefix(_WRAPPER), glob)}
        if not hits:
            near = difflib.get_close_matches(glob, [n.removeprefix(_WRAPPER) for n in names], n=3, cutoff=0.3)
            remedy = f"for example {', '.join(near)}" if near else f"the model has {_some(list(names))}"
            raise UsageError(f"no parameter matches '{glob}'", where="parameters", remedy=remedy)
        chosen |= hits
    return [name for name in names if name in chosen]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
