"""Sites: modules whose parameters' per-example gradients follow from the module's input and output gradient.

Linear layers, Conv1D, embeddings, norms, the fused experts of mixtures, and small leaves of any other kind (routers,
unusual norms). What is none of these is listed as unseen, never skipped in silence.
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
    """A kind of module, and how its parameters' gradients are read."""

    def claims(self, module: Any) -> bool:
        """Whether it can read this module."""
        ...

    def transposed(self, module: Any) -> bool:
        """Whether matrices are stored as `(in, out)`."""
        ...

    def tensors(self, module: Any, name: str) -> dict[str, Shape]:
        """The tensors a parameter gives, by suffix of its name, with shapes; none if it cannot be seen."""
        ...

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks of one run, by the parameter's local name and suffix."""
        ...


KINDS: tuple[Kind, ...] = (Linear(), Embedding(), Experts(), Norm(), Leaf())
"""In the order in which they are asked."""


@dataclass(frozen=True)
class Site:
    """One module to watch.

    Attributes:
        module: the module.
        where: its name.
        kind: how it is read.
        names: local tensor names to the names gradients carry; only of selected parameters.
        shapes: names gradients carry to shapes.
    """

    module: nn.Module
    where: str
    kind: Kind
    names: Mapping[str, str]
    shapes: Mapping[str, Shape]


def find_sites(model: nn.Module, wanted: Iterable[str]) -> tuple[tuple[Site, ...], set[str]]:
    """Sites that see the `wanted` parameters, and those of them that are not seen.

    A parameter is seen only if every module that holds it can be read: half of a sum would be a wrong gradient.
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
