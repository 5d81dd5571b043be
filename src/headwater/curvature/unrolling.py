"""A segment of a training run in closed form: what a change of the weights, or of the data, in it does to its end.

Within a segment of K steps of learning rate η the curvature H and the optimiser's scaling D are taken to be constant,
so the run is a linear system (approximate unrolling, SOURCE, arXiv 2405.12186, section 3). With τ = K η:

    a derivative a at the segment's end is, at its start             D^-½ exp(−τ H̃) D^½ a
    a gradient g that is added to every step moves a by      τ-times ⟨g, D^½ (1 − exp(−τ H̃)) / (τ H̃) D^½ a⟩

H̃ = D^½ H D^½, and D = 1 / (√v̂ + ε) for Adam or AdamW, 1 for SGD. H̃ is block-diagonal: EK-FAC for a linear layer, where
D^½ enters the basis by its best factors (a number for each output times one for each input), else its own diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.sketch.blocks import Gradient, Outer
from headwater.sketch.products import chunks

Rows = Mapping[str, Float[Tensor, "_rows _out _in"]]
"""Tensor name to one matrix for each derivative."""


@dataclass(frozen=True)
class Curve:
    """H̃ of one tensor: eigenvectors of both sides (None: the unit vectors), eigenvalues and D^½, both `[out, in]`."""

    left: Tensor | None
    right: Tensor | None
    values: Float[Tensor, "out in"]
    root: Float[Tensor, "out in"]

    def at_start(self, ends: Float[Tensor, "rows out in"], time: float) -> Float[Tensor, "rows out in"]:
        """Derivatives at the segment's start, from those at its end."""
        return self._apply((-time * self.values).exp(), ends * self.root) / self.root

    def of_gradients(self, ends: Float[Tensor, "rows out in"], time: float) -> Float[Tensor, "rows out in"]:
        """What to multiply a gradient with that is added to every step."""
        x = time * self.values
        share = torch.where(x > 1e-4, -torch.expm1(-x) / x.clamp_min(1e-30), 1 - x / 2)
        return time * self.root * self._apply(share, ends * self.root)

    def _apply(self, by: Tensor, some: Tensor) -> Tensor:
        if self.left is None or self.right is None:
            return some * by
        found: Tensor = self.left @ ((self.left.mT @ some @ self.right) * by) @ self.right.mT
        return found


@dataclass(frozen=True)
class Segment:
    """One segment: the curvature of each tensor, and τ, the sum of its learning rates."""

    curves: Mapping[str, Curve]
    time: float

    def at_start(self, ends: Rows) -> dict[str, Tensor]:
        """Derivatives by the weights at the start, from those at the end; unchanged where nothing was fitted."""
        return {n: self.curves[n].at_start(g, self.time) if n in self.curves else g for n, g in ends.items()}

    def of_gradients(self, ends: Rows) -> dict[str, Tensor]:
        """What a gradient added to every step is multiplied with; zero where nothing was fitted."""
        return {
            n: self.curves[n].of_gradients(g, self.time) if n in self.curves else torch.zeros_like(g)
            for n, g in ends.items()
        }


def flat_segment(roots: Mapping[str, Tensor], time: float) -> Segment:
    """A segment without curvature, in which a gradient moves the end by D times itself."""
    return Segment({name: Curve(None, None, torch.zeros_like(root), root) for name, root in roots.items()}, time)


Pass = Callable[[Callable[[Gradient], None]], None]
"""Calls a visitor with the gradients of every batch; the rows' losses are sums over tokens sampled from the model."""


@dataclass
class Fit:
    """Fits a segment's curves in two passes over the gradients at its checkpoints.

    Attributes:
        roots: D^½ of each tensor, in the gradients' layout `(out, in)`.
        tokens: target tokens of all passes together: H is that of the mean loss of a token.
    """

    roots: Mapping[str, Tensor]
    tokens: int
    _sides: dict[str, list[Tensor]] = field(default_factory=dict, repr=False)
    _bases: dict[str, list[Tensor]] = field(default_factory=dict, repr=False)
    _values: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def run(self, passes: Sequence[Pass], time: float) -> Segment:
        """The fitted segment; every pass is of one checkpoint."""
        for one in passes:
            one(self._add_sides)
        self._bases = {
            name: [torch.linalg.eigh(total).eigenvectors.float() for total in sides]
            for name, sides in self._sides.items()
        }
        for one in passes:
            one(self._add_values)
        return Segment({name: self._curve(name, total / self.tokens) for name, total in self._values.items()}, time)

    def _curve(self, name: str, values: Tensor) -> Curve:
        left, right = self._bases.get(name, (None, None))
        return Curve(left, right, values, self.roots[name].to(values))

    def _add_sides(self, gradient: Gradient) -> None:
        if not _is_outer(gradient):
            return
        factors = self._scaled(gradient)
        carries = factors.left.ne(0).any(-1)
        sums = self._sides.setdefault(gradient.name, [torch.zeros(()), torch.zeros(())])
        for place, side in enumerate((factors.left[carries], factors.right[carries])):
            sums[place] = sums[place].to(side.device) + (side.mT @ side).double()

    def _add_values(self, gradient: Gradient) -> None:
        root: Tensor | None = self.roots[gradient.name].to(gradient.device)
        if gradient.name in self._bases:
            left, right = self._bases[gradient.name]
            factors, root = self._scaled(gradient), None
            gradient = Gradient(gradient.name, gradient.shape, (Outer(factors.left @ left, factors.right @ right),))
        fresh = torch.zeros(gradient.matrix, device=gradient.device)
        found = self._values.setdefault(gradient.name, fresh)
        for _, first, piece in chunks(gradient):
            some = slice(first, first + piece.shape[1])
            found[some] += (piece.float() if root is None else piece.float() * root[some]).square().sum(0)

    def _scaled(self, gradient: Gradient) -> Outer:
        """The factors times those of D^½."""
        (block,) = gradient.blocks
        assert isinstance(block, Outer), gradient.name
        root = self.roots[gradient.name].to(gradient.device)
        outputs, inputs = root.mean(1), root.mean(0) / root.mean()
        return Outer(block.left.float() * outputs, block.right.float() * inputs)


def _is_outer(gradient: Gradient) -> bool:
    return len(gradient.blocks) == 1 and isinstance(gradient.blocks[0], Outer)
