"""Law: an addition, deletion, compaction or encoding killed at any moment ends, done again, as if never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headwater.index.checks import check_index
from headwater.index.store import open_index

KILLS = int(os.environ.get("HEADWATER_KILLS", "8"))
LAUNCHER = Path(__file__).parents[1] / "oracles" / "killed_life.py"


LEFT = {"add": 90, "grow": 70, "delete": 40, "compact": 40, "encode": 60}
"""How many rows the index has after each verb."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where all verbs were killed and done again, and what happened: in one process, because imports take long."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-W", "ignore", str(LAUNCHER), str(folder), ",".join(LEFT), str(KILLS), "3"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("verb", LEFT)
def test_a_killed_change_done_again_is_the_change(killed: tuple[Path, dict[str, Any]], verb: str) -> None:
    folder, told = killed[0] / verb, killed[1][verb]
    assert told["kills"] == KILLS
    assert len(told["moments"]) == 3
    ending = ".coded" if verb == "encode" else ".lance"
    clean = open_index(folder / f"clean{ending}")
    table = clean.dataset.to_table()
    assert table.num_rows == LEFT[verb]
    for i in range(KILLS):
        survivor = open_index(folder / f"{i}{ending}")
        assert check_index(survivor.path) == []
        assert survivor.dataset.to_table() == table
        assert survivor.manifest.to_json() | {"created": ""} == clean.manifest.to_json() | {"created": ""}
        if verb == "compact":
            files = {Path(f.path).name for part in survivor.dataset.get_fragments() for f in part.metadata.files}
            assert {file.name for file in (Path(survivor.path) / "data").iterdir()} == files
            assert not list(Path(survivor.path).rglob("_deletions/*"))
