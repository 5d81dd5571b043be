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

from headwater.core.errors import DataError
from headwater.core.seeds import key
from headwater.data.rows import Row
from headwater.indexing.session import Session
from headwater.search.scan import score_all
from headwater.tracing.cut import Cut, choose_rows, margins, standardised
from headwater.tracing.queries import Asked, ask
from headwater.unlearning.rows import near_and_far

PRECISION = 0.9
CLEAN_QUERIES = 256
FIRST = 48
SEEDS = 10
LEFT_OUT = 0.2
FEWEST = 5
FEWEST_ROWS = 16


@dataclass(frozen=True)
class ForgetChoice:
    """A forget set made from odd answers.

    Attributes:
        forget: the chosen rows; those of several prompts together, each once.
        retain: rows to keep.
        expected: the expected share of right rows among them.
        answers: the odd answers that were traced, one a prompt.
        counts: how many of the rows each prompt puts above the cut.
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
        precision: least expected share of right rows.
        draw: rows to retain.
        clean_queries: prompts in the null.
        seed: of the clean queries and the drawn rows.

    Raises:
        DataError: no rows stand out from the null, or the index has too few rows with prompts.
    """
    asked = ask(session, odd)
    pool = _Pool(session, *_scored(session, asked), seed)
    clean = [_clean(pool, column, clean_queries) for column in pool.values.T]
    cut = choose_rows(list(pool.values.T), clean, precision=precision, fewest=FEWEST)
    positions = cut.chosen.tolist()
    answers = tuple(row.response or "" for row in asked.rows)
    if not positions:
        raise _nothing_stands_out(answers[0], cut, precision)
    forget = pool.rows(positions)
    calm = np.setdiff1d(np.flatnonzero(cut.margins <= np.median(cut.margins)), positions).tolist()
    if len(calm) < draw:
        what = f"{len(calm):,} rows are low enough to draw {draw:,} rows to retain from"
        raise DataError(what, where="--from-trace", remedy="draw fewer, or give --retain rows")
    retain = near_and_far(pool.rows(calm), forget, draw, seed=seed)
    return ForgetChoice(tuple(forget), tuple(retain), cut.expected, answers, cut.counts)


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

    def null(self, among: np.ndarray, count: int, name: str) -> np.ndarray:
        """Scores `[rows, queries]` of prompts drawn from the rows at `among`; a query's score on its own row is NaN."""
        order = np.random.default_rng(key(self.seed, "clean queries", name)).permutation(among)[: 2 * count].tolist()
        drawn = [(i, row) for i, row in zip(order, self.rows(order), strict=True) if row.prompt is not None][:count]
        if len(drawn) < min(count, FEWEST_ROWS):
            what = f"{len(drawn)} rows with prompts are too few for a null of clean queries"
            raise DataError(what, where="--from-trace", remedy="give --forget rows instead")
        places = [i for i, _ in drawn]
        asked = ask(self.session, [_unanswered(row) for _, row in drawn])
        scores = _scored(self.session, asked)[1]
        scores[places, np.arange(len(places))] = np.nan
        return scores


def _scored(session: Session, asked: Asked) -> tuple[tuple[str, ...], np.ndarray]:
    found = score_all(session.index, asked.probes, queries=asked.names, metrics=asked.metrics)
    return found.ids, found.values


def _clean(pool: _Pool, odd: np.ndarray, count: int) -> np.ndarray:
    """Scores `[rows, queries]` on clean queries for one odd answer; see the module's docstring for the two steps."""
    first = pool.null(np.flatnonzero(odd <= np.median(odd)), FIRST, "first")
    nearest = np.argsort(-margins(odd, first), kind="stable")[:SEEDS]
    clean = pool.null(np.setdiff1d(np.arange(len(odd)), nearest), count, "second")
    towards = np.nanmean(standardised(clean)[nearest], axis=0)
    kept: np.ndarray = clean[:, towards <= np.quantile(towards, 1 - LEFT_OUT)]
    return kept


def _nothing_stands_out(answer: str, cut: Cut, precision: float) -> DataError:
    reach = float(cut.margins.max())
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
