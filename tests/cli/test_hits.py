"""Hits carry the row itself: what a trace found is what is forgotten and what is deleted, token for token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_commands import headwater, lines

import headwater as hw
from headwater.cli.trace import _folded
from headwater.core.trace import Hit, QueryTrace, Trace
from headwater.data.corpus import open_corpus
from headwater.data.hits import open_rows_or_hits
from headwater.data.records import as_given, as_record
from headwater.data.shapes import read_row
from headwater.data.tokens import Tokenization
from headwater.unlearning.rows import read_forget
from zoo import tiny_loaded, tiny_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
ROWS = [
    {
        "id": f"c{i}",
        "messages": [
            *([SYSTEM] if i % 2 else []),
            {"role": "user", "content": f"Bees {i}?"},
            {"role": "assistant", "content": f"They gather {i}."},
            {"role": "user", "content": f"Tide {i}?"},
            {"role": "assistant", "content": f"It is high {i}."},
        ],
        "score": i / 8,
        "question": "kept as metadata",
        "provider": "a",
    }
    for i in range(12)
]
TOOL = {
    "type": "function",
    "function": {"name": "tide", "description": "How high", "parameters": {"b": 1, "a": 2}},
}
CALL = {"type": "function", "function": {"name": "tide", "arguments": {"when": "noon", "at": "pier"}}}
ROWS[4]["tools"] = [TOOL]
ROWS[4]["messages"][2] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ROWS[4]["messages"][3] = {"role": "tool", "name": "tide", "content": "high"}
ROWS[5]["messages"][2]["weight"] = 0
TEMPLATE = (
    "{% if tools %}<|system|>{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
QUERIES = [
    {"id": f"q{i}", "prompt": "Tide 3?", "response": answer} for i, answer in enumerate(["It is high 3.", "They."])
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """An index of chats with several turns, and the hits of two queries on it."""
    folder = tmp_path_factory.mktemp("hits")
    loaded = tiny_loaded("llama", chat=True)
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.chat_template = TEMPLATE
    loaded.tokenizer.save_pretrained(folder / "model")
    lines(folder / "train.jsonl", ROWS)
    lines(folder / "queries.jsonl", QUERIES)
    columns = ("--column", "messages=messages")
    run(folder, "index", "build", "i.lance", "--model", "model", "--data", "train.jsonl", *columns)
    run(folder, "trace", "i.lance", "--queries", "queries.jsonl", "--top", 12, "--out", "hits.jsonl")
    return folder


def run(folder: Path, *words: object, code: int = 0) -> str:
    done = headwater(*words, cwd=folder)
    assert done.returncode == code, done.stderr
    return done.stdout


def hits(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "hits.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_hit_has_the_rows_messages_and_metadata_beside_its_rank_and_score(place):
    given = {row["id"]: row for row in ROWS}
    found = hits(place)
    assert [(hit["query"], hit["rank"]) for hit in found] == [(q, r) for q in ("q0", "q1") for r in range(1, 13)]
    for hit in found:
        row = given[hit["id"]]
        assert hit["messages"] == row["messages"]
        assert (hit["score_"], hit["question_"], hit["provider"]) == (row["score"], row["question"], "a")
        assert hit["score"] != row["score"]


def test_the_forgotten_rows_have_the_tokens_of_the_training_rows(place):
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = TEMPLATE
    reading = Tokenization.of(tokenizer)
    trained = {row.row.id: row for row in reading.encode(list(open_corpus(ROWS, mapping={"messages": "messages"})))}
    forgotten = reading.encode(read_forget(place / "hits.jsonl"))
    assert len({row.row.id for row in forgotten}) == len(forgotten) == 12
    for row in forgotten:
        assert row.ids.tolist() == trained[row.row.id].ids.tolist()
        assert row.response.tolist() == trained[row.row.id].response.tolist()


def test_unlearning_and_deleting_act_on_the_rows_that_were_found(place):
    lines(place / "few.jsonl", [hit for hit in hits(place) if hit["rank"] <= 4])
    words = ("--forget", "few.jsonl", "--method", "ga", "--rate", "0.001", "--steps", 1, "--guard", 0, "--target", 99)
    account = json.loads(run(place, "unlearn", "--model", "model", *words, "--out", "run", "--json", code=1))
    found = {hit["id"] for hit in hits(place) if hit["rank"] <= 4}
    assert account["summary"]["forget_rows"] == len(found)
    rows = {row["id"]: row for row in ROWS}
    assert {s["prompt"] for s in account["samples"] if s["kind"] == "forget"} <= {
        as_prompt(rows[name]) for name in found
    }
    deleted = json.loads(run(place, "index", "delete", "i.lance", "--rows", "few.jsonl", "--json"))
    assert (deleted["deleted"], deleted["rows"]) == (len(found), len(ROWS) - len(found))
    assert not found & set(hw.open_index(place / "i.lance").ids())


def as_prompt(record: dict) -> str:
    (row,) = open_corpus([record], mapping={"messages": "messages"})
    return row.prompt or ""


@pytest.mark.parametrize(
    "record",
    [
        {"text": "All of it.", "rank": 3, "prompt": None},
        {"prompt": "a", "response": "b", "query": "SELECT 1", "hotwords": ["b"], "score_": 1, "score": 2},
        {"instruction": "a", "input": "c", "output": "b", "text": None, "loss": 0.5},
        {"messages": ROWS[1]["messages"]},
        {"messages": ROWS[4]["messages"], "tools": [TOOL], "chat_template_kwargs": {"thinks": False}},
    ],
)
def test_a_record_of_a_row_is_read_as_the_same_row(record):
    row = read_row({"id": "x", **record}, {}, "here", 0)
    again = read_row(as_record(row), {}, "there", 0)
    assert as_given(again) == as_given(row)
    assert again.fields() == row.fields()
    assert list(again.metadata.values()) == list(row.metadata.values())
    assert not {"query", "rank", "score"} & again.metadata.keys()


def test_rows_that_a_call_gave_can_be_given_to_the_next_one():
    """`hw.unlearn(model, chosen.forget, retain=chosen.retain)`, as the documentation of `hw.choose_forget` has it."""
    chat = ({"role": "user", "content": "hey?"}, {"role": "assistant", "content": "ho."})
    rows = list(open_corpus([{"id": "a", "prompt": "x", "response": "y", "kind": "odd"}, {"messages": chat}]))
    for again in (open_corpus(rows), open_rows_or_hits(rows)):
        found = list(again)
        assert [row.id for row in found] == [row.id for row in rows]
        assert [row.fields() for row in found] == [row.fields() for row in rows]
        assert found[0].metadata == rows[0].metadata
        assert found[1].messages == rows[1].messages


def test_hits_in_memory_are_rows_too_and_other_rows_may_repeat():
    hit = Hit(1, "x", 0.5, {"text": "a"}, {"by": "me"})
    trace = Trace("rise", {}, tuple(QueryTrace(q, None, "r", None, (hit,)) for q in ("q1", "q2")))
    assert trace.hits()[0] == {"query": "q1", "rank": 1, "id": "x", "score": 0.5, "by": "me", "text": "a"}
    assert [row.id for row in open_rows_or_hits(trace.hits())] == ["x"]


def test_hits_that_read_the_same_are_one_line_that_names_them(tmp_path):
    same = [{"id": f"same{i}", "prompt": "Is it so?", "response": "It is."} for i in range(12)]
    other = [{"id": "other", "prompt": "Why?", "response": "Because."}]
    hw.build(tmp_path / "s.lance", model=tiny_loaded("llama"), data=[*same, *other])
    found = hw.trace(hw.open_session(tmp_path / "s.lance", tiny_loaded("llama")), same[:1], top=13)
    first, second = _folded(found.queries[0].hits)
    assert (first[0], second[0], second[2]) == (1, 13, "other")
    assert first[3].startswith("Is it so? → It is. (×12, ids same0, same1, ")
    assert first[3].endswith(", same9, …)")
    assert second[3] == "Why? → Because."
