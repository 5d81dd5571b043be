"""Law: a command killed at any moment and given again ends as if it had not been killed.

`HEADWATER_KILLS=30` and more, and all commands, with `python tests/oracles/killed_commands.py FOLDER --times 30`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("HEADWATER_KILLS", "0"))
LAUNCHER = Path(__file__).parents[1] / "oracles" / "killed_commands.py"


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not KILLS, reason="slow: HEADWATER_KILLS says how many kills")
def test_killed_commands_given_again_are_the_commands(tmp_path: Path) -> None:
    chosen = ["--times", str(KILLS), "--commands", "trace,unlearn"]
    command = [sys.executable, "-W", "ignore", str(LAUNCHER), str(tmp_path), *chosen]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, told in json.loads(done.stdout.splitlines()[-1]).items():
        assert told == {"kills": KILLS, "same": KILLS, "wrong": []}, name
