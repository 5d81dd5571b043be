"""Who is told how an evaluation goes: a bar that moves, and sentences that stay in view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headwater.training.cache import OnShare

OnNote = Callable[[str], None]
"""Called with a sentence that is to stay in view: what is about to be computed, and how long it will take."""


def _no_share(words: str, share: float) -> None:
    pass


def _no_note(sentence: str) -> None:
    pass


@dataclass(frozen=True)
class Listener:
    """What an evaluation calls as it goes; by default nobody listens."""

    on_progress: OnShare = _no_share
    on_note: OnNote = _no_note

    def within(self, words: str) -> Listener:
        """The listener of a part of the work, whose every message begins with these words."""
        return Listener(
            lambda more, share: self.on_progress(f"{words}: {more}", share),
            lambda more: self.on_note(f"{words}: {more}"),
        )


SILENT = Listener()
"""Nobody listens."""
