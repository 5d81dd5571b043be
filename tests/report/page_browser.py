"""Visits to a page with a headless Chromium. Set CI and a missing browser is a failure; elsewhere it is a skip."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip


@lru_cache(maxsize=1)
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    if os.environ.get("CI"):
        pytest.fail("no Chromium found; in CI install it (Debian: apt-get install chromium)")
    pytest.skip("no Chromium found; install one to run the browser tests")


def run(tmp_path: Path, page: str, *extra: str) -> tuple[str, str]:
    """(stdout, console lines) of one headless visit."""
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    profile = tmp_path / "profile"
    command = [browser(), *FLAGS, f"--user-data-dir={profile}", *extra, file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, encoding="utf-8")
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console
