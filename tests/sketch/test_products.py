"""Norms from factors: those of the formed matrix, and no table of all pairs of a long row's tokens."""

from __future__ import annotations

import pytest
import torch

from headwater.indexing.live_bytes import LiveBytes
from headwater.sketch import products
from headwater.sketch.blocks import Gradient, Lookup, Outer
from headwater.sketch.products import formed, squared_norms, sum_pairs

TOKENS, OUT, WIDTH = 2000, 50, 8


def test_norms_of_long_rows_take_some_pairs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    lookup = Lookup(torch.randint(OUT, (2, TOKENS)), torch.randn(2, TOKENS, WIDTH, dtype=torch.float64))
    outer = Outer(torch.randn(2, 30, OUT, dtype=torch.float64), torch.randn(2, 30, WIDTH, dtype=torch.float64))
    monkeypatch.setattr(products, "FORMED_BYTES", 2**20)
    for blocks in ((lookup,), (outer, lookup)):
        gradient = Gradient("w", (OUT, WIDTH), blocks)
        with LiveBytes() as live:
            found = sum_pairs(gradient)
        torch.testing.assert_close(found, formed(gradient).square().sum((1, 2)))
        torch.testing.assert_close(found, squared_norms(gradient))
        assert live.peak < 8 * 2**20 < 2 * TOKENS * TOKENS * 8
