"""Exact search beside the least it could cost: a NumPy memory map and one matrix product a block.

Run:  python benchmarks/search.py [--rows 1000000] [--dim 512] [--queries 1 16 128] [--code sign:8192] [--folder runs]

Rows are synthetic (normal, float16). Both sides read the same vectors from the same disk, warm from a first pass, and
take turns; the median of the repeats is reported, and the share of the map's top rows that the index finds too (1 but
for codes). The difference is what Lance, Arrow, the running top-k and the code cost. Processor seconds are reported
beside wall time, for machines that are busy with other things.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from headwater.core.spec import Column, Coverage, MethodSpec
from headwater.index.manifest import Manifest, Plan
from headwater.index.rows import IndexRow
from headwater.index.store import Index, append_block, create_index
from headwater.search.codes import coded, encode
from headwater.search.scan import top_k

BLOCK, TOP = 8192, 20
Seconds = tuple[float, float]
"""Wall time and processor time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--code", default=None, help="int8, sign or sign:BITS")
    parser.add_argument("--folder", type=Path, default=None, help="where the vectors go; a temporary folder if absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        begun = time.perf_counter()
        index, plain = write(Path(folder), options.rows, options.dim, options.code)
        written = time.perf_counter() - begun
        found = [compare(index, plain, queries, options.repeats) for queries in options.queries]
    about = {"rows": options.rows, "dim": options.dim, "threads": torch.get_num_threads(), "write_seconds": written}
    print(json.dumps({**about, "searches": found}, indent=1))


def write(folder: Path, rows: int, dim: int, code: str | None = None) -> tuple[Index, np.memmap]:
    """The same vectors as an index and as a bare file."""
    (column,) = coded([Column("vector", dim)], code)
    about = Manifest(MethodSpec("synthetic"), (column,), Coverage(1, 1), {}, {}, Plan(BLOCK, 1), ("synthetic",))
    index = create_index(folder / "bench.lance", about)
    plain = np.memmap(folder / "plain.f16", np.float16, "w+", shape=(rows, dim))
    random = np.random.default_rng(0)
    for start in range(0, rows, BLOCK):
        size = min(BLOCK, rows - start)
        plain[start : start + size] = random.standard_normal((size, dim), np.float32)
        meta = [IndexRow(f"row-{i}", "") for i in range(start, start + size)]
        append_block(index, meta, encode(torch.from_numpy(np.array(plain[start : start + size])), column))
    plain.flush()
    return index, plain


def compare(index: Index, plain: np.memmap, queries: int, repeats: int) -> dict[str, object]:
    """Median seconds (wall, processor) of both sides for so many queries at once, and the share of hits in common."""
    probe = torch.from_numpy(np.random.default_rng(1).standard_normal((queries, plain.shape[1]), np.float32))
    ours, theirs = lambda: scan_index(index, probe), lambda: scan_plain(plain, probe)
    shared = [len({*a} & {*b}) / TOP for a, b in zip(ours(), theirs(), strict=True)]
    taken: tuple[list[Seconds], list[Seconds]] = ([], [])
    for _ in range(repeats):
        for side, run in zip(taken, (ours, theirs), strict=True):
            side.append(timed(run))
    (wall, cpu), (map_wall, map_cpu) = ([statistics.median(s) for s in zip(*side, strict=True)] for side in taken)
    return {
        "queries": queries,
        "recall": round(statistics.mean(shared), 4),
        "index_seconds": {"wall": round(wall, 3), "processor": round(cpu, 3)},
        "memmap_seconds": {"wall": round(map_wall, 3), "processor": round(map_cpu, 3)},
        "rows_per_second": round(len(plain) / wall),
        "ratio": {"wall": round(wall / map_wall, 2), "processor": round(cpu / map_cpu, 2)},
    }


def scan_index(index: Index, probe: torch.Tensor) -> list[list[str]]:
    hits = top_k(index, {"vector": probe}, TOP)
    addresses = [hit.address for of in hits for hit in of]
    ids = index.at(addresses, ["id"]).column("id").to_pylist()
    return [ids[i : i + TOP] for i in range(0, len(ids), TOP)]


def scan_plain(plain: np.memmap, probe: torch.Tensor) -> list[list[str]]:
    scores = torch.cat(
        [
            probe @ torch.from_numpy(np.array(plain[start : start + BLOCK])).float().T
            for start in range(0, len(plain), BLOCK)
        ],
        dim=1,
    )
    return [[f"row-{i}" for i in of] for of in scores.topk(TOP, dim=1).indices.tolist()]


def timed(run: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
