"""Rooms without torch read rows: the data room loads the heavy libraries only where they are used."""

from __future__ import annotations

import subprocess
import sys


def test_reading_rows_loads_no_heavy_library() -> None:
    script = (
        "import sys; from headwater.data.corpus import open_corpus; rows = list(open_corpus([{'text': 'a'}]));"
        "print(*sorted({'torch', 'transformers', 'datasets', 'pyarrow'} & sys.modules.keys()))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
