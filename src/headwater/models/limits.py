"""The limits of a model: how many positions it has, how they are read, and how many tokens its embedding has."""

from __future__ import annotations

from typing import Any

import torch

_POSITIONS = (
    *("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "max_seq_length"),
    *("max_target_positions", "n_ctx"),
)
"""Names in configurations of the number of positions; where there are several, the smallest counts."""


def positions_of(model: Any) -> int | None:
    """How many tokens the model can read in one sequence; None if nothing names a limit, as in recurrent models.

    The configuration names the limit. A table of learned positions with a padding row begins to count behind it, so
    its first rows, up to the padding row, are never used: RoBERTa's 514 rows are 512 positions.
    """
    config = model.config.get_text_config()
    values = [getattr(config, name, None) for name in _POSITIONS]
    named = [value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0]
    if not named:
        return None
    limit = min(named)
    tokens = model.get_input_embeddings()
    reserved = [
        module.padding_idx + 1
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        and module is not tokens
        and module.num_embeddings == limit
        and module.padding_idx is not None
    ]
    return limit - max(reserved, default=0)


def turning_length(model: Any) -> int | None:
    """The number of tokens beyond which the model reads every position in another way; None for most models.

    LongRoPE turns by other angles when the longest sequence of a batch, padding included, is longer than this.
    """
    given = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [given, *(value for value in given.values() if isinstance(value, dict))]
    lengths = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    return min(lengths, default=None)


def embedded_tokens(model: Any) -> int | None:
    """How many tokens the model's input embedding has rows for; None if it is no table."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    return None if weight is None else int(weight.shape[0])
