"""EK-FAC, DataInf and Z0-Inf written down once more: dense matrices inverted, checkpoints compared in loops."""

from __future__ import annotations

import numpy as np


def ekfac(
    rows: np.ndarray, queries: np.ndarray, sides: tuple[np.ndarray, np.ndarray], curvature: np.ndarray, damping: float
) -> np.ndarray:
    """One layer: gradients [n, out, in]; sides (δ [tokens, out], a [tokens, in]); curvature: gradients Λ is made of."""
    left = np.linalg.eigh(sides[0].T @ sides[0])[1]
    right = np.linalg.eigh(sides[1].T @ sides[1])[1]
    basis = np.kron(left, right)  # columns: the eigenvectors of the whole matrix, flattened out × in
    turned = curvature.reshape(len(curvature), -1) @ basis
    values = (turned**2).mean(0)
    dense = basis @ np.diag(values + damping * values.mean()) @ basis.T
    return rows.reshape(len(rows), -1) @ np.linalg.inv(dense) @ queries.reshape(len(queries), -1).T


def datainf(rows: np.ndarray, queries: np.ndarray, damping: float) -> np.ndarray:
    """One tensor: gradients [n, size]; the mean over rows of explicit inverses."""
    size = rows.shape[1]
    share = damping * (rows**2).sum() / (len(rows) * size)
    inverse = np.mean([np.linalg.inv(np.outer(g, g) + share * np.eye(size)) for g in rows], axis=0)
    return rows @ inverse @ queries.T


def zoinf(weights: np.ndarray, rows: np.ndarray, queries: np.ndarray, neighbours: int) -> np.ndarray:
    """weights [checkpoints, size], losses [checkpoints, n]; gradients are formed."""
    count = len(weights)

    def gradient(e: int, losses: np.ndarray) -> np.ndarray:
        near = sorted((a for a in range(count) if a != e), key=lambda a: (abs(a - e), a))[: neighbours or count]
        steps = [weights[a] - weights[e] for a in near]
        return np.mean([(losses[a] - losses[e]) * d / (d @ d) for a, d in zip(near, steps, strict=True)], axis=0)

    total = np.zeros((rows.shape[1], queries.shape[1]))
    for e in range(count):
        for i in range(rows.shape[1]):
            for k in range(queries.shape[1]):
                total[i, k] += gradient(e, rows[:, i]) @ gradient(e, queries[:, k])
    return total / count
