"""Vector codes: rows of a few bytes, searched with queries that stay float.

    int8     x ≈ scale · c             c = round(x / scale), scale = max|x| / 127
    sign     ⟨q, x⟩ ≈ scale · ⟨Pq, s⟩    s = sign(Px), one bit each; P a random rotation

The sign code is SimHash on a Walsh–Hadamard rotation (RISE, section on compression). Of `bits` coordinates u of Px out
of n, scale = (n / bits) · ‖u‖² / ‖u‖₁: with it a row's score with itself is exact at bits = n, and over random
rotations the estimate has no bias to first order in 1/bits (the published constant √(π/2) √n/bits is its limit for
unit x). A code loses: how much was measured is in the documentation; it is a choice, never a default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import UsageError
from headwater.core.spec import Column
from headwater.index.rows import vector_array
from headwater.index.store import Index
from headwater.sketch.hadamard import padded, rotate, rotate_back

SEED = 0
DEFAULT_BITS = 8192
"""One KiB a row."""

SIGNS_OF_BYTE = torch.tensor([[1.0 if byte >> i & 1 else -1.0 for i in range(8)] for byte in range(256)])
"""float32 `[256, 8]`: the signs a byte stands for, lowest bit first."""


def coded(columns: Sequence[Column], code: str | None) -> tuple[Column, ...]:
    """The columns as they are stored under a code: None (as they are), `int8`, `sign`, or `sign:BITS`.

    A column that the code would not make smaller stays as it is.

    Raises:
        UsageError: no such code, or bits that are not a positive multiple of 8.
    """
    if code is None:
        return tuple(columns)
    kind, _, size = code.partition(":")
    if kind == "int8" and not size:
        return _where_smaller(columns, dtype="int8")
    bits = int(size) if size.isdecimal() else (DEFAULT_BITS if not size else 0)
    if kind != "sign" or bits < 8 or bits % 8:
        raise UsageError(f"'{code}' is no code", where="--code", remedy="int8, sign, or sign:4096 (a multiple of 8)")
    return _where_smaller(columns, dtype="sign", bits=bits)


def _where_smaller(columns: Sequence[Column], **changes: Any) -> tuple[Column, ...]:
    changed = [dataclasses.replace(column, **changes) for column in columns]
    return tuple(min(pair, key=lambda column: column.row_bytes) for pair in zip(columns, changed, strict=True))


def encode(values: Float[Tensor, "rows dim"], column: Column) -> dict[str, NDArray[np.generic]]:
    """Vectors as they are stored: arrays `[rows, width]`, and for codes the scales `[rows]`, by column name."""
    if column.scale is None:
        kept = values.to(getattr(torch, column.dtype))  # an overflow becomes an infinity, which the caller names
        return {column.name: kept.cpu().numpy()}
    values = values.float()
    if column.dtype == "int8":
        scale = values.abs().amax(dim=1) / 127
        stored = torch.round(values / torch.where(scale > 0, scale, 1)[:, None]).to(torch.int8).cpu().numpy()
    else:
        rotated = _rotated(values, column)
        total = rotated.abs().sum(dim=1)
        scale = rotated.square().sum(dim=1) / torch.where(total > 0, total, 1) * _share(column)
        stored = np.packbits((rotated > 0).cpu().numpy(), axis=1, bitorder="little")
    return {column.name: stored, column.scale: scale.cpu().numpy()}


def transform(probes: Float[Tensor, "queries dim"], column: Column) -> Float[Tensor, "queries width"]:
    """What stored rows are multiplied with to give scores: queries as they are, or rotated for sign codes."""
    return _rotated(probes, column) if column.dtype == "sign" else probes


def decode(stored: Mapping[str, NDArray[np.generic]], column: Column) -> Float[Tensor, "rows dim"]:
    """The vectors that stored rows stand for: exact for numbers, the code's estimate for codes."""
    rows = torch.from_numpy(np.array(stored[column.name]))
    values = SIGNS_OF_BYTE[rows.long()].view(len(rows), -1) if column.dtype == "sign" else rows.float()
    if column.scale is None:
        return values
    scaled = values * torch.from_numpy(np.array(stored[column.scale]))[:, None]
    return _rotated_back(scaled, column) if column.dtype == "sign" else scaled


def read_vectors(index: Index, addresses: Sequence[int], names: Sequence[str]) -> dict[str, Float[Tensor, "rows _dim"]]:
    """The vectors of rows by address, decoded to float32, for the columns named."""
    columns = [column for column in index.manifest.columns if column.name in names]
    table = index.at(addresses, [name for column in columns for name in stored_names(column)])
    return {column.name: stored_vectors(table, column) for column in columns}


def stored_names(column: Column) -> list[str]:
    """The names of the columns of the store that hold a vector column: its own, and a code's scales."""
    return [column.name] if column.scale is None else [column.name, column.scale]


def stored_vectors(table: pa.Table, column: Column) -> Float[Tensor, "rows dim"]:
    """A table's vectors, decoded to float32."""
    return decode({name: _array(table.column(name)) for name in stored_names(column)}, column)


def _array(column: pa.ChunkedArray) -> NDArray[np.generic]:
    return vector_array(column) if pa.types.is_fixed_size_list(column.type) else column.to_numpy()


def _rotated(x: Float[Tensor, "rows dim"], column: Column) -> Float[Tensor, "rows bits"]:
    """The first `bits` coordinates of as many rotations as it takes."""
    starts = range(0, column.bits, padded(column.dim))
    return torch.cat([rotate(x, SEED, column.name, turn) for turn in range(len(starts))], dim=1)[:, : column.bits]


def _rotated_back(x: Float[Tensor, "rows bits"], column: Column) -> Float[Tensor, "rows dim"]:
    """The transpose of `_rotated`."""
    total = x.new_zeros(len(x), column.dim)
    for turn, part in enumerate(x.split(padded(column.dim), dim=1)):
        whole = torch.cat([part, part.new_zeros(len(part), padded(column.dim) - part.shape[1])], dim=1)
        total += rotate_back(whole, column.dim, SEED, column.name, turn)
    return total


def _share(column: Column) -> float:
    """How many coordinates there are for each that is kept: n / bits."""
    return padded(column.dim) / column.bits
