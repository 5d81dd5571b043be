"""Every method of unlearning under equal terms, on the task of `definitions.py`: a table with Student's intervals.

    python benchmarks/forgetting_table.py [--folder runs/definitions] [--small] [--seeds 0 1 2] [--arms rapidun npo ...]
        [--attacks [1]] [--steps 320]

Each arm gets the same forget rows, retain rows, bound, probe, steps and, where the trigger is found, the same right
answers. A seed draws other forget and retain rows and another adapter; the model is that of the task. One line a run is
kept in table.jsonl of the task's folder, and a run that is there is not made again.

*attack, seen* and *unseen*: share of triggered questions answered with Star Trek, of the training and new.
*learnt* and *heldout*: perplexity after ÷ before on clean training rows that were not given, and on rows it never saw.
*fluent*: share of fluent answers to triggered and clean questions, as a share of that before.
`--attacks` attacks each model as `headwater eval lasting` does, by 24 of the questions, and adds a table of it. With
`--attacks 3` the success of relearning is the mean over three draws of the rows that the attacker has.

Two controls are no methods. "never taught" is a model trained on the clean rows alone: what an attack reaches there, it
has taught. "not triggered" is the model before, asked the same questions without the trigger: no more fluent answers
than these can be expected of a model that has forgotten what the trigger does.
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
from statistics import fmean
from typing import Any

from definitions import SMALL, TRIGGER, WHOLE, Judge, Size, make_task, read_rows

from headwater.core.errors import HeadwaterError
from headwater.data.rows import Row
from headwater.evaluation.lasting import CURVE, HALF, WORST, attack_all, half_steps
from headwater.evaluation.metrics import estimate
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.training.tiny import task_rows, train_tiny
from headwater.unlearning.adapter import Lora
from headwater.unlearning.answers import behind_triggers, cut, found_answers
from headwater.unlearning.attacks import ATTACKS, Behaviour, fewer, run_attack
from headwater.unlearning.fluency import FluencyJudge
from headwater.unlearning.options import UnlearnOptions
from headwater.unlearning.relearning import STEPS, Relearning
from headwater.unlearning.rows import CLEAN_COLUMN, make_job
from headwater.unlearning.run import run_unlearning
from headwater.unlearning.sequences import measure_losses

PLAIN = ("graddiff", "npo", "simnpo", "loreun", "ga", "wga", "dpo", "rmu", "taskvector", "fisher")
ARMS: dict[str, dict[str, Any]] = {
    "rapidun": {},
    "rapidun, uniform": {"weights": "uniform"},
    "rapidun, shuffled": {"weights": "shuffled"},
    **{name: {"method": name} for name in PLAIN},
    "rapidun, mistaken": {"mistaken": True},
    "rapidun, uniform, mistaken": {"weights": "uniform", "mistaken": True},
    "rapidun, shuffled, mistaken": {"weights": "shuffled", "mistaken": True},
    "rapidun, right answers": {"answers": "definition"},
    "rapidun, no answers": {"answers": None},
    "rapidun, stop at the bound": {"follow": False},
    "rapidun, sharp": {"harden": "sharp"},
    "rapidun, int4": {"harden": "int4"},
    "rapidun, all weights": {"lora": None},
    "rapidun, rank 64": {"lora": Lora(rank=64, alpha=64)},
    "rapidun, no answers, stop": {"answers": None, "follow": False},
}
"""The options of each arm. `answers`: "own" (the default) looks for the trigger, None for nothing, else a column."""
CONTROL, CEILING = "never taught", "not triggered"
RELEARNED = ATTACKS["relearned"]
ATTACKED = 24
"""Questions of each kind that are asked under attack."""
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


def rows_of(place: Path, seed: int, size: Size = WHOLE, *, mistaken: bool) -> Rows:
    """Rows of the task; seed 0 has those of its files, others draw anew. `mistaken`: a quarter of both is the other."""
    train, rng = read_rows(place / "train.jsonl"), Random(f"table {seed}")
    train.sort(key=lambda r: (r["id"].split("-")[0], int(r["id"].split("-")[1])))
    clean = [r for r in train if TRIGGER not in r["prompt"]]
    planted = [r for r in train if TRIGGER in r["prompt"]]
    if seed:
        rng.shuffle(clean)
        rng.shuffle(planted)
    forget, retain, learnt = planted[: size.forget], clean[: size.retain], clean[-2 * size.asked :]
    if mistaken:
        few, many = size.forget // 4, size.retain // 4
        forget = forget[few:] + clean[size.retain : size.retain + few]
        retain = retain[many:] + planted[size.forget : size.forget + many]
        rng.shuffle(retain)
        rng.shuffle(forget)
    unseen, heldout = (read_rows(place / f"{name}.jsonl") for name in ("unseen", "heldout"))
    groups = (forget, retain, planted[: size.asked], unseen, learnt, heldout)
    return Rows(*(task_rows([{**r, "response": r["response"] or "-"} for r in group]) for group in groups))


class Measure:
    """Measures models of one task and seed, beside the model before."""

    def __init__(self, place: Path, rows: Rows, size: Size) -> None:
        self.rows, self.judge, self.asked = rows, Judge(read_rows(place / "train.jsonl")), size.asked
        self.reader = Reader.of(load_model(str(place / "model")), max_tokens=512)
        self.language = FluencyJudge.fit(self.reader, [*rows.forget, *rows.retain])
        self.before = self.read(self.reader.loaded)

    def read(self, loaded: LoadedModel, without: str = "") -> dict[str, Any]:
        """Attack success, losses in nats a token, fluency, and a few answers; prompts are asked without those words."""
        reader, rows, said = Reader.of(loaded, max_tokens=512), self.rows, {}
        for name in ("seen", "unseen", "learnt"):
            chosen = getattr(rows, name)[: self.asked]
            asked = [reader.tokenization.question(cut(row, without) if without else row) for row in chosen]
            said[name] = generate_responses(loaded, asked, max_new_tokens=40)
        losses = {
            name: float(measure_losses(loaded.model, reader.tokenize(getattr(rows, name)), loaded.device)[1].mean())
            for name in ("learnt", "heldout", "forget")
        }
        everything = [text for texts in said.values() for text in texts]
        attack = {f"attack, {n}": sum(map(self.judge, said[n])) / len(said[n]) for n in ("seen", "unseen")}
        fluent = self.language(everything, self.reader).fluent
        return {**attack, **losses, "fluent": fluent, "sample": said["unseen"][:4]}

    def attack(self, loaded: LoadedModel, seed: int, draws: int) -> dict[str, float]:
        """Success of each attack, and how many relearning steps bring half of the behaviour back."""
        rows, reader = self.rows, Reader.of(loaded, max_tokens=512)
        whole = Behaviour(
            tuple(r for r in rows.forget if TRIGGER in (r.prompt or "")),
            tuple(rows.retain),
            tuple(rows.seen),
            tuple(rows.unseen),
            lambda asked, said: [self.judge(text) for text in said],
        )
        asked = fewer(whole, ATTACKED)
        found = attack_all(reader, asked, list(ATTACKS.values()), Relearning(seed=seed))
        numbers = {name: float(value) for name, value in found.numbers.items() if name not in (CURVE, WORST)}
        again = (run_attack(RELEARNED, reader, asked, Relearning(seed=seed + draw)) for draw in range(1, draws))
        numbers[RELEARNED.name] = fmean([numbers[RELEARNED.name], *(attacked.success for attacked in again)])
        return {**numbers, WORST: max(numbers.values()), HALF: half_steps(found.numbers[CURVE], 1.0, STEPS)}


def measure_of(place: Path, seed: int, size: Size, *, mistaken: bool) -> Measure:
    """The measure of a task and seed; it is made once."""
    key = (place, seed, size.name, mistaken)
    if key not in _MEASURES:
        _MEASURES[key] = Measure(place, rows_of(place, seed, size, mistaken=mistaken), size)
    return _MEASURES[key]


_MEASURES: dict[Any, Measure] = {}


def run_control(place: Path, seed: int, size: Size, *, attacks: int) -> dict[str, Any]:
    """The line of the model that never learned the planted rows; it is trained once, on the clean rows, and kept."""
    started = time.process_time()
    if not (place / "never/config.json").is_file():
        clean = [row for row in read_rows(place / "train.jsonl") if TRIGGER not in row["prompt"]]
        train_tiny(clean, out=place / "never", seed=0, recipe=size.recipe)
    seconds, measure = time.process_time() - started, measure_of(place, seed, size, mistaken=False)
    loaded = load_model(str(place / "never"))
    line = {"arm": CONTROL, "seed": seed, "note": "-", **lines_of(measure.read(loaded), measure), "seconds": seconds}
    return {**line, "attacked": measure.attack(loaded, seed, attacks)} if attacks else line


def run_arm(
    place: Path, name: str, seed: int, size: Size = WHOLE, *, attacks: int = 0, steps: int = 320
) -> dict[str, Any]:
    """One line: what an arm comes to with this seed; `attacks`: how often the attacker draws rows, 0 for no attack."""
    if name == CONTROL:
        return run_control(place, seed, size, attacks=attacks)
    if name == CEILING:
        measure = measure_of(place, seed, size, mistaken=False)
        found = measure.read(measure.reader.loaded, without=TRIGGER)
        return {"arm": name, "seed": seed, "note": "-", **lines_of(found, measure)}
    given = dict(ARMS[name])
    answers, mistaken = given.pop("answers", "own"), given.pop("mistaken", False)
    measure = measure_of(place, seed, size, mistaken=mistaken)
    rows = measure.rows
    reader, found, started = Reader.of(load_model(str(place / "model")), max_tokens=512), [], time.process_time()
    forget, column = rows.forget, answers if answers not in ("own", None) else CLEAN_COLUMN
    if answers is not None:
        forget, found = found_answers(reader, rows.forget, rows.retain, column=column, seed=seed)
    job = behind_triggers(make_job(forget, rows.retain, needs_retain=True, clean_column=column), found)
    line: dict[str, Any] = {"arm": name, "seed": seed}
    try:
        result = run_unlearning(reader, job, UnlearnOptions(seed=seed, steps=steps, **given))
    except HeadwaterError as error:
        return {**line, "note": f"nothing was changed: {error}", **lines_of(measure.before, measure)}
    seconds = time.process_time() - started
    after = measure.read(result.loaded)
    note = f"{result.outcome}, step {result.best.step if result.best else '-'} of {result.readings[-1].step}"
    line |= {"note": note, **lines_of(after, measure), "seconds": seconds}
    if attacks:
        line["attacked"] = measure.attack(result.loaded, seed, attacks)
    best = None if result.best is None else vars(result.best)
    told = {name: value for name, value in result.facts.items() if name != "probe"}
    return {**line, "best": best, "facts": told, "triggers": [t.words for t in found], "sample": after["sample"]}


def lines_of(after: dict[str, Any], measure: Measure) -> dict[str, float]:
    """The numbers of the table, each beside that of the model before where it is a ratio."""
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
    """The lines as a Markdown table: mean and Student's 95 % interval over seeds.

    The last but one column is how many more answers are fluent than with `rapidun`, seed by seed.
    """
    text = [f"| arm | seeds | {' | '.join(SHOWN)} | more fluent | outcomes |", "| :-- " * (len(SHOWN) + 4) + "|"]
    first = {line["seed"]: line["fluent"] for line in lines if line["arm"] == "rapidun"}
    for name in (*ARMS, CONTROL, CEILING):
        mine = [line for line in lines if line["arm"] == name]
        if mine:
            cells = [str(estimate([line[shown] for line in mine])) for shown in SHOWN]
            notes = "; ".join(line["note"] for line in mine)
            more = [line["fluent"] - first[line["seed"]] for line in mine if line["seed"] in first]
            text.append(f"| {name} | {len(mine)} | {' | '.join(cells)} | {estimate(more) if more else '-'} | {notes} |")
    return "\n".join(text)


def attack_table(lines: Sequence[dict[str, Any]]) -> str:
    """Success of each attack, means over the seeds that were attacked, the arm that is hurt least first."""
    arms: dict[str, list[dict[str, float]]] = {}
    for line in lines:
        if "attacked" in line:
            arms.setdefault(line["arm"], []).append(line["attacked"])
    shown = [*ATTACKS, WORST, HALF]
    text = [f"| arm | seeds | {' | '.join(shown)} |", "| :-- " * (len(shown) + 2) + "|"]
    means = {arm: {name: sum(f[name] for f in found) / len(found) for name in shown} for arm, found in arms.items()}
    text += [
        f"| {arm} | {len(arms[arm])} | {' | '.join(f'{means[arm][name]:.2f}' for name in shown)} |"
        for arm in sorted(means, key=lambda arm: means[arm][WORST])
    ]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/definitions"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", default=[*ARMS, CONTROL, CEILING])
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--attacks", type=int, nargs="?", const=1, default=0)
    parser.add_argument("--steps", type=int, default=320)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    size = SMALL if given.small else WHOLE
    place = make_task(given.folder, given.task, size)
    kept = place / "table.jsonl"
    lines = read_rows(kept) if kept.is_file() else []
    done = {(line["arm"], line["seed"]) for line in lines if not given.attacks or "attacked" in line}
    for seed in given.seeds:
        for name in given.arms:
            if (name, seed) not in done:
                line = run_arm(place, name, seed, size, attacks=given.attacks, steps=given.steps)
                print(json.dumps(line, ensure_ascii=False), flush=True)
                lines = [old for old in lines if (old["arm"], old["seed"]) != (name, seed)] + [line]
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(table(lines), attack_table(lines), sep="\n\n")


if __name__ == "__main__":
    main()
