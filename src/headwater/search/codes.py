"""Vector codes: each row is stored in a few bytes, and queries keep more (`headwater.search.products`).

    int8     x ≈ scale · c             c = round(x / scale), scale = max|x| / 127
    sign     ⟨q, x⟩ ≈ scale · ⟨Pq, s⟩    s = sign(Px), one bit each; P a random rotation

The sign code is SimHash on a Walsh–Hadamard rotation (RISE, section on compression). It keeps `bits` of the n
coordinates of Px; with u these coordinates, scale = (n / bits) · ‖u‖² / ‖u‖₁. With this scale a row's score with itself
is right at bits = n, and over random rotations the estimate has no bias to first order in 1/bits (the published
constant √(π/2) √n/bits is its limit for unit x). Codes lose accuracy (the documentation says how much was measured), so
they are used only if the user chooses one.
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
"""float32 `[256, 8]`: the eight signs that each byte stands for, lowest bit first."""


def coded(columns: Sequence[Column], code: str | None) -> tuple[Column, ...]:
    """The columns as a code stores them; `code` is None (unchanged), `int8`, `sign`, or `sign:BITS`.

    A column that the code would not make smaller stays as it is.

    Raises:
        UsageError: there is no such code, or the bits are not a positive multiple of 8.
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
    """Convert vectors to what a column stores: an array `[rows, width]`, and for a code scales `[rows]`, by name."""
    if column.scale is None:
        kept = values.to(getattr(torch, column.dtype))  # an overflow becomes an infinity, which the caller reports
        return {column.name: kept.cpu().numpy()}
    values = values.float()
    if column.dtype == "int8":
        scale = values.abs().amax(dim=1) / 127
        stored = torch.round(values / torch.where(scale > 0, scale, 1)[:, None]).to(torch.int8).cpu().numpy()
    else:
        rotated = _rotated(values, column)
        total = rotated.abs().sum(dim=1)
        scale = rotated.square().sum(dim=1) / torch.where(total > 0, total, 1) * (padded(column.dim) / column.bits)
        stored = np.packbits((rotated > 0).cpu().numpy(), axis=1, bitorder="little")
    return {column.name: stored, column.scale: scale.cpu().numpy()}


def transform(probes: Float[Tensor, "queries dim"], column: Column) -> Float[Tensor, "queries width"]:
    """Queries in the form that stored rows are multiplied with: rotated for sign codes, else unchanged."""
    return _rotated(probes, column) if column.dtype == "sign" else probes


def decode(stored: Mapping[str, NDArray[np.generic]], column: Column) -> Float[Tensor, "rows dim"]:
    """The inverse of `encode`: exact for plain numbers, an estimate for codes."""
    rows = torch.from_numpy(np.array(stored[column.name]))
    values = SIGNS_OF_BYTE[rows.long()].view(len(rows), -1) if column.dtype == "sign" else rows.float()
    if column.scale is None:
        return values
    scaled = values * torch.from_numpy(np.array(stored[column.scale]))[:, None]
    return _rotated_back(scaled, column) if column.dtype == "sign" else scaled


def read_vectors(index: Index, addresses: Sequence[int], names: Sequence[str]) -> dict[str, Float[Tensor, "rows _dim"]]:
    """Column name to the vectors of the rows at these addresses, decoded to float32, for the columns `names`."""
    columns = [column for column in index.manifest.columns if column.name in names]
    table = index.at(addresses, [name for column in columns for name in stored_names(column)])
    return {column.name: stored_vectors(table, column) for column in columns}


def stored_names(column: Column) -> list[str]:
    """The names of the stored columns that make up a vector column: its own, and for a code that of its scales."""
    return [column.name] if column.scale is None else [column.name, column.scale]


def stored_vectors(table: pa.Table, column: Column) -> Float[Tensor, "rows dim"]:
    """The vectors of a table's rows, decoded to float32."""
    stored = {column.name: vector_array(table.column(column.name))}
    if column.scale is not None:
        stored[column.scale] = table.column(column.scale).to_numpy()
    return decode(stored, column)


def _rotated(x: Float[Tensor, "rows dim"], column: Column) -> Float[Tensor, "rows bits"]:
    """The first `bits` coordinates of one or more random rotations laid end to end."""
    starts = range(0, column.bits, padded(column.dim))
    return torch.cat([rotate(x, SEED, column.name, turn) for turn in range(len(starts))], dim=1)[:, : column.bits]


def _rotated_back(x: Float[Tensor, "rows bits"], column: Column) -> Float[Tensor, "rows dim"]:
    """The transpose of `_rotated`."""
    total = x.new_zeros(len(x), column.dim)
    for turn, part in enumerate(x.split(padded(column.dim), dim=1)):
        whole = torch.cat([part, part.new_zeros(len(part), padded(column.dim) - part.shape[1])], dim=1)
        total += rotate_back(whole, column.dim, SEED, column.name, turn)
    return total
