"""Batches with one example per target token, for token-wise influence, and the way back from examples to tokens.

Each token's loss needs an example of its own, because the gradient at a position sums over all later losses. A causal
model reads nothing after the predicting position, so the example ends there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headwater.data.batches import TokenBatch
from headwater.features.encoder import TokenScores

MOST_TOKENS = 16_384
"""Most positions, padding included, that single-token examples take in one forward pass."""


def single_tokens(
    batch: TokenBatch, items: int, *, tokens: int = MOST_TOKENS
) -> Iterator[tuple[TokenBatch, Int[Tensor, "targets 2"]]]:
    """Batches of examples, each with one target token, and the (item, position) each stands for.

    An example's loss is that of its token, also if the token belongs to a preference pair.

    A batch has at most `items` examples, and at most `tokens` positions unless it has only one example.
    """
    places = batch.response.nonzero()
    # Examples of similar positions have similar lengths, so little is padded.
    places = places[torch.argsort(places[:, 1], stable=True)]
    lengths = (places[:, 1] + 1).tolist()
    start = 0
    while start < len(lengths):
        end = start + 1
        while end < min(start + items, len(lengths)) and (end + 1 - start) * lengths[end] <= tokens:
            end += 1
        yield _one_target_each(batch, places[start:end]), places[start:end]
        start = end


def spread(
    batch: TokenBatch,
    places: Int[Tensor, "targets 2"],
    values: Mapping[str, Float[Tensor, "targets probes"]],
    losses: Float[Tensor, " targets"],
) -> tuple[TokenScores, ...]:
    """The scores of (item, position) pairs, assigned to the tokens they predict, row by row."""
    row, token = batch.item_row[places[:, 0]], batch.start[places[:, 0]] + places[:, 1] + 1
    found = []
    for number, tokens in enumerate(batch.rows):
        mine = row == number
        table = {}
        for name, value in values.items():
            table[name] = torch.zeros(len(tokens.ids), value.shape[1], device=value.device)
            table[name][token[mine]] = value[mine].float()
        nats = torch.full((len(tokens.ids),), torch.nan, device=losses.device)
        nats[token[mine]] = losses[mine].float()
        found.append(TokenScores(table, nats))
    return tuple(found)


def _one_target_each(batch: TokenBatch, place: Int[Tensor, "targets 2"]) -> TokenBatch:
    item, position = place[:, 0], place[:, 1]
    tokens = int(position.max()) + 1
    across = torch.arange(tokens, device=place.device)
    kept = across <= position[:, None]
    return TokenBatch(
        input_ids=batch.input_ids[item, :tokens] * kept,
        attention=kept & batch.attention[item, :tokens],
        targets=batch.targets[item, :tokens] * kept,
        valid=kept & batch.valid[item, :tokens],
        response=across == position[:, None],
        item_row=torch.arange(len(place), device=place.device),
        start=batch.start[item],
        rows=tuple(replace(batch.rows[row], contrast=None) for row in batch.item_row[item].tolist()),
    )
