"""The transformer student: an encoder with a scalar head, trained on the labels with early stopping.

The encoder is the Hugging Face model that the user names, or by default a tiny bidirectional one with random weights
and a tokenizer trained on the labelled rows. Each member of the ensemble has its own seed and its own order of rows.
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
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from headwater.data.rows import Row
from headwater.students.hidden_states import LONGEST, HiddenStates, as_text
from headwater.students.labels import Lesson
from headwater.training.tiny import PAD, train_tokenizer

_HEAD = "head.safetensors"
_VOCABULARY, _WIDTH, _LAYERS, _HEADS = 2048, 96, 2, 4


@dataclass(frozen=True)
class Training:
    """How a member is trained: with AdamW, on batches of `items` rows.

    Training stops early when held-out Spearman has not risen for `patience` epochs. With `ranking`, the loss is
    log(1 + exp(−(f_i − f_j))) over a batch's pairs with y_i > y_j instead of squared error.
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
    """An ensemble of encoders; `curve` holds the first member's pairs of epoch and held-out Spearman correlation."""

    members: tuple[Member, ...]
    curve: tuple[tuple[int, float], ...] = field(default=(), compare=False)

    curve_axis: ClassVar[str] = "epoch"

    def predict(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows members"]:
        """Each member's standardised scores, float64."""
        return np.stack([member.predict(rows) for member in self.members], axis=1)

    def save(self, folder: Path) -> None:
        """Write each member into its own folder: a model that `from_pretrained` reads, and the head."""
        for number, member in enumerate(self.members):
            place = folder / f"member-{number}"
            member.states.trunk.save_pretrained(place)
            member.states.tokenizer.save_pretrained(place)
            save_file({name: value.contiguous() for name, value in member.head.state_dict().items()}, place / _HEAD)

    @classmethod
    def load(cls, folder: Path) -> TransformerStudent:
        """Load the student that `save` wrote into the folder."""
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
    """Train the ensemble; each member is kept as it was after its epoch of best held-out Spearman correlation."""
    trained: list[Member] = []
    curve: tuple[tuple[int, float], ...] = ()
    texts = [as_text(row) for row in lesson.rows]
    tokenizer = None if encoder else train_tokenizer(texts, _VOCABULARY, pad_token=PAD)
    for number in range(members):
        with torch.random.fork_rng():
            torch.manual_seed(seed + number)
            states = _untrained(encoder, tokenizer)
            member = Member(states, nn.Linear(states.trunk.config.hidden_size, 1))
            points = _train(member, lesson, training, seed + number)
        trained.append(member)
        curve = curve or points
    return TransformerStudent(tuple(trained), curve)


def _train(member: Member, lesson: Lesson, training: Training, seed: int) -> tuple[tuple[int, float], ...]:
    """Train a member in place; returns its learning curve."""
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
    return tuple(curve)


def _loss(scores: Float[Tensor, " items"], labels: Float[Tensor, " items"], ranking: bool) -> Tensor:
    if not ranking:
        return nn.functional.mse_loss(scores, labels)
    above = labels[:, None] > labels
    return nn.functional.softplus(-(scores[:, None] - scores))[above].mean()


def _untrained(encoder: HiddenStates | None, tokenizer: Any) -> HiddenStates:
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
