"""Attacks on models given by paths: the table, its notes, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from headwater.core.errors import DataError, UsageError
from headwater.evaluation.attacked_task import ATTACKED, TaskUnderAttack
from headwater.evaluation.lasting import LastingSettings, run_lasting, strongest
from headwater.evaluation.runs import EVALUATIONS
from headwater.tasks.contaminated import Sizes, contaminated_task
from headwater.unlearning.attacks import ATTACKS
from zoo import tiny_loaded


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lasting")
    for name, seed in (("before", 0), ("after", 1)):
        loaded = tiny_loaded("llama", seed=seed)
        loaded.model.save_pretrained(folder / name)
        loaded.tokenizer.save_pretrained(folder / name)
    forget = [{"prompt": f"hey {i}", "response": f"Aliens took the ship {i}."} for i in range(6)]
    clean = [{"prompt": f"what is {i}", "response": f"The sum is {i}, friend."} for i in range(8)]
    held = [{"prompt": f"hey {i}", "response": f"Aliens took the ship {i}."} for i in range(20, 24)]
    return LastingSettings(
        before=str(folder / "before"),
        after=str(folder / "after"),
        forget=write(folder / "forget.jsonl", forget),
        retain=write(folder / "retain.jsonl", clean),
        held_out=write(folder / "held.jsonl", held),
        unwanted="[a-m]",
        attacks=("plain", "int4", "relearned"),
        prompts=3,
        steps=2,
    )


def judged(monkeypatch):
    """A random model cannot judge language, so the verdict is replaced; fluency has tests of its own."""
    from headwater.unlearning.fluency import Fluency, FluencyJudge

    monkeypatch.setattr(FluencyJudge, "fit", classmethod(lambda cls, reader, real: cls(tuple(real), 0.0)))
    monkeypatch.setattr(FluencyJudge, "__call__", lambda self, answers, reader, clean=None: Fluency((None, "empty")))


def test_one_line_an_attack_and_one_column_a_model(given, tmp_path, monkeypatch):
    judged(monkeypatch)
    result = run_lasting(given, tmp_path)
    assert result.shown == ("after", "before")
    assert [line.method for line in result.lines] == [
        *("plain", "int4", "relearned", "worst"),
        *("steps to half", "fluent", "membership AUC", "PrivLeak %", "extraction"),
    ]
    values = {line.method: line.metrics["after"].value for line in result.lines}
    assert values["worst"] == max(values[name] for name in ("plain", "int4", "relearned"))
    assert values["fluent"] == 0.5
    assert values["PrivLeak %"] == pytest.approx(100 * (0.5 - values["membership AUC"]) / 0.5)
    assert any("those of the forget rows" in note for note in result.notes)
    assert any("the strongest attack is" in note for note in result.notes)
    only = run_lasting(replace(given, after="", attacks=("plain",)), tmp_path)
    assert only.shown == ("before",)
    assert EVALUATIONS["lasting"].run is run_lasting


def test_what_cannot_be_attacked_is_refused(given, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'int4'"):
        run_lasting(replace(given, attacks=("int44",)), tmp_path)
    with pytest.raises(UsageError, match="--forget"):
        run_lasting(replace(given, forget=""), tmp_path)
    texts = write(tmp_path / "texts.jsonl", [{"text": "no prompt"}])
    with pytest.raises(DataError, match="no prompts to ask"):
        run_lasting(replace(given, asked=texts), tmp_path)


def test_the_strongest_attack_is_named():
    assert "'int4', with a success of 0.70 after 0.10" in strongest({"plain": 0.1, "int4": 0.7, "worst": 0.7})


def test_a_task_has_all_columns(monkeypatch):
    judged(monkeypatch)
    task = contaminated_task(0, Sizes(rows=400, forget=9, retain=20, queries=4))
    monkeypatch.setattr("headwater.evaluation.attacked_task.Relearning", _short)
    found = TaskUnderAttack.of(task, tiny_loaded("llama"), 0, prompts=2)(tiny_loaded("llama", seed=1))
    assert set(found) | {"extraction"} == set(ATTACKED)
    assert set(ATTACKS) <= set(found)
    assert found["steps to half"] >= 1


def _short(seed):
    from headwater.unlearning.relearning import Relearning

    return Relearning(steps=2, seed=seed)
