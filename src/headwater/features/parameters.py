"""Which parameters a method reads: those that globs or the default select, if gradients can be read of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from headwater.core.errors import ModelError, UsageError, first_few
from headwater.core.spec import Coverage
from headwater.features.sites import Site, find_sites


def select_linear(model: Any, globs: str = "") -> ParameterSelection:
    """The selected weights of linear layers; without globs, those of the adapter or of all layers.

    The head is left out, because its output is the vocabulary and its factors would be the largest by far. The coverage
    gives the share of parameters that is left.

    Raises:
        ModelError: no linear layer is selected.
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
"""The prefix that PEFT gives every name; globs may leave it out."""


@dataclass(frozen=True)
class ParameterSelection:
    """The parameters to read and the modules at which their gradients are read.

    Attributes:
        sites: the modules.
        shapes: name of each gradient tensor to its shape as `Gradient.shape` has it, in the model's order; a fused
            expert parameter counts as one tensor an expert.
        coverage: their share of the model's parameters; the note names selected parameters that cannot be seen.
        proved_idle: modules that did not run in some batch and were checked to be unused there; filled batch by batch.
    """

    sites: tuple[Site, ...]
    shapes: Mapping[str, tuple[int, ...]]
    coverage: Coverage
    proved_idle: set[str] = field(default_factory=set, repr=False, compare=False)


def select_parameters(model: nn.Module, globs: str = "") -> ParameterSelection:
    """The parameters whose names match one of the comma-separated `globs` (`model.layers.*.mlp.*`).

    Without globs: the adapter's if the model has one, else all weights, biases and norms (of a model that also sees
    images, those of its text model and its head). A parameter shared by several
    modules has the name under which the model lists it first, and counts once.

    Raises:
        UsageError: a glob matches no parameter.
        ModelError: none of the selected parameters can be seen.
    """
    names = dict(model.named_parameters())
    wanted = parameter_names(model, globs)
    sites, unseen = find_sites(model, wanted)
    if not sites:
        what = f"no gradient can be read of any of the {len(wanted)} selected parameters: {first_few(wanted)}"
        raise ModelError(what, remedy="select linear layers, embeddings or norms")
    missing = [name for name in wanted if name in unseen]
    seen = sum(names[name].numel() for name in wanted if name not in unseen)
    total = sum(parameter.numel() for parameter in names.values())
    share = sum(names[name].numel() for name in missing)
    note = f"selected but NOT seen: {share:,} in {len(missing)} parameters ({first_few(missing)})" if missing else ""
    return ParameterSelection(sites, _ordered(wanted, sites), Coverage(seen, total, note))


def parameter_names(model: nn.Module, globs: str = "") -> list[str]:
    """Names of the parameters that `globs` selects, in the model's order, whether or not they can be seen."""
    names = dict(model.named_parameters())
    return _match(names, globs) if globs.strip() else _default(model, names)


def _ordered(wanted: Iterable[str], sites: Iterable[Site]) -> dict[str, tuple[int, ...]]:
    """The sites' shapes in the order of the model's parameters."""
    shapes = {name: shape for site in sites for name, shape in site.shapes.items()}
    place = {name: position for position, name in enumerate(wanted)}
    return dict(sorted(shapes.items(), key=lambda pair: place[pair[0].split("[")[0]]))


def _default(model: Any, names: Mapping[str, nn.Parameter]) -> list[str]:
    if not hasattr(model, "peft_config"):
        return _of_text(model, names)
    prefix = getattr(model.base_model, "prefix", "prompt_encoder")
    marks = (prefix, ".modules_to_save.", ".trainable_tokens_")
    return [name for name in names if any(mark in name for mark in marks)]


def _of_text(model: Any, names: Mapping[str, nn.Parameter]) -> list[str]:
    """All names; of a model that also sees images, those of its text model and of its head."""
    config = getattr(model, "config", None)
    if config is None or config.get_text_config() is config:
        return list(names)
    parts = (part for part in (model.get_decoder(), model.get_output_embeddings()) if part is not None)
    read = {id(parameter) for part in parts for parameter in part.parameters()}
    return [name for name, parameter in names.items() if id(parameter) in read]


def _match(names: Mapping[str, Any], globs: str) -> list[str]:
    chosen: set[str] = set()
    for glob in filter(None, (part.strip() for part in globs.split(","))):
        hits = {n for n in names if fnmatchcase(n, glob) or fnmatchcase(n.removeprefix(_WRAPPER), glob)}
        if not hits:
            near = difflib.get_close_matches(glob, [n.removeprefix(_WRAPPER) for n in names], n=3, cutoff=0.3)
            remedy = f"for example {', '.join(near)}" if near else f"the model has {first_few(names)}"
            raise UsageError(f"no parameter matches '{glob}'", where="parameters", remedy=remedy)
        chosen |= hits
    return [name for name in names if name in chosen]
