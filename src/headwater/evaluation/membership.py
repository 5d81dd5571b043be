"""Can one tell from the losses which rows the model was trained on? Privacy after unlearning.

    AUC = P(loss of a forget row < loss of a held-out row of the same kind),  ties count half
    PrivLeak = 100 · (AUC(retrained) − AUC) / (1 − AUC(retrained))

A model that never saw the forget rows has an AUC of a half. Above it, the rows still look learned; below it, they stand
out because they were pushed away, which gives them away as well. PrivLeak (MUSE, Shi et al., arXiv 2407.06460) is
negative in the first case and positive in the second. (There the AUC is that of the held-out rows, 1 − AUC here.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from headwater.core.errors import DataError
from headwater.data.rows import Row
from headwater.models.reader import Reader
from headwater.unlearning.sequences import measure_losses

CHANCE = 0.5


def membership_auc(members: ArrayLike, others: ArrayLike) -> float:
    """The AUC of the attack that takes rows with low losses for members; 0.5 is chance.

    Raises:
        DataError: there are no members, or no others.
    """
    inside, outside = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if not len(inside) or not len(outside):
        raise DataError("there are no rows to compare with", where="membership", remedy="give held-out rows")
    ranks = rankdata(np.concatenate([inside, outside]))[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2
    return float(1 - ranks / (len(inside) * len(outside)))


def priv_leak(auc: float, retrained: float = CHANCE) -> float:
    """PrivLeak in per cent; 0 is as private as the retrained model (or as chance, if none was measured)."""
    return 100 * (retrained - auc) / max(1 - retrained, 1e-10)


def row_losses(reader: Reader, rows: Sequence[Row]) -> np.ndarray:
    """Mean loss of each row's targets under the reader's model, nats a token, float32 `[rows]`."""
    loaded = reader.loaded
    return np.asarray(measure_losses(loaded.model, reader.tokenize(list(rows)), loaded.device)[1].numpy())
