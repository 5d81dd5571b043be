"""Tables and facts fit the width they are given, and break no word that fits a line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from headwater.cli.console import as_fields
from headwater.cli.layout import cell_text, facts_text, table_text

WORDS = st.text(st.sampled_from("abcdefgh数字-"), min_size=1, max_size=14)
CELLS = st.one_of(
    st.lists(WORDS, max_size=12).map(" ".join), st.floats(-1e9, 1e9), st.integers(-(10**15), 10**15), st.none()
)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=5)))
def test_a_table_fits_and_keeps_every_word(rows):
    columns = [f"metric {i}" for i in range(len(rows[0]))]
    shown = table_text("numbers", columns, rows, width=80)
    assert max(map(cell_len, shown.splitlines())) <= 80
    printed = set(shown.split())
    for row in rows:
        for value in row:
            assert set(cell_text(value).split()) <= printed


def test_columns_that_do_not_fit_go_into_a_second_table_with_the_first_column():
    columns = ["method", *(f"measurement{i}" for i in range(9))]
    shown = table_text("", columns, [["rise", *range(9)]], width=80)
    heads = [line for line in shown.splitlines() if line.startswith("method")]
    assert len(heads) == 2
    assert " ".join(heads).split() == [*columns[:6], "method", *columns[6:]]


def test_an_interval_stays_on_one_line():
    row = ["rise", *["0.532 [0.511, 0.553]"] * 4]
    shown = table_text("", ["method", "P@10", "recall", "AUPRC", "AUROC"], [row], width=80)
    assert shown.count("[0.511, 0.553]") == 4


def test_a_word_longer_than_the_line_is_broken_and_nothing_is_lost():
    name = "x" * 200
    shown = table_text("", ["id", "row"], [[name, "word"]], width=40)
    assert max(map(len, shown.splitlines())) <= 40
    assert shown.count("x") == 200


@pytest.mark.parametrize("value", [{"a": {"b": 1}}, [{"a": 1}, {"a": 2}], ["a", "b"], {"a": []}, {}, [], None, True])
def test_no_value_is_shown_as_python_writes_it(value):
    shown = facts_text({"fact": value}, width=80)
    assert not set("{}'[]") & set(shown)
    assert "None" not in shown
    assert "True" not in shown


def test_names_of_facts_become_names_of_fields():
    facts = {"forget loss of unseen rows (target)": 1, "seconds": {"a b": 2}, "ceilings": {"My Task": {"x y": 3}}}
    wanted = {"forget_loss_of_unseen_rows_target": 1, "seconds": {"a_b": 2}, "ceilings": {"My Task": {"x_y": 3}}}
    assert as_fields(facts) == wanted
