"""A student: a small model that has learned a teacher's scores, with its intervals and a record of what it learned.

    student = fit_student(rows, labels, options)
    student.save(folder);  load_student(folder).estimates(rows)      no language model, no target

Its interval is split-conformal: value ± q·(spread of the members + a floor), with q such that a fresh label lies inside
in 95 of 100 cases. That takes 19 held-out labels, so a student of fewer than 76 labels gives no interval. The held-out
rows also chose the penalty or the epoch, which makes q a little too small; a recheck on fresh rows shows by how much.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.errors import MismatchError, StoreError, UsageError
from headwater.core.files import whole_folder
from headwater.core.fingerprints import require_equal
from headwater.core.statistics import conformal_reach
from headwater.data.rows import Row
from headwater.students.hidden_states import HiddenStates
from headwater.students.labels import HELD_OUT, HELD_OUT_FEWEST, Lesson, Scale
from headwater.students.regression import RegressionStudent, fit_regression
from headwater.students.transformer import Training, TransformerStudent, fit_transformer

FAMILIES = ("regression", "transformer")
FILE = "student.json"
FORMAT = 1
_FLOOR = 0.1
"""Added to the members' spread, in standard deviations of the labels: members that agree can still be wrong."""


@dataclass(frozen=True)
class StudentOptions:
    """Which student is trained, and how.

    Attributes:
        family: `regression` (ridge on hashed n-grams) or `transformer` (an encoder with a scalar head).
        members: how many members the ensemble has.
        encoder: folder or hub name of a small model. If empty, a regression uses no hidden states, and a transformer
            starts from a tiny random model.
        ranking: train on pairwise ranking instead of squared error; transformer only.
        epochs: at most so many epochs; transformer only.
        seed: of the split, the bootstrap and the initial weights.
    """

    family: str = "regression"
    members: int = 5
    encoder: str = ""
    ranking: bool = False
    epochs: int = 30
    seed: int = 0


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

    def predict(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """The ensemble's estimates of the teacher's scores, float64 `[rows]`, in the teacher's units."""
        return self.scale.undo(self.ensemble.predict(rows).mean(axis=1))

    def estimates(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows 1 3"]:
        """Every row's value, and its interval's ends (NaN if there are no intervals), in the teacher's units."""
        predicted = self.ensemble.predict(rows)
        value, reach = predicted.mean(axis=1), self.reach * _spread(predicted)
        return self.scale.undo(np.stack([value, value - reach, value + reach], axis=1))[:, None, :]

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
        }


def fit_student(
    rows: Sequence[Row], labels: NDArray[np.float64], options: StudentOptions, *, about: Mapping[str, Any] | None = None
) -> Student:
    """Train a student on rows and their labels, float64 `[rows]`, positive = the row helps.

    Raises:
        DataError: there are too few rows, or the labels are all equal.
        NumericError: a label is not finite.
        UsageError: an unknown family, or fewer than 1 member or epoch.
    """
    if options.family not in FAMILIES or options.members < 1 or options.epochs < 1:
        what = f"a {options.family} of {options.members} members and {options.epochs} epochs"
        raise UsageError(what, where="student", remedy=f"one of {', '.join(FAMILIES)}, at least 1 of each")
    lesson = Lesson.of(rows, labels, seed=options.seed)
    encoder = HiddenStates.load(options.encoder) if options.encoder else None
    ensemble: Ensemble
    if options.family == "regression":
        ensemble = fit_regression(lesson, members=options.members, seed=options.seed, encoder=encoder)
    else:
        how = Training(epochs=options.epochs, ranking=options.ranking)
        ensemble = fit_transformer(lesson, members=options.members, seed=options.seed, encoder=encoder, training=how)
    predicted = ensemble.predict(lesson.rows_at(lesson.held_out))
    misses = np.abs(predicted.mean(axis=1) - lesson.labels[lesson.held_out]) / _spread(predicted)
    return Student(
        ensemble=ensemble,
        options=options,
        scale=lesson.scale,
        reach=conformal_reach(misses),
        held_out=lesson.held_out_agreement(predicted.mean(axis=1)),
        rows=len(rows),
        held_out_rows=len(lesson.held_out),
        about=dict(about or {}),
        curve=ensemble.curve,
        curve_axis=ensemble.curve_axis,
    )


def load_student(folder: str | Path) -> Student:
    """Load the student that `Student.save` wrote; it needs neither the language model nor the target.

    Raises:
        StoreError: the folder holds no student, or one of another format.
        MismatchError: the tokenizer of the student or of its encoder is not the one it was trained with.
    """
    place = Path(folder)
    note = place / FILE
    if not note.is_file():
        raise StoreError("no student is there", where=str(place), remedy="headwater value --method alinfik saves one")
    try:
        raw = json.loads(note.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise StoreError(f"format {raw['format']}, not {FORMAT}", where=str(place), remedy="train it again")
        options = StudentOptions(**raw["options"])
        scale = Scale(**raw["scale"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"damaged: {error!r}", where=str(note), remedy="train the student again") from error
    ensemble: Ensemble
    if options.family == "regression":
        ensemble = RegressionStudent.load(place, HiddenStates.load(options.encoder) if options.encoder else None)
    else:
        ensemble = TransformerStudent.load(place)
    found = _tokenizers_of(ensemble)
    if found != raw["tokenizer"]:
        what = f"its tokenizer is {found}, it learned with {raw['tokenizer']}"
        raise MismatchError(what, fields=("tokenizer",), where=str(place), remedy="put the tokenizer back")
    facts = {name: raw[name] for name in ("held_out", "rows", "about", "curve_axis")}
    facts["held_out_rows"] = raw.get("held_out_rows", round(HELD_OUT * raw["rows"]))
    known = raw["reach"] is not None and facts["held_out_rows"] >= HELD_OUT_FEWEST
    facts["reach"] = raw["reach"] if known else float("nan")  # students of older versions claimed one of any number
    curve = tuple((int(x), float(y)) for x, y in raw["curve"])
    return Student(ensemble=ensemble, options=options, scale=scale, curve=curve, **facts)


def _spread(predicted: Float[np.ndarray, "rows members"]) -> NDArray[np.float64]:
    """The members' standard deviation plus the floor."""
    spread: NDArray[np.float64] = predicted.std(axis=1) + _FLOOR
    return spread


def _tokenizers_of(ensemble: Ensemble) -> list[str]:
    """Digests of the tokenizers that a student reads text with; none for n-grams alone."""
    if isinstance(ensemble, TransformerStudent):
        return [member.states.digest for member in ensemble.members]
    return [] if ensemble.encoder is None else [ensemble.encoder.digest]
