"""Tokenised rows. Targets shift here and nowhere else: position t predicts the token at t + 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headwater.data.rows import Row


@dataclass(frozen=True)
class TokenRow:
    """One row as tokens.

    Attributes:
        row: where it came from.
        text: the exact text that was tokenised.
        ids: int64 `[tokens]`.
        response: bool `[tokens]`; True where the token is a target of the loss (for a text row: every token but the
            first). `response[0]` is always False: nothing predicts the first token.
        offsets: int64 `[tokens, 2]`, character offsets of each token in `text` (equal for special tokens).
        cut: how many tokens truncation removed from the end.
        digest: content hash of row, template and tokenizer.
    """

    row: Row
    text: str
    ids: NDArray[np.int64]
    response: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    cut: int
    digest: str
