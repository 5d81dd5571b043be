"""Bad input to every command and option: one line with the value, the place and a remedy that works; nothing written.

Each command has words that are right. A fault replaces the words of one option; where the remedy is another value, the
table holds it, and with it the command must succeed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_commands import QUERY, ROWS, headwater, lines
from test_options import COMMANDS, options

from zoo import tiny_loaded

RIGHT: dict[str, tuple[str, ...]] = {
    "demo": ("--out", "new"),
    "plan": ("--model", "model", "--data", "rows.jsonl"),
    "methods": (),
    "schema": (),
    "run": ("new.yaml",),
    "index build": ("new.lance", "--model", "model", "--data", "rows.jsonl"),
    "index info": ("i.lance",),
    "index add": ("i.lance", "--data", "rows.jsonl"),
    "index delete": ("i.lance", "--id", "r1"),
    "index compact": ("i.lance",),
    "index verify": ("i.lance",),
    "index quantise": ("i.lance", "--code", "int8", "--out", "new.lance"),
    "index retention": ("i.lance", "--queries", "queries.jsonl"),
    "index ann": ("i.lance",),
    "trace": ("i.lance", "--queries", "queries.jsonl"),
    "score": ("i.lance", "--queries", "queries.jsonl", "--out", "new.parquet"),
    "value": ("--candidates", "rows.jsonl", "--target", "queries.jsonl", "--method", "length", "--out", "new.parquet"),
    "value export-target": ("--target", "rows.jsonl", "--model", "model", "--out", "new.query"),
    "value score": ("--candidates", "rows.jsonl", "--query", "t.query", "--model", "model", "--out", "new.parquet"),
    "value audit": ("v.parquet", "--candidates", "rows.jsonl", "--target", "queries.jsonl"),
    "select": ("v.parquet", "--top", "5", "--out", "new.jsonl"),
    "price": ("v.parquet", "--budget", "100", "--out", "new.csv"),
    "unlearn": ("--model", "model", "--forget", "few.jsonl", "--method", "ga", "--target", "9", "--out", "new"),
    "eval detection": ("--out", "new"),
    "eval separation": ("--out", "new"),
    "eval lds": ("--out", "new"),
    "eval forgetting": ("--out", "new"),
    "eval removal": ("--out", "new"),
    "eval sanity": ("--out", "new"),
    "eval selection": ("--out", "new"),
    "eval leaderboard": ("--out", "new", "--document", "new.md"),
    "eval replay": ("run.json", "--out", "new"),
    "eval lasting": ("--before", "model", "--forget", "few.jsonl", "--retain", "rows.jsonl", "--out", "new"),
    "eval protocol": ("--out", "new"),
    "index commit": ("i.lance",),
    "view open": ("--no-open", "i.lance"),
    "view bundle": ("new", "i.lance"),
}
"""Words of each command that are right, or would be, were the files they name there."""

NO_FILES = ("nowhere.jsonl", "folder", "empty.jsonl", "binary.jsonl")
"""Paths that no command can read rows or values from: missing, a folder without rows, empty, not text."""

READS_ROWS = {
    "--data": ("plan", "index build", "index add"),
    "--queries": ("index quantise", "index retention", "trace", "score"),
    "--candidates": ("value", "value score", "value audit"),
    "--target": ("value", "value export-target", "value audit"),
    "--forget": ("unlearn",),
    "--retain": ("unlearn",),
    "--retain-from": ("unlearn",),
    "--unseen": ("unlearn",),
    "--ask": ("unlearn",),
    "--rows": ("index delete",),
    "--ids-file": ("index delete",),
    "--query": ("value score",),
    "--config": tuple(name for name in RIGHT if name != "run"),
}
FIRST = {  # commands whose first word is a file to read
    "index": [name for name in RIGHT if RIGHT[name][:1] == ("i.lance",)],
    "values": ["select", "price", "value audit"],
    "run file": ["eval replay", "run"],
}
NUMBERS = ("many", "-1")
NUMERIC = {
    "--limit": (
        "plan",
        "value",
    ),
    "--max-tokens": ("plan",),
    "--tokens-per-batch": ("plan",),
    "--max-memory": (
        "plan",
        "score",
    ),
    "--max-disk": ("plan",),
    "--top": ("trace", "select"),
    "--exact": ("trace",),
    "--grids": ("trace",),
    "--recompute": ("index verify",),
    "--partitions": ("index ann",),
    "--duplicates": ("value",),
    "--sample": ("value audit",),
    "--budget": ("price",),
    "--gumbel": ("select",),
    "--draw": ("unlearn",),
    "--steps": ("unlearn",),
    "--rate": ("unlearn",),
    "--guard": ("unlearn",),
    "--ceiling": ("unlearn",),
    "--rank": ("unlearn",),
    "--save-every": ("unlearn",),
    "--rows": ("eval detection", "eval separation", "eval lds", "eval forgetting", "eval removal", "eval sanity"),
    "--models": ("eval lds",),
    "--k": ("eval removal",),
    "--draws": ("eval removal",),
    "--seeds": ("eval forgetting", "eval selection"),
    "--mistaken": ("eval forgetting",),
    "--share": ("eval selection",),
    "--epochs": ("eval detection", "eval lds"),
}
NAMED = {
    "--method": (
        "plan",
        "value",
        "unlearn",
        "eval lds",
    ),
    "--set": (
        "plan",
        "value",
    ),
    "--template": (
        "plan",
        "unlearn",
    ),
    "--targets": (
        "plan",
        "trace",
    ),
    "--code": (
        "plan",
        "index quantise",
    ),
    "--dtype": ("plan",),
    "--device": ("plan",),
    "--quantization": ("plan",),
    "--adapter": ("plan",),
    "--tokenizer": ("plan",),
    "--model": (
        "plan",
        "trace",
        "unlearn",
    ),
    "--pairs": ("plan",),
    "--ids": ("plan",),
    "--column": (
        "plan",
        "trace",
        "value",
    ),
    "--where": ("trace", "index delete"),
    "--by": ("trace", "score", "value", "select", "price"),
    "--engine": ("trace",),
    "--kind": ("index ann",),
    "--column ": ("select", "price", "index ann"),
    "--unit": ("price",),
    "--keep": ("unlearn",),
    "--weights": ("unlearn",),
    "--influence": ("unlearn",),
    "--task": ("eval detection",),
    "--pool": ("eval selection",),
}
"""Options that take one of some names, columns or places; `nonsense` is none."""


NEEDS = {
    ("unlearn", "--draw"): {"--retain-from": "rows.jsonl"},
    ("unlearn", "--influence"): {"--method": "rapidun", "--retain": "right.jsonl"},
    ("unlearn", "--weights"): {"--method": "rapidun", "--retain": "right.jsonl"},
    ("unlearn", "--keep"): {"--method": "graddiff", "--retain": "right.jsonl"},
}
"""Options that count only beside others."""


def replaced(name: str, option: str, value: str) -> tuple[str, ...]:
    """The command's right words with another value of one option."""
    words = list(RIGHT[name])
    if option in words:
        words[words.index(option) + 1] = value
        return tuple(words)
    if name == "index delete" and option in ("--rows", "--where", "--ids-file"):
        words = ["i.lance"]
    for beside, value_beside in NEEDS.get((name, option), {}).items():
        words = list(replaced(name, beside, value_beside)) if beside in words else [*words, beside, value_beside]
    return (*words, option, value)


def table() -> list[tuple[str, tuple[str, ...], str]]:
    """Every fault: the command, its words, and the value that the message must name."""
    found = []
    for option, names in READS_ROWS.items():
        found += [(name, replaced(name, option, file), file) for name in names for file in NO_FILES]
    for names in FIRST.values():
        found += [(name, (file, *RIGHT[name][1:]), file) for name in names for file in NO_FILES]
    for option, names in NUMERIC.items():
        found += [(name, replaced(name, option, value), value) for name in names for value in NUMBERS]
    for option, names in NAMED.items():
        found += [(name, replaced(name, option.strip(), "nonsense"), "nonsense") for name in names]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    lines(folder / "rows.jsonl", ROWS)
    lines(folder / "few.jsonl", ROWS[:5])
    lines(folder / "right.jsonl", [{**row, "response": f"{row['response']} Sure."} for row in ROWS[5:30]])
    lines(folder / "queries.jsonl", [QUERY, {**QUERY, "id": "q2", "response": "No idea."}])
    (folder / "folder").mkdir()
    (folder / "folder" / "notes.txt").write_text("no rows")
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "binary.jsonl").write_bytes(b"\x00\xff\xfe" * 40)
    built = ("i.lance", "--model", "model", "--data", "rows.jsonl", "--set", "preset=full")
    assert headwater("index", "build", *built, cwd=folder).returncode == 0
    words = ("--candidates", "rows.jsonl", "--target", "queries.jsonl", "--method", "length", "--out", "v.parquet")
    assert headwater("value", *words, cwd=folder).returncode == 0
    words = ("--target", "rows.jsonl", "--model", "model", "--out", "t.query")
    assert headwater("value", "export-target", *words, cwd=folder).returncode == 0
    lines(folder / "other.jsonl", [{"id": row["id"], "ask": row["prompt"], "say": row["response"]} for row in ROWS[:5]])
    return folder


def contents(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def faults_of(place: Path, name: str, words: tuple[str, ...], value: str) -> list[str]:
    """What is wrong with the answer to a fault."""
    before = contents(place)
    done = headwater(*name.split(), *words, cwd=place)
    said = done.stderr.strip().splitlines()
    wrong = []
    if name == "index verify" and done.stdout:  # it prints what it finds, and that is a finding, not a refusal
        return [] if done.returncode == 1 and value in done.stdout else [f"{name} {value}: {done.stdout}"]
    if done.returncode not in (1, 2):
        wrong.append(f"exit code {done.returncode}")
    if len(said) != 1 or not said[0].startswith("headwater: "):
        wrong.append("not one line")
    elif "a fault in headwater" in said[0] or "Error" in said[0]:
        wrong.append("a raw error")
    elif value not in said[0]:
        wrong.append("the value is not named")
    elif "(" not in said[0] and "Did you mean" not in said[0]:
        wrong.append("no remedy")
    if contents(place) != before:
        wrong.append(f"written: {sorted(set(contents(place)) ^ set(before))[:3]}")
    return [f"{name} {' '.join(words)}: {fault}: {done.stderr.strip()[-300:]}" for fault in wrong]


@pytest.mark.parametrize("name", sorted({name for name, _, _ in table()}))
def test_bad_input_gets_one_line_with_value_and_remedy(place, name):
    wrong = [fault for n, words, value in table() if n == name for fault in faults_of(place, n, words, value)]
    assert not wrong, "\n".join(wrong)


TRACE = ("i.lance", "--queries", "queries.jsonl")
BUILD = ("new.lance", "--model", "model", "--data", "rows.jsonl")
FORGET = ("--model", "model", "--forget", "few.jsonl", "--out", "new")
KEPT = (*FORGET, "--retain", "right.jsonl")
GA = (*FORGET, "--method", "ga")
OWN = ("--out", "new", "--model", "model", "--data", "rows.jsonl", "--queries", "queries.jsonl")
VALUES = ("--candidates", "rows.jsonl", "--target", "queries.jsonl", "--out", "new.parquet", "--method", "length")
CONFLICTS: list[tuple[str, tuple[str, ...], str]] = [
    ("index build", (*BUILD, "--workers", "2"), "--workers"),
    ("index build", (*BUILD, "--address", "here:1"), "--address"),
    ("index build", (*BUILD, "--beta", "0.1"), "--beta"),
    ("index build", (*BUILD, "--reference", "model"), "--reference"),
    ("index build", (*BUILD, "--shard", "1/2", "--max-memory", "1GiB"), "--shard"),
    ("index build", (*BUILD, "--shard", "3/2"), "3"),
    ("index build", (*BUILD, "--device", "cpu", "--device-map", "auto"), "device_map"),
    ("index build", (*BUILD, "--set", "preset=tiny"), "tiny"),
    ("index build", (*BUILD, "--block-rows", "0"), "'0'"),
    ("index build", ("rows.jsonl", *BUILD[1:]), "rows.jsonl"),
    ("index build", (*BUILD, "--unusable", "rows.jsonl"), "rows.jsonl"),
    ("index add", ("i.lance", "--data", "rows.jsonl", "--workers", "2"), "--workers"),
    ("index add", ("i.lance", "--data", "i.lance"), "i.lance"),
    ("index delete", ("i.lance",), "condition"),
    ("index delete", ("i.lance", "--id", "r1", "--where", "tokens > 1"), "ids"),
    ("index delete", ("i.lance", "--rows", "few.jsonl", "--id", "r1"), "more than one way"),
    ("index delete", ("i.lance", "--where", ""), "''"),
    ("index delete", ("i.lance", "--where", "tokens =="), "tokens =="),
    ("index delete", ("i.lance", "--where", "tokens = 1; DROP"), "';'"),
    ("index verify", ("i.lance", "--device", "cpu"), "--device"),
    ("index quantise", ("i.lance", "--code", "int8", "--out", "i.lance"), "i.lance"),
    ("index quantise", (*RIGHT["index quantise"], "--relevant", "tokens > 1"), "--relevant"),
    ("trace", ("i.lance",), "nothing to trace"),
    ("trace", ("i.lance", "--prompt", ""), "--prompt"),
    ("trace", ("i.lance", "--prompt", "x", "--response", ""), "--response"),
    ("trace", ("i.lance", "--prompt", "x", "--against", ""), "--against"),
    ("trace", ("i.lance", "--prompt", "x", "--response", "y", "--max-new-tokens", "3"), "--max-new-tokens"),
    ("trace", ("i.lance", "--direction", "nowhere.npy"), "nowhere.npy"),
    ("trace", (*TRACE, "--prompt", "x"), "queries and a prompt"),
    ("trace", (*TRACE, "--response", "x"), "--response"),
    ("trace", (*TRACE, "--damping", "2"), "--damping"),
    ("trace", (*TRACE, "--group-by", "provder"), "provder"),
    ("trace", (*TRACE, "--engine", "ann", "--max-memory", "1GiB"), "--max-memory"),
    ("trace", (*TRACE, "--exact", "30", "--by", "embedding"), "embedding"),
    ("trace", (*TRACE, "--where", "absent = 1"), "no column absent"),
    ("trace", (*TRACE, "--out", "queries.jsonl"), "queries.jsonl"),
    ("trace", (*TRACE, "--out", "new.x", "--html", "new.x"), "new.x"),
    ("trace", (*TRACE, "--out", "folder"), "folder"),
    ("trace", (*TRACE, "--out", "few.jsonl"), "few.jsonl"),
    ("trace", (*TRACE, "--html", "few.jsonl"), "few.jsonl"),
    ("score", (*TRACE, "--out", "few.jsonl"), "few.jsonl"),
    ("score", (*TRACE, "--out", "new.csv"), "new.csv"),
    ("score", (*TRACE, "--out", "i.lance"), "i.lance"),
    ("value", (*VALUES, "--index", "i.lance"), "--index"),
    ("value", (*VALUES, "--student", "new"), "--student"),
    ("value", (*VALUES, "--set", "x=1"), "'x'"),
    ("value", (*VALUES, "--plot", "few.jsonl"), "few.jsonl"),
    ("value", (*VALUES[:-1], "linfik"), "--model"),
    ("value", ("--target", "queries.jsonl", "--out", "new.parquet"), "--candidates"),
    ("value", ("--index", "i.lance", "--target", "queries.jsonl", "--out", "new.parquet", "--limit", "3"), "--limit"),
    ("value", (*VALUES[:5], "v.parquet", *VALUES[6:]), "v.parquet"),
    ("select", ("v.parquet", "--out", "new.jsonl"), "--top"),
    ("select", ("v.parquet", "--top", "5", "--out", "few.jsonl"), "few.jsonl"),
    ("select", ("v.parquet", "--top", "5", "--out", "v.parquet"), "v.parquet"),
    ("price", ("v.parquet", "--out", "new.csv"), "--budget"),
    ("price", ("v.parquet", "--out", "new.csv", "--budget", "nan"), "nan"),
    ("price", ("v.parquet", "--out", "few.jsonl", "--budget", "5"), "few.jsonl"),
    ("price", ("v.parquet", "--out", "new.csv", "--budget", "5", "--rows", "new.csv"), "new.csv"),
    ("unlearn", ("--model", "model", "--out", "new"), "--forget"),
    ("unlearn", (*KEPT, "--from-trace", "x"), "--from-trace"),
    ("unlearn", (*KEPT, "--draw", "4"), "--draw"),
    ("unlearn", (*KEPT, "--full", "--rank", "4"), "--rank"),
    ("unlearn", (*KEPT, "--guard", "0.5"), "0.5"),
    ("unlearn", (*KEPT, "--guard", "1.1", "--bound", "2"), "--guard"),
    ("unlearn", (*KEPT, "--guard", "0", "--stop"), "--stop"),
    ("unlearn", (*KEPT, "--withhold", "1.5"), "1.5"),
    ("unlearn", (*KEPT, "--right", "-1"), "-1"),
    ("unlearn", (*KEPT, "--target", "-1"), "-1"),
    ("unlearn", (*KEPT, "--rate", "nan"), "nan"),
    ("unlearn", (*KEPT, "--base", "model"), "--base"),
    ("unlearn", (*KEPT, "--clean-column", "provder"), "provder"),
    ("unlearn", (*KEPT, "--index", "nowhere.lance"), "nowhere.lance"),
    ("unlearn", (*FORGET, "--retain", "few.jsonl"), "--retain"),
    ("unlearn", (*FORGET[:-1], "model", "--retain", "right.jsonl"), "model"),
    ("unlearn", (*GA, "--compat"), "--compat"),
    ("unlearn", (*GA, "--beta", "1"), "1.0"),
    ("unlearn", (*FORGET, "--method", "taskvector", "--right", "1"), "--right"),
    ("unlearn", (*FORGET, "--method", "retrain", "--retain", "right.jsonl"), "--base"),
    ("unlearn", (*FORGET, "--method", "fisher", "--retain", "right.jsonl", "--steps", "3"), "--steps"),
    ("eval detection", ("--out", "new", "--data", "rows.jsonl"), "--model"),
    ("eval detection", OWN, "--relevant"),
    ("eval detection", (*OWN, "--relevant", "absent = 1"), "absent"),
    ("eval detection", (*OWN, "--relevant", "provider = 'a'", "--relevant-ids", "x"), "--relevant-ids"),
    ("eval detection", (*OWN, "--relevant", "provider = 'z'"), "provider = 'z'"),
    ("eval detection", (*OWN, "--relevant", "provider = 'a'", "--rows", "5"), "--rows"),
    ("eval lds", OWN, "--recipe"),
    ("eval lds", (*OWN, "--recipe", "nowhere.yaml"), "nowhere.yaml"),
    ("eval lds", ("--out", "new", "--recipe", "x.yaml"), "--recipe"),
    ("view bundle", ("i.lance", "i.lance"), "i.lance"),
]
"""Options that exclude each other or do nothing, outputs in the place of something else: the command, its words, and
what the message must name."""


@pytest.mark.parametrize("name", sorted({name for name, _, _ in CONFLICTS}))
def test_what_does_not_go_together_gets_one_line_and_changes_nothing(place, name):
    wrong = [fault for n, words, value in CONFLICTS if n == name for fault in faults_of(place, n, words, value)]
    assert not wrong, "\n".join(wrong)


def test_a_file_of_ours_is_written_again_and_one_of_somebodys_only_by_force(place):
    words = ("price", "v.parquet", "--budget", "5", "--out", "new.csv", "--rows", "new-rows.csv")
    for _ in range(2):
        assert headwater(*words, cwd=place).returncode == 0
    (place / "new-theirs.csv").write_text("theirs")
    words = ("price", "v.parquet", "--budget", "5", "--out", "new-theirs.csv")
    refused = headwater(*words, cwd=place)
    assert "--out new-theirs.csv: a file is here that headwater did not write" in refused.stderr
    assert (place / "new-theirs.csv").read_text() == "theirs"
    assert headwater(*words, "--force", cwd=place).returncode == 0
    assert (place / "new-theirs.csv").read_text() != "theirs"
    for made in place.glob("new*"):
        made.unlink()


POOL = ("--candidates", "rows.jsonl", "--target", "queries.jsonl", "--out", "new.parquet", "--method")
PLAN = ("--model", "model", "--data")
BUY = ("v.parquet", "--out", "new.csv", "--budget")
RENAMED = ("--column", "prompt=ask", "--column", "response=say")
REMEDIES: list[tuple[str, tuple[str, ...], str, tuple[str, ...]]] = [
    ("trace", (*TRACE, "--by", "embeding"), "embedding", (*TRACE, "--by", "embedding")),
    ("trace", (*TRACE, "--span", "14"), "leave it out", TRACE),
    ("trace", (*TRACE, "--engine", "exakt"), "'exact'", (*TRACE, "--engine", "exact")),
    ("trace", (*TRACE, "--where", "provder = 'a'"), "provider", (*TRACE, "--where", "provider = 'a'")),
    ("trace", (*TRACE, "--top", "0"), "1 or more", (*TRACE, "--top", "1")),
    ("trace", (*TRACE, "--top"), "--top", (*TRACE, "--top", "1")),
    ("trace", (*TRACE, "--tpo", "3"), "--top", (*TRACE, "--top", "3")),
    ("index info", ("folder",), "headwater index build", ("i.lance",)),
    ("value", (*POOL, "lenght"), "'length'", (*POOL, "length")),
    ("value", (*POOL, "length", "--model", "model"), "leave it out", (*POOL, "length")),
    ("value", (*POOL, "length", "--by", "provder"), "provider", (*POOL, "length", "--by", "provider")),
    ("value", (*POOL, "length", "--limit", "x"), "a whole number", (*POOL, "length", "--limit", "9")),
    (
        "select",
        ("v.parquet", "--top", "5", "--out", "new.txt"),
        ".jsonl",
        ("v.parquet", "--top", "5", "--out", "new.jsonl"),
    ),
    ("price", (*BUY, "0"), "more than 0", (*BUY, "1")),
    ("price", (*BUY, "9", "--reserve", "1e9"), "lower --reserve", (*BUY, "9", "--reserve", "0")),
    ("price", (*BUY, "9", "--unit", "rows"), "row or", (*BUY, "9", "--unit", "row")),
    ("price", (*BUY, "9", "--by", "provder"), "provider", (*BUY, "9", "--by", "provider")),
    ("plan", (*PLAN, "other.jsonl"), "--column", (*PLAN, "other.jsonl", *RENAMED)),
    ("plan", (*PLAN, "rows.jsonl", "--streaming"), "leave --streaming out", (*PLAN, "rows.jsonl")),
    ("plan", (*PLAN, "rows.jsonl", "--merge"), "leave it out", (*PLAN, "rows.jsonl")),
    ("plan", (*PLAN, "rows.jsonl", "--max-memory", "many"), "1.5GiB", (*PLAN, "rows.jsonl", "--max-memory", "8GiB")),
]
"""A fault, words of its remedy, and the words of the command when the remedy is followed."""


@pytest.mark.parametrize(("name", "words", "remedy", "mended"), REMEDIES)
def test_a_remedy_works_when_it_is_followed(place, name, words, remedy, mended):
    done = headwater(*name.split(), *words, cwd=place)
    assert done.returncode in (1, 2), done.stderr
    assert remedy in done.stderr
    assert not list(place.glob("new.*"))
    again = headwater(*name.split(), *mended, cwd=place)
    assert again.returncode == 0, again.stderr
    for made in place.glob("new.*"):
        made.unlink()


def test_the_table_names_options_that_there_are():
    assert set(RIGHT) == set(COMMANDS)
    for name, words, _ in table():
        given = {word for word in words if word.startswith("--")}
        assert given <= set(options(COMMANDS[name])), name


def test_the_right_words_are_right(place):
    ran = ("methods", "schema", "index info", "index verify", "select", "price", "value audit")
    for name in ran:
        done = headwater(*name.split(), *RIGHT[name], cwd=place)
        assert done.returncode == 0, (name, done.stderr)
    assert json.loads((place / "new.jsonl").read_text().splitlines()[0])["id"]
