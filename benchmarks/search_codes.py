"""How the search of codes grows with rows: seconds and peak memory for a batch of queries, one size after the other.

    python benchmarks/search_codes.py [--rows 1000000 4000000] [--code sign] [--queries 100] [--folder runs] [--profile]

Codes are random bytes, which take as long to search as any. They go straight to the files, by the store's own writer,
and rows have an id and nothing else. Each size is searched in a process of its own: `--repeats` times, after once to
warm up if that is more than 1. `read` is a pass that only reads the codes. Seconds are medians; on a busy machine those
of the processor mean more. Peak memory is the process's high-water mark (Linux), imports included. The folder is
removed at the end. A million rows of 1 KiB take a gigabyte.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from headwater.core.spec import Column, Coverage, MethodSpec
from headwater.index.fragments import commit_fragments, write_fragments
from headwater.index.manifest import Manifest, Plan
from headwater.index.rows import infer_schema
from headwater.index.store import create_index, open_index
from headwater.index.upkeep import seal
from headwater.search.codes import coded, stored_names
from headwater.search.scan import top_k

BLOCK, TOP = 65_536, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--dim", type=int, default=24_576)
    parser.add_argument("--code", default="sign")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the codes go; a temporary folder if absent")
    parser.add_argument("--profile", action="store_true", help="print where the time of one search goes")
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        print(json.dumps(searched(options.search, options)))
        return
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = Path(folder) / "codes.lance"
            write(path, rows, options.dim, options.code)
            command = [sys.executable, __file__, *sys.argv[1:], "--search", str(path)]
            subprocess.run(command, check=True)


def write(path: Path, rows: int, dim: int, code: str) -> None:
    """An index of so many rows of random codes."""
    columns = coded([Column("vector", dim)], code)
    about = Manifest(MethodSpec("synthetic"), columns, Coverage(1, 1), {}, {}, Plan(BLOCK, 1), ("synthetic",))
    index = create_index(path, about, infer_schema([], columns, keep_text=False))
    (column,), schema, random = columns, index.dataset.schema, np.random.default_rng(0)
    for start in range(0, rows, BLOCK):
        size = min(BLOCK, rows - start)
        flat = pa.array(np.frombuffer(random.bytes(size * column.width), np.uint8))
        ids = pa.array([f"row-{i}" for i in range(start, start + size)])
        known = {
            **{"id": ids, "digest": ids, "checksum": pa.array([b"unsummed"] * size, pa.binary(8))},
            column.name: pa.FixedSizeListArray.from_arrays(flat, column.width),
            str(column.scale): pa.array(random.random(size, np.float32) + 0.5),
        }
        cells = [known.get(field.name, pa.nulls(size, field.type)).cast(field.type) for field in schema]
        commit_fragments(index, write_fragments(index, pa.Table.from_arrays(cells, schema=schema)))
    seal(index)


def searched(path: Path, options: argparse.Namespace) -> dict[str, object]:
    """Median seconds of a search and of a bare pass over the codes, and the process's peak memory."""
    index = open_index(path)
    probes = torch.randn(options.queries, options.dim, generator=torch.Generator().manual_seed(1))
    run = lambda: top_k(index, {"vector": probes}, TOP)  # noqa: E731
    names = stored_names(index.manifest.columns[0])
    if options.repeats > 1:
        run()
    seconds = [timed(run) for _ in range(options.repeats)]
    reading = [timed(lambda: sum(batch.num_rows for batch in index.batches(names))) for _ in range(options.repeats)]
    wall, processor = (statistics.median(some) for some in zip(*seconds, strict=True))
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(run)
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(12)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        **{"rows": index.count, "code": options.code, "queries": options.queries, "threads": torch.get_num_threads()},
        **{"wall": round(wall, 2), "processor": round(processor, 2)},
        "read": round(statistics.median(taken for taken, _ in reading), 2),
        "peak_mib": int(peak.split()[1]) // 1024,
    }


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    main()
