"""Law: an addition, deletion, compaction or encoding killed at any moment ends, done again, as if never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.index.checks import check_index
from headwater.index.store import open_index

KILLS = int(os.environ.get("HEADWATER_KILLS", "20"))
LAUNCHER = Path(__file__).parents[1] / "oracles" / "killed_life.py"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("verb", ["add", "grow", "delete", "compact", "encode"])
def test_a_killed_change_done_again_is_the_change(tmp_path: Path, verb: str) -> None:
    command = [sys.executable, "-W", "ignore", str(LAUNCHER), str(tmp_path), verb, str(KILLS), "3"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] == KILLS
    assert len(told["moments"]) == 3
    ending = ".coded" if verb == "encode" else ".lance"
    clean = open_index(tmp_path / f"clean{ending}")
    table = clean.dataset.to_table()
    assert table.num_rows == {"add": 90, "grow": 70, "delete": 40, "compact": 40, "encode": 60}[verb]
    for i in range(KILLS):
        survivor = open_index(tmp_path / f"{i}{ending}")
        assert check_index(survivor.path) == []
        assert survivor.dataset.to_table() == table
        assert survivor.manifest.to_json() | {"created": ""} == clean.manifest.to_json() | {"created": ""}
        if verb == "compact":
            files = {Path(f.path).name for part in survivor.dataset.get_fragments() for f in part.metadata.files}
            assert {file.name for file in (Path(survivor.path) / "data").iterdir()} == files
            assert not list(Path(survivor.path).rglob("_deletions/*"))
