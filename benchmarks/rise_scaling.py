"""Does indexing slow down or grow as rows grow? Rows a second and peak memory at 1,000, 10,000 and 50,000 rows.

Run:  python benchmarks/rise_scaling.py [--model runs/demo/model] [--rows 1000 10000 50000]

Each size is built in a process of its own, which finds its rows in a file, so that its peak memory is its own. Rows are
the demo task's, drawn afresh.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = (1_000, 10_000, 50_000)


def records(count: int) -> Iterator[dict[str, Any]]:
    """Rows of several draws of the task, so that no two need be alike."""
    from headwater.tasks.howdy import howdy_task

    made = 0
    for seed in range(count):
        for row in howdy_task(seed, rows=2000, queries=2).rows:
            if made == count:
                return
            yield {**row, "id": f"r{made}"}
            made += 1


def build(model: str, data: Path, count: int) -> dict[str, float]:
    import resource

    import headwater as hw

    with tempfile.TemporaryDirectory() as folder:
        loaded = hw.load_model(model)
        start = time.perf_counter()
        index = hw.build(Path(folder) / "i.lance", model=loaded, data=data)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(index.path).rglob("*") if file.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": count, "rows_per_second": count / seconds, "peak_mib": peak, "index_mib": size / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/demo/model")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--one", type=int)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(build(arguments.model, arguments.data, arguments.one)))
        return
    print("| rows | rows/s | peak MiB | index MiB |\n|---|---|---|---|")
    for count in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "rows.jsonl"
            with data.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in records(count))
            command = [sys.executable, __file__, "--model", arguments.model, "--one", str(count), "--data", str(data)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        r = json.loads(done.stdout.splitlines()[-1])
        print(f"| {count:,} | {r['rows_per_second']:,.0f} | {r['peak_mib']:,.0f} | {r['index_mib']:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
