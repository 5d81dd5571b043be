"""Writing files and folders that are complete or absent: each is written beside its final name and then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headwater.core.errors import HeadwaterError, StoreError, UsageError


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
        found = refusal(error, target)
        raise found or StoreError(f"cannot be written: {error.strerror or error}", where=str(target)) from error


@contextlib.contextmanager
def filling_folder(folder: str | Path, *, again: str) -> Iterator[None]:
    """Turn errors of the libraries that write into `folder` into a `StoreError`; `again` says what to do afterwards.

    torch does not pass on what the file system said, so its failed writing counts as a full disk.
    """
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, HeadwaterError) else error
        found = None if cause is None else refusal(cause, folder, again=again)
        if found is None:
            raise
        raise found from error


def refusal(
    error: BaseException, place: str | Path = "", *, again: str = "run the same command again"
) -> StoreError | None:
    """A `StoreError` in plain words if the file system refused, else None.

    Args:
        error: what was raised: an `OSError`, or a library's error that quotes one or came of a full disk.
        place: the file or folder, where the error does not name it.
        again: what to do after there is space.
    """
    number = getattr(error, "errno", None) if isinstance(error, OSError) else _quoted_number(str(error))
    if number is None and _TORCH_CANNOT_WRITE.search(str(error)):  # it does not say why
        number = errno.ENOSPC
    named = getattr(error, "filename", None)
    where = str(place or (named.decode() if isinstance(named, bytes) else named or ""))
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            "the disk is full, or the file is larger than allowed", where=where, remedy=f"{_SPACE}{again}"
        )
    if number in (errno.EACCES, errno.EPERM):
        owner = "the folder" if place else "the file"
        remedy = f"give this user the right to {owner}, or choose another path"
        return StoreError("this user may not read or write here", where=where, remedy=remedy)
    if number == errno.EROFS:
        return StoreError("the file system is read-only", where=where, remedy="choose a folder elsewhere")
    return None


_TORCH_CANNOT_WRITE = re.compile(r"PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+|iostream error")

_SPACE = "free some space, or choose another folder, then "


def _quoted_number(text: str) -> int | None:
    """The number of the system's error that a message quotes, such as `(os error 28)`."""
    found = re.search(r"(?:os error|Errno) (\d+)", text)
    return int(found[1]) if found else None
