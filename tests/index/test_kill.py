"""Law: a build killed at any moment leaves a valid index, and going on ends with the bits of one never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.index.checks import check_index
from headwater.index.store import Index, open_index
from headwater.indexing import blocks
from oracles.fake_method import fake_build, fake_method, records

KILLS = int(os.environ.get("HEADWATER_KILLS", "14"))
ROWS = 160
LAUNCHER = Path(__file__).parents[1] / "oracles" / "killed_build.py"


def contents(index: Index) -> dict[str, object]:
    return {name: index.dataset.to_table([name]).column(name).to_pylist() for name in index.dataset.schema.names}


@pytest.mark.timeout(1200)
def test_killed_builds_go_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-W", "ignore", str(LAUNCHER), str(tmp_path), str(ROWS), str(KILLS), "7"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert sum(told["moments"].values()) == KILLS
    assert len(told["moments"]) == 8
    assert told["refused"] > 0
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 4)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 4)
    clean = fake_build(tmp_path / "clean.lance", records(ROWS), fake_method())
    for i in range(told["indexes"]):
        survivor = open_index(tmp_path / f"{i}.lance")
        assert check_index(survivor.path) == []
        assert contents(survivor) == contents(clean)
        assert survivor.manifest.to_json() | {"created": ""} == clean.manifest.to_json() | {"created": ""}
        files = {Path(f.path).name for part in survivor.dataset.get_fragments() for f in part.metadata.files}
        assert {p.name for p in (tmp_path / f"{i}.lance" / "data").iterdir()} == files


def test_a_killed_build_does_not_look_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "seal", lambda index, **_: None)
    fake_build(tmp_path / "a.lance", records(5))
    assert not open_index(tmp_path / "a.lance").manifest.complete
    assert [fault.kind for fault in check_index(str(tmp_path / "a.lance"))] == ["unfinished"]
