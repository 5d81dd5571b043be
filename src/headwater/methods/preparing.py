"""Fit what a method must know of the rows before it reads the first of them, and keep it in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from headwater.core.files import whole_file
from headwater.data.rows import Row
from headwater.methods.method import Method, Preparation
from headwater.methods.targets import evenly_spaced
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader


def preparation(method: Method) -> Preparation | None:
    """What is still to be fitted; None if the method needs nothing, or has its file."""
    need = method.vectors.preparation if method.vectors is not None else None
    return None if need is None or need.file else need


def prepared(
    method: Method, reader: Reader, sample: Callable[[], Sequence[Row]], file: Path, *, keep: bool = False
) -> Method:
    """The method with its file, fitted on at most `fit_rows` of the sample; unchanged if nothing is to be fitted.

    With `keep`, a file that is there already is used as it is. `sample` is called only if something is fitted.
    """
    need = preparation(method)
    if need is None:
        return method
    if not (keep and file.is_file()):
        with whole_file(file) as part:
            need.fit(reader, evenly_spaced(sample(), method.fit_rows), part)
    return _with(method, need, file)


def moved(method: Method, index: str | Path) -> Method:
    """The method with its file beside the index, if the file is there and not where it was.

    There it has its old name, or that of the index, if both were renamed.
    """
    need = method.vectors.preparation if method.vectors is not None else None
    if need is None or not need.file or Path(need.file).is_file():
        return method
    named = beside(index, need.suffix)
    here = next((file for file in (named.with_name(Path(need.file).name), named) if file.is_file()), None)
    return method if here is None else _with(method, need, here)


def beside(index: str | Path, suffix: str) -> Path:
    """The file of an index: `mine<suffix>` beside `mine.lance`; `mine.v1<suffix>` beside `mine.v1`."""
    path = Path(os.path.abspath(index))
    return path.with_name(path.name.removesuffix(".lance") + suffix)


def fitted_bytes(method: Method) -> int:
    """Bytes of the method's file; 0 if it has none."""
    need = method.vectors.preparation if method.vectors is not None else None
    file = Path(need.file) if need is not None and need.file else None
    return file.stat().st_size if file is not None and file.is_file() else 0


def expected_bytes(method: Method, loaded: LoadedModel) -> int:
    """Bytes that the file to be fitted will have for this model, which need not have weights; 0 if none is fitted."""
    need = preparation(method)
    return 0 if need is None else need.size(loaded)


def _with(method: Method, need: Preparation, file: Path) -> Method:
    """The method that uses the file; how its vectors are stored stays the same."""
    fitted = need.fitted(file)
    return replace(fitted, vectors=replace(fitted.require_vectors(), code=method.require_vectors().code))
