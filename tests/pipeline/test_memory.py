"""Freed blocks go back to the system, unless the user has settled it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CHURN = """
import numpy as np
from headwater.pipeline.memory import return_freed_blocks
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20
if {fixed}:
    assert return_freed_blocks()
for size in (30, 30):
    np.ones(size * 2**17)  # raises the allocator's threshold to its size
before = resident()
held = [np.ones(2**18) for _ in range(100)]
held = held[-1:]  # the top of the heap stays in use, so that nothing below it can be trimmed
print(resident() - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the GNU allocator's habit")


def growth(fixed: bool) -> float:
    done = subprocess.run([sys.executable, "-c", CHURN.format(fixed=fixed)], capture_output=True, text=True, check=True)
    return float(done.stdout)


@glibc
def test_what_is_freed_is_given_back():
    assert growth(fixed=False) > 100
    assert growth(fixed=True) < 20


@glibc
def test_the_users_own_setting_stands(monkeypatch):
    from headwater.pipeline.memory import return_freed_blocks

    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert not return_freed_blocks()
