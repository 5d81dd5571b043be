"""What methods store unless told otherwise: a code whose loss was measured and is small, and numbers with `full`."""

from __future__ import annotations

import pytest

import headwater as hw
from headwater.core.spec import Column
from headwater.methods.catalog import CATALOG
from headwater.methods.kept import KEPT, expected
from headwater.methods.method import FULL
from headwater.search.codes import coded
from zoo import SENTENCES, tiny_loaded

CODED = sorted(name for name in KEPT if CATALOG[name].code != "none")
ROWS = [{"id": f"r{i}", "prompt": f"{text} {i}", "response": text[i:]} for i, text in enumerate(3 * SENTENCES[:2])]


FOR_CAUSE = "ekfac-cos"
"""Its default keeps all of the LDS, for which it is made, and less of detection, as its page says."""


@pytest.mark.parametrize("name", CODED)
def test_what_a_default_keeps_was_measured_and_is_98_per_cent_rounded(name):
    (column,) = coded([Column("long", 1 << 20)], CATALOG[name].code)
    assert KEPT[name][column.code] >= (0.97 if name != FOR_CAUSE else 0.7)


@pytest.mark.parametrize("name", CODED)
def test_the_full_preset_stores_numbers_and_the_catalog_says_so(name):
    entry = CATALOG[name]
    assert entry.typical().require_vectors().code == entry.code
    assert entry.resolve({**entry.recorded, "preset": FULL}).require_vectors().code == "none"
    assert "preset=full" in entry.stores


@pytest.mark.parametrize("name", ["graddot", "tracin", "trak", "relatif"])
def test_an_index_of_numbers_stays_one_when_its_method_has_come_to_store_codes(name, tmp_path):
    model, settings = tiny_loaded("llama"), {"parameters": "*.q_proj.weight"}
    hw.build(tmp_path / "old.lance", model=model, data=ROWS[:4], method=name, settings=settings, code="none")
    hw.add(tmp_path / "old.lance", data=ROWS[4:6], model=model)
    old = hw.open_index(tmp_path / "old.lance")
    assert (old.count, [column.code for column in old.manifest.columns]) == (6, ["none"])
    new = hw.build(tmp_path / "new.lance", model=model, data=ROWS[:4], method=name, settings=settings)
    (column,) = new.manifest.columns
    assert column == coded([column], CATALOG[name].code)[0]
    assert expected(name, new.manifest.columns) == KEPT[name][column.code]
