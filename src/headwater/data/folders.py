"""Files by a folder or a pattern: which of them hold rows, in which order, and of which split.

Files come in natural order of their paths: `part-2` before `part-10`. In a folder, as a snapshot of a hub dataset has
it, a file's split is what its `README.md` says, else the name in front of `-00000-of-00004`, else a word such as
`train` or `test` in its path; a folder in which no path has such a word has one split, `train`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from headwater.core.errors import DataError, first_few
from headwater.data.files import COMPRESSED, KNOWN_KINDS, file_kind

Splits = dict[str, list[Path]]
"""Split to its files, in natural order."""

_NO_ROWS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files that describe a dataset."""

_BESIDE = {*(".md", ".txt", ".rst", ".html", ".pdf", ".py", ".sh", ".ipynb", ".yaml", ".yml", ".toml", ".cff", ".bib")}
_BESIDE |= {"", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".lock", ".metadata", ".crc", ".sha256", ".md5"}
"""Endings of files that stand beside the rows and hold none."""

_SHARD = re.compile(r"(?P<split>\w+(?:[.-]\w+)*?)-\d{5}-of-\d{5}(?:-[0-9a-f]{16})?\.\w+(?:\.\w+)?")
_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def in_order(paths: Sequence[Path]) -> list[Path]:
    """The paths in natural order: numbers in names count as numbers."""
    return sorted(paths, key=lambda path: ([_natural(part) for part in path.parts], str(path)))


def by_pattern(pattern: str) -> list[Path]:
    """The files of rows that a pattern matches (`*`, `?`, `[...]`, `**` for folders), in natural order.

    Raises:
        DataError: it matches none.
    """
    found = [Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()]
    files = _of_rows(found, Path(), pattern)
    if not files:
        what = "no file matches this pattern" if not found else f"no file that matches holds rows: {_named(found)}"
        raise DataError(what, where=pattern, remedy=f"check the path; known: {KNOWN_KINDS}")
    return in_order(files)


def in_folder(folder: Path, name: str, config: str = "") -> Splits:
    """The files of rows in a folder and the folders in it, by their split.

    Args:
        folder: the folder.
        name: its name in messages.
        config: which of the configurations that its `README.md` lists; empty if it lists one or none.

    Raises:
        DataError: there are none, they are of several kinds, or only some of them have a split in their path.
    """
    snapshots = in_order([p for p in (folder / "snapshots").glob("*") if (folder / "refs").is_dir()])
    if snapshots:  # the cache of the hub
        if len(snapshots) > 1:
            what = f"the folder holds {len(snapshots)} snapshots"
            raise DataError(what, where=name, remedy=f"give one of them, such as {snapshots[-1]}")
        folder = snapshots[0]
    listed = _configs(folder, name)
    if config or listed:
        if config not in listed and (config or len(listed) > 1):
            remedy = f"configurations, as {folder}:NAME: {', '.join(listed) or 'none'}"
            what = f"no configuration '{config}'" if config else "the folder has several configurations"
            raise DataError(what, where=name, remedy=remedy)
        return _from_patterns(folder, name, listed[config] if config else next(iter(listed.values())))
    found = [Path(at) / file for at, inner, files in os.walk(folder) if _enter(inner) for file in files]
    files = in_order(_of_rows(found, folder, name))
    if not files:
        remedy = f"give a folder of such files, or one that `save_to_disk` wrote: {KNOWN_KINDS}"
        raise DataError("no file of rows in this folder", where=name, remedy=remedy)
    _require_one_kind(files, name)
    return _by_split(files, folder, name)


def _natural(text: str) -> list[tuple[int, int, str]]:
    pieces = re.split(r"(\d+)", text)
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces if piece]


def _enter(inner: list[str]) -> bool:
    """Leave hidden folders out of the walk."""
    inner[:] = [name for name in inner if not name.startswith((".", "__"))]
    return True


def _of_rows(paths: Sequence[Path], folder: Path, name: str) -> list[Path]:
    """The files that hold rows; a file of which that is not known is an error."""
    seen = [p for p in paths if not p.name.startswith((".", "_")) and p.name not in _NO_ROWS]
    strange = [p for p in seen if file_kind(p.name) is None and _ending(p) not in _BESIDE]
    if strange:
        what = f"files of a kind that cannot be read: {_named(strange, folder)}"
        raise DataError(what, where=name, remedy=f"take them out, or give a pattern; known: {KNOWN_KINDS}")
    return [p for p in seen if file_kind(p.name) is not None]


def _ending(path: Path) -> str:
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def _named(paths: Sequence[Path], folder: Path = Path()) -> str:
    return first_few([str(p.relative_to(folder)) if p.is_relative_to(folder) else str(p) for p in in_order(paths)])


def _require_one_kind(files: Sequence[Path], name: str) -> None:
    """Files of several kinds are often the same rows written twice, and so is a file beside a compressed one."""
    bare: dict[Path, Path] = {}
    for path in files:
        plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
        first = bare.setdefault(plain.with_suffix(_kind(path)), path)
        if first != path:
            what = f"two files of one name: {_named([first, path], path.parent)}"
            raise DataError(what, where=name, remedy="take one of them out, or give a pattern")
    kinds = sorted(set(map(_kind, files)))
    if len(kinds) > 1:
        remedy = f"give a pattern, such as '{Path(name) / '**' / ('*' + kinds[0])}'"
        raise DataError(f"files of several kinds: {', '.join(kinds)}", where=name, remedy=remedy)


def _kind(path: Path) -> str:
    """What is in a file of rows; `.ndjson` is another name of `.jsonl`."""
    kind = str(file_kind(path.name))
    return ".jsonl" if kind == ".ndjson" else kind


def _by_split(files: Sequence[Path], folder: Path, name: str) -> Splits:
    splits: Splits = {}
    without = []
    for path in files:
        split = _split_of(path.relative_to(folder))
        splits.setdefault(split or "train", []).append(path)
        without += [] if split else [path]
    if without and len(without) < len(files):
        what = f"some files have a split in their name and others do not: {_named(without, folder)}"
        raise DataError(what, where=name, remedy=f"give a pattern, such as '{Path(name) / without[0].name}'")
    return splits


def _split_of(path: Path) -> str:
    """The split that a path inside a folder says; empty if it says none."""
    if shard := _SHARD.fullmatch(path.name):
        return shard["split"]
    said = [_WORDS[word] for part in path.parts for word in re.split(r"[^a-z]+", part.lower()) if word in _WORDS]
    return said[-1] if said else ""


def _configs(folder: Path, name: str) -> dict[str, dict[str, list[str]]]:
    """Configuration to split to patterns, as the front matter of the folder's `README.md` lists them."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    try:
        about = yaml.safe_load(front[1]) if front else None
        listed = about.get("configs") if isinstance(about, Mapping) else None
        found = {str(one["config_name"]): _patterns(one) for one in listed or () if one.get("data_files")}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        what = f"its README.md does not say which files are which: {' '.join(str(error).split())}"
        raise DataError(what, where=name, remedy="mend its `configs`, or give a pattern") from None
    return found


def _patterns(config: Mapping[str, Any]) -> dict[str, list[str]]:
    files, base = config["data_files"], str(config.get("data_dir") or "")
    if isinstance(files, str) or (isinstance(files, list) and all(isinstance(one, str) for one in files)):
        files = [{"split": "train", "path": files}]
    paths = {str(one["split"]): [one["path"]] if isinstance(one["path"], str) else list(one["path"]) for one in files}
    return {split: [os.path.join(base, pattern) for pattern in patterns] for split, patterns in paths.items()}


def _from_patterns(folder: Path, name: str, patterns: Mapping[str, Sequence[str]]) -> Splits:
    """The files of each split; a split of which no file was downloaded is left out, unless that is so of all."""
    splits: Splits = {}
    for split, wanted in patterns.items():
        matched = {
            Path(p) for w in wanted for p in glob.glob(os.path.join(glob.escape(str(folder)), w), recursive=True)
        }
        if files := in_order(_of_rows([path for path in matched if path.is_file()], folder, name)):
            splits[split] = files
    if not splits:
        listed = first_few([one for wanted in patterns.values() for one in wanted])
        what = f"none of the files that its README.md lists is here: {listed}"
        raise DataError(what, where=name, remedy="download them, or give a pattern")
    return splits
