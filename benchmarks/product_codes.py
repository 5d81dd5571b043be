"""Our codes beside faiss's trained ones (product codes after a trained rotation, RaBitQ), on RISE's vectors.

    OMP_NUM_THREADS=1 runs/peers/bin/python benchmarks/product_codes.py [--rows 6000] [--out runs/small] 2> /dev/null

faiss is in the environment of `benchmarks/peers/requirements.txt` (docs/performance.md says how it is made), and only
this script uses it. It warns of every clustering with fewer than 9,984 rows.

The model is the study's (`small.py`), trained if `--out` lacks it. Rows are fresh ones of the Howdy task, and the 40
queries are triggered questions with their answers. Whatever is trained, is trained on every other row. It is judged on
the rest and, beside it, on the rows it was trained on: how many of the exact top ten are found, and Spearman over all
judged rows, means over the queries. Ours need no training.

The vectors (24,576 numbers) are too long for a trained rotation of faiss, so its codes start from principal components,
of which there are fewer than training rows, or from coordinates of our random rotation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import torch
from scipy.stats import rankdata
from torch import Tensor

from headwater.core.spec import Column
from headwater.data.corpus import open_corpus
from headwater.indexing.build import build
from headwater.indexing.session import Session
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.search.codes import coded, decode, encode, stored_vectors
from headwater.search.retention import mean_overlap
from headwater.sketch.hadamard import rotate
from headwater.tasks import howdy_task
from headwater.tasks.task import answered
from headwater.tracing.queries import ask
from headwater.training.cache import trained
from headwater.training.tiny import Recipe, task_rows

SIZES = (256, 1024, 2048)
"""Bytes a row of our codes."""

LEAST = 1200
TOP = 10
TURNS = 5
"""How often faiss turns its trained rotation (its own default is 50)."""

ON_COORDINATES = (
    *((2048, "RaBitQ"), (1024, "RaBitQ2"), (2048, "PQ256np"), (8192, "RaBitQ"), (4096, "RaBitQ2")),
    *((8192, "PQ1024np"), (16384, "RaBitQ"), (8192, "RaBitQ2")),
)
"""How many coordinates of the random rotation, and faiss's name of what codes them."""

ON_COMPONENTS = (
    *((512, "RR,PQ256np"), (512, "OPQ256,PQ256np"), (2048, "RR,RaBitQ")),
    *((2048, "RR,RaBitQ4"), (2048, "RR,RaBitQ8")),
)
"""How many principal components, and what codes them: product codes after a trained rotation (OPQ) or a random one
(RR), or RaBitQ. `np` leaves out polysemous training, which only faster searches need."""


@dataclass(frozen=True)
class Vectors:
    """Queries, the rows that train, and the rest, each `[vectors, dim]`."""

    queries: Tensor
    fit: Tensor
    rest: Tensor

    def rotated(self, kept: int) -> Vectors:
        """Coordinates of our random rotation."""
        return Vectors(*(rotate(one, 0, "product", kept=kept) for one in (self.queries, self.fit, self.rest)))

    def in_components(self, count: int) -> Vectors:
        """At most `count` principal components of the rows that train, the largest first.

        Queries are not centred: their products with the mean row are the same for all rows, so ranks are right.
        """
        mean = self.fit.mean(dim=0)
        centred = self.fit - mean
        values, left = torch.linalg.eigh(centred @ centred.T)
        count = min(count, len(values) - 1)
        values, left = values[-count:].flip(0), left[:, -count:].flip(1)
        axes = centred.T @ (left / values.clamp(min=1e-12).sqrt())
        return Vectors(self.queries @ axes, centred @ axes, (self.rest - mean) @ axes)

    def first(self, count: int) -> Vectors:
        """The first `count` numbers of each vector."""
        return Vectors(*(one[:, :count].contiguous() for one in (self.queries, self.fit, self.rest)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6000, help="half of them train, half judge")
    parser.add_argument("--out", type=Path, default=Path("runs/small"), help="the study's folder, whose model is used")
    given = parser.parse_args()
    if given.rows < LEAST:
        parser.error(
            f"--rows {given.rows}: give at least {LEAST:,}, so that half of them have 512 principal components"
        )
    whole = read(given.out, given.rows)
    print("| code | bytes a row | top 10 found | Spearman | on its training rows: top 10 | Spearman |", flush=True)
    print("| :-- | --: | --: | --: | --: | --: |")
    for name, size, rest, fit in measured(whole):
        shown = [*agreement(whole.queries @ whole.rest.T, rest), *agreement(whole.queries @ whole.fit.T, fit)]
        print(f"| {name} | {size:,} | {' | '.join(f'{number:.3f}' for number in shown)} |", flush=True)


def read(folder: Path, count: int) -> Vectors:
    """Vectors of RISE in full, with the model of the study's backdoor."""
    learned = howdy_task(0, rows=1400, queries=40, anti=True)
    recipe = replace(Recipe(), epochs=8)
    made = trained(folder / "models", "howdy", learned.rows, seed=0, recipe=recipe, on_progress=lambda *_: None)
    task = howdy_task(1, rows=count)
    bound = Bound.of(find_method("rise", {"preset": "full"}), Reader.of(load_model(str(made.folder))))
    place = folder / f"product_codes_{count}.lance"
    index = build(place, open_corpus([dict(row) for row in task.rows]), bound, resume=place.exists(), keep_text=False)
    asked = task_rows(answered(task.queries, [query["reference"] for query in task.queries]))
    ((name, queries),) = ask(Session(index, bound), list(asked)).probes.items()
    column = next(one for one in index.manifest.columns if one.name == name)
    rows = torch.cat([stored_vectors(batch, column) for batch in index.batches([name])])
    return Vectors(queries, rows[::2].contiguous(), rows[1::2].contiguous())


def measured(whole: Vectors) -> Iterator[tuple[str, int, Tensor, Tensor]]:
    """Each code's name, its bytes a row, and the queries' scores of the rest and of the rows that trained it."""
    for size in SIZES:
        for kind in ("sign", "int2", "int4"):
            (column,) = coded([Column("rise", whole.fit.shape[1])], f"{kind}:{8 * size}")
            scores = [whole.queries @ decode(encode(rows, column), column).T for rows in (whole.rest, whole.fit)]
            yield f"ours, `{kind}:{8 * size}`", column.row_bytes, *scores
    for kept, kind in ON_COORDINATES:
        yield f"{kept:,} coordinates, `{kind}`", *of_faiss(kind, whole.rotated(kept))
    components = whole.in_components(max(count for count, _ in ON_COMPONENTS))
    for count, kind in ON_COMPONENTS:
        if count <= components.fit.shape[1]:
            yield f"{count:,} components, `{kind}`", *of_faiss(kind, components.first(count))


def of_faiss(kind: str, vectors: Vectors) -> tuple[int, Tensor, Tensor]:
    """The bytes a row of this code of faiss's index factory, and the queries' scores of the rest and of `fit`."""
    index = faiss.index_factory(vectors.fit.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    if kind.startswith("OPQ"):
        faiss.downcast_VectorTransform(index.chain.at(0)).niter = TURNS
    index.train(vectors.fit.numpy())
    scores = []
    for rows in (vectors.rest, vectors.fit):
        index.reset()
        index.add(rows.numpy())
        values, places = (torch.from_numpy(one) for one in index.search(vectors.queries.numpy(), len(rows)))
        scores.append(torch.empty_like(values).scatter_(1, places, values))
    return index.sa_code_size(), *scores


def agreement(exact: Tensor, found: Tensor) -> tuple[float, float]:
    """How much of the exact top ten has been found, and Spearman over all rows: means over the queries."""
    best = [scores.topk(TOP, dim=1).indices.tolist() for scores in (exact, found)]
    ranks = [torch.from_numpy(rankdata(scores.numpy(), axis=1)) for scores in (exact, found)]
    same = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*ranks, strict=True)]).mean()
    return mean_overlap(*best), float(same)


if __name__ == "__main__":
    main()
