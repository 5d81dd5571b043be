"""Sites: modules whose parameters' per-example gradients follow from the module's inputs and output gradient.

A parameter may be read in several ways, which are tried in order: by the formula of its module's kind (linear layers,
Conv1D, embeddings, fused experts, norms), by running its module again example by example, or, if its module never runs
or that fails, by running a module around it again. `headwater.features.proof` picks the first that autograd confirms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from headwater.core.spec import Coverage
from headwater.features.experts import Experts
from headwater.features.layers import Call, Embedding, Linear, Shape
from headwater.features.local import Norm
from headwater.features.replay import Replay
from headwater.sketch.blocks import Block


@runtime_checkable
class Kind(Protocol):
    """How the parameters' gradients of one kind of module are read."""

    def claims(self, module: Any) -> bool:
        """Whether this kind can read the module."""
        ...

    def certain(self, module: Any) -> bool:
        """Whether the claim holds without a run that proves it."""
        ...

    def transposed(self, module: Any) -> bool:
        """Whether matrices are stored as `(in, out)`."""
        ...

    def tensors(self, module: Any, name: str) -> dict[str, Shape]:
        """The gradient tensors of a parameter, by suffix of its name, with shapes; none if it cannot be seen."""
        ...

    def keeps_output(self, module: Any, output: Tensor) -> bool:
        """Whether `read` wants the output that it is given the gradient of (`Call.value`)."""
        ...

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks of one run, by the parameter's local name and suffix."""
        ...


KINDS: tuple[Kind, ...] = (Linear(), Embedding(), Experts(), Norm())
"""In the order in which they are tried; the first that claims a module reads it, unless autograd says otherwise."""

_AROUND = 2
"""How many modules around a parameter's own are tried."""


@dataclass(frozen=True)
class Site:
    """One module to watch.

    Attributes:
        module: the module.
        where: its name.
        kind: how its gradients are read.
        names: local tensor names to the names of their gradients; only for selected parameters.
        shapes: names of gradients to shapes.
        wanted: local names of those parameters.
    """

    module: nn.Module
    where: str
    kind: Kind
    names: Mapping[str, str]
    shapes: Mapping[str, Shape]
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class ParameterSelection:
    """The parameters to read and the modules at which their gradients are read.

    Attributes:
        sites: the modules.
        shapes: name of each gradient tensor to its shape as `Gradient.shape` has it, in the model's order; a fused
            expert parameter counts as one tensor an expert.
        coverage: their share of the model's parameters; the note names selected parameters that cannot be seen.
        proved_idle: modules that did not run in some batch and were checked to be unused there; filled batch by batch.
        apart: parameters that are read by running the whole model for each row (`headwater.features.apart`).
    """

    sites: tuple[Site, ...]
    shapes: Mapping[str, tuple[int, ...]]
    coverage: Coverage
    proved_idle: set[str] = field(default_factory=set, repr=False, compare=False)
    apart: tuple[str, ...] = ()

    @property
    def transposed(self) -> frozenset[str]:
        """The matrices whose gradients have the other layout than the parameter, which is stored as `(in, out)`."""
        turned = [site for site in self.sites if site.kind.transposed(site.module)]
        names = {name for site in turned for name in site.names.values()}
        return frozenset(name for name in names if len(self.shapes[name]) == 2)


@dataclass(frozen=True)
class ModuleRun:
    """How a module was called in the proving batch: its inputs' forms, and the axis of each output's examples."""

    axes: dict[str, tuple[int | None, ...]]
    output: dict[int, int | None]


@dataclass(frozen=True)
class Way:
    """One way to read a parameter: at which module, as what kind, and under which local name."""

    where: str
    module: nn.Module
    kind: Kind
    local: str


@dataclass(frozen=True)
class Holding:
    """A parameter in one module that holds it: its name in the model, and the ways to read it there, best first.

    None stands for a module that holds the parameter and does not use it: another one that shares it does (the bias of
    BERT's head).
    """

    name: str
    ways: tuple[Way | None, ...]


def find_holdings(model: nn.Module, wanted: Iterable[str], runs: Mapping[str, ModuleRun]) -> list[Holding]:
    """Every place where a wanted parameter is held, with the ways to read it; `runs` are the modules that ran."""
    owner = {id(parameter): name for name, parameter in model.named_parameters()}
    modules, chosen = dict(model.named_modules()), set(wanted)
    replays = {
        where: (Replay(run.axes, run.output, True), Replay(run.axes, run.output, False)) for where, run in runs.items()
    }
    found: list[tuple[str, list[Way]]] = []
    for where, module in modules.items():
        held = {local: owner[id(p)] for local, p in module._parameters.items() if p is not None}
        mine = {local: name for local, name in held.items() if name in chosen}
        kind = next((kind for kind in KINDS if kind.claims(module)), None) if mine else None
        if kind is not None and where not in runs and not kind.certain(module):
            kind = None
        for local, name in mine.items():
            ways: list[Way] = (
                [Way(where, module, kind, local)] if kind is not None and kind.tensors(module, local) else []
            )
            ways += _by_replay(where, local, modules, replays)
            found.append((name, ways))
    by_kind = {name for name, ways in found if ways and not isinstance(ways[0].kind, Replay)}
    return [Holding(name, _ways(ways, shared=name in by_kind)) for name, ways in found]


def _ways(ways: list[Way], *, shared: bool) -> tuple[Way | None, ...]:
    """The ways; if a module that shares the parameter reads it by its kind, this one may not use it, tried first."""
    replayed = not ways or isinstance(ways[0].kind, Replay)
    return (None, *ways) if shared and replayed else tuple(ways)


def _by_replay(
    where: str, local: str, modules: Mapping[str, nn.Module], replays: Mapping[str, tuple[Replay, Replay]]
) -> Iterator[Way]:
    """The module itself, at once and then one example after the other; then the nearest modules around it that ran."""
    parts, left = where.split(".") if where else [], _AROUND
    for depth in range(len(parts), 0, -1):
        host = ".".join(parts[:depth])
        name = ".".join([*parts[depth:], local])
        if host not in replays or not replays[host][0].tensors(modules[host], name):
            continue
        if depth == len(parts):
            leaf = next(modules[host].children(), None) is None
            kinds = replays[host] if leaf else replays[host][1:]
        elif left == 0:
            return
        else:
            kinds, left = replays[host][1:], left - 1
        for kind in kinds:
            yield Way(host, modules[host], kind, name)


def sites_of(ways: Iterable[tuple[str, Way]]) -> tuple[Site, ...]:
    """The sites that read each parameter in the way given; parameters of one module and kind share a site."""
    groups: dict[tuple[str, int], list[tuple[str, Way]]] = {}
    for name, way in ways:
        groups.setdefault((way.where, id(way.kind)), []).append((name, way))
    return tuple(_site(group) for group in groups.values())


def _site(group: list[tuple[str, Way]]) -> Site:
    names, shapes = {}, {}
    first = group[0][1]
    for name, way in group:
        for suffix, shape in way.kind.tensors(way.module, way.local).items():
            names[way.local + suffix] = name + suffix
            shapes[name + suffix] = shape
    return Site(first.module, first.where, first.kind, names, shapes, tuple(way.local for _, way in group))
