"""How queries are named, filtered and limited: by commands and by the same verbs in Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_commands import QUERY, ROWS, headwater, lines

import headwater as hw
from headwater.core.errors import UsageError
from headwater.methods.method import Vectors
from zoo import tiny_loaded


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model, an adapter, and an index of twelve rows made with the adapter."""
    folder = tmp_path_factory.mktemp("queries")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(loaded.model, config).save_pretrained(folder / "adapter")
    lines(folder / "rows.jsonl", ROWS[:12])
    lines(folder / "asked.jsonl", [{"ask": QUERY["prompt"], "reply": QUERY["response"]}])
    words = ("--model", "model", "--adapter", "adapter", "--data", "rows.jsonl", "--method", "rise")
    assert headwater("index", "build", "i.lance", *words, cwd=folder).returncode == 0
    shutil.move(folder / "adapter", folder / "moved")
    return folder


COLUMNS = ("--column", "prompt=ask", "--column", "response=reply")


@pytest.mark.parametrize("command", [("trace",), ("score", "--out", "scores.parquet")], ids=["trace", "score"])
def test_queries_have_columns_of_their_own_and_the_adapter_may_have_moved(place, command):
    words = (command[0], "i.lance", "--queries", "asked.jsonl", *command[1:], *COLUMNS)
    assert "moved" not in headwater(*words, cwd=place).stderr.splitlines()[-1], "the adapter is not where it was"
    done = headwater(*words, "--adapter", "moved", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    if command == ("trace",):
        assert json.loads(done.stdout)["queries"][0]["prompt"] == QUERY["prompt"]
    done = headwater(*words, "--column", "response=answer", "--adapter", "moved", cwd=place)
    assert done.returncode == 1
    assert "no column 'answer'" in done.stderr


def test_a_filter_says_how_many_rows_it_left(place):
    words = ("trace", "i.lance", "--queries", "asked.jsonl", *COLUMNS, "--adapter", "moved", "--where")
    none = headwater(*words, "provider = 'nobody'", cwd=place)
    assert none.returncode == 0
    assert "rows where provider = 'nobody': 0 of 12" in none.stderr
    assert "rows behind" not in none.stdout
    some = headwater(*words, "provider = 'a'", cwd=place)
    assert "rows where provider = 'a': 6 of 12" in some.stderr
    assert "rows behind" in some.stdout


def test_sizes_are_given_as_the_command_takes_them_and_lists_are_refused_in_one_line(place):
    model = {"model": str(place / "model"), "method": "rise"}
    index = hw.build(place / "sized.lance", data=ROWS[:3], max_memory="8GiB", max_disk="1GB", **model)
    assert len(hw.trace(index, [QUERY], max_memory="1GiB").queries[0].hits) == 3
    with pytest.raises(UsageError, match="max_memory: '8 apples' is no number of bytes"):
        hw.build(place / "no.lance", data=ROWS[:3], max_memory="8 apples", **model)


PROGRAM = """
import headwater as hw
from headwater.core.errors import UsageError

for name, wrong in {"settings": ["a=1"], "columns": ["prompt"], "loading": ["device"]}.items():
    for call in (hw.build, hw.plan):
        given = {"out": "no.lance"} if call is hw.build else {}
        try:
            call(**given, data=[{"text": "a"}], **{"model": "model", "method": "rise", name: wrong})
        except UsageError as error:
            print(error)
"""


def test_a_list_where_names_and_values_belong_is_refused_in_one_line(place):
    """In a process of its own, because tests check the types of arguments before the function does."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 6
    assert said[0] == "settings: ['a=1'] is a list, not a dictionary (for example settings={'seed': 1})"


def test_a_method_with_a_metric_cannot_claim_scores_that_leave_it_out():
    for claim in ("exact", "grids"):
        with pytest.raises(UsageError, match="metric"):
            Vectors({}, bind=tiny_loaded, metrics=dict, **{claim: True})
