"""How well ALinFiK's students foretell their teacher, beside BM25, embedding similarity and perplexity.

A pool of 6,000 helpful, neutral, garbled and poisoned rows; a tiny model that knows everyday things; a medical target.
LinFiK labels a tenth of the pool; both families of students learn it, and one learns shuffled labels. All are measured
on fresh rows.

Run:  python benchmarks/alinfik_student.py --out runs/selection   (a minute or two on one core)
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from headwater.core.seeds import key
from headwater.core.statistics import spearman
from headwater.evaluation.selection import CONTEXT, buyer_recipe
from headwater.methods.catalog import find_method
from headwater.methods.scoring import attribute, prepare
from headwater.methods.targets import Target
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.students.student import StudentOptions, fit_student
from headwater.tasks.mixed_pool import mixed_pool_task
from headwater.training.cache import trained
from headwater.training.tiny import task_rows
from headwater.valuing.distil import best_recall, recheck
from headwater.valuing.run import of_scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--labels", type=int, default=600)
    parser.add_argument("--fresh", type=int, default=400)
    parser.add_argument("--family", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/selection"))
    given = parser.parse_args()
    task = mixed_pool_task(0, rows=given.rows)
    made = trained(given.out, "buyer-mixed", task.warm_up, seed=0, recipe=buyer_recipe(), on_progress=lambda *_: None)
    reader = Reader.of(load_model(str(made.folder)), max_tokens=CONTEXT)
    rows = sorted(task_rows(task.rows), key=lambda row: key(0, "sample", row.id))
    target = Target("medical", tuple(task_rows(task.target)))
    sample, fresh = rows[: given.labels], rows[given.labels : given.labels + given.fresh]
    scorer = prepare(find_method("linfik", {"preset": "fast"}), reader, [target], sample[:32])
    start = time.perf_counter()
    labels = scorer(sample)[:, 0].astype(np.float64)
    truth = scorer(fresh)[:, 0].astype(np.float64)
    report = {
        "pool": given.rows,
        "labelled": len(sample),
        "fresh": len(fresh),
        "teacher": dict(scorer.notes),
        "teacher ms a row": 1000 * (time.perf_counter() - start) / (len(sample) + len(fresh)),
    }
    for family in given.family or ["regression"]:
        begin = time.perf_counter()
        student = fit_student(sample, labels, StudentOptions(family=family, members=3))
        fitted = time.perf_counter() - begin
        report[family] = {"fit seconds": fitted, "held-out Spearman": student.held_out, "curve": student.curve}
        report[family] |= recheck(of_scorer(scorer), {"medical": student}, fresh)["medical"].to_json()
    shuffled = fit_student(sample, np.random.default_rng(0).permutation(labels), StudentOptions(members=3))
    report["shuffled labels"] = {"Spearman": spearman(shuffled.predict(fresh), truth)}
    for name in ("bm25", "embedding", "loss"):
        found = attribute(find_method(name), reader, fresh, [target]).values[:, 0].astype(np.float64)
        report[name] = {"Spearman": spearman(found, truth), "recall of the best tenth": best_recall(found, truth)}
    print(json.dumps(report, indent=2, default=str))


if __name__ == "__main__":
    main()
