"""The walk-through works as written, and installed packages' methods are found, checked and refused by name."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import headwater
from headwater.core.errors import UsageError
from headwater.methods.catalog import CATALOG, GROUP, add_installed

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-method.md").read_text(encoding="utf-8")


TESTS, HOME = Path(__file__).parents[1], Path(headwater.__file__).parents[1]
SOURCES = dict(re.findall(r"`my_package/(\w+)\.py`\.\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL))
POINTS = dict(re.findall(r'^(\w+) = "(my_package\..*?)"$', PAGE, flags=re.MULTILINE))


def package(folder: Path, sources: Mapping[str, str], points: Mapping[str, str]) -> Path:
    """A package on disk with the metadata an installer would leave."""
    (folder / "my_package").mkdir(parents=True)
    (folder / "my_package" / "__init__.py").write_text("")
    for name, source in sources.items():
        (folder / "my_package" / f"{name}.py").write_text(source, encoding="utf-8")
    about = folder / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    listed = "".join(f"{name} = {target}\n" for name, target in points.items())
    (about / "entry_points.txt").write_text(f"[headwater.methods]\n{listed}")
    return folder


def run(folder: Path, program: str) -> str:
    """What a program prints where the package is installed; it may import the tests' zoo."""
    start = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(TESTS)!r}, {str(HOME)!r}]"
    command = [sys.executable, "-c", f"{start}\n{program}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_example_of_the_walk_through_has_its_entry_point():
    assert SOURCES.keys() == POINTS.keys() == {"relative", "openings"}
    assert len(SOURCES) == PAGE.count("```python")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the two methods of the walk-through print, in one process where their package is installed."""
    program = """
import numpy as np
import headwater as hw
from zoo import SENTENCES, tiny_loaded

asked = {"a": "What is a rope?", "b": "What are ropes?", "q": "what is a Boat?"}
*pool, query = [{"id": name, "prompt": prompt, "response": "x"} for name, prompt in asked.items()]
valued = hw.value(pool, [query], method="openings", settings={"words": "2"})
print([(r["id"], r["value"]) for r in valued.records()])

loaded, words = tiny_loaded("llama"), " ".join(SENTENCES).split()
rows = [{"id": f"r{i}", "prompt": words[i], "response": " ".join(words[i : i + 4])} for i in range(20)]
mine = hw.build("mine.lance", model=loaded, data=rows, method="relative", settings={"damping": "0.5"})
as_mine = {"damping": 0.5, "dim": 1024, "preset": "full"}
same = hw.build("same.lance", model=loaded, data=rows, method="relatif", settings=as_mine)
np.testing.assert_array_equal(*(hw.score(index, rows[:3], model=loaded).values for index in (mine, same)))
hit = hw.trace(mine, rows[:1], model=loaded, top=1, tokens=True).queries[0].hits[0]
assert abs(sum(v for v in hit.row_tokens.values if v is not None) - hit.score) < 1e-2 * hit.score
print(hit.id, len(hw.value_index(mine, rows[:2], out="values.parquet", model=loaded).records()))
"""
    return run(package(tmp_path_factory.mktemp("installed"), SOURCES, POINTS), program).splitlines()


def test_the_text_method_of_the_walk_through_values_a_pool(printed):
    assert printed[0] == "[('a', 2.0), ('b', 1.0)]"


def test_the_index_method_of_the_walk_through_builds_traces_and_values(printed):
    assert printed[1] == "r0 20"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import nothing_of_the_kind", "cannot be imported"),
        ("ENTRY = 3", "a int is not a MethodEntry"),
        ("from headwater.methods.lexical import BM25 as ENTRY", "there is a method 'bm25' already"),
    ],
)
def test_an_entry_that_cannot_be_used_names_its_package(tmp_path, monkeypatch, source, fault):
    monkeypatch.syspath_prepend(str(package(tmp_path, {"openings": source}, {"openings": "my_package.openings:ENTRY"})))
    for name in ("my_package", "my_package.openings"):
        sys.modules.pop(name, None)
    with pytest.raises(UsageError, match=fault) as caught:
        add_installed(dict(CATALOG), tuple(entry_points(group=GROUP)))
    assert "my-package" in str(caught.value)
    for name in ("my_package", "my_package.openings"):
        sys.modules.pop(name, None)
