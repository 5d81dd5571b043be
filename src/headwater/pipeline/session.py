"""A session: an index, the model that made it and the method bound to it, checked to belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError
from headwater.core.fingerprints import require_equal
from headwater.core.spec import Role
from headwater.data.batches import plan_batches
from headwater.data.rows import Row
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization, TokenRow
from headwater.features.encoder import Encoder, TokenScores
from headwater.index.store import Index
from headwater.methods.catalog import restore_method
from headwater.methods.method import Method
from headwater.models.load import LoadedModel, load_model


@dataclass(frozen=True)
class EncodedRows:
    """Rows read by a method, in the order they were given.

    Attributes:
        tokens: the tokenised rows.
        vectors: column name to float32 `[rows, dim]`, on the CPU.
        losses: float32 `[rows]`, nats.
    """

    tokens: tuple[TokenRow, ...]
    vectors: Mapping[str, Float[Tensor, "rows _dim"]]
    losses: Float[Tensor, " rows"]


@dataclass(frozen=True)
class Session:
    """An index with the model and method that can read new rows the way its own were read."""

    index: Index
    loaded: LoadedModel
    method: Method
    encoder: Encoder
    tokenization: Tokenization

    def encode(self, rows: Sequence[Row], role: Role) -> EncodedRows:
        """Vectors of rows as the index's method reads them; a query's `hotwords` narrow its targets."""
        tokens = self.tokenize(rows, role)
        vectors = {c.name: torch.empty(len(rows), c.dim) for c in self.encoder.columns}
        losses = torch.empty(len(rows))
        for batch in plan_batches(tokens, self.method.windows[role], tokens_per_batch=self._budget):
            encoded = self.encoder.encode(batch, role)
            places = [row.row.ordinal for row in batch.rows]
            losses[places] = encoded.losses.cpu()
            for name, vector in encoded.vectors.items():
                vectors[name][places] = vector.cpu()
        return EncodedRows(tuple(tokens), vectors, losses)

    def token_scores(
        self, rows: Sequence[Row], role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> list[tuple[TokenRow, TokenScores]]:
        """Each token's contribution to its row's score with each probe, in the order of the rows."""
        tokens = self.tokenize(rows, role)
        found: dict[int, tuple[TokenRow, TokenScores]] = {}
        for batch in plan_batches(tokens, self.method.windows[role], tokens_per_batch=self._budget):
            for token_row, scores in zip(batch.rows, self.encoder.token_scores(batch, role, probes), strict=True):
                found[token_row.row.ordinal] = (token_row, scores)
        return [found[i] for i in range(len(rows))]

    def tokenize(self, rows: Iterable[Row], role: Role) -> list[TokenRow]:
        """Tokenised rows, numbered in the order given."""
        numbered = [replace(row, ordinal=i) for i, row in enumerate(rows)]
        if not numbered:
            raise DataError("there are no rows to read")
        return self.tokenization.encode(numbered, hotwords=role == "query")

    @property
    def _budget(self) -> int:
        return self.index.manifest.plan.tokens_per_batch


def open_session(index: Index, model: LoadedModel | str | None = None, **placement: Any) -> Session:
    """The session of an index.

    Args:
        index: the index.
        model: a loaded model, or where the index's model is now; None is where the manifest says it is.
        placement: `device` and `device_map` of `load_model`, where the model is still to be loaded.

    Raises:
        MismatchError: model or tokenizer differ from the index's; names the fields.
    """
    manifest = index.manifest
    if isinstance(model, LoadedModel):
        loaded = model
    else:
        loaded = load_model(model or manifest.model["name"], **manifest.model["loading"], **placement)
    require_equal(
        manifest.model["fingerprint"],
        dict(loaded.fingerprint),
        what=f"the model '{loaded.name}' is not the one the index '{index.path}' was built with",
        remedy="give the model it was built with, or build another index",
    )
    template = resolve_template(manifest.tokenization["template"]["name"], loaded.tokenizer)
    tokenization = Tokenization(loaded.tokenizer, template, int(manifest.tokenization["max_tokens"]))
    require_equal(
        manifest.tokenization,
        tokenization.fingerprint,
        what=f"rows would be tokenised otherwise than in the index '{index.path}'",
        remedy="give the tokenizer it was built with, or build another index",
    )
    method = restore_method(manifest.method)
    return Session(index, loaded, method, method.bind(loaded), tokenization)
