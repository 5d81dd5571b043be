"""Which parameters a method reads: those that globs or the default select, if gradients can be read of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from headwater.core.errors import ModelError, UsageError, first_few
from headwater.core.spec import Coverage
from headwater.features.apart import readable_apart, shares_of_mass
from headwater.features.layers import Linear
from headwater.features.proof import prove_sites, proving_batch
from headwater.features.sites import ParameterSelection, Site
from headwater.models.adapters import trained_names


def select_linear(model: Any, globs: str = "") -> ParameterSelection:
    """The selected weights of linear layers; without globs, those of the adapter or of all layers.

    The head is left out, because its output is the vocabulary and its factors would be the largest by far. The coverage
    gives the share of parameters that is left.

    Raises:
        ModelError: no linear layer is selected.
        UsageError: a glob matches no parameter.
    """
    found = select_parameters(model, globs)
    head = model.get_output_embeddings()
    kept = {
        name
        for site in found.sites
        if isinstance(site.kind, Linear) and site.module is not head
        for local, name in site.names.items()
        if local == "weight"
    }
    if not kept:
        raise ModelError("no linear layer among the selected parameters", where="parameters", remedy="select others")
    sites = tuple(_only(site, kept) for site in found.sites if kept & set(site.names.values()))
    shapes = {name: shape for name, shape in found.shapes.items() if name in kept}
    return ParameterSelection(sites, shapes, _coverage(model, kept, []))


_WRAPPER = "base_model.model."
"""The prefix that PEFT gives every name; globs may leave it out."""


def select_parameters(model: nn.Module, globs: str = "") -> ParameterSelection:
    """The parameters whose names match one of the comma-separated `globs` (`model.layers.*.mlp.*`).

    A glob that begins with `!` leaves parameters out: `!*.conv1d.*` by itself is the default without convolutions. What
    is read is proved against autograd on a small batch (`headwater.features.proof`); of an adapter, what cannot be read
    so is read by autograd for each row (`headwater.features.apart`).

    Without globs: the adapter's if the model has one, else all weights, biases and norms (of a model that also sees
    images, those of its text model and its head). A parameter shared by several modules has the name under which the
    model lists it first, and counts once.

    Raises:
        UsageError: a glob matches no parameter.
        ModelError: none of the selected parameters can be seen.
    """
    wanted, own = parameter_names(model, globs), dict(model.named_parameters())
    adapted = hasattr(model, "peft_config")
    inside = [name for name in wanted if not adapted or name.startswith("base_model.")]  # the others make a prompt
    sites, unseen = prove_sites(model, inside)
    unseen |= set(wanted) - set(inside)
    apart: tuple[str, ...] = ()
    if adapted:
        apart = tuple(name for name in wanted if name in unseen and readable_apart(own[name]))
    if not sites and not apart:
        what = f"no gradient can be read of any of the {len(wanted)} selected parameters: {first_few(wanted)}"
        raise ModelError(what, remedy="select linear layers, embeddings or norms")
    missing = [name for name in wanted if name in unseen and name not in apart]
    shapes = {name: shape for site in sites for name, shape in site.shapes.items()}
    shapes |= {name: (own[name].numel(),) for name in apart}
    coverage = _coverage(model, set(wanted) - set(missing), missing)
    return ParameterSelection(sites, _ordered(wanted, shapes), coverage, apart=apart)


def _coverage(model: nn.Module, seen: set[str], missing: list[str]) -> Coverage:
    """How much of the model is `seen`; the note names the selected parameters that are `missing`."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total = sum(sizes[name] for name in seen)
    return Coverage(
        total, sum(sizes.values()), _unseen(model, seen, missing), tensors_seen=len(seen), tensors_total=len(sizes)
    )


def _unseen(model: nn.Module, seen: set[str], missing: list[str]) -> str:
    """What is not seen: its numbers, and its share of the squared gradient of a few rows of random tokens."""
    own = dict(model.named_parameters())
    if not missing:
        return ""
    what = f"selected but NOT seen: {sum(own[name].numel() for name in missing):,} in {len(missing)} tensors"
    if all(own[name].is_floating_point() and not own[name].is_meta for name in missing):
        shares = shares_of_mass(model, [*seen, *missing], proving_batch(model))
        mass = 100 * sum(shares[name] for name in missing)
        what += f", {mass:.2g} % of the squared gradient of some rows of random tokens"
    return f"{what} ({first_few(missing)})"


def _only(site: Site, kept: set[str]) -> Site:
    """The site with these gradients alone."""
    names = {local: name for local, name in site.names.items() if name in kept}
    shapes = {name: shape for name, shape in site.shapes.items() if name in kept}
    return replace(site, names=names, shapes=shapes, wanted=tuple(names))


def parameter_names(model: nn.Module, globs: str = "") -> list[str]:
    """Names of the parameters that `globs` selects, in the model's order, whether or not they can be seen."""
    names = dict(model.named_parameters())
    return _match(model, names, globs) if globs.strip() else _default(model, names)


def _ordered(wanted: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes in the order of the model's parameters."""
    place = {name: position for position, name in enumerate(wanted)}
    return dict(sorted(shapes.items(), key=lambda pair: place[pair[0].split("[")[0]]))


def _default(model: Any, names: Mapping[str, nn.Parameter]) -> list[str]:
    if not hasattr(model, "peft_config"):
        return _of_text(model, names)
    trained = trained_names(model)
    return [name for name in names if name in trained]


def _of_text(model: Any, names: Mapping[str, nn.Parameter]) -> list[str]:
    """All names; of a model that also sees images, those of its text model and of its head."""
    config = getattr(model, "config", None)
    if config is None or config.get_text_config() is config:
        return list(names)
    parts = (part for part in (model.get_decoder(), model.get_output_embeddings()) if part is not None)
    read = {id(parameter) for part in parts for parameter in part.parameters()}
    return [name for name, parameter in names.items() if id(parameter) in read]


def _match(model: nn.Module, names: Mapping[str, Any], globs: str) -> list[str]:
    """What the globs choose; those that begin with `!` take out, from the default where no other glob chooses."""
    parts = [part.strip() for part in globs.split(",") if part.strip()]
    choosing = [glob for glob in parts if not glob.startswith("!")]
    chosen = set().union(*(_hits(names, glob) for glob in choosing)) if choosing else set(_default(model, names))
    for glob in parts:
        if glob.startswith("!"):
            chosen -= _hits(names, glob.removeprefix("!").strip())
    if not chosen:
        raise UsageError(f"'{globs}' leaves no parameter", where="parameters", remedy="exclude fewer")
    return [name for name in names if name in chosen]


def _hits(names: Mapping[str, Any], glob: str) -> set[str]:
    hits = {n for n in names if fnmatchcase(n, glob) or fnmatchcase(n.removeprefix(_WRAPPER), glob)}
    if not hits:
        near = difflib.get_close_matches(glob, [n.removeprefix(_WRAPPER) for n in names], n=3, cutoff=0.3)
        remedy = f"for example {', '.join(near)}" if near else f"the model has {first_few(names)}"
        raise UsageError(f"no parameter matches '{glob}'", where="parameters", remedy=remedy)
    return hits
