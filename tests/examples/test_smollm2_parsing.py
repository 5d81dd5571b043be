"""The SmolLM2 example's reading of dictd dictionaries, on one made by hand."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "examples" / "smollm2" / "foldoc.py"

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

ABOUT = "00-database-info\nWhere it is from.\n\n"
CACHE = """cache

   <storage, hardware> A small {fast memory}
   for café menus {(http://x.org/)}.

   Second.

   [Size?]

   (1995-01-25)

"""
HYPERVISOR = "hypervisor\nvirtual machine manager\n\n   A program for <b>.\n\n"


@pytest.fixture
def foldoc(monkeypatch):
    spec = importlib.util.spec_from_file_location("foldoc_example", SOURCE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index(tmp_path):
    """Entries one after another; the last has two headwords, and the index is in another order than the text."""
    start = {name: len("".join(before).encode()) for name, before in _before().items()}
    lines = [
        _line("virtual machine manager", start["hypervisor"], HYPERVISOR),
        _line("00-database-info", start["about"], ABOUT),
        _line("hypervisor", start["hypervisor"], HYPERVISOR),
        _line("cache", start["cache"], CACHE),
    ]
    (tmp_path / "tiny.index").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "tiny.dict.dz").write_bytes(gzip.compress((ABOUT + CACHE + HYPERVISOR).encode()))
    return tmp_path / "tiny.index"


def _before():
    return {"about": [], "cache": [ABOUT], "hypervisor": [ABOUT, CACHE]}


def _line(headword: str, start: int, text: str) -> str:
    return f"{headword}\t{_base64(start)}\t{_base64(len(text.encode()))}\n"


def _base64(number: int) -> str:
    return (_base64(number // 64) if number >= 64 else "") + DIGITS[number % 64]


@pytest.mark.parametrize(("digits", "value"), [("A", 0), ("/", 63), ("BA", 64), ("K5", 697), ("BAA", 4096)])
def test_numbers_are_in_base_64(foldoc, digits, value):
    assert foldoc.number64(digits) == value
    assert _base64(value) == digits


def test_entries_are_cut_by_bytes_and_freed_of_marks(foldoc, index):
    cache, hypervisor = foldoc.read_dictionary(index)
    assert cache.headword == "cache"
    assert cache.categories == ("storage", "hardware")
    assert cache.definition == "A small fast memory for café menus .\n\nSecond."
    assert (hypervisor.headword, hypervisor.categories) == ("hypervisor", ())
    assert hypervisor.definition == "A program for <b>."


def test_the_text_may_be_uncompressed(foldoc, index):
    packed = index.with_suffix(".dict.dz")
    compressed = foldoc.read_dictionary(index)
    index.with_suffix(".dict").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert foldoc.read_dictionary(index) == compressed


@pytest.mark.parametrize(
    ("line", "words"), [("cache\tA\n", "1: not"), ("cache\tA\t//\n", "ends"), ("cache\t?\tB\n", r"'\?'")]
)
def test_a_bad_index_is_refused(foldoc, index, line, words):
    index.write_text(line, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        foldoc.read_dictionary(index)


def test_the_first_entry_of_a_headword_stands(foldoc):
    first, second = (foldoc.Entry("word", (category,), "x" * 100) for category in ("web", "tool"))
    assert foldoc.select([first, second], 2) == [first]


def test_the_choice_does_not_depend_on_order(foldoc):
    entries = [foldoc.Entry(f"word {i}", ("jargon",), "x" * (95 + i)) for i in range(50)]
    entries += [foldoc.Entry("asked", (), "short"), foldoc.Entry("listed", ("web",), "1. " + "x" * 200)]
    chosen = foldoc.select(entries, 20, always=["asked"])
    assert [e.headword for e in chosen] == [e.headword for e in foldoc.select(entries[::-1], 20, always=["asked"])]
    assert chosen[0].headword == "asked"
    everything = foldoc.select(entries, 1000, always=["asked"])
    assert len(everything) == 1 + 45
    assert "listed" not in [e.headword for e in everything]
    with pytest.raises(ValueError, match="no entry nowhere"):
        foldoc.select(entries, 20, always=["nowhere"])
