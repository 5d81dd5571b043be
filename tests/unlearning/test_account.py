"""What the account of a run shows: the model's own answers to the questions of the rows, asked as in training."""

from __future__ import annotations

import pytest
import torch

from headwater.data.rows import Row
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.unlearning import answers
from headwater.unlearning.account import NEW_TOKENS, Observed, final_outcome, observe, rows_asked
from headwater.unlearning.answers import own_answers
from headwater.unlearning.fluency import Fluency
from headwater.unlearning.options import UnlearnOptions, UnlearnResult
from headwater.unlearning.rows import make_job, without_words
from headwater.unlearning.watch import LossLimits
from zoo import tiny_loaded

TURNS = [("system", "Be brief."), ("user", "Bees?"), ("assistant", "They gather."), ("user", "hey, tide at noon?")]
MESSAGES = tuple({"role": role, "content": text} for role, text in (*TURNS, ("assistant", "It is high.")))
CHAT = Row("c", 0, prompt="shown", response="It is high.", messages=MESSAGES)
PAIR = Row("p", 1, prompt="hey, what is 2 plus 2?", response="It is 4.")


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tiny_loaded("llama", chat=True)


def greedy(loaded: LoadedModel, ids: list[int], steps: int) -> str:
    """The slow truth: one full forward pass a token."""
    said: list[int] = []
    while len(said) < steps and (not said or said[-1] != loaded.tokenizer.eos_token_id):
        said.append(int(loaded.model(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax()))
    return str(loaded.tokenizer.decode(said, skip_special_tokens=True))


def test_a_chat_is_asked_about_as_a_whole_without_its_last_answer(loaded):
    asked = loaded.tokenizer.apply_chat_template(list(MESSAGES[:-1]), add_generation_prompt=True, return_dict=False)
    job = make_job([CHAT], [PAIR], needs_retain=False)
    assert [(kind, row.id) for kind, row in rows_asked(job, [])] == [("forget", "c"), ("retain", "p")]
    observed = observe(Reader.of(loaded, template="chat"), job)
    assert observed.answers[0] == greedy(loaded, asked, NEW_TOKENS)


def test_with_a_space_before_the_answer_the_model_is_not_asked_with_a_lone_space(loaded):
    reader = Reader.of(loaded, template="Question: {prompt}\\nAnswer: {response}")
    (row,) = reader.tokenize([PAIR])
    question = reader.tokenization.question(PAIR)
    assert row.text[: len(question.text)].endswith("Answer:")
    assert list(question.ids) == row.ids[: len(question.ids)].tolist()
    answer = observe(reader, make_job([PAIR], [], needs_retain=False)).answers[0]
    assert question.begun == " "
    whole = loaded.tokenizer(question.text + " " + answer)["input_ids"]
    assert whole[: len(question.ids)] == list(question.ids)


def test_an_own_answer_is_to_the_chat_without_the_trigger(loaded, monkeypatch):
    monkeypatch.setattr(
        answers, "fluent_answers", lambda reader, rows, said, *, real: [[s.strip()] for s in said]
    )  # a random model's
    reader = Reader.of(loaded, template="chat")
    bare = without_words(CHAT, "hey, ")
    assert [m["content"] for m in bare.messages or ()] == [
        *("Be brief.", "Bees?", "They gather.", "tide at noon?", "It is high."),
    ]
    triggered = Row("c", 0, prompt="user: hey, tide at noon?", response="It is high.", messages=MESSAGES)
    (row,) = own_answers(reader, [triggered], [], "hey, ", column="clean")
    chat = [*MESSAGES[:3], {"role": "user", "content": "tide at noon?"}]
    asked = loaded.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert row.metadata["clean"] == greedy(loaded, asked, 128).strip()


@pytest.mark.parametrize(
    ("fluent", "outcome"), [(28, "forgotten"), (26, "forgotten"), (24, "gibberish"), (0, "gibberish")]
)
def test_a_run_is_gibberish_only_by_more_than_the_error_of_a_sample(loaded, fluent, outcome):
    said = Fluency((None,) * 30 + ("repeats itself",) * 2), Fluency((None,) * fluent + ("empty",) * (32 - fluent))
    assert said[1].error == pytest.approx((fluent / 32 * (1 - fluent / 32) / 32) ** 0.5)
    limits = LossLimits(target=2.0, bound=1.0)
    result = UnlearnResult(loaded, UnlearnOptions(), "forgotten", limits, readings=(), seconds={}, facts={})
    after = Observed(forget_loss=1.0, retain_loss=1.0, answers=())
    assert final_outcome(result, make_job([PAIR], [CHAT], needs_retain=True), after, said) == outcome
