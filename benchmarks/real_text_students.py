"""How well ALinFiK's students foretell LinFiK on real text, beside BM25, embedding similarity and loss.

The pool is text of Debian packages (`headwater.tasks.real_text`), and the base model has read other text of them. All
rows are labelled, in so many parts that the ceiling of targets of several sizes is known. 15 % of the labels teach;
the other rows are fresh. Times are processor time, so other work on the machine lengthens them little. Models and
labels are kept in --out, so that a run that was stopped goes on.

Run:  apt-get install dict-foldoc dict-jargon wordnet-base fortunes
      python benchmarks/real_text_students.py --out runs/real-text           (about 10 minutes on one core)
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.core.seeds import key
from headwater.core.statistics import spearman
from headwater.data.rows import Row
from headwater.evaluation.metrics import estimate
from headwater.evaluation.selection import CONTEXT, REAL
from headwater.methods.catalog import find_method
from headwater.methods.scoring import attribute, prepare
from headwater.methods.targets import Part, Target
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.students.choice import seconds_a_row, steady_seconds_a_row
from headwater.students.student import StudentOptions, Taught, estimates_of, fit_student, fit_students
from headwater.tasks.real_text import real_text_task
from headwater.training.cache import trained
from headwater.training.tiny import Recipe, task_rows
from headwater.valuation.prices import Terms, price
from headwater.valuation.values import Values, intervals
from headwater.valuing.distil import best_recall
from headwater.valuing.trust import ceilings

PROXY = Recipe(epochs=2, width=16, layers=1, heads=2, vocabulary=512, tokens_per_batch=2048, context=CONTEXT)
"""Small beside a teacher of 470 thousand parameters: 12 thousand."""
STUDENTS: dict[str, dict[str, Any]] = {
    "words": {"sources": "words"},
    "proxy": {"sources": "proxy"},
    "proxy at most 1/20": {"cost": "1/20"},
    "model": {"sources": "model"},
    "words+model": {"sources": "words+model"},
    "transformer": {"family": "transformer", "members": 1},
    "ranking transformer": {"family": "transformer", "members": 1, "ranking": True},
}
PARTS, SHUFFLES, TIMED = 16, 60, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", default="/usr", help="the folder that holds share/dictd, share/wordnet, the fortunes")
    parser.add_argument("--rows", type=int, default=3600)
    parser.add_argument("--labels", type=float, default=0.15, help="share of the pool that the teacher labels")
    parser.add_argument("--target", type=int, default=80, help="rows of the target, of 160")
    parser.add_argument("--students", default=",".join(STUDENTS), help="only these students, joined by commas")
    parser.add_argument("--out", type=Path, default=Path("runs/real-text"))
    given = parser.parse_args()
    task = real_text_task(0, rows=given.rows, target=160, place=given.text)
    how = {"on_progress": lambda *_: None}
    base = trained(given.out, "base", task.warm_up, seed=0, recipe=REAL, **how).folder
    proxy = trained(given.out, "proxy", task.warm_up[:3000], seed=1, recipe=PROXY, **how).folder
    reader = Reader.of(load_model(str(base)), max_tokens=CONTEXT)
    rows, asked = task_rows(task.rows), task_rows(task.target)
    parts = labels_of(reader, rows, asked, given.out / f"labels-{given.rows}.npy")
    report = {"ceilings": {str(10 * n): ceiling_of(parts[:, :n], n) for n in (4, 8, PARTS)}}
    report["prices"] = paid_to_the_good(parts)
    used = given.target // 10
    chosen = [row for place, row in enumerate(asked) if place % PARTS < used]  # those of the first parts
    values = parts[:, :used].mean(axis=1)
    order = sorted(range(len(rows)), key=lambda i: key(0, "sample", rows[i].id))
    cut = round(given.labels * len(rows))
    sample, fresh = [rows[i] for i in order[:cut]], [rows[i] for i in order[cut:]]
    known, truth = values[order[:cut]], values[order[cut:]]
    ceiling = report["ceilings"][str(given.target)]
    teacher = prepare(find_method("linfik"), reader, [Target("words", tuple(chosen))], sample[:32])
    taught = Taught(reader, steady_seconds_a_row(teacher, sample))
    teachers_time = 1000 * seconds_a_row(teacher, fresh[:TIMED])
    report["teacher ms a row"] = teachers_time
    alone = Taught(None, taught.teacher_seconds)
    for name in filter(None, given.students.split(",")):
        given_to = STUDENTS[name]
        options = StudentOptions(proxy=str(proxy) if "proxy" in name else "", **given_to)
        student = fit_student(sample, known, options, taught if "model" in name else alone)
        report[name] = measured(student.predict(fresh), truth, ceiling)
        report[name] |= {
            "held-out Spearman": student.held_out,
            "teacher's time over the student's": teachers_time / (1000 * seconds_a_row(student.predict, fresh[:TIMED])),
            **{"curve": student.curve, "reads": student.choice.get("student reads", "")},
        }
        print(name, report[name], flush=True)
    if given.students == ",".join(STUDENTS):
        shuffles = np.stack([np.random.default_rng(i).permutation(known) for i in range(SHUFFLES)], axis=1)
        deaf = fit_students(sample, shuffles, StudentOptions(sources="words+model", members=1), taught)
        found = estimates_of(deaf)(fresh)[:, :, 0]
        report["shuffled labels, words+model"] = asdict(estimate([spearman(one, truth) for one in found.T]))
        for name in ("bm25", "embedding", "loss"):
            found = attribute(find_method(name), reader, fresh, [Target("words", tuple(chosen))]).values[:, 0]
            report[name] = measured(found.astype(np.float64), truth, ceiling)
    print(json.dumps(report, indent=2, default=str))
    (given.out / "report.json").write_text(json.dumps(report, indent=2, default=str), encoding="utf-8")


def labels_of(reader: Reader, rows: list[Row], asked: list[Row], kept: Path) -> np.ndarray:
    """LinFiK of every row on every part of the target, float64 `[rows, parts]`."""
    if not kept.exists():
        folds = {"folds": str(PARTS)}
        scorer = prepare(find_method("linfik", folds), reader, [Target("words", tuple(asked))], rows[:32])
        found = np.concatenate([scorer(rows[start : start + 256]) for start in range(0, len(rows), 256)])
        np.save(kept, found)
    return np.load(kept).astype(np.float64)


def ceiling_of(parts: np.ndarray, count: int) -> float:
    """The stepped-up correlation of the values from two halves of the parts."""
    (found,) = ceilings(parts.astype(np.float32), [Part("words", 10)] * count)
    return found.stepped_up


def paid_to_the_good(parts: np.ndarray) -> dict[str, float]:
    """By values of 40 target rows in 4 folds: the share of a budget that rows get which help 80 other target rows."""
    value, low, high = intervals(parts[:, :4].astype(np.float32), ["words"] * 4, [10] * 4)[:, 0].T
    truth = parts[:, 8:].mean(axis=1)
    columns = {"id": [str(i) for i in range(len(value))], "value": value, "low": low, "high": high}
    values = Values(pa.table(columns))
    paid = {
        name: price(values, Terms(10**6, only_certain=sure)).cents for name, sure in (("sure", True), ("all", False))
    }
    shares = {name: float(cents[truth > 0].sum() / cents.sum()) for name, cents in paid.items()}
    return {**shares, "rows that help": float((truth > 0).mean())}


def measured(found: np.ndarray, truth: np.ndarray, ceiling: float) -> dict[str, float]:
    """Rank correlation with the teacher on fresh rows, its share of the ceiling, and the recall of the best tenth."""
    rho = spearman(found, truth)
    return {"Spearman": rho, "share of the ceiling": rho / ceiling, "recall": best_recall(found, truth)}


if __name__ == "__main__":
    main()
