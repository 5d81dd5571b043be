"""The learning curves of a selection run: held-out loss of every arm, mean and range over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from headwater.report import plots


def save_selection_curves(curves: str | Path, out: str | Path) -> Path:
    """Draw the file of curves that `run_selection` wrote."""
    raw = json.loads(Path(curves).read_text(encoding="utf-8"))
    arms = {name: np.array(losses) for name, losses in raw["arms"].items()}
    figure = plots.curves(
        raw["steps"],
        {name: losses.mean(axis=0) for name, losses in arms.items()},
        bands={name: (losses.min(axis=0), losses.max(axis=0)) for name, losses in arms.items()},
        axes_names=("training step", "held-out target loss, nats a token"),
    )
    return plots.save(figure, out, description="held-out target loss of every arm while it trains")
