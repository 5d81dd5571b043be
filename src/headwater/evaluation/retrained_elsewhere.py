"""Train the models of a bank by an engine: each block is one subset, and its receipt names the file of its model.

A worker makes the world again from its description: it loads the model to start from and tokenises the pool. The
world's name is a digest of all that a trained model depends on, so a worker that read something else is found out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headwater.core.errors import MismatchError, StoreError
from headwater.data.corpus import open_corpus
from headwater.data.records import as_record
from headwater.engines.blocks import Block, Place, Receipt, WorkRecipe, versions
from headwater.evaluation.retraining import Bank, World
from headwater.indexing.elsewhere import settle
from headwater.models.elsewhere import described_loading, placed
from headwater.models.load import load_model
from headwater.training.cache import OnShare
from headwater.training.fitting import TrainingRecipe

Subset = Sequence[int]


def train_missing(bank: Bank, subsets: Sequence[Subset], on_progress: OnShare) -> None:
    """Train the models that the bank does not have, on its engine if that has other processes; else later, one by one.

    Raises:
        UsageError: the model to start from is in the memory of this process.
        StoreError: a worker's files are not where this process sees them.
    """
    if not bank.engine.elsewhere:
        return
    todo = list({tuple(sorted(s)): sorted(s) for s in subsets if not bank.path(sorted(s)).exists()}.values())

    def told(receipt: Receipt) -> None:
        bank.seconds.append(receipt.written["seconds"])
        on_progress("retraining", (receipt.block + 1) / len(todo))

    blocks = (Block(number, number, [subset]) for number, subset in enumerate(todo))
    bank.engine.run(blocks, Retrainings(bank), told)


@dataclass(frozen=True)
class Retrainings:
    """`Work` of training: the one item of a block is the positions of the rows that a model learns."""

    bank: Bank

    def prepare(self, block: Block[Subset]) -> Block[Subset]:
        """Nothing is prepared."""
        return block

    def compute(self, prepared: Block[Subset]) -> tuple[Block[Subset], Any, float]:
        """Train the model."""
        (subset,), began = prepared.items, time.perf_counter()
        return prepared, self.bank.world.learn(subset), time.perf_counter() - began

    def write(self, computed: tuple[Block[Subset], Any, float]) -> Receipt:
        """Write the trained weights into the bank, under a name that says what they depend on."""
        block, model, seconds = computed
        path = self.bank.path(block.items[0])
        self.bank.keep(model, path)
        return Receipt(block.number, block.start, len(block.items), 0, {"file": str(path), "seconds": seconds})

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Check that the models are where this process sees them."""
        for receipt in receipts:
            if not Path(receipt.written["file"]).exists():
                what = "a worker wrote a model where this process does not see it"
                raise StoreError(what, where=receipt.written["file"], remedy="give an --out that all nodes share")

    def recipe(self) -> WorkRecipe:
        """How another process makes the world."""
        world = self.bank.world
        model, loading = described_loading(world.start, {})
        arguments = {
            "folder": str(world.folder.absolute()),
            "model": model,
            "loading": loading,
            "reading": dict(world.reading),
            "rows": [as_record(row) for row in world.rows],
            "training": asdict(world.training),
            "seed": world.seed,
            "name": world.name,
        }
        return WorkRecipe("headwater.evaluation.retrained_elsewhere:retrainings", arguments, versions())


def retrainings(
    place: Place, *, model: str, loading: Mapping[str, Any], training: Mapping[str, Any], name: str, **described: Any
) -> Retrainings:
    """Make the work that `Retrainings.recipe` describes."""
    settle(place)
    start = load_model(model, **placed(loading, place.accelerators))
    corpus, folder = open_corpus(described["rows"]), Path(described["folder"])
    recipe, seed = TrainingRecipe(**training), described["seed"]
    world = World(folder, start, described["reading"], corpus, (), recipe, seed)
    if world.name != name:
        what = "a worker reads the rows or the model differently from the process that divides the work"
        raise MismatchError(what, fields=("world",), where=model, remedy="let all nodes see the same files")
    return Retrainings(Bank(world))
