"""Mean hidden states of a small model, used as features of a row's text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import ModelError
from headwater.data.rows import Row
from headwater.data.tokens import tokenizer_digest

LONGEST = 256
"""At most so many tokens of a row are read."""

_ROWS_PER_BATCH = 64


@dataclass(frozen=True)
class HiddenStates:
    """A model without its head, and its tokenizer: any Hugging Face encoder, or a causal model.

    Attributes:
        name: folder or hub name.
        trunk: the model; its output has `last_hidden_state`.
        tokenizer: the model's tokenizer.
    """

    name: str
    trunk: Any
    tokenizer: Any

    @classmethod
    def load(cls, name: str) -> HiddenStates:
        """Load the model of a folder or a hub name; raises `ModelError` if it cannot be loaded."""
        from transformers import AutoModel, AutoTokenizer

        try:
            trunk, tokenizer = AutoModel.from_pretrained(name), AutoTokenizer.from_pretrained(name)
        except Exception as error:  # faults of the hub, the files and the configuration have many classes
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            remedy = "name a folder or a cached hub model, or leave the encoder out"
            raise ModelError(f"the student's encoder cannot be loaded: {reason}", where=name, remedy=remedy) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        return cls(name, trunk.eval().requires_grad_(False), tokenizer)

    @property
    def digest(self) -> str:
        """A digest of the tokenizer; a saved student may be used only with a tokenizer of the same digest."""
        return tokenizer_digest(self.tokenizer)

    def read(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows width"]:
        """The mean hidden state of each row, float32, scaled to norm 1."""
        found = [torch.empty(0)] * len(rows)
        with torch.no_grad():
            for places, inputs in self.batches(rows):
                pooled = self.pool(inputs)
                for place, state in zip(places, torch.nn.functional.normalize(pooled, dim=1).cpu(), strict=True):
                    found[place] = state
        return torch.stack(found).float().numpy()

    def pool(self, inputs: dict[str, Tensor]) -> Float[Tensor, "items width"]:
        """The mean of the last hidden states over all tokens but padding; differentiable."""
        states = self.trunk(**inputs).last_hidden_state
        mask = inputs["attention_mask"].to(states)[:, :, None]
        pooled: Tensor = (states * mask).sum(1) / mask.sum(1)
        return pooled

    def batches(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Rows in batches of similar length: their positions among `rows`, and the trunk's inputs."""
        texts = [as_text(row) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), _ROWS_PER_BATCH):
            places = order[start : start + _ROWS_PER_BATCH]
            yield places, self.inputs([texts[i] for i in places])

    def inputs(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokenise texts, with padding on the right."""
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt", padding_side="right"
        )
        device = next(self.trunk.parameters()).device
        return {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}


def as_text(row: Row) -> str:
    """The text of a row that a student reads: its fields, one below the other."""
    return "\n".join(row.fields().values())
