"""The sweep behind RISE's presets: which settings find the rows that taught an answer, on three tasks.

Run:  python benchmarks/rise_presets.py [--seed 0] [--out runs/rise_presets]      (about 15 minutes on 2 cores)

Tasks: the Howdy! backdoor of the demo (queries: the model's own answers to triggered questions); the same queries with
the trigger masked; a two-domain pool, seen by a model trained on it and by one that has never seen it. Every setting
scores the same rows and queries; P@50 is the mean over queries, its interval a bootstrap over queries.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from headwater.core.scores import Scores, fuse_ranks
from headwater.data import Row, Tokenization, plan_batches, resolve_template
from headwater.evaluation.metrics import detection_metrics
from headwater.evaluation.tasks.howdy import attack_success, howdy_task, masked
from headwater.evaluation.tasks.task import answered
from headwater.evaluation.tasks.two_domains import two_domains_task
from headwater.evaluation.training import task_rows, train_tiny
from headwater.methods import rise
from headwater.methods.lexical import bm25_scores, random_scores
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel, load_model
from headwater.models.readout import find_readout

PUBLISHED = {"temperature": 0.1, "support": "top", "positions": "all", "products": "exact"}
BUDGET = 4096


@dataclass(frozen=True)
class Pool:
    name: str
    loaded: LoadedModel
    rows: Sequence[Row]
    queries: Sequence[Row]
    positives: dict[str, frozenset[str]]


def settings() -> dict[str, rise.RiseOptions]:
    """Name to options: a grid over temperature, support, positions and λ_gh, then single departures from the best."""
    grid = {
        f"τ {t}, {support}, {positions}": rise.RiseOptions(
            temperature=t, support=support, positions=positions, products="exact"
        )
        for t, support, positions in itertools.product((0.1, 0.5, 1.0), ("top", "full"), ("all", "response"))
    }
    base = rise.RiseOptions(products="exact")
    single = {
        "rh only": replace(base, lambda_gh=0.0),
        "gh only": replace(base, lambda_rh=0.0, lambda_gh=1.0),
        "λ_gh 1": replace(base, lambda_gh=1.0),
        "λ_gh 3": replace(base, lambda_gh=3.0),
        "with rg 0.5": replace(base, lambda_rg=0.5),
        "τ 2": replace(base, temperature=2.0),
        "adaptive τ 0.5": replace(base, adaptive=True, temperature=0.5),
        "adaptive τ 1": replace(base, adaptive=True),
        "factors not normalised": replace(base, normalize_factors=False),
        "bfloat16 products": replace(base, products="bfloat16"),
        "seed 1": replace(base, seed=1),
        "pooled over all": replace(base, embedding="all"),
        "small 16/8/28": replace(base, width_r=16, width_h=8, width_g=28),
        "small 16/16/12": replace(base, width_r=16, width_h=16, width_g=12),
        "small 32/12/8": replace(base, width_r=32, width_h=12, width_g=8),
    }
    return {**grid, **single, "paper": rise.PAPER, "howdy": rise.PRESETS["howdy"]}


def encode(pool: Pool, rows: Sequence[Row], options: rise.RiseOptions, role: str) -> dict[str, torch.Tensor]:
    tokenization = Tokenization(pool.loaded.tokenizer, resolve_template(None, pool.loaded.tokenizer))
    encoder = rise.encoder(options, find_readout(pool.loaded))
    numbered = [replace(row, ordinal=i) for i, row in enumerate(rows)]
    out = {c.name: torch.empty(len(rows), c.dim) for c in encoder.columns}
    window = rise.rise(options).windows[role]
    for batch in plan_batches(tokenization.encode(numbered), window, tokens_per_batch=BUDGET):
        places = [row.row.ordinal for row in batch.rows]
        for name, vectors in encoder.encode(batch, role).vectors.items():
            out[name][places] = vectors
    # What an index stores.
    return {name: vectors.half().float() if role == "train" else vectors for name, vectors in out.items()}


def scored(pool: Pool, options: rise.RiseOptions, *, extras: bool) -> dict[str, Scores]:
    rows, queries = encode(pool, pool.rows, options, "train"), encode(pool, pool.queries, options, "query")
    ids, asked = tuple(row.id for row in pool.rows), tuple(row.id for row in pool.queries)
    found = {name: Scores(ids, asked, (rows[name] @ queries[name].T).numpy(), name) for name in rows}
    if not extras:
        return {"": found["rise"]}
    both = Scores(ids, asked, found["rise"].values + found["embedding"].values, "sum")
    z = [(s.values - s.values.mean(0)) / s.values.std(0) for s in found.values()]
    return {
        "": found["rise"],
        " → embedding alone": found["embedding"],
        " → sum of cosines": both,
        " → sum of z-scores": Scores(ids, asked, np.asarray(sum(z), np.float32), "z"),
        " → reciprocal ranks": fuse_ranks(found["rise"], found["embedding"]),
    }


def pools(folder: Path, seed: int) -> list[Pool]:
    howdy, domains = howdy_task(seed), two_domains_task(seed)
    for name, task in (("howdy", howdy), ("domains", domains)):
        if not (folder / name).exists():
            train_tiny(task.rows, out=folder / name, seed=seed)
    planted, trained = load_model(str(folder / "howdy")), load_model(str(folder / "domains"))
    tokenization = Tokenization(planted.tokenizer, resolve_template(None, planted.tokenizer))
    prompts = [tokenization.encode_prompt(query["prompt"]) for query in howdy.queries]
    said = [text or "-" for text in generate_responses(planted, prompts, max_new_tokens=64)]
    print(f"attack success {attack_success(said):.2f}", flush=True)
    triggered = answered(howdy.queries, said)
    asked = [{**query, "response": query.get("response") or query["reference"]} for query in domains.queries]
    rows, others = task_rows(howdy.rows), task_rows(domains.rows)
    return [
        Pool("howdy", planted, rows, task_rows(triggered), dict(howdy.positives)),
        Pool("trigger masked", planted, rows, task_rows(masked(triggered)), dict(howdy.positives)),
        Pool("domains, trained", trained, others, task_rows(asked), dict(domains.positives)),
        Pool("domains, untouched", planted, others, task_rows(asked), dict(domains.positives)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/rise_presets"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table: dict[str, dict[str, str]] = {}
    found = pools(arguments.out, arguments.seed)
    for pool in found:
        known = {
            "random": random_scores(pool.rows, pool.queries, seed=0),
            "bm25, responses": bm25_scores(pool.rows, pool.queries),
            "bm25, all": bm25_scores(pool.rows, pool.queries, fields="all"),
        }
        for name, options in settings().items():
            extras = name in ("τ 1.0, full, response", "pooled over all")
            for suffix, scores in scored(pool, options, extras=extras).items():
                known[name + suffix] = scores
        for name, scores in known.items():
            metrics = detection_metrics(scores, pool.positives, (10, 50))
            table.setdefault(name, {})[pool.name] = f"{metrics['P@10'].value:.2f} / {metrics['P@50'].value:.2f}"
            print(f"{pool.name} | {name} | {table[name][pool.name]}", file=sys.stderr, flush=True)
    print("| setting (P@10 / P@50) | " + " | ".join(pool.name for pool in found) + " |")
    print("|---" * (len(found) + 1) + "|")
    for name, cells in table.items():
        print(f"| {name} | " + " | ".join(cells[pool.name] for pool in found) + " |")
    (arguments.out / "sweep.json").write_text(json.dumps(table, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
