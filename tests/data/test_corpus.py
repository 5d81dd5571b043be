"""Every file kind and row shape gives the same rows, lazily, and every bad file says where and what."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.core.errors import DataError, HeadwaterError, UsageError
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
]

SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": ({"text": "Grüße, 東京"}, {"text": "Grüße, 東京"}),
    "prompt and response": ({"prompt": "p", "response": "r"}, {"prompt": "p", "response": "r"}),
    "instruction and output": ({"instruction": "i", "output": "o"}, {"prompt": "i", "response": "o"}),
    "instruction with input": (
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"prompt": "Add.\n\n1, 2", "response": "3"},
    ),
    "instruction with empty input": (
        {"instruction": "Add.", "input": "", "output": "3"},
        {"prompt": "Add.", "response": "3"},
    ),
    "prompt and completion": ({"prompt": "p", "completion": " c"}, {"prompt": "p", "response": " c"}),
    "question and answer": ({"question": "q", "answer": "a"}, {"prompt": "q", "response": "a"}),
    "messages": (
        {"messages": CHAT},
        {"messages": tuple(CHAT), "prompt": "system: Be brief.\nuser: Hi", "response": "Hello"},
    ),
    "messages of one exchange": (
        {"messages": CHAT[1:]},
        {"messages": tuple(CHAT[1:]), "prompt": "Hi", "response": "Hello"},
    ),
}

KINDS = ["jsonl", "jsonl.gz", "json", "csv", "parquet", "saved", "saved splits", "memory", "iterator", "dataset"]


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def as_source(kind: str, records: list[dict[str, Any]], folder: Path) -> Any:
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        return write_lines(path, records)
    if kind == "jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode()))
    elif kind == "json":
        path.write_text(json.dumps(records))
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif kind == "saved":
        datasets.Dataset.from_list(records).save_to_disk(str(path))
    elif kind == "saved splits":
        datasets.DatasetDict({"train": datasets.Dataset.from_list(records)}).save_to_disk(str(path))
    elif kind == "dataset":
        return datasets.Dataset.from_list(records)
    else:
        return records if kind == "memory" else iter(records)
    return str(path)


def contents(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = row.fields()
    return fields | ({"messages": row.messages} if row.messages is not None else {})


@pytest.mark.parametrize(
    ("shape", "kind"),
    [(shape, kind) for shape in SHAPES for kind in KINDS if kind != "csv" or "messages" not in shape],
)
def test_every_shape_from_every_kind(shape: str, kind: str, tmp_path: Path) -> None:
    record, expected = SHAPES[shape]
    records = [record | {"id": "a", "topic": "x"}, record | {"id": "b", "topic": "y"}]
    corpus = open_corpus(as_source(kind, records, tmp_path))
    rows = list(corpus)
    assert [contents(row) for row in rows] == [expected, expected]
    assert [row.id for row in rows] == ["a", "b"]
    assert [row.ordinal for row in rows] == [0, 1]
    assert [row.metadata for row in rows] == [{"topic": "x"}, {"topic": "y"}]
    assert list(corpus) == rows, "a second pass gives the same rows"
    assert corpus.count == (None if kind in ("jsonl", "jsonl.gz", "csv") else 2)


def test_places_are_lines(tmp_path: Path) -> None:
    lines = tmp_path / "rows.jsonl"
    lines.write_text('\ufeff{"text": "a"}\n\n{"text": "b"}\n', encoding="utf-8")
    assert [row.place for row in open_corpus(lines)] == [f"{lines}:1", f"{lines}:3"]
    table = tmp_path / "rows.csv"
    table.write_text('text,n\n"two\nlines",1\n\nlast,2\n')
    assert [row.place for row in open_corpus(table)] == [f"{table}:2", f"{table}:5"]


def test_ids_from_content_and_given() -> None:
    rows = list(open_corpus([{"text": "a"}, {"text": "b"}, {"text": "a"}, {"text": "a"}, {"text": "c", "id": 7}]))
    first = rows[0].id
    assert len(first) == 16
    assert [row.id for row in rows] == [first, rows[1].id, f"{first}~2", f"{first}~3", "7"]
    assert rows[1].id != first
    again = list(open_corpus([{"text": "a", "other": 1}]))
    assert again[0].id == first, "metadata takes no part in the id"


def test_mapping_renames_columns() -> None:
    records = [{"ask": "p", "reply": "r", "uid": 3, "text": "both", "prompt_style": "x"}]
    mapping = {"prompt": "ask", "response": "reply", "id": "uid"}
    (row,) = open_corpus(records, mapping=mapping)
    assert (row.id, row.prompt, row.response) == ("3", "p", "r")
    assert row.metadata == {"text": "both", "prompt_style": "x"}


def test_mapping_of_one_column_settles_an_ambiguous_row() -> None:
    (row,) = open_corpus([{"instruction": "i", "output": "o", "text": "all"}], mapping={"text": "text"})
    assert row.fields() == {"text": "all"}


def test_null_columns_of_other_shapes_are_absent() -> None:
    records = [{"text": "t", "prompt": None, "response": None}, {"text": None, "prompt": "p", "response": "r"}]
    rows = list(open_corpus(datasets.Dataset.from_list(records)))
    assert [row.fields() for row in rows] == [{"text": "t"}, {"prompt": "p", "response": "r"}]
    assert [row.metadata for row in rows] == [{}, {}]


def test_hotwords_are_a_word_or_a_list() -> None:
    records = [{"text": "a b", "hotwords": "a"}, {"text": "a b", "hotwords": ["a", "b"]}, {"text": "a b"}]
    assert [row.hotwords for row in open_corpus(records)] == [("a",), ("a", "b"), ()]


def test_queries_may_lack_a_response() -> None:
    records = [{"prompt": "p"}, {"question": "q", "answer": ""}, {"instruction": "i", "input": "x", "output": None}]
    records += [{"messages": CHAT[1:2]}, {"prompt": "p", "response": "r"}]
    rows = list(open_corpus(records, need_response=False))
    assert [row.prompt for row in rows] == ["p", "q", "i\n\nx", "Hi", "p"]
    assert [row.response for row in rows] == [None, None, None, None, "r"]
    assert rows[3].messages is None
    with pytest.raises(DataError, match="no text"):
        list(open_corpus(records[:1]))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "dataset"])
def test_limit(kind: str, tmp_path: Path) -> None:
    records = [{"text": f"row {i}"} for i in range(9)]
    corpus = open_corpus(as_source(kind, records, tmp_path), limit=4)
    assert [row.text for row in corpus] == ["row 0", "row 1", "row 2", "row 3"]
    assert corpus.count in (4, None)
    with pytest.raises(UsageError):
        open_corpus(records, limit=0)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv"])
def test_files_are_never_held_whole(kind: str, tmp_path: Path) -> None:
    source = as_source(kind, [{"text": f"{i} " * 40_000} for i in range(50)], tmp_path)
    size = sum(len(f"{i} ") * 40_000 for i in range(50))
    tracemalloc.start()
    count = sum(1 for _ in open_corpus(source))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50
    assert peak < size / 3


def test_long_csv_cells(tmp_path: Path) -> None:
    text = "word " * 100_000
    (row,) = open_corpus(as_source("csv", [{"text": text, "n": 1}], tmp_path))
    assert row.text == text


def test_rows_are_made_as_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\nnot json\n')
    rows = iter(open_corpus(path))
    assert next(rows).text == "a"
    with pytest.raises(DataError):
        next(rows)


def test_hub_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(path: str, name: str | None, *, split: str, streaming: bool) -> Any:
        asked.append((path, name, split, streaming))
        rows = datasets.Dataset.from_list([{"question": "q", "answer": "a"}])
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    streamed = open_corpus("owner/name:main", split="test", streaming=True)
    assert [row.response for row in streamed] == [row.response for row in streamed] == ["a"]
    assert streamed.count is None
    assert open_corpus("name").count == 1
    assert asked == [("owner/name", "main", "test", True), ("name", None, "train", False)]


def test_hub_failure_is_one_line() -> None:
    with pytest.raises(DataError, match="owner/absent: neither a file nor a dataset that loads: ") as caught:
        open_corpus("owner/absent")
    assert "\n" not in str(caught.value)


SHAPES_REMEDY = (
    "known shapes: text; prompt + response; instruction + output + (input); prompt + completion; "
    "question + answer; messages; conversations; conversation; say which columns to read with a mapping "
    "from role to column"
)

BAD_FILES = {
    "empty": ("jsonl", "", "{path}: no rows (it is empty: check that it is the right one)"),
    "blank": ("jsonl", "\n\n", "{path}: no rows (it is empty: check that it is the right one)"),
    "header only": ("csv", "text,id\n", "{path}: no rows (it is empty: check that it is the right one)"),
    "malformed line": (
        "jsonl",
        '{"text": "a"}\n{"text": }\n',
        "{path}:2: not JSON: Expecting value at line 1 column 10 (one JSON object a line)",
    ),
    "not an object": ("jsonl", "[1]\n", "{path}:1: a row of type list (every row is an object)"),
    "object as json": (
        "json",
        '{\n"text": "a"}',
        "{path}: a JSON dict, not a list (a .json file is one list of objects, or has one object a line)",
    ),
    "cells": (
        "csv",
        "text,n\na,1\nb,2,3\n",
        "{path}:3: 3 cells under a header of 2 (quote cells that contain commas or line breaks)",
    ),
    "empty response": (
        "jsonl",
        '{"prompt": "p", "response": " "}\n',
        "{path}:1: no text: 'response' is empty (fill it in or drop the row)",
    ),
    "no text": ("jsonl", '{"prompt": "p"}\n', "{path}:1: no text: no known shape fits the columns prompt ({shapes})"),
    "not text": (
        "jsonl",
        '{"text": ["a"]}\n',
        "{path}:1: 'text' is of type list, not text (write it as a string)",
    ),
    "half a pair": (
        "jsonl",
        '{"text": "a\\ud800"}\n',
        "{path}:1: 'text' has half a surrogate pair at character 1 (write the whole character)",
    ),
    "ambiguous": (
        "jsonl",
        '{"text": "t", "question": "q", "answer": "a"}\n',
        "{path}:1: several shapes fit the columns text, question, answer: text; question + answer "
        "(say which column is which, such as --column prompt=NAME --column response=NAME)",
    ),
    "unknown shape": (
        "jsonl",
        '{"ask": "t", "reply": "q"}\n',
        "{path}:1: no text: no known shape fits the columns ask, reply ({shapes})",
    ),
    "repeated id": (
        "jsonl",
        '{"id": 5, "text": "a"}\n{"text": "b"}\n{"id": "5", "text": "c"}\n',
        "{path}:3: id '5' is already that of {path}:1 "
        "(make ids unique; `--ids row`, where a command has it, makes them from the rows)",
    ),
    "no assistant": (
        "jsonl",
        '{"messages": [{"role": "user", "content": "u"}]}\n',
        "{path}:1: no assistant turn (the assistant's turns are what a model learns)",
    ),
    "message without content": (
        "jsonl",
        '{"messages": [{"role": "user"}]}\n',
        "{path}:1: messages[0] has no 'role' and 'content' (every message has 'role' and 'content' (or 'from' and"
        " 'value'); the content may be null beside tool_calls)",
    ),
    "id of another type": (
        "jsonl",
        '{"text": "a", "id": 1.5}\n',
        "{path}:1: id 1.5 is of type float (a string or an integer)",
    ),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_bad_files_say_where_and_what(fault: str, tmp_path: Path) -> None:
    ending, written, message = BAD_FILES[fault]
    path = tmp_path / f"rows.{ending}"
    path.write_text(written, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(open_corpus(path))
    assert str(caught.value) == message.format(path=path, shapes=SHAPES_REMEDY)


def test_bad_bytes_say_where(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not UTF-8 at byte 10"):
        list(open_corpus(path))
    damaged = tmp_path / "rows.jsonl.gz"
    damaged.write_bytes(gzip.compress(b'{"text": "a"}\n' * 5000)[:40])
    with pytest.raises(DataError, match="damaged gz file"):
        list(open_corpus(damaged))
    table = tmp_path / "rows.parquet"
    table.write_bytes(b"no")
    with pytest.raises(DataError, match="not Parquet"):
        open_corpus(table)


def _bad_sources(folder: Path) -> dict[str, tuple[dict[str, Any], type[HeadwaterError], str]]:
    rows = [{"ask": "p", "reply": "r"}]
    lines = write_lines(folder / "rows.jsonl", rows)
    unknown = folder / "rows.doc"
    unknown.touch()
    kinds = ".jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow; text files also with .gz, .bz2, .xz, .zst behind"
    splits = {"train": rows, "test": rows}
    return {
        "missing": ({"source": folder / "no.jsonl"}, DataError, f"{folder}/no.jsonl: no such file (check the path)"),
        "kind": (
            {"source": str(unknown)},
            DataError,
            f"{unknown}: not a kind of file that can be read (known: {kinds})",
        ),
        "folder": (
            {"source": str(folder)},
            DataError,
            f"{folder}: files of a kind that cannot be read: rows.doc "
            f"(take them out, or give a pattern; known: {kinds})",
        ),
        "column": (
            {"source": lines, "mapping": {"prompt": "asked"}},
            DataError,
            f"{lines}: no column 'asked' to read as 'prompt' (columns: ask, reply)",
        ),
        "role": (
            {"source": lines, "mapping": {"promt": "ask"}},
            UsageError,
            "mapping: unknown role 'promt' (did you mean 'prompt'?)",
        ),
        "split of a file": (
            {"source": lines, "split": "test"},
            UsageError,
            f"{lines}: a file has no split 'test' (leave the split out)",
        ),
        "split": (
            {"source": splits, "split": "dev"},
            DataError,
            "memory: no split 'dev' (splits: train, test)",
        ),
        "type": (
            {"source": 3},
            UsageError,
            "memory: rows from a int (give a path, a hub dataset's name or an iterable of dictionaries)",
        ),
        "empty list": (
            {"source": []},
            DataError,
            "memory: no rows (it is empty: check that it is the right one)",
        ),
    }


@pytest.mark.parametrize(
    "fault", ["missing", "kind", "folder", "column", "role", "split of a file", "split", "type", "empty list"]
)
def test_bad_sources_are_refused_at_once(fault: str, tmp_path: Path) -> None:
    arguments, kind, message = _bad_sources(tmp_path)[fault]
    with pytest.raises(kind) as caught:
        open_corpus(**arguments)
    assert str(caught.value) == message


TURNS = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        ({"prompt": "u", "prompt_id": 7, "messages": TURNS}, {"prompt_": "u", "prompt_id": 7}),
        ({"prompt": "u", "prompt_": "mine", "messages": TURNS}, {"prompt_": "mine", "prompt__": "u"}),
        ({"instruction": "i", "output": "o", "response": "r"}, {"response_": "r"}),
    ],
)
def test_a_column_with_the_name_of_a_field_is_kept_under_another(record: dict, kept: dict) -> None:
    (row,) = open_corpus([record])
    assert row.metadata == kept
    assert row.prompt == ("u" if "messages" in record else "i")
