"""Files of every kind, folders as the hub has them, patterns and lists give the same rows, in one stated order."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.core.errors import DataError, HeadwaterError
from headwater.data.corpus import open_corpus

ROWS = [{"text": f"row {i}", "n": i} for i in range(12)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = "text,n\n" + "".join(f"row {i},{i}\n" for i in range(12))


PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
TEXTS = {
    ".jsonl": LINES,
    ".ndjson": "\ufeff" + LINES,
    ".json": json.dumps(ROWS, indent=1),
    "-lines.json": "\n" + LINES,
    ".csv": TABLE,
    ".tsv": TABLE.replace(",", "\t"),
}


def pack(raw: bytes, ending: str) -> bytes:
    if ending != ".zst":
        return PACKERS[ending](raw)
    sink = pa.BufferOutputStream()
    for part in (raw[:50], raw[50:]):  # two frames, as a file that was appended to has them
        with pa.CompressedOutputStream(inner := pa.BufferOutputStream(), "zstd") as stream:
            stream.write(part)
        sink.write(inner.getvalue())
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("packed", [*PACKERS, ".zst"])
@pytest.mark.parametrize("kind", TEXTS)
def test_every_kind_of_text_compressed_or_not(kind: str, packed: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{kind}{packed}"
    path.write_bytes(pack(TEXTS[kind].encode(), packed))
    corpus = open_corpus(path)
    assert [(row.text, row.metadata) for row in corpus] == [(row["text"], {"n": row["n"]}) for row in ROWS]
    assert list(corpus) == list(corpus), "a second pass gives the same rows"


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz", ".zst"])
def test_a_damaged_compressed_file_is_one_line(packed: str, tmp_path: Path) -> None:
    for name, raw in {"cut": pack((LINES * 500).encode(), packed)[:-40], "foreign": b"no such thing " * 9}.items():
        path = tmp_path / f"{name}.jsonl{packed}"
        path.write_bytes(raw)
        with pytest.raises(DataError, match=f"damaged {packed[1:]} file") as caught:
            list(open_corpus(path))
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("form", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files_in_both_forms(form: Any, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with form(str(tmp_path / "rows.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    assert [row.text for row in open_corpus(tmp_path / "rows.arrow")] == [row["text"] for row in ROWS]


def snapshot(folder: Path, names: list[str]) -> Path:
    """A folder as a hub snapshot has it: `name` holds one row, whose text is the name; files beside hold none."""
    (folder / ".cache").mkdir(parents=True)
    for beside in ("README.md", ".gitattributes", "dataset_infos.json", ".cache/x.parquet", "LICENSE"):
        (folder / beside).write_text("{}")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rows = [{"text": name}]
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), folder / name)
        else:
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def texts(source: Any, **how: Any) -> list[str | None]:
    return [row.text for row in open_corpus(source, **how)]


def test_shards_come_in_natural_order(tmp_path: Path) -> None:
    names = [f"data/train-{i:05}-of-00004.parquet" for i in range(4)]
    assert texts(snapshot(tmp_path / "hub", names[::-1])) == names
    loose = snapshot(tmp_path / "loose", ["part-10.jsonl", "part-9.jsonl", "part-1.jsonl", "b/part-2.jsonl"])
    ordered = ["b/part-2.jsonl", "part-1.jsonl", "part-9.jsonl", "part-10.jsonl"]
    assert texts(loose) == ordered
    assert texts(str(loose / "part-*.jsonl")) == ordered[1:]
    assert texts(str(loose / "**" / "*")) == ordered, "what holds no rows is not read"
    assert texts([str(loose / "part-9.jsonl"), loose / "part-1.jsonl"]) == ["part-9.jsonl", "part-1.jsonl"]


def test_splits_are_found_and_asked_for(tmp_path: Path) -> None:
    names = ["data/train_sft-00000-of-00002.parquet", "data/train_sft-00001-of-00002.parquet"]
    tests = ["data/test_sft-00000-of-00001-0123456789abcdef.parquet"]
    folder = snapshot(tmp_path / "shards", names + tests)
    with pytest.raises(DataError, match=r"several splits: test_sft, train_sft .choose one with --split NAME"):
        open_corpus(folder)
    assert texts(folder, split="train_sft") == names
    assert texts(folder, split="test_sft") == tests
    with pytest.raises(DataError, match=r"no split 'dev' .splits: test_sft, train_sft"):
        open_corpus(folder, split="dev")
    words = snapshot(tmp_path / "words", ["train/a.jsonl", "train/b.jsonl", "my-dev.jsonl"])
    assert texts(words, split="train") == ["train/a.jsonl", "train/b.jsonl"]
    assert texts(words, split="validation") == ["my-dev.jsonl"]
    cached = snapshot(tmp_path / "cached", ["refs/main", "snapshots/1/a.jsonl", "blobs/0123"])
    assert texts(cached) == ["snapshots/1/a.jsonl"]
    only = snapshot(tmp_path / "only", ["test-00000-of-00001.parquet"])
    assert texts(only) == ["test-00000-of-00001.parquet"]


def test_the_card_says_which_files_are_which(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "hub", ["main/a-1.jsonl", "main/b-1.jsonl", "other/c-1.jsonl"])
    files = "  - split: train\n    path: main/a-*\n  - split: test\n    path: main/b-*\n"
    main = f"- config_name: main\n  data_files:\n{files}"
    (folder / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n{main}---\n# A set\n")
    assert texts(folder, split="test") == ["main/b-1.jsonl"]
    other = '- config_name: other\n  data_dir: other\n  data_files: "c-*"\n'
    (folder / "README.md").write_text(f"---\nconfigs:\n{main}{other}---\n")
    with pytest.raises(DataError, match=r"several configurations .configurations, as .*:NAME: main, other"):
        open_corpus(folder)
    assert texts(f"{folder}:other") == ["other/c-1.jsonl"]
    assert texts(f"{folder}:main", split="train") == ["main/a-1.jsonl"]


FAULTS = {
    "some without a split": (["train.jsonl", "more.jsonl"], "", "some files have a split in their name .*: more.jsonl"),
    "two kinds": (["a.jsonl", "a.parquet"], "", r"files of several kinds: .jsonl, .parquet \(give a pattern, such as"),
    "unknown kind": (["a.jsonl", "b.jsonl.lz4"], "", "files of a kind that cannot be read: b.jsonl.lz4"),
    "two endings of one kind": (["a.jsonl", "a.ndjson"], "", "two files of one name: a.jsonl, a.ndjson"),
    "compressed or not": (["a.jsonl", "a.jsonl.gz"], "", "two files of one name: a.jsonl, a.jsonl.gz"),
    "two snapshots": (["refs/main", "snapshots/1/a.jsonl", "snapshots/2/a.jsonl"], "", "the folder holds 2 snapshots"),
    "none": ([], "", "no file of rows in this folder"),
    "pattern": (["a.jsonl"], "/b*.jsonl", "no file matches this pattern"),
    "pattern of others": (["a.jsonl"], "/*.md", "no file that matches holds rows: .*README.md"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_be_left_out_or_taken_twice_is_refused(fault: str, tmp_path: Path) -> None:
    names, pattern, message = FAULTS[fault]
    with pytest.raises(DataError, match=message):
        open_corpus(f"{snapshot(tmp_path / 'hub', names)}{pattern}")


def test_a_file_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    with pytest.raises(HeadwaterError, match=r"a\.jsonl: this is given twice"):
        open_corpus([str(path), str(tmp_path / "*.jsonl")])


def test_messages_name_the_file_and_the_line(tmp_path: Path) -> None:
    first, second = tmp_path / "part-1.jsonl", tmp_path / "part-2.jsonl"
    first.write_text('{"text": "a", "id": "x"}\n')
    second.write_text('{"text": "b"}\n\n{"text": "c", "id": "x"}\n')
    with pytest.raises(DataError) as caught:
        list(open_corpus(str(tmp_path / "part-*.jsonl")))
    remedy = "make ids unique; `--ids row`, where a command has it, makes them from the rows"
    assert str(caught.value) == f"{second}:3: id 'x' is already that of {first}:1 ({remedy})"
    second.write_text('{"text": "b"}\n{"text": 3}\n')
    with pytest.raises(DataError, match=r"part-2\.jsonl:2: 'text' is of type int"):
        list(open_corpus([first, second]))


def test_several_sources_are_counted_and_limited_as_one(tmp_path: Path) -> None:
    names = ["a-00000-of-00002.parquet", "a-00001-of-00002.parquet"]
    corpus = open_corpus(snapshot(tmp_path / "hub", names), split="a")
    assert corpus.count == 2
    assert [row.ordinal for row in corpus] == [0, 1]
    assert texts(tmp_path / "hub", limit=1) == names[:1]


CELLS = {
    "whole": (["3", "-12", "0"], [3, -12, 0]),
    "zeros in front": (["007", "8"], ["007", "8"]),
    "number": (["0.5", "3", "1e-05"], [0.5, 3.0, 1e-05]),
    "one length": (["0.50", "1.25"], [0.5, 1.25]),
    "versions": (["1.9", "1.10"], ["1.9", "1.10"]),
    "truth": (["true", "False"], [True, False]),
    "date": (["2024-01-31", "2023-12-01"], [date(2024, 1, 31), date(2023, 12, 1)]),
    "date and time": (["2024-01-31", "2024-02-01 10:00"], [datetime(2024, 1, 31), datetime(2024, 2, 1, 10)]),
    "time": (["2024-01-31T09:30:00Z", "2024-02-01 10:00"], None),
    "mixed": (["3", "three"], ["3", "three"]),
    "not a date": (["2024-02-31"], ["2024-02-31"]),
    "large": (["9223372036854775808"], ["9223372036854775808"]),
    "empty": (["3", "", "4"], [3, None, 4]),
    "nothing": (["", ""], ["", ""]),
    "special": (["nan", "inf"], ["nan", "inf"]),
}


@pytest.mark.parametrize("case", CELLS)
def test_columns_of_cells_are_read_by_the_stated_rule(case: str, tmp_path: Path) -> None:
    cells, values = CELLS[case]
    path = tmp_path / "rows.csv"
    path.write_text("id,text,x\n" + "".join(f"{i},{7},{cell}\n" for i, cell in enumerate(cells)))
    rows = list(open_corpus(path))
    assert [row.text for row in rows] == ["7"] * len(cells), "a role is always text"
    found = [row.metadata.get("x") for row in rows]
    if case == "time":
        values = [datetime(2024, 1, 31, 9, 30, tzinfo=UTC), datetime(2024, 2, 1, 10)]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values or []]


def test_a_later_cell_of_another_kind_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,x\n" + "a,1\n" * 1000 + "a,one\na,2\n")
    assert [row.metadata["x"] for row in open_corpus(path)][-3:] == [1, "one", 2]


def test_a_folder_may_have_both_endings_of_json_lines(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.ndjson"):
        (tmp_path / name).write_text(f'{{"text": "{name}"}}\n')
    assert [row.text for row in open_corpus(tmp_path)] == ["a.ndjson", "b.jsonl"]
