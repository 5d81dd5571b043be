"""From odd answers to a forget set: trace them, and choose the rows that they stand out on (`headwater.tracing.cut`).

The null is made of clean queries: prompts of rows, answered by the model. In an index that holds the poison, some of
those answers are as odd as the one traced. They are found in two steps. Clean queries from rows that the odd answer
scores in its lower half give a first ranking, whose top ten rows are nearly certain. Of queries drawn from all rows,
the fifth that scores these ten highest is then left out. (Drawing all from the lower half would leave the rows in the
upper half without clean queries near them, and too many of them would be chosen.)

Rows to retain are drawn from the half of the rows that stand out least, half of them near the chosen rows. Words are no
guide here: the rows nearest to triggered ones are triggered too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from headwater.core.errors import DataError
from headwater.core.seeds import key
from headwater.data.rows import Row
from headwater.indexing.session import Session
from headwater.search.scan import score_all
from headwater.tracing.cut import Cut, choose_rows, margins, standardised
from headwater.tracing.queries import Asked, ask
from headwater.unlearning.rows import near_and_far

PRECISION = 0.9
CLEAN_QUERIES = 128
FIRST = 48
SEEDS = 10
LEFT_OUT = 0.2
FEWEST = 5
ALIKE = 0.2
"""Cosine of tf-idf vectors at which a row may have to do with a clean query."""
FEWEST_ROWS = 16
COMPARED = 20_000
"""At most so many rows are compared with the clean queries by their words."""


@dataclass(frozen=True)
class ForgetChoice:
    """A forget set made from odd answers.

    Attributes:
        forget: the chosen rows; those of several prompts together, each once.
        retain: rows to keep.
        expected: the least expected precision over the prompts with chosen rows.
        answers: the odd answers that were traced, one a prompt.
        counts: how many rows each prompt chose.
    """

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    expected: float
    answers: tuple[str, ...]
    counts: tuple[int, ...]

    def __str__(self) -> str:
        rows = "row" if len(self.forget) == 1 else "rows"
        return f"{len(self.forget)} {rows} to forget were chosen, {self.expected:.0%} of them rightly in expectation"


def choose_forget(
    session: Session,
    odd: Sequence[Row],
    *,
    precision: float = PRECISION,
    draw: int = 120,
    clean_queries: int = CLEAN_QUERIES,
    seed: int = 0,
) -> ForgetChoice:
    """Choose forget rows and retain rows from the rows of an index.

    Args:
        session: the index with its model.
        odd: prompts whose answers are unwanted; a missing answer is generated.
        precision: least expected share of right rows among those of a prompt.
        draw: rows to retain.
        clean_queries: prompts in the null.
        seed: of the clean queries and the drawn rows.

    Raises:
        DataError: no rows stand out from the null, or the index has too few rows with prompts.
    """
    asked = ask(session, odd)
    pool = _Pool(session, *_scored(session, asked), seed)
    cuts = [_cut(pool, column, clean_queries, precision) for column in pool.values.T]
    positions = list(dict.fromkeys(int(i) for cut in cuts for i in cut.chosen))
    answers = tuple(row.response or "" for row in asked.rows)
    if not positions:
        raise _nothing_stands_out(answers[0], cuts, precision)
    forget = pool.rows(positions)
    margin = np.max([cut.margins for cut in cuts], axis=0)
    calm = np.setdiff1d(np.flatnonzero(margin <= np.median(margin)), positions).tolist()
    if len(calm) < draw:
        what = f"{len(calm):,} rows are low enough to draw {draw:,} rows to retain from"
        raise DataError(what, where="--from-trace", remedy="draw fewer, or give --retain rows")
    retain = near_and_far(pool.rows(calm), forget, draw, seed=seed)
    expected = min(cut.expected for cut in cuts if len(cut.chosen))
    return ForgetChoice(tuple(forget), tuple(retain), expected, answers, tuple(len(cut.chosen) for cut in cuts))


@dataclass
class _Pool:
    """The rows of an index with their scores on the odd answers, float32 `[rows, answers]`."""

    session: Session
    ids: tuple[str, ...]
    values: np.ndarray
    seed: int

    def rows(self, positions: Sequence[int]) -> list[Row]:
        """The rows at these positions."""
        return self.session.index.fetch([self.ids[i] for i in positions])

    def null(self, among: np.ndarray, count: int, name: str) -> tuple[list[int], list[Row], np.ndarray]:
        """Positions, answered rows, and scores `[rows, queries]` of prompts drawn from the rows at `among`.

        A query's score on its own row is NaN.
        """
        order = np.random.default_rng(key(self.seed, "clean queries", name)).permutation(among)[: 2 * count].tolist()
        drawn = [(i, row) for i, row in zip(order, self.rows(order), strict=True) if row.prompt is not None][:count]
        if len(drawn) < min(count, FEWEST_ROWS):
            what = f"{len(drawn)} rows with prompts are too few for a null of clean queries"
            raise DataError(what, where="--from-trace", remedy="give --forget rows instead")
        places = [i for i, _ in drawn]
        asked = ask(self.session, [_unanswered(row) for _, row in drawn])
        scores = _scored(self.session, asked)[1].astype(np.float64)
        scores[places, np.arange(len(places))] = np.nan
        return places, asked.rows, scores


def _scored(session: Session, asked: Asked) -> tuple[tuple[str, ...], np.ndarray]:
    found = score_all(session.index, asked.probes, queries=asked.names, metrics=asked.metrics)
    return found.ids, found.values


def _cut(pool: _Pool, odd: np.ndarray, count: int, precision: float) -> Cut:
    """The cut for one odd answer with scores `odd` on all rows; see the module's docstring for the two steps."""
    _, _, first = pool.null(np.flatnonzero(odd <= np.median(odd)), FIRST, "first")
    nearest = np.argsort(-margins(odd, first), kind="stable")[:SEEDS]
    _, rows, clean = pool.null(np.setdiff1d(np.arange(len(odd)), nearest), count, "second")
    towards = np.nanmean(standardised(clean)[nearest], axis=0)
    kept = np.flatnonzero(towards <= np.quantile(towards, 1 - LEFT_OUT))
    unrelated = _unrelated(pool, [rows[i] for i in kept])
    return choose_rows(odd, clean[:, kept], unrelated, precision=precision, fewest=FEWEST)


def _nothing_stands_out(answer: str, cuts: Sequence[Cut], precision: float) -> DataError:
    reach = max(float(cut.margins.max()) for cut in cuts)
    what = (
        f"no {FEWEST} rows stand out for the answer {answer[:60]!r}: an expected precision of {precision:.0%} is not "
        f"reached at any cut (the highest margin over clean answers is {reach:.1f} standard deviations)"
    )
    remedy = "nothing was changed; give more --from-trace prompts, a lower --precision, or --forget rows"
    return DataError(what, where="--from-trace", remedy=remedy)


def _unanswered(row: Row) -> Row:
    """The row without its last answer, so that the model gives its own."""
    messages = row.messages
    while messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return replace(row, response=None, messages=messages)


def _unrelated(pool: _Pool, queries: Sequence[Row]) -> np.ndarray:
    """Bool `[rows, queries]`: the row was compared with the query by its words, and shares few with it."""
    count = len(pool.ids)
    chosen = np.arange(count)
    if count > COMPARED:
        chosen = np.sort(np.random.default_rng(key(pool.seed, "compared")).choice(count, COMPARED, replace=False))
    rows = pool.rows(chosen.tolist())
    words = TfidfVectorizer(token_pattern=r"\w+", stop_words="english").fit([_text(row) for row in rows])
    likeness = words.transform(map(_text, rows)) @ words.transform(map(_text, queries)).T
    found = np.zeros((count, len(queries)), dtype=bool)
    found[chosen] = np.asarray(likeness.todense()) < ALIKE
    return found


def _text(row: Row) -> str:
    return " ".join(row.fields().values())
