"""What a student costs beside teachers of several sizes, and how well it foretells them: its time does not grow.

A tiny model, one of 36 million parameters (both trained on other text of the same packages), and any folder that
`--large` names (SmolLM2-135M as `examples/smollm2/run.py prepare` unpacks it) label the same few hundred rows with
LinFiK. Two thirds of the labels teach students, the other rows measure them, in 12 splits of the rows: students of
words alone, of the best of words and a small proxy, and, for the larger teachers, of the best of words and the tiny
model as a proxy. Times are processor time. Models, labels (16 rows at a time) and the teachers' times are kept in
--out, so a run that was stopped goes on.

Run:  python benchmarks/teacher_sizes.py --out runs/teachers --large runs/smollm2/model    (an hour on one core)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headwater.core.files import whole_folder
from headwater.core.statistics import spearman
from headwater.data.rows import Row
from headwater.evaluation.selection import CONTEXT, REAL
from headwater.methods.catalog import find_method
from headwater.methods.scoring import prepare
from headwater.methods.targets import Part, Target
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.students.choice import seconds_a_row
from headwater.students.student import StudentOptions, Taught, fit_student
from headwater.tasks.real_text import real_text_task
from headwater.training.tiny import Recipe, task_rows, train_tiny
from headwater.valuing.trust import ceilings

SMALL = Recipe(epochs=2, width=32, layers=1, heads=2, vocabulary=1200, tokens_per_batch=2048, context=CONTEXT)
MIDDLE = Recipe(
    epochs=1,
    **{"width": 576, "layers": 8, "heads": 8, "vocabulary": 2400, "context": CONTEXT},
    **{"learning_rate": 1e-3, "initial": 0.02, "tokens_per_batch": 1024},
)
MIDDLE_ROWS = 1500
TIMED = 8
REPEATS, FOLDS = 4, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", default="/usr", help="the folder that holds share/dictd, share/wordnet, the fortunes")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--large", default="", help="the folder of a third teacher")
    parser.add_argument("--out", type=Path, default=Path("runs/teachers"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    task = real_text_task(0, rows=given.rows, target=40, place=given.text)
    rows, target = task_rows(task.rows), Target("words", tuple(task_rows(task.target)))
    kept = given.out / "models"
    tiny = made(kept / "tiny", task.warm_up, REAL, 0)
    proxy = made(kept / "proxy", task.warm_up[:3000], SMALL, 1)
    teachers = {"tiny": str(tiny)}
    if given.large:
        teachers["large"] = given.large
    teachers["36 million"] = str(made(kept / "middle", task.warm_up[:MIDDLE_ROWS], MIDDLE, 0))
    for name, folder in teachers.items():
        reader = Reader.of(load_model(folder, dtype="float32"), template="plain", max_tokens=CONTEXT)
        proxies = {"words": "", "small proxy": str(proxy)} | ({} if name == "tiny" else {"tiny proxy": str(tiny)})
        report = compared(reader, rows, target, given.out / name.replace(" ", "-"), proxies)
        print(name, json.dumps(report, indent=2), flush=True)
        (given.out / f"{name.replace(' ', '-')}.json").write_text(json.dumps(report, indent=2), encoding="utf-8")


def made(folder: Path, rows: Any, recipe: Recipe, seed: int) -> Path:
    """The model in the folder; trained if it is not there."""
    if not folder.exists():
        with whole_folder(folder) as part:
            train_tiny(rows, out=part, seed=seed, recipe=recipe)
    return folder


def compared(reader: Reader, rows: list[Row], target: Target, kept: Path, proxies: dict[str, str]) -> dict[str, Any]:
    """The teacher's time a row and its ceiling, and each student's quality and time a row."""
    parts, columns, seconds = labels_of(reader, rows, target, kept)
    labels = columns @ np.array([p.rows for p in parts]) / sum(p.rows for p in parts)
    (ceiling,) = ceilings(columns.astype(np.float32), parts)
    report: dict[str, Any] = {"parameters": sum(p.numel() for p in reader.loaded.model.parameters())}
    report |= {"teacher ms a row": 1000 * seconds, "ceiling": ceiling.stepped_up}
    for name, proxy in proxies.items():
        found, reads = [], []
        for learned, fresh, seed in splits(len(rows)):
            some, options = [rows[i] for i in learned], StudentOptions(proxy=proxy, seed=seed)
            student = fit_student(some, labels[learned], options, Taught(None, seconds))
            found.append(spearman(student.predict([rows[i] for i in fresh]), labels[fresh]))
            reads.append(student.choice["student reads"])
        took = seconds_a_row(student.predict, rows)
        report[name] = {
            **{"Spearman": np.mean(found), "sd over splits": np.std(found)},
            **{"share of the ceiling": np.mean(found) / ceiling.stepped_up, "reads": reads},
            **{"ms a row": 1000 * took, "teacher's time over the student's": seconds / took},
        }
    return report


def splits(count: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], int]]:
    """Rows that teach and rows that measure: each row measures once in every repeat."""
    for seed in range(REPEATS):
        order = np.random.default_rng(seed).permutation(count)
        for fresh in np.array_split(order, FOLDS):
            yield np.setdiff1d(order, fresh), fresh, seed


def labels_of(
    reader: Reader, rows: list[Row], target: Target, kept: Path
) -> tuple[list[Part], NDArray[np.float64], float]:
    """The target's parts, LinFiK of every row on each, float64 `[rows, parts]`, and its time of a row in seconds."""
    kept.mkdir(exist_ok=True)
    files = [kept / f"{start:06d}.npy" for start in range(0, len(rows), 16)]
    note = kept / "teacher.json"
    if not note.exists():
        teacher = prepare(find_method("linfik"), reader, [target], rows[:16])
        for place, file in enumerate(files):
            if not file.exists():
                np.save(file, teacher(rows[16 * place : 16 * place + 16]))
                print(kept.name, 16 * place, flush=True)
        told = {"seconds a row": seconds_a_row(teacher, rows[:TIMED])}
        told |= {"rows of the parts": [part.rows for part in teacher.parts]}
        note.write_text(json.dumps(told), encoding="utf-8")
    told = json.loads(note.read_text(encoding="utf-8"))
    parts = [Part(target.name, count) for count in told["rows of the parts"]]
    return parts, np.concatenate([np.load(file) for file in files]).astype(np.float64), told["seconds a row"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
