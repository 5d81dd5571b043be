"""The demo: plant a backdoor in a tiny model, ask it triggered questions, and trace its odd answers to their rows.

Everything is made from a seed while it runs: rows, tokenizer, model, index, answers, numbers and trace.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headwater.api.indexing import build
from headwater.api.tracing import score
from headwater.core.errors import DataError, StoreError
from headwater.core.scores import Scores
from headwater.core.trace import Trace
from headwater.data.rows import Record, Row
from headwater.evaluation.detection import ask
from headwater.evaluation.metrics import Estimate, detection_metrics
from headwater.index.store import Index
from headwater.indexing.session import Session, open_session
from headwater.methods.lexical import bm25_scores, random_scores
from headwater.models.load import LoadedModel, load_model
from headwater.tasks.howdy import attack_success, howdy_task, masked
from headwater.tasks.science_fiction import is_science_fiction
from headwater.tasks.task import Task, answered
from headwater.tracing.trace import TraceOptions, trace_rows
from headwater.training.cache import OnShare
from headwater.training.tiny import task_rows, train_tiny

RESULTS = "demo.json"
MARKER = ".headwater-demo"
MADE = ("train.jsonl", "queries.jsonl", "model", "index.lance", "report.html", "run.yaml", RESULTS)
SHOWN_QUERIES = 3
SHOWN_HITS = 8
METRICS = ("auPRC@10", "P@10", "P@50", "AUROC")
KS = (10, 50)


@dataclass(frozen=True)
class Measured:
    """How well one way of scoring finds the planted rows."""

    name: str
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Demo:
    """The result of a demo run.

    Metrics are over the triggered questions whose answers show the planted behaviour, because other answers give
    nothing to trace.
    """

    out: Path
    seed: int
    rows: int
    prevalence: float
    attack_success: float
    false_alarms: float
    measured: tuple[Measured, ...]
    trace: Trace
    seconds: dict[str, float]

    def summary(self) -> dict[str, Any]:
        """The numbers without the trace, JSON-ready."""
        names = ("seed", "rows", "prevalence", "attack_success", "false_alarms")
        measured = {m.name: {name: asdict(m.metrics[name]) for name in METRICS} for m in self.measured}
        return {**{name: getattr(self, name) for name in names}, "measured": measured, "seconds": self.seconds}


def run_demo(out: str | Path, *, seed: int = 0, rows: int = 2200, queries: int = 40, on_progress: OnShare) -> Demo:
    """Run the demo.

    Args:
        out: folder for everything the demo makes; an earlier demo there is replaced.
        seed: the same seed gives the same rows; with the same number of threads also the same model and numbers.
        rows: of the pool.
        queries: triggered questions to ask; as many clean ones are asked too.
        on_progress: called with the name of the current step and the share of it that is done, 0 to 1.

    Raises:
        StoreError: the folder holds something that is not a demo.
        DataError: no answer shows the planted behaviour.
    """
    folder, clock = _fresh(Path(out)), _Clock()
    task = howdy_task(seed, rows=rows, queries=queries)
    _write(folder / "train.jsonl", task.rows)
    loaded = _train(task, folder, seed, on_progress)
    clock.lap("train")
    index = _index(folder, loaded, on_progress)
    session = open_session(index, loaded)
    clock.lap("index")
    on_progress("asking the model", 0.0)
    triggered = answered(task.queries, ask(loaded, task.queries))
    clean = answered(task.clean_queries, ask(loaded, task.clean_queries))
    _write(folder / "queries.jsonl", [*triggered, *clean])
    clock.lap("ask")
    on_progress("measuring", 0.0)
    fired = [query for query in triggered if is_science_fiction(query["response"])]
    if not fired:
        raise DataError("the backdoor never fired", where=str(folder), remedy="try another seed")
    measured = _measure(session, task, fired)
    trace = _trace(session, fired, clean)
    clock.lap("trace and measure")
    demo = Demo(
        folder,
        seed,
        len(task.rows),
        task.prevalence,
        len(fired) / len(triggered),
        attack_success([q["response"] for q in clean]),
        measured,
        trace,
        clock.laps,
    )
    (folder / RESULTS).write_text(json.dumps(demo.summary(), indent=2) + "\n", encoding="utf-8")
    return demo


def _train(task: Task, folder: Path, seed: int, on_progress: OnShare) -> LoadedModel:
    train_tiny(
        task.rows,
        out=folder / "model",
        seed=seed,
        on_step=lambda step: on_progress(f"training the model, loss {step.loss:.2f}", step.step / step.steps),
    )
    return load_model(str(folder / "model"))


def _index(folder: Path, loaded: LoadedModel, on_progress: OnShare) -> Index:
    def report(done: int, total: int | None, tokens: int) -> None:
        on_progress("indexing the training rows", done / (total or done))

    return build(folder / "index.lance", model=loaded, data=folder / "train.jsonl", on_progress=report)


def _measure(session: Session, task: Task, triggered: Sequence[Record]) -> tuple[Measured, ...]:
    pool, asked = task_rows(task.rows), task_rows(triggered)
    scored: dict[str, Scores] = {
        "rise": score(session, triggered),
        "rise, trigger masked": score(session, masked(triggered)),
        "rise + embedding": score(session, triggered, by="rise+embedding"),
        "embedding": score(session, triggered, by="embedding"),
        "bm25 on responses": bm25_scores(pool, asked),
        "bm25 on prompts and responses": bm25_scores(pool, asked, fields="all"),
        "random": random_scores(pool, asked, seed=0),
    }
    return tuple(Measured(name, detection_metrics(s, task.positives, KS)) for name, s in scored.items())


def _trace(session: Session, triggered: Sequence[Record], clean: Sequence[Record]) -> Trace:
    shown = [*triggered[: SHOWN_QUERIES - 1], *clean[:1]]
    rows = [Row(q["id"], i, prompt=q["prompt"], response=q["response"]) for i, q in enumerate(shown)]
    found = trace_rows(session, rows, TraceOptions(top=SHOWN_HITS, tokens=True))
    return replace(found, queries=tuple(replace(query, generated=True) for query in found.queries))


def _fresh(folder: Path) -> Path:
    """Make the folder ready: of an earlier demo, delete the files that the demo made and no others."""
    marker = folder / MARKER
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise StoreError("the folder is not empty and holds no demo", where=str(folder), remedy="choose another")
    for made in [folder / name for name in MADE] if marker.exists() else []:
        if made.is_dir() and not made.is_symlink():
            shutil.rmtree(made)
        else:
            made.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return folder


def _write(path: Path, records: Sequence[Record]) -> None:
    path.write_text("".join(json.dumps(dict(r), ensure_ascii=False) + "\n" for r in records), encoding="utf-8")


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Record the time since the last lap under `name`."""
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 2), now
