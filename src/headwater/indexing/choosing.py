"""`--method auto`: the method of an index by a rule, which docs/methods/index.md states with its evidence.

    1. ekfac-cos    if gradients can be read within the limits; of the recorded run, if `checkpoints=FOLDER` is given
    2. rise         otherwise: it takes forward passes only

Whether it fits is measured as `headwater plan` measures it, against `--max-memory` and `--max-disk`.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.core.errors import StoreError, UsageError
from headwater.data.corpus import Corpus
from headwater.index.store import Index
from headwater.indexing.plan import BuildPlan, Limits, plan_build
from headwater.indexing.prepared import prepared_beside
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method, restore_method
from headwater.methods.method import Method
from headwater.models.reader import Reader

AUTO = "auto"
"""The name that stands for the rule's method."""
_RUN = "checkpoints"

_log = logging.getLogger(__name__)


def candidates(settings: Mapping[str, Any]) -> tuple[tuple[Method, str], tuple[Method, str]]:
    """The methods of the rule in its order, each with the reason to take it.

    Raises:
        UsageError: an option that belongs to one method.
    """
    if other := [name for name in settings if name != _RUN]:
        what = f"'{other[0]}' is an option of a method, and the method is yet to be chosen"
        raise UsageError(what, where="--set", remedy=f"name the method, or give {_RUN}=FOLDER alone")
    run = "the training run was recorded" if settings else "gradients can be read, and no training run was given"
    return (
        (find_method("ekfac-cos", settings), run),
        (find_method("rise"), "gradients cannot be read within the limits"),
    )


def named_method(name: str, settings: Mapping[str, Any] | None) -> Method:
    """The method of this name, which must give vectors; of `auto`, the first of the rule."""
    if name == AUTO:
        return candidates(settings or {})[0][0]
    found = find_method(name, settings)
    found.require_vectors()
    return found


def planned(method: Method, reader: Reader, corpus: Corpus, limits: Limits, **kept: Any) -> BuildPlan:
    """What a build with the method takes; what the method is fitted into is not kept. Arguments as in `plan_build`."""
    with tempfile.TemporaryDirectory(prefix="headwater-plan-") as folder:
        started = time.perf_counter()
        ready = prepared_beside(method, reader, corpus, str(Path(folder) / "planned.lance"))
        fitting = time.perf_counter() - started
        found = plan_build(corpus, Bound.of(ready, reader), **kept, limits=limits)
        return replace(found, seconds=found.seconds + fitting)


def choose_method(
    reader: Reader,
    corpus: Corpus,
    settings: Mapping[str, Any],
    limits: Limits,
    begun: Index | None = None,
    **kept: Any,
) -> Method:
    """The first method of the rule with which the build is possible within the limits; a note says which and why.

    An index that was begun keeps its method. `kept` holds further arguments of `plan_build`.

    Raises:
        UsageError: as in `candidates`.
        StoreError: none fits; says what the last would need.
    """
    if begun is not None:
        return restore_method(begun.manifest.method)
    (method, why), (last, otherwise) = candidates(settings)
    try:
        _require_possible(method, reader, corpus, limits, **kept)
    except (StoreError, UsageError):  # too large for the limits, or a model whose gradients cannot be read
        method, why = last, otherwise
        _require_possible(method, reader, corpus, limits, **kept)
    _log.warning("note: the method is %s, because %s", method.spec.name, why)
    return method


def _require_possible(method: Method, reader: Reader, corpus: Corpus, limits: Limits, **kept: Any) -> None:
    """Raise the error that a build with the method would raise before it reads the rows."""
    Bound.of(method, reader)
    if limits != Limits():
        planned(method, reader, corpus, limits, **kept)
