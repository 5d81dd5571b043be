"""TRAK, LoGra, TrackStar, LESS and RelatIF written down once more: whole matrices, explicit inverses, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

Gradients = Mapping[str, Tensor]


def flat(gradients: Gradients, names: Sequence[str]) -> np.ndarray:
    return np.concatenate([gradients[name].double().flatten().numpy() for name in names])


def trak(rows: np.ndarray, queries: np.ndarray, losses: tuple[np.ndarray, np.ndarray], damping: float) -> np.ndarray:
    """φ_q (ΦᵀΦ/n + λI)⁻¹ φ_i (1 − p_i) for gradients [n, parameters] of the loss."""
    p_rows, p_queries = np.exp(-losses[0]), np.exp(-losses[1])
    phi, asked = -rows / (1 - p_rows)[:, None], -queries / (1 - p_queries)[:, None]
    gram = phi.T @ phi / len(phi)
    inverse = np.linalg.inv(gram + damping * np.trace(gram) / len(gram) * np.eye(len(gram)))
    return (phi @ inverse @ asked.T) * (1 - p_rows)[:, None]


def blockwise_cosine(rows: list[np.ndarray], queries: list[np.ndarray], damping: float, *, unit: bool) -> np.ndarray:
    """Σ_blocks aᵀ (G + λI)⁻¹ q, over both norms in that metric if `unit`; one array [n, size] a block."""
    cross, own, asked = 0.0, 0.0, 0.0
    for a, q in zip(rows, queries, strict=True):
        gram = a.T @ a / len(a)
        inverse = np.linalg.inv(gram + damping * np.trace(gram) / len(gram) * np.eye(len(gram)))
        cross = cross + a @ inverse @ q.T
        own = own + np.einsum("np,pk,nk->n", a, inverse, a)
        asked = asked + np.einsum("np,pk,nk->n", q, inverse, q)
    return cross / np.sqrt(np.outer(own, asked)) if unit else cross


def adam_update(gradient: Tensor, m: Tensor, v: Tensor, constants: tuple[int, float, float, float]) -> Tensor:
    """The direction of Adam's next step, entry by entry."""
    step, beta1, beta2, epsilon = constants
    out = torch.empty_like(gradient)
    for place in np.ndindex(*gradient.shape):
        first = beta1 * m[place] + (1 - beta1) * gradient[place]
        second = beta2 * v[place] + (1 - beta2) * gradient[place] ** 2
        out[place] = (first / (1 - beta1 ** (step + 1))) / (torch.sqrt(second / (1 - beta2 ** (step + 1))) + epsilon)
    return out


def relatif(rows: np.ndarray, queries: np.ndarray, damping: float, *, form: str) -> np.ndarray:
    """aᵀ H⁻¹ q over √(aᵀ H⁻¹ a) (`l`) or ‖H⁻¹ a‖ (`theta`), one row at a time; H is the damped Gram matrix."""
    gram = rows.T @ rows / len(rows)
    inverse = np.linalg.inv(gram + damping * np.trace(gram) / len(gram) * np.eye(len(gram)))
    reach = [np.sqrt(a @ inverse @ a) if form == "l" else np.linalg.norm(inverse @ a) for a in rows]
    return np.stack([a @ inverse @ queries.T / size for a, size in zip(rows, reach, strict=True)])
