"""How the two answers of a preference pair are compared, when the pair is one row with the DPO loss.

Direct preference optimisation (Rafailov et al., arXiv 2305.18290), equation 7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

JOINT = "\n\n"
"""Between the two texts of a pair."""


@dataclass(frozen=True)
class Contrast:
    """What makes a row a preference pair under the DPO loss −log σ(β (Δ(chosen) − Δ(rejected))).

    Δ is log p(answer) of the model, minus that of a reference model, each summed over the answer's target tokens.

    Attributes:
        split: the row's token at which the text with the rejected answer begins; nothing before it is read with it.
        beta: β.
        reference: log p(chosen) − log p(rejected) of the reference model, in nats; NaN until that model has
            read the row.
    """

    split: int
    beta: float
    reference: float = math.nan
