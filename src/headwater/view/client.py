"""A small client of a running `headwater view`, for programs: it needs httpx and nothing else of headwater.

client = Client("http://127.0.0.1:8127")
found = client.trace("index", "howdy! What is a verb?", top=5)
for hit in found["hits"]: print(hit["rank"], hit["score"], hit["id"])
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx


class Client:
    """Asks a running app; every answer is JSON as the page at `/api` describes it.

    Args:
        url: where the app is, such as `http://127.0.0.1:8127`.
        token: the token, if the app was started with `--host`.
        seconds: how long a request may take.

    Raises:
        httpx.HTTPStatusError: the app refuses; the response's JSON says what is wrong.
    """

    def __init__(self, url: str, *, token: str = "", seconds: float = 700.0) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=seconds)

    def items(self) -> list[dict[str, Any]]:
        """What the app shows: kind, key and title of each thing."""
        found: list[dict[str, Any]] = self._get("/home.json", {})["items"]
        return found

    def rows(self, index: str, **wanted: Any) -> dict[str, Any]:
        """A page of an index's rows; `wanted` are `q`, `where`, `sort`, `down`, `page`, `size`, and columns."""
        return self._get("/api/rows", {"index": index, **wanted})

    def every_row(self, index: str, **wanted: Any) -> Iterator[dict[str, Any]]:
        """All rows that meet the conditions, page after page."""
        page = 1
        while True:
            found = self.rows(index, **{"size": 200, **wanted, "page": page})
            yield from found["rows"]
            if page * found["size"] >= found["total"]:
                return
            page += 1

    def row(self, index: str, row_id: str) -> dict[str, Any]:
        """One row with all that is known of it."""
        return self._get(f"/i/{index}/row.json", {"id": row_id})

    def trace(self, index: str, prompt: str | Sequence[Mapping[str, Any]], **asked: Any) -> dict[str, Any]:
        """Trace an answer; `asked` are the other fields of `POST /api/trace`."""
        return self._ask("/api/trace", index, prompt, asked)

    def score(
        self, index: str, prompt: str | Sequence[Mapping[str, Any]], ids: Sequence[str], **asked: Any
    ) -> dict[str, float | None]:
        """The scores of these rows for an answer; None for one that the index does not have."""
        found: dict[str, float | None] = self._ask("/api/score", index, prompt, {**asked, "ids": list(ids)})["scores"]
        return found

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _ask(
        self, path: str, index: str, prompt: str | Sequence[Mapping[str, Any]], asked: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Post a question, and again as long as it is on its way: the second time it is known or nearer its end."""
        what = {"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}
        body = {"index": index, **what, **asked}
        while True:
            found = self._http.post(path, json=body)
            if found.status_code != httpx.codes.ACCEPTED:
                break
            job = found.json()["at"]
            while self._get(job, {})["job"]["state"] not in ("done", "failed", "cancelled"):
                time.sleep(0.2)
        found.raise_for_status()
        answer: dict[str, Any] = found.json()
        return answer

    def _get(self, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        found = self._http.get(path, params=dict(parameters))
        found.raise_for_status()
        answer: dict[str, Any] = found.json()
        return answer
