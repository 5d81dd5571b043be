"""Windows: how a long row is cut into pieces the model reads."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.core.errors import UsageError


@dataclass(frozen=True)
class Window:
    """Pieces of at most `size` tokens, each sharing `overlap` tokens with the one before it.

    With no overlap the first token of every piece but a row's first is predicted by none: nothing is before it.
    """

    size: int
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.size < 2 or not 0 <= self.overlap < self.size:
            raise UsageError(
                f"windows of {self.size} tokens that share {self.overlap}",
                where="window",
                remedy="a size of at least 2, and an overlap from 0 to below the size",
            )

    def cuts(self, tokens: int) -> list[tuple[int, int]]:
        """(start, end) of each window over `tokens` tokens; a tail inside its predecessor is not made."""
        step = self.size - self.overlap
        cuts = [(0, min(self.size, tokens))]
        while cuts[-1][1] < tokens:
            start = cuts[-1][0] + step
            cuts.append((start, min(start + self.size, tokens)))
        return cuts
