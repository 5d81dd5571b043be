"""A folder of runs for the app's tests: indices of a tiny model, hits, values, accounts; all with hostile text."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headwater as hw
from headwater.evaluation.result import Line, Result, write_result
from headwater.valuation.ledger import COLUMNS
from headwater.view.serve import Running, open_site
from zoo import tiny_loaded

SCRIPT = "<script>document.title='owned'</script>"
EVIL = f'"><img src=x onerror=alert(1)>{SCRIPT}'
TOPICS = ("tides", "bees", "القمر", "天文学")
ROWS: list[dict[str, Any]] = [
    {
        "id": f"row{i:03}",
        "prompt": f"What is fact {i} of {TOPICS[i % 4]}?",
        "response": f"Fact {i} of {TOPICS[i % 4]} is {'that it is high.' if i % 3 else 'known to few bees.'}",
        "topic": TOPICS[i % 4],
        "provider": "harbour" if i < 40 else EVIL,
        "grade": i % 5,
        "odd": bool(i % 2),
    }
    for i in range(58)
] + [
    {"id": EVIL, "prompt": EVIL, "response": EVIL, "topic": EVIL, "provider": EVIL, "grade": 9, "odd": True},
    {"id": "../../etc/passwd", "prompt": "ما هو القمر؟ 月是什么？", "response": "القمر تابع. " * 400, "grade": 1},
]
QUESTION, ANSWER = "What is fact 3 of bees?", "Fact 3 of bees is known to few."


@cache
def made_in(folder: Path) -> Path:
    """The runs, made once for a session of tests."""
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "secret-place" / "model")
    loaded.tokenizer.save_pretrained(folder / "secret-place" / "model")
    runs = folder / "runs"
    model = str(folder / "secret-place" / "model")
    hw.build(runs / "rows.lance", model=model, data=ROWS, method="rise")
    hw.build(runs / "other.lance", model=model, data=ROWS[:30], method="rise")
    for name, first in (("hits", 0), ("hits of <b>file & 'quote'", 5)):
        lines = [{"query": "q1", "rank": n + 1, "score": 0.5 - n / 10, **ROWS[first + n]} for n in range(4)]
        (runs / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for name, tilt in (("values", 1.0), ("values2", -1.0)):
        _values(runs / f"{name}.parquet", tilt)
    _csv(
        runs / "ledger.csv", COLUMNS, [["harbour", 40, 20, 20, 1.5, 1.0, "9.00"], ["TOTAL", 40, 20, 20, "", 1, "9.00"]]
    )
    _csv(runs / "paid.csv", ("id", "provider", "worth", "cluster", "amount"), [["row003", "harbour", 0.3, 3, "0.45"]])
    account = {"method": "ga", "outcome": "forgotten", "model": model, "forget rows": 3, "warnings": [EVIL]}
    account |= {
        "forget loss before": 1.0,
        "forget loss after": 3.0,
        "retain loss before": 1.0,
        "retain loss after": 1.1,
    }
    account["samples"] = [{"kind": "forget", "prompt": EVIL, "before": "low", "after": "high"}]
    (runs / "unlearn.json").write_text(json.dumps(account), encoding="utf-8")
    (runs / "unlearn2.json").write_text(json.dumps(account | {"method": "npo"}), encoding="utf-8")
    for name, shift in (("detection", 0.0), ("detection2", 0.1)):
        lines = [Line.of(m, {"P@10": [v - shift, v, v - 0.05]}, ["P@10"]) for m, v in (("rise", 0.9), ("random", 0.2))]
        write_result(runs / f"{name}.json", Result("detection", f"{EVIL} found?", {}, ("P@10",), tuple(lines)))
    hw.write_report(runs / "report.html", hw.trace_words(runs / "rows.lance", QUESTION, ANSWER, top=3), title=EVIL)
    (runs / "notes.txt").write_text("a secret", encoding="utf-8")
    (folder / "outside.jsonl").write_text((runs / "hits.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    (runs / "leads-out.jsonl").symlink_to(folder / "outside.jsonl")
    return runs


def _values(path: Path, tilt: float) -> None:
    value = [tilt * (0.3 - i / 100) for i in range(len(ROWS))]
    table = pa.table(
        {
            "id": [row["id"] for row in ROWS],
            "value": value,
            "low": [v - 0.1 for v in value],
            "high": [v + 0.1 for v in value],
            "provider": [row.get("provider") for row in ROWS],
        }
    )
    pq.write_table(table, path)


def _csv(path: Path, header: Any, lines: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([list(header), *lines])


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_in(tmp_path_factory.mktemp("view-runs"))


@pytest.fixture(scope="module")
def running(runs: Path) -> Iterator[Running]:
    with open_site([runs]) as found:
        yield found


@pytest.fixture(scope="module")
def web(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=60) as client:
        yield client
