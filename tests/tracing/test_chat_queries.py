"""A query that is a chat: the answer to its last question is generated and traced, or the last answer that it has.

The right scores are inner products of whole gradients, from autograd on token ids that the tokenizer itself gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.errors import UsageError
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.tracing.queries import ask
from oracles.gradient_oracles import row_gradients, token_row
from zoo import tiny_loaded

NEW = 5


def chat(*turns: str, **fields: Any) -> dict[str, Any]:
    """A chat of turns `role: text`."""
    messages = [{"role": role, "content": text} for role, text in (turn.split(": ", 1) for turn in turns)]
    return {"messages": messages, **fields}


ROWS = [
    chat("user: Tide at noon?", "assistant: It is high.", id="tide"),
    chat("user: And six?", "assistant: It is low.", id="six"),
    chat("user: Bees?", "assistant: They gather nectar.", id="bees"),
]
ASKED = {
    "user": chat("user: Tide at noon?"),
    "system, user": chat("system: Be brief.", "user: Tide at noon?"),
    "user, assistant, user": chat("user: Bees?", "assistant: They gather nectar.", "user: Tide at noon?"),
}
ANSWERED = chat("user: Bees?", "assistant: They gather nectar.", "user: Tide at noon?", "assistant: It is high.")


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Any:
    loaded = tiny_loaded("llama", chat=True)
    path = tmp_path_factory.mktemp("chats") / "i.lance"
    hw.build(path, model=loaded, data=ROWS, method="graddot", settings={"sketch": "identity", "preset": "full"})
    return hw.open_session(path, model=loaded)


def gradient(session: Any, text: str, said: list[str]) -> torch.Tensor:
    """The gradient of the mean loss of these parts of the text; each occurs once and is a whole number of tokens."""
    loaded = session.bound.reader.loaded
    encoding = loaded.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    spans = [(text.index(part), text.index(part) + len(part)) for part in said]
    inside = [any(a < end and b > start for start, end in spans) for a, b in encoding["offset_mapping"]]
    return ids_gradient(session, encoding["input_ids"], inside)


def ids_gradient(session: Any, ids: list[int], inside: list[bool]) -> torch.Tensor:
    row = token_row(np.array(ids), np.array(inside), "q0")
    found = row_gradients(session.bound.reader.loaded.model, row)
    return torch.cat([g.flatten().double() for g in found.values()])


def rendered(session: Any, messages: list[dict[str, str]], **how: Any) -> str:
    return str(session.bound.reader.loaded.tokenizer.apply_chat_template(messages, tokenize=False, **how))


def right(session: Any, query: torch.Tensor) -> dict[str, float]:
    scores = {}
    for row in ROWS:
        answer = row["messages"][1]["content"] + "<|end|>"
        scores[row["id"]] = float(gradient(session, rendered(session, row["messages"]), [answer]) @ query)
    return scores


def found(session: Any, query: dict[str, Any], **how: Any) -> tuple[Any, dict[str, float]]:
    (traced,) = hw.trace(session, [{"id": "q", **query}], max_new_tokens=NEW, **how).queries
    return traced, {hit.id: hit.score for hit in traced.hits}


@pytest.mark.parametrize("name", ASKED)
def test_a_chat_that_ends_with_a_question_is_answered_and_that_answer_is_traced(session, name):
    messages = ASKED[name]["messages"]
    traced, scores = found(session, ASKED[name])
    tokenizer, model = session.bound.reader.loaded.tokenizer, session.bound.reader.loaded.model
    asked = tokenizer(rendered(session, messages, add_generation_prompt=True))["input_ids"]
    ids = list(asked)
    while len(ids) < len(asked) + NEW and ids[-1] != tokenizer.eos_token_id:
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert traced.generated
    assert traced.response == tokenizer.decode(ids[len(asked) :], skip_special_tokens=True)
    assert "Tide at noon?" in (traced.prompt or "")
    expected = right(session, ids_gradient(session, ids, [i >= len(asked) for i in range(len(ids))]))
    assert scores == pytest.approx(expected, rel=2e-3)


def test_a_chat_with_answers_is_traced_for_the_last_one_and_for_all_only_if_asked(session):
    text = rendered(session, ANSWERED["messages"])
    first, last = "They gather nectar.<|end|>", "It is high.<|end|>"
    for targets, said in {"last": [last], "response": [last], "assistant": [first, last]}.items():
        traced, scores = found(session, ANSWERED, targets=targets)
        assert (traced.generated, traced.response) == (False, "It is high.")
        assert scores == pytest.approx(right(session, gradient(session, text, said)), rel=2e-3)
    assert found(session, ANSWERED)[1] == found(session, ANSWERED, targets="last")[1]
    scored = hw.score(session, [{"id": "q", **ANSWERED}])
    assert dict(zip(scored.ids, scored.values[:, 0].tolist(), strict=True)) == pytest.approx(
        found(session, ANSWERED)[1]
    )
    everything = hw.score(session, [{"id": "q", **ANSWERED}], targets="assistant").values
    assert not np.allclose(everything, scored.values, rtol=1e-3)
    with pytest.raises(UsageError, match="targets"):
        hw.trace(session, [ANSWERED], targets="latest")


def test_the_last_answer_is_asked_about_even_if_a_training_row_would_not_learn_it(session):
    unlearned = {"messages": [*ANSWERED["messages"][:3], {**ANSWERED["messages"][3], "weight": 0}]}
    assert found(session, unlearned)[1] == pytest.approx(found(session, ANSWERED)[1])


def test_a_trace_says_what_it_is_about_and_keeps_maps_and_spans_of_what_was_said(session):
    trace = hw.trace(session, [{"id": "q", **ASKED["system, user"]}], max_new_tokens=NEW, tokens=True)
    assert trace.about["asked about"].startswith("the last answer")
    query = trace.queries[0]
    assert query.losses is not None
    assert "".join(query.losses.tokens).endswith(query.response)
    values = query.hits[0].query_tokens
    assert values is not None
    assert sum(v for v in values.values if v is not None) == pytest.approx(query.hits[0].score, rel=1e-3)
    assert sum(1 for v in values.values if v) == NEW
    (whole,) = hw.trace(session, prompt="Tide at noon?", max_new_tokens=NEW).queries
    (part,) = hw.trace(session, prompt="Tide at noon?", span=whole.response[:2], max_new_tokens=NEW).queries
    assert part.generated
    assert part.response == whole.response
    assert part.hits[0].score != whole.hits[0].score


def test_what_the_model_said_is_never_tokenised_again(session):
    (row,) = open_corpus([{"id": "q", **ASKED["system, user"]}], need_response=False)
    asked = ask(session, [row, Row("p", 1, prompt="Bees?")], max_new_tokens=NEW)
    for query, tokens in zip(asked.rows, asked.read.tokens, strict=True):
        assert query.said is not None
        assert tokens.ids[tokens.response].tolist() == list(query.said)
