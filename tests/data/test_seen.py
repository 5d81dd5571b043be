"""Ids are told apart exactly, however many, and in bounded memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from headwater.data import corpus as seen
from headwater.data.corpus import SeenIds


@pytest.mark.parametrize("cache", [1 << 14, 16 << 20])
def test_it_is_a_dictionary(monkeypatch: pytest.MonkeyPatch, cache: int) -> None:
    """Also where most of the ids have left memory for the disk."""
    monkeypatch.setattr(seen, "CACHE_BYTES", cache)
    ids, known = SeenIds(), {}
    dice = random.Random(0)
    for number in range(20_000):
        row_id = f"{dice.randrange(15_000)} it's ✓"
        assert ids.claim(row_id, number) == known.get(row_id)
        known.setdefault(row_id, number)
    assert ids.first("never") is None


def test_repeats_get_the_next_free_name() -> None:
    ids = SeenIds()
    ids.claim("a~3", 1)
    given = []
    for number in range(2, 6):
        name = ids.unused("a")
        assert ids.claim(name, number) is None
        given.append(name)
    assert given == ["a", "a~2", "a~4", "a~5"]


def test_memory_does_not_grow_with_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    monkeypatch.setattr(seen, "CACHE_BYTES", 1 << 20)
    ids = SeenIds()
    for number in range(40_000):
        ids.claim(f"{number * 7919 % 1_000_003:016x}", number)
    before = resident()
    for number in range(40_000, 160_000):
        ids.claim(f"{number * 7919 % 1_000_003:016x}", number)
    assert resident() - before < 1 << 20, "held in memory they would take 3.6 MiB, in a dictionary some 18"
