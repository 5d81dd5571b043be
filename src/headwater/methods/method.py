"""What a method is: one value that says what it can do, and does it.

Whoever uses a method asks for what it can do, never for its name:

    method.vectors          rows become vectors, so it can fill an index; None where it cannot
    method.vectors.exact    what the vectors estimate can also be computed; `.grids` and `.additive` likewise
    method.scoring          it scores rows in a way of its own; None where scores are products of its vectors
    method.learning         its scores are a student's, trained on some rows that a teacher scored
    method.whole_pool       a row's score depends on the other rows
    method.meaning          what a score says, and whether its sign parts rows that help from rows that harm

`headwater.methods.scoring.prepare` makes any method ready to score rows; `headwater.methods.bound.Bound` reads vectors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from headwater.core.errors import UsageError, unknown_name
from headwater.core.spec import MethodSpec, Role
from headwater.curvature.gram import Metric
from headwater.data.batches import Window
from headwater.data.rows import Row
from headwater.features.encoder import Encoder
from headwater.methods.targets import Scorer, Target
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.students.student import StudentOptions

Options = TypeVar("Options")
"""A frozen dataclass of a method's options; every field is a JSON scalar."""


@dataclass(frozen=True)
class Meaning:
    """What a score of a method says.

    Attributes:
        text: one sentence, as commands and reports print it.
        signed: whether 0 parts rows that help the query from rows that harm it.
    """

    text: str
    signed: bool = True


PROPONENT = Meaning("positive = proponent: training more on the row lowers the loss of the query")
"""What a score means unless a method says otherwise."""


@dataclass(frozen=True)
class Vectors:
    """How rows become vectors, and what can be done with them.

    Attributes:
        windows: how a row's tokens are cut, for index rows and for queries.
        bind: gives the encoder that reads the vectors off a model.
        metrics: by column, the metric that makes a score of two vectors; it is fitted on all rows' vectors and applied
            to the query, so an index holds plain vectors. None: plain inner products, and nothing to fit.
        exact: the encoder is an `ExactEncoder`, and its scores are those that the vectors estimate.
        grids: the encoder is a `GridEncoder`.
        additive: the token values of one side sum to the score, up to rounding.
        alike: a row has the same vector on either side, so it need be read only once to be held against itself.
    """

    windows: Mapping[Role, Window]
    bind: Callable[[LoadedModel], Encoder]
    metrics: Callable[[Encoder], Mapping[str, Metric]] | None = None
    exact: bool = False
    grids: bool = False
    additive: bool = True
    alike: bool = False


Scoring = Callable[[Reader, Sequence[Target], Sequence[Row]], Scorer]
"""Makes a method ready for some targets, from a reader, the targets, and some rows of the pool to set itself by.

A method that reads no model must not look at the reader."""


@dataclass(frozen=True)
class Learning:
    """That a student learns a teacher's scores, and how.

    Attributes:
        teacher: whose scores are learned.
        student: what is trained.
        labels: how many rows of a pool of so many the teacher labels.
        recheck: rows labelled afterwards to measure the student on.
        stratify: a metadata column to sample evenly by.
    """

    teacher: Method
    student: StudentOptions
    labels: Callable[[int], int]
    recheck: int = 0
    stratify: str = ""


@dataclass(frozen=True)
class Method:
    """A method with its options settled.

    Attributes:
        spec: name and resolved options, as written into an index's manifest.
        vectors: how rows become vectors; None if they do not.
        scoring: its own way to score rows; None if scores are products of vectors.
        learning: how a student learns the scores; None if none does.
        reads_model: whether it needs a model at all.
        fit_rows: how many rows of the pool it looks at while it is made ready (a step size, a curvature).
        whole_pool: a row's score depends on the other rows (BM25's word counts), so the pool must come as one block.
        meaning: what a score says.
    """

    spec: MethodSpec
    vectors: Vectors | None = None
    scoring: Scoring | None = None
    learning: Learning | None = None
    reads_model: bool = True
    fit_rows: int = 0
    whole_pool: bool = False
    meaning: Meaning = PROPONENT

    def require_vectors(self, *, where: str = "--method") -> Vectors:
        """How its rows become vectors; raises `UsageError` for a method whose rows do not."""
        if self.vectors is None:
            remedy = "headwater methods says which do; headwater value scores rows by any method, without an index"
            raise UsageError(f"'{self.spec.name}' gives no vectors", where=where, remedy=remedy)
        return self.vectors

    def capabilities(self) -> tuple[str, ...]:
        """What it can do and what it needs, in the words of `headwater methods`."""
        form = self.vectors
        said = {
            "index": form is not None,
            "exact scores": form is not None and form.exact,
            "token maps": form is not None,
            "token grids": form is not None and form.grids,
            "metric fitted on the index": form is not None and form.metrics is not None,
            "no model": not self.reads_model,
            "whole pool at once": self.whole_pool,
            "fitted on some rows": self.fit_rows > 0,
            "learned from labels": self.learning is not None,
        }
        return tuple(name for name, holds in said.items() if holds)


Find = Callable[[str, Mapping[str, Any]], Method]
"""Gives a method by name and settings: the catalog's, handed to methods that are made of another."""


@dataclass(frozen=True)
class MethodEntry(Generic[Options]):
    """A line of the catalog: what `headwater methods` prints, and how a name with options becomes a method.

    Attributes:
        name: what users type.
        summary: one sentence.
        reads: what is read off the model ("forward pass", "per-row gradients", "text").
        cost: cost a row, relative to a forward pass.
        source: paper.
        presets: named settings; `default` is one of them.
        make: options to method.
        stores: bytes a row of its index under the default preset.
        choices: the values an option of text may have, where not any will do.
        recorded: options that name what a recorded training run left, and its name in the run's folder.
        as_vectors: settings under which it gives vectors, where by default it gives none.
    """

    name: str
    summary: str
    reads: str
    cost: str
    source: str
    presets: Mapping[str, Options]
    make: Callable[[Options], Method]
    stores: str = "nothing"
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)
    as_vectors: Mapping[str, str] = field(default_factory=dict)

    def settle(self, settings: Mapping[str, Any]) -> Options:
        """The options that `settings` (name to value, text values parsed) make of the named or default preset.

        Raises:
            UsageError: an unknown preset, option or choice, or a value that does not fit.
        """
        return settle(settings, self.presets, self.choices, where=self.name)

    def resolve(self, settings: Mapping[str, Any]) -> Method:
        """The method with `settings` over the named or default preset."""
        return self.make(self.settle(settings))

    def typical(self) -> Method:
        """The method as it is by default, where need be with file names that stand for a recorded run's."""
        return self.resolve(dict(self.recorded))


def settle(
    settings: Mapping[str, Any], presets: Mapping[str, Options], choices: Mapping[str, Sequence[str]], *, where: str
) -> Options:
    """The options that `settings` (option name to value, text values parsed) make of the named or default preset.

    Raises:
        UsageError: an unknown preset, option or choice, or a value that does not fit; `where` is the method's name.
    """
    given = dict(settings)
    preset = str(given.pop("preset", "default"))
    if preset not in presets:
        raise unknown_name("preset", preset, presets, where=where)
    base: Any = presets[preset]
    known = {f.name: f for f in dataclasses.fields(base)}
    for name in given:
        if name not in known:
            raise unknown_name("option", name, [*known, "preset"], where=where)
    parsed = {
        name: parse_option(value, like=getattr(base, name), where=f"{where}.{name}") for name, value in given.items()
    }
    for name in parsed.keys() & choices.keys():
        if parsed[name] not in choices[name]:
            raise unknown_name("choice", parsed[name], choices[name], where=f"{where}.{name}")
    settled: Options = dataclasses.replace(base, **parsed)
    return settled


def parse_settings(text: str, *, where: str) -> dict[str, str]:
    """Option name to value of `name=value;name=value`: the settings of a method inside another's option."""
    found = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, sign, value = part.partition("=")
        if not sign:
            raise UsageError(f"'{part}' is not name=value", where=where, remedy="as folds=1;seed=2")
        found[name.strip()] = value.strip()
    return found


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_option(value: Any, *, like: Any, where: str) -> Any:
    """`value` as the type of `like` (bool, int, float or str); text is parsed, what does not fit is refused."""
    if isinstance(like, str):
        return str(value)
    text = str(value).strip().lower()
    try:
        return _BOOLEANS[text] if isinstance(like, bool) else type(like)(text)
    except (KeyError, ValueError):
        kind = type(like).__name__
        remedy = f"for example {like!r}"
        raise UsageError(f"'{value}' is not a value of type {kind}", where=where, remedy=remedy) from None
