"""Peak memory of reading one long row, with the head in parts and with all its logits at once; a JSON object a line.

    python benchmarks/long_rows.py [--tokens 8192 32768] [--vocabulary 32768] [--method rapidin]

A random Llama of one layer and width 64 reads one row, each time in a process of its own. `logits MiB` is what the
logits of the whole row take. The largest difference between the two vectors is given as a share of the largest entry.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--method", default="rapidin")
    parser.add_argument("--how", nargs="+", choices=("parts", "whole"), default=["parts", "whole"])
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for tokens in given.tokens:
            found, vectors = {}, []
            for how in given.how:
                out = Path(folder) / f"{how}.npy"
                more = ["--whole"] if how == "whole" else []
                more += [part for value in given.set for part in ("--set", value)]
                command = [sys.executable, __file__, "--tokens", str(tokens), "--vocabulary", str(given.vocabulary)]
                command += ["--method", given.method, "--one", str(out), *more]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[how] = json.loads(done.stdout.splitlines()[-1])
                vectors.append(np.load(out))
            if len(vectors) == 2:
                found["difference"] = float(np.abs(vectors[0] - vectors[1]).max() / np.abs(vectors[1]).max())
            print(json.dumps({"tokens": tokens, "logits MiB": tokens * given.vocabulary >> 18, **found}), flush=True)


def one(given: argparse.Namespace) -> dict[str, float]:
    """Read the row, keep its vectors, and say what that took."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from headwater.data.batches import Window, plan_batches
    from headwater.data.rows import Row
    from headwater.data.tokens import TokenRow
    from headwater.methods.catalog import vector_method
    from headwater.models import heads
    from headwater.models.load import wrap_model
    from headwater.training.tiny import train_tokenizer

    (tokens,) = given.tokens
    if given.whole:
        heads.LOGITS_BYTES = dict.fromkeys(heads.LOGITS_BYTES, 2**62)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=given.vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=65536,
    )
    loaded = wrap_model(LlamaForCausalLM(config), train_tokenizer(["some words"], 300))
    ids = np.random.default_rng(0).integers(0, given.vocabulary, tokens)
    row = TokenRow(Row("r", 0, text=""), "", ids, np.arange(tokens) > 0, np.zeros((tokens, 2), np.int64), 0, "r")
    form = vector_method(given.method, dict(pair.split("=", 1) for pair in given.set)).require_vectors()
    encoder = form.bind(loaded)
    short = TokenRow(Row("s", 0, text=""), "", ids[:64], np.arange(64) > 0, np.zeros((64, 2), np.int64), 0, "s")
    (warm,) = plan_batches([short], Window(64), tokens_per_batch=64)
    encoder.encode(warm, "train")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (batch,) = plan_batches([row], Window(tokens), tokens_per_batch=tokens)
    began = time.perf_counter()
    vectors = encoder.encode(batch, "train").vectors
    seconds = time.perf_counter() - began
    np.save(given.one, np.concatenate([v.double().numpy().ravel() for v in vectors.values()]))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak MiB more than before": (after - before) >> 10, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main()
