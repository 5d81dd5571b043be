"""A model that is run through `torch.compile`: the same vectors, and one clear line where it cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.errors import ModelError, UsageError
from headwater.data.rows import Row
from headwater.methods.catalog import find_method
from headwater.methods.scoring import prepare
from headwater.methods.targets import Target
from headwater.models import trunk
from headwater.models.load import load_model
from headwater.models.reader import Reader
from zoo import tiny_tokenizer, zoo

ROWS = [{"id": f"r{i}", "prompt": f"question {i}?", "response": "so " * (i % 4 + 1) + str(i)} for i in range(5)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    zoo()["llama"]().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_compiled_forward_passes_give_the_same_vectors(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **how: compiled.append(module) or real(module, **how))
    monkeypatch.setattr(trunk, "BACKEND", "eager")  # compiling with C++ takes half a minute
    made = [
        hw.build(
            tmp_path / f"{compile}.lance",
            model=model,
            data=ROWS,
            settings={"preset": "small"},
            loading={"device": "cpu", "compile": compile},
        )
        for compile in (False, True)
    ]
    assert len(compiled) == 1
    plain, other = (np.stack(one.dataset.to_table().column("rise").to_pylist()) for one in made)
    np.testing.assert_allclose(plain.astype(float), other.astype(float), atol=1e-3)


def test_what_cannot_be_compiled_says_so(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = {"device": "cpu", "compile": True}
    with pytest.raises(UsageError, match=r"--compile: the method 'rapidin' watches or changes.*leave it out"):
        hw.build(tmp_path / "a.lance", model=model, data=ROWS, method="rapidin", loading=loading)
    assert not (tmp_path / "a.lance").exists()
    loaded, row = load_model(model, **loading), Row("a", 0, text="a")
    with pytest.raises(UsageError, match=r"--compile: the method 'linfik'"):
        prepare(find_method("linfik"), Reader.of(loaded), [Target("t", (row,))], [row])
    with pytest.raises(UsageError, match="--compile: a model spread by a device map"):
        load_model(model, device_map="auto", compile=True)
    with pytest.raises(ModelError, match="cannot be compiled by itself"):
        trunk.Compiled.of(trunk.UpToHead(loaded.model, loaded.model.lm_head))

    def broken(graph: object, inputs: object) -> object:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(trunk, "BACKEND", broken)
    with pytest.raises(ModelError, match=r"LlamaModel cannot be compiled: .*no compiler here"):
        hw.build(tmp_path / "b.lance", model=model, data=ROWS, settings={"preset": "small"}, loading=loading)
