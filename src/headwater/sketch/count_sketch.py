"""The count-sketch as a matrix: each input coordinate goes to one bucket with one sign (Charikar, Chen and
Farach-Colton, 2002).

For x, y in R^n and width K the sketched inner product is unbiased, with variance
(1/K)(‖x‖²‖y‖² + ⟨x,y⟩² − 2 Σ x_i² y_i²) ≤ (2/K)‖x‖²‖y‖².
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.seeds import buckets, key, signs

IDENTITY = 0
"""The width that stands for no sketch: every coordinate keeps its own place."""


def count_sketch_matrix(
    dim: int, width: int, *, seed: int, name: str, device: torch.device | str = "cpu"
) -> Float[Tensor, "dim width"]:
    """The float32 matrix S with CS(x) = x @ S: one ±1 per row, in a column hashed from (seed, name, row)."""
    if width == IDENTITY:
        return torch.eye(dim, device=device)
    row = torch.arange(dim, dtype=torch.int64, device=device)
    matrix = torch.zeros(dim, width, device=device)
    matrix[row, buckets(row, key(seed, name, "bucket"), width)] = signs(row, key(seed, name, "sign")).float()
    return matrix
