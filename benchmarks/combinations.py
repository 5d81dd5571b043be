"""Does a sum of two methods lead both LDS and detection? All pairs of ten methods, and token-normalised RapidIn.

    python benchmarks/combinations.py [--folder runs/leaderboard]

The LDS is that of the leaderboard (its bank is used again if it is in the folder), over the second half of the queries;
detection is AP on Howdy, the trigger in place and masked. Scores are standardised by query and added with a weight.
Token-normalised RapidIn: each token of the query's answer is a query of its own, normalised by itself; a row's score
is the sum, or the largest, over tokens.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from headwater.core.scores import Scores, fuse
from headwater.data.rows import Row
from headwater.evaluation.detection import DetectionSettings, _howdy
from headwater.evaluation.lds import LdsSettings, lds_values, measure
from headwater.evaluation.metrics import detection_values
from headwater.evaluation.retraining import Bank, WorldSettings, make_world, random_subsets
from headwater.evaluation.stage import Stage
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.reader import Reader

METHODS = (
    *("embedding", "ekfac:parameters=*.mlp.*,damping=0.01", "gradcos", "gradcos:parameters=*.mlp.*", "rise", "rapidin"),
    *("bm25", "rise:by=embedding", "rise-gram:damping=10", "datainf"),
)
WEIGHTS = (0.5, 1.0, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/leaderboard"))
    parser.add_argument("--rows", type=int, default=600, help="of the Howdy pool")
    parser.add_argument("--epochs", type=int, default=16)
    given = parser.parse_args()
    settings = LdsSettings()
    world = make_world(WorldSettings(), given.folder, quiet)
    halves = random_subsets(len(world.rows), settings.models, settings.seed)
    gains = -measure(Bank(world), halves, quiet)
    groups, notes = _howdy(DetectionSettings(rows=given.rows, queries=20, epochs=given.epochs), given.folder, quiet)
    print(*notes)

    def show(name: str, known: Scores, found: Sequence[Scores]) -> None:
        half = len(world.queries) // 2
        lds = lds_values(known.values.astype(np.float64), halves, gains)[half:].mean()
        ap = [detection_values(s, g.positives, ())["AP"].mean() for s, g in zip(found, groups, strict=True)]
        print(f"{name}: LDS {lds:.3f}, AP {ap[0]:.3f}, masked {ap[1]:.3f}", flush=True)

    stage = world.stage()
    asked = [(stage, world.queries), *((g.stage, g.queries) for g in groups)]
    alone = {name: [where.score(name, queries).scores for where, queries in asked] for name in METHODS}
    for name, (known, *found) in alone.items():
        show(name, known, found)
    for name in ("sum", "max"):
        known, *found = [token_normalised(where, queries, name) for where, queries in asked]
        show(f"rapidin, token-normalised, {name}", known, found)
    for (a, mine), (b, other) in itertools.combinations(alone.items(), 2):
        for weight in WEIGHTS:
            known, *found = [fuse(pair, (1.0, weight), method="sum") for pair in zip(mine, other, strict=True)]
            show(f"{a} + {weight:g} × {b}", known, found)


def token_normalised(stage: Stage, queries: Sequence[Row], how: str) -> Scores:
    bound = Bound.of(find_method("rapidin"), Reader.of(stage.loaded))
    vectors = bound.encode(stage.rows, "train").vectors
    tokens = [torch.nan_to_num(s.values["gradient"].float()) for _, s in bound.token_scores(queries, "query", vectors)]
    values = torch.stack([t.sum(0) if how == "sum" else t.amax(0) for t in tokens], dim=1).numpy()
    return Scores(tuple(r.id for r in stage.rows), tuple(q.id for q in queries), values, how)


def quiet(words: str, share: float) -> None:
    pass


if __name__ == "__main__":
    main()
