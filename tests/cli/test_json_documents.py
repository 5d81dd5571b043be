"""What every command prints with `--json` has the form that its schema promises, and people get no Python values."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from rich.cells import cell_len
from test_commands import QUERY, ROWS, headwater, lines
from test_options import COMMANDS

from headwater.cli.results import RESULTS
from headwater.cli.schemas import json_schema
from zoo import tiny_loaded

SILENT = ("run", "schema")
"""These commands have no document of their own."""

FORGET = ("--rate", "0.001", "--steps", 1, "--max-tokens", 64, "--target", 99, "--save-every", 0)
STEPS: list[tuple[str, int, tuple[object, ...]]] = [
    ("methods", 0, ()),
    ("plan", 0, ("--model", "model", "--data", "rows.jsonl")),
    ("index build", 0, ("i.lance", "--model", "model", "--data", "rows.jsonl", "--set", "preset=full")),
    ("index add", 0, ("i.lance", "--data", "more.jsonl")),
    ("index info", 0, ("i.lance",)),
    ("index ann", 0, ("i.lance", "--column", "embedding")),
    ("index quantise", 0, ("i.lance", "--code", "int8", "--out", "q.lance", "--queries", "queries.jsonl")),
    ("index retention", 0, ("q.lance", "--exact", "i.lance", "--queries", "queries.jsonl")),
    ("trace", 0, ("i.lance", "--queries", "queries.jsonl", "--top", 3, "--tokens")),
    ("score", 0, ("i.lance", "--queries", "queries.jsonl", "--out", "s.parquet")),
    ("value", 0, ("--candidates", "rows.jsonl", "--target", "task.jsonl", "--model", "model", "--by", "provider")),
    ("value export-target", 0, ("--target", "task.jsonl", "--model", "model", "--targets", "all", "--out", "t.query")),
    ("value score", 0, ("--candidates", "rows.jsonl", "--query", "t.query", "--model", "model", "--out", "w.parquet")),
    ("value audit", 0, ("w.parquet", "--candidates", "rows.jsonl", "--query", "t.query", "--model", "model")),
    ("select", 0, ("v.parquet", "--top", "5", "--out", "best.jsonl")),
    ("price", 0, ("v.parquet", "--budget", "100", "--by", "provider", "--out", "ledger.csv")),
    ("index delete", 0, ("i.lance", "--id", "r0")),
    ("index compact", 0, ("i.lance",)),
    ("index verify", 0, ("i.lance",)),
    ("unlearn", 1, ("--model", "model", "--forget", "few.jsonl", "--method", "ga", *FORGET, "--out", "clean")),
]
"""Commands in the order in which they can run, with exit codes and the rest of their words."""

FORMS = {"plan without weights", "index build shard"}
"""Other documents of commands that have one already."""

ELSEWHERE = {"demo", "index commit", "view open", "view bundle", *FORMS}
ELSEWHERE |= {name for name in RESULTS if name.startswith("eval ")}
"""What takes long or needs more; `test_eval` checks one of the evaluations, which all print the same form."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    many = [{**ROWS[i % 40], "id": f"m{i}", "prompt": f"How many are {i}?"} for i in range(230)]
    lines(folder / "rows.jsonl", ROWS)
    lines(folder / "few.jsonl", ROWS[:5])
    lines(folder / "more.jsonl", many)
    lines(folder / "queries.jsonl", [QUERY, {**QUERY, "id": "q2", "response": "No idea."}])
    lines(folder / "task.jsonl", [{**row, "prompt": f"And {row['prompt']}"} for row in ROWS[:16]])
    return folder


def test_every_command_prints_what_its_schema_says_and_no_python_values(place):
    for name, code, words in STEPS:
        given = (*words, "--out", "v.parquet") if name == "value" else words
        done = headwater(*name.split(), *given, "--json", cwd=place)
        assert done.returncode == code, (name, done.stderr)
        assert done.stdout, (name, done.stderr)
        document = json.loads(done.stdout)
        assert document["schema"] == f"headwater/{name.replace(' ', '-')}/1"
        faults = [f"{name}: {fault.json_path}: {fault.message}" for fault in validator(name).iter_errors(document)]
        assert faults == []


def test_the_steps_and_the_schemas_are_those_of_all_commands():
    assert {name for name, _, _ in STEPS} | ELSEWHERE == set(RESULTS)
    assert set(RESULTS) - FORMS == set(COMMANDS) - set(SILENT)


@pytest.mark.parametrize("name", RESULTS)
def test_a_schema_is_one_and_a_document_of_another_command_does_not_fit_it(name):
    Draft202012Validator.check_schema(json_schema(name))
    assert not validator(name).is_valid({"schema": "headwater/other/1"})
    assert all(re.fullmatch(r"[a-z_0-9]+", field) for field in fields(json_schema(name)))


def test_people_get_sentences_and_tables_of_80_columns(place):
    shown = [("index", "info", "i.lance"), ("methods",), ("trace", "i.lance", "--queries", "queries.jsonl")]
    shown += [("price", "v.parquet", "--budget", "9", "--by", "provider", "--out", "other.csv"), ("eval", "-h")]
    shown += [("plan", "--model", "model", "--data", "rows.jsonl"), ("schema",)]
    for words in shown:
        printed = headwater(*words, cwd=place).stdout
        wide = [line for line in printed.splitlines() if cell_len(line) > 80]
        assert not wide, words
        assert not re.search(r"\{'|\[\{|None|True|False", printed), words


def test_a_schema_is_printed(place):
    done = headwater("schema", "index", "info", cwd=place)
    assert json.loads(done.stdout) == json_schema("index info")
    assert "headwater/trace/1" in headwater("schema", cwd=place).stdout
    assert "did you mean 'trace'" in headwater("schema", "trase", cwd=place).stderr


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json_schema(name))


def fields(schema: dict) -> list[str]:
    """All names of fields in a schema."""
    found = list(schema.get("properties", {}))
    for inner in [
        *schema.get("properties", {}).values(),
        *schema.get("anyOf", []),
        schema.get("items"),
        schema.get("additionalProperties"),
    ]:
        found += fields(inner) if isinstance(inner, dict) else []
    return found
