"""How much of a column is added: by outliers that agree, and not by what all rows agree on."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from headwater.index.upkeep import delete_rows
from headwater.search import agreement
from headwater.search.agreement import AgreeingColumns, added_weight
from oracles.fake_method import fake_build, records


def normal(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, rows, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 60), st.integers(0, 99), st.floats(0.1, 30.0))
def test_it_is_pearson_minus_spearman_in_the_units_of_the_own_score(rows: int, seed: int, size: float) -> None:
    own = normal(rows, seed).exp()
    other = size * (own.square() + normal(rows, seed + 1)) + 5
    pair = own[0].double().numpy(), other[0].double().numpy()
    expected = max(0.0, pearsonr(*pair)[0] - spearmanr(*pair)[0]) * pair[0].std() / pair[1].std()
    np.testing.assert_allclose(added_weight(own, other).numpy(), [expected], rtol=1e-3, atol=1e-5)


def test_outliers_that_agree_count_and_a_common_trend_does_not() -> None:
    own, other = normal(2000), normal(2000, seed=1)
    own[0, :20] += 8
    outliers = other.clone()
    outliers[0, :20] += 8
    elsewhere = other.clone()
    elsewhere[0, 100:120] += 8
    trend = normal(2000, seed=2)
    assert added_weight(own, outliers) > 0.2
    assert added_weight(own, elsewhere) < 0.05
    assert added_weight(normal(2000) + trend, other + trend) < 0.05
    assert added_weight(own, torch.ones(1, 2000)) == 0
    assert added_weight(torch.ones(1, 2000), own) == 0


def test_it_is_measured_on_the_rows_of_the_index(tmp_path, monkeypatch) -> None:
    index = fake_build(tmp_path / "a.lance", records(70))
    probes = {c.name: torch.randn(3, c.dim, generator=torch.Generator().manual_seed(1)) for c in index.manifest.columns}
    scores = {}
    for batch in index.batches(list(probes)):
        for name, probe in probes.items():
            values = np.stack(batch.column(name).to_numpy(zero_copy_only=False)).astype(np.float32)
            scores.setdefault(name, []).append(probe @ torch.from_numpy(values).T)
    own, other = (torch.cat(scores[name], dim=1) for name in ("vector", "wide"))
    found = AgreeingColumns(("wide",), 2.0).weights(index, probes)
    torch.testing.assert_close(found["wide"], 2 * added_weight(own, other), rtol=1e-3, atol=1e-4)
    monkeypatch.setattr(agreement, "SAMPLE", 7)
    monkeypatch.setattr(agreement, "_AT_ONCE", 3)
    places = np.linspace(0, 69, 7).astype(int)
    few = AgreeingColumns(("wide",), 2.0).weights(index, probes)
    torch.testing.assert_close(few["wide"], 2 * added_weight(own[:, places], other[:, places]), rtol=1e-3, atol=1e-4)
    delete_rows(index, where="tokens > 0")
    assert AgreeingColumns(("wide",), 2.0).weights(index, probes)["wide"].tolist() == [0, 0, 0]
