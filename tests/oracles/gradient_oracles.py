"""Slow and obvious: one autograd backward per row, one entry at a time into its bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.data.rows import Row
from headwater.data.tokens import TokenRow


def token_row(ids: np.ndarray, response: np.ndarray, name: str) -> TokenRow:
    offsets = np.zeros((len(ids), 2), np.int64)
    return TokenRow(Row(name, int(name.strip("rq")), text="x"), "x", ids, response, offsets, 0, name)


def random_rows(lengths: tuple[int, ...], *, vocab: int = 300, seed: int = 0, prompt: int = 3) -> list[TokenRow]:
    generator = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        response = np.arange(length) >= min(prompt, length - 1)
        rows.append(token_row(generator.integers(0, vocab, length), response, f"r{number}"))
    return rows


def row_gradients(model: Any, row: TokenRow, cuts: list[tuple[int, int]] | None = None) -> dict[str, Tensor]:
    """The gradient of the row's mean loss by every parameter: one forward and backward pass, unbatched and unpadded.

    `cuts` are the windows the row is read in; a target counts where it is first predicted.
    """
    parameters = dict(model.named_parameters())
    total: Tensor | float = 0.0
    done: set[int] = set()
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    for start, end in cuts or [(0, len(row.ids))]:
        ids = torch.from_numpy(row.ids[start:end])[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, start - end :]
        for token in range(start + 1, end):
            if row.response[token] and token not in done:
                done.add(token)
                log = torch.log_softmax(logits[token - start - 1].double(), -1)
                total = total - log[int(row.ids[token])]
    loss = total / len(done)
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def expected(oracle: Mapping[str, Tensor], name: str) -> Tensor:
    """The oracle's gradient for a tensor's name, which may be one expert's slice."""
    base, _, expert = name.partition("[")
    return oracle[base] if not expert else oracle[base][int(expert.rstrip("]"))]


@contextlib.contextmanager
def everything_in_double() -> Iterator[None]:
    """Norms and routers compute in float32 whatever the model's precision; here float32 means float64."""
    to, narrow = torch.Tensor.to, torch.Tensor.float

    def widen(value: Any) -> Any:
        return torch.float64 if value is torch.float32 else value

    def wide_to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return to(self, *map(widen, args), **{key: widen(value) for key, value in kwargs.items()})

    torch.Tensor.to, torch.Tensor.float = wide_to, torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.to, torch.Tensor.float = to, narrow  # type: ignore[method-assign]


def ideal_count_sketch(vectors: np.ndarray, dim: int, seed: int) -> np.ndarray:
    """Every coordinate to a bucket and a sign of NumPy's own generator."""
    generator = np.random.default_rng(seed)
    bucket = generator.integers(0, dim, vectors.shape[1])
    sign = generator.choice([-1.0, 1.0], vectors.shape[1])
    return np.stack([np.bincount(bucket, weights=row * sign, minlength=dim) for row in vectors])
