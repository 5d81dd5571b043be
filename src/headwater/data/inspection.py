"""Find every row that cannot be used before anything is done with the others, in one pass over the data.

    corpus = require_usable(corpus, tokenization)

A row cannot be used if its record cannot be read, has no text, has the id of an earlier row, or gives no target token.
The rows stream by: memory grows only with the number of unusable ones.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from headwater.core.errors import DataError
from headwater.data.corpus import Corpus
from headwater.data.found_columns import FoundColumns
from headwater.data.rows import Row
from headwater.data.tokens import ENCODED_AT_ONCE, Tokenization

_log = logging.getLogger(__name__)

SHOWN = 10
"""How many unusable rows a message names."""

Attempt = tuple[int, Row | DataError]
"""A record's number, with its row or the reason why it cannot be used."""


@dataclass
class Unusable:
    """The rows that cannot be used: their records' numbers, the first reasons, and a file of all reasons if asked."""

    file: Path | None = None
    numbers: set[int] = field(default_factory=set)
    first: list[DataError] = field(default_factory=list)

    def add(self, number: int, error: DataError) -> None:
        """Note one more row."""
        self.numbers.add(number)
        if len(self.first) < SHOWN:
            self.first.append(error)
        if self.file is not None:
            entry = {"place": error.where, "reason": error.what, "remedy": error.remedy}
            with self.file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(entry, ensure_ascii=False) + "\n")

    @property
    def listed(self) -> str:
        """The first places and reasons in one line, and how many more there are."""
        more = len(self.numbers) - len(self.first)
        shown = "; ".join(f"{error.where}: {error.what}" for error in self.first)
        return shown + (f"; and {more:,} more" if more else "")


def require_usable(corpus: Corpus, tokenization: Tokenization | None = None) -> Corpus:
    """The corpus, after a check that every one of its rows can be used; without those that cannot, if it says so.

    Args:
        corpus: the rows; `skip_unusable` says whether those that cannot be used are left out.
        tokenization: how rows become tokens; None checks their records alone.

    Raises:
        DataError: rows cannot be used, and the corpus does not leave them out, or none is left. The message names the
            first ten and says how many there are.
    """
    corpus = replace(corpus, found=FoundColumns())
    found, rows = inspect(corpus, tokenization)
    if not found.numbers:
        return replace(corpus, counted=rows)
    if len(found.numbers) == 1 and not corpus.skip_unusable:
        raise found.first[0]
    whole = f"{len(found.numbers):,} of {rows:,} rows cannot be used: {found.listed}"
    if not corpus.skip_unusable:
        first = f"the first: {found.first[0].remedy}"
        remedy = f"{first}; --skip-unusable leaves them out, --unusable FILE lists them all"
        raise DataError(whole, where=corpus.name, remedy=remedy)
    if len(found.numbers) == rows:
        raise DataError(whole, where=corpus.name, remedy="no row is left; check the columns with --column")
    _log.warning("%s: %s; they are left out", corpus.name, whole)
    left = None if corpus.pairs == "rows" else rows - len(found.numbers)  # there a record may be several rows
    return replace(corpus, left_out=corpus.left_out | found.numbers, counted=left)


def inspect(corpus: Corpus, tokenization: Tokenization | None = None) -> tuple[Unusable, int]:
    """The rows of a corpus that cannot be used, and how many rows there are in all; one pass over the data.

    What columns the rows need goes into `Corpus.found`, if it is not None.
    """
    if corpus.unusable_file is not None and not corpus.left_out:
        corpus.unusable_file.unlink(missing_ok=True)  # of an earlier run; a second pass adds to the first one's
    found, rows = Unusable(corpus.unusable_file), 0
    attempts = ((number, attempt) for number, attempt, _ in corpus.attempts())
    for some in _parts(attempts, ENCODED_AT_ONCE):
        rows += len(some)
        for number, attempt in some if tokenization is None else _tokenized(some, tokenization):
            if isinstance(attempt, DataError):
                found.add(number, attempt)
            elif corpus.found is not None:
                corpus.found.add(attempt)
    return found, rows


def _parts(attempts: Iterator[Attempt], size: int) -> Iterator[list[Attempt]]:
    return iter(lambda: list(islice(attempts, size)), [])


def _tokenized(attempts: list[Attempt], tokenization: Tokenization) -> Iterable[Attempt]:
    """The attempts, with an error for each row that cannot be tokenised."""
    rows = [attempt for _, attempt in attempts if isinstance(attempt, Row)]
    try:
        tokenization.encode(rows)
    except DataError:  # look which rows it is
        return [(number, _alone(attempt, tokenization)) for number, attempt in attempts]
    return attempts


def _alone(attempt: Row | DataError, tokenization: Tokenization) -> Row | DataError:
    if isinstance(attempt, Row):
        try:
            tokenization.encode([attempt])
        except DataError as error:
            return error
    return attempt
