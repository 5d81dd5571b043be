"""Files that are whole or not there: written beside their final name and renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from headwater.core.errors import StoreError


@contextlib.contextmanager
def whole_file(target: str | Path) -> Iterator[Path]:
    """A path to write to; when the block ends without an error, that file gets the name `target`.

    After an error nothing new is left behind, and what stood under `target` before still does. Folders above it are
    made. The path ends in the suffix of `target`, for libraries that choose a format by it.

    Raises:
        StoreError: the file system refuses (no permission, a full disk); names the place.
    """
    final = Path(target)
    part = final.with_name(f".{final.stem}.{os.getpid()}.part{final.suffix}")
    with _named(final):
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
        StoreError: the file system refuses, or something stands under `target` already.
    """
    final = Path(target)
    part = final.with_name(f".{final.name}.{os.getpid()}.part")
    with _named(final):
        if final.exists():
            raise StoreError("something is here already", where=str(final), remedy="remove it, or choose another name")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            os.replace(part, final)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_text(target: str | Path, text: str) -> Path:
    """Write a whole UTF-8 text file, lines ending in a line feed everywhere; raises as `whole_file`."""
    with whole_file(target) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return Path(target)


@contextlib.contextmanager
def _named(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "free some space" if error.errno == 28 else "choose a folder you may write to"
        raise StoreError(f"cannot be written: {error.strerror or error}", where=str(target), remedy=remedy) from error
