"""The cache of trained models: one folder a training, named by the digest of all that the training depends on.

    folder/<name>-<digest>/            an ordinary Hugging Face folder
    folder/<name>-<digest>/recorded/   what was recorded on the way (`headwater.training.recorder`)

A folder appears when it is finished, so one that is there is whole and is used again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from headwater.core.files import whole_folder
from headwater.core.fingerprints import digest
from headwater.data.rows import Record
from headwater.training.recorder import Recorder
from headwater.training.tiny import Recipe, Step, train_tiny

RECORDED = "recorded"
"""The folder of a model's folder that holds what was recorded of its training."""
KEPT = 8
"""Checkpoints a training leaves, evenly spaced over its second half, where the model is near what it becomes."""

OnShare = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done."""


@dataclass(frozen=True)
class Trained:
    """A trained model's folder."""

    folder: Path

    @property
    def recorded(self) -> Path:
        """What was recorded of its training."""
        return self.folder / RECORDED


def trained(
    folder: Path, name: str, rows: Sequence[Record], *, seed: int, recipe: Recipe, on_progress: OnShare
) -> Trained:
    """The model trained on `rows`, made unless it is there."""
    key = digest([dict(row) for row in rows], asdict(recipe), str(seed), str(KEPT))
    target = folder / f"{name}-{key[:12]}"
    if not target.exists():

        def report(at: Step) -> None:
            on_progress(f"training {name}, loss {at.loss:.2f}", at.step / at.steps)

        with whole_folder(target) as part:
            train_tiny(rows, out=part, seed=seed, recipe=recipe, on_step=report, recorder=recorder_in(part))
    return Trained(target)


def recorder_in(folder: Path) -> Recorder:
    """The recorder of a model that is trained into this folder."""
    return Recorder(folder / RECORDED, wanted=_late)


def _late(step: int, steps: int) -> bool:
    """Whether a step is one of `KEPT`, evenly spaced over the second half of training."""
    first = steps // 2
    return step in {first + round((steps - first) * (i + 1) / KEPT) for i in range(KEPT)}
