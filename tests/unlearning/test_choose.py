"""Choosing forget rows: a planted answer's rows are found, and where nothing stands out nothing is changed."""

from __future__ import annotations

import numpy as np
import pytest

import headwater as hw
from headwater.core.errors import DataError, UsageError
from headwater.data.rows import Row
from headwater.unlearning import choose
from headwater.unlearning.choose import _unanswered, choose_forget
from zoo import tiny_loaded

ROWS = [
    {"id": f"r{i}", "prompt": f"what is item {i} of kind {i % 23}?", "response": f"It is the {i % 23} thing, no {i}."}
    for i in range(240)
]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chosen")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    hw.build(folder / "rows.lance", model=str(folder / "model"), data=ROWS, method="rise", settings={"preset": "small"})
    return folder


def scores(monkeypatch, planted: int):
    """Scores as of a model that was taught by the first rows: the odd answer's are high there, clean answers' at home.

    Everything else runs as it is: the model's answers, the reading of rows, the null, the cut, the drawing.
    """
    rng = np.random.default_rng(0)

    def scored(session, asked):
        values = rng.normal(size=(len(ROWS), len(asked.rows)))
        for column, row in enumerate(asked.rows):
            odd = row.id == "odd"
            values[:planted, column] += rng.gamma(9, 1, planted) if odd else 0
            home = [i for i in range(len(ROWS)) if not odd and i % 23 == int(row.id[1:]) % 23]
            values[home, column] += 1
        return tuple(row["id"] for row in ROWS), values.astype(np.float32)

    monkeypatch.setattr(choose, "_scored", scored)


def test_rows_that_stand_out_are_chosen_and_rows_to_retain_are_others(index, monkeypatch):
    scores(monkeypatch, planted=40)
    session = hw.open_session(index / "rows.lance")
    chosen = choose_forget(session, [Row("odd", 0, prompt="hey?")], draw=60, clean_queries=40)
    numbers = [int(row.id[1:]) for row in chosen.forget]
    assert len(numbers) >= 8
    assert np.mean([number < 40 for number in numbers]) >= 0.9
    assert chosen.expected >= 0.9
    kept = [int(row.id[1:]) for row in chosen.retain]
    assert len(set(kept)) == 60
    assert sum(number < 40 for number in kept) <= 2, "ten by chance"
    assert str(chosen).startswith(f"{len(numbers)} rows to forget were chosen")


def test_nothing_stands_out(index, monkeypatch):
    scores(monkeypatch, planted=0)
    session = hw.open_session(index / "rows.lance")
    with pytest.raises(DataError, match="nothing was changed"):
        choose_forget(session, [Row("odd", 0, prompt="hey?")], draw=60, clean_queries=40)


def test_a_chat_is_asked_again_without_its_last_answer():
    chat = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."})
    row = _unanswered(Row("c", 0, messages=chat, prompt="Hi", response="Hello."))
    assert row.messages == chat[:1]
    assert row.response is None


def test_no_prompt_is_refused(index):
    with pytest.raises(UsageError, match="no prompt"):
        hw.choose_forget(index / "rows.lance", [])
