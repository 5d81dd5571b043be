"""Colour scales: neutral at zero, symmetric in sign, legible in every shade of both themes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.report.colours import DARK, LIGHT, STEPS, Theme, contrast, loss_class, signed_class, stylesheet

finite = st.floats(allow_nan=False, allow_infinity=False)
THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


@given(finite, st.floats(min_value=0, allow_infinity=False))
def test_sign_flips_the_side_and_keeps_the_shade(value: float, scale: float) -> None:
    here, there = signed_class(value, scale), signed_class(-value, scale)
    assert here[1:] == there[1:]
    assert {here[0], there[0]} in ({"z"}, {"p", "n"})


def test_ends_and_middle() -> None:
    assert signed_class(0.0, 2.0) == signed_class(0.0, 0.0) == "z"
    assert signed_class(2.0, 2.0) == f"p{STEPS}"
    assert signed_class(-2.0, 2.0) == f"n{STEPS}"
    assert signed_class(1.0, 2.0) == f"p{STEPS // 2}"
    assert signed_class(None, 2.0) == loss_class(None, 2.0) == "m"
    assert loss_class(2.0, 2.0) == f"l{STEPS}"
    assert loss_class(-1e-7, 2.0) == "z"


@given(st.lists(st.floats(min_value=0, max_value=1), min_size=2))
def test_shades_grow_with_the_value(values: list[float]) -> None:
    steps = [int(signed_class(v, 1.0)[1:] or 0) for v in sorted(values)]
    assert steps == sorted(steps)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)  # WCAG's own well-known near miss
    assert contrast("#123456", "#123456") == 1.0


@THEMES
def test_text_is_legible_everywhere(theme: Theme) -> None:
    for ground in [theme.page, theme.card, *theme.heat().values()]:
        assert contrast(theme.ink, ground) >= 4.5, ground
    for ground in [theme.page, theme.card]:
        assert min(contrast(theme.muted, ground), contrast(theme.link, ground)) >= 4.5
    for mark in [theme.strong_positive, theme.strong_negative]:
        assert contrast(mark, theme.card) >= 3.0


@THEMES
def test_both_signs_are_equally_loud(theme: Theme) -> None:
    assert contrast(theme.positive, theme.negative) < 1.25
    assert contrast(theme.positive, theme.card) > 1.8


def test_every_class_has_a_rule_and_a_colour_in_both_themes() -> None:
    css = stylesheet()
    for name in LIGHT.heat():
        assert css.count(f"--{name}:#") == 2
        assert f".{name}{{background-color:var(--{name})}}" in css
    assert not re.search(r"url|@import|http", css)
