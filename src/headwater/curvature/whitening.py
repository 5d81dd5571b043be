"""The square root of EK-FAC's inverse curvature applied to gradients, and the file that keeps its factors.

    w = (Q_Sᵀ g Q_A) / √(Λ + λ)        so that ⟨w, w'⟩ = ⟨g, (F + λI)⁻¹ g'⟩

The result stays in the eigenbasis, where inner products and norms are the same. The names are those of
`headwater.curvature.kronecker`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from headwater.core.errors import DataError, MismatchError
from headwater.curvature.kronecker import Ekfac, Factor
from headwater.sketch.blocks import Gradient, Outer

_PARTS = ("left", "right", "values")


@dataclass(frozen=True)
class Whitening:
    """The two steps from gradients to w; both give zero for a layer in which no fitted row had a gradient.

    Attributes:
        read: returns the fitted factors; it is called when the first gradient comes.
    """

    read: Callable[[], Ekfac]

    @cached_property
    def fitted(self) -> Ekfac:
        """The factors."""
        return self.read()

    def turned(self, gradient: Gradient) -> Gradient:
        """Q_Sᵀ g Q_A, from a linear layer's gradient in factors."""
        factor = self.fitted.factors.get(gradient.name)
        if factor is None:
            return gradient
        (block,) = gradient.blocks
        assert isinstance(block, Outer), gradient.name
        left, right = block.left.float(), block.right.float()
        return replace(gradient, blocks=(Outer(left @ factor.left.to(left), right @ factor.right.to(right)),))

    def scaled(
        self, name: str, turned: Float[Tensor, "rows _a _b"], *, transposed: bool
    ) -> Float[Tensor, "rows _a _b"]:
        """Each entry over √(Λ + λ); `transposed` if the gradients are `[rows, in, out]`."""
        factor = self.fitted.factors.get(name)
        if factor is None:
            return torch.zeros_like(turned)
        root = (factor.values + factor.damping).sqrt().to(turned)
        return turned / (root.mT if transposed else root)


def write_factors(file: str | Path, fitted: Mapping[str, tuple[Ekfac, Mapping[str, Any]]]) -> None:
    """Write factors as safetensors: by a name, which may be empty, the factors and the fingerprint of their model."""
    tensors: dict[str, Tensor] = {}
    about: dict[str, str] = {}
    for name, (ekfac, fingerprint) in fitted.items():
        for layer, factor in ekfac.factors.items():
            tensors |= {_key(name, part, layer): getattr(factor, part).cpu().contiguous() for part in _PARTS}
        dampings = {layer: factor.damping for layer, factor in ekfac.factors.items()}
        facts = {"damping": ekfac.damping, "dampings": dampings, "fingerprint": dict(fingerprint)}
        about[_about(name)] = json.dumps(facts, sort_keys=True)
    save_file(tensors, file, metadata=about)


def read_factors(
    file: str | Path, name: str, fingerprint: Mapping[str, Any], device: str | torch.device = "cpu"
) -> Ekfac:
    """The factors that `write_factors` wrote under this name.

    Raises:
        DataError: there is no such file, or it does not hold these factors.
        MismatchError: they were fitted on another model.
    """
    try:
        with safe_open(str(file), framework="pt", device=str(device)) as kept:
            about = json.loads((kept.metadata() or {})[_about(name)])
            factors = {
                layer: Factor(**{part: kept.get_tensor(_key(name, part, layer)) for part in _PARTS}, damping=damping)
                for layer, damping in about["dampings"].items()
            }
    except Exception as error:  # missing, foreign and truncated files raise errors of different classes
        remedy = "restore it, or build the index again"
        raise DataError(f"no factors of EK-FAC: {error}", where=str(file), remedy=remedy) from None
    then, now = about["fingerprint"], json.loads(json.dumps(dict(fingerprint)))
    if other := tuple(name for name in {**then, **now} if then.get(name) != now.get(name)):
        what = f"the curvature was fitted on another model: {', '.join(other)}"
        raise MismatchError(what, fields=other, where=str(file), remedy="give the model that it was fitted on")
    return Ekfac(factors, about["damping"])


def _about(name: str) -> str:
    """The entry of the file's metadata under which factors are described."""
    return f"ekfac@{name}" if name else "ekfac"


def _key(name: str, part: str, layer: str) -> str:
    return f"{name}/{part}.{layer}" if name else f"{part}.{layer}"
