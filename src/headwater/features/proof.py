"""The proof, at bind time, that the gradients read of a model are autograd's.

A small batch of padded rows runs through the model. Autograd's gradient of Σ_i a_i · (row i's loss), with another a_i
for each row, must equal Σ_i a_i · (the gradient read for row i), for every parameter. This finds a `forward` that is
not what its class says, a second input that was left out, a weight that is also used elsewhere, and examples that were
taken for one another. Gradients are not compared entry by entry, which would hold two of them, but through uᵀ G v for
random u and v; each is multiplied and dropped when it arrives.

A parameter that fails is read in the next way there is (`headwater.features.sites`), and is not seen if none is left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from headwater.core.errors import HeadwaterError, ModelError, shortage
from headwater.core.spec import Coverage
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.features.capture import bound_inputs, visit_gradients
from headwater.features.layers import Call
from headwater.features.replay import Replay, form_of
from headwater.features.sites import Holding, Kind, ModuleRun, ParameterSelection, Site, Way, find_holdings, sites_of
from headwater.models.losses import all_logits, target_logits
from headwater.sketch.blocks import Block, Dense, Gradient, Outer

_LENGTHS = (11, 7, 11, 9, 5)
"""Tokens of the rows of the proving batch. Five rows: a number that no other axis of a model is likely to have."""

_WEIGHTS = (1.0, -0.7, 0.5, -1.3, 0.9)

_PROBES = 8

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.05}
"""Largest difference allowed, as a share of the parameter's gradient: its products are rounded to the model's dtype."""

_ALONE = 0.01
"""Largest change of a row's logits, as a share of the largest, between a batch and the row by itself."""

_FLOOR = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-2, torch.bfloat16: 1e-2}
"""And as a share of the largest gradient of any parameter: some are zero but for rounding (a key's bias)."""


def prove_sites(model: Any, wanted: Sequence[str]) -> tuple[tuple[Site, ...], set[str]]:
    """The sites at which the `wanted` parameters are read, and the names of those that are not seen.

    A parameter is seen only if every module that holds it can be read, because a part of the sum is a wrong gradient.

    Raises:
        ModelError: the model cannot run a small batch.
    """
    parameters = dict(model.named_parameters())
    with _evaluating(model):
        offloaded = any(parameters[name].is_meta for name in wanted)
        weightless = all(parameter.is_meta for parameter in parameters.values())
        batch = proving_batch(model)
        runs = {} if offloaded and not weightless else _recorded(model, wanted, batch)
        holdings = find_holdings(model, wanted, runs)
        trial = _Trial(model, {name: parameters[name] for name in wanted}, batch)
        place = dict.fromkeys(range(len(holdings)), 0)
        while not offloaded:  # all together each time: what is changed at one module's output may reach another's
            names = {h.name for h in holdings if _readable(holdings, place, h.name)}
            failed = trial.failed(sites_of(_chosen(holdings, place, names)))
            if not failed:
                break
            for number, holding in enumerate(holdings):
                if holding.name in failed:
                    place[number] += 1
    seen = {h.name for h in holdings if _readable(holdings, place, h.name)}
    return sites_of(_chosen(holdings, place, seen)), set(wanted) - seen


def _readable(holdings: Sequence[Holding], place: Mapping[int, int], name: str) -> bool:
    return all(place[i] < len(h.ways) for i, h in enumerate(holdings) if h.name == name)


def _chosen(holdings: Sequence[Holding], place: Mapping[int, int], names: set[str]) -> Iterator[tuple[str, Way]]:
    """The way that is tried for each holding of the parameters named, as far as they can be read."""
    for number, holding in enumerate(holdings):
        if holding.name in names and _readable(holdings, place, holding.name):
            way = holding.ways[place[number]]
            if way is not None:
                yield holding.name, way


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Frozen, without dropout and checkpointing; every module and parameter is put back as it was."""
    training = [module for module in model.modules() if module.training]
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


def proving_batch(model: Any) -> TokenBatch:
    """The proving batch: ids spread over the vocabulary, on the model's device."""
    try:
        embedding = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embedding = next((m for m in model.modules() if isinstance(m, nn.Embedding)), None)
    first = next(model.parameters())
    weight = getattr(embedding, "weight", first)
    rows = []
    for number, length in enumerate(_LENGTHS):
        ids = (np.arange(1, length + 1, dtype=np.int64) * 2_654_435_761 + 40_503 * number) % len(weight)
        targets = np.arange(length) >= 2 + number % 3
        name = f"proof {number}"
        rows.append(TokenRow(Row(name, number, text=""), "", ids, targets, np.zeros((length, 2), np.int64), 0, name))
    (batch,) = plan_batches(rows, Window(max(_LENGTHS)), tokens_per_batch=len(_LENGTHS) * max(_LENGTHS))
    return batch.to(first.device if weight.is_meta else weight.device)


def _recorded(model: Any, wanted: Iterable[str], batch: TokenBatch) -> dict[str, ModuleRun]:
    """How the modules that hold the wanted parameters, and those around them, are called in a forward pass."""
    chosen = {id(p) for name, p in model.named_parameters() if name in set(wanted)}
    holders = [w for w, m in model.named_modules() if any(id(p) in chosen for p in m._parameters.values())]
    paths = [where.split(".") for where in holders]
    places = {".".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1)}
    runs: dict[str, ModuleRun] = {}
    items = batch.input_ids.shape[0]

    def record(where: str, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        run = runs.setdefault(where, ModuleRun({}, {}))
        spec, axes = form_of(bound_inputs(module, args, kwargs), items)
        run.axes.setdefault(spec, axes)
        for place, value in enumerate(output if isinstance(output, tuple) else (output,)):
            if isinstance(value, Tensor):
                run.output.setdefault(place, form_of(value, items)[1][0])

    with contextlib.ExitStack() as stack:
        for where, module in model.named_modules():
            if where in places:
                handle = module.register_forward_hook(partial(record, where), with_kwargs=True)
                stack.callback(handle.remove)
        with torch.no_grad(), _told("the model cannot run a small batch"):
            if batch.input_ids.is_meta:
                with FakeTensorMode(allow_non_fake_inputs=True):
                    all_logits(model, batch.input_ids)
            else:
                target_logits(model, batch.input_ids, batch.response)
                _require_alone(model, batch)
    return runs


def _require_alone(model: Any, batch: TokenBatch) -> None:
    """Raise `ModelError` if the logits of the shortest row are others by itself than padded and beside other rows."""
    length = int(batch.attention[-1].sum())
    beside, alone = all_logits(model, batch.input_ids)[-1:, :length], all_logits(model, batch.input_ids[-1:, :length])
    if alone.dtype in (torch.float16, torch.bfloat16) or beside.shape != alone.shape:
        return  # rounding alone can send a token to another expert
    difference = float((beside - alone).abs().max() / alone.abs().max())
    if difference > _ALONE:
        what = f"a row's logits change by {difference:.2g} of the largest with padding and the rows beside it"
        raise ModelError(what, remedy="give a causal language model that treats each row by itself")


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Any failure of the model's own code as an error that says where it happened."""
    try:
        yield
    except HeadwaterError:
        raise
    except Exception as error:  # a model may fail in any way
        if (short := shortage(error)) is not None:
            raise short from error
        brief = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{what}: {brief}", remedy="check that the model runs by itself on two padded rows") from error


@dataclass
class _Trial:
    """The model and batch that sites are tried on.

    Attributes:
        largest: the largest norm of a parameter's gradient so far.
    """

    model: Any
    parameters: Mapping[str, nn.Parameter]
    batch: TokenBatch
    largest: float = 0.0

    def failed(self, sites: tuple[Site, ...]) -> set[str]:
        """The names of the parameters whose gradients, read at these sites, are not autograd's."""
        broken: set[str] = set()
        views, clashing = _views(sites)
        read: dict[str, Tensor] = {}

        def visit(gradient: Gradient) -> None:
            try:
                read[gradient.name] = _block_products(gradient)
            except (RuntimeError, ValueError):  # blocks that do not fit together
                broken.add(gradient.name)

        careful = tuple(replace(site, kind=_Careful(site.kind, site.names, broken)) for site in sites)
        shapes = {name: shape for site in sites for name, shape in site.shapes.items()}
        idle = {site.where for site in sites}
        selection = ParameterSelection(careful, shapes, Coverage(0, 0), idle)
        with _told("the model has no backward pass"):
            true = self._autograd(views)
            visit_gradients(self.model, selection, self.batch, visit, head="whole")
        self.largest = max([self.largest, *(norm for _, norm, _ in true.values())])
        doubtful = {name for site in sites if _is_doubtful(site) for name in site.shapes}
        wrong = {
            name
            for name in shapes
            if name in broken or self._differs(true.get(name), read.get(name), doubtful=name in doubtful)
        }
        return clashing | {parameter for parameter, parts in views.items() if any(v.name in wrong for v in parts)}

    def _differs(self, true: _True | None, read: Tensor | None, *, doubtful: bool) -> bool:
        products, norm, dtype = true or (torch.zeros(_PROBES), 0.0, torch.float32)
        difference = float((products - (0 if read is None else read)).square().mean().sqrt())
        if not np.isfinite(norm):
            return False  # nothing can be proved of a gradient that overflows; a row's would be refused
        dtypes = (dtype, *self._rounded_to)  # an adapter in float32 gets what a narrower model has rounded
        tolerance, floor = (max(table[kind] for kind in dtypes) for table in (_TOLERANCE, _FLOOR))
        floor = min(floor, _FLOOR[torch.float32]) if doubtful else floor
        return not difference <= max(tolerance * norm, floor * self.largest)

    @cached_property
    def _rounded_to(self) -> tuple[torch.dtype, ...]:
        """The dtypes in which the model computes, as far as its parameters tell."""
        return tuple({parameter.dtype for parameter in self.model.parameters()} & _TOLERANCE.keys())

    def _autograd(self, views: Mapping[str, Sequence[_View]]) -> dict[str, _True]:
        """Autograd's gradients of these parameters by the weighted loss, as products; each is dropped on arrival."""
        true: dict[str, _True] = {}

        def arrive(name: str, parameter: nn.Parameter) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            for view in views[name]:
                matrix = view.matrix(gradient)
                true[view.name] = (_matrix_products(matrix), float(matrix.norm()), gradient.dtype)

        held = {name: self.parameters[name].grad for name in views}
        with contextlib.ExitStack() as stack:
            for name in views:
                parameter = self.parameters[name]
                parameter.grad = None
                parameter.requires_grad_(True)
                stack.callback(parameter.register_post_accumulate_grad_hook(partial(arrive, name)).remove)
            try:
                nothing = ParameterSelection((), {}, Coverage(0, 0))
                weights = torch.tensor(_WEIGHTS, dtype=torch.float64, device=self.batch.input_ids.device)
                how: dict[str, Any] = {"weights": weights, "head": "whole"}
                visit_gradients(self.model, nothing, self.batch, lambda gradient: None, **how)
            finally:
                for name, gradient in held.items():
                    self.parameters[name].requires_grad_(False)
                    self.parameters[name].grad = gradient
        return true


def _is_doubtful(site: Site) -> bool:
    """Whether the way to read is a guess from the module's class, which its own `forward` may not follow.

    A gradient that is too small beside the rounding of a half-precision model proves nothing of a guess.
    """
    return not isinstance(site.kind, Replay) and not site.kind.certain(site.module)


_True = tuple[Tensor, float, torch.dtype]
"""Autograd's gradient: its products, its norm, its dtype."""


@dataclass(frozen=True)
class _View:
    """A gradient tensor as a part of its parameter's gradient."""

    name: str
    shape: tuple[int, ...]
    expert: int | None
    transposed: bool

    def matrix(self, gradient: Tensor) -> Tensor:
        """The part as a matrix `(out, in)`; a flat tensor has one row."""
        part = gradient.detach() if self.expert is None else gradient.detach()[self.expert]
        if len(self.shape) == 1:
            return part.reshape(1, -1)
        return part.mT if self.transposed else part


def _views(sites: Iterable[Site]) -> tuple[dict[str, list[_View]], set[str]]:
    """The gradient tensors by parameter, and the parameters that two sites would read in two shapes."""
    found: dict[str, dict[str, _View]] = {}
    clashing = set()
    for site in sites:
        for name, shape in site.shapes.items():
            parameter, _, expert = name.partition("[")
            view = _View(name, shape, int(expert[:-1]) if expert else None, site.kind.transposed(site.module))
            if found.setdefault(parameter, {}).setdefault(name, view) != view:
                clashing.add(parameter)
    return {parameter: list(views.values()) for parameter, views in found.items()}, clashing


@dataclass(frozen=True)
class _Careful:
    """A kind under trial: reading that fails marks the site's gradients as broken, and the pass goes on."""

    kind: Kind
    names: Mapping[str, str]
    broken: set[str] = field(compare=False)

    def claims(self, module: Any) -> bool:
        return self.kind.claims(module)

    def certain(self, module: Any) -> bool:
        return self.kind.certain(module)

    def transposed(self, module: Any) -> bool:
        return self.kind.transposed(module)

    def tensors(self, module: Any, name: str) -> dict[str, tuple[int, ...]]:
        return self.kind.tensors(module, name)

    def keeps_output(self, module: Any, output: Tensor) -> bool:
        return self.kind.keeps_output(module, output)

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        try:
            yield from self.kind.read(call)
        except Exception:  # a module that is run again may fail in any way
            self.broken.update(self.names.values())


def _block_products(gradient: Gradient) -> Tensor:
    """Σ_i a_i · uᵀ G_i v over the rows, from the factors."""
    out, width = gradient.matrix
    total = torch.zeros(_PROBES, dtype=torch.float64)
    weights = torch.tensor(_WEIGHTS)
    for block in gradient.blocks:
        values = block.values if isinstance(block, Dense) else block.right
        u, v = (_directions(size, side).to(values.device, gradient.dtype) for side, size in (("u", out), ("v", width)))
        if isinstance(block, Dense):
            summed = torch.einsum("rn,r->n", values.to(gradient.dtype), weights.to(v))
            product = ((summed.reshape(out, width) @ v) * u).sum(0)
        else:
            left = block.left.to(gradient.dtype) @ u if isinstance(block, Outer) else u[block.index]
            product = torch.einsum("rtp,rtp,r->p", left, block.right.to(gradient.dtype) @ v, weights.to(v))
        total += product.double().cpu()
    return total


def _matrix_products(matrix: Tensor) -> Tensor:
    """uᵀ G v of a matrix `(out, in)`."""
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    u, v = (_directions(size, side).to(wide) for side, size in zip("uv", wide.shape, strict=True))
    return ((wide @ v) * u).sum(0).double().cpu()


@cache
def _directions(size: int, side: str) -> Tensor:
    """Random vectors `[size, probes]`; ones along an axis of one entry."""
    if size == 1:
        return torch.ones(1, _PROBES, dtype=torch.float64)
    generator = torch.Generator().manual_seed(size * 2 + (side == "v"))
    return torch.randn(size, _PROBES, generator=generator, dtype=torch.float64)
