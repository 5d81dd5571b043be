"""Preference pairs become two rows when asked, each with its own answer as the only target."""

from __future__ import annotations

from typing import Any

import pytest
from spot_tokenizers import CHATML, byte_level

from headwater.core.errors import DataError, HeadwaterError, UsageError
from headwater.data.corpus import open_corpus
from headwater.data.pairs import SIDES
from headwater.data.templates import resolve_template

USER = {"role": "user", "content": "Tide?"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("High.", "Who knows."))
EARLIER = [USER, {"role": "assistant", "content": "When?"}, {"role": "user", "content": "Noon."}]

PAIRS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "Tide?", "chosen": "High.", "rejected": "Who knows."},
    "chats": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "a text and chats": {"prompt": "Tide?", "chosen": [GOOD], "rejected": [BAD]},
    "whole chats": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "whole chats beside the prompt": {"prompt": "Tide?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "earlier turns": {"chosen": [*EARLIER, GOOD], "rejected": [*EARLIER, BAD]},
    "earlier turns in the prompt": {"prompt": EARLIER, "chosen": [GOOD], "rejected": [BAD]},
    "with the other columns of a preference set": {
        "prompt": "Tide?",
        "chosen": [USER, GOOD],
        "rejected": [USER, BAD],
        "messages": [USER, GOOD],
        "preference": "mine",
    },
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("given", ["7", None])
def test_a_pair_is_two_rows(kind: str, given: str | None) -> None:
    corpus = open_corpus([{"id": given, "score_chosen": 3.5, **PAIRS[kind]}], pairs="rows")
    assert corpus.count is None
    rows = list(corpus)
    pair = rows[0].metadata["pair"]
    assert [row.id for row in rows] == [f"{pair}:chosen", f"{pair}:rejected"]
    assert given is None or pair == given
    assert [row.metadata["preference"] for row in rows] == ["chosen", "rejected"]
    assert [row.response for row in rows] == ["High.", "Who knows."]
    assert all(row.metadata["score_chosen"] == 3.5 for row in rows)
    assert [row.ordinal for row in rows] == [0, 1]
    template = resolve_template("chat", byte_level(chat=CHATML))
    for row in rows:
        rendered = template.render(row)
        assert [rendered.text[start:end] for start, end in rendered.targets] == [f"{row.response}<|im_end|>"]
        assert rendered.text.count("<|im_start|>assistant") == (2 if "earlier" in kind else 1)
    if kind.startswith("with"):
        assert rows[0].metadata["preference_"] == "mine"


def test_mapped_columns_and_other_rows() -> None:
    records = [{"ask": "Tide?", "better": "High.", "worse": "Low."}, {"prompt": "p", "response": "r"}]
    mapping = {"prompt": "ask", "chosen": "better", "rejected": "worse"}
    rows = list(open_corpus(records[:1], mapping=mapping, pairs="rows"))
    assert [(row.prompt, row.response) for row in rows] == [("Tide?", "High."), ("Tide?", "Low.")]
    rows = list(open_corpus([PAIRS["texts"], records[1]], pairs="rows"))
    assert [row.response for row in rows] == ["High.", "Who knows.", "r"]
    assert len(list(open_corpus([PAIRS["texts"], records[1]], pairs="rows", limit=2))) == 2


ORCA = {"system": "Be brief.", "question": "Tide?", "chosen": "High.", "rejected": "Low."}


def test_the_named_column_of_a_pair_is_its_prompt() -> None:
    rows = list(open_corpus([{"id": 1.0, **ORCA}], mapping={"prompt": "question"}, pairs="rows"))
    assert [(row.id, row.prompt) for row in rows] == [("1:chosen", "Tide?"), ("1:rejected", "Tide?")]


FAULTS: dict[str, tuple[str | None, dict[str, Any], type[HeadwaterError], str]] = {
    "nobody asked": (
        None,
        PAIRS["texts"],
        DataError,
        "memory:1: a preference pair "
        "(`--pairs rows`, where a command has it, reads two rows; elsewhere keep one answer, as `response`)",
    ),
    "another name of the prompt": (
        None,
        ORCA,
        DataError,
        "memory:1: a preference pair"
        " (`--pairs rows --column prompt=question`, where a command has it, reads two rows; elsewhere keep one answer, "
        "as `response`)",
    ),
    "another name of the prompt, asked": (
        "rows",
        ORCA,
        DataError,
        "memory:1: a preference pair without a column 'prompt'"
        " (--column prompt=question reads the prompt from 'question')",
    ),
    "no prompt": (
        "rows",
        {"chosen": "High.", "rejected": "Low."},
        DataError,
        "memory:1: a preference pair of texts without a prompt"
        " (give the prompt as a column of its own, or both answers as lists of messages)",
    ),
    "no pair": (
        "dpo",
        {"prompt": "Tide?", "response": "High."},
        DataError,
        "memory:1: not a preference pair: no chosen and rejected answer"
        " (leave it out, or put rows with one answer into an index of their own)",
    ),
    "typo": ("row", PAIRS["texts"], UsageError, "--pairs: unknown way to read pairs 'row' (did you mean 'rows'?)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_pairs_that_cannot_be_read_are_refused(fault: str) -> None:
    pairs, record, kind, message = FAULTS[fault]
    with pytest.raises(kind) as caught:
        list(open_corpus([record], pairs=pairs))
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", ["texts", "chats", "whole chats"])
def test_equal_pairs_without_ids_have_names_of_their_own(kind: str) -> None:
    corpus = open_corpus([PAIRS[kind], PAIRS["earlier turns"], PAIRS[kind], PAIRS[kind]], pairs="rows")
    rows = list(corpus)
    first, other, second, third = (row.metadata["pair"] for row in rows[::2])
    assert (second, third) == (f"{first}~2", f"{first}~3")
    assert other != first
    assert [row.id for row in rows] == [f"{p}:{s}" for p in (first, other, second, third) for s in SIDES]
    assert [row.id for row in corpus] == [row.id for row in rows]


def test_a_pair_of_chats_has_the_system_column_as_its_system_turn() -> None:
    for row in open_corpus([{**PAIRS["whole chats"], "system": "Be brief."}], pairs="rows"):
        assert row.messages is not None
        assert [message["role"] for message in row.messages] == ["system", "user", "assistant"]


BESIDE = {
    "messages": {"messages": [USER, GOOD], "prompt": "Tide?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "response": {"prompt": "Tide?", "response": "High.", "chosen": "High.", "rejected": "Who knows."},
    "text": {"text": "Tide? High.", "chosen": "High.", "rejected": "Who knows."},
}


@pytest.mark.parametrize("role", BESIDE)
def test_a_pair_beside_an_answer_is_not_dropped_without_a_word(role: str) -> None:
    record = {"id": "7", **BESIDE[role]}
    with pytest.raises(DataError, match=f"a preference pair .* beside .*--pairs rows.*--column {role}={role}"):
        list(open_corpus([record]))
    (row,) = open_corpus([record], mapping={role: role})  # the two remedies
    assert row.metadata["rejected"] == record["rejected"]
    if "prompt" in record:
        assert len(list(open_corpus([record], pairs="rows"))) == 2


def test_columns_that_only_have_the_names_of_a_pair_are_metadata() -> None:
    (row,) = open_corpus([{"prompt": "Tide?", "response": "High.", "chosen": 1, "rejected": float("nan")}])
    assert row.metadata["chosen"] == 1
    (query,) = open_corpus([{"prompt": "Tide?", "chosen": "High.", "rejected": "No."}], need_response=False)
    assert query.prompt == "Tide?"


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("value", "fault"), [("  ", "is empty"), (7, "is of type int"), (["a"], "is of type list")])
def test_what_is_wrong_with_an_answer_is_told_by_its_own_column(side: str, value: Any, fault: str) -> None:
    with pytest.raises(DataError, match=f"'{side}' {fault}"):
        list(open_corpus([{**PAIRS["texts"], side: value}], pairs="rows"))
