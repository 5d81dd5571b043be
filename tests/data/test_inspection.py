"""Rows that cannot be used: one pass names all of them, or leaves them out; ids can be made from the rows."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from headwater.core.errors import DataError, UsageError
from headwater.data.corpus import open_corpus
from headwater.data.inspection import require_usable
from headwater.data.tokens import Tokenization
from zoo import tiny_tokenizer

NAN = float("nan")
GOOD = {"prompt": "What is it?", "response": "A fox."}


def lines(*rows: Any) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file whose good rows are the first and the last."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        lines(
            {"id": "a", **GOOD},
            {"id": "b", "prompt": "Why?", "response": NAN},
            {"id": "c", "prompt": "Why?", "response": None},
            {"id": "d", "prompt": "Why?", "response": "  "},
            {"id": "a", "prompt": "Why?", "response": "Because."},
            '{"id": "e", "prompt": ',
            "[1, 2]",
            {"id": "f", "answers": 3},
            {"id": "g", "prompt": 5, "response": "x"},
            {"id": "h", "prompt": "word " * 40, "response": "late"},
            {"id": "z", **GOOD},
        )
    )
    return path


REASONS = {
    2: "no text: 'response' is NaN",
    3: "no text: 'response' is null",
    4: "no text: 'response' is empty",
    5: "id 'a' is already that of {path}:1",
    6: "not JSON: Expecting value at line 1 column 22",
    7: "a row of type list",
    8: "no text: no known shape fits the columns id, answers",
    9: "'prompt' is of type int, not text",
    10: "the first target is token",
}


def tokenization(max_tokens: int = 60) -> Tokenization:
    return Tokenization.of(tiny_tokenizer(), "{prompt} {response}", max_tokens)


def test_one_pass_names_every_row(mixed: Path) -> None:
    with pytest.raises(DataError) as caught:
        require_usable(open_corpus(mixed), tokenization())
    message = str(caught.value)
    assert message.startswith(f"{mixed}: 9 of 11 rows cannot be used: {mixed}:2: ")
    for line, reason in REASONS.items():
        assert f"{mixed}:{line}: {reason.format(path=mixed)}" in message
    assert "(the first: fill it in or drop the row; --skip-unusable leaves them out" in message
    assert "\n" not in message


def test_they_are_left_out_counted_and_listed_when_asked(mixed: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = mixed.with_name("unusable.jsonl")
    listed.write_text("of an earlier run\n")
    corpus = require_usable(open_corpus(mixed, skip_unusable=True, unusable_file=listed), tokenization())
    assert [(row.id, row.ordinal) for row in corpus] == [("a", 0), ("z", 1)]
    assert len(corpus.left_out) == 9
    assert corpus.origin["left_out"] == sorted(REASONS)
    entries = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [entry["place"] for entry in entries] == [f"{mixed}:{line}" for line in REASONS]
    assert all(e["reason"].startswith(r.format(path=mixed)) for e, r in zip(entries, REASONS.values(), strict=True))
    assert "9 of 11 rows cannot be used" in caplog.text
    again = require_usable(corpus, tokenization())
    assert [row.id for row in again] == ["a", "z"]


def test_what_only_tokens_show_is_found_by_a_second_pass_and_added(mixed: Path) -> None:
    listed = mixed.with_name("unusable.jsonl")
    first = require_usable(open_corpus(mixed, skip_unusable=True, unusable_file=listed))
    assert len(first.left_out) == 8
    second = require_usable(first, tokenization())
    assert [row.id for row in second] == ["a", "z"]
    assert len(listed.read_text().splitlines()) == 9


def test_a_single_one_keeps_its_own_message(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(GOOD, {"prompt": "Why?", "response": NAN}))
    with pytest.raises(DataError) as caught:
        require_usable(open_corpus(path))
    assert str(caught.value) == f"{path}:2: no text: 'response' is NaN (fill it in or drop the row)"


def test_ten_are_shown_and_the_others_counted_and_none_left_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(*[{"text": ""}] * 25))
    with pytest.raises(DataError, match="25 of 25 rows cannot be used") as caught:
        require_usable(open_corpus(path, skip_unusable=True))
    assert str(caught.value).count("'text' is empty") == 10
    assert "; and 15 more (no row is left" in str(caught.value)


def test_ragged_lines_of_a_table_are_rows_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,response\nWhat?,A fox.\nWhat?,A,fox.\nWho?,She.\n")
    corpus = require_usable(open_corpus(path, skip_unusable=True))
    assert [row.response for row in corpus] == ["A fox.", "She."]


def test_one_pass_inputs_can_be_inspected_and_read() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield dict(GOOD)
        yield {"prompt": "Why?", "response": None}

    corpus = require_usable(open_corpus(rows(), skip_unusable=True))
    assert [row.response for row in corpus] == ["A fox."]
    assert corpus.count == 1


def test_the_pass_holds_no_rows() -> None:
    class Many:
        """2,000 rows of 8 kB, made when they are asked for; `tracemalloc` is slow with many."""

        def __iter__(self) -> Iterator[dict[str, str]]:
            return ({"text": f"{i} " + "x" * 8000} for i in range(2000))

    corpus = open_corpus(Many())
    tracemalloc.start()
    require_usable(corpus)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20  # two batches of 512 rows take 8 MiB, all rows 16


def test_a_missing_context_is_an_empty_one() -> None:
    alone = {"instruction": "Go.", "output": "Ok."}
    frame = pd.DataFrame([{"instruction": "Add.", "input": "1 2", "output": "3"}, alone])
    records = [{**alone, "input": NAN}]
    assert [row.prompt for row in open_corpus(frame)] == ["Add.\n\n1 2", "Go."]
    assert [row.prompt for row in open_corpus(records)] == ["Go."]
    assert [row.metadata for row in open_corpus(records)] == [{}]


def test_ids_are_made_from_the_rows_when_asked() -> None:
    rows = [{"id": 1, **GOOD, "source": "w"}, {"id": 1, "text": "Another."}, {"id": 2, **GOOD}]
    with pytest.raises(DataError, match="`--ids row`, where a command has it, makes them from the rows"):
        list(open_corpus(rows))
    made = list(open_corpus(rows, ids="row"))
    assert [row.metadata for row in made] == [{"source": "w", "id_": "1"}, {"id_": "1"}, {"id_": "2"}]
    assert made[2].id == f"{made[0].id}~2"
    assert [row.id for row in made] == [row.id for row in open_corpus([{**r, "id": None} for r in rows])]
    with pytest.raises(UsageError, match="unknown way to get ids 'rows'"):
        open_corpus(rows, ids="rows")
