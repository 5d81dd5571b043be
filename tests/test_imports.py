"""`import headwater` is quick: no torch, no transformers; and what it promises is there."""

from __future__ import annotations

import subprocess
import sys

import headwater


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_headwater_does_not_import_torch():
    assert not {"torch", "transformers", "lance", "datasets"} & loaded_after("import headwater")


def test_the_check_can_fail():
    assert "torch" in loaded_after("import headwater; headwater.load_model")


def test_reports_and_stores_do_not_need_torch():
    for module in ("headwater.report", "headwater.index.store", "headwater.core.scores"):
        assert "torch" not in loaded_after(f"import {module}"), module


def test_every_public_name_exists():
    for name in headwater.__all__:
        assert getattr(headwater, name) is not None
    assert set(headwater.__all__) <= set(dir(headwater))
