"""Generating a model's responses to many prompts, in batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from headwater.core.errors import DataError, ModelError, UsageError
from headwater.data.questions import Question, Speech
from headwater.data.tokens import bare_backend, opening_tokens
from headwater.models.limits import positions_of
from headwater.models.load import LoadedModel


class Answer(NamedTuple):
    """A generated response: its text, whether it ended by itself (otherwise it was cut), and its token ids.

    The ids include the token that ended it, and the tokens of what the question had begun, which the text leaves out.
    """

    text: str
    ended: bool
    ids: tuple[int, ...] = ()


Asked: TypeAlias = "Question | str | Sequence[int]"
"""What a model is asked with: a question (`Tokenization.question` makes that of a row), a rendered text, or token ids.
"""


def generate_responses(loaded: LoadedModel, prompts: Sequence[Asked], **options: Any) -> list[str]:
    """The texts of `generate_answers`, with the same options."""
    return [answer.text for answer in generate_answers(loaded, prompts, **options)]


def generate_answers(
    loaded: LoadedModel,
    prompts: Sequence[Asked],
    *,
    max_new_tokens: int = 128,
    seed: int | None = None,
    temperature: float = 0.0,
    batch_size: int = 32,
    on_text: Callable[[str], None] | None = None,
) -> list[Answer]:
    """The response to each prompt, in their order: up to the end-of-text token, without special tokens.

    A text must include its template already. Where it spells a special token, it becomes that token, as chat templates
    need. The tokenizer's opening tokens are put before it unless it begins with them; no tokens are put after it.
    What a question has begun, the model has to write first: until it has, tokens that do not are ruled out.

    Prompts of similar length share a batch, padded on the left. Greedy responses do not depend on the batch (except
    for ties broken by rounding); sampled ones do.

    Args:
        loaded: the model.
        prompts: questions, rendered texts, or token ids.
        max_new_tokens: a response is cut after this many tokens, or where the model's positions end.
        seed: the seed of sampling, for the whole list; greedy decoding needs none.
        temperature: 0 for greedy decoding, else that of plain sampling, without top-k or top-p.
        batch_size: prompts in a batch.
        on_text: called after each token with the answer so far, for a single prompt; what it raises ends the
            generation.

    Raises:
        DataError: a prompt has no tokens, or as many as the model has positions.
        UsageError: a negative temperature, sampling without a seed, or `on_text` with several prompts.
    """
    if on_text is not None and len(prompts) != 1:
        raise UsageError(f"on_text with {len(prompts)} prompts", where="generation", remedy="give one prompt")
    settings = _settings(loaded, max_new_tokens, temperature, seed)
    asked = _questions(loaded.tokenizer, prompts)
    speech = Speech(bare_backend(loaded.tokenizer), len(loaded.tokenizer))
    order = sorted(range(len(asked)), key=lambda i: len(asked[i].ids))
    responses = [Answer("", True)] * len(asked)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
        torch.manual_seed(0 if seed is None else seed)
        for most, places in itertools.groupby(order, key=_room(loaded, asked, max_new_tokens)):
            alike = list(places)
            for first in range(0, len(alike), batch_size):
                chosen = alike[first : first + batch_size]
                answers = _continued([asked[i] for i in chosen], loaded, settings, speech, most, on_text=on_text)
                for i, answer in zip(chosen, answers, strict=True):
                    responses[i] = answer
    return responses


def _room(loaded: LoadedModel, asked: Sequence[Question], wanted: int) -> Callable[[int], int]:
    """How many tokens each prompt's response may have: those wanted, or as many positions as the model has left.

    Raises:
        DataError: a prompt leaves no position.
    """
    positions = positions_of(loaded.model)
    for place, question in enumerate(asked):
        if positions is not None and len(question.ids) >= positions:
            what = f"the prompt has {len(question.ids):,} tokens, and the model reads {positions:,}: none is left"
            remedy = "shorten the prompt, or give the response that is asked about"
            raise DataError(f"{what} for an answer", where=f"prompt {place + 1}", remedy=remedy)
    return lambda i: wanted if positions is None else min(wanted, positions - len(asked[i].ids))


class _Begin:
    """Rules out tokens that do not go on with what a question has begun."""

    def __init__(self, begun: Sequence[str], start: int, speech: Speech) -> None:
        self.begun, self.start, self.speech = begun, start, speech
        self._fitting: dict[str, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row, begun in enumerate(self.begun):
            said = "".join(self.speech.pieces[i] for i in input_ids[row, self.start :][: len(begun)].tolist())
            if len(said) < len(begun):
                fits = self._writing(begun[len(said) :])[: scores.shape[1]].to(scores.device)
                scores[row, : len(fits)].masked_fill_(~fits, -torch.inf)
                scores[row, len(fits) :] = -torch.inf
        return scores

    def _writing(self, text: str) -> Tensor:
        """Bool `[tokens]`: the tokens that write a beginning of `text`, or all of it and more."""
        if text not in self._fitting:
            fits = [bool(p) and (p.startswith(text) or text.startswith(p)) for p in self.speech.pieces]
            if not any(fits):
                what = f"no token of this tokenizer writes {text!r}, which the template has before the response"
                raise ModelError(what, where="generation", remedy="take a template without it")
            self._fitting[text] = torch.tensor(fits)
        return self._fitting[text]


class _Heard:
    """Tells what a single question's answer says so far, after each token; it never ends the generation itself."""

    def __init__(self, question: Question, start: int, speech: Speech, on_text: Callable[[str], None]) -> None:
        self.question, self.start, self.speech, self.on_text = question, start, speech, on_text

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        text = self.speech.text(tuple(input_ids[0, self.start :].tolist()))
        self.on_text(text[self.question.before_answer(text) :])
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _continued(
    asked: Sequence[Question],
    loaded: LoadedModel,
    settings: Any,
    speech: Speech,
    most: int,
    *,
    on_text: Callable[[str], None] | None = None,
) -> list[Answer]:
    """The responses of one batch, of at most so many tokens."""
    longest = max(len(question.ids) for question in asked)
    input_ids = torch.full((len(asked), longest), loaded.tokenizer.pad_token_id)
    attention = torch.zeros_like(input_ids)
    for row, question in enumerate(asked):
        input_ids[row, longest - len(question.ids) :] = torch.tensor(question.ids)
        attention[row, longest - len(question.ids) :] = 1
    begun = [question.begun for question in asked]
    ends = sorted({*(settings.eos_token_id or ()), *(end for question in asked for end in question.ends)})
    output = loaded.model.generate(
        input_ids=input_ids.to(loaded.device),
        attention_mask=attention.to(loaded.device),
        generation_config=settings,
        max_new_tokens=most,
        eos_token_id=ends or None,
        logits_processor=[_Begin(begun, longest, speech)] if any(begun) else None,
        stopping_criteria=None if on_text is None else [_Heard(asked[0], longest, speech, on_text)],
    )
    answers = []
    for question, ids in zip(asked, output[:, longest:].tolist(), strict=True):
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        said = tuple(ids if end is None else ids[: end + 1])
        text = speech.text(said)
        answers.append(Answer(text[question.before_answer(text) :], end is not None, said))
    return answers


def _questions(tokenizer: Any, prompts: Sequence[Asked]) -> list[Question]:
    backend = bare_backend(tokenizer)
    opening, opening_text = opening_tokens(tokenizer)
    asked: list[Question] = []
    for place, prompt in enumerate(prompts):
        if isinstance(prompt, Question):
            asked.append(prompt)
        elif isinstance(prompt, str):
            begun = prompt.startswith(opening_text)
            asked.append(Question("", (*(() if begun else opening), *backend.encode(prompt).ids)))
        else:
            asked.append(Question("", tuple(prompt)))
        if not asked[-1].ids:
            raise DataError("a prompt without tokens", where=f"prompt {place + 1}", remedy="give it at least one word")
    return asked


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
