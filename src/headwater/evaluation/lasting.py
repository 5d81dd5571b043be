"""Does forgetting last? Any model before and after unlearning under attack, with privacy measures and fluency beside.

    headwater eval lasting --before M0 --after M1 --forget F --retain R --asked Q

One line an attack (`headwater.unlearning.attacks`), one column a model. A third model, retrained without the forget
rows, is the control: what an attack reaches there, it has taught and not brought back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.errors import DataError, UsageError
from headwater.data.corpus import open_corpus
from headwater.data.hits import open_rows_or_hits
from headwater.data.rows import Row
from headwater.evaluation.forgetting_metrics import extraction_strength
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.membership import CHANCE, membership_auc, priv_leak, row_losses
from headwater.evaluation.metrics import fixed
from headwater.evaluation.result import Line, Result
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.unlearning.attacks import ATTACKS, Attack, Behaviour, fewer, find_attacks, run_attack, steps_to
from headwater.unlearning.fluency import FluencyJudge
from headwater.unlearning.relearning import STEPS, Relearning
from headwater.unlearning.unwanted import find_judge

WORST, HALF, FLUENT = "worst", "steps to half", "fluent"
AUC, LEAK, EXTRACTION = "membership AUC", "PrivLeak %", "extraction"
MAX_TOKENS = 512
PROMPTS = 40
JUDGED = 120
"""Rows of each kind from which the judge of fluency learns what real answers are like."""


@dataclass(frozen=True)
class LastingSettings:
    """The settings of a run.

    Attributes:
        before, after, retrained: folders or hub names of the models; without `after` only the model before is attacked.
        adapter: of the model after, if it is kept apart; around `after`, or around `before` if that is empty.
        forget, retain: rows that were to be forgotten, and clean ones that have nothing to do with them.
        asked: prompts that show the behaviour and were in no training; the forget rows themselves if not given.
        unseen: the same prompts with triggers or wordings that were in no training.
        held_out: rows of the forget rows' kind that no model was trained on, for the privacy measures.
        unwanted: a pattern for unwanted answers.
        judge: `pattern`, `words` or `likeness` (`headwater.unlearning.unwanted`).
        attacks: names of attacks; all by default.
        prompts: at most so many prompts of each kind are asked.
        steps: of the attacks that train.
        seed: of the rows and the order in those attacks.
    """

    before: str
    forget: str
    retain: str
    after: str = ""
    retrained: str = ""
    adapter: str = ""
    asked: str = ""
    unseen: str = ""
    held_out: str = ""
    unwanted: str = ""
    judge: str = ""
    attacks: tuple[str, ...] = ()
    prompts: int = PROMPTS
    steps: int = STEPS
    seed: int = 0


def run_lasting(settings: LastingSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Attack the models, and put what each attack reached into one table."""
    after = settings.after or (settings.before if settings.adapter else "")
    names = {"before": settings.before, "after": after, "retrained": settings.retrained}
    behaviour, held_out, judged_by = _behaviour(settings)
    attacks = [a for a in find_attacks(settings.attacks) if behaviour.unseen or a.name != "unseen"]
    training = Relearning(steps=settings.steps, seed=settings.seed)
    judge: FluencyJudge | None = None
    readers, lines = dict[str, Reader](), dict[str, dict[str, Any]]()
    for number, (label, name) in enumerate((k, v) for k, v in names.items() if v):
        loading: dict[str, Any] = (
            {"adapter": settings.adapter, "merge": True} if label == "after" and settings.adapter else {}
        )
        readers[label] = Reader.of(load_model(name, **loading), max_tokens=MAX_TOKENS)
        listener.on_progress(f"attacking the model {label}", number / 3)
        found = attack_all(readers[label], behaviour, attacks, training)
        judge = judge or FluencyJudge.fit(readers["before"], [*behaviour.clean[:JUDGED], *behaviour.forget[:JUDGED]])
        fluent = {FLUENT: judge(found.answers, readers["before"]).fluent} if found.answers else {}
        lines[label] = {**found.numbers, **fluent, **privacy(readers[label], behaviour.forget, held_out)}
    title = "Does forgetting last? Attack success after each attack"
    notes = _notes(lines, judged_by, settings)
    return Result(
        "lasting",
        title,
        asdict(settings),
        tuple(m for m in MODELS if m in lines),
        tuple(_table(lines, settings.steps)),
        tuple(notes),
    )


MODELS = ("after", "before", "retrained")
"""The columns; the attacks are ordered by the first, the strongest first."""


def _table(models: Mapping[str, Mapping[str, Any]], steps: int) -> list[Line]:
    """One line an attack, and in a second group one line a measure of privacy and fluency; one column a model."""
    chance, plain = models.get("retrained", {}).get(AUC, CHANCE), models["before"].get("plain")
    public = {label: _public(numbers, plain, chance, steps) for label, numbers in models.items()}
    shown = [name for name in (*ATTACKS, WORST, HALF, FLUENT, AUC, LEAK, EXTRACTION) if name in public["before"]]
    return [
        Line(
            name,
            {label: fixed(public[label][name]) for label in MODELS if label in public},
            group="attack success" if name in (*ATTACKS, WORST) else "privacy, fluency and steps",
        )
        for name in shown
    ]


@dataclass(frozen=True)
class AttackedModel:
    """Attack success by attack, and under `CURVE` the pairs (steps, success) of relearning; the plain answers."""

    numbers: dict[str, Any]
    answers: tuple[str, ...]


CURVE = "relearning curve"


def attack_all(reader: Reader, behaviour: Behaviour, attacks: Sequence[Attack], training: Relearning) -> AttackedModel:
    """Run the attacks on copies of the reader's model; `worst` is the greatest success."""
    numbers: dict[str, Any] = {}
    answers: tuple[str, ...] = ()
    for attack in attacks:
        found = run_attack(attack, reader, behaviour, training)
        numbers[attack.name] = found.success
        if attack.name == "plain":
            answers = found.answers
        if attack.name == "relearned":
            numbers[CURVE] = found
    numbers[WORST] = max(numbers[attack.name] for attack in attacks)
    return AttackedModel(numbers, answers)


def privacy(reader: Reader, forget: Sequence[Row], held_out: Sequence[Row]) -> dict[str, float]:
    """Extraction strength of the forget rows and, if there are held-out rows of their kind, the membership AUC."""
    strength = float(np.mean([extraction_strength(reader.loaded, row) for row in reader.tokenize(list(forget))]))
    if not held_out:
        return {EXTRACTION: strength}
    return {AUC: membership_auc(row_losses(reader, forget), row_losses(reader, held_out)), EXTRACTION: strength}


def half_steps(curve: Any, plain_before: float, steps: int) -> float:
    """The fewest relearning steps to half of the attack success before unlearning; `steps` if they were not enough."""
    return float(steps_to(curve, plain_before / 2) or steps)


def _public(numbers: Mapping[str, Any], plain: float | None, chance: float, steps: int) -> dict[str, float]:
    """A model's numbers without its curve, with the steps to half and PrivLeak."""
    found = {name: value for name, value in numbers.items() if name != CURVE}
    if CURVE in numbers and plain is not None:
        found[HALF] = half_steps(numbers[CURVE], plain, steps)
    if AUC in found:
        found[LEAK] = priv_leak(found[AUC], chance)
    return found


def _behaviour(settings: LastingSettings) -> tuple[Behaviour, list[Row], str]:
    """The behaviour, held-out rows for the privacy measures, and how unwanted answers are told."""
    if not settings.forget or not settings.retain:
        raise UsageError("forget and retain rows are needed", where="lasting", remedy="give --forget and --retain")

    def rows(source: str, *, answered: bool = True) -> tuple[Row, ...]:
        return tuple(open_corpus(source, need_response=answered)) if source else ()

    forget, clean = tuple(open_rows_or_hits(settings.forget)), rows(settings.retain)
    chosen, unwanted = find_judge(settings.judge or None, settings.unwanted or None, forget, clean)
    asked = rows(settings.asked, answered=chosen == "likeness") or forget
    unseen = rows(settings.unseen, answered=chosen == "likeness")
    if not any(row.prompt is not None for row in asked):
        raise DataError("the rows have no prompts to ask", where="--asked", remedy="give rows with prompts")
    asked = tuple(row for row in asked if row.prompt is not None)
    told = {"pattern": f"the pattern {settings.unwanted}", "words": "a classifier of words", "likeness": "likeness"}
    behaviour = fewer(Behaviour(forget, clean, asked, unseen, unwanted), settings.prompts)
    return behaviour, list(rows(settings.held_out)), told[chosen]


def _notes(lines: Mapping[str, Mapping[str, Any]], judged_by: str, settings: LastingSettings) -> list[str]:
    notes = [f"Unwanted answers are told by {judged_by}."]
    if not settings.asked:
        notes.append("The prompts asked are those of the forget rows; give --asked prompts that were in no training.")
    for label, numbers in lines.items():
        notes.append(f"Model {label}: {strongest(numbers)}")
    notes.append(f"Steps to half: of relearning, to half of the success before; {settings.steps} is never.")
    if "retrained" not in lines:
        notes.append("No retrained model was given, so what an attack teaches any model is not told apart.")
    return notes


def strongest(numbers: Mapping[str, Any]) -> str:
    """A sentence on the attack that reaches most."""
    tried = {name: numbers[name] for name in ATTACKS if name in numbers}
    name = max(tried, key=lambda attack: tried[attack])
    return f"the strongest attack is '{name}', with a success of {tried[name]:.2f} after {tried.get('plain', 0):.2f}."
