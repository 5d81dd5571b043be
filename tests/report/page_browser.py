"""Visits to a page with a headless Chromium."""

from __future__ import annotations

import subprocess
from pathlib import Path

from chromium import browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip


def run(tmp_path: Path, page: str, *extra: str) -> tuple[str, str]:
    """(stdout, console lines) of one headless visit."""
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    profile = tmp_path / "profile"
    command = [browser(), *FLAGS, f"--user-data-dir={profile}", *extra, file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, encoding="utf-8")
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console
