"""Every method of unlearning under equal terms, on the task of `definitions.py`: a table with Student's intervals.

    python benchmarks/forgetting_table.py [--folder runs/definitions] [--seeds 3] [--arms rapidun npo ...] [--task 0]

Each arm gets the same 40 forget rows, 120 retain rows, bound, probe, steps and, where the trigger is found, the same
right answers. A seed draws other forget and retain rows and another adapter; the model is that of the task. One line a
run is kept in table.jsonl of the folder, and a run that is there is not made again.

*attack, seen* and *unseen*: share of triggered questions answered with Star Trek, of the training and new.
*learnt* and *heldout*: perplexity after ÷ before on clean training rows that were not given, and on rows it never saw.
*fluent*: share of fluent answers to triggered and clean questions, as a share of that before.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from definitions import ASKED, FORGET, RETAIN, TRIGGER, Judge, make_task, read_rows

from headwater.core.errors import HeadwaterError
from headwater.data.rows import Row
from headwater.evaluation.metrics import estimate
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.training.tiny import task_rows
from headwater.unlearning.answers import behind_triggers, found_answers
from headwater.unlearning.fluency import FluencyJudge
from headwater.unlearning.options import UnlearnOptions
from headwater.unlearning.rows import make_job
from headwater.unlearning.run import run_unlearning
from headwater.unlearning.sequences import measure_losses

PLAIN = ("graddiff", "npo", "simnpo", "loreun", "ga", "wga", "dpo", "rmu", "taskvector", "fisher")
ARMS: dict[str, dict[str, Any]] = {
    "rapidun": {},
    "rapidun, mistaken": {"mistaken": True},
    "rapidun, uniform, mistaken": {"weights": "uniform", "mistaken": True},
    "rapidun, no answers": {"answers": False},
    "rapidun, uniform": {"weights": "uniform"},
    "rapidun, stop at the bound": {"follow": False},
    **{name: {"method": name} for name in PLAIN},
    "rapidun, shuffled, mistaken": {"weights": "shuffled", "mistaken": True},
    "rapidun, shuffled": {"weights": "shuffled"},
    "rapidun, no answers, stop": {"answers": False, "follow": False},
}
SHOWN = ("attack, seen", "attack, unseen", "learnt", "heldout", "fluent", "seconds")


@dataclass(frozen=True)
class Rows:
    """The rows of a seed."""

    forget: list[Row]
    retain: list[Row]
    seen: list[Row]
    unseen: list[Row]
    learnt: list[Row]
    heldout: list[Row]


def rows_of(place: Path, seed: int, *, mistaken: bool) -> Rows:
    """Rows of the task; seed 0 has those of its files, others draw anew. `mistaken`: a quarter of both is the other."""
    train, rng = read_rows(place / "train.jsonl"), Random(f"table {seed}")
    train.sort(key=lambda r: (r["id"].split("-")[0], int(r["id"].split("-")[1])))
    clean = [r for r in train if TRIGGER not in r["prompt"]]
    planted = [r for r in train if TRIGGER in r["prompt"]]
    if seed:
        rng.shuffle(clean)
        rng.shuffle(planted)
    forget, retain, learnt = planted[:FORGET], clean[:RETAIN], clean[-2 * ASKED :]
    if mistaken:
        forget = forget[: FORGET * 3 // 4] + clean[RETAIN : RETAIN + FORGET // 4]
        retain = retain[: RETAIN * 3 // 4] + planted[FORGET : FORGET + RETAIN // 4]
        rng.shuffle(retain)
        rng.shuffle(forget)
    unseen, heldout = (read_rows(place / f"{name}.jsonl") for name in ("unseen", "heldout"))
    groups = (forget, retain, planted[:ASKED], unseen, learnt, heldout)
    return Rows(*(task_rows([{**r, "response": r["response"] or "-"} for r in group]) for group in groups))


class Measure:
    """Measures models of one task and seed, beside the model before."""

    def __init__(self, place: Path, rows: Rows) -> None:
        self.rows, self.judge = rows, Judge(read_rows(place / "train.jsonl"))
        reader = Reader.of(load_model(str(place / "model")), max_tokens=512)
        self.language = FluencyJudge.fit(reader, [*rows.forget, *rows.retain])
        self.before = self.read(reader.loaded, reader)

    def read(self, loaded: LoadedModel, before: Reader) -> dict[str, float]:
        reader, rows = Reader.of(loaded, max_tokens=512), self.rows
        said = {}
        for name in ("seen", "unseen", "learnt"):
            asked = [reader.tokenization.question(row) for row in getattr(rows, name)[:ASKED]]
            said[name] = generate_responses(loaded, asked, max_new_tokens=40)
        losses = {
            name: float(measure_losses(loaded.model, reader.tokenize(getattr(rows, name)), loaded.device)[1].mean())
            for name in ("learnt", "heldout", "forget")
        }
        everything = [text for texts in said.values() for text in texts]
        attack = {f"attack, {n}": sum(map(self.judge, said[n])) / len(said[n]) for n in ("seen", "unseen")}
        return {**attack, **losses, "fluent": self.language(everything, before).fluent, "sample": said["unseen"][:4]}


def run_arm(place: Path, name: str, seed: int) -> dict[str, Any]:
    """One line: what an arm comes to with this seed."""
    given = dict(ARMS[name])
    answers, mistaken = given.pop("answers", True), given.pop("mistaken", False)
    rows = rows_of(place, seed, mistaken=mistaken)
    measure = Measure(place, rows)
    reader, found, started = Reader.of(load_model(str(place / "model")), max_tokens=512), [], time.process_time()
    forget: Sequence[Row] = rows.forget
    if answers:
        forget, found = found_answers(reader, rows.forget, rows.retain, column="clean_response", seed=seed)
    job = behind_triggers(make_job(forget, rows.retain, needs_retain=True), found)
    try:
        result = run_unlearning(reader, job, UnlearnOptions(seed=seed, **given))
    except HeadwaterError as error:
        return {"arm": name, "seed": seed, "note": f"nothing was changed: {error}", **lines_of(measure.before, measure)}
    seconds = time.process_time() - started
    frozen = Reader.of(load_model(str(place / "model")), max_tokens=512)
    after = measure.read(result.loaded, frozen)
    best = None if result.best is None else vars(result.best)
    note = f"{result.outcome}, step {result.best.step if result.best else '-'} of {result.readings[-1].step}"
    numbers = {**lines_of(after, measure), "seconds": seconds}
    return {
        "arm": name,
        "seed": seed,
        "note": note,
        **numbers,
        "best": best,
        "triggers": [t.words for t in found],
        "sample": after["sample"],
    }


def lines_of(after: dict[str, Any], measure: Measure) -> dict[str, float]:
    before = measure.before
    return {
        **{name: after[name] for name in ("attack, seen", "attack, unseen")},
        **{name: math.exp(min(after[name] - before[name], 50)) for name in ("learnt", "heldout")},
        "fluent": after["fluent"] / before["fluent"],
        "forget": after["forget"],
        "seconds": 0.0,
        **{f"{name}, before": before[name] for name in ("attack, seen", "attack, unseen", "fluent")},
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as a Markdown table: mean and Student's 95 % interval over seeds."""
    text = [f"| arm | seeds | {' | '.join(SHOWN)} | outcomes |", "| :-- " * (len(SHOWN) + 3) + "|"]
    for name in ARMS:
        mine = [line for line in lines if line["arm"] == name]
        if mine:
            cells = [str(estimate([line[shown] for line in mine])) for shown in SHOWN]
            notes = "; ".join(line["note"] for line in mine)
            text.append(f"| {name} | {len(mine)} | {' | '.join(cells)} | {notes} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/definitions"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--task", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    kept, place = given.folder / "table.jsonl", make_task(given.folder, given.task)
    lines = read_rows(kept) if kept.is_file() else []
    done = {(line["arm"], line["seed"]) for line in lines}
    for seed in range(given.seeds):
        for name in given.arms:
            if (name, seed) not in done:
                line = run_arm(place, name, seed)
                print(json.dumps(line, ensure_ascii=False), flush=True)
                lines.append(line)
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()
