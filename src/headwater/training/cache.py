"""The model cache: one folder for each training, named by a digest of everything that the training depends on.

    folder/<name>-<digest>/            an ordinary Hugging Face folder
    folder/<name>-<digest>/recorded/   checkpoints from the training (`headwater.training.recorder`)

A folder gets its name when it is complete, so a folder that exists is used again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from headwater.core.files import whole_folder
from headwater.core.fingerprints import digest
from headwater.data.rows import Record
from headwater.training.fitting import Step
from headwater.training.recorder import Recorder
from headwater.training.tiny import Recipe, train_tiny

RECORDED = "recorded"
"""The name of the folder inside a model's folder that holds the checkpoints of its training."""
KEPT = 8
"""How many checkpoints of a training are recorded, evenly spaced."""

OnShare = Callable[[str, float], None]
"""Called with a description of the present work and the share of it that is done, from 0 to 1."""


@dataclass(frozen=True)
class Trained:
    """A trained model's folder."""

    folder: Path

    @property
    def recorded(self) -> Path:
        """The folder with the checkpoints of its training."""
        return self.folder / RECORDED


def trained(
    folder: Path, name: str, rows: Sequence[Record], *, seed: int, recipe: Recipe, on_progress: OnShare
) -> Trained:
    """The model trained on `rows` with this seed and recipe; it is trained only if the cache does not have it."""
    key = digest([dict(row) for row in rows], asdict(recipe), str(seed), str(KEPT))
    target = folder / f"{name}-{key[:12]}"
    if not target.exists():

        def report(at: Step) -> None:
            on_progress(f"training {name}, loss {at.loss:.2f}", at.step / at.steps)

        with whole_folder(target) as part:
            train_tiny(rows, out=part, seed=seed, recipe=recipe, on_step=report, recorder=recorder_in(part))
    return Trained(target)


def recorder_in(folder: Path, *, start: float = 0.5) -> Recorder:
    """A recorder for a model whose training is saved in this folder.

    Checkpoints are spread over what follows this share of the training: by default the second half, where the model is
    nearly done.
    """

    def wanted(step: int, steps: int) -> bool:
        first = round(start * steps)
        return step in {first + round((steps - first) * (i + 1) / KEPT) for i in range(KEPT)}

    return Recorder(folder / RECORDED, wanted=wanted)
