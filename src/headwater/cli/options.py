"""Options that several commands share. Each is declared once; a group of options is a dataclass.

    @app.command()
    @with_groups
    def build(out: Out, rows: RowOptions, loading: LoadingOptions, ...) -> None

`with_groups` makes each field of a group an option of the command, and passes the group's object to the function.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from headwater.cli.config import Context, config_option, require_ours, save_run
from headwater.cli.console import say
from headwater.core.arguments import parse_bytes
from headwater.core.errors import UsageError
from headwater.core.files import require_apart

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
IndexPath = Annotated[str, typer.Argument(help="The index: a folder or object-store URI.")]
ModelName = Annotated[str, typer.Option("--model", help="Local folder or hub name of a causal language model.")]
OtherModel = Annotated[
    str | None, typer.Option("--model", help="Present place of the index's model, if it has moved since the build.")
]
AnyModel = Annotated[str | None, typer.Option("--model", help="Local folder or hub name, for methods that read one.")]
IndexMethod = Annotated[
    str, typer.Option("--method", help="A name from `headwater methods`, or auto: by checkpoints and limits.")
]
Settings = Annotated[list[str], typer.Option("--set", help="A method option, name=value; preset=NAME is one. Repeats.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
By = Annotated[str | None, typer.Option(help="Vector columns to rank by: embedding, rise+embedding.")]
ScanMemory = Annotated[str | None, typer.Option("--max-memory", help="Most memory for blocks and scores: 2GiB.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="First check every row against its checksum: reads the whole index once more.")
]
Relevant = Annotated[str | None, typer.Option(help="SQL condition for the rows that count as right, for P@10.")]
CODES = "How vectors are stored: none, int8, sign, int2, int4 (1 KiB; sign:4096 are 4,096 bits), factors[:RANK]."
Template = Annotated[
    str | None,
    typer.Option(help="chat, chat:fold-system, plain, alpaca, a .jinja file or a {prompt} format."),
]
Targets = Annotated[
    str | None,
    typer.Option(help="Tokens the loss is over: all, assistant, response or last."),
]
Pairs = Annotated[
    str | None,
    typer.Option(help="Preference pairs (chosen, rejected): rows (two rows) or dpo (one, with the DPO loss)."),
]
Columns = Annotated[list[str], typer.Option("--column", help="A data column, role=name: prompt=ask. Repeats.")]
Asked = Annotated[
    str, typer.Option("--targets", help="What of a query: last (its last answer), assistant, response or all.")
]
Duplicates = Annotated[
    float, typer.Option(help="Rows at least this similar are near-duplicates; 0: do not look for them.")
]
MaxTokens = Annotated[int, typer.Option(help="Most tokens of a row; a longer row is cut.")]
TokensPerBatch = Annotated[int, typer.Option(help="Padded tokens in one forward pass.")]
GroupBy = Annotated[str | None, typer.Option("--by", help="Metadata column to group by, such as provider.")]


class Writes:
    """Marks a command's parameter as the path of a file that it writes."""


class WritesNew:
    """Marks a command's parameter as the path of a file that the command itself refuses to write over."""


class WritesFolder:
    """Marks a command's parameter as the path of a folder that it makes or fills."""


_OVER = typer.Option("--force", help="Overwrite a file that headwater did not write.")
_FORCE = inspect.Parameter("force", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, _OVER])


@dataclass(frozen=True)
class Made:
    """The output of a command: its settings are written beside `place`, and `code` is the exit code."""

    place: str | Path
    code: int = 0


@dataclass(frozen=True)
class LoadingOptions:
    """How a model is loaded. The defaults are those of `load_model`, or of the build for an existing index."""

    adapter: Annotated[str | None, typer.Option(help="PEFT adapter to load around the model.")] = None
    merge: Annotated[bool, typer.Option("--merge", help="Merge the adapter into the weights.")] = False
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer; default: the adapter's, else the model's.")] = None
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16, float64 or auto (as saved).")] = None
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... or auto.")] = None
    device_map: Annotated[str | None, typer.Option(help="Spread a large model over devices: auto, balanced.")] = None
    quantization: Annotated[str | None, typer.Option(help="Load the weights in 4bit or 8bit (bitsandbytes).")] = None
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that the model's folder brings.")
    ] = False
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Run the model through torch.compile, for rise."),
    ] = False

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that were given, as arguments of `load_model`."""
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class UnusableOptions:
    """What happens to rows that cannot be used, and where ids come from."""

    ids: Annotated[str, typer.Option(help="column: read ids from the data; row: make them from the rows.")] = "column"
    skip_unusable: Annotated[
        bool, typer.Option("--skip-unusable", help="Leave out rows that cannot be used, and count them.")
    ] = False
    unusable: Annotated[
        Path | None, typer.Option(help="File for the list of all rows that cannot be used (JSONL)."), Writes
    ] = None

    @property
    def chosen(self) -> dict[str, Any]:
        """The options as arguments of `open_corpus`."""
        return {"ids": self.ids, "skip_unusable": self.skip_unusable, "unusable_file": self.unusable}


@dataclass(frozen=True)
class RowOptions:
    """The rows of training data, and how to read them."""

    data: Annotated[
        list[str], typer.Option(help="File, folder or pattern of JSONL, CSV or Parquet, or hub name. Repeats.")
    ]
    unusable: UnusableOptions
    columns: Columns = field(default_factory=list)
    limit: Annotated[int | None, typer.Option(help="Only the first rows.")] = None
    split: Annotated[str | None, typer.Option(help="Split, where the data has several.")] = None
    streaming: Annotated[bool, typer.Option("--streaming", help="Stream a hub data set.")] = False
    pairs: Pairs = None

    def corpus(self, pairs: str | None = None) -> Any:
        """Open the rows; `pairs` is how preference pairs are read if the option does not say it."""
        how = {"limit": self.limit, "split": self.split, "streaming": self.streaming, "pairs": self.pairs or pairs}
        return open_rows(self.data, self.columns, **how, **self.unusable.chosen)


@dataclass(frozen=True)
class WorkerOptions:
    """The workers of an engine."""

    address: Annotated[str | None, typer.Option(help="A running Ray cluster, host:port; else one starts here.")] = None
    workers: Annotated[int | None, typer.Option(help="Ray workers; default: one a GPU, else one a node.", min=1)] = None
    gpus_per_worker: Annotated[
        int | None, typer.Option(help="GPUs of a worker; with several, its model is spread over them.", min=0)
    ] = None
    cpus_per_worker: Annotated[int | None, typer.Option(help="CPUs and threads of a worker (1).", min=1)] = None

    def open(self, engine: str) -> Any:
        """The engine of this name, with these workers."""
        from headwater.engines.catalog import EngineChoice

        return EngineChoice(engine, **vars(self)).open()


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where blocks of rows are computed."""

    engine: Annotated[str, typer.Option(help="local (this process), or ray.")] = "local"
    pool: WorkerOptions

    def open(self) -> Any:
        """The engine."""
        return self.pool.open(self.engine)


@dataclass(frozen=True)
class ReadingOptions:
    """How rows become tokens and batches."""

    template: Template = None
    max_tokens: MaxTokens = 8192
    tokens_per_batch: TokensPerBatch = 8192
    targets: Targets = None


@dataclass(frozen=True)
class BuildOptions:
    """The options of a build and of its plan."""

    model: ModelName
    rows: RowOptions
    loading: LoadingOptions
    reading: ReadingOptions
    method: IndexMethod = "rise"
    settings: Settings = field(default_factory=list)
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the rows' text out of the index.")] = False
    code: Annotated[str | None, typer.Option(help=CODES)] = None
    block_rows: Annotated[
        int | None, typer.Option(help="Rows computed and committed together; default: 64 MiB of vectors.", min=1)
    ] = None
    max_memory: Annotated[str | None, typer.Option(help="Most memory the process may take: 8GiB.")] = None
    max_disk: Annotated[str | None, typer.Option(help="Most disk the index may take: 100GB.")] = None
    beta: Annotated[float | None, typer.Option(help="β of the DPO loss (--pairs dpo); default 0.1.")] = None
    reference: Annotated[
        str | None, typer.Option(help="The model DPO began with; default: the model without its adapter.")
    ] = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of `headwater.build` and `headwater.plan`."""
        limits = {name: parse_bytes(getattr(self, name), where=_flag(name)) for name in ("max_memory", "max_disk")}
        settings, corpus = pairs(self.settings, "--set"), self.rows.corpus()
        return {
            **{"model": self.model, "data": corpus, "method": self.method, "settings": settings},
            **{"loading": self.loading.chosen, "keep_text": not self.no_text, "code": self.code},
            **{"beta": self.beta, "reference": self.reference, "block_rows": self.block_rows},
            **vars(self.reading),
            **limits,
        }


def open_rows(data: Any, columns: list[str], **how: Any) -> Any:
    """Open the rows of `data`, of one source or a list of several; `columns` are texts `role=name`."""
    from headwater.data.corpus import open_corpus

    sources = data[0] if isinstance(data, list) and len(data) == 1 else data
    return open_corpus(sources, mapping=pairs(columns, "--column") or None, **how)


def open_index_to_search(path: str, where: str | None = None) -> Any:
    """Open an index, with a warning if it is unfinished, or has rows that the condition `where` cannot see."""
    from headwater.index.info import warning_of
    from headwater.index.store import open_index

    opened = open_index(path)
    if warning := warning_of(opened):
        say(f"warning: {warning}")
    warn_unseen(opened, where)
    return opened


def warn_unseen(index: Any, where: str | None) -> None:
    """Warn of rows whose values the condition cannot see, because no column of the index holds them."""
    from headwater.index.upkeep import unseen_rows

    for column, count in (unseen_rows(index, where) if where else {}).items():
        what = (
            f"warning: the condition cannot see {count:,} rows, whose '{column}' is of another type than the column's"
        )
        say(f"{what}; these rows' values are in `extra`, which `extra LIKE '%\"{column}\":VALUE%'` finds")


def scan_memory(text: str | None) -> dict[str, Any]:
    """The argument `max_memory` of a search, if the option was given."""
    return {} if text is None else {"max_memory": parse_bytes(text, where="--max-memory")}


def with_groups(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make each field of every group an option of the command, and add `--config`; see the module's docstring.

    If the command returns `Made`, its settings are written beside its output.
    """
    hints = get_type_hints(function, include_extras=True)
    plain = [
        p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for p in inspect.signature(function).parameters.values()
    ]
    spread = [parameter for parameter in plain if not _is_group(parameter.annotation)]
    for parameter in plain:
        if _is_group(parameter.annotation):
            spread.extend(_fields(parameter.annotation))
    wants_context = "context" in hints
    forces = "force" in hints or not _marked(spread, Writes)
    spread += [] if forces else [_FORCE]
    if not wants_context:
        spread.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context))
    spread.append(config_option())

    @functools.wraps(function)
    def call(**given: Any) -> None:
        given.pop("config", None)
        at = given["context"] if wants_context else given.pop("context")
        force = given.get("force") if forces else given.pop("force")
        _require_apart(spread, given, force=bool(force))
        groups = {p.name: _filled(p.annotation, given) for p in plain if _is_group(p.annotation)}
        made = function(**given, **groups)
        if isinstance(made, Made):
            save_run(made.place, at)
            if made.code:
                raise typer.Exit(made.code)

    del call.__wrapped__
    call.__annotations__ = {p.name: p.annotation for p in spread}
    call.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    return call


def _marked(parameters: list[inspect.Parameter], mark: type) -> set[str]:
    return {p.name for p in parameters if mark in getattr(p.annotation, "__metadata__", ())}


def _require_apart(parameters: list[inspect.Parameter], given: Mapping[str, Any], *, force: bool) -> None:
    """Refuse to write over what the command reads, twice to one path, or without `force` over a stranger's file."""
    files = {f"--{name}": given[name] for name in sorted(_marked(parameters, Writes) & given.keys())}
    folders = _marked(parameters, WritesFolder)
    marked = _marked(parameters, Writes) | _marked(parameters, WritesNew) | folders
    read: list[Any] = []
    for name in given.keys() - marked:
        read += given[name] if isinstance(given[name], list) else [given[name]]
    require_apart({f"--{name}": given[name] for name in sorted(marked & given.keys())}, read)
    for name in sorted(folders):
        if (path := given.get(name)) is not None and Path(path).is_file():
            what = "this is a file, and a folder is to be made"
            raise UsageError(what, where=f"--{name} {path}", remedy="choose another name")
    require_ours({name: Path(path) for name, path in files.items() if path is not None}, force=force)


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _fields(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found: list[inspect.Parameter] = []
    for entry in dataclasses.fields(group):
        if _is_group(hints[entry.name]):
            found.extend(_fields(hints[entry.name]))
            continue
        default = inspect.Parameter.empty if entry.default is dataclasses.MISSING else entry.default
        if entry.default_factory is not dataclasses.MISSING:
            default = entry.default_factory()
        annotation = hints[entry.name]
        found.append(
            inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    return found


def _filled(group: type[Any], given: dict[str, Any]) -> Any:
    """Make the group from its fields, which are taken out of `given`."""
    hints = get_type_hints(group)
    values = {
        entry.name: _filled(hints[entry.name], given) if _is_group(hints[entry.name]) else given.pop(entry.name)
        for entry in dataclasses.fields(group)
    }
    return group(**values)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def pairs(given: list[str], option: str) -> dict[str, str]:
    """Texts `name=value` as a dictionary.

    Raises:
        UsageError: a text has no `=`.
    """
    parsed = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"'{text}' is not name=value", where=option, remedy=f"for example {option} seed=1")
        parsed[name.strip()] = value.strip()
    return parsed
