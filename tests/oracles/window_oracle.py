"""Which targets a row's windows count, by plain loops over tokens."""

from __future__ import annotations

from collections.abc import Sequence


def counted_targets(
    cuts: Sequence[tuple[int, int]], targets: Sequence[bool]
) -> tuple[list[list[bool]], dict[int, int]]:
    """For each window the positions that count, and for each counted token the window that counts it."""
    counted_in: dict[int, int] = {}
    predicted: set[int] = set()
    positions: list[list[bool]] = []
    for number, (start, end) in enumerate(cuts):
        here = []
        for position in range(start, end):
            following = position + 1
            counts = following < end and targets[following] and following not in predicted
            if counts:
                counted_in[following] = number
            here.append(counts)
        predicted.update(range(start + 1, end))
        positions.append(here)
    return positions, counted_in
