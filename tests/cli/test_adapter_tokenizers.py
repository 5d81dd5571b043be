"""The tokenizer of a run: the adapter's is used, said, recorded and used again; `--tokenizer` chooses another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_commands import fails, headwater, lines

import headwater as hw
from headwater.core.errors import MismatchError, ModelError
from headwater.indexing.session import open_session
from headwater.models.load import LoadedModel, load_model
from zoo import tiny_tokenizer, zoo

CHATS = [
    {
        "id": f"r{i}",
        "messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": "One."}],
    }
    for i in range(3)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without chat template, an adapter whose folder has one, and chats."""
    folder = tmp_path_factory.mktemp("tokenizers")
    zoo()["llama"]().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    zoo()["llama-lora"]().save_pretrained(folder / "adapter")
    tiny_tokenizer(chat=True).save_pretrained(folder / "adapter")
    lines(folder / "rows.jsonl", CHATS)
    return folder


def test_the_adapters_tokenizer_is_used_in_builds_and_queries(place: Path) -> None:
    model = ("--model", "base", "--adapter", "adapter")
    words = ("index", "build", "i.lance", *model, "--data", "rows.jsonl", "--method", "graddot", "--json")
    done = headwater(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("note: the tokenizer of the adapter adapter is used") == 1
    right = len(tiny_tokenizer(chat=True).apply_chat_template(CHATS[0]["messages"])["input_ids"])
    built = hw.open_index(str(place / "i.lance"))
    assert built.dataset.to_table().to_pylist()[0]["tokens"] == right
    assert built.manifest.tokenization["template"]["name"] == "chat"
    traced = headwater("trace", "i.lance", "--queries", "rows.jsonl", "--top", "1", "--json", cwd=place)
    assert traced.returncode == 0, traced.stderr
    assert json.loads(traced.stdout)["queries"][0]["hits"]
    said = fails(place, 1, "trace", "i.lance", "--queries", "rows.jsonl", "--tokenizer", "base")
    assert "tokenizer: '" in said


def test_a_model_without_tokenizer_is_told_of_the_option(place: Path) -> None:
    zoo()["llama"]().save_pretrained(place / "bare")
    words = ("index", "build", "b.lance", "--model", "bare", "--data", "rows.jsonl", "--method", "rise")
    said = fails(place, 1, *words)
    assert "bare: there is no tokenizer" in said
    assert "--tokenizer" in said
    done = headwater(*words, "--set", "preset=small", "--tokenizer", "adapter", cwd=place)
    assert done.returncode == 0, done.stderr
    again = headwater("trace", "b.lance", "--queries", "rows.jsonl", "--top", "1", "--json", cwd=place)
    assert again.returncode == 0, again.stderr


def test_an_index_from_before_keeps_the_base_tokenizer(place: Path) -> None:
    base, adapter = str(place / "base"), str(place / "adapter")
    old = load_model(base, adapter=adapter, tokenizer=base)
    made = hw.build(
        place / "old.lance", model=old, data=[{"id": "a", "text": "The weather was fine."}], method="graddot"
    )
    manifest = made.manifest
    assert manifest.model["name"] == base
    loading = {k: v for k, v in manifest.model["loading"].items() if k != "trust_remote_code"} | {"tokenizer": None}
    manifest.model["loading"].clear()  # as an earlier headwater recorded it
    manifest.model["loading"].update(loading)
    session = open_session(made)
    assert session.bound.reader.loaded.fingerprint == old.fingerprint
    manifest.model["loading"]["trust_remote_code"] = False
    with pytest.raises(MismatchError, match="tokenizer"):
        open_session(made)


def test_an_index_does_not_let_a_models_code_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def watched(name: str, **loading: object) -> LoadedModel:
        given.append(loading["trust_remote_code"])
        raise ModelError("enough")

    made = hw.build(
        place / "own.lance",
        model=str(place / "base"),
        data=[{"id": "a", "text": "The weather was fine."}],
        settings={"preset": "small"},
        loading={"trust_remote_code": True},
    )
    assert made.manifest.model["loading"]["trust_remote_code"] is True
    monkeypatch.setattr("headwater.indexing.session.load_model", watched)
    for loading in ({}, {"trust_remote_code": True}):
        with pytest.raises(ModelError):
            open_session(made, None, loading)
    assert given == [False, True]
