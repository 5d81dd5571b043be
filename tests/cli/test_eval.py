"""`headwater eval` as users run it: tables, files, replay, and what is refused before anything is trained."""

from __future__ import annotations

import json
import re

import pytest
from test_commands import headwater

from headwater.cli.eval import _listener, eval_app
from headwater.cli.progress import Bar
from headwater.core.errors import UsageError
from headwater.evaluation.runs import EVALUATIONS, run_evaluation

SMALL = ("--task", "entity-swap", "--rows", "120", "--queries", "3", "--epochs", "1")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    done = headwater(
        "eval", "detection", "--method", "rise:preset=small", *SMALL, "--out", "runs", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_run_has_controls_intervals_costs_and_files(ran):
    folder, found = ran
    assert {line["group"] for line in found["lines"]} == {"entity swap, whole answer", "entity swap, wrong words only"}
    assert {"rise:preset=small", "random", "bm25", "embedding", "loss", "length"} == {
        line["method"] for line in found["lines"]
    }
    for line in found["lines"]:
        assert {"AP", "AUROC", "P@10", "auPRC@10", "prevalence"} <= set(line["metrics"])
        assert all(m["low"] <= m["value"] <= m["high"] for m in line["metrics"].values())
    assert found["about"]["seconds"] > 0
    assert all((folder / path).exists() for path in found["files"].values())


def test_a_run_is_replayed_from_its_file_to_the_same_numbers(ran):
    folder, found = ran
    done = headwater("eval", "replay", found["files"]["json"], "--out", "runs", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert [line["metrics"] for line in again["lines"]] == [line["metrics"] for line in found["lines"]]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("detection", "--method", "rsie"), "did you mean 'rise'"),
        (("detection", "--task", "howdie"), "no pool of detection"),
        (("lds", "--models", "2"), "at least 8"),
        (("lds", "--method", "logra:damping=zero"), "not a value of type float"),
    ],
)
def test_what_cannot_run_is_refused_at_once_with_exit_2(tmp_path, words, fault):
    done = headwater("eval", *words, "--out", "runs", cwd=tmp_path)
    assert done.returncode == 2
    assert fault in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_missing_or_foreign_run_file_is_a_failure(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    for name in ("x.json", "none.json"):
        done = headwater("eval", "replay", name, cwd=tmp_path)
        assert done.returncode == 1
        assert "run file" in done.stderr


def test_an_unknown_setting_is_refused(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'models'"):
        run_evaluation("lds", {"model": 3}, tmp_path)


def test_every_evaluation_has_a_command_with_an_example():
    commands = {c.name or c.callback.__name__: c.callback.__doc__ for c in eval_app.registered_commands}
    assert set(EVALUATIONS) <= set(commands)
    for name, text in commands.items():
        assert re.search(rf"Example:  headwater eval {name}\b", text), name


def test_what_retraining_will_cost_stays_in_view_and_the_rest_moves_the_bar(capsys):
    moved = []
    listener = _listener(Bar(lambda done, total, unit, step: moved.append((step, done))))
    listener.on_note("3 of 64 models to train, 2.0 s each: 0.1 min in all.")
    listener.on_progress("retraining. Really", 0.5)
    assert capsys.readouterr().err == "3 of 64 models to train, 2.0 s each: 0.1 min in all.\n"
    assert moved == [("retraining. Really", 50)]
