"""An index of a real (tiny) model: built, grown, read again, and told apart from another model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headwater.api.indexing import verify
from headwater.index.rows import vector_array
from headwater.index.store import Index, open_index
from headwater.index.upkeep import compact
from headwater.indexing import blocks
from headwater.indexing.build import build
from headwater.indexing.maintain import add, delete
from headwater.indexing.session import open_session
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.reader import Reader
from oracles.fake_method import corpus_of, records
from zoo import tiny_loaded


def bound(tokens_per_batch: int) -> Bound:
    method = find_method("rise", {"preset": "small"})
    return Bound.of(method, Reader.of(tiny_loaded("llama"), tokens_per_batch=tokens_per_batch))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 8)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 8)
    return build(tmp_path / "a.lance", corpus_of(records(20)), bound(400))


def test_a_sound_index_stays_sound_through_its_life(index: Index) -> None:
    loaded = tiny_loaded("llama")
    assert verify(index.path, model=loaded, recompute=20) == []
    add(open_session(index, loaded), corpus_of(records(10, 15)))
    delete(index, ids=["row-2"])
    compact(index)
    assert verify(index.path, model=loaded, recompute=24) == []
    assert open_index(index.path).count == 24


def test_another_model_is_named(index: Index) -> None:
    (fault,) = verify(index.path, model=tiny_loaded("llama", seed=1))
    assert fault.kind == "model"
    assert "weights" in fault.what


def test_a_row_is_alone_in_its_vector_up_to_rounding(index: Index) -> None:
    """Whatever rows a row shares its batch with, its vector is the same but for float16's last bits."""
    other = build(Path(index.path).parent / "b.lance", corpus_of(records(20)), bound(1))
    for name in index.vectors:
        a, b = (vector_array(i.dataset.to_table([name]).column(name)).astype(np.float64) for i in (index, other))
        assert np.abs(a - b).max() < 2e-3 * np.abs(a).max()
