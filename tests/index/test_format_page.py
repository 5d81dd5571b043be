"""The page on the index format says what is so: its programs run, and columns and manifest are those it lists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from headwater.index.manifest import FORMAT_VERSION
from headwater.index.store import Index, open_index
from headwater.indexing.build import build
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.reader import Reader
from headwater.search.codes import read_vectors
from headwater.search.scan import top_k
from oracles.fake_method import corpus_of
from zoo import tiny_loaded

PAGE = (Path(__file__).parents[2] / "docs" / "index-format.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"### (\w+)\n.*?```python\n(.*?)```", PAGE, flags=re.DOTALL)
ROWS = [
    {"id": f"r{i}", "prompt": f"What is {i} plus {i}?", "response": f"It is {2 * i}.", "provider": "ab"[i % 2]}
    for i in range(40)
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    out = tmp_path_factory.mktemp("format") / "mine.lance"
    return build(
        out, corpus_of(ROWS), Bound.of(find_method("rise", {"preset": "full"}), Reader.of(tiny_loaded("llama")))
    )


def exact(index: Index) -> list[str]:
    """The ten rows nearest to r7, as headwater finds them."""
    place = index.ids().index("r7")
    address = [a for batch in index.batches(["id"]) for a in batch.column("_rowaddr").to_pylist()][place]
    hits = top_k(index, {"rise": read_vectors(index, [address], ["rise"])["rise"]}, 10)[0]
    return index.at([hit.address for hit in hits], ["id"]).column("id").to_pylist()


@pytest.mark.parametrize(("name", "program"), PROGRAMS)
def test_the_index_is_read_without_headwater(
    index: Index, monkeypatch: pytest.MonkeyPatch, name: str, program: str
) -> None:
    monkeypatch.chdir(Path(index.path).parent)
    assert "headwater" not in program.replace('b"headwater"', "")
    known: dict[str, object] = {}
    exec(compile(program, name, "exec"), known)
    top = known["top"]
    found = top["id"].to_list() if name == "Polars" else [row if name == "pyarrow" else row[0] for row in top]  # type: ignore[index]
    assert found == exact(index)


def test_the_three_readers_are_there() -> None:
    assert [name for name, _ in PROGRAMS] == ["pyarrow", "DuckDB", "Polars"]


def test_columns_and_manifest_are_those_of_the_page(index: Index) -> None:
    raw = json.loads(index.dataset.schema.metadata[b"headwater"])
    section = PAGE[PAGE.index("## The manifest") : PAGE.index("## Life of a dataset")]
    listed = {name for line in re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE) for name in line.split("`")}
    assert set(raw) == {name for name in listed if name.isidentifier()}
    assert f"format version **{FORMAT_VERSION}**" in PAGE
    columns = re.findall(r"^\| `(\w+)`", PAGE[: PAGE.index("Codes (")], flags=re.MULTILINE)
    ours = [n for n in index.dataset.schema.names if n not in ("prompt", "response", "provider", "rise", "embedding")]
    assert ours == [name for name in columns if name not in ("text", "messages")]
    assert open_index(index.path).dataset.schema.field("rise").type.list_size == index.manifest.columns[0].dim
