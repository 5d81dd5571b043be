"""What the documentation says a public name takes is what it takes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import headwater as hw

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
FUNCTIONS = {name: getattr(hw, name) for name in hw.__all__ if inspect.isfunction(getattr(hw, name))}


def documented(name: str) -> set[str]:
    """The arguments that a function's docstring describes; "as in `other`" brings the other's along."""
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    block = re.search(r"^Args:\n((?: {4}.*\n|\n)+)", text + "\n", flags=re.MULTILINE)
    own = re.findall(r"^ {4}(\w+): ", block[1], flags=re.MULTILINE) if block else []
    likewise = re.findall(r"[Aa]rguments (?:as in|are those of) `(\w+)`", text)
    same = re.findall(r"`(\w+)` with the same arguments", text)
    found = set(own)
    for other in (*likewise, *same):
        found |= documented(other)
    return found


def test_every_public_name_is_in_the_reference_and_nothing_else():
    listed = set(re.findall(r"^::: headwater\.(\w+)$", REFERENCE, flags=re.MULTILINE))
    assert listed == set(hw.__all__) - {"__version__"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_described(name):
    taken = set(inspect.signature(FUNCTIONS[name]).parameters)
    described = documented(name)
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    if len(taken) > 3:
        assert taken <= described, f"{name} does not describe {sorted(taken - described)}"
    own = re.search(r"^Args:\n((?: {4}.*\n|\n)+)", text + "\n", flags=re.MULTILINE)
    if own:
        extra = set(re.findall(r"^ {4}(\w+): ", own[1], flags=re.MULTILINE)) - taken
        assert not extra, f"{name} describes {sorted(extra)}, which it does not take"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_words_mean_the_same_in_every_verb(name):
    parameters = set(inspect.signature(FUNCTIONS[name]).parameters)
    assert not parameters & {"options", "progress", "placement", "mapping", "told", "bench"} or name in (
        "open_corpus",  # the inner reader, whose `mapping` the verbs call `columns`
    )


def test_a_plan_takes_what_a_build_takes():
    build, plan = (inspect.signature(FUNCTIONS[name]).parameters for name in ("build", "plan"))
    assert set(build) - set(plan) == {"out", "resume", "on_progress", "engine", "shard"}
    assert not set(plan) - set(build)
