"""The transformer student: an encoder with a scalar head, trained on the labels with early stopping.

The encoder is any Hugging Face model that is named; by default a tiny bidirectional one, tokenizer included, made here
from the labelled rows. Each member of the ensemble starts from its own seed and its own order of rows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from headwater.data.rows import Row
from headwater.students.hidden_states import LONGEST, HiddenStates, as_text
from headwater.students.labels import Lesson

_HEAD = "head.safetensors"
_VOCABULARY, _WIDTH, _LAYERS, _HEADS = 2048, 96, 2, 4


@dataclass(frozen=True)
class Training:
    """How a member is trained: AdamW, batches of `items` rows, until held-out Spearman has not risen for `patience`
    epochs. `ranking` replaces squared error by log(1 + exp(−(f_i − f_j))) over a batch's pairs with y_i > y_j.
    """

    epochs: int = 30
    patience: int = 6
    items: int = 32
    learning_rate: float = 1e-3
    ranking: bool = False


@dataclass(frozen=True)
class Member:
    """One trained encoder with its head."""

    states: HiddenStates
    head: nn.Linear

    def score(self, inputs: dict[str, Tensor]) -> Float[Tensor, " items"]:
        """Standardised scores; differentiable."""
        scores: Tensor = self.head(self.states.pool(inputs))[:, 0]
        return scores

    @torch.no_grad()
    def predict(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Standardised scores of rows."""
        self.states.trunk.eval()
        found = np.empty(len(rows))
        for places, inputs in self.states.batches(rows):
            found[places] = self.score(inputs).double().cpu().numpy()
        return found


@dataclass(frozen=True)
class TransformerStudent:
    """An ensemble of encoders; `curve` is (epoch, held-out Spearman) of the first."""

    members: tuple[Member, ...]
    curve: tuple[tuple[int, float], ...] = field(default=(), compare=False)

    curve_axis: ClassVar[str] = "epoch"

    def predict(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows members"]:
        """Standardised scores by each member."""
        return np.stack([member.predict(rows) for member in self.members], axis=1)

    def save(self, folder: Path) -> None:
        """Write each member into a folder of its own that `from_pretrained` reads, its head beside it."""
        for number, member in enumerate(self.members):
            place = folder / f"member-{number}"
            member.states.trunk.save_pretrained(place)
            member.states.tokenizer.save_pretrained(place)
            save_file({name: value.contiguous() for name, value in member.head.state_dict().items()}, place / _HEAD)

    @classmethod
    def load(cls, folder: Path) -> TransformerStudent:
        """The student a folder holds."""
        members = []
        for place in sorted(folder.glob("member-*")):
            states = HiddenStates.load(str(place))
            head = load_file(place / _HEAD)
            linear = nn.Linear(head["weight"].shape[1], 1)
            linear.load_state_dict(head)
            members.append(Member(states, linear.requires_grad_(False)))
        return cls(tuple(members))


def fit_transformer(
    lesson: Lesson, *, members: int, seed: int, encoder: HiddenStates | None, training: Training
) -> TransformerStudent:
    """The ensemble, each member at its epoch of best held-out Spearman."""
    trained: list[Member] = []
    curve: tuple[tuple[int, float], ...] = ()
    tokenizer = None if encoder else _tokenizer([as_text(row) for row in lesson.rows])
    for number in range(members):
        with torch.random.fork_rng():
            torch.manual_seed(seed + number)
            states = _fresh(encoder, tokenizer)
            head = nn.Linear(states.trunk.config.hidden_size, 1)
            member, points = _train(Member(states, head), lesson, training, seed + number)
        trained.append(member)
        curve = curve or points
    return TransformerStudent(tuple(trained), curve)


def _train(
    member: Member, lesson: Lesson, training: Training, seed: int
) -> tuple[Member, tuple[tuple[int, float], ...]]:
    trunk, head = member.states.trunk.requires_grad_(True), member.head
    parameters = [*trunk.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=0.01)
    train, held_out = lesson.rows_at(lesson.train), lesson.rows_at(lesson.held_out)
    labels = torch.from_numpy(lesson.labels[lesson.train]).float()
    generator = np.random.default_rng(seed)
    curve: list[tuple[int, float]] = []
    best: tuple[float, int, Any] = (-np.inf, 0, None)
    for epoch in range(1, training.epochs + 1):
        trunk.train()
        for places in np.array_split(generator.permutation(len(train)), -(-len(train) // training.items)):
            scores = member.score(member.states.inputs([as_text(train[i]) for i in places]))
            optimizer.zero_grad()
            _loss(scores, labels[places].to(scores.device), training.ranking).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        curve.append((epoch, lesson.held_out_agreement(member.predict(held_out))))
        if curve[-1][1] > best[0]:
            best = (curve[-1][1], epoch, (copy.deepcopy(trunk.state_dict()), copy.deepcopy(head.state_dict())))
        if epoch - best[1] >= training.patience:
            break
    trunk.load_state_dict(best[2][0])
    head.load_state_dict(best[2][1])
    trunk.eval().requires_grad_(False)
    head.requires_grad_(False)
    return member, tuple(curve)


def _loss(scores: Float[Tensor, " items"], labels: Float[Tensor, " items"], ranking: bool) -> Tensor:
    if not ranking:
        return nn.functional.mse_loss(scores, labels)
    above = labels[:, None] > labels
    return nn.functional.softplus(-(scores[:, None] - scores))[above].mean()


def _fresh(encoder: HiddenStates | None, tokenizer: Any) -> HiddenStates:
    """A copy of the named encoder, or a tiny one with random weights."""
    if encoder is not None:
        return HiddenStates(encoder.name, copy.deepcopy(encoder.trunk), encoder.tokenizer)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        intermediate_size=3 * _WIDTH,
        max_position_embeddings=LONGEST,
        pad_token_id=tokenizer.pad_token_id,
    )
    return HiddenStates("tiny", BertModel(config, add_pooling_layer=False), tokenizer)


def _tokenizer(texts: Sequence[str]) -> Any:
    """A byte-level BPE of the labelled rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>")
