"""Windows: how a long row is cut into pieces the model reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Pieces of at most `size` tokens, each sharing `overlap` tokens with the one before it."""

    size: int
    overlap: int = 0

    def cuts(self, tokens: int) -> list[tuple[int, int]]:
        """(start, end) of each window over `tokens` tokens; a tail inside its predecessor is not made."""
        step = self.size - self.overlap
        cuts = [(0, min(self.size, tokens))]
        while cuts[-1][1] < tokens:
            start = cuts[-1][0] + step
            cuts.append((start, min(start + self.size, tokens)))
        return cuts
