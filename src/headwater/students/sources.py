"""What a student reads of a row: blocks of features, from its words or from a language model's sketches.

A score such as LinFiK is a mean over a row's response tokens, and linear in the row's gradient. So the features are
such means too: shares of words and characters, and the mean sketch of the gradient at the output layer of a model.

    words    n-grams of words and characters, lengths and kinds of signs      no model
    model    sketches of the language model that is valued for                one forward pass a row
    proxy    the same of a small model; the text never meets the large one    one small forward pass a row
    encoder  mean hidden states of any Hugging Face encoder                   one small forward pass a row
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse

from headwater.core.errors import UsageError
from headwater.core.fingerprints import require_equal
from headwater.data.batches import Window
from headwater.data.rows import Row
from headwater.data.tokens import tokenizer_digest
from headwater.features.readout_sketch import Channels, ReadoutSketch
from headwater.features.residuals import Support
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.models.readout import find_readout
from headwater.students.hidden_states import HiddenStates
from headwater.students.ngrams import BITS, character_ngrams, sign_shares, word_ngrams

Matrix: TypeAlias = "sparse.csr_matrix | np.ndarray"
"""float32 `[rows, width]`."""

CONTEXT = 512
"""A model reads at most so many tokens together for sketches."""

CHARACTERS = (2000, 480, 240, 120)
"""A proxy reads so many characters from the beginning of a response, and half as many from the end of its prompt.

It reads the first number of them, or as many as its cost allows.
"""

_BYTES = 4
"""The most tokens that a byte-level tokenizer makes of a character."""

_USUAL = np.array(
    [
        *((4.5, 0.9), (0.1, 0.08), (4.0, 2.0), (0.77, 0.1), (0.04, 0.06)),
        *((0.01, 0.04), (0.05, 0.06), (5.2, 1.5), (0.92, 0.1), (0.75, 0.2)),
    ]
)
"""Mean and standard deviation of each shape over short English texts, roughly; only their scale matters."""

_WIDTHS = {"model": (128, 96, 64), "proxy": (64, 32, 32)}
"""Sketched widths of the residual, of the hidden state beside it, and of the residual seen through the head.

A proxy should cost little, and wider sketches of one foretell no better.
"""


@runtime_checkable
class StudentSource(Protocol):
    """One kind of features, and what it takes to read them."""

    @property
    def name(self) -> str:
        """`words`, `model`, `proxy` or `encoder`."""
        ...

    @property
    def described(self) -> Mapping[str, Any]:
        """What a saved student says of the source, JSON-ready: names and digests, and no row."""
        ...

    @property
    def shorter(self) -> StudentSource | None:
        """The same source, reading less of each row for less time; None if it reads as little as it can."""
        ...

    def read(self, rows: Sequence[Row]) -> dict[str, Matrix]:
        """The blocks of features of these rows by name."""
        ...


@dataclass(frozen=True)
class Words:
    """Features of the text alone."""

    name: str = "words"

    @property
    def described(self) -> Mapping[str, Any]:
        """Nothing but the number of buckets."""
        return {"bits": BITS}

    @property
    def shorter(self) -> None:
        """There is none."""

    def read(self, rows: Sequence[Row]) -> dict[str, Matrix]:
        """Word 1- to 3-grams as shares of the response, character 2- to 4-grams, the prompt's words, and its shape."""
        prompts, responses = [row.prompt or "" for row in rows], [row.answer for row in rows]
        return {
            "response words": word_ngrams(responses, longest=3, norm="l1"),
            "response characters": character_ngrams(responses, shortest=2, longest=4),
            "prompt words": word_ngrams(prompts, longest=3, norm="l2"),
            "shape": _shapes(prompts, responses),
        }


@dataclass(frozen=True)
class Sketches:
    """Sketches of the gradient at a language model's output layer, mean over the response tokens, and its loss.

    With p the model's probabilities, y the token, h the hidden state, W the head, and P, Q, R sign matrices of a seed:

        residual   mean_t P(p − y) ⊗ Q h        what the head's gradient is
        meaning    mean_t R Wᵀ(p − y) ⊗ Q h     the gradient that flows below the head
        states     mean_t h, of norm 1
        loss       the mean loss and the probability it stands for

    `characters` of a response are read, from its beginning, and half as many from the end of its prompt; 0: all that
    the reader reads.
    """

    name: str
    reader: Reader
    sketch: ReadoutSketch
    characters: int = 0

    @classmethod
    def of(cls, reader: Reader, name: str, *, characters: int = 0) -> Sketches:
        """Bind the sketch to a reader's model; raises `ModelError` if its output layer cannot be read."""
        readout = find_readout(reader.loaded)
        vocabulary, width = readout.weight.shape
        r, h, g = (min(most, size) for most, size in zip(_WIDTHS[name], (vocabulary, width, width), strict=True))
        sketch = ReadoutSketch(
            readout=readout,
            channels=Channels(1.0, 1.0, 0.0, r, h, g),
            support=Support("full", 1.0, False, 1, 1.0, slope=True),
            positions={"train": "response", "query": "response"},
            normalize_factors=False,
            normalize_sample=False,
            weight_windows="tokens",
        )
        return cls(name, reader, sketch, characters)

    @classmethod
    def load(cls, model: str, name: str, *, characters: int = CHARACTERS[0]) -> Sketches:
        """Load a model by folder or hub name; its tokenizer may be any, because it reads text.

        With `characters`, none of the tokens that these make is cut off: a long prompt leaves the response its place.
        """
        most = 2 * _BYTES * characters if characters else CONTEXT
        return cls.of(Reader.of(load_model(model), max_tokens=most), name, characters=characters)

    @property
    def shorter(self) -> Sketches | None:
        """The same model, reading fewer characters; the language model itself always reads all."""
        fewer = [count for count in CHARACTERS if count < self.characters]
        return replace(self, characters=fewer[0]) if fewer else None

    @property
    def described(self) -> Mapping[str, Any]:
        """The model by name and fingerprint, how it reads rows, and the projection's widths and seed."""
        c = self.sketch.channels
        return {
            "model": str(self.reader.loaded.name),
            "fingerprint": dict(self.reader.loaded.fingerprint),
            "tokenizer": tokenizer_digest(self.reader.loaded.tokenizer),
            "tokenization": self.reader.tokenization.fingerprint,
            "widths": [c.width_r, c.width_h, c.width_g],
            "seed": self.sketch.seed,
            **({"characters": self.characters} if self.characters else {}),
        }

    def read(self, rows: Sequence[Row]) -> dict[str, Matrix]:
        """One forward pass of the rows."""
        if self.characters:
            rows = [_shortened(row, self.characters) for row in rows]
        width = self.sketch.columns[0].dim
        vectors = np.zeros((len(rows), width), dtype=np.float32)
        states = np.zeros((len(rows), self.sketch.columns[1].dim), dtype=np.float32)
        losses, tokens = np.zeros(len(rows)), np.ones(len(rows))
        with torch.no_grad():
            for batch in self.reader.batches(rows, Window(CONTEXT)):
                places = [row.row.ordinal for row in batch.rows]
                encoded = self.sketch.encode(batch, "train")
                tokens[places] = batch.sum_windows(batch.response.sum(1)[:, None].float())[:, 0].cpu().numpy()
                vectors[places] = encoded.vectors["rise"].float().cpu().numpy()
                states[places] = encoded.vectors["embedding"].float().cpu().numpy()
                losses[places] = encoded.losses.double().cpu().numpy()
        vectors /= np.maximum(tokens, 1.0)[:, None].astype(np.float32)
        c = self.sketch.channels
        cut = c.width_r * c.width_h
        told = np.stack([losses, np.exp(-losses), np.log1p(tokens)], axis=1).astype(np.float32)
        return {"residual": vectors[:, :cut], "meaning": vectors[:, cut:], "states": states, "loss": told}


@dataclass(frozen=True)
class EncoderStates:
    """Mean hidden states of an encoder, of norm 1."""

    states: HiddenStates
    name: str = "encoder"

    @property
    def described(self) -> Mapping[str, Any]:
        """The encoder's name and its tokenizer."""
        return {"model": self.states.name, "tokenizer": self.states.digest}

    @property
    def shorter(self) -> None:
        """There is none."""

    def read(self, rows: Sequence[Row]) -> dict[str, Matrix]:
        """One forward pass of the rows."""
        return {"encoder states": self.states.read(rows)}


def _shortened(row: Row, characters: int) -> Row:
    """The beginning of the row's response and the end of its prompt; a chat becomes its last turn and what precedes."""
    if row.prompt is None and row.response is None:
        return replace(row, text=(row.text or "")[:characters])
    prompt, response = (row.prompt or "")[-(characters // 2) :], row.answer[:characters]
    return replace(row, messages=None, text=None, prompt=prompt, response=response)


def _shapes(prompts: Sequence[str], responses: Sequence[str]) -> Float[np.ndarray, "rows 230"]:
    """The shapes of both texts, and all products of two of them: long words count otherwise in a short text."""
    plain = np.concatenate([_shape(responses), _shape(prompts)], axis=1)
    left, right = np.triu_indices(plain.shape[1])
    return np.concatenate([plain, plain[:, left] * plain[:, right]], axis=1)


def _shape(texts: Sequence[str]) -> Float[np.ndarray, "rows 10"]:
    """Lengths, kinds of signs, how long and how different the words are, and how well the text packs.

    Each is a distance from what is usual, in usual standard deviations, and at most 4.
    """
    signs = sign_shares(texts)
    sizes = np.array([len(text) for text in texts], dtype=np.float64)
    words = [text.split() or [""] for text in texts]
    counts = np.array([len(found) for found in words], dtype=np.float64)
    long = np.array([sum(map(len, found)) for found in words]) / counts
    varied = np.array([len(set(found)) for found in words]) / counts
    packed = np.array([len(zlib.compress(text.encode("utf-8", "replace"), 1)) for text in texts]) / (sizes + 20)
    alpha, upper, digit, space = signs.T
    lengths = (np.log1p(sizes), 10 / (sizes + 10), np.sqrt(counts))
    others = np.where(sizes > 0, 1 - alpha - digit - space, 1.0)
    found = np.stack([*lengths, alpha, upper, digit, others, long, varied, packed], axis=1)
    bounded: np.ndarray = np.clip((found - _USUAL[:, 0]) / _USUAL[:, 1], -4, 4).astype(np.float32)
    return bounded


def restored(described: Mapping[str, Any], name: str, *, reader: Reader | None, elsewhere: str = "") -> StudentSource:
    """The source that `described` tells of.

    Args:
        described: as a saved student has it.
        name: the source's name.
        reader: the language model, for a student that reads its sketches.
        elsewhere: where the proxy or encoder is on this machine; empty: where it was.

    Raises:
        UsageError: the student reads the language model and there is none.
        MismatchError: the model is not the one that the student learned with.
    """
    if name == "words":
        return Words()
    if name == "encoder":
        states = HiddenStates.load(elsewhere or str(described["model"]))
        found: StudentSource = EncoderStates(states)
        _require_same(described, found.described, ("tokenizer",), name)
        return found
    if name == "model" and reader is None:
        what = "this student reads sketches of the language model, and no model is named"
        remedy = "name it with --model, or train a student that reads words or a proxy: --set sources=words"
        raise UsageError(what, where="student", remedy=remedy)
    if name == "model" and reader is not None:
        like = (described["fingerprint"], described["tokenization"], reader.tokens_per_batch)
        return Sketches.of(Reader.like(reader.loaded, *like, where="the student"), "model")
    characters = int(described.get("characters", 0))
    found = Sketches.load(elsewhere or str(described["model"]), "proxy", characters=characters)
    _require_same(described, found.described, ("tokenizer", "widths", "fingerprint"), name)
    return found


def _require_same(wanted: Mapping[str, Any], found: Mapping[str, Any], fields: Sequence[str], name: str) -> None:
    what = f"the student's {name} '{found['model']}' is not the one that it learned with"
    remedy = f"name the right one with --{'model' if name == 'model' else 'student-proxy'}"
    for field in fields:
        if field not in wanted:
            continue
        inner = wanted[field]
        if isinstance(inner, Mapping):  # older fingerprints have fewer entries
            require_equal(inner, {k: v for k, v in found[field].items() if k in inner}, what=what, remedy=remedy)
        else:
            require_equal({field: inner}, {field: found[field]}, what=what, remedy=remedy)
