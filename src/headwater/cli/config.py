"""Run files: the settings of a command as YAML. `--config` reads them, and commands write them beside their output.

    command: index build
    headwater: 0.1.0
    settings:
      out: runs/mine.lance
      model: my-model
      data: train.jsonl
      set: {preset: small}

Names are those of the options without their dashes; options on the command line win over the file. `headwater run FILE`
runs the command again.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from headwater.core.errors import DataError, UsageError, unknown_name
from headwater.core.files import write_text

if TYPE_CHECKING:
    Context = typer.Context
else:
    Context = typer.Context.__base__  # typer passes an object of the base class, and tests check types

NEVER_KEPT = ("config", "as_json", "resume", "force", "help")
"""These parameters are not settings: they change how a command prints or continues, not its result."""


OLD_NAMES = {"lr": "rate"}
"""Options that had another name, which run files and scripts may still have."""


def config_option() -> inspect.Parameter:
    """The `--config` option, which every command has."""
    option = typer.Option("--config", is_eager=True, callback=_apply, help="YAML file of settings; flags win over it.")
    kind = Annotated[list[Path], option]
    return inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=[], annotation=kind)


def read_run(path: Path) -> tuple[str | None, dict[str, Any]]:
    """The command that a run file names (None if it names none), and its settings.

    Raises:
        DataError: the file cannot be read, is not a mapping, or has a command with settings outside `settings`.
    """
    remedy = "write `name: value` lines, as in the run.yaml beside a result"
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read: {' '.join(str(error).split())}", where=str(path), remedy=remedy) from None
    if not isinstance(raw, Mapping):
        raise DataError(f"a {type(raw).__name__} is not a mapping of settings", where=str(path), remedy=remedy)
    if "settings" not in raw and "command" not in raw:
        return None, dict(raw)
    raw = {"settings": None, **raw}
    settings = {} if raw["settings"] is None else raw["settings"]
    beside = [str(name) for name in raw if name not in ("command", "headwater", "settings")]
    if beside:
        remedy = "indent it under `settings:`"
        raise DataError(f"'{beside[0]}' does not stand under `settings`", where=str(path), remedy=remedy)
    if not isinstance(settings, Mapping):
        raise DataError("its `settings` are not a mapping", where=str(path), remedy=remedy)
    return str(raw["command"]) if raw.get("command") else None, dict(settings)


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        names = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{name}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def save_run(place: str | Path, context: Context) -> Path | None:
    """Write the settings of a command beside its output, and return the file; None on an object store.

    In a folder the file is `run.yaml`; beside a file or an index NAME it is `NAME.run.yaml`.
    """
    if "://" in str(place):
        return None
    made = Path(place)
    inside = made.is_dir() and made.suffix != ".lance"
    file = made / "run.yaml" if inside else made.with_name(f"{made.name}.run.yaml")
    from headwater import __version__

    kept = {
        _name(parameter): _plain(context.params[parameter.name])
        for parameter in context.command.params
        if parameter.name in context.params
        and parameter.name not in NEVER_KEPT
        and not _unset(context.params[parameter.name])
    }
    content = {"command": _words(context), "headwater": __version__, "settings": kept}
    return write_text(file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def require_ours(outputs: Mapping[str, Path], *, force: bool) -> None:
    """Refuse to write over a file that headwater did not write: that no run file beside an output names as one.

    Args:
        outputs: option to the file that it writes.
        force: write over any file.

    Raises:
        UsageError: a folder is in the place of a file, or without `force` a file that may be somebody's.
    """
    ours: set[Path] = set()
    for path in outputs.values():
        noted = path.with_name(f"{path.name}.run.yaml")
        if noted.is_file():
            ours |= {Path(value).resolve() for value in read_run(noted)[1].values() if isinstance(value, str)}
    for name, path in outputs.items():
        if path.is_dir():
            raise UsageError("this is a folder", where=f"{name} {path}", remedy="give the name of a file")
        if path.exists() and not force and path.resolve() not in ours:
            what, remedy = (
                "a file is here that headwater did not write",
                "choose another name, or --force overwrites it",
            )
            raise UsageError(what, where=f"{name} {path}", remedy=remedy)


def _unset(value: Any) -> bool:
    """Whether an option says nothing; the number 0 says something, though it equals False."""
    return value is None or value is False or value in ([], ())


def _apply(context: Context, given: list[Path]) -> list[Path]:
    """Make the file's settings the defaults of the command's options."""
    if not given:
        return given
    if len(given) > 1:
        what = f"{len(given)} files: {', '.join(map(str, given))}"
        raise UsageError(what, where="--config", remedy="give one; flags win over it")
    path = given[0]
    command, settings = read_run(path)
    if command is not None and command != _words(context):
        what = f"these are settings of 'headwater {command}'"
        raise UsageError(what, where=str(path), remedy=f"headwater run {path}")
    known = {_name(parameter): parameter for parameter in context.command.params if parameter.name != "config"}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = str(name).replace("_", "-")
        key = OLD_NAMES.get(key, key)
        if key not in known:
            raise unknown_name("setting", str(name), known, where=str(path))
        parameter = known[key]
        found[str(parameter.name)] = _given(parameter, value, where=f"{path}: {name}")
    context.default_map = {**(context.default_map or {}), **found}
    return given


def _given(parameter: Any, value: Any, *, where: str) -> Any:
    """A setting in the form in which it would be typed."""
    repeats = bool(getattr(parameter, "multiple", False)) or parameter.nargs == -1
    if isinstance(value, Mapping) and repeats:
        return [f"{name}={_one(one, where=f'{where}: {name}')}" for name, one in value.items()]
    if isinstance(value, list) and repeats:
        return [_one(one, where=where) for one in value]
    if isinstance(value, Mapping | list):
        raise UsageError(f"{value!r} is not one value", where=where, remedy="give a single value")
    flag = bool(getattr(parameter, "is_flag", False))
    if isinstance(value, bool) and not flag:
        what = f"{str(value).lower()} is not a value of this setting"
        raise UsageError(what, where=where, remedy="quote a word such as 'yes', or give the number")
    if value is None or isinstance(value, bool):
        return value
    return [_typed(value)] if repeats else _typed(value)


def _one(value: Any, *, where: str) -> str:
    """One of several values of a setting as it would be typed."""
    if value is None:
        raise UsageError("there is no value", where=where, remedy="write one, or leave the entry out")
    if isinstance(value, Mapping | list):
        raise UsageError(f"{value!r} is not one value", where=where, remedy="give a single value")
    return _typed(value)


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _name(parameter: Any) -> str:
    """A parameter's name in a run file: its first long option without dashes, or its own name."""
    long = [option.lstrip("-") for option in parameter.opts if option.startswith("--")]
    return long[0] if long else str(parameter.name).replace("_", "-")


def _words(context: Context) -> str:
    """The words of the command after `headwater`."""
    return " ".join(context.command_path.split()[1:])


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else str(value)
