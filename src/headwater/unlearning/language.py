"""Are the answers of a model that unlearns still language? Judged by the model as it was before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headwater.models.reader import Reader
from headwater.unlearning.adapter import reference
from headwater.unlearning.fluency import Fluency, FluencyJudge, judge_of
from headwater.unlearning.rows import UnlearnJob

FLUENT = 0.9
"""Share of the fluent answers of before below which a run ended in gibberish."""


@dataclass(frozen=True)
class Language:
    """Judges whether answers are language; made while the model is still as it was."""

    judge: FluencyJudge
    by_loss: bool

    @classmethod
    def of(cls, reader: Reader, job: UnlearnJob) -> Language:
        """A judge from all rows' answers."""
        return cls(*judge_of(reader, (*job.forget, *job.retain, *job.guard)))

    def fluent(self, answers: Sequence[str], reader: Reader) -> Fluency | None:
        """What is found of the answers; `reader` is of the model before, or of the model with its adapter still on.

        None if there are no answers.
        """
        if not answers:
            return None
        if not self.by_loss:
            return self.judge(answers, None)
        if not hasattr(reader.loaded.model, "disable_adapter"):
            return self.judge(answers, None)
        with reference(reader.loaded.model) as before:
            return self.judge(answers, replace(reader, loaded=replace(reader.loaded, model=before)))
