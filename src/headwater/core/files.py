"""Writing files and folders that are complete or absent: each is written beside its final name and then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headwater.core.errors import StoreError, UsageError


@contextlib.contextmanager
def whole_file(target: str | Path) -> Iterator[Path]:
    """A path to write to; when the block ends without an error, that file gets the name `target`.

    After an error no new file is left, and an old `target` is unchanged. Missing parent folders are created. The path
    has the suffix of `target`, because some libraries choose the format by it.

    Raises:
        StoreError: the file system refuses (no permission, a full disk); names the place.
    """
    final = Path(target)
    part = final.with_name(f".{final.stem}.{os.getpid()}.part{final.suffix}")
    with _store_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, final)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(target: str | Path) -> Iterator[Path]:
    """An empty folder to fill; when the block ends without an error, it gets the name `target`.

    Raises:
        StoreError: the file system refuses, or `target` exists already.
    """
    final = Path(target)
    part = final.with_name(f".{final.name}.{os.getpid()}.part")
    with _store_errors(final):
        if final.exists():
            raise StoreError("something is here already", where=str(final), remedy="remove it, or choose another name")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            os.replace(part, final)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def require_apart(outputs: Mapping[str, str | Path | None], inputs: Iterable[Any]) -> None:
    """Refuse outputs that are one of the inputs, or each other; to be called before any work.

    Args:
        outputs: option or argument name to the path it writes; None where it writes nothing.
        inputs: whatever was given to read from; what is no path that exists is passed over.

    Raises:
        UsageError: an output would overwrite an input or another output; names it.
    """
    read = {Path(one).resolve() for one in inputs if isinstance(one, str | Path) and _exists(one)}
    written: dict[Path, str] = {}
    for name, path in outputs.items():
        if path is None or "://" in str(path):
            continue
        place, remedy = Path(path).resolve(), "choose another name"
        if place in read or any(folder in place.parents for folder in read if folder.suffix == ".lance"):
            raise UsageError("this output would overwrite an input", where=f"{name} {path}", remedy=remedy)
        if place in written:
            raise UsageError(f"{written[place]} writes there too", where=f"{name} {path}", remedy=remedy)
        written[place] = name


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a prompt is longer than a path can be
        return False


def write_text(target: str | Path, text: str) -> Path:
    """Write a whole UTF-8 text file, with line feeds on every platform; raises as `whole_file` does."""
    with whole_file(target) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return Path(target)


@contextlib.contextmanager
def _store_errors(target: Path) -> Iterator[None]:
    """Turn an error of the file system into a `StoreError` that names `target`."""
    try:
        yield
    except OSError as error:
        remedy = "free some space" if error.errno == 28 else "choose a folder you may write to"
        raise StoreError(f"cannot be written: {error.strerror or error}", where=str(target), remedy=remedy) from error
