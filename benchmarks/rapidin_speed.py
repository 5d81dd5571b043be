"""How long a RapidIn vector takes, beside the passes it is made of and beside the published procedure.

Run:  OMP_NUM_THREADS=2 python benchmarks/rapidin_speed.py [--rows 64] [--tokens 64] [--repeats 7] [--json out.json]
      ... --models runs/demo       the demo's own model, and rows of its median length
      ... --profile                instead, where the time of the first three arms goes, by operation

Arms, in one process and on the same rows:
  headwater      vectors of K = 65,536 for a batch of rows
  floor          the same forward and activation-only backward pass, nothing made of it
  plain          a batched forward and backward pass with weight gradients: a training step without the optimizer
  single         one forward and backward pass with weight gradients a row (8 rows, extrapolated)
  published      single, then every tensor normalised, the whole gradient padded to a power of two, shuffled by 20 row
                 and 20 column permutations, signed and summed into K bins (2 rows, extrapolated)
Each repeat times every arm once, in turn, an arm of all rows right after a run of its own that is not timed (batches
follow one another in a build and in training; what another arm left of caches and heap is not what is asked). Figures
are medians over repeats, ratios medians of ratios within a repeat, of the clock and of processor time: with one thread
on a busy machine, the latter says more.
Peak memory is what an arm adds to the process after the model is loaded, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization, TokenRow
from headwater.features.capture import visit_gradients
from headwater.features.parameters import select_parameters
from headwater.methods.rapidin import ENTRY
from headwater.models.load import LoadedModel, load_model

BUCKETS = 65_536
SHUFFLES = 20
VOCABULARY = {"llama-2.3M": 1024, "neox-19M": 8192}


def build(name: str) -> Any:
    torch.manual_seed(0)
    if name == "llama-2.3M":
        small = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 5, "num_attention_heads": 6}
        config = LlamaConfig(vocab_size=VOCABULARY[name], tie_word_embeddings=True, **small)
        return LlamaForCausalLM(config).eval().requires_grad_(False)
    large = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 7, "num_attention_heads": 6}
    config = GPTNeoXConfig(vocab_size=VOCABULARY[name], **large)
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False)


def batch_of(rows: int, tokens: int, vocabulary: int) -> TokenBatch:
    generator = np.random.default_rng(0)
    made = []
    for number in range(rows):
        offsets = np.zeros((tokens, 2), np.int64)
        ids = generator.integers(0, vocabulary, tokens)
        made.append(TokenRow(Row(f"r{number}", number, text="x"), "x", ids, np.arange(tokens) >= 1, offsets, 0, ""))
    (batch,) = plan_batches(made, Window(tokens), tokens_per_batch=rows * tokens)
    return batch


def of_demo(folder: Path, rows: int) -> tuple[Any, TokenBatch]:
    """The model `headwater demo` made in the folder, and those of its rows whose length is nearest to the median."""
    loaded = load_model(str(folder / "model"))
    tokenization = Tokenization.of(loaded.tokenizer)
    read = sorted(tokenization.encode(list(open_corpus(folder / "train.jsonl"))), key=lambda row: len(row.ids))
    middle = read[(len(read) - rows) // 2 :][:rows]
    numbered = [replace(row, row=replace(row.row, ordinal=i)) for i, row in enumerate(middle)]
    (batch,) = plan_batches(numbered, Window(512), tokens_per_batch=512 * rows)
    return loaded.model.requires_grad_(False), batch


def step(model: Any, ids: torch.Tensor) -> None:
    """Forward and backward with weight gradients, left in `.grad`."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    model.requires_grad_(False)


def published(model: Any, ids: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """RapidGrad as the paper describes it, for one row."""
    step(model, ids)
    parts = [p.grad.flatten() / p.grad.norm().clamp_min(1e-12) for p in model.parameters() if p.grad is not None]
    flat = torch.cat(parts)
    size = 1 << math.ceil(math.log2(len(flat)))
    flat = torch.nn.functional.pad(flat, (0, size - len(flat)))
    side = 1 << (int(math.log2(size)) // 2)
    for _ in range(SHUFFLES):
        flat = flat.view(side, -1)[torch.randperm(side, generator=generator)].flatten()
        flat = flat.view(-1, side)[:, torch.randperm(side, generator=generator)].flatten()
    signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8) * 2 - 1
    return (flat * signs).view(BUCKETS, -1).sum(1).half()


def arms(name: str, rows: int, tokens: int) -> dict[str, tuple[Callable[[], object], float]]:
    """Name to what is timed, and the factor from it to all rows."""
    if name in VOCABULARY:
        model, batch = build(name), batch_of(rows, tokens, VOCABULARY[name])
    else:
        model, batch = of_demo(Path(name), rows)
    loaded = LoadedModel(name, model, None, None, torch.device("cpu"), {})
    encoder = ENTRY.resolve({"buckets": BUCKETS}).require_vectors().bind(loaded)
    selection = select_parameters(model)
    one, two = min(8, rows), min(2, rows)
    ids = batch.input_ids

    def run_published() -> None:
        generator = torch.Generator().manual_seed(0)
        for row in range(two):
            published(model, ids[row : row + 1], generator)

    return {
        "headwater": (lambda: encoder.encode(batch, "train"), 1.0),
        "floor": (lambda: visit_gradients(model, selection, batch, lambda gradient: None), 1.0),
        "plain": (lambda: step(model, ids), 1.0),
        "single": (lambda: [step(model, ids[row : row + 1]) for row in range(one)], rows / one),
        "published": (run_published, rows / two),
    }


def measure(name: str, rows: int, tokens: int, repeats: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    todo = arms(name, rows, tokens)
    for repeat in range(repeats + 1):
        for arm, (run, factor) in todo.items():
            if factor == 1.0:
                run()
            started, used = time.perf_counter(), time.process_time()
            run()
            if repeat:  # the first round fills caches
                found.setdefault(arm, []).append((time.perf_counter() - started) * factor)
                processor.setdefault(arm, []).append((time.process_time() - used) * factor)
    result: dict[str, Any] = {"model": name, "rows": rows, "tokens": tokens, "threads": torch.get_num_threads()}
    for arm, times in found.items():
        result[arm] = {
            "ms_per_row": 1000 * statistics.median(times) / rows,
            "of_plain": median_ratio(times, found["plain"]),
            "of_plain_processor": median_ratio(processor[arm], processor["plain"]),
            "peak_mib": peak(name, rows, tokens, arm),
        }
    speedups = [other / mine for mine, other in zip(found["headwater"], found["published"], strict=True)]
    result["times_faster_than_published"] = statistics.median(speedups)
    return result


def median_ratio(mine: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(mine, others, strict=True))


def print_profile(name: str, rows: int, tokens: int) -> None:
    """Milliseconds of each operation itself a batch; the profiler adds some microseconds to every call."""
    todo = arms(name, rows, tokens)
    for arm in ("headwater", "floor", "plain"):
        run = todo[arm][0]
        run()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(3):
                run()
        operations = sorted(profiler.key_averages(), key=lambda one: -one.self_cpu_time_total)
        print(f"\n{name}, {arm}: {sum(one.self_cpu_time_total for one in operations) / 3000:.0f} ms a batch, of which")
        for one in operations[:12]:
            print(f"  {one.self_cpu_time_total / 3000:7.1f} ms  {one.count // 3:5} calls  {one.key}")


def peak(name: str, rows: int, tokens: int, arm: str) -> float:
    """MiB that one run of an arm adds to a fresh process."""
    command = [
        sys.executable,
        __file__,
        "--memory",
        arm,
        "--models",
        name,
        "--rows",
        str(rows),
        "--tokens",
        str(tokens),
    ]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def high_water() -> int:
    """The process's peak memory so far, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(VOCABULARY), help="names, or folders of `headwater demo`")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true", help="print where the time goes, and no ratios")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        run, _ = arms(arguments.models, arguments.rows, arguments.tokens)[arguments.memory]
        Path("/proc/self/clear_refs").write_text("5")  # forget the high-water mark of loading; Linux only
        before = high_water()
        run()
        print((high_water() - before) / 1024)
        return
    if arguments.profile:
        for name in arguments.models.split(","):
            print_profile(name, arguments.rows, arguments.tokens)
        return
    results = [measure(m, arguments.rows, arguments.tokens, arguments.repeats) for m in arguments.models.split(",")]
    print("| model | arm | ms a row | of plain | by processor time | peak MiB |\n|---|---|---:|---:|---:|---:|")
    for result in results:
        for arm in ("headwater", "floor", "plain", "single", "published"):
            figures = result[arm]
            ratios = f"{figures['of_plain']:.2f} | {figures['of_plain_processor']:.2f}"
            numbers = f"{figures['ms_per_row']:.1f} | {ratios} | {figures['peak_mib']:.0f}"
            print(f"| {result['model']} | {arm} | {numbers} |")
        print(f"\n{result['model']}: {result['times_faster_than_published']:.0f} times faster than published\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
