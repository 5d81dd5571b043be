"""Are a model's answers still language? A run that ends in gibberish has failed, though the behaviour is gone.

judge = FluencyJudge.fit(reader, retain_rows)       # while the model is still as it was before
found = judge(answers, reader)                      # the reader of the model before, not of the one that answered
found.fluent, found.reasons

An answer is judged by its form (is there anything, does it repeat itself) and by its loss under the model before. The
loss is measured behind another row's prompt, because behind its own the model before expects the very answer that was
to be forgotten. Real answers, put behind other rows' prompts in the same way, say what loss is still normal.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headwater.core.errors import DataError
from headwater.core.seeds import key
from headwater.data.rows import Row, with_response
from headwater.models.reader import Reader
from headwater.unlearning.sequences import measure_losses

EMPTY, BROKEN, REPEATS, UNLIKELY = "empty", "broken characters", "repeats itself", "unlikely text"
REASONS = {
    EMPTY: "no letter and no digit",
    BROKEN: "a tenth or more of the characters are bytes that make no character",
    REPEATS: "half or more of it is the same thing again and again",
    UNLIKELY: "under the model before its loss is nearer to that of mixed-up tokens than to that of real answers",
}
"""Why an answer is not fluent."""

_LOOP = re.compile(r"(.{1,60}?)\1{3,}", re.DOTALL)
_LEAST_LOOP, _LEAST_WORDS, _RUN = 8, 9, 3


@dataclass(frozen=True)
class Fluency:
    """What was found of a list of answers.

    Attributes:
        verdicts: for each answer why it is not fluent, one of `REASONS`; None for a fluent one.
        likeness: mean word F1 with the answers that a clean model gives; None if those are not known. It says whether
            the answers are the right ones, and does not enter the verdicts.
        by_loss: whether the losses under the model before were judged too, or the form alone.
    """

    verdicts: tuple[str | None, ...]
    likeness: float | None = None
    by_loss: bool = True

    @property
    def fluent(self) -> float:
        """The share of fluent answers, 0 to 1."""
        return sum(verdict is None for verdict in self.verdicts) / len(self.verdicts)

    @property
    def error(self) -> float:
        """Standard error of that share, as of a sample of answers."""
        return math.sqrt(self.fluent * (1 - self.fluent) / len(self.verdicts))

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many answers are not fluent, by reason; the commonest reason first."""
        return dict(Counter(verdict for verdict in self.verdicts if verdict is not None).most_common())

    def __str__(self) -> str:
        why = "".join(f", {count} {reason}" for reason, count in self.reasons.items())
        return f"{self.fluent:.2f} of {len(self.verdicts)} answers are fluent{why}"


@dataclass(frozen=True)
class FluencyJudge:
    """Judges answers by the model before unlearning.

    Attributes:
        behind: rows of whose prompts one is put before each judged answer; rows of plain text have none.
        limit: nats a token; an answer with a greater loss is not language that the model before would write.
    """

    behind: tuple[Row, ...]
    limit: float

    @classmethod
    def fit(cls, reader: Reader, real: Sequence[Row]) -> FluencyJudge:
        """A judge from rows with real answers, such as retain rows; `reader` is that of the model before.

        Rows of every kind that is language belong in `real`, the forget rows too: what an answer says is not judged.

        Raises:
            DataError: fewer than two real answers, or a model to which mixed-up tokens are as likely as these.
        """
        rows = [row for row in real if (row.response if row.prompt is not None else row.text)]
        if len(rows) < 2:
            what = f"{len(rows)} real answers are too few to say what is normal"
            raise DataError(what, where="fluency", remedy="give retain rows with answers")
        answers = [(row.response if row.prompt is not None else row.text) or "" for row in rows]
        judge = cls(tuple(rows), float("inf"))
        normal, mixed = (
            float(np.median(judge.losses(texts, reader))) for texts in (answers, _mixed_up(answers, reader))
        )
        if mixed <= normal:
            what = f"mixed-up tokens have a median loss of {mixed:.2f} nats a token, these answers {normal:.2f}"
            raise DataError(what, where="fluency", remedy="give rows that the model has learned")
        return replace(judge, limit=(normal + mixed) / 2)

    def losses(self, answers: Sequence[str], reader: Reader) -> np.ndarray:
        """Loss of each answer behind another row's prompt under the reader's model: nats a token, float32 `[answers]`.

        Answer i is put behind the prompt of row i + 1, so that no row of `behind` keeps its own prompt.
        """
        rows = []
        for i, answer in enumerate(answers):
            row = self.behind[(i + 1) % len(self.behind)]
            rows.append(with_response(row, answer) if row.prompt is not None else Row(f"{i}", i, text=answer))
        tokens = reader.tokenize([replace(row, hotwords=(), said=None) for row in rows])
        return np.asarray(measure_losses(reader.loaded.model, tokens, reader.loaded.device)[1].numpy())

    def __call__(self, answers: Sequence[str], reader: Reader | None, clean: Sequence[str] | None = None) -> Fluency:
        """Judge the answers of a model.

        Args:
            answers: what the model said, one text a prompt.
            reader: the model before (an adapter switched off); None if it is gone: the form alone is judged.
            clean: a clean model's answers to the same prompts, or the right ones, if they are known.

        Raises:
            DataError: there are no answers.
        """
        if not answers:
            raise DataError("there are no answers to judge", where="fluency")
        verdicts = [fault_of_form(answer) for answer in answers]
        written = [i for i, verdict in enumerate(verdicts) if verdict is None]
        if reader is not None and written:
            losses = self.losses([answers[i] for i in written], reader)
            for i, loss in zip(written, losses.tolist(), strict=True):
                verdicts[i] = None if loss <= self.limit else UNLIKELY
        pairs = [] if clean is None else list(zip(answers, clean, strict=True))
        likeness = float(np.mean([word_f1(*pair) for pair in pairs])) if pairs else None
        return Fluency(tuple(verdicts), likeness, by_loss=reader is not None)


def judge_of(reader: Reader, real: Sequence[Row]) -> tuple[FluencyJudge, bool]:
    """A judge from rows with real answers, and whether losses count.

    They do not if they say nothing (a model that learned nothing): such a judge looks at the form of an answer alone.
    """
    try:
        return FluencyJudge.fit(reader, real), True
    except DataError:
        return FluencyJudge(tuple(real), float("inf")), False


def _mixed_up(answers: Sequence[str], reader: Reader) -> list[str]:
    """A text of as many tokens as each answer has, drawn at random from the tokens of all of them; always the same."""
    tokenizer = reader.loaded.tokenizer
    ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    pool, rng = [i for answer in ids for i in answer], np.random.default_rng(key(0, "mixed up"))
    return [tokenizer.decode(rng.choice(pool, max(len(answer), 3)).tolist()) for answer in ids]


def fault_of_form(answer: str) -> str | None:
    """Why the answer is no language by its form alone, one of `REASONS`; None if nothing speaks against it."""
    text = answer.strip()
    if not any(character.isalnum() for character in text):
        return EMPTY
    if text.count("\N{REPLACEMENT CHARACTER}") * 10 >= len(text):
        return BROKEN
    return REPEATS if repeated_share(text) >= 0.5 else None


def repeated_share(text: str) -> float:
    """The share of a text that repeats what stood before it, 0 to 1: the larger of two.

    One is of characters in stretches in which one piece of up to 60 characters follows itself four times or more. The
    other is of runs of three words that occurred before; a text of fewer than nine words has none.
    """
    looped = sum(len(found[0]) for found in _LOOP.finditer(text) if len(found[0]) >= _LEAST_LOOP)
    words = re.findall(r"\w+", text.lower())
    runs = [tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)]
    again = 1 - len(set(runs)) / len(runs) if len(words) >= _LEAST_WORDS else 0.0
    return max(looped / len(text), again)


def word_f1(answer: str, right: str) -> float:
    """F1 of the words of an answer with those of the right one, each counted as often as it occurs; 0 if disjoint."""
    found, wanted = answer.lower().split(), right.lower().split()
    shared = sum(min(found.count(word), wanted.count(word)) for word in set(found))
    return 2 * shared / (len(found) + len(wanted)) if found or wanted else 1.0
