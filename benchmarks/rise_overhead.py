"""RISE's cost beside a bare forward pass that computes logits, on the same batches, in one process.

Run:  python benchmarks/rise_overhead.py [--pairs 15] [--preset paper --preset default]

Two models made from configs: a GPT-NeoX of Pythia-14M's shape (50,304 tokens, 128 wide, 6 layers) and a 36M-parameter
Llama with a 32,000-token vocabulary. Every token of every row is a target, the worst case for RISE. The bare pass and
RISE take turns; the ratio is taken pair by pair and its median reported, of the clock and of processor time: with one
thread on a busy machine, the latter says more.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

from headwater.core.spec import Coverage
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.methods import rise
from headwater.models.readout import Readout

ROWS, TOKENS = 8, 256

MODELS: dict[str, Callable[[], Any]] = {
    "GPT-NeoX 14M (V 50,304, D 128)": lambda: GPTNeoXConfig(
        vocab_size=50304, hidden_size=128, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4
    ),
    "Llama 36M (V 32,000, D 384)": lambda: LlamaConfig(
        vocab_size=32000, hidden_size=384, intermediate_size=1024, num_hidden_layers=7, num_attention_heads=6
    ),
}


def batch(vocab: int, seed: int) -> TokenBatch:
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(ROWS):
        ids = generator.integers(0, vocab, TOKENS)
        response = np.arange(TOKENS) > 0
        row = Row(id=str(i), ordinal=i, text="")
        rows.append(TokenRow(row, "", ids, response, np.zeros((TOKENS, 2), np.int64), 0, ""))
    (only,) = plan_batches(rows, Window(TOKENS), tokens_per_batch=ROWS * TOKENS)
    return only


def compare(model: Any, preset: str, pairs: int) -> dict[str, float]:
    weight = model.get_output_embeddings().weight.detach()
    readout = Readout(weight, None, 1.0, None, Coverage(weight.numel(), weight.numel()), model.base_model)
    encoder = rise.encoder(rise.PRESETS[preset], readout)
    bare_times: list[tuple[float, float]] = []
    rise_times: list[tuple[float, float]] = []
    for i in range(pairs + 2):
        tokens = batch(weight.shape[0], seed=i)
        bare_times.append(_time(bare, model, tokens))
        rise_times.append(_time(encoder.encode, tokens, "train"))
    pairs_timed = list(zip(rise_times[2:], bare_times[2:], strict=True))
    ratios = [mine[0] / other[0] for mine, other in pairs_timed]
    return {
        "ratio": statistics.median(ratios),
        "processor": statistics.median(mine[1] / other[1] for mine, other in pairs_timed),
        "low": min(ratios),
        "high": max(ratios),
        "bare_ms": 1e3 * statistics.median(wall for wall, _ in bare_times[2:]),
        "tokens_per_second": ROWS * TOKENS / statistics.median(wall for wall, _ in rise_times[2:]),
    }


@torch.no_grad()
def bare(model: Any, tokens: TokenBatch) -> None:
    _ = model(tokens.input_ids, attention_mask=tokens.attention).logits


def _time(work: Callable[..., Any], *given: Any) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    start, used = time.perf_counter(), time.process_time()
    work(*given)
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--preset", action="append")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}")
    print("| model | preset | RISE : bare forward | range | by processor time | bare ms | RISE tokens/s |")
    print("|---|---|---|---|---|---|---|")
    results = []
    for name, config in MODELS.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config()).eval().requires_grad_(False)
        for preset in arguments.preset or ["paper", "default", "small"]:
            r = compare(model, preset, arguments.pairs)
            results.append({"model": name, "preset": preset, **r})
            print(
                f"| {name} | {preset} | {r['ratio']:.2f} | {r['low']:.2f}–{r['high']:.2f} | {r['processor']:.2f} "
                f"| {r['bare_ms']:.0f} | {r['tokens_per_second']:,.0f} |"
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
