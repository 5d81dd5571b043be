"""Cheap features of a row: hashed n-grams of its words, prompt and response apart, and how long it is.

Nothing is fitted, so a student's folder holds no vocabulary, and nothing of any row can be read from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from headwater.data.rows import Row

BITS = 16
"""Each field's n-grams go to 2^16 buckets."""

LENGTHS = 4
WIDTH = 2 * 2**BITS + LENGTHS

_PATTERN = r"(?u)\w+|[^\w\s]"


def ngram_features(rows: Sequence[Row]) -> sparse.csr_matrix:
    """`[rows, WIDTH]` float32: unit vectors of word 1- to 3-grams for prompt and response, then lengths.

    Word order matters to 2- and 3-grams, which is what tells a garbled answer from a whole one.
    """
    vectorizer = HashingVectorizer(
        n_features=2**BITS, ngram_range=(1, 3), token_pattern=_PATTERN, norm="l2", dtype=np.float32
    )
    asked = vectorizer.transform([row.prompt or "" for row in rows])
    said = vectorizer.transform([row.response or row.text or "" for row in rows])
    return sparse.hstack([asked, said, sparse.csr_matrix(_lengths(rows))], format="csr", dtype=np.float32)


def _lengths(rows: Sequence[Row]) -> Float[np.ndarray, "rows LENGTHS"]:
    """Logarithms of characters and words, less those of a usual row, so that they vary about as much as the n-grams."""
    counts = []
    for row in rows:
        asked, said = row.prompt or "", row.response or row.text or ""
        counts.append([len(asked), len(said), asked.count(" ") + 1, said.count(" ") + 1])
    usual = np.array([4.0, 4.0, 2.5, 2.5])
    lengths: np.ndarray = (np.log1p(np.array(counts).reshape(len(rows), LENGTHS)) - usual).astype(np.float32)
    return lengths
