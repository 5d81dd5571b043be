"""Do scores foretell retraining on text that nobody here wrote? A GPT-2 of 0.5M parameters learns the Jargon File.

    python benchmarks/real_text_lds.py [--out runs/real_text] [--models 32] [--ceiling]

A small GPT-2, made from its configuration, first reads FOLDOC (Debian package `dict-foldoc`), then learns 800 passages
of the Jargon File (`dict-jargon`) for ten epochs; 32 other passages are the queries. Everything else is the ordinary
`headwater eval lds` on one's own rows, and what it made is used again. On a GPU, a larger model costs as little:

    python benchmarks/real_text_lds.py --width 768 --layers 8 --heads 12 --rate 3e-4 --known 20000 --ceiling
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import headwater as hw
from headwater.data.corpus import open_corpus
from headwater.models.load import wrap_model
from headwater.models.reader import Reader
from headwater.tasks.dictionaries import read_dictd
from headwater.training.fitting import TrainingRecipe, fit, trainable

METHODS = (
    *("source", "ekfac", "concord", "concord:preset=full", "ekfac-cos", "ekfac-cos:preset=full"),
    *("ekfac-cos:readings=halfway", "ekfac-cos:checkpoints=", "gradcos", "rapidin", "trackstar", "less", "rise"),
)
ROWS, QUERIES, TOKENS, BATCH = 800, 32, 48, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/real_text"))
    parser.add_argument("--models", type=int, default=32)
    parser.add_argument("--ceiling", action="store_true")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    for option, value in (("width", 96), ("layers", 3), ("heads", 4), ("known", 6000)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--rate", type=float, default=2e-3)
    given = parser.parse_args()
    if not (given.out / "base").exists():
        make(given)
    recipe = {"epochs": 10, "batch": BATCH, "rate": given.rate}
    made = {"model": str(given.out / "base"), "recipe": recipe, "name": "jargon"}
    made |= {name: str(given.out / f"{name}.jsonl") for name in ("data", "queries")}
    settings = {"models": given.models, "ceiling": given.ceiling}
    how: dict[str, Any] = {"out": given.out / "lds", "on_progress": teller(), **made}
    result = hw.evaluate("lds", methods=given.methods, settings=settings, **how)
    for line in sorted(result.lines, key=lambda line: -line.metrics["LDS"].value):
        print(f"{line.method:28} {line.metrics['LDS']}")
    print(*result.notes, sep="\n")


def teller() -> Callable[[str, float], None]:
    """Prints each step's name as it begins, with the seconds so far."""
    begun, last = time.perf_counter(), [""]

    def tell(step: str, share: float) -> None:
        if step != last[0]:
            print(f"{time.perf_counter() - begun:.0f} s: {step}", file=sys.stderr, flush=True)
        last[0] = step

    return tell


def make(given: argparse.Namespace) -> None:
    """Write the base model, which has read `given.known` passages, the rows and the queries."""
    out: Path = given.out
    known, taught = (passages(entries(name)) for name in ("foldoc", "jargon"))
    tokenizer = tokenizer_of([*known, *taught])
    torch.manual_seed(0)
    shape = {"n_embd": given.width, "n_layer": given.layers, "n_head": given.heads, "n_positions": 2 * TOKENS}
    sizes = {**shape, "bos_token_id": 0, "eos_token_id": 0}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **dropout))
    loaded = wrap_model(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)
    recipe = TrainingRecipe(epochs=2, batch=BATCH, rate=given.rate)
    rows = Reader.of(loaded, max_tokens=TOKENS).tokenize(list(open_corpus(records(known[: given.known]))))
    fit(trainable(model, recipe, seed=0), rows, recipe, context=TOKENS, seed=0)
    for name, some in (("data", taught[:ROWS]), ("queries", taught[ROWS : ROWS + QUERIES])):
        lines = [json.dumps(record) + "\n" for record in records(some)]
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    model.save_pretrained(out / "base")
    tokenizer.save_pretrained(out / "base")


def entries(name: str) -> list[str]:
    return [f"{entry.word}: {' '.join(entry.meaning.split())}" for entry in read_dictd(Path("/usr"), name)]


def passages(texts: list[str], words: int = 24) -> list[str]:
    """Consecutive passages of so many words, in random order; shorter ends are left out."""
    split = [text.split() for text in texts]
    found = [" ".join(w[i : i + words]) for w in split for i in range(0, len(w) - words + 1, words)]
    Random(0).shuffle(found)
    return found


def records(texts: list[str]) -> list[dict[str, str]]:
    return [{"id": f"p{i}", "text": text} for i, text in enumerate(texts)]


def tokenizer_of(texts: list[str]) -> Any:
    """A byte-level BPE of 2,048 tokens."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=end, bos_token=end, pad_token=end)


if __name__ == "__main__":
    main()
