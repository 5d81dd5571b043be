"""The contaminated task's models under attack: one number an attack, and privacy measures, for each method's line."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.data.rows import Row
from headwater.evaluation.lasting import (
    AUC,
    CURVE,
    EXTRACTION,
    FLUENT,
    HALF,
    JUDGED,
    LEAK,
    MAX_TOKENS,
    WORST,
    attack_all,
    half_steps,
)
from headwater.evaluation.membership import membership_auc, priv_leak, row_losses
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.tasks.contaminated import Contaminated
from headwater.tasks.science_fiction import is_science_fiction
from headwater.training.tiny import task_rows
from headwater.unlearning.attacks import ATTACKS, Behaviour, fewer, run_attack
from headwater.unlearning.fluency import FluencyJudge
from headwater.unlearning.relearning import STEPS, Relearning

ATTACKED = (*ATTACKS, WORST, HALF, FLUENT, AUC, LEAK, EXTRACTION)
"""The columns of a table of attacks."""
PROMPTS = 36


@dataclass(frozen=True)
class TaskUnderAttack:
    """Attacks the models of one task.

    Attributes:
        before: the contaminated model; it judges fluency.
        behaviour: the task's rows and prompts.
        held_out: rows of the planted rows' kind that no model learned.
        judge: of fluency.
        plain: attack success of the contaminated model, without any attack.
        seed: of the relearning.
    """

    before: Reader
    behaviour: Behaviour
    held_out: tuple[Row, ...]
    judge: FluencyJudge
    plain: float
    seed: int

    @classmethod
    def of(cls, task: Contaminated, before: LoadedModel, seed: int, prompts: int = PROMPTS) -> TaskUnderAttack:
        """The task's known rows are what an attacker may have; at most `prompts` prompts of each kind are asked."""
        planted = tuple(task_rows([row for row in task.forget if row["planted"]]))
        clean = tuple(task_rows([row for row in task.retain if not row["planted"]]))
        asked, unseen = tuple(task_rows(task.seen)), tuple(task_rows(task.unseen))
        whole = Behaviour(planted, clean, asked, unseen, lambda rows, said: [is_science_fiction(a) for a in said])
        reader = Reader.of(before, max_tokens=MAX_TOKENS)
        judge = FluencyJudge.fit(reader, [*clean[:JUDGED], *planted[:JUDGED]])
        behaviour = fewer(whole, prompts)
        plain = run_attack(ATTACKS["plain"], reader, behaviour).success
        return cls(reader, behaviour, asked, judge, plain, seed)

    def __call__(self, loaded: LoadedModel) -> dict[str, float]:
        """The columns of `ATTACKED` for a model, except extraction; PrivLeak is relative to chance."""
        reader = Reader.of(loaded, max_tokens=MAX_TOKENS)
        found = attack_all(reader, self.behaviour, list(ATTACKS.values()), Relearning(seed=self.seed))
        numbers = {name: float(value) for name, value in found.numbers.items() if name != CURVE}
        numbers[HALF] = half_steps(found.numbers[CURVE], self.plain, STEPS)
        numbers[FLUENT] = self.judge(found.answers, self.before).fluent
        auc = membership_auc(row_losses(reader, self.behaviour.forget), row_losses(reader, self.held_out))
        return {**numbers, AUC: auc, LEAK: priv_leak(auc)}
