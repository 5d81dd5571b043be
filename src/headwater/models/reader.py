"""A reader: a model, how rows become its tokens, and how many tokens one forward pass may hold.

Builds, queries, values, unlearning and evaluations all read rows with a model through a reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from headwater.core.errors import UsageError
from headwater.core.fingerprints import require_equal
from headwater.core.spec import Role
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.rows import Row
from headwater.data.tokens import MAX_TOKENS, Tokenization, TokenRow
from headwater.models.limits import embedded_tokens, positions_of, turning_length
from headwater.models.load import LoadedModel
from headwater.models.reference import Reference, compared, require_reference

TOKENS_PER_BATCH = 8192
"""Default number of padded tokens in one forward pass."""


@dataclass(frozen=True)
class Reader:
    """A model and the settings with which it reads rows.

    Attributes:
        loaded: the model.
        tokenization: how rows become its tokens.
        tokens_per_batch: padded tokens in one forward pass.
        reference: what preference pairs are compared with; None is the model without its adapter.
    """

    loaded: LoadedModel
    tokenization: Tokenization
    tokens_per_batch: int = TOKENS_PER_BATCH
    reference: Reference | None = None

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        *,
        template: str | None = None,
        max_tokens: int = MAX_TOKENS,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        targets: str | None = None,
        beta: float | None = None,
        reference: Reference | None = None,
    ) -> Reader:
        """The reader for a model; see `resolve_template` for the names of templates, and `TARGETS` for targets.

        Raises:
            UsageError: β of the DPO loss, but neither a reference nor an adapter that can be switched off.
        """
        tokenization = Tokenization.of(loaded.tokenizer, template, max_tokens, targets=targets, beta=beta)
        if beta is not None and reference is None:
            require_reference(loaded)
        known = replace(tokenization, vocabulary=embedded_tokens(loaded.model))
        return cls(loaded, known, tokens_per_batch, reference)

    @classmethod
    def like(
        cls, loaded: LoadedModel, model: Mapping[str, Any], tokenization: Mapping[str, Any], tokens: int, *, where: str
    ) -> Reader:
        """A reader that reads rows as an earlier one did, which is checked by its fingerprints.

        Args:
            loaded: the model to read with.
            model: fingerprint of the earlier reader's model.
            tokenization: fingerprint of the earlier reader's tokenisation.
            tokens: padded tokens in one forward pass.
            where: what the earlier reader made, for messages.

        Raises:
            MismatchError: the model or the tokenisation differs; names the fields.
        """
        what = f"the model '{loaded.name}' is not the one that {where} was made with"
        remedy = "give the model it was made with, or make it again"
        known = {field: value for field, value in loaded.fingerprint.items() if field in model}  # older ones have fewer
        require_equal(model, known, what=what, remedy=remedy)
        earlier = Tokenization.like(loaded.tokenizer, tokenization)
        reader = cls(loaded, replace(earlier, vocabulary=embedded_tokens(loaded.model)), tokens)
        what = f"this tokenizer or template reads rows differently from those of {where}"
        require_equal(tokenization, reader.tokenization.fingerprint, what=what, remedy=remedy)
        return reader

    def tokenize(self, rows: Sequence[Row], role: Role = "train") -> list[TokenRow]:
        """The rows as tokens, numbered in the order given; a query's hotwords restrict its targets."""
        numbered = [replace(row, ordinal=i) for i, row in enumerate(rows)]
        return self.tokenization.encode(numbered, role)

    @cached_property
    def positions(self) -> int | None:
        """How many positions the model has; None if its configuration names no limit."""
        return positions_of(self.loaded.model)

    @cached_property
    def _turning(self) -> int | None:
        return turning_length(self.loaded.model)

    @property
    def context(self) -> int:
        """The most tokens that are read together: the model's positions, or `max_tokens` if that is less."""
        most = self.tokenization.max_tokens
        return most if self.positions is None else min(most, self.positions)

    def window(self, window: Window) -> Window:
        """The window as this model reads it: no longer than its context."""
        return window.within(self.context)

    def require_windows(self, options: Mapping[str, Any]) -> None:
        """Raise `UsageError` if a method's options ask for windows that are longer than the model's positions."""
        for name in ("window", "query_window"):
            size = options.get(name, 0)
            if self.positions is not None and isinstance(size, int) and size > self.positions:
                what = f"windows of {size:,} tokens, but the model has {self.positions:,} positions"
                remedy = f"at most {self.positions}; without {name}, windows are as long as the model's context"
                raise UsageError(what, where=f"{name}={size}", remedy=remedy)

    def batches(self, rows: Sequence[Row], window: Window, role: Role = "train") -> list[TokenBatch]:
        """The rows' windows in batches of similar length; a row's `ordinal` is its position in `rows`."""
        return self.plan(self.tokenize(rows, role), window)

    def plan(self, rows: Sequence[TokenRow], window: Window) -> list[TokenBatch]:
        """The same for rows that are tokens already; their ordinals stay. The reference reads preference pairs."""
        most, turning = self.tokens_per_batch, self._turning
        batches = plan_batches(rows, self.window(window), tokens_per_batch=most, turning=turning)
        return [compared(batch, self.loaded, self.reference) if batch.paired else batch for batch in batches]
