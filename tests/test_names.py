"""Names say what a thing is: no two classes of one name, no room for odds and ends, no file too long to read."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "headwater"
FILES = sorted(SOURCE.rglob("*.py"))
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
LINES = 400


def twice(sources: dict[str, str]) -> dict[str, list[str]]:
    """Public top-level classes that several files define."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, text in sources.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(name)
    return {name: places for name, places in found.items() if len(places) > 1}


def test_a_class_name_is_one_class():
    assert twice({str(path.relative_to(SOURCE)): path.read_text(encoding="utf-8") for path in FILES}) == {}


def test_two_classes_of_one_name_are_seen():
    sources = {"a.py": "class Job: ...\nclass _Own: ...", "b.py": "class Job: ...\nclass _Own: ..."}
    assert twice(sources) == {"Job": ["a.py", "b.py"]}


def test_a_module_name_says_what_is_in_it():
    assert [path for path in SOURCE.rglob("*") if path.stem in SAYS_NOTHING] == []


def test_a_file_can_be_read_in_one_go():
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > LINES} == {}
    assert len(lengths) > 200, "the files are found"
