"""Rows that cannot be used, through the public functions: named before the model loads, or left out and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.core.errors import DataError
from zoo import tiny_tokenizer, zoo

ROWS = [{"id": f"r{i}", "prompt": f"What is {i}?", "response": f"It is {i}."} for i in range(20)]
BAD = [{"id": "r3", "text": "again"}, {"prompt": "Why?", "response": None}, {"prompt": "w " * 400, "response": "late"}]
HOW: dict[str, Any] = {"method": "rise", "settings": {"preset": "small"}, "max_tokens": 200}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    zoo()["llama"]().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    text = "".join(json.dumps(row) + "\n" for row in [*ROWS[:10], *BAD, *ROWS[10:]])
    (tmp_path / "rows.jsonl").write_text(text)
    return tmp_path


def test_all_are_named_before_the_model_loads(folder: Path) -> None:
    (folder / "model" / "model.safetensors").write_bytes(b"no weights")  # loading it would fail
    for verb in (
        lambda: hw.build(folder / "i.lance", model=folder / "model", data=folder / "rows.jsonl", **HOW),
        lambda: hw.value(folder / "rows.jsonl", ROWS[:1], model=folder / "model", **HOW),
    ):
        with pytest.raises(DataError, match="3 of 23 rows cannot be used") as caught:
            verb()
        reasons = {11: "id 'r3' is already", 12: "no text: 'response' is null", 13: "the first target is token"}
        for line, reason in reasons.items():
            assert f"rows.jsonl:{line}: {reason}" in str(caught.value)


def test_they_are_left_out_and_counted(folder: Path) -> None:
    rows = hw.open_corpus(folder / "rows.jsonl", skip_unusable=True)
    index = hw.build(folder / "i.lance", model=folder / "model", data=rows, **HOW)
    assert index.ids() == [row["id"] for row in ROWS]
    assert hw.info(index)["left_out"] == 3
    more = hw.open_corpus([*ROWS, {"text": ""}, {"id": "new", "text": "One more."}], skip_unusable=True)
    added = hw.add(index, more, model=str(folder / "model"))
    assert (added.rows, added.duplicates, added.left_out) == (1, 20, 1)
    assert hw.info(index)["left_out"] == 4


def test_a_killed_build_goes_on_without_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.indexing import blocks

    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 8)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 8)
    real, seen = blocks.IndexRows.compute, []

    def killed(self: Any, prepared: Any) -> Any:
        seen.append(prepared.block.number)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(self, prepared)

    monkeypatch.setattr(blocks.IndexRows, "compute", killed)
    rows = hw.open_corpus(folder / "rows.jsonl", skip_unusable=True)
    with pytest.raises(KeyboardInterrupt):
        hw.build(folder / "i.lance", model=folder / "model", data=rows, **HOW)
    monkeypatch.setattr(blocks.IndexRows, "compute", real)
    index = hw.build(folder / "i.lance", model=folder / "model", data=rows, resume=True, **HOW)
    assert index.ids() == [row["id"] for row in ROWS]
    assert hw.info(index)["left_out"] == 3


@pytest.mark.parametrize("ids", ["column", "row"])
def test_rows_are_selected_from_a_pool_that_was_valued_without_them(folder: Path, ids: str) -> None:
    pool = hw.open_corpus(folder / "rows.jsonl", skip_unusable=True, ids=ids)
    out = folder / "values.parquet"
    valued = hw.value(pool, ROWS[:1], model=folder / "model", out=out, **HOW)
    kept = 20 if ids == "column" else 21  # the repeated id is no fault when ids are made
    assert len(valued.values.ids) == kept
    assert len(valued.values.about["left_out"]) == 23 - kept
    chosen = hw.select(out, top=kept)
    assert sorted(chosen.ids) == sorted(valued.values.ids)
    assert {row["response"] for row in chosen.rows if "response" in row} == {row["response"] for row in ROWS}


def test_a_token_beyond_the_embedding_is_named_before_any_forward_pass(folder: Path) -> None:
    grown = tiny_tokenizer()
    grown.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    grown.save_pretrained(folder / "model")
    rows = [*ROWS, {"id": "odd", "text": "Now <|new|> follows."}]
    model = hw.load_model(str(folder / "model"))
    with pytest.raises(DataError, match=r"memory:21: token 300 \('<\|new\|>'\) is beyond the model's embedding"):
        hw.build(folder / "i.lance", model=model, data=rows, **HOW)
    assert not (folder / "i.lance").exists()
    left = hw.build(folder / "i.lance", model=model, data=hw.open_corpus(rows, skip_unusable=True), **HOW)
    assert left.ids() == [row["id"] for row in ROWS]
