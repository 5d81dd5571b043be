"""The phases of a training: first some forget rows are withheld to see whether the behaviour is gone, then all train.

With 25 forget rows or more a fifth of them is withheld while the others train. If the behaviour is not gone from them
then, they join for a quarter of the steps, so that in the end every row was unlearned. With fewer rows each half is
withheld once, and the model is put back after each; the third training has all rows, and as many steps as the halves
took to their best state.
The numbers on withheld rows are always those from before they joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headwater.data.rows import Row
from headwater.methods.targets import evenly_spaced
from headwater.models.generate import generate_responses
from headwater.unlearning.adapter import restore_state, trainable_state
from headwater.unlearning.capabilities import UnlearningMethod
from headwater.unlearning.constraint import Multiplier
from headwater.unlearning.kind import UnwantedKind
from headwater.unlearning.language import Language
from headwater.unlearning.objectives import Objective
from headwater.unlearning.strength import draw_back
from headwater.unlearning.targets import Run
from headwater.unlearning.trainer import Material, Schedule, train
from headwater.unlearning.watch import Watch
from headwater.unlearning.weights import Weights

FEWEST = 25
"""With fewer forget rows than this a fifth is fewer than 5, so each half is withheld once."""
ASKED = 8
"""Most withheld rows whose prompts the model is asked at every measurement."""
LISTENED = 24
"""Most guard rows behind triggers whose prompts the model is asked to see whether its answers are still language."""
ANSWER_TOKENS = 32
FIRST = ""
"""The first phase's name: its checkpoints are in the run's folder of checkpoints itself."""
TRUSTED = 0.5
"""Least weight of a forget row that may be withheld: a lighter one looks as if it had been taken for poison wrongly."""
FINISH = 4
"""The withheld rows join for a quarter of the steps."""


@dataclass(frozen=True)
class TrainedState:
    """The watch whose measurements count, the log of all phases, and facts for the account."""

    watch: Watch
    log: list[dict[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Phases:
    """Everything the phases share.

    Attributes:
        watch: what is measured; each phase has a copy.
        folds: the places of the forget rows that are withheld, one list for each phase with withheld rows.
    """

    run: Run
    objective: Objective
    material: Material
    watch: Watch
    folds: tuple[tuple[int, ...], ...]
    constrained: bool

    @classmethod
    def of(
        cls,
        run: Run,
        objective: Objective,
        material: Material,
        watch: Watch,
        weights: Weights | None,
        *,
        method: UnlearningMethod,
    ) -> Phases:
        """The phases of a run; a method that follows neither target nor bound has one, with all rows."""
        folds = withheld(run, weights) if method.constrained else ()
        return cls(run, objective, material, watch, folds, method.constrained)

    @property
    def first(self) -> Material:
        """The material of the first phase, for the probe."""
        return self.material.without(self.folds[0]) if self.folds else self.material

    @staticmethod
    def withholding(run: Run, watch: Watch, fold: Sequence[int] | None) -> Watch:
        """A fresh copy of the watch that looks at these withheld rows; None: at forget rows that do not train."""
        places = range(len(run.forget)) if fold is None else fold
        tokens = [run.forget[i] for i in places]
        return replace(
            watch, withheld=tokens, ask=_asker(run, places), listen=_listener(run, places), readings=[], best=None
        )

    def train(self, model: Any, schedule: Schedule, folder: Path | None, *, resume: bool) -> TrainedState:
        """Train all phases and leave the model in its last state.

        Checkpoints of the first phase are in `folder`, those of a later one in a folder there with its name.
        """

        start, facts = trainable_state(model), dict[str, Any]()

        def phase(name: str, watch: Watch, material: Material, schedule: Schedule) -> list[dict[str, float]]:
            self._follow(watch, material)
            home = None if folder is None else folder / name
            log = train(model, self.objective, material, watch, schedule, folder=home, resume=resume)
            if self.constrained and self.run.options.follow and watch.gone and not watch.reached:
                facts["drawn back to"] = draw_back(model, start, watch)
            return log

        if not self.folds:
            watch = self._fresh(())
            return TrainedState(watch, phase(FIRST, watch, self.material, schedule))
        done = self._fifth(phase, schedule) if len(self.folds) == 1 else self._halves(model, phase, schedule)
        return replace(done, facts={**done.facts, **{name: share for name, share in facts.items() if share}})

    def _fifth(self, phase: Callable[..., list[dict[str, float]]], schedule: Schedule) -> TrainedState:
        watch = self._fresh(self.folds[0])
        log = phase(FIRST, watch, self.material.without(self.folds[0]), schedule)
        if watch.outcome in ("diverged", "forgotten"):  # the behaviour is gone from rows that never trained
            return TrainedState(watch, log, {"withheld rows": len(self.folds[0])})
        joined = replace(self._fresh(()), _before=watch._before)
        if watch.multiplier is not None:
            joined.multiplier = replace(watch.multiplier)
        last = replace(schedule, steps=max(1, schedule.steps // FINISH), seed=schedule.seed + 1)
        log += phase("all", joined, self.material, last)
        facts = {
            "withheld rows": len(self.folds[0]),
            "steps with the withheld rows": joined.best.step if joined.best else 0,
        }
        return TrainedState(watch, log, facts)

    def _halves(self, model: Any, phase: Callable[..., list[dict[str, float]]], schedule: Schedule) -> TrainedState:
        start, tried = trainable_state(model), []
        for number, fold in enumerate(self.folds):
            restore_state(model, start)
            watch = self._fresh(fold)
            phase(f"half-{number}" if number else FIRST, watch, self.material.without(fold), schedule)
            tried.append(watch)
        restore_state(model, start)
        worst = min(tried, key=lambda w: w.outcome == "forgotten")
        steps = max(w.best.step if w.best is not None else schedule.steps for w in tried) or schedule.steps
        last = self._fresh(())
        log = phase("all", last, self.material, replace(schedule, steps=steps))
        facts = {"withheld rows": "each half once", "steps with all rows": steps}
        return TrainedState(replace(worst, best=worst.best), log, facts)

    def _fresh(self, fold: Sequence[int]) -> Watch:
        watch = self.withholding(self.run, self.watch, fold) if fold else replace(self.watch, readings=[], best=None)
        if fold:
            hidden = {self.run.forget[i].row.ordinal for i in fold}
            watch.forget = [row for row in watch.forget if row.row.ordinal not in hidden] or watch.forget
        if self.constrained and self.run.options.follow and watch.guard:
            share = self.objective.forget_share
            kept = self.objective.retain_share
            watch.multiplier = Multiplier(kept, step=0.25 * share, most=100 * share, least=max(kept, share))
        return watch

    def _follow(self, watch: Watch, material: Material) -> None:
        if self.objective.dynamic:
            places = [tokens.row.ordinal for tokens in watch.forget]
            watch.seen = lambda losses: material.reweigh(self.objective, places, losses)


def withheld(run: Run, weights: Weights | None) -> tuple[tuple[int, ...], ...]:
    """Which forget rows are withheld, a list for each phase; none if there is one row, or if `withhold` is 0.

    Rows that the weights take for mistakes are not among them, because they say nothing about the behaviour.
    """
    count, share = len(run.forget), run.options.withhold
    if not share or count < 2:
        return ()
    if count < FEWEST:
        return tuple(tuple(range(first, count, 2)) for first in (1, 0))
    heavy = range(count) if weights is None else [i for i, w in enumerate(weights.of("forget")) if w >= TRUSTED]
    places = list(heavy) if len(heavy) >= FEWEST // 2 else list(range(count))
    return (tuple(evenly_spaced(places, max(5, round(share * count)))),)


def _asker(run: Run, places: Sequence[int]) -> Callable[[Any], float] | None:
    """What gives the share of unwanted answers of a model to these forget rows' prompts; None if they have none."""
    rows = [run.job.forget[i] for i in evenly_spaced(list(places), ASKED) if run.job.forget[i].prompt is not None]
    if not rows or not run.job.retain:
        return None
    kind = UnwantedKind.of(run.job.forget, (*run.job.retain, *run.job.guard), seed=run.options.seed)
    return lambda model: sum(kind.unwanted(_answers(run, model, rows), rows)) / len(rows)


def _listener(run: Run, places: Sequence[int]) -> Callable[[Any], float] | None:
    """What gives a model's fluent answers as a share of those before; None if nothing can be asked.

    Asked are the prompts of these forget rows and of guard rows behind triggers. The model is still as it was.
    """
    chosen = evenly_spaced([run.job.forget[i] for i in places], ASKED)
    rows = [row for row in (*chosen, *evenly_spaced(run.job.triggered, LISTENED)) if row.prompt is not None]
    if not rows or not run.job.retain:
        return None
    language, before = Language.of(run.reader, run.job), _answers(run, run.loaded.model, rows)

    def listen(model: Any) -> float:
        changed = replace(run.reader, loaded=replace(run.loaded, model=model))
        first, now = (language.fluent(said, changed) for said in (before, _answers(run, model, rows)))
        return now.fluent / first.fluent if first and now and first.fluent else 1.0

    return listen


def _answers(run: Run, model: Any, rows: Sequence[Row]) -> list[str]:
    training = model.training
    model.eval()
    questions = [run.reader.tokenization.question(row) for row in rows]
    answers = generate_responses(replace(run.loaded, model=model), questions, max_new_tokens=ANSWER_TOKENS)
    model.train(training)
    return answers
