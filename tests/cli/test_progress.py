"""Progress where there is no terminal, and what an interrupted command says."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_commands import headwater

import headwater as hw
from headwater.cli import progress as shown
from headwater.cli.progress import LINE_EVERY, Bar, Lines, duration
from headwater.core.progress import listening, tell
from zoo import tiny_loaded


def test_a_line_now_and_then_says_how_far_how_fast_and_how_long() -> None:
    now: list[float] = [0.0]
    written: list[str] = []
    bar = Bar(Lines("reading rows", written.append, lambda: now[0]).update)
    for seconds in range(0, 100, 5):
        now[0] = float(seconds)
        bar.rows(100 * seconds, 50_000, 0)
    assert [line.split(" rows,")[0] for line in written] == [
        "reading rows: 3,000 of 50,000",
        "reading rows: 6,000 of 50,000",
        "reading rows: 9,000 of 50,000",
    ]
    assert written[0] == "reading rows: 3,000 of 50,000 rows, 100 a second, about 8 min left"


def test_a_stage_that_begins_anew_has_a_rate_of_its_own() -> None:
    now: list[float] = [0.0]
    written: list[str] = []
    bar = Bar(Lines("valuing", written.append, lambda: now[0]).update)
    bar.stage("labels", 900, 1000)
    now[0] = LINE_EVERY
    bar.stage("rows", 0, 10_000)
    now[0] = 2 * LINE_EVERY
    bar.stage("rows", 3_000, 10_000)
    assert written[-1] == "rows: 3,000 of 10,000 rows, 100 a second, about 70 s left"
    now[0] = 3 * LINE_EVERY
    bar.stage("rows", 0, 10_000)  # the same once more, of another pool
    now[0] = 4 * LINE_EVERY
    bar.stage("rows", 3_000, 10_000)
    assert written[-1] == "rows: 3,000 of 10,000 rows, 100 a second, about 70 s left"
    now[0] = 5 * LINE_EVERY
    bar.share("training", 0.5)
    assert written[-1].startswith("training: 50 %")


@pytest.mark.parametrize(("seconds", "text"), [(45.0, "45 s"), (720.0, "12 min"), (12_000.0, "3 h 20 min")])
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ctrl_c_in_the_middle_of_a_block_keeps_its_rows_and_the_command_goes_on(tmp_path: Path) -> None:
    """A real command on a terminal, whose bar says when it is in the middle of its only block of 400 rows."""
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"id": f"r{i}", "text": f"{i} is a row of few words" + " and more" * (i % 7)} for i in range(400)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["--model", "model", "--data", "rows.jsonl", "--set", "preset=small", "--tokens-per-batch", "64"]
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "headwater", "index", "build", "a.lance", *words]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=side, stdout=subprocess.DEVNULL, start_new_session=True)
    os.close(side)
    shown, stopped = "", False
    with contextlib.suppress(OSError):  # a terminal whose other side is closed cannot be read
        while piece := os.read(terminal, 4096).decode(errors="replace"):
            shown += piece
            if not stopped and re.search(r"[1-9]\d*/400", shown):
                running.send_signal(signal.SIGINT)
                stopped = True
    assert running.wait(timeout=60) == 130, shown
    kept = hw.open_index(tmp_path / "a.lance").count
    assert 0 < kept < len(rows)
    assert shown.strip().endswith(
        f"interrupted; {kept} rows are kept in a.lance; the same command with --resume goes on"
    )
    for name, more in (("a.lance", ["--resume"]), ("b.lance", [])):
        done = headwater("index", "build", name, *words, *more, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    ended, undisturbed = (hw.open_index(tmp_path / name) for name in ("a.lance", "b.lance"))
    assert ended.dataset.to_table() == undisturbed.dataset.to_table()


def test_ctrl_c_of_a_command_that_keeps_nothing_says_so(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from headwater.cli import main, methods
from headwater.cli.main import app, run
@app.command("wait")
def wait() -> None:
    os.kill(os.getpid(), signal.SIGINT)
run(["wait"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, "headwater: interrupted; nothing was written; run it again")


def test_lines_come_although_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "LINE_EVERY", 0.05)
    written: list[str] = []
    bar = Lines("compacting", written.append)
    with bar.ticking():
        time.sleep(0.2)
        bar.update(3, 10, "parts", "")
        time.sleep(0.2)
    count = len(written)
    assert written[0].startswith("compacting: begun ")
    assert written[-1].startswith("compacting: 3 of 10 parts, ")
    assert count >= 2
    time.sleep(0.15)
    assert len(written) == count, "no line after the end"


def test_what_is_told_deep_inside_reaches_the_command() -> None:
    heard: list[tuple[str, int, int | None, str]] = []
    tell("nobody listens", 1, 2)
    with listening(lambda *report: heard.append(report)):
        tell("scoring", 3, 10)
        tell("unlearning", 1, 5, "steps")
    tell("nobody listens", 1, 2)
    assert heard == [("scoring", 3, 10, "rows"), ("unlearning", 1, 5, "steps")]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("trace", "i.lance", "--queries", "q.jsonl", "--out", "h.jsonl"), "nothing was written; run it again"),
        (("score", "i.lance", "--queries", "q.jsonl", "--out", "s.parquet"), "nothing was written; run it again"),
        (("index", "compact", "i.lance"), "until `headwater index compact` is run again and ends"),
        (("index", "quantise", "i.lance", "--code", "int8", "--out", "n.lance"), "with --resume goes on"),
        (("value", "--index", "i.lance", "--target", "q.jsonl", "--out", "v.parquet"), "with --resume goes on"),
        (("unlearn", "--model", "m", "--forget", "q.jsonl", "--out", "u"), "--resume goes on from the last one"),
        (("eval", "sanity", "--out", "e"), "what is finished is kept in e; the same command goes on"),
    ],
)
def test_ctrl_c_of_each_long_command_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], kept: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    places = ("api.tracing.trace", "api.tracing.write_scores", "api.indexing.compact", "api.indexing.quantise")
    places += ("api.valuing.value_index", "api.unlearning.unlearn", "evaluation.runs.run_evaluation")
    for place in places:
        monkeypatch.setattr(f"headwater.{place}", interrupt)
    hw.build(tmp_path / "i.lance", model=tiny_loaded("llama"), data=[{"id": "a", "text": "a few words"}])
    (tmp_path / "q.jsonl").write_text('{"id": "q", "text": "a few words"}\n')
    done = headwater(*words, cwd=tmp_path)
    assert done.returncode == 130
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("headwater: interrupted; ")
    assert kept in said
