"""Vector codes: each row is stored in a few bytes, and queries keep more (`headwater.search.products`).

    int8               x ≈ scale · c              c = round(x / scale), scale = max|x| / 127
    sign, int2, int4   ⟨q, x⟩ ≈ scale · ⟨Pq, c⟩     c = the level nearest to Px, of 2, 4 or 16; P a random rotation
    factors            X ≈ U Vᵀ                   for each matrix X of the vector, its best approximation of low rank

The codes of a rotation keep some of the n coordinates of Px: as many as there is room for in `bits`. A Walsh–Hadamard
rotation makes the coordinates of any vector nearly normal, so levels are spaced for normal numbers (Max, 1960) of the
row's own spread, and are odd whole numbers; one bit gives SimHash (RISE, section on compression). With u the kept
coordinates, scale = (n / kept) · ‖u‖² / ⟨u, c⟩. With this scale a row's score with itself is right where all are kept,
and over random rotations the estimate has no bias to first order in 1 / kept (for signs, the published constant
√(π/2) √n/bits is its limit for unit x).

`factors` suits two-sided sketches (LoRIF): the sketched gradient of a weight is a matrix of low effective rank, and its
inner product with a query's matrix Q is that of the factors, Σ_j u_jᵀ Q v_j. A matrix is stored whole where factors
would be no smaller.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int8, UInt8
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import UsageError
from headwater.core.spec import LEVEL_BITS, Column
from headwater.index.rows import vector_array
from headwater.index.store import Index
from headwater.search.factors import factors_of, vectors_of
from headwater.sketch.hadamard import padded, rotate, rotate_back

SEED = 0
DEFAULT_BITS = 8192
"""One KiB a row."""

DEFAULT_RANK = 1

PLAIN = "none"
"""The code that leaves vectors as numbers."""

_STEPS = {1: 1.0, 2: 0.9957, 4: 0.3352}
"""Distance of neighbouring levels that is best for normal numbers of spread 1, by bits a coordinate."""

FORMS = "int8, sign, int2, int4 (of these three also sign:4096, a multiple of 8), factors or factors:2"
"""What a code may be, for messages."""


def levels_of_byte(each: int) -> Int8[Tensor, "256 in_a_byte"]:
    """The levels that every byte stands for, lowest bits first, if each takes so many bits: odd numbers around 0."""
    codes = torch.arange(256)[:, None] >> torch.arange(0, 8, each)
    return (2 * (codes % (1 << each)) + 1 - (1 << each)).to(torch.int8)


def coded(columns: Sequence[Column], code: str | None) -> tuple[Column, ...]:
    """The columns as a code stores them; None and `none` leave them unchanged.

    A column that the code would not make smaller, or that has no matrices to take `factors` of, stays as it is.

    Raises:
        UsageError: there is no such code, or its number is not a positive multiple of 8 bits, or a positive rank.
    """
    if code is None or code == PLAIN:
        return tuple(columns)
    kind, colon, size = code.partition(":")
    number = int(size) if size.isdecimal() else (0 if colon else None)
    if kind == "int8" and number is None:
        return _where_smaller(columns, dtype="int8")
    if kind == "factors" and number != 0:
        return _where_smaller(columns, dtype="factors", rank=number or DEFAULT_RANK)
    bits = DEFAULT_BITS if number is None else number
    if kind not in LEVEL_BITS or bits < 8 or bits % 8:
        raise UsageError(f"'{code}' is no code", where="--code", remedy=FORMS)
    return _where_smaller(columns, dtype=kind, bits=bits)


def _where_smaller(columns: Sequence[Column], *, bits: int = 0, **changes: Any) -> tuple[Column, ...]:
    found = []
    for column in columns:
        fits = column.matrices or changes["dtype"] != "factors"
        length = max(8, round(bits * column.share / 8) * 8) if bits else 0
        coded = dataclasses.replace(column, bits=length, **changes) if fits else column
        found.append(min(column, coded, key=lambda one: one.row_bytes))
    return tuple(found)


def encode(values: Float[Tensor, "rows dim"], column: Column) -> dict[str, NDArray[np.generic]]:
    """Convert vectors to what a column stores: an array `[rows, width]`, and scales `[rows]` for some codes."""
    if column.dtype == "factors":
        return {column.name: factors_of(values.float(), column).half().cpu().numpy()}
    if column.scale is None:
        kept = values.to(getattr(torch, column.dtype))  # an overflow becomes an infinity, which the caller reports
        return {column.name: kept.cpu().numpy()}
    values = values.float()
    if column.dtype == "int8":
        scale = values.abs().amax(dim=1) / 127
        stored = torch.round(values / torch.where(scale > 0, scale, 1)[:, None]).to(torch.int8).cpu()
    else:
        stored, scale = _levelled(_rotated(values, column), column)
    return {column.name: stored.numpy(), column.scale: scale.cpu().numpy()}


def _levelled(
    rotated: Float[Tensor, "rows kept"], column: Column
) -> tuple[UInt8[Tensor, "rows width"], Float[Tensor, " rows"]]:
    """The nearest level of each coordinate, as bytes, and the rows' scales."""
    each = LEVEL_BITS[column.dtype]
    step = _STEPS[each] * rotated.square().mean(dim=1, keepdim=True).sqrt()
    codes = torch.floor(rotated / torch.where(step > 0, step, 1)) + (1 << each - 1)
    codes = codes.clamp_(0, (1 << each) - 1).to(torch.uint8)
    levels = codes.to(rotated.dtype).mul_(2).sub_((1 << each) - 1)
    along = torch.linalg.vecdot(rotated, levels)
    kept = rotated.shape[1]
    scale = rotated.square().sum(dim=1) / torch.where(along > 0, along, 1) * (padded(column.dim) / kept)
    places = torch.arange(0, 8, each, device=codes.device, dtype=torch.uint8)
    return (codes.view(len(codes), column.width, 8 // each) << places).sum(dim=2, dtype=torch.uint8).cpu(), scale


def transform(probes: Float[Tensor, "queries dim"], column: Column) -> Float[Tensor, "queries kept"]:
    """Queries in the form that stored rows are multiplied with: rotated for codes of a rotation, else unchanged."""
    return _rotated(probes, column) if column.dtype in LEVEL_BITS else probes


def decode(stored: Mapping[str, NDArray[np.generic]], column: Column) -> Float[Tensor, "rows dim"]:
    """The inverse of `encode`: exact for plain numbers, an estimate for codes."""
    rows = torch.from_numpy(np.array(stored[column.name]))
    if column.dtype == "factors":
        return vectors_of(rows, column)
    if column.scale is None:
        return rows.float()
    scale = torch.from_numpy(np.array(stored[column.scale]))[:, None]
    if column.dtype == "int8":
        return rows.float() * scale
    levels = levels_of_byte(LEVEL_BITS[column.dtype])[rows.long()].flatten(1)
    return _rotated_back(levels * scale, column)


def read_vectors(index: Index, addresses: Sequence[int], names: Sequence[str]) -> dict[str, Float[Tensor, "rows _dim"]]:
    """Column name to the vectors of the rows at these addresses, decoded to float32, for the columns `names`."""
    columns = [column for column in index.manifest.columns if column.name in names]
    table = index.at(addresses, [name for column in columns for name in stored_names(column)])
    return {column.name: stored_vectors(table, column) for column in columns}


def stored_names(column: Column) -> list[str]:
    """The names of the stored columns that make up a vector column: its own, and for a code that of its scales."""
    return [column.name] if column.scale is None else [column.name, column.scale]


def stored_vectors(table: pa.Table | pa.RecordBatch, column: Column) -> Float[Tensor, "rows dim"]:
    """The vectors of a table's rows, decoded to float32."""
    stored = {column.name: vector_array(table.column(column.name))}
    if column.scale is not None:
        stored[column.scale] = table.column(column.scale).to_numpy()
    return decode(stored, column)


def _rotated(x: Float[Tensor, "rows dim"], column: Column) -> Float[Tensor, "rows kept"]:
    """As many coordinates as the column keeps, of one or more random rotations laid end to end."""
    kept, n = column.bits // LEVEL_BITS[column.dtype], padded(column.dim)
    starts = enumerate(range(0, kept, n))
    return torch.cat([rotate(x, SEED, column.name, turn, kept=min(n, kept - start)) for turn, start in starts], dim=1)


def _rotated_back(x: Float[Tensor, "rows kept"], column: Column) -> Float[Tensor, "rows dim"]:
    """The transpose of `_rotated`."""
    total = x.new_zeros(len(x), column.dim)
    for turn, part in enumerate(x.split(padded(column.dim), dim=1)):
        whole = torch.cat([part, part.new_zeros(len(part), padded(column.dim) - part.shape[1])], dim=1)
        total += rotate_back(whole, column.dim, SEED, column.name, turn)
    return total
