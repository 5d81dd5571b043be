"""A student: a small model that has learned a teacher's scores, with its intervals and a record of what it learned.

    student = fit_student(rows, labels, options)
    student.save(folder);  load_student(folder).estimates(rows)      no language model, no target

Its interval is split-conformal: value ± q·(spread of the members + a floor), with q such that a fresh label lies inside
in 95 of 100 cases. That takes 19 held-out labels, so a student of fewer than 76 labels gives no interval. The held-out
rows of a transformer also chose its epoch, which makes q a little too small; a recheck on fresh rows shows by how much.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.errors import MismatchError, ModelError, StoreError, UsageError
from headwater.core.files import whole_folder
from headwater.core.fingerprints import require_equal
from headwater.core.statistics import conformal_reach
from headwater.data.rows import Row
from headwater.data.tokens import tokenizer_digest
from headwater.models.reader import Reader
from headwater.students.choice import WIDEST, Fitting, priced, to_share
from headwater.students.hidden_states import HiddenStates
from headwater.students.labels import HELD_OUT, HELD_OUT_FEWEST, Lesson, Scale
from headwater.students.regression import RegressionStudent, applied, read_blocks
from headwater.students.sources import EncoderStates, Matrix, Sketches, StudentSource, Words, restored
from headwater.students.transformer import Training, TransformerStudent, fit_transformer

FAMILIES = ("regression", "transformer")
FILE = "student.json"
FORMAT = 3
"""It grew when the n-grams' hash changed, because the weights belong to its buckets."""
_TOGETHER = 1024
"""Rows whose features are in memory together."""
_FLOOR = 0.1
"""Added to the members' spread, in standard deviations of the labels: members that agree can still be wrong."""


@dataclass(frozen=True)
class StudentOptions:
    """Which student is trained, and how.

    Attributes:
        family: `regression` (ridge on words and sketches) or `transformer` (an encoder with a scalar head).
        members: how many members the ensemble has.
        encoder: folder or hub name of a small model. If empty, a regression uses no hidden states, and a transformer
            starts from a tiny random model.
        ranking: train on pairwise ranking instead of squared error; transformer only.
        epochs: at most so many epochs; transformer only.
        seed: of the split, the bootstrap and the initial weights.
        proxy: folder or hub name of a small causal model whose sketches a regression may read; empty: none.
        sources: what a regression reads, of `words`, `model`, `proxy` and `encoder`, joined by `+`; empty: the best of
            what fits the cost.
        cost: the most that a student may cost, as a share of the teacher's time (`1/20`); empty: 1/20, or up to 1/4
            where that makes a poor student.
    """

    family: str = "regression"
    members: int = 5
    encoder: str = ""
    ranking: bool = False
    epochs: int = 30
    seed: int = 0
    proxy: str = ""
    sources: str = ""
    cost: str = ""


@dataclass(frozen=True)
class Taught:
    """What a student is made from, beside the labels.

    Attributes:
        reader: the language model whose sketches a student may read, or None.
        teacher_seconds: the teacher's time of one row, if it is known.
        about: digests of the teacher, the target and the model; JSON-ready.
        random: how many of the rows, from the first, are a random sample, of which some are held out; None: all.
    """

    reader: Reader | None = None
    teacher_seconds: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    random: int | None = None


Ensemble = RegressionStudent | TransformerStudent


@dataclass(frozen=True)
class Student:
    """A fitted student.

    Attributes:
        ensemble: the trained models.
        options: how the student was trained.
        scale: converts predictions to the teacher's units.
        reach: q, in units of the members' spread; NaN if the held-out labels were too few for an interval.
        held_out: Spearman correlation with the teacher on the held-out rows.
        rows: how many labelled rows were used, the held-out ones included.
        held_out_rows: how many of them were held out.
        about: digests of the teacher, the target and the model whose scores it learned; JSON-ready.
        curve: pairs of what `curve_axis` names and held-out Spearman correlation.
        curve_axis: labelled rows, or epochs.
        choice: which features it reads, what others were tried, and what they cost; JSON-ready.
    """

    ensemble: Ensemble
    options: StudentOptions
    scale: Scale
    reach: float
    held_out: float
    rows: int
    held_out_rows: int
    about: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    curve_axis: str = ""
    choice: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """The ensemble's estimates of the teacher's scores, float64 `[rows]`, in the teacher's units."""
        return self.scale.undo(self.ensemble.predict(rows).mean(axis=1))

    def estimates(
        self, rows: Sequence[Row], blocks: Mapping[str, Matrix] | None = None
    ) -> Float[np.ndarray, "rows 1 3"]:
        """Every row's value, and its interval's ends (NaN if there are no intervals), in the teacher's units.

        A regression takes the rows' features from `blocks` if they are given.
        """
        if blocks is None or isinstance(self.ensemble, TransformerStudent):
            predicted = self.ensemble.predict(rows)
        else:
            predicted = applied(self.ensemble.weights, blocks, len(rows))
        value, reach = predicted.mean(axis=1), self.reach * _spread(predicted)
        return self.scale.undo(np.stack([value, value - reach, value + reach], axis=1))[:, None, :]

    def unsure(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """How much the members disagree about each row, in standard deviations of the labels."""
        spread: NDArray[np.float64] = self.ensemble.predict(rows).std(axis=1)
        return spread

    @property
    def has_intervals(self) -> bool:
        """Whether there were enough held-out labels for an interval."""
        return not math.isnan(self.reach)

    def require(self, expected: Mapping[str, Any]) -> None:
        """Raise `MismatchError` if `about` differs from `expected`: another target, teacher or tokenizer."""
        found = {name: self.about.get(name) for name in expected}
        what = "the student did not learn the scores that are wanted"
        require_equal(expected, found, what=what, remedy="train a student for this target and model")

    def save(self, folder: str | Path) -> Path:
        """Write the student into a new folder; after an error there is no folder.

        Raises:
            StoreError: something has that name already, or the folder cannot be written.
        """
        with whole_folder(folder) as part:
            self.ensemble.save(part)
            (part / FILE).write_text(json.dumps(self._to_json(), indent=2, default=str) + "\n", encoding="utf-8")
        return Path(folder)

    def _to_json(self) -> dict[str, Any]:
        return {
            "held_out_rows": self.held_out_rows,
            **{"format": FORMAT, "options": asdict(self.options), "scale": asdict(self.scale)},
            **{
                "reach": self.reach if self.has_intervals else None,
                "held_out": self.held_out,
                "rows": self.rows,
                "about": dict(self.about),
            },
            **{"curve": self.curve, "curve_axis": self.curve_axis, "tokenizer": _tokenizers_of(self.ensemble)},
            **{"choice": dict(self.choice), "sources": _described(self.ensemble)},
        }


def fit_student(
    rows: Sequence[Row], labels: NDArray[np.float64], options: StudentOptions, taught: Taught | None = None
) -> Student:
    """Train a student on rows and their labels, float64 `[rows]`, positive = the row helps.

    Raises:
        DataError: there are too few rows, or the labels are all equal.
        NumericError: a label is not finite.
        UsageError: an unknown family or source, or fewer than 1 member or epoch.
    """
    return fit_students(rows, labels[:, None], options, taught)[0]


def fit_students(
    rows: Sequence[Row],
    labels: Float[np.ndarray, "rows targets"],
    options: StudentOptions,
    taught: Taught | None = None,
) -> list[Student]:
    """Train a student for each target; the rows' features are read once. Raises the errors of `fit_student`."""
    if options.family not in FAMILIES or options.members < 1 or options.epochs < 1:
        what = f"a {options.family} of {options.members} members and {options.epochs} epochs"
        raise UsageError(what, where="student", remedy=f"one of {', '.join(FAMILIES)}, at least 1 of each")
    given = taught or Taught()
    columns = labels.astype(np.float64).T
    lessons = [Lesson.of(rows, column, seed=options.seed, random=given.random) for column in columns]
    encoder = HiddenStates.load(options.encoder) if options.encoder else None
    if options.family == "transformer":
        how = Training(epochs=options.epochs, ranking=options.ranking)
        shared: dict[str, Any] = {"members": options.members, "seed": options.seed, "encoder": encoder}
        return [_finished(fit_transformer(one, training=how, **shared), one, options, given, {}) for one in lessons]
    sources, unread = _sources(options, given.reader, encoder)
    limit, seconds = to_share(options.cost), given.teacher_seconds
    choices = priced(sources, rows, teacher_seconds=seconds, share=limit, named=options.sources)
    widest = 0.0 if options.cost or options.sources else WIDEST
    fitting = Fitting(rows, choices, options.members, options.seed, widest)
    found = []
    for lesson in lessons:
        ensemble, choice = fitting.best(lesson)
        told = {**choice, "not read": [*choice["not read"], *unread], **_foreign(ensemble.sources, given.reader)}
        found.append(_finished(ensemble, lesson, options, given, told))
    return found


def estimates_of(students: Sequence[Student]) -> Callable[[Sequence[Row]], Float[np.ndarray, "rows targets 3"]]:
    """The estimates of several students, one column each; what several of them read is read once."""
    ensembles = [student.ensemble for student in students]
    sources = {s.name: s for e in ensembles if isinstance(e, RegressionStudent) for s in e.sources}

    def estimate(rows: Sequence[Row]) -> Float[np.ndarray, "rows targets 3"]:
        found = np.empty((len(rows), len(students), 3))
        for start in range(0, len(rows), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            blocks = read_blocks(list(sources.values()), some)
            for place, student in enumerate(students):
                found[start : start + len(some), place] = student.estimates(some, blocks)[:, 0]
        return found

    return estimate


def _sources(
    options: StudentOptions, reader: Reader | None, encoder: HiddenStates | None
) -> tuple[list[StudentSource], list[str]]:
    """All that a student may read, the words first; and why the language model cannot be, in words."""
    sources: list[StudentSource] = [Words(), *([EncoderStates(encoder)] if encoder else [])]
    sources += [Sketches.load(options.proxy, "proxy")] if options.proxy else []
    if reader is None:
        return sources, []
    try:
        return [*sources, Sketches.of(reader, "model")], []
    except ModelError as error:  # a head that cannot be read leaves the other sources
        return sources, [f"model: {error.what}"]


def _foreign(sources: Sequence[StudentSource], reader: Reader | None) -> dict[str, str]:
    """Says of a proxy or encoder that its tokenizer is not the language model's, which is allowed: both read text."""
    if reader is None:
        return {}
    own = tokenizer_digest(reader.loaded.tokenizer)
    names = [source.name for source in sources if source.described.get("tokenizer", own) != own]
    return {f"tokenizer of the {name}": "another than the model's; it reads the rows' text" for name in names}


def sources_of(folder: str | Path) -> tuple[str, ...]:
    """What the saved student in a folder reads (`words`, `proxy`, ...); nothing if no readable student is there.

    Nothing is loaded: `load_student` says what is wrong with a folder.
    """
    try:
        return tuple(json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))["sources"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _finished(
    ensemble: Ensemble, lesson: Lesson, options: StudentOptions, taught: Taught, choice: Mapping[str, Any]
) -> Student:
    """The student with its intervals and its record."""
    predicted = ensemble.predict(lesson.rows_at(lesson.held_out))
    misses = np.abs(predicted.mean(axis=1) - lesson.labels[lesson.held_out]) / _spread(predicted)
    return Student(
        ensemble=ensemble,
        options=options,
        scale=lesson.scale,
        reach=conformal_reach(misses),
        held_out=lesson.held_out_agreement(predicted.mean(axis=1)),
        rows=len(lesson.rows),
        held_out_rows=len(lesson.held_out),
        about=dict(taught.about),
        curve=ensemble.curve,
        curve_axis=ensemble.curve_axis,
        choice=choice,
    )


def load_student(folder: str | Path, *, reader: Reader | None = None, proxy: str = "") -> Student:
    """Load the student that `Student.save` wrote; it needs no target, and the language model only if it reads it.

    Args:
        folder: the student's folder.
        reader: the language model, for a student that reads its sketches.
        proxy: where the proxy or encoder is on this machine; empty: where it was.

    Raises:
        StoreError: the folder holds no student, or one of another format.
        MismatchError: the student's tokenizer, proxy or encoder is not the one it was trained with.
        UsageError: the student reads the language model and there is no reader.
    """
    place = Path(folder)
    note = place / FILE
    if not note.is_file():
        raise StoreError("no student is there", where=str(place), remedy="headwater value --method alinfik saves one")
    try:
        raw = json.loads(note.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise StoreError(f"format {raw['format']}, not {FORMAT}", where=str(place), remedy="train it again")
        options, scale = StudentOptions(**raw["options"]), Scale(**raw["scale"])
        described = dict(raw["sources"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"damaged: {error!r}", where=str(note), remedy="train the student again") from error
    ensemble: Ensemble
    if options.family == "regression":
        sources = [restored(about, name, reader=reader, elsewhere=proxy) for name, about in described.items()]
        ensemble = RegressionStudent.load(place, sources)
    else:
        ensemble = TransformerStudent.load(place)
    found = _tokenizers_of(ensemble)
    if found != raw["tokenizer"]:
        what = f"its tokenizer is {found}, it learned with {raw['tokenizer']}"
        raise MismatchError(what, fields=("tokenizer",), where=str(place), remedy="put the tokenizer back")
    facts = {name: raw[name] for name in ("held_out", "rows", "about", "curve_axis", "choice")}
    facts["held_out_rows"] = raw.get("held_out_rows", round(HELD_OUT * raw["rows"]))
    known = raw["reach"] is not None and facts["held_out_rows"] >= HELD_OUT_FEWEST
    facts["reach"] = raw["reach"] if known else float("nan")  # students of older versions claimed one of any number
    curve = tuple((int(x), float(y)) for x, y in raw["curve"])
    return Student(ensemble=ensemble, options=options, scale=scale, curve=curve, **facts)


def _spread(predicted: Float[np.ndarray, "rows members"]) -> NDArray[np.float64]:
    """The members' standard deviation plus the floor."""
    spread: NDArray[np.float64] = predicted.std(axis=1) + _FLOOR
    return spread


def _described(ensemble: Ensemble) -> dict[str, Any]:
    """What a regression reads, as `restored` takes it."""
    if isinstance(ensemble, TransformerStudent):
        return {}
    return {source.name: dict(source.described) for source in ensemble.sources}


def _tokenizers_of(ensemble: Ensemble) -> list[str]:
    """Digests of the tokenizers that a student reads text with; none for n-grams alone."""
    if isinstance(ensemble, TransformerStudent):
        return [member.states.digest for member in ensemble.members]
    known = (source.described.get("tokenizer") for source in ensemble.sources)
    return [str(digest) for digest in known if digest]
