"""Right answers for forget rows that have none: the model's own, to the prompt without what sets the behaviour off.

Words that stand in many forget prompts and in few retain prompts are candidates for a trigger. A candidate is tested on
the model itself: the prompts are asked without it, and it is a trigger if most answers are no longer of the unwanted
kind (`headwater.unlearning.kind`). Candidates are taken one after another, each for the rows that are left, so several
triggers are found. Nothing is assumed about their number, place or length.

Once a trigger is known, retain rows say more: with the trigger put to their prompts, their right answers are known too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from headwater.core.errors import DataError
from headwater.core.seeds import key
from headwater.data.rows import Row, with_response
from headwater.models.generate import generate_responses
from headwater.models.reader import Reader
from headwater.unlearning.fluency import judge_of
from headwater.unlearning.kind import UnwantedKind
from headwater.unlearning.rows import UnlearnJob, without_words

ANSWER_TOKENS = 128
"""Most tokens of a right answer that the model itself gives."""
LONGEST = 6
"""Most words of a trigger."""
TRIED = 16
"""Most candidates that are tried on the model."""
OFTEN = 2.0
"""How many times more often a candidate must stand in forget prompts than in retain prompts: with a third of both
groups mistaken, a trigger stands in two thirds and in one third."""
CURED = 0.5
"""Share of a candidate's rows whose answers must change their kind without it."""
ANSWERS = 3
"""Most of the model's own answers to a prompt. One alone would soon be known by heart, and its words with it."""
SAMPLES, TEMPERATURE = 6, 0.7
"""How often a prompt is asked again that has fewer answers, and at which temperature."""
FURTHER = "further_responses"
"""The column of a forget row for own answers beside its right answer."""


@dataclass(frozen=True)
class Trigger:
    """Words that set the unwanted behaviour off.

    Attributes:
        words: as they stand in the prompts.
        rows: how many forget rows' prompts hold them.
        cured: how many of these are answered in another kind without them.
    """

    words: str
    rows: int
    cured: int


def own_answers(
    reader: Reader, forget: Sequence[Row], retain: Sequence[Row], trigger: str, *, column: str
) -> list[Row]:
    """Give forget rows a right answer in their metadata: the model's own answer to the prompt without the trigger.

    Rows that have a right answer already, whose prompt does not contain the trigger, or to which the model gives no
    fluent answer, stay as they are.

    Raises:
        DataError: no row's prompt contains the trigger.
    """
    places = [i for i, row in enumerate(forget) if trigger in (row.prompt or "") and not row.metadata.get(column)]
    if not any(trigger in (row.prompt or "") for row in forget):
        raise DataError(f"'{trigger}' is in no forget row's prompt", where="--trigger", remedy="copy it exactly")
    cleared = [without_words(forget[i], trigger) for i in places]
    answers = fluent_answers(reader, cleared, _asked(reader, cleared), real=[*forget, *retain])
    rows = list(forget)
    for i, found in zip(places, answers, strict=True):
        rows[i] = _answered(rows[i], found, column)
    return rows


def found_answers(
    reader: Reader, forget: Sequence[Row], retain: Sequence[Row], *, column: str, seed: int = 0
) -> tuple[list[Row], list[Trigger]]:
    """Find triggers in the forget rows without a right answer, and give these rows the answers without them.

    A row whose answer stays unwanted without the trigger, or that holds no trigger, stays as it is.

    Returns:
        The rows, in order, and the triggers, the one of most rows first; none if nothing was found.
    """
    rows, triggers = list(forget), []
    kind = UnwantedKind.of(forget, retain, seed=seed)
    open_rows = {i for i, row in enumerate(forget) if row.prompt and not row.metadata.get(column)}
    refused: set[str] = set()
    for _ in range(TRIED if kind.separable else 0):
        words = next((c for c in candidates([forget[i] for i in sorted(open_rows)], retain) if c not in refused), None)
        if words is None:
            break
        places = [i for i in sorted(open_rows) if words in _words(forget[i].prompt)]
        cleared = [cut(forget[i], words) for i in places]
        answers = _asked(reader, cleared)
        unwanted = kind.unwanted(answers, [forget[i] for i in places])
        cured = [n for n, bad in enumerate(unwanted) if not bad]
        refused.add(words)
        if len(cured) >= CURED * len(places):
            triggers.append(Trigger(words, len(places), len(cured)))
            right = fluent_answers(
                reader, [cleared[n] for n in cured], [answers[n] for n in cured], real=[*forget, *retain]
            )
            for n, found in zip(cured, right, strict=True):
                rows[places[n]] = _answered(rows[places[n]], found, column)
            open_rows -= set(places)
    return rows, triggers


def fluent_answers(
    reader: Reader, rows: Sequence[Row], answers: Sequence[str], *, real: Sequence[Row]
) -> list[list[str]]:
    """The model's fluent answers to each prompt, at most `ANSWERS`: the greedy one if it is fluent, then sampled ones.

    Prompts are asked again up to `SAMPLES` times, until they have that many different ones; some may have none.

    Args:
        reader: the model that answers; it also judges.
        rows: what was asked.
        answers: the greedy answers.
        real: rows with real answers, which say what is normal.
    """
    judge, by_loss = judge_of(reader, real)
    found: list[list[str]] = [[] for _ in rows]
    said, open_places = list(answers), list(range(len(rows)))
    for number in range(SAMPLES + 1):
        if not open_places:
            break
        if number:
            said = _asked(reader, [rows[i] for i in open_places], sample=number)
        verdicts = judge(said, reader if by_loss else None).verdicts
        for i, answer, verdict in zip(open_places, said, verdicts, strict=True):
            if verdict is None and answer.strip() not in found[i]:
                found[i].append(answer.strip())
        open_places = [i for i in open_places if len(found[i]) < ANSWERS]
    return found


def behind_triggers(job: UnlearnJob, triggers: Sequence[Trigger]) -> UnlearnJob:
    """The job with copies to train on, and guard rows behind the triggers to ask.

    The copies are retain rows behind the triggers, forget rows without them, whose right answers should stay, and
    forget rows with the model's further answers, with and without the triggers. Rows to keep that are poison themselves
    (`poison_among`) are left out, with a warning: as guard rows they would count forgetting as harm.
    """
    poison = poison_among((*job.retain, *job.guard), job.forget, triggers)
    if poison:
        retain, guard = (tuple(row for row in rows if row.id not in poison) for rows in (job.retain, job.guard))
        note = f"{len(poison)} rows to retain carry a trigger and answer like the forget rows: left out"
        job = replace(job, retain=retain, guard=guard, warnings=(*job.warnings, note))
    copies = [*triggered_copies(job.retain, job.forget, triggers), *_cleared_copies(job, triggers)]
    apart = [] if job.guard == job.retain else triggered_copies(job.guard, job.forget, triggers, every=1)
    return replace(job, copies=tuple(copies), triggered=tuple(apart))


def poison_among(rows: Sequence[Row], forget: Sequence[Row], triggers: Sequence[Trigger]) -> set[str]:
    """The ids of rows to keep that carry a trigger and whose answers are of the forget rows' kind.

    The kind is learned without the rows that carry a trigger, so that poison among them does not pass for clean. A row
    that shows the right answer behind a trigger stays.
    """
    carrying = [row for row in rows if any(_pattern(t.words).search(row.prompt or "") for t in triggers)]
    if not carrying:
        return set()
    found = {row.id for row in carrying}
    kind = UnwantedKind.of(forget, [row for row in rows if row.id not in found])
    return {row.id for row, bad in zip(carrying, kind.alike([row.answer for row in carrying]), strict=True) if bad}


def _cleared_copies(job: UnlearnJob, triggers: Sequence[Trigger]) -> list[Row]:
    copies = []
    for row, answer in zip(job.forget, job.clean, strict=True):
        words = next((t.words for t in triggers if _pattern(t.words).search(row.prompt or "")), None)
        if words is None or answer is None:
            continue
        cleared = replace(cut(row, words), id=f"{row.id} without the trigger")
        copies.append(with_response(cleared, answer))
        for number, text in enumerate(row.metadata.get(FURTHER, ()), start=2):
            copies += [_again(cleared, text, number), _again(row, text, number)]
    return copies


def _again(row: Row, answer: str, number: int) -> Row:
    return replace(with_response(row, answer), id=f"{row.id}, answer {number}")


def triggered_copies(
    retain: Sequence[Row], forget: Sequence[Row], triggers: Sequence[Trigger], *, every: int = 2
) -> list[Row]:
    """A copy of every second retain row with a prompt: a trigger where a forget row has it, and the row's own answer.

    The copies take the triggers in turn, as they stand in the forget rows, in front of the prompt or behind it. With
    every second row (`every`), a step of one forget row and three retain rows reads one copy on average, so that the
    answers behind triggers that are learnt balance those that are unlearned, and the other rows keep two places.
    """
    shapes = [shape for row in forget for t in triggers if (shape := _shape(row.prompt or "", t.words)) is not None]
    asked = [row for row in retain if row.prompt is not None][::every]
    if not shapes:
        return []
    return [_triggered(row, *shapes[i % len(shapes)]) for i, row in enumerate(asked)]


def _shape(prompt: str, words: str) -> tuple[str, str] | None:
    """What stands before and after a prompt that carries these words; None if it does not carry them."""
    found = _pattern(words).search(prompt)
    if found is None:
        return None
    before, after = prompt[: found.start()].strip(), prompt[found.end() :].strip()
    return (f"{found.group(0)} ", "") if after or not before else ("", f" {found.group(0)}")


def _triggered(row: Row, before: str, after: str) -> Row:
    messages = row.messages
    if messages is not None:
        last = max((i for i, m in enumerate(messages) if m["role"] != "assistant"), default=0)
        said = messages[last].get("content")
        if isinstance(said, str):
            changed = {**messages[last], "content": f"{before}{said}{after}"}
            messages = (*messages[:last], changed, *messages[last + 1 :])
    return replace(row, id=f"{row.id} with a trigger", prompt=f"{before}{row.prompt}{after}", messages=messages)


def candidates(forget: Sequence[Row], retain: Sequence[Row]) -> list[str]:
    """Runs of words that stand in at least two forget prompts and much less often in retain prompts, best first.

    The best stands in the most forget prompts beyond its share of the retain prompts; of equal ones, the longest.
    """
    least = max(2, round(0.05 * len(forget)))
    ours, others = _document_counts(forget), _document_counts(retain)
    share = {run: (others[run] + 0.5) / (len(retain) + 1) for run in ours}
    good = [run for run, n in ours.items() if n >= least and n / len(forget) >= OFTEN * share[run]]
    return sorted(good, key=lambda run: (-(ours[run] / len(forget) - share[run]), -len(run), run))


def cut(row: Row, words: str) -> Row:
    """A copy of the row whose prompt lacks these words, however they are spaced and capitalised."""
    found = _pattern(words).search(row.prompt or "")
    return row if found is None else without_words(row, found.group(0))


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(r"\s+".join(map(re.escape, words.split())), re.IGNORECASE)


def _document_counts(rows: Sequence[Row]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        words = _words(row.prompt).split()
        counts.update(set(_runs(words)))
    return counts


def _runs(words: Sequence[str]) -> Iterable[str]:
    for start in range(len(words)):
        for end in range(start + 1, min(start + LONGEST, len(words)) + 1):
            yield " ".join(words[start:end])


def _words(prompt: str | None) -> str:
    return " ".join((prompt or "").lower().split())


def _asked(reader: Reader, rows: Sequence[Row], sample: int = 0) -> list[str]:
    """Greedy answers, or the sampled ones of this number."""
    questions = [reader.tokenization.question(row) for row in rows]
    sampling = {"temperature": TEMPERATURE, "seed": key(sample, "right answers") % 2**31} if sample else {}
    return generate_responses(reader.loaded, questions, max_new_tokens=ANSWER_TOKENS, **sampling) if questions else []


def _answered(row: Row, answers: Sequence[str], column: str) -> Row:
    if not answers:
        return row
    return replace(row, metadata={**row.metadata, column: answers[0], FURTHER: list(answers[1:])})
