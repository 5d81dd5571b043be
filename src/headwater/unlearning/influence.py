"""Where the rows' weights come from: an interrupted run, a file, a trace index, or a new reading of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwater.data.tokens import TokenRow
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.unlearning.indexed import indexed_influence
from headwater.unlearning.objectives import Objective
from headwater.unlearning.targets import Run
from headwater.unlearning.views import Influence, measure_influence
from headwater.unlearning.weights import Weights, influence_weights, uniform_weights
from headwater.unlearning.weights_file import load_weights


def row_weights(run: Run, objective: Objective, kept: Path | None) -> Weights | None:
    """The rows' weights: from the interrupted run, from a file, or new; None if the objective has none."""
    job, options = run.job, run.options
    if objective.weights != "influence":
        return None
    if kept is not None:
        return load_weights(kept, job.forget, job.retain)
    if options.weights == "uniform":
        return uniform_weights(job.forget, job.retain)
    if options.weights not in ("influence", "shuffled"):
        return load_weights(options.weights, job.forget, job.retain)
    made = _from_influence(run, run.retain)
    return made.shuffled(options.seed) if options.weights == "shuffled" else made


def trust_in_guard(run: Run, objective: Objective) -> Sequence[float] | None:
    """How much each guard row counts: its weight if it were a retain row; None unless influence makes the weights."""
    if objective.weights != "influence" or run.options.weights != "influence" or not run.job.guard:
        return None
    return _from_influence(run, run.guard).of("retain")


def _from_influence(run: Run, retain: Sequence[TokenRow]) -> Weights:
    """Make weights of the forget rows and of these retain rows from their influence on each other."""
    job, options = run.job, run.options
    made = influence_weights(_influence(run, retain), job.forget, [row.row for row in retain], compat=options.compat)
    source = options.index or f"{options.influence}, read for this run"
    return Weights(made.rows, {**made.about, "influence": source})


def _influence(run: Run, retain: Sequence[TokenRow]) -> Influence:
    options, cosine = run.options, not run.options.compat
    if options.index is not None:
        return indexed_influence(options.index, run.reader, run.forget, retain, cosine=cosine)
    bound = Bound.of(find_method(options.influence, options.settings), run.reader)
    return measure_influence(bound, run.forget, retain, cosine=cosine)
