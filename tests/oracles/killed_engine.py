"""Random SIGKILLs of drivers, of Ray workers and of shard jobs, and the documented way on after each.

    python tests/oracles/killed_engine.py FOLDER --what worker|driver|shard --times 20 [--seed 0]

Builds a small index with a tiny model again and again. A build that was killed goes on with --resume, a shard likewise.
At the end the index must be that of an undisturbed build, every row once. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

ROWS, SHARDS = 120, 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--what", choices=("worker", "driver", "shard"), required=True)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    prepare(given.folder)
    clean, dice = given.folder / "clean.lance", random.Random(given.seed)
    if not clean.exists():
        subprocess.run(command(given.folder, clean), check=True, capture_output=True)
    kills = indexes = tries = 0
    while kills < given.times:
        out = given.folder / f"{given.what}-{indexes}.lance"
        found = {"worker": under_ray, "driver": under_ray, "shard": in_shards}[given.what](
            given.folder, out, dice, given.what, given.times - kills
        )
        kills, tries, indexes = kills + found[0], tries + found[1], indexes + 1
        require_equal(out, clean)
    print(json.dumps({"what": given.what, "kills": kills, "indexes": indexes, "runs": tries}))


def prepare(folder: Path) -> None:
    """A tiny model and rows."""
    from zoo import tiny_tokenizer, zoo

    if (folder / "rows.jsonl").exists():
        return
    zoo()["llama"]().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    rows = [{"id": f"r{i}", "prompt": f"question {i}?", "response": "so " * (i % 9) + str(i)} for i in range(ROWS)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def command(folder: Path, out: Path, *more: str) -> list[str]:
    begin = [sys.executable, "-m", "headwater.cli.main", "index", "build", str(out), "--model", str(folder / "model")]
    rows = [
        "--data",
        str(folder / "rows.jsonl"),
        "--set",
        "preset=small",
        "--tokens-per-batch",
        "64",
        "--device",
        "cpu",
    ]
    return [*begin, *rows, "--block-rows", "4", "--resume", *more]


def workers_of(driver: int) -> list[int]:
    """The processes of Ray actors that the driver's cluster runs."""
    family, found = {driver}, []
    for _ in range(4):
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                status = (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
                title = (entry / "cmdline").read_bytes().decode(errors="replace")
            except (OSError, IndexError):
                continue
            if int(status[1]) in family:
                family.add(int(entry.name))
                if title.startswith("ray::Worker") and int(entry.name) not in found:
                    found.append(int(entry.name))
    return found


def under_ray(folder: Path, out: Path, dice: random.Random, what: str, most: int) -> tuple[int, int]:
    """One index, whose driver or workers are killed at random moments until a run ends; returns kills and runs."""
    kills = runs = 0
    while True:
        runs += 1
        with (folder / "log.txt").open("ab") as log:
            driver = subprocess.Popen(command(folder, out, "--engine", "ray", "--workers", "2"), stderr=log, stdout=log)
        while driver.poll() is None:
            time.sleep(dice.uniform(0.05, 1.5))
            rows = committed(out)
            if kills >= most or rows is None or driver.poll() is not None:
                continue
            victims = workers_of(driver.pid) if what == "worker" else [driver.pid]
            if victims and dice.random() < 0.5:
                os.kill(dice.choice(victims), signal.SIGKILL)
                kills += 1
        if driver.returncode == 0:
            return kills, runs
        if what == "worker" and driver.returncode != 1:
            raise SystemExit(f"the driver ended with {driver.returncode}")


def in_shards(folder: Path, out: Path, dice: random.Random, what: str, most: int) -> tuple[int, int]:
    """One index in shards, each of which is killed at random moments until it ends; returns kills and runs."""
    kills = runs = 0
    for number in range(1, SHARDS + 1):
        while True:
            runs += 1
            with (folder / "log.txt").open("ab") as log:
                job = subprocess.Popen(command(folder, out, "--shard", f"{number}/{SHARDS}"), stderr=log, stdout=log)
            if kills < most and dice.random() < 0.8:
                try:
                    job.wait(timeout=dice.uniform(0.5, 12.0))
                except subprocess.TimeoutExpired:
                    os.kill(job.pid, signal.SIGKILL)
                    kills += 1
            code = job.wait()
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise SystemExit(f"a shard ended with {code}")
    commit = [sys.executable, "-m", "headwater.cli.main", "index", "commit", str(out)]
    subprocess.run(commit, check=True, capture_output=True)
    return kills, runs


def committed(out: Path) -> int | None:
    import lance

    try:
        return int(lance.dataset(str(out)).count_rows())
    except (OSError, ValueError):
        return None


def require_equal(out: Path, clean: Path) -> None:
    import lance

    from headwater.index.checks import check_index

    found, wanted = (lance.dataset(str(path)).to_table() for path in (out, clean))
    if found != wanted or check_index(str(out)):
        raise SystemExit(f"{out} is not the undisturbed build: {check_index(str(out))}")


if __name__ == "__main__":
    main()
