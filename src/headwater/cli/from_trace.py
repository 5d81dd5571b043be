"""`headwater unlearn --from-trace`: rows to forget and to retain, chosen by tracing odd answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.console import say
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.unlearning.choose import Chosen

FromTrace = Annotated[
    list[str],
    typer.Option("--from-trace", help="A prompt with an odd answer: forget the rows that taught it. Repeats."),
]
TracedIndex = Annotated[str | None, typer.Option("--index", help="The index to trace in, with --from-trace.")]
Precision = Annotated[float, typer.Option(help="Least share of rightly chosen rows to expect, with --from-trace.")]


@dataclass(frozen=True)
class Traced:
    """The options of a choice by tracing."""

    prompts: list[str]
    index: str | None
    precision: float

    def rows(
        self, model: str, loading: Mapping[str, Any], *, forget: Path | None, draw: int, seed: int
    ) -> ChosenRows | None:
        """Trace the prompts, choose rows, and say how many; None if there are no prompts.

        Raises:
            UsageError: both forget rows and prompts, or neither; or prompts without an index.
        """
        if bool(self.prompts) == (forget is not None):
            what = "give either the rows to forget or prompts with odd answers"
            raise UsageError(what, where="unlearn", remedy="--forget ROWS, or --from-trace PROMPT with --index INDEX")
        if not self.prompts:
            return None
        if self.index is None:
            raise UsageError("there is no index to trace in", where="--from-trace", remedy="give --index INDEX")
        from headwater.api.from_trace import choose_forget

        chosen = choose_forget(
            self.index, self.prompts, model=model, loading=loading, precision=self.precision, draw=draw, seed=seed
        )
        say(f"{chosen}; traced: {chosen.answers[0][:60]!r}")
        return ChosenRows(chosen)


@dataclass(frozen=True)
class ChosenRows:
    """Rows that were chosen."""

    chosen: Chosen

    @property
    def forget(self) -> list[Any]:
        """The rows to forget, as records."""
        from headwater.data.records import as_record

        return [as_record(row) for row in self.chosen.forget]

    @property
    def retain(self) -> list[Any]:
        """The rows to retain, as records."""
        from headwater.data.records import as_record

        return [as_record(row) for row in self.chosen.retain]

    def write(self, folder: Path) -> dict[str, Path]:
        """Write both as files to read, correct and use again; returns their paths by kind."""
        from headwater.api.from_trace import write_chosen

        return {f"{name} rows": path for name, path in write_chosen(folder, self.chosen).items()}
