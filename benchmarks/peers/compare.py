"""headwater beside bergson and dattri-llm, on one machine in one run: build time, bytes a row, query time, P@50.

    headwater demo --out runs/demo
    OMP_NUM_THREADS=1 runs/peers/bin/python benchmarks/peers/compare.py --demo runs/demo

docs/performance.md ("Beside other packages") says how the environment runs/peers is made.

All sides read the same tokens with the same model in memory, keep a 16 × 16 projection of every linear layer's gradient
(LoGra's form; the head is left out, as bergson leaves it), and write it to disk. Sides take turns, and their build
times are divided by that of a plain batched forward and backward pass of the same turn; medians. The queries are the
demo's, where the backdoor fired; the relevant rows are the planted ones. Scores are plain inner products of unit
vectors, and for headwater also those under its fitted metric, whose fit is timed apart. RISE is shown beside. A
side that cannot run is reported with its error.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.indexing.build import build
from headwater.indexing.session import Session
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.search.codes import stored_names, stored_vectors
from headwater.search.scan import score_all
from headwater.tasks.science_fiction import is_science_fiction
from headwater.tracing.queries import ask

RANK, TOP, TOKENS = 16, 50, 2048
LAYERS = "*layers.*"
LINEAR = 14
"""Linear layers of the demo's model, but for its head."""


@dataclasses.dataclass
class Task:
    """The model, its rows and queries, and which rows are relevant."""

    reader: Reader
    corpus: Any
    rows: list[TokenRow]
    queries: list[Row]
    query_rows: list[TokenRow]
    relevant: np.ndarray


@dataclasses.dataclass
class Measured:
    """One side: seconds of the build and of the metric's fit, bytes a row, milliseconds a query, P@50 by score."""

    build: float
    row_bytes: float
    query_ms: float
    precision: dict[str, float]
    fit: float = 0.0


Side = Callable[[Task, Path], Measured]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"))
    parser.add_argument("--rows", type=int, default=0, help="only the first rows; 0: all")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    task = opened(given.demo, given.rows)
    sides: dict[str, Side] = {
        "bergson, projection 16": bergson_side,
        "dattri-llm, projection 16": dattri_side,
        "headwater logra": lambda task, place: own_side(task, place, "logra", parameters=LAYERS, rank=RANK),
        "headwater logra, preset full": lambda task, place: own_side(
            task, place, "logra", parameters=LAYERS, rank=RANK, preset="full"
        ),
        "headwater rapidin, two-sided": lambda task, place: own_side(
            task, place, "rapidin", parameters=LAYERS, sketch="two-sided", buckets=RANK * RANK * LINEAR
        ),
        "headwater rise": lambda task, place: own_side(task, place, "rise"),
    }
    found: dict[str, list[tuple[float, Measured]]] = {name: [] for name in sides}
    for _ in range(given.turns):
        plain = plain_pass(task)
        for name in list(sides):
            with tempfile.TemporaryDirectory() as place:
                try:
                    found[name].append((plain, sides[name](task, Path(place))))
                    print(name, "after a plain pass of", round(plain, 1), "s:", found[name][-1][1], flush=True)
                except Exception as error:  # any fault of a peer is its result
                    print(f"{name}: {type(error).__name__}: {error}")
                    del sides[name], found[name]
    print("| side | build : plain pass | build, s | metric's fit, s | bytes a row | ms a query | P@50 |")
    print("| :-- | --: | --: | --: | --: | --: | :-- |")
    for name, turns in found.items():
        ratio = statistics.median(one.build / plain for plain, one in turns)
        seconds, last = statistics.median(one.build for _, one in turns), turns[-1][1]
        query = statistics.median(one.query_ms for _, one in turns)
        kinds = ", ".join(f"{kind} {value:.3f}" for kind, value in last.precision.items())
        print(
            f"| {name} | {ratio:.2f} | {seconds:.1f} | {last.fit:.2f} | {last.row_bytes:,.0f} | {query:.1f} | {kinds} |"
        )


def opened(demo: Path, rows: int) -> Task:
    """The demo's model, rows, and the queries on which the backdoor fired."""
    records = [json.loads(line) for line in (demo / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    records = records[: rows or None]
    reader, corpus = Reader.of(load_model(str(demo / "model")), tokens_per_batch=TOKENS), open_corpus(records)
    asked = list(open_corpus(demo / "queries.jsonl"))
    queries = [row for row in asked if is_science_fiction(row.response or "")]
    encoded = [reader.tokenization.encode(some) for some in (list(corpus), queries)]
    return Task(reader, corpus, encoded[0], queries, encoded[1], np.array([r["planted"] for r in records]))


def labels(row: TokenRow) -> list[int]:
    """The row's tokens, −100 where they are no targets."""
    return [int(token) if target else -100 for token, target in zip(row.ids, row.response, strict=True)]


def batches(rows: Sequence[TokenRow]) -> list[list[int]]:
    """Places of rows of like length, about `TOKENS` padded tokens in each batch."""
    order, made = sorted(range(len(rows)), key=lambda i: len(rows[i].ids)), [[]]  # type: ignore[var-annotated]
    for place in order:
        if made[-1] and (len(made[-1]) + 1) * len(rows[place].ids) > TOKENS:
            made.append([])
        made[-1].append(place)
    return made


def padded(rows: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
    """Token ids, attention mask and labels of a batch."""
    longest = max(len(row.ids) for row in rows)
    ids, target = torch.zeros(len(rows), longest, dtype=torch.int64), torch.full((len(rows), longest), -100)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.as_tensor(row.ids)
        target[i, : len(row.ids)] = torch.tensor(labels(row))
        mask[i, : len(row.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": target}


def plain_pass(task: Task) -> float:
    """Seconds of a forward and backward pass over all rows, with the weights' gradients."""
    model = task.reader.loaded.model.requires_grad_(True)
    began = time.perf_counter()
    for some in batches(task.rows):
        model(**padded([task.rows[i] for i in some])).loss.backward()
        model.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def own_side(task: Task, place: Path, method: str, **settings: Any) -> Measured:
    """An index of ours, without text, and a search of it; for LoGra plain and under the metric."""
    task.reader.loaded.model.requires_grad_(False)
    bound = Bound.of(find_method(method, settings), task.reader)
    began = time.perf_counter()
    index = build(place / "i.lance", task.corpus, bound, keep_text=False)
    built, session = time.perf_counter() - began, Session(index, bound)
    began = time.perf_counter()
    asked = ask(session, task.queries)
    asking = time.perf_counter() - began
    began = time.perf_counter()
    scores = score_all(index, asked.probes, metrics=asked.metrics).values
    searched = (time.perf_counter() - began) / len(task.queries)
    kinds, fit = {"own score": precision(scores.T, task)}, 0.0
    if asked.metrics:
        began = time.perf_counter()
        ask(session, task.queries, metrics={})
        fit = asking - (time.perf_counter() - began)
        (name,) = asked.plain_vectors
        (column,) = index.manifest.columns
        rows = torch.cat([stored_vectors(batch, column) for batch in index.batches(stored_names(column))])
        kinds["cosine"] = precision(cosines(asked.plain_vectors[name], rows), task)
    return Measured(built, index.rows_bytes, 1000 * searched, kinds, fit)


def bergson_side(task: Task, place: Path) -> Measured:
    """bergson's collector, which writes projected gradients to a memory map, and a product with the queries'."""
    from bergson import DataConfig, GradientProcessor, IndexConfig, collect_gradients, load_gradients
    from datasets import Dataset

    model = task.reader.loaded.model.requires_grad_(True)

    def collected(rows: Sequence[TokenRow], name: str) -> Path:
        cells = {"input_ids": [list(map(int, r.ids)) for r in rows], "labels": [labels(r) for r in rows]}
        data = Dataset.from_dict({**cells, "length": [len(r.ids) for r in rows]})
        how = {"projection_dim": RANK, "token_batch_size": TOKENS, "loss_reduction": "mean"}
        config = IndexConfig(run_path=str(place / name), model=task.reader.loaded.name, data=DataConfig(), **how)
        config.partial_run_path.mkdir(parents=True)
        collect_gradients(model, data, GradientProcessor(projection_dim=RANK), config, batches=batches(rows))
        return Path(config.partial_run_path)

    began = time.perf_counter()
    written = collected(task.rows, "rows")
    built = time.perf_counter() - began
    asked = torch.from_numpy(np.array(load_gradients(collected(task.query_rows, "queries")))).float()
    began = time.perf_counter()
    rows = torch.from_numpy(np.array(load_gradients(written))).float()
    scores = cosines(asked, rows)
    searched = (time.perf_counter() - began) / len(asked)
    size = sum(f.stat().st_size for f in written.glob("*.bin")) / len(rows)
    return Measured(built, size, 1000 * searched, {"cosine": precision(scores, task)})


def dattri_side(task: Task, place: Path) -> Measured:
    """dattri-llm's TracIn on cached gradients, projected at capture, with cosines (its GradCos)."""
    from dattri_llm import AttributionArguments, AttributionTask, HookManagerConfig, TracInAttributor

    model = task.reader.loaded.model.requires_grad_(True)
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "layers." in n]
    projected = {"__default__": {"proj_dim": RANK, "proj_max_batch_size": 32}}
    hooks = HookManagerConfig(linear_io=linear, projection_kwargs=projected, capture_style="materialized")
    whole = padded([*task.rows, *task.query_rows])
    cells = [{name: values[i] for name, values in whole.items()} for i in range(len(task.rows) + len(task.query_rows))]
    train, asked = cells[: len(task.rows)], cells[len(task.rows) :]
    size = TOKENS // whole["input_ids"].shape[1]
    how = {"per_device_train_batch_size": size, "per_device_eval_batch_size": size}
    attributor = TracInAttributor(AttributionArguments(str(place), **how), task=AttributionTask(None, model))
    began = time.perf_counter()
    ((rows, queries),) = attributor.cache(train, asked, cache_dir=str(place / "cache"), hook_config=hooks)
    built = (time.perf_counter() - began) * len(train) / len(cells)
    began = time.perf_counter()
    found = attributor.attribute_from_cache(rows, queries, normalized_grad=True)
    searched = (time.perf_counter() - began) / len(asked)
    names, scores = found.agnostic_matrix()
    in_order = dict(zip(names, range(len(names)), strict=True))
    from dattri_llm import hash_sample

    places = [in_order[hash_sample(cell)] for cell in train]
    used = sum(f.stat().st_size for f in Path(rows).rglob("*") if f.is_file()) / len(train)
    return Measured(built, used, 1000 * searched, {"cosine": precision(scores[places].T.numpy(), task)})


def cosines(queries: torch.Tensor, rows: torch.Tensor) -> np.ndarray:
    """`[queries, rows]`."""
    return (torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(rows, dim=1).T).numpy()


def precision(scores: np.ndarray, task: Task) -> float:
    """P@50 of scores `[queries, rows]`, the mean over queries."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    return float(task.relevant[best].mean())


if __name__ == "__main__":
    main()
