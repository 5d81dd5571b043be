"""An index's life as users live it: it grows, shrinks, is checked and quantised, by commands and by the same verbs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from test_commands import QUERY, ROWS, fails, headwater, lines

import headwater as hw
from headwater.core.errors import StoreError, UsageError
from headwater.core.spec import Column
from headwater.index import info as approximate
from headwater.index.rows import vector_array
from zoo import tiny_loaded

MORE = [{"id": f"m{i}", "prompt": f"Who is {i}?", "response": f"Number {i}, as ever."} for i in range(9)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("life")
    for name, seed in (("model", 0), ("other", 1)):
        loaded = tiny_loaded("llama", seed=seed)
        loaded.model.save_pretrained(folder / name)
        loaded.tokenizer.save_pretrained(folder / name)
    lines(folder / "rows.jsonl", ROWS)
    lines(folder / "grown.jsonl", [*ROWS, *MORE])
    lines(folder / "queries.jsonl", [QUERY, {**QUERY, "id": "q2", "prompt": "What is 9 plus 9?", "response": "18."}])
    words = ("--model", "model", "--data", "rows.jsonl", "--set", "preset=full")
    done = headwater("index", "build", "i.lance", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def place(built: Path) -> Path:
    """The folder with a fresh copy of its index, `a.lance`."""
    shutil.rmtree(built / "a.lance", ignore_errors=True)
    shutil.copytree(built / "i.lance", built / "a.lance")
    return built


def told(place: Path, *words: object, code: int = 0) -> dict:
    done = headwater(*words, "--json", cwd=place)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_grown_file_adds_its_new_rows_and_counts_the_old(place: Path) -> None:
    added = told(place, "index", "add", "a.lance", "--data", "grown.jsonl")
    assert (added["added"], added["duplicates"], added["rows"]) == (9, 40, 49)
    again = headwater("index", "add", "a.lance", "--data", "grown.jsonl", cwd=place)
    assert "0 rows added, 49 were there already; 49 in all" in again.stdout
    assert told(place, "index", "verify", "a.lance", "--recompute", 49)["sound"]


def test_rows_go_by_id_file_condition_and_text_and_for_good(place: Path) -> None:
    (place / "ids.txt").write_text("r0\n\nr2\n")
    assert told(place, "index", "delete", "a.lance", "--id", "r1", "--ids-file", "ids.txt")["deleted"] == 3
    lines(place / "gone.jsonl", [{k: ROWS[8][k] for k in ("prompt", "response")}])
    assert told(place, "index", "delete", "a.lance", "--rows", "gone.jsonl")["rows"] == 36
    done = headwater("index", "delete", "a.lance", "--where", "provider = 'b' OR id = 'r4'", cwd=place)
    assert "20 rows deleted, 16 left" in done.stdout
    before = lance.dataset(str(place / "a.lance"))
    assert len(before.versions()) > 1
    compacted = told(place, "index", "compact", "a.lance")
    assert compacted["bytes_after"] < compacted["bytes_before"]
    assert b"What is 8 plus 8?" not in b"".join(p.read_bytes() for p in (place / "a.lance").rglob("*") if p.is_file())
    assert told(place, "index", "verify", "a.lance", "--model", "model")["sound"]
    assert len(told(place, "index", "info", "a.lance")["versions"]) == 1


def test_verify_lists_faults_and_fails(place: Path) -> None:
    assert headwater("index", "verify", "a.lance", cwd=place).stderr.endswith("sound\n")
    lance.dataset(str(place / "a.lance")).update({"prompt": "'changed'"}, where="id = 'r9'")
    done = headwater("index", "verify", "a.lance", cwd=place)
    assert done.returncode == 1
    assert done.stdout.startswith("checksum: row 'r9'")
    assert "Traceback" not in done.stderr
    facts = told(place, "index", "verify", "a.lance", "--model", "other", code=1)
    assert {fault["kind"] for fault in facts["faults"]} >= {"checksum", "model"}
    assert told(place, "index", "verify", "nowhere.lance", code=1)["faults"][0]["kind"] == "open"


@pytest.mark.parametrize("code", ["int8", "sign:512"])
def test_an_index_becomes_codes_and_says_what_that_loses(place: Path, code: str) -> None:
    out = f"coded-{code[:4]}.lance"
    words = ("index", "quantise", "a.lance", "--code", code, "--out", out)
    facts = told(place, *words, "--queries", "queries.jsonl", "--relevant", "id = 'r7' OR id = 'r9'")
    assert facts["rows"] == 40
    kept = facts["retention"]
    assert (kept["queries"], kept["rows"], kept["top"]) == (2, 40, 10)
    assert 0.5 < kept["agreement"] <= 1
    assert kept["exact_precision"] == pytest.approx(0.2, abs=0.101)
    assert told(place, "index", "verify", out, "--recompute", 40)["sound"]
    alone = told(place, "index", "retention", out, "--queries", "queries.jsonl")
    assert alone["agreement"] == pytest.approx(kept["agreement"], abs=0.11)
    found = told(place, "trace", out, "--queries", "queries.jsonl", "--top", 1)
    assert found["queries"][0]["hits"][0]["id"] == "r7"
    assert "something is here already" in fails(place, 1, *words)
    shutil.rmtree(place / out)


def test_quantising_measures_without_queries_too_and_says_so(place: Path) -> None:
    words = ("index", "quantise", "a.lance", "--code", "sign:512", "--out", "own.lance")
    done = headwater(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "found; 32 queries, 40 rows (the index's own rows; --queries measures yours)" in done.stdout
    again = hw.retention(place / "own.lance", exact=place / "a.lance")
    assert (again.queries, again.rows) == (32, 40)
    with pytest.raises(UsageError, match="no queries to measure on"):
        hw.retention(place / "own.lance")
    shutil.rmtree(place / "own.lance")


def test_codes_that_were_written_wrong_are_found_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.indexing import quantise

    def flipped(table: pa.Table, old: Sequence[Column], new: Sequence[Column]) -> pa.Table:
        made = right(table, old, new)
        if "id" not in made.schema.names:
            return made  # what is coded again
        name = new[0].name
        place = made.schema.names.index(name)
        return made.set_column(
            place, made.schema.field(name), pa.chunked_array([made.column(name).combine_chunks()[::-1]])
        )

    right = quantise._coded
    monkeypatch.setattr(quantise, "_coded", flipped)
    with pytest.raises(StoreError, match="codes of 'rise' are not those of its vectors"):
        hw.quantise(place / "a.lance", place / "wrong.lance", code="sign:512")
    shutil.rmtree(place / "wrong.lance")


def test_a_method_stores_codes_unless_the_preset_or_the_user_says_otherwise(place: Path) -> None:
    words = ("--model", "model", "--data", "rows.jsonl", "--limit", "3")
    for more, code in (((), "int2:8192"), (("--set", "preset=full"), "none"), (("--code", "none"), "none")):
        facts = told(place, "index", "build", "k.lance", *words, *more)
        assert (facts["code"], facts["kept"] is not None) == (code, True)
        shutil.rmtree(place / "k.lance")


def test_an_unfinished_index_keeps_the_form_it_was_begun_with(place: Path) -> None:
    rows, loaded = [*ROWS], hw.load_model(str(place / "model"))

    def stop(done: int, *_: object) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hw.build(place / "h.lance", model=loaded, data=rows, code="none", block_rows=8, on_progress=stop)
    assert (
        hw.build(place / "h.lance", model=loaded, data=rows, block_rows=8, resume=True).manifest.columns[0].code
        == "none"
    )
    shutil.rmtree(place / "h.lance")


def test_codes_are_those_a_build_with_the_code_writes(place: Path) -> None:
    words = ("--model", "model", "--data", "rows.jsonl", "--code", "int8")
    assert told(place, "index", "build", "direct.lance", *words)["columns"][0]["dtype"] == "int8"
    hw.quantise(place / "a.lance", place / "later.lance", code="int8")
    direct, later = (hw.open_index(place / name).dataset.to_table() for name in ("direct.lance", "later.lance"))
    assert direct.schema == later.schema.with_metadata(direct.schema.metadata)
    for name in ("id", "digest", "prompt", "response", "provider", "tokens", "loss"):
        assert direct.column(name) == later.column(name), name
    a, b = (vector_array(table.column("rise")).astype(int) for table in (direct, later))
    assert abs(a - b).max() <= 1, "float16 in between may move a value over a step's edge, no further"


def test_an_interrupted_encoding_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.indexing import quantise

    monkeypatch.setattr(quantise, "_READ_BYTES", 1)
    monkeypatch.setattr(quantise, "rows_per_block", lambda size: 16)

    def stop(done: int, total: int | None, tokens: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        hw.quantise(place / "a.lance", place / "half.lance", code="int8", on_progress=stop)
    assert "--resume" in hw.info(place / "half.lance")["warning"]
    hw.quantise(place / "a.lance", place / "half.lance", code="int8", resume=True)
    hw.quantise(place / "a.lance", place / "whole.lance", code="int8")
    half, whole = (hw.open_index(place / name) for name in ("half.lance", "whole.lance"))
    assert half.dataset.to_table() == whole.dataset.to_table()
    assert half.manifest.complete
    with pytest.raises(hw.HeadwaterError, match="another index or code"):
        hw.quantise(place / "a.lance", place / "half.lance", code="sign:64", resume=True)
    hw.delete(place / "a.lance", ids=["r3"])
    with pytest.raises(hw.HeadwaterError, match="which has changed since"):
        hw.quantise(place / "a.lance", place / "half.lance", code="int8", resume=True)


def test_approximate_search_is_built_asked_for_and_measured(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "FEWEST_ROWS", 1)
    asked = ("trace", "a.lance", "--queries", "queries.jsonl", "--top", 5, "--engine", "ann")
    assert "headwater index ann builds one" in fails(place, 1, *asked)
    assert "'rise' has a vector index" in headwater("index", "ann", "a.lance", "--partitions", 4, cwd=place).stdout
    done = headwater(*asked, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "of the exact top 5 of 2 queries" in done.stderr
    found = told(place, *asked)
    assert found["queries"][0]["hits"][0]["id"] == "r7"
    assert "approximate search found 100.0 %" in found["about"]["engine"]
    assert "did you mean 'exact'" in fails(place, 2, *asked[:-1], "exakt")


def test_the_memory_of_a_search_is_what_is_allowed(place: Path) -> None:
    asked = ("--queries", "queries.jsonl", "--max-memory")
    assert headwater("trace", "a.lance", *asked, "100MiB", cwd=place).returncode == 0
    assert headwater("score", "a.lance", *asked, "1GB", "--out", "s.parquet", cwd=place).returncode == 0
    assert "raise max_memory" in fails(place, 1, "trace", "a.lance", *asked, "100K")
    assert "raise max_memory" in fails(place, 1, "score", "a.lance", *asked, "100K", "--out", "s.parquet")
    assert "is no number of bytes" in fails(place, 2, "trace", "a.lance", *asked, "much")


def test_a_plan_is_told_and_limits_are_kept(place: Path) -> None:
    given = ("--model", "model", "--data", "rows.jsonl", "--set", "preset=full")
    found = told(place, "plan", *given)
    assert found["rows"] == 40
    size = told(place, "index", "info", "i.lance")["bytes_on_disk"]
    assert found["disk"] == pytest.approx(size, rel=0.05)
    said = headwater("plan", *given, "--max-memory", "100GiB", cwd=place)
    assert [line.split()[0] for line in said.stdout.splitlines() if not line.startswith(" ")] == [
        "rows",
        "disk",
        "vectors",
        "disk",
        "memory",
        "time",
        "measured",
    ]
    built = ("index", "build", "fit.lance", *given)
    assert "--code sign:8192 takes" in fails(place, 1, *built, "--max-disk", "300KiB")
    assert "even batches of 64 tokens" in fails(place, 1, *built, "--max-memory", "10MiB")
    assert "is no number of bytes" in fails(place, 2, *built, "--max-disk", "lots")
    assert not (place / "fit.lance").exists()
    done = headwater(*built, "--max-disk", "300KiB", "--code", "sign", "--max-memory", "100GiB", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "built with batches of 8,192 tokens" in done.stderr
    assert told(place, "index", "info", "fit.lance")["bytes_on_disk"] < 300 * 1024
    shutil.rmtree(place / "fit.lance")


def test_an_unfinished_index_says_so_wherever_it_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.index import upkeep

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "seal", lambda index: None)
        hw.delete(place / "a.lance", ids=["r3"])
    queries = ("a.lance", "--queries", "queries.jsonl")
    for words in (("trace", *queries), ("score", *queries, "--out", "s.parquet"), ("index", "info", "a.lance")):
        assert "unfinished: its deletion was interrupted" in headwater(*words, cwd=place).stderr, words
    assert "cannot be quantised yet" in fails(
        place, 1, "index", "quantise", *queries[:1], "--code", "int8", "--out", "x"
    )


def test_the_verbs_in_python_are_the_commands(place: Path) -> None:
    index = hw.open_index(place / "a.lance")
    model = hw.load_model(str(place / "model"))
    assert hw.add(index, MORE, model=model).rows == 9
    assert hw.delete(index, rows=MORE[:2]) == 2
    assert hw.compact(index).rows == 47
    assert hw.verify(index, model=model) == []
    assert hw.info(index)["rows"] == 47


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (1, ("index", "add", "a.lance", "--data", "nothing.jsonl"), "no such file"),
        (1, ("index", "add", "nowhere.lance", "--data", "rows.jsonl"), "there is no index here"),
        (1, ("index", "add", "a.lance", "--data", "grown.jsonl", "--model", "other"), "weights: "),
        (2, ("index", "delete", "a.lance"), "give one of the two"),
        (2, ("index", "delete", "a.lance", "--id", "r1", "--where", "true"), "give one of the two"),
        (2, ("index", "delete", "a.lance", "--id", "r1", "--rows", "rows.jsonl"), "more than one way"),
        (1, ("index", "delete", "a.lance", "--id", "r1", "--id", "nobody"), "such as 'nobody'"),
        (1, ("index", "delete", "a.lance", "--ids-file", "nothing.txt"), "nothing.txt"),
        (1, ("index", "delete", "a.lance", "--where", "colour = 1"), "'colour = 1' cannot be used"),
        (1, ("index", "compact", "nowhere.lance"), "there is no index here"),
        (2, ("index", "quantise", "a.lance", "--code", "int3", "--out", "x.lance"), "'int3' is no code"),
        (2, ("index", "build", "x.lance", "--model", "model", "--data", "rows.jsonl", "--code", "bit"), "is no code"),
        (2, ("index", "retention", "a.lance", "--queries", "queries.jsonl", "--relevant", "true"), "that index"),
        (2, ("index", "verify", "a.lance", "--recompute", "0"), "--recompute"),
    ],
)
def test_bad_input_is_one_clear_line(place: Path, code: int, words: tuple[str, ...], expected: str) -> None:
    assert expected in fails(place, code, *words)
    assert not (place / "x.lance").exists()
    assert hw.open_index(place / "a.lance").count == 40
