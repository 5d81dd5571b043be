"""What the loss of a row is over: the index's losses are those of exactly these tokens, from the model's logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jinja2 import Environment

import headwater as hw
from headwater.core.errors import DataError, MismatchError, UsageError
from headwater.data.rows import Row
from headwater.indexing.session import open_session
from headwater.models.load import LoadedModel, wrap_model
from zoo import tiny_loaded

# the last answer is closed by another token, and the generation prompt opens a thought that history does not have
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% if m.role == 'assistant' and loop.last %}<|done|>{% else %}<|over|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
TURNS = [
    *(("user", "Tide at noon?"), ("assistant", "It is high.")),
    *(("user", "And six?"), ("assistant", "Ask the pilot."), ("tool", "pilot: low"), ("assistant", "It is low.")),
]
FIRST, CALL, LAST = "It is high.<|over|>", "Ask the pilot.<|over|>", "It is low.<|done|>"
SAID: dict[str | None, list[str]] = {
    None: [FIRST, CALL, LAST],
    "assistant": [FIRST, CALL, LAST],
    "response": [CALL, LAST],
    "last": [LAST],
}
CHAT: dict[str, Any] = {"id": "a", "messages": [{"role": role, "content": content} for role, content in TURNS]}
TEXT = {"id": "t", "text": "The cat sat on the mat."}


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    found = tiny_loaded("llama", chat=True)
    found.tokenizer.chat_template = TEMPLATE
    return wrap_model(found.model, found.tokenizer, "llama")


def right_loss(loaded: LoadedModel, text: str, parts: list[str]) -> float:
    """The mean loss of the tokens of `parts`, which stand in `text` one after the other, from the model's logits."""
    encoded = loaded.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans, at = [], 0
    for part in parts:
        at = text.index(part, at)
        spans.append((at, at + len(part)))
        at += len(part)
    ids = torch.tensor(encoded["input_ids"])[None]
    with torch.no_grad():
        losses = -loaded.model(input_ids=ids).logits[0].double().log_softmax(-1)
    wanted = [any(s < hi and e > lo for lo, hi in spans) for s, e in encoded["offset_mapping"]]
    return float(np.mean([float(losses[t - 1, ids[0, t]]) for t in range(1, ids.shape[1]) if wanted[t]]))


def built(folder: Path, loaded: LoadedModel, rows: list[dict[str, Any]], **options: Any) -> Any:
    return hw.build(folder, model=loaded, data=rows, method="graddot", settings={"sketch": "identity"}, **options)


@pytest.mark.parametrize("targets", SAID)
def test_the_loss_is_over_the_chosen_turns(targets: str | None, loaded: LoadedModel, tmp_path: Path) -> None:
    index = built(tmp_path / "a.lance", loaded, [CHAT], targets=targets)
    text = Environment().from_string(TEMPLATE).render(messages=CHAT["messages"])
    right = right_loss(loaded, text, SAID[targets])
    assert index.dataset.to_table().column("loss").to_pylist() == pytest.approx([right], rel=1e-5)
    recorded = index.manifest.tokenization
    assert recorded.get("targets") == targets
    session = open_session(index, loaded)
    assert session.bound.reader.tokenization.targets == targets


def test_all_tokens(loaded: LoadedModel, tmp_path: Path) -> None:
    pair = {"id": "p", "prompt": "Tide?", "response": "High."}
    index = built(tmp_path / "a.lance", loaded, [CHAT, pair, TEXT], targets="all")
    texts = [
        Environment().from_string(TEMPLATE).render(messages=CHAT["messages"]),
        "<|user|>Tide?<|over|><|assistant|>High.<|done|>",
        TEXT["text"] + "<|end|>",
    ]
    right = [right_loss(loaded, text, [text]) for text in texts]
    assert index.dataset.to_table().column("loss").to_pylist() == pytest.approx(right, rel=1e-5)
    query = open_session(index, loaded).bound.encode([Row("q", 0, prompt="Tide?", response="High.")], "query")
    assert query.losses.tolist() == pytest.approx([right_loss(loaded, texts[1], ["High.<|done|>"])], rel=1e-5)


def test_added_rows_are_read_like_the_others(loaded: LoadedModel, tmp_path: Path) -> None:
    index = built(tmp_path / "a.lance", loaded, [CHAT], targets="last")
    hw.add(index, [{**CHAT, "id": "b", "messages": CHAT["messages"][:2]}], model=loaded)
    text = "<|user|>Tide at noon?<|over|><|assistant|>It is high.<|done|>"
    assert index.dataset.to_table().column("loss").to_pylist()[1] == pytest.approx(
        right_loss(loaded, text, ["It is high.<|done|>"]), rel=1e-5
    )


def test_a_build_goes_on_with_the_same_targets_alone(loaded: LoadedModel, tmp_path: Path) -> None:
    built(tmp_path / "a.lance", loaded, [CHAT], targets="last")
    with pytest.raises(MismatchError):
        built(tmp_path / "a.lance", loaded, [CHAT], resume=True)


def test_targets_that_there_are_not(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--targets: unknown targets 'lats' \(did you mean 'last'\?\)"):
        built(tmp_path / "a.lance", loaded, [CHAT], targets="lats")
    for name in ("assistant", "response", "last"):
        with pytest.raises(DataError, match=f"memory:1: a text has no answer for the targets '{name}'"):
            built(tmp_path / f"{name}.lance", loaded, [TEXT], targets=name)


def test_value_and_unlearning_take_targets(loaded: LoadedModel) -> None:
    other = {**CHAT, "id": "b", "messages": CHAT["messages"][:2]}
    default, last = (
        hw.value([CHAT, other], [other], model=loaded, method="graddot", targets=targets).values.table
        for targets in (None, "last")
    )
    values = [table.column("value").to_pylist() for table in (default, last)]
    assert values[0][0] != pytest.approx(values[1][0])
    assert values[0][1] == pytest.approx(values[1][1])
    assert hw.UnlearnOptions(targets="last").targets == "last"
