"""A method without a model: a row's vector is a hash of its tokens, so builds are quick and exactly repeatable."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from headwater.core.spec import Column, Coverage, MethodSpec, Role
from headwater.data.batches import TokenBatch, Window
from headwater.data.corpus import Corpus, open_corpus
from headwater.data.inspection import require_usable
from headwater.features.encoder import Encoded
from headwater.index.store import Index
from headwater.indexing.build import build
from headwater.indexing.session import Session
from headwater.methods.bound import Bound
from headwater.methods.method import Method, Vectors
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader

DIM = 24


@dataclass(frozen=True)
class FakeEncoder:
    """Each vector depends on its row's tokens and, as with real kernels, a little on the batch it is in."""

    columns: tuple[Column, ...] = (Column("vector", DIM), Column("wide", 3, "float32", weight=0.5))
    coverage: Coverage = field(default_factory=lambda: Coverage(1, 4, "a fake"))
    pause: float = 0.0
    poisoned: tuple[str, ...] = ()

    def encode(self, batch: TokenBatch, role: Role) -> Encoded:
        time.sleep(self.pause)
        nudge = 1 + 2.0**-10 * len(batch.rows)
        vectors = {
            c.name: torch.stack([torch.from_numpy(token_vector(row.ids, c) * nudge) for row in batch.rows])
            for c in self.columns
        }
        for i, row in enumerate(batch.rows):
            if row.row.id in self.poisoned:
                vectors[self.columns[0].name][i, 3] = 1e6 if row.row.id.startswith("big") else float("nan")
        losses = torch.tensor([float(row.ids.mean()) for row in batch.rows])
        return Encoded({name: value.float() for name, value in vectors.items()}, losses)

    def token_scores(self, batch: TokenBatch, role: Role, probes: Any) -> Any:
        raise AssertionError("a build asks for no token scores")


def token_vector(ids: np.ndarray, column: Column) -> np.ndarray:
    """float64 `[dim]`, standard normal, seeded by the tokens and the column's name."""
    seed = [*ids.tolist(), *column.name.encode()]
    return np.random.default_rng(seed).standard_normal(column.dim)


def fake_method(**changes: Any) -> Method:
    encoder = replace(FakeEncoder(), **changes)
    vectors = Vectors({"train": Window(64), "query": Window(64)}, lambda _: encoder)
    return Method(MethodSpec("fake", {"dim": DIM}), vectors)


class NoModel:
    """The limits of a model that there is none of: no number of positions, no embedding."""

    config = SimpleNamespace(get_text_config=SimpleNamespace)

    def get_input_embeddings(self) -> None:
        return None


def fake_loaded(name: str = "fake-model", weights: str = "w0") -> LoadedModel:
    """A loaded model whose only real part is a tokenizer: one token a character."""
    vocab = {"<unk>": 0, "<eos>": 1, **{chr(c): c - 30 for c in range(32, 127)}}
    bare = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>")
    return LoadedModel(
        name=name,
        model=NoModel(),
        tokenizer=tokenizer,
        adapter=None,
        device=torch.device("cpu"),
        fingerprint={"weights": weights, "dtype": "float32"},
    )


def records(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows of varied length with metadata of every kind."""
    return [
        {
            "id": f"row-{i}",
            "prompt": f"question {i}?",
            "response": f"answer {i * i} " + "so " * (i * 7 % 11),
            "source": ["wiki", "books", "it's"][i % 3],
            "year": 1990 + i % 30,
            "share": i / 7,
            "clean": i % 2 == 0,
            "loss": "theirs",
            "tags": {"nested": [i]},
        }
        for i in range(start, start + count)
    ]


def fake_bound(
    method: Method | None = None,
    loaded: LoadedModel | None = None,
    *,
    template: str | None = None,
    max_tokens: int = 2048,
    tokens_per_batch: int = 256,
) -> Bound:
    reader = Reader.of(
        loaded or fake_loaded(), template=template, max_tokens=max_tokens, tokens_per_batch=tokens_per_batch
    )
    return Bound.of(method or fake_method(), reader)


_READING = ("loaded", "template", "max_tokens", "tokens_per_batch")


def fake_build(out: str | Path, rows: list[dict[str, Any]], method: Method | None = None, **options: Any) -> Index:
    """A build with the fake method; `options` are those of `fake_bound` and of `build`."""
    reading = {name: options.pop(name) for name in _READING if name in options}
    return build(out, require_usable(open_corpus(rows)), fake_bound(method, **reading), **options)


def fake_session(index: Index, loaded: LoadedModel | None = None, method: Method | None = None) -> Session:
    return Session(index, fake_bound(method, loaded, tokens_per_batch=index.manifest.plan.tokens_per_batch))


def corpus_of(rows: list[dict[str, Any]]) -> Corpus:
    return open_corpus(rows)
