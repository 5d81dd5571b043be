"""Whole commands that are stopped at a random moment, given again, and compared with an undisturbed run.

A launcher that has imported everything forks each command on a fresh copy of a folder. It never touches the store or
the model itself, whose threads do not survive a fork.

    python tests/oracles/killed_commands.py FOLDER [--times 30] [--commands build,add,...] [--seed 0] [--ctrl-c]

They are stopped with SIGKILL, or by Ctrl-C, which lets them keep what they have.

Prints one JSON object: command to how many kills hit it, after how many the result was the same, and what was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["HF_HUB_OFFLINE"] = "1"

import pyarrow.parquet as pq

import headwater.api.indexing
import headwater.api.tracing
import headwater.api.unlearning
import headwater.api.valuing
import headwater.report.unlearning  # noqa: F401
from headwater.cli.main import run
from headwater.index.checks import check_index
from headwater.index.store import open_index
from headwater.indexing import blocks, quantise
from zoo import tiny_loaded

ROWS, BLOCK_ROWS = 48, 8
UNLEARN = "unlearn --model model --forget bad.jsonl --retain good.jsonl --out run --rate 0.003 --steps 8 --guard 0"
UNLEARN += " --influence gradcos --set buckets=64 --target 99 --save-every 2"

COMMANDS = {
    "build": "index build new.lance --model model --data rows.jsonl",
    "add": "index add i.lance --data more.jsonl",
    "delete": "index delete i.lance --where 'n%3=1'",
    "compact": "index compact less.lance",
    "quantise": "index quantise i.lance --code int8 --out coded.lance",
    "value": "value --candidates rows.jsonl --target q.jsonl --model model --method gradcos --out values.parquet",
    "trace": "trace i.lance --queries q.jsonl --out hits.jsonl --force",
    "unlearn": UNLEARN,
}
RESUMED = ("build", "quantise", "unlearn", "value")
"""Commands that are given again with `--resume`."""

INDEXES = {
    "build": "new.lance",
    "add": "i.lance",
    "delete": "i.lance",
    "compact": "less.lance",
    "quantise": "coded.lance",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ctrl-c", action="store_true")
    options = parser.parse_args()
    how = signal.SIGINT if options.ctrl_c else signal.SIGKILL
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    blocks._FEWEST_ROWS = blocks._MOST_ROWS = BLOCK_ROWS
    quantise._READ_BYTES, quantise.rows_per_block = 1, lambda row_bytes: BLOCK_ROWS  # type: ignore[assignment]
    base, dice, told = options.folder / "base", random.Random(options.seed), {}
    if not base.exists():
        finished(options.folder, lambda: prepare(base))
    for name in options.commands.split(","):
        told[name] = killed(name, base, options.folder / name, times=options.times, dice=dice, how=how)
        print(f"{name}: {told[name]}", file=sys.stderr, flush=True)
    print(json.dumps(told))


def prepare(base: Path) -> None:
    base.mkdir(parents=True)
    os.chdir(base)
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained("model")
    loaded.tokenizer.save_pretrained("model")
    asked = [{"id": f"r{i}", "prompt": f"What is {i}?", "response": f"It is {i * 7}.", "n": i} for i in range(ROWS)]
    more = [
        {**row, "id": f"m{i}", "prompt": f"Who is {i}?", "n": i + 0.5, "fresh": "yes"} for i, row in enumerate(asked)
    ]
    for file, rows in (("rows", asked), ("more", more), ("bad", asked[:9]), ("good", asked[9:]), ("q", asked[:4])):
        Path(f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("hits.jsonl").write_text("the old hits\n")
    command("index build i.lance --model model --data rows.jsonl")
    shutil.copytree("i.lance", "less.lance")
    command("index delete less.lance --where 'n < 20'")


def killed(
    name: str, base: Path, folder: Path, *, times: int, dice: random.Random, how: signal.Signals = signal.SIGKILL
) -> dict[str, object]:
    """Stop the command so many times, each time on a new copy of the base, and give it again."""
    resumed = f"{COMMANDS[name]} --resume" if name in RESUMED else COMMANDS[name]
    place = folder / "place"  # one path for all, because an index records where its model is
    whole = fresh(base, place)
    began = time.perf_counter()
    finished(whole, lambda: command(COMMANDS[name]))
    lasts, expected = time.perf_counter() - began, outcome(name, whole)
    hits, same, wrong = 0, 0, []
    for attempt in range(5 * times):
        if hits == times:
            break
        fresh(base, place)
        if fork(place, lambda: command(COMMANDS[name]), after=dice.uniform(0, lasts), how=how) == 0:
            continue
        hits += 1
        wrong += [f"{attempt}: {fault}" for fault in faults_between(name, place)]
        code = fork(place, lambda: command(resumed))
        if outcome(name, place) == expected:
            same += 1
        else:
            wrong.append(f"{attempt}: exit {code}, and the result is not that of an undisturbed run")
    return {"kills": hits, "same": same, "wrong": wrong}


def faults_between(name: str, place: Path) -> list[str]:
    """What must not be there between a kill and the second run."""
    if name == "trace":
        text = (place / "hits.jsonl").read_text()
        whole = text == "the old hits\n" or text.endswith("}\n")
        return [] if whole else ["half a file of hits"]
    if name in ("unlearn", "value") or not (place / INDEXES[name]).exists():
        return []
    found: list[str] = []

    def look() -> None:
        kinds = {fault.kind for fault in check_index(str(place / INDEXES[name]))}
        if not kinds <= {"unfinished"}:
            raise SystemExit(1)

    if fork(place, look):
        found.append("the index is not sound")
    return found


def outcome(name: str, place: Path) -> str:
    """A digest of what the command left, computed in a child."""
    file = place.parent / "outcome.json"
    file.unlink(missing_ok=True)

    def look() -> None:
        if name == "trace":
            seen = (place / "hits.jsonl").read_bytes()
        elif name == "value":
            seen = repr(pq.read_table(place / "values.parquet").to_pylist()).encode()
        elif name == "unlearn":
            seen = (place / "run" / "model" / "model.safetensors").read_bytes()
        else:
            index = open_index(place / INDEXES[name])
            columns = sorted(index.dataset.schema.names)
            rows = index.dataset.to_table(columns).to_pylist()
            faults = [str(fault) for fault in check_index(index.path)]
            seen = repr((columns, rows, faults, index.manifest.status, index.manifest.tally)).encode()
        file.write_text(hashlib.sha256(seen).hexdigest())

    fork(place, look)
    return file.read_text() if file.exists() else "nothing"


def fresh(base: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, place)
    return place


def finished(place: Path, work: Callable[[], None]) -> None:
    if fork(place, work) not in (0, 1):
        raise SystemExit(f"{place}: the undisturbed run failed")


def command(line: str) -> None:
    """Run a command; raises `SystemExit` if it ends with another code than 0."""
    try:
        run(shlex.split(line))
    except SystemExit as stop:
        if stop.code:
            raise


def fork(
    place: Path, work: Callable[[], None], *, after: float | None = None, how: signal.Signals = signal.SIGKILL
) -> int:
    """Run in a child with `place` as its folder; its exit code, or −9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            if place.exists():
                os.chdir(place)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            if after is not None:
                os.dup2(null, 2)
            work()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            code = 3
        os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, how)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
