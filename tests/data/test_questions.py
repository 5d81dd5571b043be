"""What a model is asked with is the beginning of the training row; what it said is read as the row with that answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spot_tokenizers import CHAT_TEMPLATES, byte_level, every_tokenizer, llama_bpe
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers

from headwater.data.questions import Speech
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization
from zoo import tiny_tokenizer

QUICK = settings(max_examples=25, deadline=None)
ANSWERS = st.sampled_from(["Paris", "the cat sat.", "Übung", "東京", "I do", "xyz 4", "A"])
PROMPTS = st.sampled_from(["what is it?", "the cat", "Say:", "two\nlines", "東京?", "dots...", "a", "what is it?\n"])
FORMATS = ("Answer: {response}", "Answer:{response}", "{response}", "###\n{response}", "-> \t{response}")


def digits_apart() -> Any:
    """Byte-level BPE that cuts digits off, as Llama 3's does: a space before a number is a token of its own."""
    tokenizer = byte_level()
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    pattern = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    split = pre_tokenizers.Split(pattern, behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return type(tokenizer)(tokenizer_object=backend, eos_token="</s>")


def with_decoder() -> Any:
    """Llama 2's kind of tokenizer, with the decoder that it has; a text's first space is dropped."""
    tokenizer = llama_bpe()
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(parts)
    return type(tokenizer)(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {**every_tokenizer(), "digits apart": digits_apart(), "llama": with_decoder()}
READINGS = {
    (name, template): Tokenization.of(tokenizer, template)
    for name, tokenizer in TOKENIZERS.items()
    for template in ("plain", "alpaca", *(f"Question: {{prompt}}\n{end}" for end in FORMATS))
}
CHATS = {name: Tokenization.of(byte_level(bos=True, chat=program), "chat") for name, program in CHAT_TEMPLATES.items()}


def require_beginning(reading: Tokenization, asked: Row, answered: Row) -> None:
    """The question's ids begin the row's and end where its first target starts, or what was begun before it."""
    question = reading.question(asked)
    (row,) = reading.encode([answered])
    start = int(row.response.argmax())
    if reading.tokenizer.unk_token_id in row.ids[start - 1 : start + 1]:
        return  # several unknown signs may be one token
    asked_ids = list(question.ids)
    assert row.ids[: len(asked_ids)].tolist() == asked_ids
    assert row.text.startswith(question.text + question.begun)
    first = row.text[len(question.text) : int(row.offsets[start, 0])]
    assert (start, first) == (len(asked_ids), "") or first == question.begun + question.joint != ""


@QUICK
@given(prompt=PROMPTS, answer=ANSWERS)
@pytest.mark.parametrize("key", READINGS, ids="|".join)
def test_a_question_is_the_row_up_to_its_first_target(key, prompt, answer):
    asked = Row("a", 0, prompt=prompt)
    require_beginning(READINGS[key], asked, replace(asked, response=answer))


@QUICK
@given(prompt=PROMPTS, answer=ANSWERS)
@pytest.mark.parametrize("name", CHATS)
def test_so_it_is_in_chats_of_any_length(name, prompt, answer):
    asked = Row("a", 0, prompt=prompt)
    require_beginning(CHATS[name], asked, replace(asked, response=answer))
    turns = [("system", "Be brief."), ("user", "Bees?"), ("assistant", "They gather."), ("user", prompt)]
    messages = tuple({"role": role, "content": content} for role, content in turns)
    whole = (*messages, {"role": "assistant", "content": answer})
    question = CHATS[name].question(replace(asked, messages=messages))
    assert question == CHATS[name].question(replace(asked, response=answer, messages=whole))
    (row,) = CHATS[name].encode([replace(asked, response=answer, messages=whole)])
    assert row.ids[: len(question.ids)].tolist() == list(question.ids)
    assert "Be brief." in question.text
    if name != "inst":  # its answers begin with a space that belongs to the answer's first token
        assert row.text[: len(question.text)] == question.text


@pytest.mark.parametrize("answer", ["14", "4 cats", "(b)", "'s", "</s>"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_before_a_number_or_a_sign_only_what_was_begun_stands_between(name, answer):
    reading = READINGS[name, "Question: {prompt}\nAnswer: {response}"]
    question = reading.question(Row("a", 0, prompt="how many?"))
    (row,) = reading.encode([Row("a", 0, prompt="how many?", response=answer)])
    assert row.ids[: len(question.ids)].tolist() == list(question.ids)
    start = int(row.response.argmax())
    assert row.text[len(question.text) : int(row.offsets[start, 0])] in ("", question.begun)
    assert start - len(question.ids) <= len(question.begun)


@QUICK
@given(prompt=PROMPTS, answer=ANSWERS | st.sampled_from(["14", "(b) yes", "👩‍👩‍👧", "a  b\n\nc"]))
@pytest.mark.parametrize(
    "key", [key for key in READINGS if key[0] in ("byte-level", "digits apart", "llama")], ids="|".join
)
def test_what_was_said_is_read_as_the_row_with_that_answer(key, prompt, answer):
    reading = READINGS[key]
    asked = Row("a", 0, prompt=prompt)
    (trained,) = reading.encode([replace(asked, response=answer)])
    said = tuple(trained.ids[len(reading.question(asked).ids) :].tolist())
    for role in ("train", "query"):
        (read,) = reading.encode([replace(asked, response=answer, said=said)], role)
        assert read.ids.tolist() == trained.ids.tolist()
        assert read.response.tolist() == trained.response.tolist()
        assert read.text == trained.text


def test_words_are_found_in_what_was_said_and_other_tokens_than_the_texts_own_are_kept():
    reading = READINGS["byte-level", "plain"]
    backend = byte_level().backend_tokenizer
    said = tuple(backend.token_to_id(letter) for letter in ("Ġ", "P", "a", "r", "i", "s"))
    row = Row("a", 0, prompt="where?", response="Paris", said=said)
    (whole,) = reading.encode([row], "query")
    assert whole.ids[-6:].tolist() == list(said)
    assert whole.response.tolist() == [False] * (len(whole.ids) - 5) + [True] * 5
    (part,) = reading.encode([replace(row, hotwords=("ari",))], "query")
    assert part.response.nonzero()[0].tolist() == [len(part.ids) - 4, len(part.ids) - 3, len(part.ids) - 2]


def test_bytes_of_one_character_have_its_offsets():
    backend = byte_level().backend_tokenizer
    ids = backend.encode("é👩x").ids
    said = Speech(backend, 420).spoken(ids)
    assert said.text == "é👩x"
    assert len(said.offsets) == len(ids)
    assert sorted(set(said.offsets)) == [(0, 1), (1, 2), (2, 3)]


def test_a_header_that_marks_count_as_answer_stays_in_the_question() -> None:
    """The marks begin before the header, and the generation prompt opens a thought that rows do not have."""
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|bot|>{{ m.content }}<|end|>"
        "{% endgeneration %}{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|bot|><think>\n{% endif %}"
    )
    template = Tokenization.of(tokenizer).template
    assert template.question_text(Row("a", 0, prompt="moon?")) == "<|user|>moon?<|bot|>"
