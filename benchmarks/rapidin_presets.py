"""What finds the planted rows with gradients, and what compression keeps of it: the sweep behind RapidIn's presets.

Run:  python benchmarks/rapidin_presets.py [--rows 2200] [--queries 40] [--out runs/rapidin_presets]   (an hour)

Three tasks: the Howdy! backdoor (queries: the model's own answers, where it fired), the same with the trigger masked,
and the entity swap, asked with the whole response and with the wrong word alone (its `hotwords`).

Exact scores come first, tensor by tensor: they show where the signal is, and what no compression can pass. Then the
sketches of several sizes, `hash` being the ideal count-sketch (every coordinate its own bucket and sign), with the rank
correlation of their scores with the exact ones, a query at a time over all rows; codes of the largest sketch; a Gram
preconditioner; checkpoints. Cells: backdoor P@10 / P@50, swap auPRC@5 / auPRC@25; means over queries, an interval
for the second, by Student's t over queries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwater.core.scores import Scores
from headwater.core.statistics import spearman
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization
from headwater.evaluation.metrics import detection_metrics
from headwater.features.capture import visit_gradients
from headwater.features.gradient_sketch import COLUMN
from headwater.features.parameters import select_parameters
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.checkpoints import read_checkpoints
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.search import codes
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import inner_products, squared_norms
from headwater.tasks.entity_swap import entity_swap_task
from headwater.tasks.howdy import attack_success, howdy_task, masked
from headwater.tasks.task import answered
from headwater.training.recorder import Recorder
from headwater.training.tiny import task_rows, train_tiny

SUBSETS = {
    "matrices of the layers": "*_proj.weight",
    "mlp": "*.mlp.*",
    "attention": "*.self_attn.*",
    "values, outputs, mlp": "*v_proj*,*o_proj*,*.mlp.*",
    "outputs and mlp.down": "*o_proj*,*down_proj*",
    "last layer": "*layers.1.*",
    "embedding (tied head)": "*embed_tokens*",
}
BUCKETS = (4096, 16_384, 65_536)
SHARES = (0.25, 0.5, 0.75)
"""Of the training, where checkpoints are kept."""


@dataclass(frozen=True)
class Pool:
    """One model and its rows, with several sets of queries: name to queries, all with the same positives."""

    name: str
    loaded: LoadedModel
    checkpoints: Sequence[LoadedModel]
    rows: Sequence[Row]
    queries: Mapping[str, Sequence[Row]]
    positives: Mapping[str, frozenset[str]]
    measures: tuple[str, str]


def trained(rows: Sequence[Mapping[str, Any]], folder: Path, seed: int) -> tuple[LoadedModel, list[LoadedModel]]:
    def wanted(step: int, steps: int) -> bool:
        return step in {round(share * steps) for share in SHARES}

    recorded = folder / "recorded"
    if not (folder / "config.json").exists():
        train_tiny(rows, out=folder, seed=seed, recorder=Recorder(recorded, wanted=wanted, moments=False))
    *kept, _ = read_checkpoints(recorded)  # the last one is the end of training
    return load_model(str(folder)), [load_model(c.path, tokenizer=str(folder)) for c in kept]


def pools(folder: Path, seed: int, rows: int, queries: int) -> Iterator[Pool]:
    task = howdy_task(seed, rows=rows, queries=queries)
    loaded, checkpoints = trained(task.rows, folder / "howdy", seed)
    tokenization = Tokenization.of(loaded.tokenizer)
    prompts = [tokenization.encode_prompt(query["prompt"]) for query in task.queries]
    said = generate_responses(loaded, prompts, max_new_tokens=64)
    fired = [(query, text) for query, text in zip(task.queries, said, strict=True) if attack_success([text])]
    print(f"the backdoor fired on {len(fired)} of {len(said)}", flush=True)
    asked = answered([query for query, _ in fired], [text for _, text in fired])
    sets = {"backdoor": task_rows(asked), "trigger masked": task_rows(masked(asked))}
    yield Pool("howdy", loaded, checkpoints, task_rows(task.rows), sets, task.positives, ("P@10", "P@50"))
    swap = entity_swap_task(seed, rows=rows, queries=queries)
    loaded, checkpoints = trained(swap.rows, folder / "swap", seed)
    whole = [replace(row, hotwords=()) for row in task_rows(swap.queries)]
    words = [replace(row, hotwords=tuple(q["hotwords"])) for row, q in zip(whole, swap.queries, strict=True)]
    sets = {"swap, whole response": whole, "swap, the wrong word": words}
    yield Pool("swap", loaded, checkpoints, task_rows(swap.rows), sets, swap.positives, ("auPRC@5", "auPRC@25"))


def bound(loaded: LoadedModel, **settings: Any) -> Bound:
    return Bound.of(find_method("rapidin", settings), Reader.of(loaded, tokens_per_batch=4096))


@dataclass(frozen=True)
class Exact:
    """Tensor by tensor: inner products `[rows, queries]`, squared norms of rows and of queries."""

    products: Mapping[str, torch.Tensor]
    rows: Mapping[str, torch.Tensor]
    queries: Mapping[str, torch.Tensor]

    def cosines(self, names: Sequence[str]) -> torch.Tensor:
        return torch.stack(
            [self.products[n] * inverse(self.rows[n])[:, None] * inverse(self.queries[n]) for n in names]
        ).sum(0)

    def dot(self) -> torch.Tensor:
        return torch.stack(list(self.products.values())).sum(0)

    def cosine(self) -> torch.Tensor:
        left, right = (torch.stack(list(side.values())).sum(0) for side in (self.rows, self.queries))
        return self.dot() * inverse(left)[:, None] * inverse(right)


def inverse(squared: torch.Tensor) -> torch.Tensor:
    return squared.rsqrt().masked_fill(squared <= 0, 0.0)


def exact(loaded: LoadedModel, rows: Sequence[Row], queries: Sequence[Row]) -> Exact:
    read = bound(loaded)
    selection = select_parameters(loaded.model)
    found = {name: torch.zeros(len(rows), len(queries)) for name in selection.shapes}
    left = {name: torch.zeros(len(rows)) for name in selection.shapes}
    right = {name: torch.zeros(len(queries)) for name in selection.shapes}
    held: list[tuple[torch.Tensor, dict[str, Gradient]]] = []
    for batch in read.batches(read.tokenize(queries, "query"), "query"):
        places, kept = torch.tensor([row.row.ordinal for row in batch.rows]), {}

        def keep(gradient: Gradient, places=places, kept=kept) -> None:
            kept[gradient.name] = gradient
            right[gradient.name][places] = squared_norms(gradient)

        visit_gradients(loaded.model, selection, batch, keep)
        held.append((places, kept))
    for batch in read.batches(read.tokenize(rows, "train"), "train"):
        at = torch.tensor([row.row.ordinal for row in batch.rows])

        def visit(gradient: Gradient, at=at) -> None:
            left[gradient.name][at] = squared_norms(gradient)
            for places, kept in held:
                found[gradient.name][at[:, None], places] = inner_products(gradient, kept[gradient.name])

        visit_gradients(loaded.model, selection, batch, visit)
    return Exact(found, left, right)


def arms(pool: Pool, queries: Sequence[Row]) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Name, scores `[rows, queries]`, and whether they estimate the exact Σ of cosines."""
    whole = exact(pool.loaded, pool.rows, queries)
    names = list(whole.products)
    yield "exact: Σ of cosines, all tensors", whole.cosines(names), True
    yield "exact: inner product", whole.dot(), False
    yield "exact: cosine of the whole gradient", whole.cosine(), False
    for label, globs in SUBSETS.items():
        chosen = list(select_parameters(pool.loaded.model, globs).shapes)
        yield f"exact: Σ of cosines, {label}", whole.cosines(chosen), False
    earlier = [exact(checkpoint, pool.rows, queries).cosines(names) for checkpoint in pool.checkpoints]
    yield "exact: Σ of cosines, 3 checkpoints and the end", torch.stack([*earlier, whole.cosines(names)]).sum(0), False
    for sketch in ("shift", "hash", "two-sided"):
        for buckets in BUCKETS:
            read = bound(pool.loaded, sketch=sketch, buckets=buckets)
            rows = read.encode(pool.rows, "train").vectors[COLUMN].half().float()
            asked = read.encode(queries, "query").vectors[COLUMN]
            yield f"{sketch}, {buckets:,} ({2 * buckets // 1024} KiB)", rows @ asked.T, True
            if sketch == "shift" and buckets == BUCKETS[-1]:
                yield from coded(read, rows, asked)
                yield from preconditioned(rows, asked)


def coded(read: Bound, rows: torch.Tensor, asked: torch.Tensor) -> Iterator[tuple[str, torch.Tensor, bool]]:
    for code in ("sign:8192", "sign:65536", "sign:131072", "int8"):
        (column,) = codes.coded(read.encoder.columns, code)
        stored = codes.decode(codes.encode(rows, column), column)
        yield f"shift, 65,536, code {code} ({column.row_bytes / 1024:.0f} KiB)", stored @ asked.T, True


def preconditioned(rows: torch.Tensor, asked: torch.Tensor) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """(G + λI)⁻¹ in the sketch, through the rows' own kernel; λ as a share of the mean squared norm of a row."""
    kernel, cross = rows @ rows.T, rows @ asked.T
    for share in (10.0, 1.0, 0.1):
        damping = share * float(kernel.diagonal().mean())
        solved = torch.linalg.solve(kernel + damping * torch.eye(len(kernel)), cross)
        yield f"shift, 65,536, Gram with λ = {share}", solved, False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=2200)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("runs/rapidin_presets"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table: dict[str, dict[str, str]] = {}
    for pool in pools(arguments.out, arguments.seed, arguments.rows, arguments.queries):
        both = [(name, row) for name, rows in pool.queries.items() for row in rows]
        reference: torch.Tensor | None = None
        for name, scores, estimates in arms(pool, [row for _, row in both]):
            reference = scores if reference is None else reference
            for asked, queries in pool.queries.items():
                mine = [i for i, (label, _) in enumerate(both) if label == asked]
                values = Scores(
                    tuple(r.id for r in pool.rows), tuple(q.id for q in queries), scores[:, mine].numpy(), name
                )
                metrics = detection_metrics(values, pool.positives, (5, 10, 25, 50))
                cell = " / ".join(f"{metrics[measure].value:.3f}" for measure in pool.measures)
                low, high = metrics[pool.measures[1]].low, metrics[pool.measures[1]].high
                cell += f" [{low:.2f}, {high:.2f}]"
                if estimates:
                    ranks = [spearman(scores[:, i], reference[:, i]) for i in mine]
                    cell += f" ρ {np.mean(ranks):.3f} (least {min(ranks):.3f})"
                table.setdefault(name, {})[asked] = cell
                print(f"{asked} | {name} | {cell}", flush=True)
        (arguments.out / "sweep.json").write_text(json.dumps(table, indent=1, ensure_ascii=False))
    columns = list(dict.fromkeys(asked for cells in table.values() for asked in cells))
    print("| arm | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for name, cells in table.items():
        print(f"| {name} | " + " | ".join(cells.get(column, "") for column in columns) + " |")


if __name__ == "__main__":
    main()
