"""With the chat templates of real models a question is the beginning of the row, and knows what ends an answer."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from spot_tokenizers import byte_level
from test_trl_templates import SOURCES

from headwater.data.rows import Row
from headwater.data.tokens import Tokenization

MARKS = re.compile(r"<[|｜][^<>\s]+[|｜]>|<end_of_turn>|<turn\|>|<end_of_utterance>")
USER, ANSWER = {"role": "user", "content": "Tide at noon?"}, {"role": "assistant", "content": "It is high."}


@pytest.mark.parametrize("name", SOURCES)
def test_a_question_begins_the_row(name: str) -> None:
    tokenizer = byte_level(chat=SOURCES[name])
    tokenizer.add_tokens(sorted(set(MARKS.findall(SOURCES[name]))), special_tokens=True)
    reading = Tokenization.of(tokenizer)
    row = Row("a", 0, messages=(USER,), prompt="Tide at noon?", place="a:1")
    answered = replace(row, messages=(USER, ANSWER), response="It is high.")
    question = reading.question(row)
    assert question == reading.question(answered)
    (tokens,) = reading.encode([answered])
    assert list(question.ids) == tokens.ids[: len(question.ids)].tolist()
    start = int(tokens.response.argmax())
    behind = tokens.text[len(question.text) : tokens.text.index("It is high.")]
    assert "Tide" not in behind
    if not name.endswith("_training"):  # their marks may begin before the generation prompt ends
        assert tokens.text[len(question.text) : int(tokens.offsets[start, 0])] in ("", question.begun)
    said = tokens.text[tokens.text.index("It is high.") + len("It is high.") :]
    assert said.lstrip().startswith(tokenizer.decode(question.ends))
    assert question.ends
