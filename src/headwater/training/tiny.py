"""Train a tiny model from scratch: a byte-level BPE tokenizer and a small Llama, in about a minute on two cores.

Tasks need a model that has learnt its pool and nothing else, and retraining experiments need dozens of them. They are
trained by the loop of `headwater.training.fitting`: AdamW, warm-up and cosine decay, batches of rows of similar length,
loss on response tokens, and saved as an ordinary Hugging Face folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from headwater.core.errors import DataError
from headwater.data.rows import Record, Row
from headwater.data.tokens import Tokenization
from headwater.training.fitting import OnStep, TrainingRecipe, fit
from headwater.training.recorder import Recorder

END, PAD = "<|end|>", "<|pad|>"


@dataclass(frozen=True)
class Recipe:
    """The size of a tiny model, and how it is trained.

    Attributes:
        vocabulary: number of tokens, the 256 bytes and two special ones included.
        layers, width, heads: size of the Llama; its feed-forward layers are three times as wide.
        context: maximal tokens of a row; longer rows are cut.
        epochs, learning_rate, weight_decay: of AdamW; the rate warms up over a tenth of the steps and decays to zero.
        tokens_per_batch: tokens in a batch, padding included.
        initial: standard deviation of the initial weights.
    """

    vocabulary: int = 2304
    layers: int = 2
    width: int = 160
    heads: int = 4
    context: int = 256
    epochs: int = 8
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    tokens_per_batch: int = 640
    initial: float = 0.05

    @property
    def training(self) -> TrainingRecipe:
        """How the model is trained, without its size."""
        return TrainingRecipe(
            epochs=self.epochs,
            batch=0,
            tokens_per_batch=self.tokens_per_batch,
            rate=self.learning_rate,
            weight_decay=self.weight_decay,
        )


def train_tiny(
    rows: Sequence[Record],
    *,
    out: str | Path,
    seed: int,
    recipe: Recipe | None = None,
    on_step: OnStep | None = None,
    recorder: Recorder | None = None,
) -> Path:
    """Train a tokenizer and a tiny Llama on the rows' prompts and responses, and save both in the folder `out`.

    Args:
        rows: records with `id`, `prompt` and `response`.
        out: a folder; made if it does not exist.
        seed: of the initial weights and of the order of the batches.
        recipe: size and schedule; None for the default.
        on_step: called after every step.
        recorder: records checkpoints during training.

    Returns:
        The folder, which `load_model` and `from_pretrained` read.

    Raises:
        DataError: a row lacks a field.
    """
    recipe = recipe or Recipe()
    examples = task_rows(rows)
    texts = [" ".join(row.fields().values()) for row in examples]
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    tokenization = Tokenization.of(tokenizer, max_tokens=recipe.context)
    model = new_model(tokenizer, recipe, seed=seed)
    how: dict[str, Any] = {"context": recipe.context, "seed": seed, "on_step": on_step, "recorder": recorder}
    fit(model, tokenization.encode(examples), recipe.training, **how)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return Path(out)


def task_rows(records: Sequence[Record]) -> list[Row]:
    """A task's rows or queries as corpus rows.

    Raises:
        DataError: a row lacks its id, or has neither `text` nor both `prompt` and `response`.
    """
    rows: list[Row] = []
    for number, record in enumerate(records):
        needed = ("id", "text") if "text" in record else ("id", "prompt", "response")
        missing = [name for name in needed if name not in record]
        if missing:
            raise DataError(f"no '{missing[0]}' in {dict(record)!r}", where=f"row {number + 1}")
        fields = {name: record[name] for name in needed}
        metadata = {name: value for name, value in record.items() if name not in (*needed, "hotwords")}
        hotwords = tuple(record.get("hotwords", ()))
        rows.append(Row(ordinal=number, **fields, metadata=metadata, hotwords=hotwords))
    return rows


def train_tokenizer(texts: Sequence[str], vocabulary: int, **special: str) -> Any:
    """Train a byte-level BPE tokenizer.

    `special` names its special tokens as `PreTrainedTokenizerFast` does; without any, it has `PAD` and `END`.
    """
    special = special or {"pad_token": PAD, "eos_token": END}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def new_model(tokenizer: Any, recipe: Recipe, *, seed: int) -> Any:
    """An untrained Llama for the tokenizer; embedding and head share their weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=3 * recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        initializer_range=recipe.initial,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
