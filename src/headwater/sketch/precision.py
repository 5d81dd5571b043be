"""Products of half-precision numbers with float32 results, on a GPU's tensor cores.

A product of two numbers of 8 (bfloat16) or 11 (float16) significant bits is exact in float32, so tensor cores, which
multiply exactly such numbers and sum in float32, lose nothing but the order of the sum. Converted to float32 first, the
same product would run on the ordinary units, several times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def narrow_products_pay(device: torch.device) -> bool:
    """Whether products of bfloat16 numbers are faster than those of float32: on a GPU, and on a CPU with AMX tiles.

    A CPU without takes twice as long for them, although it may have instructions for single rows of such numbers.
    """
    return device.type != "cpu" or torch.cpu._is_amx_tile_supported()


def multiplies_half(states: Tensor, matrix: Tensor) -> bool:
    """Whether `half_product` and `half_products` can multiply these two."""
    same = states.dtype == matrix.dtype and states.device == matrix.device
    return states.is_cuda and same and matrix.dtype in HALF and _has_wide_results(matrix.device, matrix.dtype)


def half_product(states: Float[Tensor, "*batch width"], matrix: Float[Tensor, "size width"]) -> Tensor:
    """states @ matrix.T of half-precision numbers, summed and returned in float32: `[*batch, size]`."""
    flat = torch.mm(states.reshape(-1, states.shape[-1]), matrix.T, out_dtype=torch.float32)
    return flat.view(*states.shape[:-1], len(matrix))


def half_products(left: Float[Tensor, "rows out inner"], right: Float[Tensor, "rows inner in"]) -> Tensor:
    """left @ right of half-precision numbers, example by example, summed and returned in float32: `[rows, out, in]`."""
    return torch.bmm(left, right, out_dtype=torch.float32)


@cache
def _has_wide_results(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch has such products (2.8 and later, on CUDA)."""
    one = torch.ones(16, 16, dtype=dtype, device=device)
    try:
        torch.mm(one, one, out_dtype=torch.float32)
        torch.bmm(one[None], one[None], out_dtype=torch.float32)
    except (TypeError, RuntimeError):
        return False
    return True


@contextmanager
def tensor_cores(dtype: torch.dtype) -> Iterator[None]:
    """Run float32 products on tensor cores (TensorFloat-32, 11 bits) inside, if the numbers were made in `dtype`.

    For a half-precision `dtype` that rounds nothing: its numbers have at most 11 bits. For float32 nothing changes.
    Keep a model's own pass outside, because positions are multiplied in float32 there.
    """
    before = torch.get_float32_matmul_precision()
    if dtype not in HALF or before != "highest":
        yield
        return
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
