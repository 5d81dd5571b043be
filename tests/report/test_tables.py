"""Tables: cells keep their place whatever is in them, and a Markdown parser reads back what was written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from page_reader import parse

from headwater.core.errors import DataError
from headwater.report import Table, markdown_table
from headwater.report.tables import cell_text, numeric_columns, signed_text

words = st.text(alphabet=st.sampled_from("a|\\<>\n 1é&;"), max_size=8)


def read_back(markdown: str) -> list[list[str]]:
    page = parse(MarkdownIt("commonmark").enable("table").render(markdown))
    return [[cell.text() for cell in row.children if not isinstance(cell, str)] for row in page.all("tr")]


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_every_cell_keeps_its_place(rows: list[tuple[str, str]]) -> None:
    found = read_back(markdown_table(["a", "b"], rows))
    assert [len(row) for row in found] == [2] * (len(rows) + 1)


@pytest.mark.parametrize("cell", ["a|b", r"a\|b", "\\", "<script>", "a\\", r"\\|", "**"])
def test_hostile_cells_read_back(cell: str) -> None:
    assert read_back(markdown_table(["x", "y"], [(cell, 1)])) == [["x", "y"], [cell, "1"]]


def test_numbers_are_flush_right() -> None:
    assert markdown_table(["method", "P@10"], [["rise", 0.87], ["bm25", None]]) == (
        "| method | P@10 |\n| :----- | ---: |\n| rise   | 0.87 |\n| bm25   |    – |"
    )
    assert markdown_table(["a"], []) == "| a   |\n| :-- |"


def test_cells() -> None:
    assert [cell_text(c) for c in (None, "x", 1234567, -5, 0.123456, -0.0, 1.5e-9, True)] == [
        "–", "x", "1,234,567", "−5", "0.1235", "0", "1.5e−09", "True",
    ]  # fmt: skip
    assert [signed_text(v, padded=True) for v in (0.52, -0.0672, 0.0, 1234.0)] == [
        "+0.5200", "−0.06720", "0.000", "+1234",
    ]  # fmt: skip
    assert numeric_columns(["a", "b", "c"], [("x", 1, None), ("y", None, None)]) == [False, True, False]


def test_ragged_rows_are_refused_by_number() -> None:
    with pytest.raises(DataError, match=re.escape("table 't': row 2 has 1 cells for 2 columns")):
        Table("t", ("a", "b"), ((1, 2), (3,)))
    with pytest.raises(DataError, match="row 1"):
        markdown_table(["a"], [[1, 2]])
