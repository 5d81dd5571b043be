"""Run files: settings as YAML in, the settings of a run out, and the same run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from test_commands import QUERY, ROWS, headwater, lines

import headwater as hw
from zoo import tiny_loaded


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model, rows, queries and a run file."""
    folder = tmp_path_factory.mktemp("runs")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    lines(folder / "rows.jsonl", ROWS)
    lines(folder / "queries.jsonl", [QUERY])
    settings = {"model": "model", "data": "rows.jsonl", "limit": 12, "set": {"preset": "small"}, "max-tokens": 64}
    (folder / "build.yaml").write_text(yaml.safe_dump(settings))
    return folder


def vectors(path: Path) -> list:
    return hw.open_index(path).dataset.to_table(columns=["id", "rise", "checksum"]).to_pylist()


def test_an_option_that_is_zero_is_kept(place):
    command = (
        "value",
        "--candidates",
        "rows.jsonl",
        "--target",
        "rows.jsonl",
        "--out",
        "z.parquet",
        "--method",
        "length",
    )
    done = headwater(*command, "--duplicates", 0, cwd=place)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((place / "z.parquet.run.yaml").read_text())["settings"]["duplicates"] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limit: 3\nlimit: 4\n", "given twice"),
        ("limit: 3\nsettings: {limit: 4}\n", "'limit' does not stand under `settings`"),
        ("command: index build\nlimit: 3\n", "'limit' does not stand under `settings`"),
        ("set: {seed: null}\n", "odd.yaml: set: seed: there is no value"),
        ("data: [null]\n", "odd.yaml: data: there is no value"),
        ("set: {seed: [1]}\n", "set: seed: [1] is not one value"),
        ("limit: true\n", "true is not a value"),
        ("method: yes\n", "true is not a value"),
    ],
)
def test_a_setting_that_would_be_dropped_or_misread_is_refused(place, text, said):
    (place / "odd.yaml").write_text(text)
    done = headwater("index", "build", "odd.lance", "--config", "odd.yaml", cwd=place)
    assert done.returncode != 0
    assert said in done.stderr
    assert not (place / "odd.lance").exists()


def test_two_run_files_are_refused_and_a_run_file_does_not_run_itself(place):
    for name in ("one.yaml", "two.yaml"):
        (place / name).write_text("limit: 3\n")
    twice = headwater("index", "build", "t.lance", "--config", "one.yaml", "--config", "two.yaml", cwd=place)
    assert twice.returncode == 2
    assert "--config: 2 files: one.yaml, two.yaml" in twice.stderr
    (place / "again.yaml").write_text("command: run\nsettings: {file: again.yaml}\n")
    again = headwater("run", "again.yaml", cwd=place)
    assert again.returncode == 1
    assert "its command is `run`" in again.stderr
    (place / "bare.yaml").write_text("command: methods\n")
    assert headwater("run", "bare.yaml", cwd=place).returncode == 0


def test_an_index_refuses_the_options_of_a_pool(place):
    hw.build(place / "v.lance", model=str(place / "model"), data=ROWS[:13])
    command = ("value", "--index", "v.lance", "--target", "queries.jsonl", "--out", "v.parquet")
    done = headwater(*command, "--method", "gradcos", cwd=place)
    assert done.returncode != 0
    assert "--method would do nothing" in done.stderr
    assert headwater(*command, cwd=place).returncode == 0
    assert headwater("run", "v.parquet.run.yaml", "--out", "w.parquet", cwd=place).returncode == 0


def test_settings_come_from_the_file_and_flags_win(place):
    done = headwater("index", "build", "a.lance", "--config", "build.yaml", "--limit", 9, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["rows"] == 9
    assert facts["method"]["options"]["width_r"] == 12
    assert facts["tokenization"]["max_tokens"] == 64


def test_a_run_writes_its_settings_and_does_the_same_again(place):
    headwater("index", "build", "b.lance", "--config", "build.yaml", cwd=place)
    kept = yaml.safe_load((place / "b.lance.run.yaml").read_text())
    assert kept["command"] == "index build"
    assert kept["settings"]["limit"] == 12
    assert kept["settings"]["set"] == ["preset=small"]
    before = vectors(place / "b.lance")
    (place / "b.lance").rename(place / "moved.lance")
    done = headwater("run", "b.lance.run.yaml", cwd=place)
    assert done.returncode == 0, done.stderr
    assert vectors(place / "b.lance") == before
    assert yaml.safe_load((place / "b.lance.run.yaml").read_text()) == kept


def test_a_file_result_has_its_settings_beside_it_and_flags_win_over_them(place):
    headwater("index", "build", "c.lance", "--config", "build.yaml", cwd=place)
    words = ("trace", "c.lance", "--queries", "queries.jsonl", "--top", 2, "--out", "hits.jsonl")
    assert headwater(*words, cwd=place).returncode == 0
    assert (place / "hits.jsonl.run.yaml").is_file()
    assert headwater("run", "hits.jsonl.run.yaml", "--out", "more.jsonl", "--top", 3, cwd=place).returncode == 0
    assert len((place / "more.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "command", "code", "message"),
    [
        ("modle: x\n", "index build x.lance", 2, "did you mean 'model'?"),
        ("[1, 2]\n", "index build x.lance", 1, "a list is not a mapping"),
        ("a: [\n", "index build x.lance", 1, "cannot be read"),
        ("command: trace\nsettings: {top: 3}\n", "index build x.lance", 2, "settings of 'headwater trace'"),
        ("limit: {a: b}\n", "index build x.lance", 2, "is not one value"),
        ("limit: many\n", "index build x.lance --model model --data rows.jsonl", 2, "--limit"),
        ("settings: {top: 3}\n", "", 1, "does not name a command"),
        ("command: index bild\nsettings: {}\n", "", 2, "No such command"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(place, text, command, code, message):
    (place / "bad.yaml").write_text(text)
    words = (*command.split(), "--config", "bad.yaml") if command else ("run", "bad.yaml")
    done = headwater(*words, cwd=place)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (place / "x.lance").exists()


def test_an_option_that_had_another_name_is_still_understood(tmp_path: Path) -> None:
    lines(tmp_path / "bad.jsonl", ROWS[:4])
    for old in (["--lr", "fast"], ["--lr=fast"]):
        done = headwater("unlearn", "--model", "m", "--forget", "bad.jsonl", "--out", "u", *old, cwd=tmp_path)
        assert done.returncode == 2
        assert "--rate: 'fast' is not a learning rate" in done.stderr
    (tmp_path / "old.yaml").write_text("lr: fast\nmodel: m\nforget: bad.jsonl\nout: u\n")
    assert "--rate: 'fast'" in headwater("unlearn", "--config", "old.yaml", cwd=tmp_path).stderr
