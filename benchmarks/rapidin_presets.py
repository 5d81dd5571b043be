"""The sweep behind RapidIn's presets: which sketch finds the planted rows with the fewest bytes.

Run:  python benchmarks/rapidin_presets.py [--seed 0] [--rows 1100] [--out runs/rapidin_presets]

Task: the Howdy! backdoor; queries are the model's own answers to triggered questions. First the exact score is taken
tensor by tensor, which shows where the signal is and what no compression can pass; then sketches of several sizes and
parameter choices. P@50 is the mean over queries, and over `--sketch-seeds` seeds of the sketch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from headwater.core.scores import Scores
from headwater.data import Row, TokenBatch, Tokenization, plan_batches, resolve_template
from headwater.evaluation.metrics import detection_metrics
from headwater.evaluation.tasks.howdy import attack_success, howdy_task
from headwater.evaluation.tasks.task import answered
from headwater.evaluation.training import task_rows, train_tiny
from headwater.features.capture import visit_gradients
from headwater.features.gradient_sketch import COLUMN
from headwater.features.parameters import select_parameters
from headwater.methods.rapidin import ENTRY
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel, load_model
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import inner_products, squared_norms, unit_scale

SUBSETS = {
    "all tensors": "",
    "no embedding, no norms": "*_proj.weight",
    "mlp": "*.mlp.*",
    "attention": "*.self_attn.*",
    "values, outputs, mlp": "*v_proj*,*o_proj*,*.mlp.*",
    "outputs and mlp.down": "*o_proj*,*down_proj*",
}
BUCKETS = (4096, 16_384, 65_536)


def batches(loaded: LoadedModel, rows: Sequence[Row]) -> list[TokenBatch]:
    tokenization = Tokenization(loaded.tokenizer, resolve_template(None, loaded.tokenizer))
    numbered = [replace(row, ordinal=i) for i, row in enumerate(rows)]
    return plan_batches(tokenization.encode(numbered), ENTRY.resolve({}).windows["train"], tokens_per_batch=4096)


def cosines(loaded: LoadedModel, rows: list[TokenBatch], queries: list[TokenBatch], count: tuple[int, int]) -> dict:
    """Exact cosines, tensor by tensor: name to `[rows, queries]`."""
    selection = select_parameters(loaded.model)
    found = {name: torch.zeros(count) for name in selection.shapes}
    held: list[tuple[list[int], dict[str, tuple[Gradient, torch.Tensor]]]] = []
    for batch in queries:
        kept: dict[str, tuple[Gradient, torch.Tensor]] = {}
        visit_gradients(
            loaded.model, selection, batch, lambda g, kept=kept: kept.__setitem__(g.name, (g, squared_norms(g)))
        )
        held.append(([row.row.ordinal for row in batch.rows], kept))
    for batch in rows:
        places = torch.tensor([row.row.ordinal for row in batch.rows])

        def visit(gradient: Gradient, places: torch.Tensor = places) -> None:
            scale = unit_scale(squared_norms(gradient))[:, None]
            for asked, kept in held:
                query, squared = kept[gradient.name]
                values = inner_products(gradient, query) * scale * unit_scale(squared)
                found[gradient.name][places[:, None], torch.tensor(asked)] = values

        visit_gradients(loaded.model, selection, batch, visit)
    return found


def encode(loaded: LoadedModel, plan: list[TokenBatch], count: int, settings: dict) -> torch.Tensor:
    encoder = ENTRY.resolve(settings).bind(loaded)
    out = torch.zeros(count, encoder.columns[0].dim)
    for batch in plan:
        out[[row.row.ordinal for row in batch.rows]] = encoder.encode(batch, "train").vectors[COLUMN]
    return out.half().float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=1100)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--sketch-seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/rapidin_presets"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    task = howdy_task(arguments.seed, rows=arguments.rows, queries=arguments.queries)
    if not (arguments.out / "model").exists():
        train_tiny(task.rows, out=arguments.out / "model", seed=arguments.seed)
    loaded = load_model(str(arguments.out / "model"))
    tokenization = Tokenization(loaded.tokenizer, resolve_template(None, loaded.tokenizer))
    prompts = [tokenization.encode_prompt(query["prompt"]) for query in task.queries]
    said = [text or "-" for text in generate_responses(loaded, prompts, max_new_tokens=64)]
    print(f"attack success {attack_success(said):.2f}", flush=True)
    rows, asked = task_rows(task.rows), task_rows(answered(task.queries, said))
    train, queries = batches(loaded, rows), batches(loaded, asked)
    ids, names = tuple(row.id for row in rows), tuple(row.id for row in asked)
    table: dict[str, float] = {}

    def record(name: str, *drawn: np.ndarray) -> None:
        scores = [Scores(ids, names, values.astype(np.float32), name) for values in drawn]
        table[name] = float(np.mean([detection_metrics(s, task.positives, (50,))["P@50"].value for s in scores]))
        print(f"| {name} | {table[name]:.3f} |", flush=True)

    exact = cosines(loaded, train, queries, (len(rows), len(asked)))
    record("exact, all tensors", sum(exact.values()).numpy())
    for name, values in exact.items():
        record(f"exact, {name}", values.numpy())
    for label, globs in SUBSETS.items():
        chosen = select_parameters(loaded.model, globs).shapes
        record(f"exact, {label}", sum(exact[name] for name in chosen).numpy())
        for sketch in ("shift", "two-sided"):
            for buckets in BUCKETS:
                drawn = []
                for seed in range(arguments.sketch_seeds):
                    settings = {"buckets": buckets, "sketch": sketch, "parameters": globs, "seed": seed}
                    left = encode(loaded, train, len(rows), settings)
                    drawn.append((left @ encode(loaded, queries, len(asked), settings).T).numpy())
                record(f"{label}: {sketch}, {buckets} ({2 * buckets // 1024} KiB)", *drawn)
    (arguments.out / "sweep.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
