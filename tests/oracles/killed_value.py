"""Valuations by ALinFiK that are killed with SIGKILL at named moments, one after another, then left in peace.

A launcher that has imported everything forks each of them; it computes nothing itself.

    python tests/oracles/killed_value.py FOLDER      prints one JSON object
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from headwater.data.corpus import open_corpus
from headwater.methods.catalog import find_method
from headwater.methods.targets import Target
from headwater.models.reader import Reader
from headwater.valuing import distil, request
from headwater.valuing import run as value
from headwater.valuing import value as valuing
from zoo import SENTENCES, tiny_loaded

OPTIONS = {"teacher": "linfik", "teacher_set": "folds=2;distance=0.01", "labels": 40, "recheck": 10, "members": 2}
MOMENTS = (("labelling", 16), ("labelling", 32), ("training the student", 0), ("valuing", 32))
"""What is being done, and the rows done, when the signal comes."""

WORDS = " ".join(SENTENCES).split()


def records(count: int, seed: int) -> list[dict[str, str]]:
    """Rows of random words."""
    dice = np.random.default_rng(seed)
    return [
        {"id": f"r{i}", "prompt": " ".join(dice.choice(WORDS, 4)), "response": " ".join(dice.choice(WORDS, 7))}
        for i in range(count)
    ]


def main(folder: Path) -> None:
    """Kill at every moment; in the end there must be the file that an undisturbed run writes."""
    whole, killed = folder / "whole.parquet", folder / "killed.parquet"
    report = {"undisturbed": forked(whole, None), "killed": [], "labels": []}
    for moment in MOMENTS:
        report["killed"].append(forked(killed, moment))
        kept = (killed.with_name("killed.parquet.run") / "labels").glob("*.npy")
        whole_files = [path for path in kept if not path.name.startswith(".")]  # not what was being written
        report["labels"].append({path.name: path.stat().st_mtime_ns for path in whole_files})
    report["file before the end"] = killed.exists()
    report["in peace"] = forked(killed, None)
    print(json.dumps(report))


def forked(out: Path, moment: tuple[str, int] | None) -> int:
    """Value the pool in a process of its own and return how that ended: 0, or minus the signal's number."""
    child = os.fork()
    if child == 0:
        try:
            run(out, moment)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(out: Path, moment: tuple[str, int] | None) -> None:
    """One valuation, killed at the moment."""
    torch.set_num_threads(1)
    job = value.Job
    distil.BLOCK_ROWS = 8
    request.Job = lambda *given: replace(job(*given), block_rows=16)

    def watch(words: str, done: int, _: int | None) -> None:
        if moment is not None and words == moment[0] and done >= moment[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    valuing.value_pool(
        open_corpus(records(60, 0)),
        [Target("task", tuple(open_corpus(records(12, 1))))],
        out,
        method=find_method("alinfik", OPTIONS),
        reader=Reader.of(tiny_loaded("llama")),
        options=valuing.ValueOptions(duplicates=None, resume=True, on_progress=watch, force=True),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
