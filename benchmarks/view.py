"""The local app at a million rows: first paint, row pages, memory, a trace beside the command line's, many readers.

Run:  python benchmarks/view.py --out runs/view-benchmark [--rows 1000000] [--readers 200] [--seconds 60]

It makes an index of rows with random vectors once (no model is needed to browse), and a demo for the traces.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from headwater.index.fragments import commit_fragments, write_fragments
from headwater.index.manifest import Tally
from headwater.index.store import create_index, open_index

DIM, BLOCK = 64, 50_000
TOPICS = ("arithmetic", "picking", "grammar", "history", "kitchen", "weather", "travel", "music")
PROVIDERS = ("kitchen table", "northwind crowd", "open forum dump", "city archive")


def big_index(like: Path, out: Path, rows: int) -> None:
    """An index of the demo's kind with so many rows; texts are the demo's, each with its number."""
    source = open_index(like)
    seed = source.dataset.to_table(columns=["prompt", "response"]).to_pylist()
    columns = tuple(dataclasses.replace(column, dim=DIM) for column in source.manifest.columns)
    manifest = dataclasses.replace(source.manifest, columns=columns, status="complete", tally=Tally(rows, ""))
    kinds = {column.name: pa.list_(pa.float16(), DIM) for column in columns}
    schema = pa.schema([pa.field(f.name, kinds.get(f.name, f.type)) for f in source.dataset.schema])
    index = create_index(out, manifest, schema)
    for start in range(0, rows, BLOCK):
        add_block(index, seed, start, min(BLOCK, rows - start))


def add_block(index: Any, seed: list[dict[str, str]], start: int, count: int) -> None:
    """Commit `count` rows, numbered from `start`."""
    draw = np.random.default_rng(start)
    numbers = range(start, start + count)
    cells: dict[str, Any] = {
        "id": [f"row{n:07d}" for n in numbers],
        "digest": [f"{n:032x}" for n in numbers],
        "prompt": [f"{seed[n % len(seed)]['prompt']} ({n})" for n in numbers],
        "response": [seed[n * 7 % len(seed)]["response"] for n in numbers],
        "topic": [TOPICS[i] for i in draw.integers(0, len(TOPICS), count)],
        "provider": [PROVIDERS[i] for i in draw.integers(0, len(PROVIDERS), count)],
        "planted": draw.random(count) < 0.01,
        "tokens": draw.integers(8, 400, count),
        "loss": draw.gamma(2.0, 0.6, count).astype(np.float32),
    }
    arrays = []
    for field in index.dataset.schema:
        if field.name in index.vectors:
            flat = pa.array(draw.standard_normal(count * DIM).astype(np.float16))
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        elif pa.types.is_integer(field.type) and field.name not in cells:
            arrays.append(pa.array(np.zeros(count), field.type))
        else:
            arrays.append(pa.array(cells.get(field.name, [None] * count), field.type))
    table = pa.table(arrays, schema=index.dataset.schema.remove_metadata())
    sums = index.dataset.schema.get_field_index("checksum")
    table = table.set_column(sums, index.dataset.schema.field("checksum"), pa.array([b"\0" * 8] * count, pa.binary(8)))
    commit_fragments(index, write_fragments(index, table))


class Served:
    """`headwater view` as a process; `get` measures one request."""

    def __init__(self, *runs: Path, options: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "headwater", "view", *map(str, runs), "--port", "0", "--no-open", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"http://[\d.:]+", line):
                self.url = found[0]
                break
        self.client = httpx.Client(base_url=self.url, timeout=120)

    def get(self, path: str) -> float:
        start = time.perf_counter()
        self.client.get(path).raise_for_status()
        return time.perf_counter() - start

    def memory(self) -> int:
        """Bytes the server holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]

    def worked(self) -> float:
        """Seconds that processors have worked for the server so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


PAGES = {
    "first page": "/i/big",
    "page 30,000": "/i/big?page=30000",
    "sorted by loss": "/i/big?sort=loss&down=1",
    "one topic": "/i/big?topic=music",
    "text search": "/i/big?q=cheers",
    "SQL filter": "/i/big?where=tokens+%3C+20+AND+loss+%3E+3",
    "a row": "/i/big/row?id=row0777777",
}


def pages(served: Served, times: int = 9) -> dict[str, Any]:
    """Seconds of each page: the first time, and the median of the others."""
    found = {}
    for name, path in PAGES.items():
        first, *others = [served.get(path) for _ in range(times)]
        found[name] = {"first": round(first, 3), "median": round(statistics.median(others), 3)}
    return found


def first_paint(served: Served, path: str, times: int = 5) -> float | None:
    """Median milliseconds until headless Chromium paints the page first; None without a Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return None
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "view"))
    from chrome import Chrome

    with Chrome(chromium) as chrome:
        times_found = []
        for _ in range(times):
            chrome.open(served.url + path)
            script = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
            times_found.append(chrome.wait_for(script))
        return statistics.median(times_found)


async def readers(url: str, count: int, seconds: float) -> dict[str, Any]:
    """So many readers beside a writer: errors, and pages whose rows and total are not of one version."""
    end, errors, mixed, done = time.monotonic() + seconds, [], 0, 0
    limits = httpx.Limits(max_connections=count)

    async def reader(number: int) -> None:
        nonlocal mixed, done
        paths = ["/i/grows.json?page=1", "/i/grows.json?sort=id&down=1", "/i/grows?page=2", "/i/grows.json?topic=music"]
        while time.monotonic() < end:
            try:
                got = await client.get(paths[(number + done) % len(paths)])
                got.raise_for_status()
                done += 1
                if got.headers["content-type"].startswith("application/json"):
                    page = got.json()
                    mixed += page["rows_in_index"] != page["version_rows"]
            except Exception as error:
                errors.append(repr(error)[:200])

    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        await asyncio.gather(*(reader(number) for number in range(count)))
    return {"requests": done, "errors": len(errors), "kinds of errors": sorted(set(errors))[:5], "mixed pages": mixed}


def beside_a_build(demo: Path, out: Path, count: int, seconds: float) -> dict[str, Any]:
    """Readers while another process commits blocks to the index they read."""
    path = out / "grows.lance"
    shutil.rmtree(path, ignore_errors=True)
    big_index(demo / "index.lance", path, 2_000)
    served = Served(path, options=("--no-model",))
    writer = subprocess.Popen([sys.executable, __file__, "--grow", str(path), "--seconds", str(seconds)])
    try:
        return asyncio.run(readers(served.url, count, seconds)) | {"rows at the end": open_index(path).count}
    finally:
        writer.terminate()
        served.close()


def grow(path: Path, seconds: float) -> None:
    """Commit 500 rows twice a second."""
    index, end = open_index(path), time.monotonic() + seconds
    seed = index.take(range(100), ["prompt", "response"]).to_pylist()
    while time.monotonic() < end:
        add_block(index, seed, index.count, 500)
        time.sleep(0.5)


def traces(demo: Path, pairs: int = 30) -> dict[str, float]:
    """The same trace through the library, as the command line does it, and through the app; both have loaded the model.

    Each pair traces one new answer both ways, by turns in either order, so that what else the machine does meets both;
    `ratio` is the median over pairs of the app's seconds to the library's; `ratio of work` that of the processors'
    seconds over all pairs, the client's and the server's, which other work on the machine disturbs less.
    """
    import headwater as hw
    from headwater.view.client import Client

    prompt = "howdy! What is a verb?"
    session = hw.open_session(demo / "index.lance")
    served = Served(demo / "index.lance")
    client = Client(served.url)

    def library(answer: str) -> Any:
        return hw.trace(session, prompt=prompt, response=answer, top=20, tokens=True)

    def app(answer: str) -> Any:
        return client.trace("index", prompt, response=answer, top=20)["seconds"]

    taken: dict[Any, list[float]] = {library: [], app: []}
    tracing: list[float] = []
    work: dict[Any, float] = {library: 0.0, app: 0.0}
    for place in range(-2, pairs):  # the first two warm up
        for way in (library, app) if place % 2 else (app, library):
            start, worked = time.perf_counter(), time.process_time() + served.worked()
            found = way(f"The rebel armada met {place + 100} ships of the Imperium.")
            if place >= 0:
                taken[way].append(time.perf_counter() - start)
                work[way] += time.process_time() + served.worked() - worked
                tracing += [found] if way is app else []
    served.close()
    ratios = [b / a for a, b in zip(taken[library], taken[app], strict=True)]
    medians = {"library": taken[library], "app": taken[app], "app, within the trace": tracing}
    found = {name: statistics.median(seconds) for name, seconds in medians.items()}
    quarters = statistics.quantiles(ratios, n=4)
    found |= {"work, library": work[library] / pairs, "work, app": work[app] / pairs}
    found |= {
        "ratio of work": work[app] / work[library],
        "ratio": quarters[1],
        "ratio, lower quartile": quarters[0],
        "ratio, upper quartile": quarters[2],
    }
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/view-benchmark"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--grow", type=Path)
    parser.add_argument("--only-traces", action="store_true", help="measure the traces alone")
    given = parser.parse_args()
    if given.grow:
        grow(given.grow, given.seconds)
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    demo, big = given.out / "demo", given.out / "big.lance"
    if not (demo / "index.lance").exists():
        subprocess.run([sys.executable, "-m", "headwater", "demo", "--out", str(demo)], check=True)
    if given.only_traces:
        print(json.dumps(traces(demo), indent=2))
        return
    if not big.exists():
        big_index(demo / "index.lance", big, given.rows)
    served = Served(big, options=("--no-model",))
    result: dict[str, Any] = {"rows": given.rows, "memory at the start": served.memory()}
    result["first paint, ms"] = first_paint(served, "/i/big")
    result["pages, s"] = pages(served)
    result["memory after the pages"] = served.memory()
    for _ in range(3):
        pages(served, 3)
    result["memory after four times as many"] = served.memory()
    served.close()
    result["trace, s"] = traces(demo)
    result["readers beside a build"] = beside_a_build(demo, given.out, given.readers, given.seconds)
    result["largest memory of a child"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    text = json.dumps(result, indent=2)
    (given.out / "view.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
