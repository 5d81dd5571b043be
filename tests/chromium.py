"""Where Chromium is. Without one the browser tests fail in CI, and are skipped elsewhere."""

from __future__ import annotations

import os
import shutil
from functools import lru_cache

import pytest


@lru_cache(maxsize=1)
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    if os.environ.get("CI"):
        pytest.fail("no Chromium found; in CI install it (Debian: apt-get install chromium)")
    pytest.skip("no Chromium found; install one to run the browser tests")
