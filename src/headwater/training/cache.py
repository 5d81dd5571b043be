"""Where evaluation makes its models: one folder a training, named by the digest of all that the training depends on.

    folder/<name>-<digest>/            an ordinary Hugging Face folder
    folder/<name>-<digest>/adam.safetensors, checkpoints/      the optimiser's moments, and the model on its way

A folder appears when it is finished, so one that is there is whole and is used again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headwater.core.fingerprints import digest
from headwater.curvature.adam import write_adam
from headwater.data.rows import Record
from headwater.models.checkpoints import LIST, Checkpoint
from headwater.training.tiny import Progress, Recipe, train_tiny

ADAM, CHECKPOINTS = "adam.safetensors", "checkpoints"
KEPT = 8
"""Checkpoints a training leaves, evenly spaced over its second half, where the model is near what it becomes."""

Advance = Callable[[str, float], None]
"""Called with a few words and the share done of the present step; a sentence with its full stop is to stay in view."""


@dataclass(frozen=True)
class Made:
    """A trained folder, with the options that methods which read the training run need of it."""

    folder: Path

    @property
    def defaults(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Recorder.defaults`."""
        return Recorder.defaults(self.folder)


def trained(folder: Path, name: str, rows: Sequence[Record], *, seed: int, recipe: Recipe, advance: Advance) -> Made:
    """The model trained on `rows`, made unless it is there."""
    key = digest([dict(row) for row in rows], asdict(recipe), str(seed), str(KEPT))
    target = folder / f"{name}-{key[:12]}"
    if not target.exists():
        part = folder / f".{target.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)

        def report(p: Progress) -> None:
            advance(f"training {name}, loss {p.loss:.2f}", p.step / p.steps)

        train_tiny(rows, out=part, seed=seed, recipe=recipe, progress=report, keep=Recorder(part))
        part.replace(target)
    return Made(target)


class Recorder:
    """Saves checkpoints on the way, and Adam's moments at the end: what some methods read of a training."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: list[Checkpoint] = []

    def __call__(self, step: int, steps: int, model: Any, optimizer: Any) -> None:
        """Save if it is time."""
        first = steps // 2
        if step in {first + round((steps - first) * (i + 1) / KEPT) for i in range(KEPT)}:
            path = f"step-{step}"
            model.save_pretrained(self._folder / CHECKPOINTS / path)
            self._found.append(Checkpoint(path, step, float(optimizer.param_groups[0]["lr"])))
        if step == steps:
            write_adam(self._folder / ADAM, optimizer, model)
            listed = json.dumps([asdict(c) for c in self._found], indent=2) + "\n"
            (self._folder / CHECKPOINTS / LIST).write_text(listed, encoding="utf-8")

    @staticmethod
    def defaults(folder: Path) -> Mapping[str, Mapping[str, Any]]:
        """By method name, the options that lead to what was saved in `folder`."""
        adam, checkpoints = {"adam": str(folder / ADAM)}, {"checkpoints": str(folder / CHECKPOINTS)}
        return {"less": adam, "trackstar": adam, "tracin": checkpoints, "zoinf": checkpoints}
