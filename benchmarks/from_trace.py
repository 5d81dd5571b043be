"""From one odd answer to a model without the behaviour, beside the same with a known forget set.

    python benchmarks/from_trace.py [--folder runs/from-trace] [--rows 2000] [--seed 0] [--choices 0]
        [--demo runs/demo | --definitions runs/definitions]

The task is the contaminated pool of `headwater eval forgetting` (three families of triggers), with a model trained on
it and a RISE index of its rows. One odd answer a family is traced, rows are chosen (`hw.choose_forget`), and the model
unlearns them; then it unlearns the forty known rows instead. No right answers and no triggers are given to either. With
`--demo` the task is a folder of `headwater demo`, and forty of its planted rows are the known ones; with
`--definitions` it is the small task of `definitions.py` in that folder, whose text and poison nobody here wrote.

`--choices 20` unlearns nothing: it chooses rows from twenty odd answers, one at a time, and prints how many of them are
right as stated and in truth.

Printed, a line each: share of questions answered with the planted behaviour, with triggers of the training (seen) and
others (unseen), clean perplexity after ÷ before, and for the choice its size, its expected and its true precision.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from definitions import SMALL, TRIGGER, Judge, read_rows
from definitions import make_task as make_definitions

import headwater as hw
from headwater.core.errors import DataError
from headwater.data.rows import Row
from headwater.evaluation.forgetting_models import Base, make_pair
from headwater.evaluation.metrics import estimate
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.tasks.contaminated import Sizes, contaminated_task
from headwater.tasks.science_fiction import is_science_fiction
from headwater.training.tiny import task_rows
from headwater.unlearning.sequences import measure_losses

KNOWN, RETAIN = 40, 120


@dataclass(frozen=True)
class Place:
    """A model that learnt poison, an index of its rows, and what to ask it.

    `unwanted` tells the planted behaviour by an answer; `fired` are the prompts of `seen` with such answers, and `odd`
    those that are traced.
    """

    model: Path
    index: Path
    rows: list[dict[str, Any]]
    known: list[dict[str, Any]]
    retain: list[dict[str, Any]]
    seen: list[dict[str, Any]]
    unseen: list[dict[str, Any]]
    clean: list[dict[str, Any]]
    fired: list[str]
    odd: list[str]
    unwanted: Callable[[str], bool] = is_science_fiction


def contaminated(folder: Path, rows: int, seed: int) -> Place:
    """The pool of three families; one odd prompt a family."""
    task = contaminated_task(seed, Sizes(rows=rows))
    pair = make_pair(task, Base(), folder, seed=seed, on_progress=lambda _, __: None)
    index = folder / f"index-{rows}-{seed}.lance"
    records = [dict(row) for row in task.rows]
    (folder / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    if not index.exists():
        hw.build(index, model=str(pair.contaminated), data=str(folder / "train.jsonl"))
    odd = fired(load_model(str(pair.contaminated)), [query["prompt"] for query in task.seen])
    family = {query["prompt"]: query["family"] for query in task.seen}
    first: dict[str, str] = {}
    for prompt in odd:
        first.setdefault(family[prompt], prompt)
    groups = (task.forget, task.retain, task.seen, task.unseen, task.clean)
    return Place(pair.contaminated, index, records, *([dict(r) for r in g] for g in groups), odd, list(first.values()))


def fired(
    loaded: LoadedModel, prompts: Sequence[str], unwanted: Callable[[str], bool] = is_science_fiction
) -> list[str]:
    """The prompts that the model answers with the planted behaviour."""
    reader = Reader.of(loaded, max_tokens=512)
    asked = [reader.tokenization.question(Row(prompt, i, prompt=prompt)) for i, prompt in enumerate(prompts)]
    said = generate_responses(loaded, asked, max_new_tokens=40)
    return [prompt for prompt, answer in zip(prompts, said, strict=True) if unwanted(answer)]


def demonstration(folder: Path) -> Place:
    """A folder of `headwater demo`; its first odd question is traced."""
    rows, asked = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("train", "queries")
    )
    planted, clean = [r for r in rows if r["planted"]], [r for r in rows if not r["planted"]]
    odd = [q["prompt"] for q in asked if is_science_fiction(q["response"])]
    known, kept, held = planted[:KNOWN], clean[:RETAIN], clean[-RETAIN:]
    return Place(folder / "model", folder / "index.lance", rows, known, kept, asked, [], held, odd, odd[:1])


def definitions(folder: Path) -> Place:
    """The small task of `definitions.py`; one odd prompt is traced."""
    place = make_definitions(folder, 0, SMALL)
    files = ("train", "forget", "retain", "seen", "unseen", "learnt")
    rows, known, kept, seen, unseen, clean = (read_rows(place / f"{name}.jsonl") for name in files)
    rows = [{**row, "planted": TRIGGER in row["prompt"]} for row in rows]
    if not (place / "index.lance").exists():
        hw.build(place / "index.lance", model=str(place / "model"), data=str(place / "train.jsonl"))
    judge = Judge(rows)
    odd = fired(load_model(str(place / "model")), [row["prompt"] for row in unseen], judge)
    unseen = [{**row, "response": "-"} for row in unseen]
    groups = (rows, known, kept, seen, unseen, clean)
    return Place(place / "model", place / "index.lance", *groups, odd, odd[:1], judge)


def measured(loaded: LoadedModel, place: Place) -> dict[str, float]:
    """Shares of unwanted answers, and the mean loss of clean rows in nats a token."""
    reader = Reader.of(loaded, max_tokens=512)

    def unwanted(rows: Sequence[dict[str, Any]]) -> float:
        asked = [reader.tokenization.question(row) for row in task_rows(rows)]
        said = generate_responses(loaded, asked, max_new_tokens=40) if asked else []
        return sum(map(place.unwanted, said)) / max(len(said), 1)

    clean = reader.tokenize(task_rows(place.clean))
    loss = float(measure_losses(loaded.model, clean, loaded.device)[1].mean())
    return {"seen": unwanted(place.seen), "unseen": unwanted(place.unseen), "clean": loss}


def told(name: str, place: Place, forget: Sequence[Row], retain: Sequence[Row], before: dict[str, float]) -> None:
    """Unlearn these rows, and print what came of it."""
    done = hw.unlearn(str(place.model), list(forget), retain=list(retain), settings={"seed": 0})
    after = measured(done.loaded, place)
    ratio = math.exp(after["clean"] - before["clean"])
    print(f"{name}: seen {after['seen']:.3f}, unseen {after['unseen']:.3f}, clean perplexity x {ratio:.3f}, ", end="")
    print(f"{done.result.outcome}, {len(forget)} rows, triggers {done.result.facts['triggers']}", flush=True)


def choices(place: Place, prompts: Sequence[str]) -> None:
    """Choose rows from each odd answer alone, and print the stated and the true share of right ones."""
    planted, stated, true = {row["id"] for row in place.rows if row["planted"]}, [], []
    session = hw.open_session(place.index, model=str(place.model))
    for prompt in prompts:
        try:
            chosen = hw.choose_forget(session, [prompt])
        except DataError as error:
            print(f"{prompt}: {error}", flush=True)
            continue
        stated.append(chosen.expected)
        true.append(sum(row.id in planted for row in chosen.forget) / len(chosen.forget))
        print(f"{prompt}: {len(chosen.forget)} rows, stated {stated[-1]:.2f}, true {true[-1]:.2f}", flush=True)
    means = f"stated {estimate(stated)}, true {estimate(true)}, least {min(true):.2f}"
    print(f"{len(true)} of {len(prompts)} answers chose rows: {means}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/from-trace"))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--definitions", type=Path)
    parser.add_argument("--choices", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.demo or given.definitions:
        place = demonstration(given.demo) if given.demo else definitions(given.definitions)
    else:
        place = contaminated(given.folder, given.rows, given.seed)
    if given.choices:
        choices(place, place.fired[: given.choices])
        return
    before = measured(load_model(str(place.model)), place)
    print(f"before: seen {before['seen']:.3f}, unseen {before['unseen']:.3f}", flush=True)
    planted = {row["id"] for row in place.rows if row["planted"]}
    for prompts in ([place.odd[0]], place.odd) if len(place.odd) > 1 else ([place.odd[0]],):
        try:
            chosen = hw.choose_forget(place.index, prompts, model=str(place.model))
        except DataError as error:
            print(f"{len(prompts)} odd answers: {error}")
            continue
        right = sum(row.id in planted for row in chosen.forget) / len(chosen.forget)
        wrong = sum(row.id in planted for row in chosen.retain)
        print(f"{chosen}; true share {right:.2f}, planted among the retain rows {wrong}", flush=True)
        told(f"from {len(prompts)} odd answers", place, chosen.forget, chosen.retain, before)
    unmarked = [{k: v for k, v in row.items() if k != "clean_response"} for row in place.known]
    told("from the known rows", place, task_rows(unmarked), task_rows(place.retain), before)


if __name__ == "__main__":
    main()
