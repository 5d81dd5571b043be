"""What recording a training run costs: the time with a Recorder over the time without, in pairs.

    python benchmarks/recorder.py [--pairs 5] [--checkpoints 8] [--trainer]

The model is a Llama of 4.6M parameters; 96 optimizer steps of 16 rows with 64 tokens. A checkpoint is the weights and
both moments of Adam, written to the folder that TMPDIR names. `--trainer` trains with the Hugging Face Trainer and the
Recorder as its callback, instead of `headwater.training.fitting.fit`.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from headwater.training.recorder import Recorder

STEPS, ROWS, TOKENS, VOCABULARY = 96, 16, 64, 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--trainer", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, **sizes))
    run = by_trainer if given.trainer else by_loop
    run(copy.deepcopy(model), None)
    ratios = []
    for pair in range(given.pairs):
        times = {}
        for recorded in (False, True) if pair % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                recorder = Recorder(Path(folder) / "run", every=STEPS // given.checkpoints) if recorded else None
                start = time.perf_counter()
                run(copy.deepcopy(model), recorder)
                times[recorded] = time.perf_counter() - start
        ratios.append(times[True] / times[False])
        print(f"without {times[False]:.2f} s, with {times[True]:.2f} s: {ratios[-1]:.3f}")
    size = sum(p.numel() for p in model.parameters()) * 12 / 1e6
    print(f"median {statistics.median(ratios):.3f} with {given.checkpoints} checkpoints of {size:.0f} MB")


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, VOCABULARY, (ROWS, TOKENS), generator=generator) for _ in range(STEPS)]


def by_loop(model: Any, recorder: Recorder | None) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    for step, ids in enumerate(batches()):
        model(ids, labels=ids).loss.backward()
        if recorder is not None:
            recorder.before_step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        if recorder is not None:
            recorder.after_step(step + 1, STEPS, model, optimizer)


def by_trainer(model: Any, recorder: Recorder | None) -> None:
    rows = [{"input_ids": row, "labels": row} for ids in batches() for row in ids]
    sizes = {"num_train_epochs": 1, "per_device_train_batch_size": ROWS, "learning_rate": 1e-3}
    with tempfile.TemporaryDirectory() as folder:
        quiet = {
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_strategy": "no",
        }
        arguments = TrainingArguments(folder, **sizes, **quiet)
        Trainer(model, arguments, train_dataset=rows, callbacks=[recorder] if recorder else []).train()


if __name__ == "__main__":
    main()
