"""What a method of unlearning can do and needs; callers ask for this, never for a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Apply = Callable[[float], object]


@dataclass(frozen=True)
class Stroke:
    """A change of the whole model at once, whose strength is sought.

    Attributes:
        strengths: what to try, the mildest first.
        prepare: called with the model, the state before, and the run (`headwater.unlearning.targets.Run`);
            gives what applies a strength.
    """

    strengths: Sequence[float]
    prepare: Callable[[Any, Mapping[str, Tensor], Any], Apply]


@dataclass(frozen=True)
class UnlearningMethod:
    """A method.

    Attributes:
        name: as on the command line.
        about: one line for its help.
        trains: whether it trains, with the objective of its name.
        stroke: a change at one stroke, after training if it trains; None for none.
        from_base: whether it starts from the model as it was before it learned the rows.
        needs_retain: whether it cannot run without rows to retain.
    """

    name: str
    about: str
    trains: bool = True
    stroke: Stroke | None = None
    from_base: bool = False
    needs_retain: bool = True

    @property
    def adapts(self) -> bool:
        """Whether it can train an adapter; a stroke without training changes the weights themselves."""
        return self.trains

    @property
    def constrained(self) -> bool:
        """Whether its training follows the target and the bound; otherwise all steps are taken."""
        return self.trains and self.stroke is None and not self.from_base
