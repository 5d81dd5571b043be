"""Gradient methods from the command line: adapters, checkpoints, exact rescoring, and what cannot be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from test_commands import QUERY, ROWS, fails, headwater, lines

from headwater.models.checkpoints import LIST
from zoo import tiny_loaded, zoo


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model, an adapter of it, one that is not, two checkpoints as a training run records them, rows and queries."""
    folder = tmp_path_factory.mktemp("gradient_commands")
    for name, seed in (("model", 0), ("step-1", 1), ("step-2", 2)):
        loaded = tiny_loaded("llama", seed=seed)
        loaded.model.save_pretrained(folder / name)
        loaded.tokenizer.save_pretrained(folder / name)
    zoo()["llama-lora"]().save_pretrained(folder / "adapter")
    other = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    get_peft_model(zoo()["gpt2"](), other).save_pretrained(folder / "foreign")
    lines(folder / "rows.jsonl", ROWS[:12])
    lines(folder / "queries.jsonl", [QUERY])
    return folder


def build(place: Path, out: str, *more: str) -> dict:
    words = ("index", "build", out, "--model", "model", "--data", "rows.jsonl", *more, "--json")
    done = headwater(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_adapters_matrices_are_what_is_read(place):
    built = build(place, "lora.lance", "--adapter", "adapter", "--method", "rapidin", "--set", "buckets=256")
    assert "lora" in json.dumps(built["coverage"]).lower() or built["coverage"]["seen"] < 20_000
    words = ("trace", "lora.lance", "--queries", "queries.jsonl", "--top", "3", "--exact", "6", "--json")
    done = headwater(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    trace = json.loads(done.stdout)
    assert len(trace["queries"][0]["hits"]) == 3
    assert "whole gradients" in trace["about"]["scores"]


def test_a_report_has_a_grid(place):
    build(place, "grid.lance", "--method", "rapidin", "--set", "buckets=256")
    words = ("trace", "grid.lance", "--queries", "queries.jsonl", "--top", "2", "--html", "r.html", "--grids", "2")
    done = headwater(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert (place / "r.html").read_text().count('class="grid"') == 2


def test_tracin_reads_recorded_checkpoints(place):
    recorded = [{"step": n, "learning_rate": 1e-3 / n, "path": f"step-{n}"} for n in (1, 2)]
    (place / LIST).write_text(json.dumps(recorded))
    built = build(place, "tracin.lance", "--method", "tracin", "--set", "checkpoints=.", "--set", "buckets=128")
    assert "2 checkpoints" in json.dumps(built)
    done = headwater("trace", "tracin.lance", "--queries", "queries.jsonl", "--exact", "20", "--json", cwd=place)
    assert done.returncode == 0, done.stderr


BUILD = ("index", "build", "new.lance", "--model", "model", "--data", "rows.jsonl", "--method", "rapidin")


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (2, (*BUILD, "--set", "parameters=model.layer.*"), "model.layer.*"),
        (2, (*BUILD, "--set", "sketch=shfit"), "did you mean 'shift'?"),
        (2, (*BUILD, "--set", "normalize=tensors"), "did you mean 'tensor'?"),
        (1, (*BUILD, "--adapter", "foreign"), "foreign"),
        (1, (*BUILD, "--adapter", "nowhere"), "nowhere"),
        (1, (*BUILD[:-1], "tracin", "--set", "checkpoints=nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(place, code, words, expected):
    assert expected in fails(place, code, *words)
    assert not (place / "new.lance").exists()
