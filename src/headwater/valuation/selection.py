"""Choose rows by their value: the best n, a share, all above a threshold, or a quota for each group.

Near-duplicates can be left out. Gumbel noise turns the best n into a sample without replacement in which a row's odds
grow with exp(value / scale) (Kool et al., 2019); the scale is in standard deviations of the values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import DataError, UsageError
from headwater.core.seeds import key
from headwater.valuation.values import Values


@dataclass(frozen=True)
class Choice:
    """How to choose.

    Attributes:
        top: "500" rows or "10%" of the pool; empty: no limit.
        above: take only rows with a greater value.
        by: a metadata column; `top` then counts within each group.
        gumbel: scale of the noise, in standard deviations of the values; 0: none.
        distinct: take only the best row of each near-duplicate cluster.
        column: the column that holds the value.
        seed: of the noise.
    """

    top: str = ""
    above: float | None = None
    by: str | None = None
    gumbel: float = 0.0
    distinct: bool = False
    column: str = "value"
    seed: int = 0


def select(values: Values, choice: Choice) -> NDArray[np.int64]:
    """Positions of the chosen rows, best first; with groups, one group after the other by name.

    Raises:
        UsageError: neither `top` nor `above` is given, or `top` cannot be read.
        DataError: all values are equal, so they do not rank the rows; or no value is above the threshold.
    """
    if not choice.top and choice.above is None:
        raise UsageError("nothing says how many rows to take", remedy="give --top 500, --top 10% or --above 0")
    numbers = values.finite(choice.column)
    if len(numbers) > 1 and not np.ptp(numbers):
        what = f"all {len(numbers):,} values are {numbers[0]:g}: there is nothing to choose by"
        raise DataError(what, where=f"{values.path}, {choice.column}", remedy="value the pool with another method")
    keys = numbers + _noise(values.ids, choice) * float(np.std(numbers))
    order = np.argsort(-keys, kind="stable")
    if choice.above is not None:
        order = order[numbers[order] > choice.above]
        if not len(order):
            what = f"no value is above {choice.above:g}; the highest is {numbers.max():g}"
            raise DataError(what, where=values.path, remedy="lower the threshold")
    if choice.distinct:
        order = _first_of_each(order, values.numbers("cluster"))
    if not choice.top:
        return order
    if choice.by is None:
        return order[: amount(choice.top, len(numbers))]
    groups = np.array(values.groups(choice.by))
    names = sorted(set(groups))
    taken = [order[groups[order] == name][: amount(choice.top, int((groups == name).sum()))] for name in names]
    return np.concatenate(taken)


def _noise(ids: list[str], choice: Choice) -> NDArray[np.float64]:
    """Gumbel noise that depends on seed and row id alone."""
    if choice.gumbel < 0:
        raise UsageError(f"cannot add noise of scale {choice.gumbel:g}", where="--gumbel", remedy="give 0 or more")
    if not choice.gumbel:
        return np.zeros(len(ids))
    uniform = np.array([(key(choice.seed, "gumbel", row) + 0.5) / 2**64 for row in ids])
    noise: NDArray[np.float64] = -np.log(-np.log(uniform)) * choice.gumbel
    return noise


def _first_of_each(order: NDArray[np.int64], clusters: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first row of each cluster, in the given order; a row without a cluster is always taken."""
    own = np.where(np.isnan(clusters), -1 - np.arange(len(clusters)), clusters)
    _, first = np.unique(own[order], return_index=True)
    return order[np.sort(first)]


def amount(text: str, rows: int) -> int:
    """How many of `rows` rows `text` asks for: at least one."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    number = float(match[1]) if match else 0.0
    if match is None or number <= 0 or (match[2] and number > 100) or (not match[2] and number != int(number)):
        what = f"'{text}' is not an amount of rows"
        raise UsageError(what, where="--top", remedy="give a number such as 500, or a share such as 10%")
    return max(1, round(rows * number / 100)) if match[2] else min(int(number), rows)
