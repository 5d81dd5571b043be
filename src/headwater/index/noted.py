"""The newest version of an index, noted in a file beside Lance's own, so that a loss of the newest versions shows.

Lance takes the newest version that it finds for the newest there was. When its files are lost, as by a partial restore
from a backup, the index is whole and old: deleted rows are back. An object store has no note.
"""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

from headwater.core.errors import StoreError
from headwater.core.files import write_text

NOTE_NAME = ".newest.json"


def is_local(path: str) -> bool:
    """True for a path on this machine, False for an object-store URI."""
    return "://" not in path


def note_version(path: str, version: int) -> None:
    """Note that this version has just been written; a note that cannot be written is left out."""
    if is_local(path):
        written = datetime.now(UTC).isoformat(timespec="seconds")
        with contextlib.suppress(StoreError):  # the change itself is done, and a later one will be noted
            write_text(Path(path) / NOTE_NAME, json.dumps({"version": version, "written": written}) + "\n")


def lost_versions(path: str, latest: int) -> str | None:
    """A sentence if a later version than the `latest` one was noted; None if all is well or nothing was noted."""
    try:
        noted = json.loads((Path(path) / NOTE_NAME).read_text(encoding="utf-8")) if is_local(path) else {}
        version, written = int(noted.get("version", 0)), str(noted.get("written", ""))
    except (OSError, ValueError, AttributeError):
        return None
    if version <= latest:
        return None
    return (
        f"{path} was rolled back: version {version} was written at {written}, and the newest there is now is {latest}, "
        "so rows that were deleted since may be back; restore the whole folder from a copy, or make the changes since "
        "then again"
    )
