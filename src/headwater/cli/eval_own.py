"""The options of an evaluation on your own model, rows and queries, which several commands of `headwater eval` take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.config import Context
from headwater.cli.idle import refuse_idle
from headwater.cli.options import (
    AnyModel,
    Columns,
    LoadingOptions,
    Pairs,
    ReadingOptions,
    UnusableOptions,
    pairs,
)
from headwater.core.errors import UsageError

Queries = Annotated[
    str,
    typer.Option(help="File of your own queries; or, without --model and --data, the number of the task's queries."),
]
Condition = Annotated[
    str, typer.Option("--relevant", help='SQL condition for the rows that every query should find: "poisoned = true".')
]
Ids = Annotated[
    str, typer.Option("--relevant-ids", help="Column of the queries that lists the ids of the rows to find.")
]
Label = Annotated[
    str, typer.Option("--label", help="Column of rows and queries: a query should find the rows with its own label.")
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="How --model learns --data: YAML or JSON with epochs, batch, rate, ...")
]


@dataclass(frozen=True)
class OwnOptions:
    """Your own model and rows."""

    unusable: UnusableOptions
    loading: LoadingOptions
    reading: ReadingOptions
    model: AnyModel = None
    data: Annotated[
        list[str],
        typer.Option(help="Your rows instead of the built-in task: file, folder, pattern or hub name. Repeats."),
    ] = field(default_factory=list)
    name: Annotated[str, typer.Option(help="Name of your task in tables and files; default: the data's.")] = ""
    columns: Columns = field(default_factory=list)
    query_columns: Annotated[
        list[str], typer.Option("--query-column", help="As --column, for the queries; default: the same. Repeats.")
    ] = field(default_factory=list)
    limit: Annotated[int | None, typer.Option(help="Only the first rows of --data.")] = None
    split: Annotated[str | None, typer.Option(help="Split of --data, where it has several.")] = None
    pairs: Pairs = None

    def settings(self, context: Context, queries: str, built_in: Sequence[str], **more: Any) -> dict[str, Any]:
        """The settings of an evaluation: `own`, or for a built-in task the number of `queries`.

        `built_in` names the parameters that built-in tasks alone have; `more` holds further fields of
        `headwater.evaluation.own.Own`.

        Raises:
            UsageError: options for your own rows without a model, rows or queries, or options of built-in tasks with
                them.
        """
        count = int(queries) if queries.isdecimal() else None
        if self.model is None and not self.data and count is not None:
            if given := [f"--{n.replace('_', '-')}" for n, value in {**more, **self._asked}.items() if value]:
                what = f"{given[0]} is for your own rows"
                raise UsageError(what, where=given[0], remedy="give --model, --data and --queries FILE as well")
            return {"queries": count}
        refuse_idle(context, dict.fromkeys(built_in, "your own rows are measured, not a built-in task"))
        from headwater.evaluation.own import Own

        opening = {"limit": self.limit, "split": self.split, "pairs": self.pairs, **self.unusable.chosen}
        own = Own(
            model=self.model,
            data=list(self.data),
            queries=None if count is not None else queries,
            name=self.name,
            columns=pairs(self.columns, "--column"),
            query_columns=pairs(self.query_columns, "--query-column"),
            opening=_json_ready(opening),
            loading=self.loading.chosen,
            reading=vars(self.reading),
            **{name: value for name, value in more.items() if value},
        )
        return {"own": own}

    @property
    def _asked(self) -> dict[str, Any]:
        """The options that mean nothing for a built-in task."""
        reading = {name: getattr(self.reading, name) for name in ("template", "targets")}
        named = {name: getattr(self, name) for name in ("name", "limit", "split", "pairs")}
        return {**named, **self.loading.chosen, **reading, "column": self.columns, "query-column": self.query_columns}


def _json_ready(options: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
