"""What an evaluation is given besides its settings: progress for a bar, messages that stay visible, and an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from headwater.engines.blocks import Engine
from headwater.engines.local import Local
from headwater.training.cache import OnShare

OnNote = Callable[[str], None]
"""Called with a message that should stay visible: what will be computed next, and how long it will take."""


@dataclass(frozen=True)
class Listener:
    """The callbacks of an evaluation; by default they do nothing.

    Attributes:
        on_progress: called with the present step and the share of it that is done.
        on_note: called with messages that should stay visible.
        engine: where the models of a bank are trained (`lds`, `removal`).
    """

    on_progress: OnShare = field(default=lambda words, share: None)
    on_note: OnNote = field(default=lambda sentence: None)
    engine: Engine = field(default_factory=Local)

    def within(self, words: str) -> Listener:
        """The callbacks for a part of the work; they put these words before every message."""
        return Listener(
            lambda more, share: self.on_progress(f"{words}: {more}", share),
            lambda more: self.on_note(f"{words}: {more}"),
            self.engine,
        )


SILENT = Listener()
"""Callbacks that do nothing."""
