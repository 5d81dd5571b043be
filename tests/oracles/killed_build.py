"""Builds that are killed, until so many were; then every index is finished in peace.

A launcher that has imported everything forks a build, kills it with SIGKILL at a random moment or at a chosen step, and
starts it again on the same path.

    python tests/oracles/killed_build.py FOLDER ROWS KILLS SEED      prints one JSON object
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from headwater.core.errors import StoreError
from headwater.indexing import blocks
from oracles.fake_method import fake_build, fake_method, records

BLOCK_ROWS = 4
REFUSED = 3
STEPS = ("before create", "after create", "before append", "within append", "after append", "before seal", "after seal")


def main() -> None:
    folder, rows, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    blocks._FEWEST_ROWS = blocks._MOST_ROWS = BLOCK_ROWS
    dice = random.Random(seed)
    moments: dict[str, int] = {}
    out = 0
    for _ in range(10 * kills):
        done = sum(moments.values())
        if done == kills:
            break
        step = STEPS[done] if done < len(STEPS) else None if done % 2 else dice.choice(STEPS[2:5])
        if run(folder / f"{out}.lance", rows, step, dice):
            out += 1
        else:
            moments[step or "any time"] = moments.get(step or "any time", 0) + 1
    for i in range(out + 1):
        if not run(folder / f"{i}.lance", rows, None, None):
            raise SystemExit("the build that nobody killed did not finish")
    refused = race(folder / f"{out + 1}.lance", rows, dice)
    print(json.dumps({"indexes": out + 2, "moments": moments, "refused": refused}))


def race(out: Path, rows: int, dice: random.Random) -> int:
    """Four builds go on with one index at the same time, then one in peace; returns how many were refused."""
    run(out, rows, "after append", dice)
    children = [start(out, rows) for _ in range(4)]
    refused = sum(os.WEXITSTATUS(os.waitpid(child, 0)[1]) == REFUSED for child in children)
    if not run(out, rows, None, None):
        raise SystemExit("the build after the race did not finish")
    return refused


def start(out: Path, rows: int, prepare: Callable[[], None] = lambda: None) -> int:
    """A build in a child, that exits with `REFUSED` when the store refuses it."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            fake_build(out, records(rows), fake_method(pause=0.002), resume=True)
        except StoreError:
            os._exit(REFUSED)
        os._exit(0)
    return child


def run(out: Path, rows: int, step: str | None, dice: random.Random | None) -> bool:
    """One build in a child; True if it finished, False if it was killed."""
    child = start(out, rows, lambda: die_at(step, dice.randrange(1, 4)) if step and dice else None)
    if step is None and dice is not None:
        time.sleep(dice.uniform(0.0, 0.25))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a build failed with {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def die_at(step: str, nth: int) -> None:
    """Have this process kill itself before, within or after the nth commit of a kind (the first, where there is one).

    Within an append the block's files are written, and not committed.
    """
    when, kind = step.split()
    module, name = {
        "create": (blocks, "create_index"),
        "append": (blocks, "write_fragments" if when == "before" else "commit_whole"),
        "seal": (blocks, "seal"),
    }[kind]
    original = getattr(module, name)
    left = nth if kind == "append" else 1

    def deadly(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if when in ("before", "within") and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **options)
        if when == "after" and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, deadly)


if __name__ == "__main__":
    main()
