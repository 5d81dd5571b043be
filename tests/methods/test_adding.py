"""The walk-through works as written, and installed packages' methods are found, checked and refused by name."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from headwater.core.errors import UsageError
from headwater.methods.catalog import CATALOG, GROUP, add_installed

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-method.md").read_text(encoding="utf-8")


def package(folder: Path, source: str, target: str) -> Path:
    """A package on disk with the metadata an installer would leave."""
    (folder / "my_package").mkdir(parents=True)
    (folder / "my_package" / "__init__.py").write_text("")
    (folder / "my_package" / "openings.py").write_text(source)
    about = folder / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[headwater.methods]\nopenings = {target}\n")
    return folder


def run(folder: Path, program: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{program}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_example_of_the_walk_through_scores_beside_the_others(tmp_path):
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (point,) = re.findall(r'openings = "(.*?)"', PAGE)
    folder = package(tmp_path, source, point)
    done = run(
        folder,
        """
from headwater.methods.catalog import find_method
from headwater.methods.scoring import attribute
from headwater.methods.targets import each
from headwater.data import Row
rows = [Row("a", 0, prompt="What is a rope?", response="x"), Row("b", 1, prompt="What are ropes?", response="x")]
query = Row("q", 0, prompt="what is a Boat?", response="x")
print(attribute(find_method("openings", {"words": "2"}), None, rows, each([query])).values.tolist())
""",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[2.0], [1.0]]"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import nothing_of_the_kind", "cannot be imported"),
        ("ENTRY = 3", "a int is not a MethodEntry"),
        ("from headwater.methods.lexical import BM25 as ENTRY", "there is a method 'bm25' already"),
    ],
)
def test_an_entry_that_cannot_be_used_names_its_package(tmp_path, monkeypatch, source, fault):
    monkeypatch.syspath_prepend(str(package(tmp_path, source, "my_package.openings:ENTRY")))
    for name in ("my_package", "my_package.openings"):
        sys.modules.pop(name, None)
    with pytest.raises(UsageError, match=fault) as caught:
        add_installed(dict(CATALOG), entry_points(group=GROUP))
    assert "my-package" in str(caught.value)
    for name in ("my_package", "my_package.openings"):
        sys.modules.pop(name, None)
