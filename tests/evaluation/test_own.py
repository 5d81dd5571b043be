"""One's own task is the same value as a built-in one: a built-in task, written to files and given as one's own, has
the same numbers. And what cannot be measured is refused in one line, with the remedy."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from headwater.cli.main import run
from headwater.core.errors import DataError, HeadwaterError, UsageError
from headwater.evaluation import retraining
from headwater.evaluation.detection import DetectionSettings, run_detection
from headwater.evaluation.lds import LdsSettings, run_lds
from headwater.evaluation.own import Own
from headwater.evaluation.removal import RemovalSettings, run_removal
from headwater.evaluation.result import read_result
from headwater.evaluation.retraining import Bank, WorldSettings, make_world
from headwater.evaluation.runs import run_evaluation
from headwater.tasks import entity_swap_task, two_domains_task
from headwater.training.fitting import TrainingRecipe, read_recipe
from zoo import tiny_loaded

SIZES = {"rows": 120, "queries": 3}
TINY = replace(retraining.BASE, vocabulary=300, layers=1, width=16, heads=2, epochs=1)


def lines(path: Path, records: object) -> str:
    path.write_text("".join(json.dumps(dict(record)) + "\n" for record in records), encoding="utf-8")  # type: ignore
    return str(path)


@pytest.fixture(scope="module")
def built_in(tmp_path_factory):
    """The entity-swap task as this package runs it, and the same task as files."""
    folder = tmp_path_factory.mktemp("own")
    found = run_detection(DetectionSettings(("rise:preset=small",), "entity-swap", **SIZES, epochs=1), folder)
    task = entity_swap_task(0, **SIZES)
    model = next((folder / "models").glob("entity-swap-*"))
    rows, queries = lines(folder / "rows.jsonl", task.rows), lines(folder / "queries.jsonl", task.queries)
    return folder, found, {"model": str(model), "data": [rows], "queries": queries}


def numbers(result, group=None):
    """Each method's numbers; random scores, which depend on the names of queries, are left out."""
    found = {line.method: line.metrics for line in result.lines if group in (None, line.group)}
    return {method: metrics for method, metrics in found.items() if method != "random"}


def test_a_built_in_task_given_as_ones_own_has_the_same_numbers(built_in, tmp_path, capsys):
    _, found, files = built_in
    named = ["--model", files["model"], "--data", files["data"][0], "--queries", files["queries"]]
    words = [*named, "--relevant", "planted = true", "--method", "rise:preset=small", "--name", "swap", "--json"]
    with pytest.raises(SystemExit) as ended:
        run(["eval", "detection", *words, "--out", str(tmp_path)])
    assert not ended.value.code
    own = read_result(tmp_path / "detection-swap.json")
    assert numbers(own) == numbers(found, "entity swap, wrong words only")
    assert (own.data["name"], own.data["rows"], own.data["queries"]) == ("swap", 120, 3)
    again = run_evaluation("detection", own.settings, tmp_path / "again")  # as `eval replay` does
    assert numbers(again) == numbers(own)
    assert again.data == own.data
    capsys.readouterr()


def test_listed_ids_and_labels_name_the_same_rows(built_in, tmp_path):
    folder, found, files = built_in
    task = entity_swap_task(0, **SIZES)
    listed = [{**q, "answer": sorted(task.positives[q["id"]]), "planted": True} for q in task.queries]
    queries = lines(folder / "listed.jsonl", listed)
    expected = numbers(found, "entity swap, wrong words only")
    for truth, kind in (({"relevant_ids": "answer"}, "detection"), ({"label": "planted"}, "separation")):
        settings = {"methods": ("bm25",), "own": {**files, "queries": queries, **truth}}
        own = run_evaluation(kind, settings, tmp_path)
        assert numbers(own)["bm25"] == expected["bm25"]


def test_frames_and_a_loaded_model_are_a_task_too(built_in, tmp_path):
    import pandas as pd

    import headwater as hw

    _, found, files = built_in
    frame, asked = (pd.read_json(path, lines=True) for path in (files["data"][0], files["queries"]))
    model = hw.load_model(files["model"])
    own = hw.evaluate(
        "detection",
        methods="bm25",
        model=model,
        data=frame.rename(columns={"prompt": "ask"}),
        queries=asked,
        columns={"prompt": "ask"},
        query_columns={"prompt": "prompt"},
        relevant="planted",
        out=tmp_path,
    )
    assert numbers(own)["bm25"] == numbers(found, "entity swap, wrong words only")["bm25"]
    json.dumps(own.to_json())
    with pytest.raises(UsageError, match="which the run file does not hold"):
        run_evaluation("detection", own.settings, tmp_path)


def test_sanity_runs_on_an_adapter(built_in, tmp_path):
    _, _, files = built_in
    settings = {"methods": ("rise:preset=small",), "own": Own(**{**files, "model": tiny_loaded("llama-lora")})}
    found = numbers(run_evaluation("sanity", settings, tmp_path))
    assert "detection" not in found["bm25"], "there is no ground truth"
    assert found["bm25"]["weights"].value == pytest.approx(0, abs=1e-9)
    assert found["rise:preset=small"]["weights"].value > 0.02
    assert found["rise:preset=small"]["twins"].value == 1


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(retraining, "BASE", TINY)
    monkeypatch.setattr(retraining, "BASE_ROWS", 40)


def test_the_built_in_world_given_as_ones_own_has_the_same_bank(small, tmp_path):
    shared = {"rows": 16, "epochs": 1}
    found = run_lds(LdsSettings(("rise:preset=small",), models=8, queries=4, **shared), tmp_path)
    world = make_world(WorldSettings(queries=4, **shared), tmp_path, lambda words, share: None)
    task = two_domains_task(0, rows=16, queries=4)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("\n".join(f"{name}: {json.dumps(value)}" for name, value in asdict(world.training).items()))
    files = {
        "model": str(next((tmp_path / "models").glob("base-*"))),
        "data": lines(tmp_path / "rows.jsonl", task.rows),
        "queries": lines(tmp_path / "queries.jsonl", task.queries),
        "reading": {"max_tokens": TINY.context},
        "recipe": str(recipe),
    }
    trained = len(list((tmp_path / "bank").rglob("*.safetensors")))
    own = run_lds(LdsSettings(("rise:preset=small",), models=8, own=Own(**files)), tmp_path)
    assert numbers(own) == numbers(found)
    assert len(list((tmp_path / "bank").rglob("*.safetensors"))) == trained, "the same bank is used again"
    removed = run_removal(RemovalSettings(("bm25",), k=4, draws=2, own=Own(**files)), tmp_path)
    built = run_removal(RemovalSettings(("bm25",), k=4, draws=2, queries=40, **shared), tmp_path)
    assert len(removed.lines[0].samples["rise"][0]) == 4
    assert {line.method for line in removed.lines} == {line.method for line in built.lines}


@pytest.mark.parametrize(("name", "lora"), [("gpt2", {"r": 2, "targets": ["c_attn"]}), ("qwen2", None)])
def test_any_model_learns_by_a_recipe_and_only_what_the_recipe_trains(name, lora, tmp_path):
    records = [{"id": f"r{i}", "prompt": f"What is {i}?", "response": f"It is {i}, I think."} for i in range(12)]
    loaded = tiny_loaded(name)
    recipe = {"epochs": 2, "batch": 4, "rate": 0.01, "lora": lora}
    own = Own(loaded, records, records[:2], recipe=recipe, reading={"template": "{prompt} => {response}"})
    from headwater.evaluation.own import own_world

    world = own_world(own, tmp_path, 0)
    bank = Bank(world)
    before, after = world.losses(loaded), bank.losses(range(12))
    assert (after < before - 0.1).all()
    assert (bank.losses(range(12)) == after).all()
    changed = dict(world.learn(range(12)).named_parameters())
    trained = {n for n, p in changed.items() if p.requires_grad}
    assert all("lora" in n for n in trained) == (lora is not None)
    stage = world.stage()
    assert torch.allclose(torch.tensor(world.losses(stage.loaded)), torch.tensor(after))
    assert stage.score("rise:preset=small", world.queries).scores.values.shape == (12, 2)


REFUSED = [
    ({"relevant": "topic = 'nothing'"}, DataError, "rows meet the condition"),
    ({"relevant": "planted IS NOT NULL"}, DataError, "120 of 120 rows"),
    ({"relevant": "plantd = true"}, HeadwaterError, "did you mean|No field named"),
    ({"relevant": "planted = true; x"}, HeadwaterError, "without ';'"),
    ({"relevant_ids": "answer"}, DataError, "lists no row in 'answer'"),
    ({"label": "domain"}, DataError, "has no value in the column 'domain'"),
    ({"label": "id", "relevant": "planted"}, UsageError, "two kinds of ground truth"),
    ({}, UsageError, "give --relevant or --relevant-ids or --label"),
    ({"relevent": "planted"}, UsageError, "did you mean 'relevant'"),
]


@pytest.mark.parametrize(("truth", "kind", "fault"), REFUSED)
def test_what_cannot_be_measured_is_refused_before_a_model_is_loaded(built_in, tmp_path, truth, kind, fault):
    _, _, files = built_in
    settings = {"methods": ("bm25",), "own": {**files, "model": "/nowhere", **truth}}
    with pytest.raises(kind, match=fault):
        run_evaluation("detection", settings, tmp_path)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["detection", "--data", "x.jsonl"], "needs --model"),
        (["detection", "--model", "m", "--data", "x.jsonl", "--relevant", "a"], "needs --queries"),
        (["detection", "--relevant", "planted = true"], "--relevant: --relevant is for your own rows"),
        (["detection", "--template", "alpaca"], "--template is for your own rows"),
        (
            ["detection", "--rows", "9", "--model", "m", "--data", "x", "--queries", "q"],
            "--rows would do nothing",
        ),
        (["lds", "--models", "8", "--model", "m", "--data", "x", "--queries", "q"], "--recipe"),
    ],
)
def test_half_a_task_is_refused_in_one_line(words, fault, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(["eval", *words, "--out", str(tmp_path)])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert fault in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("epoch: 3", "did you mean 'epochs'"),
        ("epochs: many", "'many' is not a number"),
        ("epochs: 1.5", "not a whole number"),
        ("rate: 0", "above 0"),
        ("optimizer: adam", "did you mean 'adamw'"),
        ("lora: {rank: 8}", "unknown field of lora 'rank'"),
        ("lora: 8", "no mapping"),
        ("- 1", "no names with values"),
        ("a: [", "not YAML or JSON"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(text, fault, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(HeadwaterError, match=fault):
        read_recipe(tmp_path / "recipe.yaml")


def test_a_recipe_is_read_as_written(tmp_path):
    (tmp_path / "r.yaml").write_text("epochs: 2\nrate: 1e-4\noptimizer: sgd\nlora: {r: 4}\n")
    assert read_recipe(tmp_path / "r.yaml") == TrainingRecipe(epochs=2, rate=1e-4, optimizer="sgd", lora={"r": 4})
    with pytest.raises(DataError, match="no such file"):
        read_recipe(tmp_path / "none.yaml")
