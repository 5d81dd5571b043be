"""Exact search of an index beside the plainest thing that could do it: NumPy memory maps and a matrix product.

    python benchmarks/search.py [--rows 1000000] [--dim 512] [--queries 1 16 64] [--code sign] [--folder runs]

Rows are synthetic (normal, float16), written by a process of their own. All sides read the same vectors from the same
disk, warm from a first pass, and take turns; the median of the repeats is reported, and the share of the map's top rows
that the index finds too (1 but for codes). The difference is what Lance, Arrow, the running top-k and the code cost.
Processor seconds are reported beside wall time, for machines that are busy with other things. Peak memory is the
process's high-water mark (Linux) over the index's first search, imports included, before the map is opened.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from headwater.core.spec import Column, Coverage, MethodSpec
from headwater.data.readings import RowReading
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.index.fragments import commit_fragments, write_fragments
from headwater.index.manifest import Manifest, Plan
from headwater.index.rows import to_table
from headwater.index.store import Index, create_index, open_index
from headwater.index.upkeep import seal
from headwater.indexing.quantise import quantise_index
from headwater.search.scan import top_k

BLOCK, TOP = 8192, 20
Seconds = tuple[float, float]
"""Wall time and processor time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--code", default=None, help="also search a copy coded so: int8, sign or sign:BITS")
    parser.add_argument("--folder", type=Path, default=None, help="where the vectors go; a temporary folder if absent")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, options.rows, options.dim, options.code)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        begun = time.perf_counter()
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--write", folder], check=True)
        written = time.perf_counter() - begun
        indexes = {path.stem: open_index(path) for path in sorted(Path(folder).glob("*.lance"))}
        peaks = {name: peak_mib(index, options) for name, index in indexes.items()}
        plain = np.memmap(Path(folder) / "plain.f16", np.float16, "r", shape=(options.rows, options.dim))
        found = [compare(indexes, plain, queries, options.repeats) for queries in options.queries]
    about = {"rows": options.rows, "dim": options.dim, "threads": torch.get_num_threads(), "write_seconds": written}
    print(json.dumps({**about, "peak_mib": peaks, "searches": found}, indent=1))


def write(folder: Path, rows: int, dim: int, code: str | None) -> None:
    """The same vectors as an index, as a coded index and as a bare file."""
    column = Column("vector", dim)
    about = Manifest(MethodSpec("synthetic"), (column,), Coverage(1, 1), {}, {}, Plan(BLOCK, 1), ("synthetic",))
    index = create_index(folder / "float16.lance", about)
    plain = np.memmap(folder / "plain.f16", np.float16, "w+", shape=(rows, dim))
    random = np.random.default_rng(0)
    block = max(256, min(BLOCK, (64 << 20) // dim // 2))
    for start in range(0, rows, block):
        size = min(block, rows - start)
        plain[start : start + size] = random.standard_normal((size, dim), np.float32)
        vectors = {"vector": np.array(plain[start : start + size])}
        meta = [bare_row(i) for i in range(start, start + size)]
        losses, read = np.zeros(size, np.float32), [RowReading()] * size
        table = to_table(meta, losses, vectors, index.dataset.schema, readings=read)
        commit_fragments(index, write_fragments(index, table))
    plain.flush()
    seal(index)
    if code is not None:
        quantise_index(index, folder / f"{code.replace(':', '-')}.lance", code=code)


def bare_row(number: int) -> TokenRow:
    """A row of an id and nothing else."""
    nothing = np.empty(0, np.int64)
    return TokenRow(Row(f"row-{number}", number), "", nothing, nothing.astype(bool), nothing.reshape(0, 2), 0, "")


def compare(indexes: dict[str, Index], plain: np.memmap, queries: int, repeats: int) -> dict[str, object]:
    """Median seconds (wall, processor) of each side for so many queries at once, and the share of hits in common."""
    probe = probes(queries, plain.shape[1])
    sides: dict[str, Callable[[], list[list[str]]]] = {"memmap": lambda: scan_plain(plain, probe)}
    sides |= {name: lambda index=index: scan_index(index, probe) for name, index in indexes.items()}
    hits = {name: run() for name, run in sides.items()}
    taken: dict[str, list[Seconds]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            taken[name].append(timed(run))
    median = {name: [statistics.median(s) for s in zip(*times, strict=True)] for name, times in taken.items()}
    return {
        "queries": queries,
        **{
            name: {
                "wall": round(wall, 3),
                "processor": round(cpu, 3),
                "rows_per_second": round(len(plain) / wall),
                "throughput_of_memmap": {
                    "wall": round(median["memmap"][0] / wall, 2),
                    "processor": round(median["memmap"][1] / cpu, 2),
                },
                "recall": round(
                    statistics.mean(len({*a} & {*b}) / TOP for a, b in zip(hits[name], hits["memmap"], strict=True)), 4
                ),
            }
            for name, (wall, cpu) in median.items()
        },
    }


def probes(queries: int, dim: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((queries, dim), np.float32))


def peak_mib(index: Index, options: argparse.Namespace) -> float | None:
    """The process's high-water mark over one search of the most queries; None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        scan_index(index, probes(max(options.queries), options.dim))
        (peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    except OSError:
        return None
    return int(peak.split()[1]) / 1024


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
