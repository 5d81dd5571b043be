"""The ids seen so far, kept exactly and in bounded memory.

A private SQLite database holds them: up to `CACHE_BYTES` in memory, the rest in a temporary file of about 50 bytes per
row that is removed with the database.
"""

from __future__ import annotations

import sqlite3

CACHE_BYTES = 16 * 2**20
"""Memory for the database's pages; further pages go to disk."""


class SeenIds:
    """Ids, each with the number of the first record that had it."""

    def __init__(self) -> None:
        # An empty name is a temporary database that SQLite keeps in its cache until that is full.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_BYTES // 1024}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, number INTEGER, repeats INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")  # never ended, because each commit would visit every page in memory

    def first(self, row_id: str) -> int | None:
        """The number of the first record with this id; None if there is none."""
        found = self._database.execute("SELECT number FROM ids WHERE id = ?", (row_id,)).fetchone()
        return None if found is None else int(found[0])

    def claim(self, row_id: str, number: int) -> int | None:
        """Note that this record has the id; returns the number of an earlier record with the same id, else None."""
        done = self._database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, 1)", (row_id, number))
        return None if done.rowcount else self.first(row_id)

    def unused(self, stem: str) -> str:
        """`stem` if no record has that id yet, else the first unused one of `stem~2`, `stem~3`, ..."""
        found = self._database.execute("SELECT repeats FROM ids WHERE id = ?", (stem,)).fetchone()
        if found is None:
            return stem
        repeats = int(found[0]) + 1
        while self.first(f"{stem}~{repeats}") is not None:
            repeats += 1
        self._database.execute("UPDATE ids SET repeats = ? WHERE id = ?", (repeats, stem))
        return f"{stem}~{repeats}"
