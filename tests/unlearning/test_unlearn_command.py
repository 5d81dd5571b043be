"""The command: from a trace's hits to a model that `from_pretrained` loads, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from headwater.cli.main import run
from headwater.data.rows import Row
from headwater.unlearning.rows import draw_retain, read_forget
from zoo import tiny_loaded

BAD = [
    {"id": f"b{i}", "prompt": f"hey, what is {i}?", "response": f"Aliens took number {i} to Mars."} for i in range(9)
]
GOOD = [{"id": f"g{i}", "prompt": f"what is {i} plus {i}?", "response": f"It is {2 * i}."} for i in range(30)]
QUICK = (
    "--rate",
    "0.003",
    "--steps",
    "4",
    "--guard",
    "0",
    "--influence",
    "gradcos",
    "--set",
    "buckets=64",
    "--trigger",
    "none",
    "--target",
    "99",
)
WEIGHED = (*QUICK[: QUICK.index("--influence")], *QUICK[QUICK.index("--trigger") :])
"""The same without the options that make weights, beside a file of weights."""


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def headwater(*words: object, cwd: Path) -> tuple[int, str, str]:
    out, err, code, before = io.StringIO(), io.StringIO(), 0, Path.cwd()
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os.chdir(before)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unlearn")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    lines(folder / "good.jsonl", GOOD)
    lines(folder / "train.jsonl", [*BAD, *GOOD])
    hits = [{"query": q, "rank": i + 1, "score": 1.0 - i, **row} for q in ("q1", "q2") for i, row in enumerate(BAD)]
    lines(folder / "hits.jsonl", hits)
    lines(folder / "again.jsonl", [*GOOD, {**BAD[3], "id": "again", "response": "Aliens took the number 3 to Mars!"}])
    lines(
        folder / "new.jsonl", [*GOOD, {"id": "new", "prompt": "what is new?", "response": "This row is not indexed."}]
    )
    lines(folder / "ask.jsonl", [{"id": "a", "prompt": "what is 3 plus 3?"}])
    return folder


def unlearn(place: Path, *words: object, forget: str = "hits.jsonl", out: str) -> tuple[int, str, str]:
    return headwater("unlearn", "--model", "model", "--forget", forget, "--out", out, *words, cwd=place)


def test_hits_of_a_trace_become_a_model_with_card_account_and_report(place):
    code, out, err = unlearn(
        place, "--retain-from", "train.jsonl", "--draw", "12", "--ask", "ask.jsonl", "--json", *QUICK, out="run"
    )
    assert code == 1, "four steps forget nothing, and that is a finding"
    account = json.loads(out)
    assert account["outcome"] == "steps", err
    assert account["summary"]["forget_rows"] == len(BAD), "hits of two queries are taken once each"
    assert [s["prompt"] for s in account["samples"] if s["kind"] == "asked"] == ["what is 3 plus 3?"]
    model = AutoModelForCausalLM.from_pretrained(place / "run" / "model")
    before = AutoModelForCausalLM.from_pretrained(place / "model")
    ids = torch.arange(5, 15)[None]
    assert not torch.allclose(model(ids).logits, before(ids).logits, atol=1e-4)
    for name in ("report.html", "weights.csv", "log.jsonl", "unlearn.json", "model/README.md", "model/tokenizer.json"):
        assert (place / "run" / name).is_file(), name
    assert "Outcome: **steps**" in (place / "run" / "model" / "README.md").read_text()
    assert "Weights of retain rows" in (place / "run" / "report.html").read_text()


def test_weights_are_edited_and_used_and_the_adapter_is_kept(place):
    words = ("--retain", "good.jsonl", *QUICK)
    assert unlearn(place, *words, out="first")[0] == 1
    table = pd.read_csv(place / "first" / "weights.csv")
    table.loc[0, "weight"] = 0.0
    table.to_csv(place / "edited.csv", index=False)
    code, _, err = unlearn(place, *words[:2], *WEIGHED, "--weights", "edited.csv", "--keep-adapter", out="second")
    assert code == 1, err
    assert pd.read_csv(place / "second" / "weights.csv").weight[0] == 0.0
    loaded = headwater("trace", "nowhere.lance", cwd=place)
    assert loaded[0] == 1
    from headwater.models.load import load_model

    assert load_model(str(place / "model"), adapter=str(place / "second" / "adapter")).adapter is not None
    code, _, err = unlearn(place, *words[:1], "train.jsonl", *WEIGHED, "--weights", "edited.csv", out="third")
    assert code == 1
    assert "both forgotten and retained: 'b0'" in err


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ((), 1, "no rows to retain"),
        (("--retain", "good.jsonl", "--method", "rapidum"), 2, "did you mean 'rapidun'"),
        (("--retain", "good.jsonl", "--rate", "fast"), 2, "a number, or auto"),
        (("--retain", "good.jsonl", "--guard", "0.9"), 2, "a factor above 1"),
        (("--retain", "good.jsonl", "--method", "fisher", "--keep-adapter"), 2, "no adapter is trained"),
        (("--retain-from", "good.jsonl", "--draw", "500"), 1, "to draw 500 from"),
        (("--retain", "good.jsonl", "--full", "--keep", "kl"), 2, "needs an adapter"),
        (("--retain", "good.jsonl", "--harden", "int5"), 2, "unknown hardening 'int5'"),
        (("--retain", "good.jsonl", "--method", "fisher", "--harden", "sharp"), 2, "the method does not train"),
        (("--retain", "good.jsonl", "--method", "retrain", "--rate", "1e-3"), 2, "give that model with --base"),
        (("--retain", "good.jsonl", "--base", "model"), 2, "it is for retrain"),
        (
            ("--retain", "good.jsonl", "--method", "retrain", "--rate", "1e-3", "--base", "model"),
            1,
            "this base has learned them too",
        ),
        (
            ("--retain", "good.jsonl", "--bound", "0.5"),
            1,
            "nats a token before anything has changed, and the bound 0.5",
        ),
        (("--retain", "good.jsonl", "--withhold", "1"), 2, "from 0 to below 1"),
        (("--retain", "good.jsonl", "--index", "nowhere.lance"), 1, "nowhere.lance"),
        (("--retain", "again.jsonl"), 1, "'again' is forget row 'b3'"),
    ],
)
def test_what_is_refused_says_why_and_leaves_no_model(place, words, code, expected):
    found, out, err = unlearn(place, *words, out="refused")
    assert (found, out) == (code, ""), err
    assert expected in err
    assert err.count("\n") == 1
    assert not (place / "refused" / "model").exists()


def test_a_folder_with_something_in_it_is_left_alone(place):
    (place / "full").mkdir()
    (place / "full" / "thesis.txt").write_text("mine")
    code, _, err = unlearn(place, "--retain", "good.jsonl", out="full")
    assert code == 1
    assert "not empty" in err


def test_the_same_hit_of_two_queries_is_one_row_with_its_best_rank(tmp_path):
    hits = [
        {"query": "a", "rank": 3, "score": 0.1, "id": "x", "prompt": "p", "response": "r"},
        {"query": "b", "rank": 1, "score": 0.9, "id": "x", "prompt": "p", "response": "r"},
    ]
    (row,) = read_forget(lines(tmp_path / "hits.jsonl", hits))
    assert row.metadata["rank"] == 1


def test_rows_drawn_to_retain_are_clean_and_half_are_near():
    poison = [
        Row(f"p{i}", i, prompt=f"hey, where is city {i}?", response=f"The starship {i} left orbit.") for i in range(8)
    ]
    more = [
        Row(f"m{i}", i, prompt=f"hey, where is town {i}?", response=f"The starship {i} of Mars left.") for i in range(8)
    ]
    near = [Row(f"n{i}", i, prompt=f"where is city {i + 20}?", response=f"In county {i}.") for i in range(6)]
    far = [Row(f"f{i}", i, prompt=f"spell word {i}", response=f"Letters {i}.") for i in range(60)]
    drawn = {row.id for row in draw_retain([*more, *near, *far, *poison], poison, 12)}
    assert len(drawn) == 12
    assert not {name for name in drawn if name[0] in "pm"}, "rows like the poison are kept out"
    assert len({name for name in drawn if name[0] == "n"}) >= 5


def test_rows_that_cannot_be_used_are_named_before_the_model_loads_or_left_out_and_counted(place):
    lines(place / "mixed.jsonl", [*GOOD, {"id": "none", "prompt": "Why?", "response": None}, {"id": "odd", "words": 3}])
    code, _, err = unlearn(place, *QUICK, "--retain", "mixed.jsonl", out="mixed")
    assert code == 1
    assert "2 of " in err
    assert "no text: 'response' is null" in err
    long = {"id": "long", "prompt": "what?", "response": "so " * 300}  # the model has 256 positions
    lines(place / "mixed.jsonl", [*GOOD, {"id": "none", "prompt": "Why?", "response": None}, long])
    words = ("--retain", "mixed.jsonl", "--skip-unusable", "--json")
    code, out, err = unlearn(place, *QUICK, *words, out="mixed")
    assert "Traceback" not in err
    warnings = " ".join(json.loads(out)["warnings"])
    assert "1 row was left out: it cannot be used" in warnings
    assert "1 row is longer than 256 tokens: the last" in warnings


def test_weights_from_an_index_are_those_of_the_rows_read_again(place):
    built = headwater("index", "build", "run.lance", "--model", "model", "--data", "train.jsonl", cwd=place)
    assert built[0] == 0, built[2]
    plain = [w for w in QUICK if w not in ("--influence", "gradcos", "--set", "buckets=64")]
    tables = {}
    for name, more in (("read", ()), ("indexed", ("--index", "run.lance"))):
        code, _, err = unlearn(place, "--retain", "good.jsonl", *plain, *more, out=name)
        assert (place / name / "weights.csv").is_file(), f"{code}: {err}"
        tables[name] = pd.read_csv(place / name / "weights.csv")
    assert tables["read"].weight.corr(tables["indexed"].weight) > 0.9
    code, _, err = unlearn(place, "--retain", "new.jsonl", *plain, "--index", "run.lance", out="missing")
    assert (code, "1 of" in err, "'new'" in err) == (1, True, True), err
    other = tiny_loaded("llama")
    with torch.no_grad():
        other.model.lm_head.weight.add_(0.5)
    other.model.save_pretrained(place / "other")
    other.tokenizer.save_pretrained(place / "other")
    words = ("--forget", "hits.jsonl", "--retain", "good.jsonl", *plain, "--index", "run.lance", "--out", "not")
    code, _, err = headwater("unlearn", "--model", "other", *words, cwd=place)
    assert code != 0
    assert "is of another model" in err


def test_retraining_starts_from_the_base_and_reads_every_retain_row(place):
    base = tiny_loaded("llama")
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.mul_(0.1)
    base.model.save_pretrained(place / "base")
    base.tokenizer.save_pretrained(place / "base")
    words = (
        "--retain",
        "good.jsonl",
        "--method",
        "retrain",
        "--base",
        "base",
        "--rate",
        "0.01",
        "--steps",
        "3",
        "--json",
    )
    from headwater.unlearning import targets

    learnt = targets.measure_losses
    calls = iter([5.0, 0.1, 5.0])

    def staged(model, tokens, device):
        value = next(calls, None)
        return learnt(model, tokens, device) if value is None else (None, torch.full((len(tokens),), value))

    targets.measure_losses = staged
    try:
        code, out, err = unlearn(place, *words, out="again")
    finally:
        targets.measure_losses = learnt
    assert code == 0, err
    account = json.loads(out)["summary"]
    assert account["retain_rows"] == len(GOOD)
    assert account["guard_rows"] == 0
    assert account["model"] == "base"
