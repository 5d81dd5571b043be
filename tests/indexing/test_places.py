"""An index works from any folder, after it was moved with its model, and says which folder is lost."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import peft
import pytest

import headwater as hw
from headwater.core.errors import ModelError
from headwater.index.store import open_index
from zoo import tiny_loaded

ROWS = [{"id": f"r{i}", "prompt": f"What is {i}?", "response": f"It is {i * 7}."} for i in range(6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    tuned = peft.get_peft_model(loaded.model, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(folder / "lora")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        hw.build("runs/a.lance", model="model", data=ROWS, method="gradcos", loading={"adapter": "lora"})
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "here"))


def top(index: str | Path, **options: object) -> list[str]:
    return [hit["id"] for hit in hw.trace(index, ROWS[:1], top=1, **options).hits()]


def test_paths_given_relative_work_from_anywhere(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = open_index(made / "runs" / "a.lance").manifest
    assert (manifest.model["name"], manifest.model["loading"]["adapter"]) == (str(made / "model"), str(made / "lora"))
    assert top(made / "runs" / "a.lance") == ["r0"]


def test_an_index_that_moved_with_its_model_finds_it(
    made: Path, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    away = made.rename(made.with_name("away"))
    try:
        assert top(place / "runs" / "a.lance") == ["r0"]
    finally:
        away.rename(made)


def test_a_lost_adapter_is_named_and_following_the_advice_helps(made: Path, place: Path) -> None:
    index = shutil.copytree(place / "runs" / "a.lance", place / "else" / "where" / "b.lance")
    away = made.rename(made.with_name("away"))
    try:
        with pytest.raises(ModelError, match=r"the model that the index was built with.* --model FOLDER"):
            top(index)
        with pytest.raises(ModelError, match=r"the adapter that the index was built with.* --adapter FOLDER"):
            top(index, model=str(place / "model"))
        assert top(index, model=str(place / "model"), loading={"adapter": str(place / "lora")}) == ["r0"]
    finally:
        away.rename(made)


def test_an_older_index_with_relative_paths_is_found_from_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = open_index(place / "runs" / "a.lance")
    model = {**index.manifest.model, "name": "model", "loading": {**index.manifest.model["loading"], "adapter": "lora"}}
    index.set_manifest(dataclasses.replace(index.manifest, model=model, places={}))
    monkeypatch.chdir(tmp_path)
    from headwater.indexing.places import places_now

    found = places_now(open_index(index.path))
    assert found == {"name": str(place / "model"), "adapter": str(place / "lora")}


def test_a_wrong_adapter_path_is_said_with_the_nearest(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    with pytest.raises(ModelError, match=r"no such adapter folder .*did you mean 'lora'"):
        hw.load_model("model", adapter="./lorra")
    with pytest.raises(ModelError, match="no adapter of this name"):
        hw.load_model("model", adapter="lora_elsewhere")
