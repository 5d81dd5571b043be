"""Callbacks of an evaluation: progress for a bar, and messages that should stay visible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from headwater.training.cache import OnShare

OnNote = Callable[[str], None]
"""Called with a message that should stay visible: what will be computed next, and how long it will take."""


@dataclass(frozen=True)
class Listener:
    """The callbacks of an evaluation; by default they do nothing."""

    on_progress: OnShare = field(default=lambda words, share: None)
    on_note: OnNote = field(default=lambda sentence: None)

    def within(self, words: str) -> Listener:
        """The callbacks for a part of the work; they put these words before every message."""
        return Listener(
            lambda more, share: self.on_progress(f"{words}: {more}", share),
            lambda more: self.on_note(f"{words}: {more}"),
        )


SILENT = Listener()
"""Callbacks that do nothing."""
