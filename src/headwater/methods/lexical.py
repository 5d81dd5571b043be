"""Controls that read no model: BM25, chance and length.

BM25 (Robertson and Zaragoza, 2009), in the variant of Lucene as the `bm25s` library computes it, competes well with
gradient methods when a response shares words with the rows that taught it. Any method should beat chance and length.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any, Literal, cast

import numpy as np

from headwater.core.errors import DataError
from headwater.core.scores import Scores
from headwater.core.seeds import key
from headwater.core.spec import MethodSpec
from headwater.data.rows import Row, asked_text
from headwater.methods.method import Meaning, Method, MethodEntry
from headwater.methods.targets import RowScorer, Target, laid_out
from headwater.models.reader import Reader

Fields = Literal["response", "prompt", "all"]
"""Which text of rows and queries is read; a row of plain text has no prompt, and its text counts as its response."""

K1, B = 1.5, 0.75


@dataclass(frozen=True)
class Bm25Options:
    """fields: `response`, `prompt` or `all`; of a query with hotwords, only the hotwords are read."""

    fields: str = "response"


@dataclass(frozen=True)
class RandomOptions:
    """seed: of the random numbers."""

    seed: int = 0


@dataclass(frozen=True)
class LengthOptions:
    """There are no options."""


def bm25_scores(rows: Sequence[Row], queries: Sequence[Row], *, fields: Fields = "response") -> Scores:
    """BM25 of every row's text for every query's text, in lower case, with no stop words removed.

    A word that the query repeats counts every time. Scores are ≥ 0; 0 means that no word is shared. Raises `DataError`
    if a row or query lacks the chosen text.
    """
    documents = _words([readable(row, fields) for row in rows])
    retriever = _bm25s().BM25(method="lucene", k1=K1, b=B)
    retriever.index(documents, show_progress=False)
    known = retriever.vocab_dict
    columns = []
    for words in _words([_asked(query, fields) for query in queries]):
        shared = [word for word in words if word in known]
        columns.append(retriever.get_scores(shared) if shared else np.zeros(len(rows), dtype=np.float32))
    return _scores(rows, queries, np.stack(columns, axis=1), f"bm25-{fields}")


def random_scores(rows: Sequence[Row], queries: Sequence[Row], *, seed: int) -> Scores:
    """Uniform numbers in [0, 1) that depend only on the seed, the row's id and the query's id."""
    values = [[key(seed, "random", row.id, query.id) / 2**64 for query in queries] for row in rows]
    return _scores(rows, queries, np.array(values), "random")


def length_scores(rows: Sequence[Row], queries: Sequence[Row]) -> Scores:
    """The row's length in characters, the same for every query."""
    lengths = [[float(sum(map(len, row.fields().values())))] * len(queries) for row in rows]
    return _scores(rows, queries, np.array(lengths), "length")


def readable(row: Row, fields: Fields) -> str:
    """The text of a row that `fields` names; raises `DataError` if the row does not have it."""
    texts = {"response": row.response or row.text, "prompt": row.prompt, "all": "\n".join(row.fields().values())}
    chosen = texts[fields]
    if chosen is None:
        raise DataError(f"row '{row.id}' has no {fields}", where=row.place, remedy="read another field")
    return chosen


def _asked(query: Row, fields: Fields) -> str:
    return asked_text(query, None) or readable(query, fields)


def _words(texts: Sequence[str]) -> list[list[str]]:
    """Lower-case words of two or more word characters, by the library's own rule."""
    tokens: list[list[str]] = _bm25s().tokenize(list(texts), stopwords=None, return_ids=False, show_progress=False)
    return tokens


@cache
def _bm25s() -> Any:
    """The library, imported without JAX.

    Where JAX can be imported, the library runs a JAX function when it is imported. That takes most of a GPU's memory
    from the model, or fails if the memory is taken. Nothing here needs JAX, so it is hidden meanwhile, also where
    another package has loaded it.
    """
    loaded = sys.modules.pop("jax", None)
    sys.modules["jax"] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        return importlib.import_module("bm25s")
    finally:
        del sys.modules["jax"]
        if loaded is not None:
            sys.modules["jax"] = loaded


def _scores(rows: Sequence[Row], queries: Sequence[Row], values: np.ndarray, method: str) -> Scores:
    ids, names = tuple(row.id for row in rows), tuple(query.id for query in queries)
    return Scores(ids, names, np.asarray(values, dtype=np.float32), method)


WORDS = Meaning("higher = more words in common, rare ones counting more; no value says that a row harms", signed=False)
CHANCE = Meaning("chance: the number says nothing of the row", signed=False)
SIZE = Meaning("higher = longer, in characters; the query plays no part", signed=False)

Compare = Callable[[Sequence[Row], Sequence[Row]], Scores]


def _method(name: str, options: Any, compare: Compare, meaning: Meaning, *, whole_pool: bool = False) -> Method:
    """A method whose scores `compare` computes from rows and queries, without a model."""

    def scoring(reader: Reader | None, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
        queries = laid_out(targets)
        return RowScorer(targets, lambda rows: compare(rows, queries).values)

    spec = MethodSpec(name, asdict(options))
    return Method(spec, scoring=scoring, reads_model=False, whole_pool=whole_pool, meaning=meaning)


def bm25(options: Bm25Options) -> Method:
    """The method with these options; words are counted over all rows that are scored together."""
    compare = partial(bm25_scores, fields=cast(Fields, options.fields))
    return _method("bm25", options, compare, WORDS, whole_pool=True)


def random(options: RandomOptions) -> Method:
    """The method with this seed."""
    return _method("random", options, partial(random_scores, seed=options.seed), CHANCE)


def length(options: LengthOptions) -> Method:
    """The method."""
    return _method("length", options, length_scores, SIZE)


_control = partial(MethodEntry, cost="nothing", source="control")

BM25 = MethodEntry(
    name="bm25",
    summary="Shared words, weighted by how rare they are: a serious rival wherever answers repeat their source.",
    reads="text",
    cost="nothing of the model",
    source="Robertson and Zaragoza, 2009; bm25s",
    presets={"default": Bm25Options(), "all": Bm25Options(fields="all")},
    make=bm25,
    choices={"fields": ("response", "prompt", "all")},
)
RANDOM = _control(
    name="random",
    summary="Chance: uniform numbers that follow the ids of row and query.",
    reads="ids",
    presets={"default": RandomOptions()},
    make=random,
)
LENGTH = _control(
    name="length",
    summary="The row's length in characters, whatever the query: what a score that only sees size would find.",
    reads="text",
    presets={"default": LengthOptions()},
    make=length,
)
