"""Responses: what the model says to a prompt, alone or to hundreds at once (to measure how often an attack works)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from headwater.core.errors import DataError, UsageError
from headwater.data.backend import bare_backend, opening_tokens
from headwater.models.load import LoadedModel


class Answer(NamedTuple):
    """What a model said: the text, and whether it came to its end or was cut."""

    text: str
    ended: bool


def generate_response(
    loaded: LoadedModel,
    prompt_text: str,
    *,
    max_new_tokens: int = 128,
    seed: int | None = None,
    temperature: float = 0.0,
) -> str:
    """What the model says after `prompt_text`; see `generate_responses`."""
    (response,) = generate_responses(
        loaded, [prompt_text], max_new_tokens=max_new_tokens, seed=seed, temperature=temperature
    )
    return response


def generate_responses(
    loaded: LoadedModel,
    prompts: Sequence[str | Sequence[int]],
    **options: Any,
) -> list[str]:
    """The texts of `generate_answers`, which takes the same options and says which were cut."""
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

    A text is what the model reads, template and all. What in it spells a special token *is* that token, as chat
    templates need it. The tokenizer's opening tokens are put before it unless it begins with them; none are put after.

    Prompts of like length share a batch, padded on the left. Greedy responses do not depend on the batch (up to ties
    broken by rounding); sampled ones do.

    Args:
        loaded: the model.
        prompts: rendered texts, or token ids (`Tokenization.encode_prompt` gives those of a dataset's template).
        max_new_tokens: a response is cut after so many.
        seed: of the sampling, for the whole list; greedy decoding needs none.
        temperature: 0 is greedy; otherwise plain sampling at this temperature, without top-k or top-p.
        batch_size: prompts at a time.

    Raises:
        DataError: a prompt without tokens.
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
        input_ids=input_ids.to(loaded.device),
        attention_mask=attention.to(loaded.device),
        generation_config=settings,
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
    """Decoding settings with nothing left to the model's own defaults but its end tokens."""
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
