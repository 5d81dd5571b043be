"""Figures: the same bytes twice, numbers where they belong, words as text, nothing fetched."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from headwater.core.errors import DataError, UsageError
from headwater.report import plots

DRAWINGS = {
    "bars": lambda: plots.bars(["<a>", "$5 or $7"], [0.8, -0.2], low=[0.7, -0.3], high=[0.9, -0.1], axis="P@50"),
    "histogram": lambda: plots.histogram({"planted": [0.5, 0.6], "clean": [0.0, 0.1, 0.1]}, bins=5, axis="value"),
    "curves": lambda: plots.curves([1, 2], {"a": [1, 2], "b": [2, 1]}, bands={"a": ([0, 1], [2, 3])}),
    "tradeoff": lambda: plots.tradeoff({"npo": (0.1, 0.8), "ga": (0.2, 0.5)}, axes_names=("forget", "retain")),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_svg_is_well_formed_deterministic_and_self_contained(name: str) -> None:
    text = plots.svg(DRAWINGS[name](), description='a "<figure>"')
    assert text == plots.svg(DRAWINGS[name](), description='a "<figure>"')
    root = ET.fromstring(text)
    assert root.attrib["aria-label"] == 'a "<figure>"'
    links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
    assert all(link.startswith("#") for link in links)
    assert "<metadata" not in text
    assert "currentColor" in text


def test_words_stay_words() -> None:
    root = ET.fromstring(plots.svg(DRAWINGS["bars"](), description=""))
    words = {"".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("text")}
    assert {"<a>", "$5 or $7", "P@50"} <= words


def test_bars_and_intervals_are_the_numbers_given() -> None:
    (axes,) = DRAWINGS["bars"]().axes
    assert [bar.get_width() for bar in axes.patches] == [0.8, -0.2]
    assert [list(line.get_xdata()) for line in axes.lines[:2]] == [[0.7, 0.9], [-0.3, -0.1]]


def test_each_distribution_sums_to_one() -> None:
    (axes,) = DRAWINGS["histogram"]().axes
    heights = [patch.get_height() for patch in axes.patches if hasattr(patch, "get_height")]
    assert sum(heights) == pytest.approx(2.0)


def test_png_and_svg_files(tmp_path) -> None:
    png, vector = tmp_path / "f.png", tmp_path / "f.svg"
    plots.save(DRAWINGS["curves"](), png)
    first = png.read_bytes()
    assert first == plots.save(DRAWINGS["curves"](), png).read_bytes()
    assert first.startswith(b"\x89PNG")
    assert plots.save(DRAWINGS["curves"](), vector, description="d").read_text(encoding="utf-8").startswith("<svg")
    with pytest.raises(UsageError, match=r"\.gif"):
        plots.save(DRAWINGS["curves"](), tmp_path / "f.gif")


def test_lengths_must_agree() -> None:
    with pytest.raises(DataError, match="different lengths"):
        plots.bars(["a"], [1.0, 2.0])
    with pytest.raises(DataError, match="different lengths"):
        plots.curves([1, 2], {"a": [1.0]})


def test_importing_reports_loads_neither_matplotlib_nor_torch() -> None:
    code = "import sys, headwater.report.plots; print(sorted({'matplotlib', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
