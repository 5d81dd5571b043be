"""A million tiny rows from a streaming data set into an index: does memory stay flat?

    python benchmarks/index_streaming.py [--rows 1000000] [--every 100000] [--folder runs]

Rows come one by one from a `datasets.IterableDataset` whose length nobody knows; the model is a stub of one layer and
eight numbers, so that all but the model is what is measured. Prints resident memory as rows grow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import headwater as hw
from headwater.indexing.probe import peak_bytes, reset_peak
from headwater.models.load import LoadedModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    stream = datasets.IterableDataset.from_generator(rows, gen_kwargs={"count": options.rows})
    print("| rows | resident MiB | peak MiB since the line above | rows/s |\n|---|---|---|---|", flush=True)
    began, due = time.perf_counter(), options.every

    def told(done: int, total: int | None, tokens: int) -> None:
        nonlocal due
        if done >= due or done == options.rows:
            speed = done / (time.perf_counter() - began)
            print(f"| {done:,} | {resident() >> 20:,} | {peak_bytes() >> 20:,} | {speed:,.0f} |", flush=True)
            reset_peak()
            due += options.every

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        out = Path(folder) / "i.lance"
        index = hw.build(out, model=stub(), data=stream, settings={"preset": "small"}, on_progress=told)
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        print(
            f"\n{index.count:,} rows, {size / 2**20:,.0f} MiB on disk, {len(index.dataset.get_fragments())} fragments"
        )


def rows(count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        yield {"text": f"n{number}"}


def stub() -> LoadedModel:
    """One layer of eight numbers over a vocabulary of bytes."""
    vocabulary = {text: i for i, text in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return hw.wrap_model(LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), **shape)), fast, "stub")


def resident() -> int:
    """Bytes of the process in memory now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


if __name__ == "__main__":
    main()
