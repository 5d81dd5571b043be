"""`import headwater` is lazy and typed all the same: mypy finds misspelt names and arguments in a user's script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import headwater

SOURCE = Path(__file__).parents[1] / "src"
SKIPPED = "torch,transformers,numpy,pyarrow,lance,jaxtyping,matplotlib,peft,datasets,scipy,sklearn,tokenizers,rich"
CONFIG = f"""
[mypy]
strict = True
mypy_path = {SOURCE}
follow_imports = silent
[mypy-{",".join(f"{name}.*" for name in SKIPPED.split(","))},jinja2.*,yaml.*,bm25s.*,pandas.*]
follow_imports = skip
ignore_missing_imports = True
"""


def faults(folder: Path, script: str) -> list[str]:
    """What mypy says of a script, a line each."""
    (folder / "mypy.ini").write_text(CONFIG)
    (folder / "script.py").write_text(script)
    words = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", str(folder / "cache")]
    done = subprocess.run([*words, "script.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("script.py") and "error" in line]


def test_mypy_finds_what_is_misspelt_and_knows_every_public_name(tmp_path):
    names = [name for name in headwater.__all__ if name != "__version__"]
    script = ["import headwater as hw", "hw.trace('mine.lance', prompt='a', topp=5)", "hw.trase('mine.lance')"]
    script += [f"print(hw.{name})" for name in names]
    found = faults(tmp_path, "\n".join(script))
    assert len(found) == 2, found
    assert "topp" in found[0]
    assert "trase" in found[1]


BLOCKED = ("resource", "fcntl", "pwd", "grp", "termios")
"""Modules that Windows does not have."""

PLAN = """
import builtins, sys
blocked, real, seen = set(sys.argv[1].split(",")), builtins.__import__, []
def on_windows(name, globals=None, *rest, **named):
    if name.partition(".")[0] in blocked and (globals or {}).get("__name__", "").startswith("headwater"):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return real(name, globals, *rest, **named)
builtins.__import__ = on_windows
sys.path.insert(0, sys.argv[2])
from zoo import tiny_loaded
import headwater.indexing.probe as probe
probe.sys = type("Elsewhere", (), {"platform": "win32"})
import headwater as hw
rows = [{"id": str(i), "text": f"row {i} of a few words"} for i in range(40)]
planned = hw.plan(model=tiny_loaded("llama"), data=rows, method="rise")
assert planned.memory > 10**7, planned
if "numpy" in blocked:
    raise SystemExit("numpy was imported")
"""


def plan_without(*modules: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PLAN, ",".join(modules), str(Path(__file__).parent)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)


def test_a_plan_needs_no_module_that_windows_lacks():
    done = plan_without(*BLOCKED)
    assert done.returncode == 0, done.stderr


def test_the_check_of_modules_can_fail():
    assert "No module named 'numpy'" in plan_without("numpy").stderr
