"""Sites: modules whose parameters' per-example gradients follow from the module's input and output gradient.

These are linear layers, Conv1D, embeddings, norms, the fused experts of mixtures, and small leaf modules of any other
kind (routers, unusual norms). Parameters of all other modules are listed as unseen, never skipped silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import nn

from headwater.features.experts import Experts
from headwater.features.layers import Call, Embedding, Linear, Shape
from headwater.features.local import Leaf, Norm
from headwater.sketch.blocks import Block


@runtime_checkable
class Kind(Protocol):
    """How the parameters' gradients of one kind of module are read."""

    def claims(self, module: Any) -> bool:
        """Whether this kind can read the module."""
        ...

    def transposed(self, module: Any) -> bool:
        """Whether matrices are stored as `(in, out)`."""
        ...

    def tensors(self, module: Any, name: str) -> dict[str, Shape]:
        """The gradient tensors of a parameter, by suffix of its name, with shapes; none if it cannot be seen."""
        ...

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks of one run, by the parameter's local name and suffix."""
        ...


KINDS: tuple[Kind, ...] = (Linear(), Embedding(), Experts(), Norm(), Leaf())
"""In the order in which they are tried; the first that claims a module reads it."""


@dataclass(frozen=True)
class Site:
    """One module to watch.

    Attributes:
        module: the module.
        where: its name.
        kind: how its gradients are read.
        names: local tensor names to the names of their gradients; only for selected parameters.
        shapes: names of gradients to shapes.
    """

    module: nn.Module
    where: str
    kind: Kind
    names: Mapping[str, str]
    shapes: Mapping[str, Shape]


def find_sites(model: nn.Module, wanted: Iterable[str]) -> tuple[tuple[Site, ...], set[str]]:
    """The sites of the `wanted` parameters, and the names of those that are not seen.

    A parameter is seen only if every module that holds it can be read, because a part of the sum is a wrong gradient.
    """
    owner = {id(parameter): name for name, parameter in model.named_parameters()}
    chosen = set(wanted)
    held: list[tuple[str, nn.Module, dict[str, str]]] = []
    for where, module in model.named_modules():
        own = {local: owner[id(p)] for local, p in module._parameters.items() if p is not None}
        mine = {local: name for local, name in own.items() if name in chosen}
        if mine:
            held.append((where, module, mine))
    kinds = {where: next((kind for kind in KINDS if kind.claims(module)), None) for where, module, _ in held}
    unseen = {
        name
        for where, module, mine in held
        for local, name in mine.items()
        if (kind := kinds[where]) is None or not kind.tensors(module, local)
    }
    unseen |= chosen - {name for _, _, mine in held for name in mine.values()}
    sites = []
    for where, module, mine in held:
        kind = kinds[where]
        kept = {local: name for local, name in mine.items() if name not in unseen}
        if kind is not None and kept:
            sites.append(_site(module, where, kind, kept))
    return tuple(sites), unseen


def _site(module: nn.Module, where: str, kind: Kind, held: Mapping[str, str]) -> Site:
    names, shapes = {}, {}
    for local, name in held.items():
        for suffix, shape in kind.tensors(module, local).items():
            names[local + suffix] = name + suffix
            shapes[name + suffix] = shape
    return Site(module, where, kind, names, shapes)
