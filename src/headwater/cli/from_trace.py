"""`headwater unlearn --from-trace`: rows to forget and to retain, chosen by tracing odd answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.console import say
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.cli.unlearning_options import ForgettingRows
    from headwater.unlearning.choose import ForgetChoice
    from headwater.unlearning.options import UnlearnOptions


@dataclass(frozen=True)
class TracedPrompts:
    """Prompts with odd answers, to trace instead of giving the rows to forget."""

    from_trace: Annotated[
        list[str],
        typer.Option(help="A prompt with an odd answer: forget the rows of --index that taught it. Repeats."),
    ] = field(default_factory=list)
    precision: Annotated[float, typer.Option(help="Least share of rightly chosen rows to expect of --from-trace.")] = (
        0.9
    )

    def rows(
        self, model: str, loading: Mapping[str, Any], given: ForgettingRows, options: UnlearnOptions
    ) -> ChosenRows | None:
        """Trace the prompts, choose rows, and say how many; None if there are no prompts.

        Raises:
            UsageError: both forget rows and prompts, or neither; or prompts without an index.
        """
        if bool(self.from_trace) == (given.forget is not None):
            what = "give either the rows to forget or prompts with odd answers"
            raise UsageError(what, where="unlearn", remedy="--forget ROWS, or --from-trace PROMPT with --index INDEX")
        if not self.from_trace:
            return None
        if options.index is None:
            raise UsageError("there is no index to trace in", where="--from-trace", remedy="give --index INDEX")
        from headwater.api.from_trace import choose_forget

        how: dict[str, Any] = {"precision": self.precision, "draw": given.draw, "seed": options.seed}
        chosen = choose_forget(options.index, self.from_trace, model=model, loading=loading, **how)
        say(f"{chosen}; traced: {chosen.answers[0][:60]!r}")
        own_retain = given.retain is not None or given.retain_from is not None
        merged = "adapter" in loading or own_retain  # the index holds other vectors, or not all of the rows
        return ChosenRows(chosen, own_retain, replace(options, index=None) if merged else options)


@dataclass(frozen=True)
class ChosenRows:
    """Rows that were chosen; `own_retain`: the user gives the rows to retain; `options`: those of the run."""

    chosen: ForgetChoice
    own_retain: bool
    options: UnlearnOptions

    @property
    def rows(self) -> dict[str, Any]:
        """The rows as arguments of `headwater.unlearn`."""
        from headwater.data.records import as_record

        found = {"forget": [as_record(row) for row in self.chosen.forget]}
        return found if self.own_retain else {**found, "retain": [as_record(row) for row in self.chosen.retain]}

    def write(self, folder: Path) -> dict[str, Path]:
        """Write both as files to read, correct and use again; returns their paths by kind."""
        from headwater.api.from_trace import write_chosen

        return {f"{name} rows": path for name, path in write_chosen(folder, self.chosen).items()}
