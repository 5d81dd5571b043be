"""What a method is: one value that says what the method can do, and holds the functions that do it.

Code that uses a method asks what it can do and never looks at its name:

    method.vectors          how rows become vectors, which can fill an index; None if they do not
    method.vectors.exact    the scores that the vectors estimate can also be computed; see `Vectors` for more
    method.scoring          the method's own way to score rows; None if scores are products of its vectors
    method.learning         how a student learns the scores from rows that a teacher scored; None if no student does
    method.whole_pool       a row's score depends on the other rows
    method.meaning          what a score means, and whether its sign separates rows that help from rows that harm

`headwater.methods.scoring.prepare` makes a scorer from any method; `headwater.methods.bound.Bound` reads vectors.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
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
from headwater.search.agreement import AgreeingColumns
from headwater.students.student import StudentOptions

Options = TypeVar("Options")
"""A frozen dataclass of a method's options; every field is a JSON scalar."""


@dataclass(frozen=True)
class Meaning:
    """What a score of a method means.

    Attributes:
        text: one sentence, which commands and reports print.
        signed: whether 0 separates rows that help the query from rows that harm it.
    """

    text: str
    signed: bool = True


PROPONENT = Meaning("positive = proponent: training more on the row lowers the loss of the query")
"""What a score means, unless the method says otherwise."""


@dataclass(frozen=True)
class Preparation:
    """What a method must know of the rows before it reads the first of them: it is fitted on some, and kept in a file.

    Attributes:
        file: the file; empty if nothing is fitted yet.
        suffix: how the file's name ends.
        fit: takes a reader, rows to fit on, and the path of the file to write.
        fitted: takes the path of the file and returns the method that uses it.
        size: takes a model, which need not have weights, and returns the bytes of its file.
        passes: forward passes for each row that is fitted on.
    """

    file: str
    suffix: str
    fit: Callable[[Reader, Sequence[Row], Path], None]
    fitted: Callable[[Path], Method]
    size: Callable[[LoadedModel], int]
    passes: float


@dataclass(frozen=True)
class Vectors:
    """How rows become vectors, and what the vectors can be used for.

    Attributes:
        windows: the windows that a row's tokens are divided into, for index rows and for queries.
        bind: takes a model and returns the encoder that reads vectors with it.
        metrics: takes the encoder and returns, for each column, the metric of its scores. Metrics are fitted on all
            rows' vectors and applied to the query, so an index holds plain vectors. None: scores are inner products.
        exact: the encoder is an `ExactEncoder`, which computes the scores that the vectors estimate.
        grids: the encoder is a `GridEncoder`.
        additive: the token values of one side sum to the score, up to rounding.
        alike: a row has the same vector as index row and as query, so self-influence reads it only once.
        preparation: what is fitted on rows before any is read; None: nothing.
        passes: about how many forward passes reading a row costs, for plans of models that are not here.
        backward: reading a row takes a backward pass, which keeps the activations of the forward pass.
        code: how an index stores the vectors unless the user says otherwise (see `headwater.search.codes`).
        agreement: columns that are added to a query's score as far as they agree with it; None: none are.
    """

    windows: Mapping[Role, Window]
    bind: Callable[[LoadedModel], Encoder]
    metrics: Callable[[Encoder], Mapping[str, Metric]] | None = None
    exact: bool = False
    grids: bool = False
    additive: bool = True
    alike: bool = False
    preparation: Preparation | None = None
    passes: float = 3.0
    backward: bool = True
    code: str = "none"
    agreement: AgreeingColumns | None = None

    def __post_init__(self) -> None:
        if self.metrics is not None and (self.exact or self.grids):
            what = "a method with a metric has no exact scores and no grids, because they would leave the metric out"
            raise UsageError(what, where="Vectors", remedy="leave exact and grids False")

    @property
    def of_index(self) -> str | None:
        """What of the scores is fitted on all rows of an index; None if rows can be scored without one."""
        if self.metrics is not None:
            return "its metric"
        return None if self.agreement is None else "the weights of its columns"


LEAST: Mapping[str, float] = {"dim": 0, "damping": 0, "fit_rows": 1, "strength": 0}
"""The least values of options that mean the same in every method that has them."""

FULL = "full"
"""The preset with the default options under which an index stores vectors as plain numbers."""

Scoring = Callable[[Reader, Sequence[Target], Sequence[Row]], Scorer]
"""Takes a reader, targets, and a sample of the pool to fit on, and returns the scorer of rows on these targets.

A method that reads no model must not use the reader."""


@dataclass(frozen=True)
class Learning:
    """How a student learns a teacher's scores.

    Attributes:
        teacher: the method whose scores are learned.
        student: the student's options.
        labels: takes the size of the pool and returns how many of its rows the teacher labels.
        recheck: how many fresh rows the teacher labels afterwards, to measure the student.
        stratify: a metadata column; the sample has equally many rows of each of its values, if there are enough.
        cheap: take rows evenly over their BM25 score with the target.
        active: share of the labels that is given where a first student's members disagree.
        seconds: time that the teacher may take for labels instead of their number; 0: the number counts.
        asked: the number of labels that the user asked for, or 0.
    """

    teacher: Method
    student: StudentOptions
    labels: Callable[[int], int]
    recheck: int = 0
    stratify: str = ""
    cheap: bool = False
    active: float = 0.0
    seconds: float = 0.0
    asked: int = 0


@dataclass(frozen=True)
class Method:
    """A method with all its options set.

    Attributes:
        spec: name and options, as written into an index's manifest.
        vectors: how rows become vectors; None if they do not.
        scoring: the method's own way to score rows; None if scores are products of vectors.
        learning: how a student learns the scores; None if no student does.
        reads_model: whether the method needs a model.
        fit_rows: at most how many rows of the pool the method is fitted on (a step size, a curvature); 0 for none.
        whole_pool: a row's score depends on the other rows (BM25's word counts), so the pool must come as one block.
        meaning: what a score means.
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
        """How rows become vectors; raises `UsageError` if the method gives no vectors."""
        if self.vectors is None:
            remedy = "headwater methods says which do; headwater value scores rows by any method, without an index"
            raise UsageError(f"'{self.spec.name}' gives no vectors", where=where, remedy=remedy)
        return self.vectors

    def capabilities(self) -> tuple[str, ...]:
        """What the method can do and what it needs, in the words of `headwater methods`."""
        form = self.vectors
        known = {
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
        return tuple(name for name, holds in known.items() if holds)


def method_of_vectors(name: str, options: Any, bind: Callable[[LoadedModel], Encoder], **form: Any) -> Method:
    """A method that gives vectors and divides rows and queries into the same windows.

    `options` is a dataclass with the fields `window` and `overlap`; `form` holds more attributes of `Vectors`.
    """
    window = Window(options.window, options.overlap)
    return Method(MethodSpec(name, asdict(options)), Vectors({"train": window, "query": window}, bind, **form))


Find = Callable[[str, Mapping[str, Any]], Method]
"""Takes a name and settings and returns the method; the catalog gives it to methods that use another method."""


@dataclass(frozen=True)
class MethodEntry(Generic[Options]):
    """A method in the catalog: what `headwater methods` prints, and how options become the method.

    Attributes:
        name: the name that users type.
        summary: one sentence.
        reads: what the method reads ("forward pass", "per-row gradients", "text").
        cost: cost of a row, relative to a forward pass.
        source: the paper.
        presets: named options, with `default` among them.
        make: takes options and returns the method.
        stores: bytes of a row in an index with the default preset.
        choices: option name to its allowed values, for text options that do not allow every value.
        recorded: option name to a file name, for options that name a file in the folder of a recorded training run.
        as_vectors: settings with which the method gives vectors, if it gives none by default.
        code: how an index stores the vectors, with every preset but `full`, unless the user says otherwise.
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
    code: str = "none"

    def settle(self, settings: Mapping[str, Any]) -> Options:
        """The options of the default preset, or of the one that `settings` names, changed by `settings`.

        `settings` holds values by option name; text values are parsed.

        Raises:
            UsageError: an unknown preset, option or choice, or a value of the wrong type.
        """
        given = dict(settings)
        preset = str(given.pop("preset", "default"))
        if preset not in self.presets:
            raise unknown_name("preset", preset, self.presets, where=self.name)
        base: Any = self.presets[preset]
        known = [f.name for f in dataclasses.fields(base)]
        parsed = {}
        for name, value in given.items():
            where = f"{self.name}.{name}"
            if name not in known:
                raise unknown_name("option", name, [*known, "preset"], where=self.name)
            parsed[name] = parse_option(value, like=getattr(base, name), where=where)
            if name in LEAST and parsed[name] < LEAST[name]:
                what = f"{parsed[name]:,} is below {LEAST[name]}"
                raise UsageError(what, where=where, remedy=f"for example {getattr(base, name)!r}")
            if name in self.choices and parsed[name] not in self.choices[name]:
                raise unknown_name("choice", parsed[name], self.choices[name], where=where)
            if name in self.recorded and parsed[name]:
                parsed[name] = os.path.abspath(parsed[name])  # an index is opened from other folders too
        settled: Options = dataclasses.replace(base, **parsed)
        return settled

    def resolve(self, settings: Mapping[str, Any]) -> Method:
        """The method with the options that `settle` gives; raises the same errors."""
        method = self.make(self.settle(settings))
        if method.vectors is None or settings.get("preset") == FULL:
            return method
        return dataclasses.replace(method, vectors=dataclasses.replace(method.vectors, code=self.code))

    def typical(self) -> Method:
        """The method with default options; options that need a recorded run get the usual file names."""
        return self.resolve(dict(self.recorded))


def parse_settings(text: str, *, where: str) -> dict[str, str]:
    """Option name to value, from `name=value;name=value`: settings of a method that another method's option holds."""
    found = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, sign, value = part.partition("=")
        if not sign:
            raise UsageError(f"'{part}' is not name=value", where=where, remedy="as folds=1;seed=2")
        found[name.strip()] = value.strip()
    return found


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_option(value: Any, *, like: Any, where: str) -> Any:
    """Convert `value`, which may be text, to the type of `like` (bool, int, float or str); raises `UsageError`."""
    if isinstance(like, str):
        return str(value)
    text = str(value).strip().lower()
    try:
        parsed = _BOOLEANS[text] if isinstance(like, bool) else type(like)(text)
    except (KeyError, ValueError):
        what = f"'{value}' is not a value of type {type(like).__name__}"
        raise UsageError(what, where=where, remedy=f"for example {like!r}") from None
    if not math.isfinite(parsed):
        raise UsageError(f"'{value}' is no finite number", where=where, remedy=f"for example {like!r}")
    return parsed
