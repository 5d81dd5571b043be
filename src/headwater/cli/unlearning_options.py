"""The options of `headwater unlearn`: the rows, and how to train."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.options import MaxTokens, Settings, Targets, Template, pairs
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.unlearning.options import UnlearnOptions


@dataclass(frozen=True)
class ForgettingRows:
    """The rows to forget, to retain and to ask about."""

    forget: Annotated[Path | None, typer.Option(help="Rows with the unwanted answers, or hits of `trace --out`.")] = (
        None
    )
    retain: Annotated[Path | None, typer.Option(help="Clean rows, to keep the model's other behaviour.")] = None
    retain_from: Annotated[str | None, typer.Option(help="Training data to draw clean retain rows from.")] = None
    draw: Annotated[int, typer.Option(help="Rows to draw from it: half near the forget rows, half random.", min=1)] = (
        120
    )
    unseen: Annotated[Path | None, typer.Option(help="Rows the model has not seen: their loss is the target.")] = None
    ask: Annotated[Path | None, typer.Option(help="Prompts to ask before and after, for the report.")] = None
    clean_column: Annotated[str, typer.Option(help="Forget rows' column with the right answer.")] = "clean_response"
    trigger: Annotated[
        str,
        typer.Option(help="Words that trigger it: the answer without them is the right one. auto: find them; none."),
    ] = "auto"
    skip_unusable: Annotated[bool, typer.Option("--skip-unusable", help="Leave out rows that cannot be used.")] = False

    @property
    def chosen(self) -> dict[str, Any]:
        """The options as arguments of `headwater.unlearn`."""
        given = dict(vars(self))
        asked = given.pop("ask")
        return {**given, "asked": asked}


@dataclass(frozen=True)
class TrainingOptions:
    """The method, and how it trains."""

    method: Annotated[
        str,
        typer.Option(help="rapidun, ga, graddiff, npo, simnpo, loreun, wga, dpo, rmu, taskvector, fisher, retrain."),
    ] = "rapidun"
    rate: Annotated[str, typer.Option(help="Learning rate, or auto: found by a short probe.")] = "auto"
    steps: Annotated[int, typer.Option(help="Most optimizer steps.", min=1)] = 320
    guard: Annotated[float, typer.Option(help="Clean perplexity may grow by this factor; 0: without bound.")] = 1.05
    bound: Annotated[float | None, typer.Option(help="The same as a loss of the guard rows, nats a token.", min=0)] = (
        None
    )
    target: Annotated[
        float | None, typer.Option(help="Loss of withheld forget rows to reach, nats a token.", min=0)
    ] = None
    withhold: Annotated[
        float, typer.Option(help="Share of the forget rows kept from training to see whether it is gone.")
    ] = 0.2
    stop: Annotated[bool, typer.Option("--stop", help="End at the bound instead of weighing retain rows more.")] = False
    weights: Annotated[str, typer.Option(help="influence, uniform, shuffled, or a weights file (RapidUn).")] = (
        "influence"
    )
    influence: Annotated[str, typer.Option(help="Attribution method that makes the weights.")] = "rise"
    index: Annotated[str | None, typer.Option(help="Trace index of the rows, for weights and --from-trace.")] = None
    settings: Settings = field(default_factory=list)
    compat: Annotated[
        bool, typer.Option("--compat", help="RapidUn's mapping as published; add --influence graddot for its vectors.")
    ] = False
    ceiling: Annotated[
        float | None,
        typer.Option(help="Loss at which ascent fades, nats a token; default: 1.5 times the target; 0: never.", min=0),
    ] = None
    right: Annotated[float | None, typer.Option(help="Factor of the loss of right answers; default: 0.5.", min=0)] = (
        None
    )
    beta: Annotated[float | None, typer.Option(help="β of npo, dpo (0.1), wga (0.5) and simnpo (4.5).")] = None
    keep: Annotated[str, typer.Option(help="Loss of retain rows: nll, or kl (divergence from the old model).")] = "nll"
    dynamic: Annotated[bool, typer.Option("--dynamic", help="LoReUn: weights follow the current losses.")] = False
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of an adapter.")] = False
    rank: Annotated[int, typer.Option(help="Rank of the adapter.", min=1)] = 16
    harden: Annotated[
        str | None, typer.Option(help="Train so that forgetting survives relearning (sharp) or rounding (int8, int4).")
    ] = None
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations: less memory, more time.")
    ] = False
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints; 0: none.", min=0)] = 50
    template: Template = None
    max_tokens: MaxTokens = 512
    targets: Targets = None
    seed: Annotated[int, typer.Option(help="Seed of adapter, order and dropout.")] = 0

    @property
    def chosen(self) -> UnlearnOptions:
        """The options of the run."""
        from headwater.unlearning.adapter import Lora
        from headwater.unlearning.catalog import find_unlearning
        from headwater.unlearning.objectives import one_of
        from headwater.unlearning.options import UnlearnOptions

        given = dict(vars(self))
        one_of("way to keep retain rows", self.keep, ("nll", "kl"))
        for name in ("rank", "rate", "settings", "full", "stop", "method", "guard"):
            del given[name]
        return UnlearnOptions(
            **given,
            method=find_unlearning(self.method).name,
            rate=_rate(self.rate),
            settings=pairs(self.settings, "--set") or {},
            lora=None if self.full else Lora(rank=self.rank, alpha=self.rank),
            follow=not self.stop,
            guard=self.guard or None,
        )


def _rate(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a learning rate", where="--rate", remedy="give a number, or auto") from None
