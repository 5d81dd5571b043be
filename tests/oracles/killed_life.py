"""Additions, deletions, compactions and encodings that are killed with SIGKILL, then done again in peace.

A launcher that has imported everything forks each step on a fresh copy of an index, and kills it at a random moment or
right before or after one of its commits. In between the index must be sound, or say that it is unfinished. The launcher
itself never touches the store, whose threads do not survive a fork.

    python tests/oracles/killed_life.py FOLDER VERB,VERB KILLS SEED      prints one JSON object, verb to what happened
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lance
from lance.dataset import DatasetOptimizer

from headwater.index.checks import check_index
from headwater.index.store import open_index
from headwater.index.upkeep import compact
from headwater.indexing import blocks, quantise
from headwater.indexing.maintain import add, delete
from oracles.fake_method import corpus_of, fake_build, fake_method, fake_session, records

ROWS, MORE, BLOCK_ROWS = 60, 40, 4
GONE = "year % 3 = 1"

COMMITS = (
    (lance.LanceDataset, "commit"),
    (lance.LanceDataset, "delete"),
    (lance.LanceDataset, "update_schema_metadata"),
    (lance.LanceDataset, "cleanup_old_versions"),
    (lance.LanceDataset, "add_columns"),
    (lance.LanceDataset, "drop_columns"),
    (lance.LanceDataset, "alter_columns"),
    (DatasetOptimizer, "compact_files"),
)
"""Where a version is made, or taken away."""


def add_rows(path: Path) -> None:
    add(fake_session(open_index(path), method=fake_method(pause=0.001)), corpus_of(records(MORE, ROWS - 10)))


def grow_columns(path: Path) -> None:
    """An addition that brings a column, and fractions to a column of whole numbers."""
    rows = [{**row, "year": row["year"] + 0.5, "fresh": "yes"} for row in records(MORE // 4, ROWS)]
    add(fake_session(open_index(path), method=fake_method(pause=0.001)), corpus_of(rows))


def delete_rows(path: Path) -> None:
    delete(open_index(path), where=GONE)


def compact_rows(path: Path) -> None:
    compact(open_index(path))


def encode_rows(path: Path) -> None:
    quantise.quantise_index(open_index(path), path.with_suffix(".coded"), code="int8", resume=True)


STEPS = {"add": 10, "grow": 10, "delete": 3, "compact": 2, "encode": 5}
"""How many commits each makes."""

VERBS: dict[str, Callable[[Path], None]] = {
    "add": add_rows,
    "grow": grow_columns,
    "delete": delete_rows,
    "compact": compact_rows,
    "encode": encode_rows,
}


def main() -> None:
    folder, verbs, kills, seed = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4])
    blocks._FEWEST_ROWS = blocks._MOST_ROWS = BLOCK_ROWS
    quantise._READ_BYTES, quantise.rows_per_block = 1, lambda row_bytes: 16  # type: ignore[assignment]
    print(json.dumps({verb: killed(folder / verb, verb, kills, random.Random(seed)) for verb in verbs}))


def killed(folder: Path, verb: str, kills: int, dice: random.Random) -> dict[str, Any]:
    """Kill the verb so many times, each time on a fresh copy of an index, and do it again in peace."""
    folder.mkdir()
    base = folder / "base.lance"
    run(base, lambda path: prepare(path, verb), None)
    shutil.copytree(base, folder / "clean.lance")
    begun = time.perf_counter()
    run(folder / "clean.lance", VERBS[verb], None)
    lasts = time.perf_counter() - begun
    done: list[str] = []
    for attempt in range(20 * kills):
        if len(done) == kills:
            break
        path = folder / f"{len(done)}.lance"
        for left in (path, path.with_suffix(".coded")):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(base, path)
        commit = None if attempt % 2 else (("before", "after")[attempt // 2 % 2], dice.randint(1, STEPS[verb]))
        if run(path, VERBS[verb], (dice.uniform(0, lasts), commit)):
            continue
        done.append("at random" if commit is None else f"{commit[0]} a commit")
        run(path, require_sound, None)
        run(path, VERBS[verb], None)
    return {"kills": len(done), "moments": sorted(set(done))}


def prepare(base: Path, verb: str) -> None:
    fake_build(base, records(ROWS))
    if verb == "compact":
        delete_rows(base)


def require_sound(path: Path) -> None:
    for there in (path, path.with_suffix(".coded")):
        faults = {fault.kind for fault in check_index(str(there))} if there.exists() else set()
        if not faults <= {"unfinished"}:
            raise SystemExit(f"left with {faults}")


def run(path: Path, work: Callable[[Path], None], death: tuple[float, tuple[str, int] | None] | None) -> bool:
    """One step in a child; True if it finished, False if it was killed."""
    child = os.fork()
    if child == 0:
        try:
            if death is not None and death[1] is not None:
                die_at_commit(*death[1])
            work(path)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if death is not None and death[1] is None:
        time.sleep(death[0])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"{path} failed")
    return os.WIFEXITED(status)


def die_at_commit(when: str, nth: int) -> None:
    """Have this process kill itself before or after its nth commit, of whatever kind."""
    left = nth

    def deadly(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **options)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, name in COMMITS:
        changed = deadly(getattr(owner, name))
        setattr(owner, name, staticmethod(changed) if name == "commit" else changed)


if __name__ == "__main__":
    main()
