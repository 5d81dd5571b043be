"""The sanity checks catch what they are for."""

from __future__ import annotations

import pytest

from headwater.evaluation.sanity import SanitySettings, reseeded, run_sanity, shuffled
from zoo import tiny_loaded


def test_a_lexical_method_ignores_the_weights_and_a_model_reader_does_not(tmp_path):
    settings = SanitySettings(("rise:preset=small",), rows=60, queries=4, epochs=1)
    result = run_sanity(settings, tmp_path)
    found = {line.method: {name: e.value for name, e in line.metrics.items()} for line in result.lines}
    assert found["bm25"]["weights"] == pytest.approx(0, abs=1e-9)
    assert found["rise:preset=small"]["weights"] > 0.02
    assert found["random"]["seeds"] < 0.9
    assert found["rise:preset=small"]["twins"] == 1
    assert found["random"]["twins"] < 0.5
    assert found["length"]["variety"] <= 1 / 4


def test_random_weights_are_others_of_the_same_shape():
    loaded = tiny_loaded("llama")
    other = shuffled(loaded, 0)
    assert other.fingerprint != loaded.fingerprint
    assert shuffled(loaded, 0).fingerprint == other.fingerprint


def test_another_seed_is_given_to_methods_that_have_one():
    assert reseeded("rise:window=64") == "rise:window=64,seed=1"
    assert reseeded("rapidin") == "rapidin:seed=1"
    assert reseeded("bm25") is None
    assert reseeded("rise+bm25") is None
