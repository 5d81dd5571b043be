"""Agreement with outside implementations on a tiny model: kronfluence's EK-FAC, traker's basic projector, bm25s.

They are no dependencies of ours, and live in an environment of their own:

    python -m venv outside && outside/bin/pip install -e . kronfluence traker
    outside/bin/python benchmarks/outside.py

Prints Spearman's correlation of all row × query scores, ours against theirs; 0.95 is expected everywhere. Settings are
those both sides share: one layer type, the data's own labels for EK-FAC, the same damping rule, rows of equal length
(so that nobody's padding counts), and for TRAK the same projected gradients and λ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from headwater.core.statistics import spearman
from headwater.curvature.gram import Metric, fit_metric
from headwater.data.batches import Window
from headwater.data.rows import Row
from headwater.features.exact import whole_gradients
from headwater.features.parameters import select_parameters
from headwater.methods.catalog import find_method
from headwater.methods.lexical import bm25_scores
from headwater.methods.scoring import attribute
from headwater.methods.targets import each
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.tasks import howdy_task
from headwater.training.tiny import Recipe, task_rows, train_tiny

ROWS, QUERIES, LENGTH, DIM = 96, 12, 24, 2048
GLOBS = "*.mlp.*.weight"
RECIPE = Recipe(vocabulary=512, layers=2, width=48, heads=4, context=64, epochs=3)


def world(folder: Path) -> tuple[Reader, list[Row], list[Row]]:
    """A trained tiny model, and plain texts cut to the same number of tokens."""
    task = howdy_task(0, rows=400)
    loaded = load_model(str(train_tiny(task.rows, out=folder / "model", seed=0, recipe=RECIPE)))
    reader = Reader.of(loaded, max_tokens=LENGTH)
    texts = [f"{row.prompt} {row.response}" for row in task_rows(task.rows)]
    rows = [Row(f"r{i}", i, text=text) for i, text in enumerate(texts)]
    long = [row for row, tokens in zip(rows, reader.tokenize(rows), strict=True) if len(tokens.ids) == LENGTH]
    pool = long[: ROWS + QUERIES]
    return reader, pool[:ROWS], pool[ROWS:]


def ids(reader: Reader, rows: list[Row]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(row.ids) for row in reader.tokenize(rows)])


def losses(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss of each row, nats."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    flat = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return flat.view(len(tokens), -1).mean(1)


def kronfluence_scores(reader: Reader, rows: list[Row], queries: list[Row], folder: Path) -> np.ndarray:
    """[rows, queries]; influence on the loss has the sign of a proponent's gain there too."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class LanguageTask(Task):
        def compute_train_loss(self, batch, model, sample=False):
            return losses(model, batch).sum()

        def compute_measurement(self, batch, model):
            return losses(model, batch).sum()

        def get_influence_tracked_modules(self):
            chosen = select_parameters(reader.loaded.model, GLOBS).shapes
            return [name.removesuffix(".weight") for name in chosen]

    reader.loaded.model.requires_grad_(True)
    task = LanguageTask()
    model = prepare_model(reader.loaded.model, task)
    analyzer = Analyzer("outside", model, task, cpu=True, output_dir=str(folder / "kronfluence"), disable_tqdm=True)
    tokens = list(ids(reader, rows))
    factors = FactorArguments(strategy="ekfac", use_empirical_fisher=True)
    analyzer.fit_all_factors("ekfac", dataset=tokens, per_device_batch_size=16, factor_args=factors)
    analyzer.compute_pairwise_scores(
        "pairs",
        "ekfac",
        query_dataset=list(ids(reader, queries)),
        train_dataset=tokens,
        per_device_query_batch_size=QUERIES,
        per_device_train_batch_size=16,
        score_args=ScoreArguments(damping_factor=None),
    )
    found: np.ndarray = analyzer.load_pairwise_scores("pairs")["all_modules"].numpy().T
    return found


def trak_scores(rows: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ours, traker's) of gradients through traker's basic projector: the inverse is each side's own; [rows, queries].

    Ours adds λ to the mean of outer products, traker to their sum, so it is given n times as much.
    """
    from trak.projectors import BasicProjector, ProjectionType
    from trak.score_computers import BasicScoreComputer

    projector = BasicProjector(
        rows.shape[1], DIM, 0, ProjectionType.rademacher, "cpu", block_size=64, dtype=torch.float32
    )
    a, b = (projector.project(torch.from_numpy(x).float(), model_id=0) for x in (rows, queries))
    fitted = fit_metric(Metric(0.1), [a])
    ours = (a @ fitted.probes(b).mT).numpy()
    (damping,) = fitted.damping
    solver = BasicScoreComputer(dtype=torch.float32, device="cpu", lambda_reg=damping * len(a))
    features = solver.get_x_xtx_inv(a, solver.get_xtx(a))
    theirs = torch.zeros(len(a), len(b))
    solver.get_scores(features, b, theirs)
    return ours, theirs.numpy()


def bm25_library(rows: list[Row], queries: list[Row]) -> np.ndarray:
    import bm25s

    retriever = bm25s.BM25()
    retriever.index(
        bm25s.tokenize([row.text for row in rows], stopwords=None, show_progress=False), show_progress=False
    )
    asked = bm25s.tokenize([query.text for query in queries], stopwords=None, return_ids=False, show_progress=False)
    return np.stack([retriever.get_scores(words) for words in asked], axis=1)


def agreement(name: str, ours: np.ndarray, theirs: np.ndarray) -> bool:
    per_query = [spearman(a, b) for a, b in zip(ours.T, theirs.T, strict=True)]
    print(
        f"{name}: Spearman {np.mean(per_query):.4f} (mean over {len(per_query)} queries), lowest {min(per_query):.4f}"
    )
    return bool(np.mean(per_query) >= 0.95)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", choices=["ekfac", "trak", "bm25"], help="one of the three comparisons")
    only = parser.parse_args().only
    fine = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reader, rows, queries = world(folder)
        if only in (None, "bm25"):
            fine.append(agreement("bm25 against bm25s", bm25_scores(rows, queries).values, bm25_library(rows, queries)))
        if only in (None, "trak"):
            selection = select_parameters(reader.loaded.model, GLOBS)
            whole = [
                np.concatenate(
                    [
                        g.flatten(1).numpy()
                        for g in whole_gradients(
                            reader.loaded, selection, reader.batches(some, Window(64)), len(some)
                        ).values()
                    ],
                    axis=1,
                )
                for some in (rows, queries)
            ]
            fine.append(agreement("trak against traker, on traker's projection", *trak_scores(*whole)))
        if only in (None, "ekfac"):
            method = find_method("ekfac", {"parameters": GLOBS, "preset": "empirical"})
            ours = attribute(method, reader, rows, each(queries)).values
            fine.append(agreement("ekfac against kronfluence", ours, kronfluence_scores(reader, rows, queries, folder)))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
