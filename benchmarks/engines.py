"""Engines: what a second worker and overlapping bring, and whether memory stays flat; one JSON object a line.

    python benchmarks/engines.py workers [--pairs 3]     rows a second of two one-thread Ray workers and of one
    python benchmarks/engines.py overlap [--pairs 5]     the local engine with and without overlapping steps
    python benchmarks/engines.py memory [--engine ray]   resident memory while 200,000 rows are read

Run it with OMP_NUM_THREADS=1 and nothing else on the machine. Throughput is counted from the first block that is
committed to the last, so that neither starting workers nor loading models counts; the ratio is the median of pairs of
runs that follow each other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import headwater as hw
from headwater.engines.blocks import Engine
from headwater.engines.local import Local
from headwater.engines.ray_pool import RayPool
from headwater.indexing.blocks import IndexRows
from headwater.tasks import howdy_task
from headwater.training.tiny import train_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("workers", "overlap", "memory"))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        {"workers": workers, "overlap": overlap, "memory": memory}[options.what](Path(folder), options)


def workers(folder: Path, options: argparse.Namespace) -> None:
    model, rows = random_llama(folder, width=256, layers=4), options.rows or 2400
    ratios = []
    for pair in range(options.pairs):
        rates = [rate(folder / f"{pair}-{n}.lance", model, rows, RayPool(n), block_rows=100) for n in (1, 2)]
        ratios.append(rates[1] / rates[0])
        print(json.dumps({"rows a second": {"1 worker": rates[0], "2 workers": rates[1]}, "ratio": ratios[-1]}))
    print(json.dumps({"median ratio of two workers to one": statistics.median(ratios)}))


def overlap(folder: Path, options: argparse.Namespace) -> None:
    model, rows = random_llama(folder, width=160, layers=2), options.rows or 2000
    ratios = []
    for pair in range(options.pairs + 1):
        seconds, shares = [], {}
        for ahead in (0, 2):
            spent = {"prepare": 0.0, "compute": 0.0, "write": 0.0, "commit": 0.0}
            began = time.perf_counter()
            with timed(spent):
                build(folder / f"{pair}-{ahead}.lance", model, rows, Local(ahead), block_rows=100)
            seconds.append(time.perf_counter() - began)
            shares = shares or {name: round(value / sum(spent.values()), 3) for name, value in spent.items()}
        if pair:  # the first pair warms up
            ratios.append(seconds[0] / seconds[1])
            print(json.dumps({"seconds": seconds, "ratio": ratios[-1], "shares one after another": shares}))
    print(json.dumps({"median ratio of overlapping to one after another": statistics.median(ratios)}))


def memory(folder: Path, options: argparse.Namespace) -> None:
    """A tiny model, rows of a few tokens, narrow sketches: what would grow with the number of rows is what is seen."""
    model, rows = random_llama(folder, width=32, layers=1, vocabulary=300), options.rows or 200_000
    narrow = {"preset": "small", "width_r": 16, "width_g": 16, "width_h": 16}
    data = folder / "rows.jsonl"
    with data.open("w", encoding="utf-8") as file:  # a list of all rows would itself grow
        for i in range(rows):
            file.write(json.dumps({"id": f"r{i}", "prompt": f"q {i}", "response": "yes no"[i % 4 :]}) + "\n")
    began, watch, told = time.perf_counter(), Watch(), [0]

    def mark(done: int, *_: Any) -> None:
        if done >= told[0] + 10_000 or done == rows:
            told[0] = done
            seconds = round(time.perf_counter() - began)
            print(
                json.dumps({"rows": done, "seconds": seconds, "peak MiB since the line above": watch.since()}),
                flush=True,
            )

    engine = RayPool(2) if options.engine == "ray" else Local()
    with watch:
        build(folder / "i.lance", model, data, engine, block_rows=1000, settings=narrow, on_progress=mark)


class Watch:
    """The peaks of resident memory of this process and of Ray's actors, MiB, while the block runs."""

    def __init__(self) -> None:
        self.seen: list[dict[str, int]] = []
        self._stop = threading.Event()

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def since(self) -> dict[str, int]:
        """The peaks since this was asked before, MiB."""
        seen, self.seen = self.seen, []
        return {name: max(one.get(name, 0) for one in seen) for name in sorted({name for one in seen for name in one})}

    def _look(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.5):
            now = {"driver": me.memory_info().rss >> 20}
            for child in me.children(recursive=True):
                try:
                    if child.name().startswith("ray::Worker"):
                        now["worker"] = max(now.get("worker", 0), child.memory_info().rss >> 20)
                except psutil.Error:
                    continue
            self.seen.append(now)


def rate(out: Path, model: str, rows: int, engine: Engine, **how: Any) -> float:
    """Rows a second from the first committed block to the last."""
    seen: list[tuple[float, int]] = []
    build(out, model, rows, engine, on_progress=lambda done, *_: seen.append((time.perf_counter(), done)), **how)
    (first, before), (last, after) = seen[0], seen[-1]
    return (after - before) / (last - first)


def build(out: Path, model: str, rows: int | Path, engine: Engine, **how: Any) -> None:
    made = {
        "model": model,
        "data": rows_again(rows) if isinstance(rows, int) else rows,
        "loading": {"device": "cpu"},
        "engine": engine,
    }
    hw.build(out, **made, **how)


def rows_again(count: int) -> list[dict[str, str]]:
    """So many rows of the howdy task, again and again under other ids."""
    some = [dict(row) for row in howdy_task(0, rows=1000).rows]
    return [{**some[i % len(some)], "id": f"r{i}"} for i in range(count)]


@contextlib.contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Add the seconds that each step of a build takes to `spent`, while the block runs."""
    real = {name: getattr(IndexRows, name) for name in spent}

    def watched(name: str) -> Any:
        def step(self: Any, given: Any) -> Any:
            began = time.perf_counter()
            try:
                return real[name](self, given)
            finally:
                spent[name] += time.perf_counter() - began

        return step

    for name in real:
        setattr(IndexRows, name, watched(name))
    try:
        yield
    finally:
        for name, step in real.items():
            setattr(IndexRows, name, step)


def random_llama(folder: Path, *, width: int, layers: int, vocabulary: int = 2048) -> str:
    """A random Llama and a tokenizer trained on the howdy task."""
    place = folder / f"llama-{width}"
    tokenizer = train_tokenizer(
        [f"{row['prompt']} {row['response']}" for row in howdy_task(0, rows=500).rows], vocabulary
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


if __name__ == "__main__":
    main()
