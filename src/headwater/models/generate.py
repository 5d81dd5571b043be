"""Generating a model's responses to many prompts, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from headwater.core.errors import DataError, UsageError
from headwater.data.tokens import bare_backend, opening_tokens
from headwater.models.load import LoadedModel


class Answer(NamedTuple):
    """A generated response: its text, and whether it ended by itself (otherwise it was cut)."""

    text: str
    ended: bool


def generate_responses(loaded: LoadedModel, prompts: Sequence[str | Sequence[int]], **options: Any) -> list[str]:
    """The texts of `generate_answers`, with the same options."""
    return [answer.text for answer in generate_answers(loaded, prompts, **options)]


def generate_answers(
    loaded: LoadedModel,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int = 128,
    seed: int | None = None,
    temperature: float = 0.0,
    batch_size: int = 32,
) -> list[Answer]:
    """The response to each prompt, in their order: up to the end-of-text token, without special tokens.

    A text must include its template already. Where it spells a special token, it becomes that token, as chat templates
    need. The tokenizer's opening tokens are put before it unless it begins with them; no tokens are put after it.

    Prompts of similar length share a batch, padded on the left. Greedy responses do not depend on the batch (except
    for ties broken by rounding); sampled ones do.

    Args:
        loaded: the model.
        prompts: rendered texts, or token ids (`Tokenization.encode_prompt` gives those of a dataset's template).
        max_new_tokens: a response is cut after this many tokens.
        seed: the seed of sampling, for the whole list; greedy decoding needs none.
        temperature: 0 for greedy decoding, else that of plain sampling, without top-k or top-p.
        batch_size: prompts in a batch.

    Raises:
        DataError: a prompt has no tokens.
        UsageError: a negative temperature, or sampling without a seed.
    """
    settings = _settings(loaded, max_new_tokens, temperature, seed)
    rows = _prompt_ids(loaded.tokenizer, prompts)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    responses = [Answer("", True)] * len(rows)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
        torch.manual_seed(0 if seed is None else seed)
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            for i, answer in zip(chosen, _continued([rows[i] for i in chosen], loaded, settings), strict=True):
                responses[i] = answer
    return responses


def _continued(rows: Sequence[Sequence[int]], loaded: LoadedModel, settings: Any) -> list[Answer]:
    """The responses of one batch."""
    longest = max(len(ids) for ids in rows)
    input_ids = torch.full((len(rows), longest), loaded.tokenizer.pad_token_id)
    attention = torch.zeros_like(input_ids)
    for row, ids in enumerate(rows):
        input_ids[row, longest - len(ids) :] = torch.tensor(ids)
        attention[row, longest - len(ids) :] = 1
    output = loaded.model.generate(
        input_ids=input_ids.to(loaded.device), attention_mask=attention.to(loaded.device), generation_config=settings
    )
    texts: list[str] = loaded.tokenizer.batch_decode(
        output[:, longest:], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    ends = torch.tensor(settings.eos_token_id or [], device=output.device)
    ended = torch.isin(output[:, longest:], ends).any(1).tolist()
    return [Answer(text, end) for text, end in zip(texts, ended, strict=True)]


def _prompt_ids(tokenizer: Any, prompts: Sequence[str | Sequence[int]]) -> list[list[int]]:
    backend = bare_backend(tokenizer)
    opening, opening_text = opening_tokens(tokenizer)
    encoded: list[list[int]] = []
    for place, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            begun = prompt.startswith(opening_text)
            encoded.append([*([] if begun else opening), *backend.encode(prompt).ids])
        else:
            encoded.append(list(prompt))
        if not encoded[-1]:
            raise DataError("a prompt without tokens", where=f"prompt {place + 1}", remedy="give it at least one word")
    return encoded


def _settings(loaded: LoadedModel, max_new_tokens: int, temperature: float, seed: int | None) -> Any:
    """Decoding settings that replace all of the model's defaults except its end tokens."""
    from transformers import GenerationConfig

    if temperature < 0 or (temperature > 0 and seed is None):
        remedy = "use temperature 0, or a positive one with a seed"
        raise UsageError(f"temperature {temperature} with seed {seed}", where="generation", remedy=remedy)
    own = loaded.model.generation_config.eos_token_id
    ends = {loaded.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=loaded.tokenizer.pad_token_id,
        use_cache=True,
        **(sampling if temperature > 0 else {"do_sample": False}),
    )
