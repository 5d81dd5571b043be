"""The interface that every sketch implements, and the catalog of sketches by name.

A sketch S is a linear map from the gradient of a whole model to `dim` numbers, given tensor by tensor:
S(g) = Σ_tensors S_tensor(g_tensor), with E⟨S(a), S(b)⟩ = ⟨a, b⟩ over seeds. Where S_tensor puts a number depends on
(seed, tensor's name, index) alone, so the order of tensors, sharding and the device do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import UsageError, unknown_name
from headwater.sketch.blocks import Gradient
from headwater.sketch.dense import Hashed, Identity, Rademacher
from headwater.sketch.shift import ShiftSum
from headwater.sketch.two_sided import TwoSided


@runtime_checkable
class Sketch(Protocol):
    """A seeded linear map from gradients to vectors."""

    @property
    def dim(self) -> int:
        """Length of the sketched vector."""
        ...

    def accumulate(
        self, total: Float[Tensor, "rows dim"], gradient: Gradient, *, unit: bool, norms: bool = True
    ) -> Float[Tensor, " rows"]:
        """Add one tensor's sketch to `total` in place; with `unit`, the tensor is first scaled to norm 1 (or left 0).

        Returns:
            The tensor's squared norm for each row, before scaling; anything if neither `unit` nor `norms` asks for it.
        """
        ...


def takes_packed(sketch: Sketch) -> bool:
    """Whether a sketch reads `Packed` blocks as they are; another makes their left factors, a large copy."""
    return isinstance(sketch, ShiftSum)


SKETCHES: Mapping[str, Callable[[Mapping[str, tuple[int, ...]], int, int], Sketch]] = {
    "shift": lambda shapes, dim, seed: ShiftSum(dim, seed),
    "hash": lambda shapes, dim, seed: Hashed(dim, seed),
    "two-sided": TwoSided,
    "rademacher": lambda shapes, dim, seed: Rademacher(dim, seed),
    "identity": lambda shapes, dim, seed: Identity(shapes),
}
"""Name to a function of (each tensor's `Gradient.shape`, width, seed) that makes the sketch."""


def make_sketch(kind: str, shapes: Mapping[str, tuple[int, ...]], *, dim: int, seed: int) -> Sketch:
    """The sketch called `kind`; `identity` takes its width from the shapes.

    Raises:
        UsageError: unknown name, or no width.
    """
    if kind not in SKETCHES:
        raise unknown_name("sketch", kind, SKETCHES)
    if dim < 1 and kind != "identity":
        raise UsageError(f"a sketch of {dim} numbers", where="dim", remedy="at least 1; only sketch=identity takes 0")
    return SKETCHES[kind](shapes, dim, seed)
