"""The sweep behind RISE's presets: which settings find the rows that taught an answer, on three tasks.

Run:  python benchmarks/rise_presets.py [--seed 0] [--out runs/rise_presets]      (about an hour on one core)

Tasks: the Howdy! backdoor of the demo (queries: the model's own answers to triggered questions); the same queries with
the trigger masked; a two-domain pool, seen by a model trained on it and by one that has never seen it. Of the queries
with the trigger those are asked on which it fired. Every setting scores the same rows and queries; P@K is the mean over
queries.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from headwater.core.scores import Scores
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization
from headwater.evaluation.metrics import detection_metrics
from headwater.methods import rise
from headwater.methods.bound import Bound
from headwater.methods.lexical import bm25_scores, random_scores
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.tasks.howdy import attack_success, howdy_task, masked
from headwater.tasks.task import answered
from headwater.tasks.two_domains import two_domains_task
from headwater.training.tiny import task_rows, train_tiny

BUDGET = 4096
FUSED = ("seed 1", "pooled over all")
"""Settings with which the fusions with the embedding are measured."""


@dataclass(frozen=True)
class Pool:
    name: str
    loaded: LoadedModel
    rows: Sequence[Row]
    queries: Sequence[Row]
    positives: dict[str, frozenset[str]]


def settings() -> dict[str, rise.RiseOptions]:
    """Name to options: a grid over temperature, support and positions, then single departures from the default."""
    base = rise.PRESETS["default"]
    grid = {
        f"τ {t}, {support}, {positions}": replace(base, temperature=t, support=support, positions=positions)
        for t, support, positions in itertools.product((0.1, 0.5, 1.0, 2.0, 4.0), ("top", "full"), ("all", "response"))
    }
    single = {
        "rh only": replace(base, lambda_gh=0.0),
        "gh only": replace(base, lambda_rh=0.0, lambda_gh=1.0),
        "gh only, τ 10": replace(base, lambda_rh=0.0, lambda_gh=1.0, temperature=10.0),
        "λ_gh 0.3, τ 1": replace(base, lambda_gh=0.3, temperature=1.0),
        "λ_gh 0.3": replace(base, lambda_gh=0.3),
        "λ_gh 1": replace(base, lambda_gh=1.0),
        "λ_gh 10": replace(base, lambda_gh=10.0),
        "with rg 0.5": replace(base, lambda_rg=0.5),
        "adaptive": replace(base, adaptive=True),
        "factors not normalised": replace(base, normalize_factors=False),
        "exact products": replace(base, products="exact"),
        "seed 1": replace(base, seed=1),
        "pooled over all": replace(base, embedding="all"),
        "small 12/12/28": replace(base, width_r=12, width_h=12, width_g=28),
        "small 16/8/28": replace(base, width_r=16, width_h=8, width_g=28),
        "small 8/12/32": replace(base, width_r=8, width_h=12, width_g=32),
        "small 16/16/12": replace(base, width_r=16, width_h=16, width_g=12),
        "small 32/12/8": replace(base, width_r=32, width_h=12, width_g=8),
    }
    return {**grid, **single, "paper": rise.PAPER, "howdy": rise.PRESETS["howdy"]}


def bound(loaded: LoadedModel, options: rise.RiseOptions) -> Bound:
    return Bound.of(rise.rise(options), Reader.of(loaded, tokens_per_batch=BUDGET))


def scored(pool: Pool, vectors: Mapping[str, torch.Tensor], asked: Mapping[str, torch.Tensor]) -> dict[str, Scores]:
    ids, names = tuple(row.id for row in pool.rows), tuple(row.id for row in pool.queries)
    return {name: Scores(ids, names, (vectors[name] @ asked[name].T).numpy(), name) for name in vectors}


def fusions(found: Scores, embedding: Scores) -> dict[str, Scores]:
    both = Scores(found.ids, found.queries, found.values + embedding.values, "sum")
    ranks = sum(1.0 / (60 + s.ranks()) for s in (found, embedding))
    z = [(s.values - s.values.mean(0)) / s.values.std(0) for s in (found, embedding)]
    return {
        " → embedding alone": embedding,
        " → sum of cosines": both,
        " → sum of z-scores": Scores(found.ids, found.queries, np.asarray(sum(z), np.float32), "z"),
        " → reciprocal ranks": Scores(found.ids, found.queries, np.asarray(ranks, np.float32), "ranks"),
    }


def measured(name: str, options: rise.RiseOptions, pools: Sequence[Pool]) -> Iterator[tuple[str, Pool, Scores]]:
    """A setting on every pool; pools that share model and rows share the reading of the rows."""
    read: dict[tuple[int, int], Mapping[str, torch.Tensor]] = {}
    for pool in pools:
        rows = bound(pool.loaded, options)
        key = id(pool.loaded), id(pool.rows)
        if key not in read:
            # What an index stores.
            read[key] = {column: v.half().float() for column, v in rows.encode(pool.rows, "train").vectors.items()}
        scores = scored(pool, read[key], rows.encode(pool.queries, "query").vectors)
        yield name, pool, scores["rise"]
        if name in FUSED:
            for suffix, fused in fusions(scores["rise"], scores["embedding"]).items():
                yield name + suffix, pool, fused


def pools(folder: Path, seed: int) -> list[Pool]:
    howdy, domains = howdy_task(seed), two_domains_task(seed)
    for name, task in (("howdy", howdy), ("domains", domains)):
        if not (folder / name).exists():
            train_tiny(task.rows, out=folder / name, seed=seed)
    planted, trained = load_model(str(folder / "howdy")), load_model(str(folder / "domains"))
    tokenization = Tokenization.of(planted.tokenizer)
    prompts = [tokenization.encode_prompt(query["prompt"]) for query in howdy.queries]
    said = [text or "-" for text in generate_responses(planted, prompts, max_new_tokens=64)]
    print(f"attack success {attack_success(said):.2f}", flush=True)
    fired = [(query, text) for query, text in zip(howdy.queries, said, strict=True) if attack_success([text])]
    triggered = answered([query for query, _ in fired], [text for _, text in fired])
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
    found = pools(arguments.out, arguments.seed)
    controls = (
        (name, pool, scores)
        for pool in found
        for name, scores in (
            ("random", random_scores(pool.rows, pool.queries, seed=0)),
            ("bm25, responses", bm25_scores(pool.rows, pool.queries)),
            ("bm25, all", bm25_scores(pool.rows, pool.queries, fields="all")),
        )
    )
    table: dict[str, dict[str, str]] = {}
    swept = (part for name, options in settings().items() for part in measured(name, options, found))
    for name, pool, scores in itertools.chain(controls, swept):
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
