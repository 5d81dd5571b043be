"""A sample of the table of families: those that read out, route, gate, convolve or look up in ways of their own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "families.py"


@pytest.fixture(scope="module")
def families() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("families", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["families"] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPT.parent))


@pytest.mark.parametrize(
    "kind", ["opt", "llama4_text", "phimoe", "gemma2", "cohere", "falcon_h1", "qwen3_next", "recurrent_gemma", "bert"]
)
def test_a_family_is_read_exactly(families: ModuleType, kind: str) -> None:
    found = families.measure(kind)
    assert {method: verdict.status for method, verdict in found.items()} == dict.fromkeys(families.METHODS, "exact")


def test_a_family_that_cannot_be_built_says_why(families: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["tiny_families"].EXTRA, "llama", {"hidden_size": 30})
    (verdict,) = families.measure("llama").values()
    assert verdict.status == "refused"
    assert verdict.note


def test_wrong_gradients_are_called_wrong(families: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    true = families.row_gradient
    monkeypatch.setattr(families, "row_gradient", lambda *given: {n: 1.01 * g for n, g in true(*given).items()})
    assert families.compare_gradients(families.build("llama")).status == "wrong"
    assert families.compare_rise(families.build("llama")).status == "wrong"


def test_the_table_is_written_between_the_marks(families: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{families.BEGIN}\nold\n{families.END}\nafter\n")
    seen = {"status": "partly", "note": "*.experts.up | x"}
    results = {"llama": dict.fromkeys(families.METHODS, seen), "odd": {"built": {"status": "refused", "note": "no"}}}
    families.write_table(page, results)
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| `llama` | partly: \\*.experts.up \\| x |" in text
    assert "- `odd`: no" in text
