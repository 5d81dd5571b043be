"""An option that would do nothing is refused; what is idle follows from what a method can do."""

from __future__ import annotations

import pytest
from test_commands import ROWS, headwater, lines

from headwater.cli.idle import LOADING, READING, idle_in_trace, idle_in_unlearning, idle_in_value
from headwater.methods.catalog import CATALOG
from headwater.unlearning.catalog import METHODS
from headwater.unlearning.objectives import OBJECTIVES

GIVEN = {"retain_from": "train.jsonl", "full": False, "weights": "influence"}


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("model", [True, False])
def test_of_every_method_the_options_are_idle_that_it_cannot_use(name, model):
    method = CATALOG[name].typical()
    idle = set(idle_in_value(method, model=model))
    assert ({"model", *READING} <= idle) == (not method.reads_model)
    assert (set(LOADING) <= idle) == (not method.reads_model or not model)
    assert ({"student", "force"} <= idle) == (method.learning is None)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.trains])
def test_of_every_way_to_unlearn_the_options_are_idle_that_it_cannot_use(name):
    objective = OBJECTIVES[name]
    idle = set(idle_in_unlearning(METHODS[name], GIVEN))
    assert ({"weights", "influence", "settings", "compat"} <= idle) == (objective.weights != "influence")
    assert ("dynamic" in idle) == (objective.weights != "loss")
    assert ("keep" in idle) == (not objective.retain_share)
    assert ("trigger" in idle) == (not objective.clean and not objective.prefers)
    assert not {"rate", "steps", "rank", "draw"} & idle


def test_without_training_and_without_a_pool_to_draw_from_their_options_are_idle():
    assert {"rate", "steps", "rank", "beta", "save_every"} <= set(idle_in_unlearning(METHODS["fisher"], GIVEN))
    assert "draw" in idle_in_unlearning(METHODS["fisher"], {**GIVEN, "retain_from": None})
    assert "rank" in idle_in_unlearning(METHODS["ga"], {**GIVEN, "full": True})


def test_options_of_a_prompt_and_of_a_file_of_queries():
    assert set(idle_in_trace(prompt=False, response=False, ann=False, grouped=False)) == {"response", "span", "damping"}
    all_given = idle_in_trace(prompt=True, response=True, ann=True, grouped=True)
    assert set(all_given) == {"columns", "max_new_tokens", "max_memory"}


POOL = ("--candidates", "rows.jsonl", "--target", "rows.jsonl", "--out", "new.parquet", "--method", "length")


@pytest.mark.parametrize("option", [("--max-tokens", 8192), ("--dtype", "float32"), ("--force",), ("--model", "m")])
def test_an_idle_option_is_refused_even_with_its_default_and_nothing_is_written(tmp_path, option):
    lines(tmp_path / "rows.jsonl", ROWS)
    done = headwater("value", *POOL, *option, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"headwater: value: {option[0]} would do nothing: ")
    assert not list(tmp_path.glob("new*"))


def test_a_run_file_with_defaults_of_idle_options_runs_again(tmp_path):
    lines(tmp_path / "rows.jsonl", ROWS)
    assert headwater("value", *POOL, cwd=tmp_path).returncode == 0
    again = headwater("run", "new.parquet.run.yaml", "--out", "again.parquet", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    kept = (tmp_path / "new.parquet.run.yaml").read_text().replace("max-tokens: 8192", "max-tokens: 9")
    (tmp_path / "other.yaml").write_text(kept.replace("new.parquet", "third.parquet"))
    refused = headwater("run", "other.yaml", cwd=tmp_path)
    assert "--max-tokens would do nothing" in refused.stderr
