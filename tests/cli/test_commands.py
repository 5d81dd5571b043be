"""The commands as users run them, on a real folder: exit codes, one line on stderr, nothing lost.

Commands run in this process, through the entry point the console script calls; one test starts a real process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from headwater.cli.main import run
from zoo import tiny_loaded

ROWS = [
    {
        "id": f"r{i}",
        "prompt": f"What is {i} plus {i}?",
        "response": f"It is {2 * i}, of course.",
        "provider": "ab"[i % 2],
    }
    for i in range(40)
]
QUERY = {"id": "q1", "prompt": "What is 7 plus 7?", "response": "It is 14, of course."}


@dataclass(frozen=True)
class Done:
    """What a finished command left."""

    returncode: int
    stdout: str
    stderr: str


def headwater(*words: object, cwd: Path) -> Done:
    """Run a command in `cwd`."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = Path.cwd()
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os.chdir(before)
    return Done(code, out.getvalue(), err.getvalue())


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model, rows, queries and an index built from them by the command."""
    folder = tmp_path_factory.mktemp("commands")
    for name, seed in (("model", 0), ("other", 1)):
        loaded = tiny_loaded("llama", seed=seed)
        loaded.model.save_pretrained(folder / name)
        loaded.tokenizer.save_pretrained(folder / name)
    lines(folder / "rows.jsonl", ROWS)
    lines(folder / "queries.jsonl", [QUERY, {**QUERY, "id": "q2", "response": "No idea."}])
    built = headwater("index", "build", "i.lance", "--model", "model", "--data", "rows.jsonl", "--json", cwd=folder)
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["rows"] == len(ROWS)
    return folder


def fails(place: Path, code: int, *words: object) -> str:
    """Run a command that must fail, and return its one line."""
    done = headwater(*words, cwd=place)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    message = [line for line in done.stderr.splitlines() if not line.startswith("warning:")]
    assert len(message) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return message[0]


def test_info_says_what_an_index_is(place):
    facts = json.loads(headwater("index", "info", "i.lance", "--json", cwd=place).stdout)
    assert facts["rows"] == 40
    assert facts["method"]["name"] == "rise"
    assert facts["warning"] is None
    assert "the head" in headwater("index", "info", "i.lance", cwd=place).stdout


def test_trace_finds_the_row_and_writes_hits_and_report(place):
    words = ("trace", "i.lance", "--queries", "queries.jsonl", "--top", 5, "--out", "hits.jsonl", "--html", "r.html")
    done = headwater(*words, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    trace = json.loads(done.stdout)
    assert [len(query["hits"]) for query in trace["queries"]] == [5, 5]
    first = trace["queries"][0]["hits"][0]
    assert first["id"] == "r7"
    for side in ("row_tokens", "query_tokens"):
        values = [value for value in first[side]["values"] if value is not None]
        assert sum(values) == pytest.approx(first["score"], abs=0.03)  # the index holds codes
    hits = [json.loads(line) for line in (place / "hits.jsonl").read_text().splitlines()]
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5] * 2
    assert set(hits[0]) >= {"query", "rank", "id", "score", "prompt", "response", "provider"}
    assert "What is 7 plus 7?" in (place / "r.html").read_text()


def test_trace_generates_a_missing_response(place):
    done = headwater("trace", "i.lance", "--prompt", "What is 7 plus 7?", "--top", 1, "--json", cwd=place)
    (query,) = json.loads(done.stdout)["queries"]
    assert query["generated"]
    assert query["response"]


def test_trace_takes_filters_spans_other_columns_and_the_lowest(place):
    given = ("trace", "i.lance", "--prompt", QUERY["prompt"], "--response", QUERY["response"], "--top", 40, "--json")
    own = json.loads(headwater(*given, "--where", "provider = 'a'", cwd=place).stdout)["queries"][0]["hits"]
    assert len(own) == 20
    assert {hit["metadata"]["provider"] for hit in own} == {"a"}
    lowest = json.loads(headwater(*given, "--lowest", cwd=place).stdout)["queries"][0]["hits"]
    assert lowest[-1]["id"] == "r7"
    for more in (("--by", "embedding"), ("--by", "rise+embedding"), ("--span", "14")):
        done = headwater(*given, *more, cwd=place)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["queries"][0]["hits"]) == 40


def test_score_writes_every_row_against_every_query(place):
    done = headwater("score", "i.lance", "--queries", "queries.jsonl", "--out", "s.parquet", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(place / "s.parquet")
    assert table.schema.names == ["id", "q1", "q2"]
    assert table["id"].to_pylist() == [row["id"] for row in ROWS]
    assert table["q1"].to_pylist().index(max(table["q1"].to_pylist())) == 7


def test_methods_lists_every_method(place):
    listed = json.loads(headwater("methods", "--json", cwd=place).stdout)["methods"]
    assert {"rise"} <= {method["name"] for method in listed}
    assert headwater("methods", cwd=place).returncode == 0


BUILD = ("index", "build", "new.lance", "--model", "model", "--data", "rows.jsonl")


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (
            2,
            ("index", "build", "n", "--model", "model", "--data", "rows.jsonl", "--method", "rize"),
            "did you mean 'ri",
        ),
        (2, (*BUILD, "--set", "temprature=1"), "did you mean 'temperature'?"),
        (2, (*BUILD, "--set", "preset=papre"), "did you mean 'paper'?"),
        (2, (*BUILD, "--set", "seed"), "is not name=value"),
        (2, (*BUILD, "--set", "seed=x"), "'x' is not a value of type int"),
        (2, (*BUILD, "--template", "chatty"), "chat"),
        (1, (*BUILD, "--column", "prompt=ask"), "no column 'ask'"),
        (1, ("index", "build", "n", "--model", "modell", "--data", "rows.jsonl"), "model"),
        (1, ("index", "build", "n", "--model", "model", "--data", "nothing.jsonl"), "nothing.jsonl"),
        (1, ("index", "build", "i.lance", "--model", "model", "--data", "rows.jsonl"), "--resume"),
        (1, (*BUILD, "--max-tokens", "3"), "--max-tokens"),
        (1, ("index", "info", "nowhere.lance"), "there is no index here"),
        (1, ("trace", "i.lance", "--queries", "queries.jsonl", "--model", "other"), "weights: "),
        (1, ("trace", "i.lance", "--queries", "queries.jsonl", "--where", "nonsense ="), "cannot be used"),
        (2, ("trace", "i.lance", "--queries", "queries.jsonl", "--by", "embeding"), "did you mean 'embedding'?"),
        (1, ("trace", "i.lance", "--prompt", "a", "--response", "b c", "--span", "zebra"), "b c"),
        (2, ("trace", "i.lance"), "give one: queries, a prompt or a direction"),
        (2, ("trase",), "No such command"),
    ],
)
def test_bad_input_is_one_clear_line(place, code, words, expected):
    assert expected in fails(place, code, *words)
    assert not (place / "new.lance").exists()
    assert not (place / "n").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no rows"),
        ('{"prompt": "a", "response": "b"}\n{"prompt": \n', ":2"),
        ('{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n', ":2"),
        ('{"id": "x", "text": "a b"}\n{"id": "x", "text": "c d"}\n', "'x'"),
    ],
)
def test_a_bad_file_names_the_line(place, text, expected):
    (place / "bad.jsonl").write_text(text)
    words = ("index", "build", "bad.lance", "--model", "model", "--data", "bad.jsonl")
    message = fails(place, 1, *words)
    assert expected in message
    assert "bad.jsonl" in message


def test_an_unfinished_build_resumes_and_says_so(place):
    (place / "half.jsonl").write_text((place / "rows.jsonl").read_text() + '{"prompt": "broken"\n')
    words = ("index", "build", "half.lance", "--model", "model", "--data", "half.jsonl")
    fails(place, 1, *words)
    lines(place / "half.jsonl", ROWS)
    done = headwater(*words, "--resume", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == len(ROWS)


def test_a_real_process_with_and_without_debug(place):
    command = [sys.executable, "-m", "headwater", "index", "info", "nowhere.lance"]
    plain = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr == "headwater: nowhere.lance: there is no index here (headwater index build makes one)\n"
    debug = subprocess.run([*command, "--debug"], cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
