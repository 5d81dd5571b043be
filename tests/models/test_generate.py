"""Generation: the same response alone or in any batch, nothing left to global state; and the loss."""

from __future__ import annotations

import pytest
import torch

from headwater.core.errors import DataError, UsageError
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization
from headwater.models.generate import generate_answers, generate_responses
from headwater.models.limits import positions_of
from headwater.models.load import LoadedModel, wrap_model
from zoo import tiny_loaded, tiny_tokenizer, zoo

PROMPTS = ["Hello", "What is the capital of France?", "A much longer prompt about the weather, plants and light", "The"]


def greedy(loaded: LoadedModel, text: str, steps: int) -> str:
    """The slow truth: one full forward pass a token, no cache, no batch."""
    ids = loaded.tokenizer(text)["input_ids"]
    said: list[int] = []
    while len(said) < steps:
        said.append(int(loaded.model(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax()))
        if said[-1] == loaded.tokenizer.eos_token_id:
            break
    return str(loaded.tokenizer.decode(said, skip_special_tokens=True))


@pytest.mark.parametrize("name", zoo())
def test_batched_greedy_responses_are_the_models_argmax(name: str) -> None:
    loaded = tiny_loaded(name)
    found = generate_responses(loaded, PROMPTS, max_new_tokens=8, batch_size=3)
    assert found == [greedy(loaded, text, 8) for text in PROMPTS]


def test_it_stops_at_the_end_token_and_strips_it() -> None:
    model = zoo()["phi"]()
    model.lm_head.bias.data[0] = 1e4
    loaded = wrap_model(model, tiny_tokenizer())
    assert generate_responses(loaded, PROMPTS) == [""] * 4
    model.generation_config.eos_token_id = None
    steps: list[int] = []
    model.lm_head.register_forward_hook(lambda *_: steps.append(1))
    assert generate_responses(loaded, PROMPTS) == [""] * 4, "the tokenizer's end token stops too"
    assert len(steps) == 1
    model.generation_config.eos_token_id = [7, 9]
    model.lm_head.bias.data[9] = 2e4
    assert {len(text) for text in generate_responses(loaded, PROMPTS)} == {1}, "any of the model's own stops"


def test_sampling_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    loaded = tiny_loaded("llama")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    once, again, other = (
        generate_responses(loaded, ["Hello"], max_new_tokens=16, temperature=1.0, seed=s) for s in (3, 3, 4)
    )
    assert once == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_the_models_own_decoding_defaults_play_no_part() -> None:
    loaded = tiny_loaded("llama")
    before = generate_responses(loaded, ["Hello"], max_new_tokens=8)
    loaded.model.generation_config.do_sample = True
    loaded.model.generation_config.temperature = 5.0
    loaded.model.generation_config.repetition_penalty = 3.0
    assert generate_responses(loaded, ["Hello"], max_new_tokens=8) == before


def test_a_start_token_is_added_once() -> None:
    loaded = wrap_model(zoo()["llama"](), tiny_tokenizer(bos=True))
    plain, rendered = (generate_responses(loaded, [text], max_new_tokens=8) for text in ("Hello", "<|start|>Hello"))
    assert plain == rendered
    assert plain == [greedy(loaded, "Hello", 8)]


def test_prompts_may_be_texts_token_ids_or_questions() -> None:
    loaded = tiny_loaded("llama", chat=True)
    tokenization = Tokenization.of(loaded.tokenizer, "chat")
    row = Row("a", 0, prompt="Hello")
    question = tokenization.question(row)
    text = tokenization.template.question_text(row)
    first, *others = (generate_responses(loaded, [p], max_new_tokens=8) for p in (question, question.ids, text))
    assert others == [first, first]


@pytest.mark.parametrize("template", ["Q: {prompt}\nAnswer: {response}", "{prompt} ->\t {response}"])
def test_a_model_writes_what_was_begun_and_then_what_the_logits_say(template: str) -> None:
    """The slow truth: of the tokens that go on with the text before the answer, the one with the highest logit."""
    loaded = tiny_loaded("llama")
    tokenization = Tokenization.of(loaded.tokenizer, template)
    row = Row("a", 0, prompt="What is the capital of France?")
    question = tokenization.question(row)
    assert question.begun[-1:] == " "
    ids, written = list(question.ids), ""
    while len(ids) < len(question.ids) + 6:
        logits = loaded.model(input_ids=torch.tensor([ids])).logits[0, -1]
        left = question.begun[len(written) :]
        for token in logits.argsort(descending=True).tolist():
            piece = loaded.tokenizer.decode([token])
            if not left or (piece and (piece.startswith(left) or left.startswith(piece))):
                break
        ids.append(token)
        written += piece
    for others in ([], [Row("b", 1, prompt="Who is there, and what is the weather like?")]):
        asked = [question, *map(tokenization.question, others)]
        answer = generate_answers(loaded, asked, max_new_tokens=6)[0]
        assert answer.ids == tuple(ids[len(question.ids) :])
        assert answer.text == loaded.tokenizer.decode(answer.ids).removeprefix(question.begun)


def test_a_model_goes_on_as_it_likes_where_the_template_has_no_text_before_an_answer() -> None:
    loaded = tiny_loaded("llama")
    question = Tokenization.of(loaded.tokenizer, "plain").question(Row("a", 0, prompt="Hello"))
    (answer,) = generate_answers(loaded, [question], max_new_tokens=8)
    assert answer.text == greedy(loaded, "Hello", 8)
    assert (question.begun, question.joint) == ("", " ")
    shown = {" Paris": "Paris", "Paris": "Paris", "  Paris": "  Paris", "\n x": "\n x", " ": " "}
    assert {said: said[question.before_answer(said) :] for said in shown} == shown


def test_a_turns_own_closing_token_ends_an_answer() -> None:
    """The token behind the answer, not one that the template writes between the generation prompt and the answer."""
    model = zoo()["phi"]()
    tokenizer = tiny_tokenizer(chat=True)
    parts = (("{{ eos_token }}", "<|system|>"), ("{{ m['content'] }}", "<|pad|>{{ m['content'] }}"))
    for before, after in parts:
        tokenizer.chat_template = tokenizer.chat_template.replace(before, after)
    closing = tokenizer.convert_tokens_to_ids("<|system|>")
    model.lm_head.bias.data[closing] = 1e4
    loaded = wrap_model(model, tokenizer)
    for targets in (None, "all"):
        question = Tokenization.of(tokenizer, "chat", targets=targets).question(Row("a", 0, prompt="Hello"))
        assert question.ends == (closing,)
    (answer,) = generate_answers(loaded, [question], max_new_tokens=8)
    assert answer == ("", True, (closing,))


def test_requests_that_make_no_sense_are_refused() -> None:
    loaded = tiny_loaded("llama")
    with pytest.raises(UsageError, match=r"temperature 0.5 with seed None"):
        generate_responses(loaded, ["Hello"], temperature=0.5)
    with pytest.raises(UsageError, match=r"temperature -1"):
        generate_responses(loaded, ["Hello"], temperature=-1.0, seed=0)
    with pytest.raises(DataError, match=r"a prompt without tokens"):
        generate_responses(loaded, [""])
    assert generate_responses(loaded, []) == []


def test_an_answer_ends_where_the_positions_do(gpt2: LoadedModel) -> None:
    """Learned positions have an end: a longer answer is cut there, also beside a shorter prompt."""
    positions = positions_of(gpt2.model)
    assert positions is not None
    long, short = [5] * (positions - 3), [5, 6, 7]
    alone = [generate_answers(gpt2, [prompt], max_new_tokens=9)[0] for prompt in (long, short)]
    assert generate_answers(gpt2, [long, short], max_new_tokens=9) == alone
    assert len(alone[0].ids) <= 3
    with pytest.raises(
        DataError, match=rf"prompt 1: the prompt has {positions} tokens, and the model reads {positions}"
    ):
        generate_answers(gpt2, [[5] * positions])


@pytest.fixture
def gpt2() -> LoadedModel:
    return tiny_loaded("gpt2")
