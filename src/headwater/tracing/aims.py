"""What an index is asked: single queries, their contrast with others, their mean, or a direction.

All of them are linear, because a score is an inner product with the query's vector:

    score(row, Q against R) = score(row, Q) − score(row, R)
    score(row, mean of Q)   = mean over q of score(row, q)
    score(row, direction)   = the direction's inner product with the row's vector

A concept is the mean of the queries that show it against the mean of those that do not, or a direction from elsewhere,
such as a probe of the hidden states (with the column `embedding`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError, UsageError, unknown_name
from headwater.core.spec import Column
from headwater.data.rows import Row

AGAINST = "against/"
"""Stands before the ids of the queries that others are held against, which may be those of the others."""


@dataclass(frozen=True)
class Aim:
    """What is asked.

    Attributes:
        queries: what the model said.
        against: one query for each of these, or one for all, whose score is subtracted; with `mean` any number.
        mean: ask about the mean of the queries, and of those they are held against.
        direction: column name to vectors `[directions, dim]` that stand for queries' vectors, without any queries.
    """

    queries: tuple[Row, ...] = ()
    against: tuple[Row, ...] = ()
    mean: bool = False
    direction: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.direction and (self.queries or self.against or self.mean):
            what = "a direction is asked about alone"
            raise UsageError(what, where="--direction", remedy="leave out --queries, --prompt, --against and --mean")
        if not self.direction and not self.queries:
            raise DataError("there are no queries", remedy="give at least one")
        if self.against and not self.mean and len(self.against) not in (1, len(self.queries)):
            what = f"{len(self.against)} queries against {len(self.queries)}"
            remedy = "give one for each query, or one for all; --mean takes the means of both"
            raise UsageError(what, where="--against", remedy=remedy)

    @property
    def rows(self) -> list[Row]:
        """All queries that are read: those asked about, then those they are held against."""
        return [*self.queries, *(replace(row, id=f"{AGAINST}{row.id}") for row in self.against)]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is asked about."""
        if self.direction:
            count = len(next(iter(self.direction.values())))
            return ("direction",) if count == 1 else tuple(f"direction {i + 1}" for i in range(count))
        return ("mean",) if self.mean else tuple(row.id for row in self.queries)

    @property
    def combination(self) -> Float[Tensor, "names rows"]:
        """How much of each row's vector is in what is asked about."""
        count, others = len(self.queries), len(self.against)
        if self.mean:
            shares = [1 / count] * count + [-1 / others for _ in range(others)]
            return torch.tensor([shares])
        minus = torch.zeros(count, others)
        if others:
            minus[torch.arange(count), torch.arange(count) if others == count else 0] = -1.0
        return torch.cat([torch.eye(count), minus], dim=1)

    @property
    def words(self) -> str:
        """What is asked about, in words; empty if it is each query by itself."""
        if self.direction:
            return "a direction, as if it was a query's vector"
        of = f"the mean of {len(self.queries)} queries" if self.mean else "each query"
        if not self.against:
            return of if self.mean else ""
        other = f"the mean of {len(self.against)} others" if self.mean else "another"
        return f"{of} against {other}: the score of the one minus that of the other"


def read_direction(source: Any, columns: Sequence[Column], chosen: Sequence[str]) -> dict[str, Tensor]:
    """Directions by column, float32 `[directions, dim]`.

    Args:
        source: a `.npy` file or an array, for the one column that is ranked by; or a `.safetensors` file or a mapping,
            with a tensor for each column. Each is one vector `[dim]`, or several `[directions, dim]`.
        columns: the index's vector columns.
        chosen: names of the columns that are ranked by.

    Raises:
        DataError: there is no such file, it is of another kind, or its numbers are not finite.
        UsageError: the vectors do not fit the columns.
    """
    given = _read(source)
    if not isinstance(given, Mapping):
        if len(chosen) != 1:
            what = f"one direction for the columns {', '.join(chosen)}"
            raise UsageError(what, where="--direction", remedy="choose one with --by, or give a .safetensors file")
        given = {chosen[0]: given}
    sizes = {column.name: column.dim for column in columns}
    found = {}
    for name, values in given.items():
        if name not in chosen:
            raise unknown_name("column of a direction", name, chosen, where="--direction")
        vectors = torch.atleast_2d(torch.as_tensor(np.array(values, dtype=np.float32)))
        if vectors.ndim != 2 or vectors.shape[1] != sizes[name]:
            what = f"a direction of shape {tuple(np.shape(values))} for the column '{name}' of {sizes[name]:,} numbers"
            raise UsageError(what, where="--direction", remedy=f"give [{sizes[name]}] or [n, {sizes[name]}]")
        if not bool(vectors.isfinite().all()) or not bool(vectors.any()):
            raise DataError("a direction must be finite and not zero", where=f"--direction, '{name}'")
        found[name] = vectors
    if set(found) != set(chosen) or len({len(vectors) for vectors in found.values()}) != 1:
        what = f"directions for {', '.join(found) or 'no column'}, but {', '.join(chosen)} are ranked by"
        raise UsageError(what, where="--direction", remedy="give as many for each column, or choose columns with --by")
    return found


def _read(source: Any) -> Any:
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error}"
        raise DataError(" ".join(reason.split()), where=str(path), remedy="give a .npy or .safetensors file") from None
    except Exception as error:  # safetensors has an error class of its own
        raise DataError(f"it cannot be read: {error}", where=str(path), remedy="give a .safetensors file") from None
    raise DataError("not a .npy or .safetensors file", where=str(path), remedy="save the vector with numpy.save")
