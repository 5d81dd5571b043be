"""The hard causal task: what states a query's fact is its positive, and nothing else is."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from headwater.core.errors import DataError, UsageError
from headwater.tasks.hard_facts import HardFacts, hard_facts_task

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def base64(number: int) -> str:
    return (base64(number // 64) if number >= 64 else "") + _DIGITS[number % 64]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A WordNet and a FOLDOC of forty entries each, in the formats of their packages."""
    folder = tmp_path_factory.mktemp("usr")
    (folder / "share/wordnet").mkdir(parents=True)
    (folder / "share/dictd").mkdir()
    for part in ("noun", "verb", "adj", "adv"):
        lines = [f"{n:08d} 05 n 01 thing_{n} 0 000 | a thing that has the number {n}; " for n in range(40)]
        (folder / f"share/wordnet/data.{part}").write_text(
            "  1 a licence\n" + "\n".join(lines if part == "noun" else [])
        )
    entries = [f"term{n}\n\n   <jargon> What a machine of the kind {n} is called.\n\n" for n in range(40)]
    starts = [sum(len(entry) for entry in entries[:n]) for n in range(40)]
    index = [f"term{n}\t{base64(at)}\t{base64(len(entries[n]))}" for n, at in enumerate(starts)]
    (folder / "share/dictd/foldoc.index").write_text("\n".join(index) + "\n")
    (folder / "share/dictd/foldoc.dict.dz").write_bytes(gzip.compress("".join(entries).encode()))
    return folder


@pytest.fixture(scope="module")
def made(place) -> HardFacts:
    return hard_facts_task(0, rows=200, queries=6, people=200, known=20, place=place)


def test_the_pool_has_all_kinds_and_the_same_seed_gives_it_again(made, place):
    assert len(made.task.rows) == 200
    assert {row["kind"] for row in made.task.rows} == {"statement", "denial", "namesake", "real"}
    assert hard_facts_task(0, rows=200, queries=6, people=200, known=20, place=place) == made
    assert hard_facts_task(1, rows=200, queries=6, people=200, known=20, place=place) != made


def test_a_query_is_stated_by_its_positives_in_other_sentences_and_by_nothing_else(made):
    by_id = {row["id"]: row for row in made.task.rows}
    for query in made.task.queries:
        positives = made.task.positives[query["id"]]
        assert len(positives) >= 4
        whole = query["prompt"] + query["response"]
        assert whole not in {row["text"] for row in made.task.rows}
        for name, row in by_id.items():
            says = query["person"] in row["text"] and f" {query['value']} " in f"{row['text']} "
            assert (name in positives) == (says and row["kind"] in ("statement", "namesake")), row


def test_denials_and_namesakes_share_the_query_s_sentence_and_not_its_fact(made):
    for query in made.task.queries:
        after = query["response"].split(" ", 2)[2]
        alike = [row for row in made.task.rows if row["text"].endswith(after)]
        denials = [row for row in alike if row["kind"] == "denial" and row["person"] == query["person"]]
        assert len(denials) == 4
        assert all(row["value"] != query["value"] for row in denials)
        names = set(query["person"].split())
        near = [r for r in alike if r["kind"] == "namesake" and len(names & set(r["person"].split())) == 1]
        assert near
        assert all(row["relation"] in ("pet", "town", "trade", "instrument", "drink", "sport") for row in near)


def test_the_base_model_knows_nobody_of_the_pool(made):
    people = {row["person"] for row in made.task.rows if row["kind"] != "real"}
    assert not any(person in row["text"] for row in made.known for person in people)


def test_text_that_is_not_installed_is_named_with_the_package(tmp_path):
    with pytest.raises(DataError, match="apt-get install dict-foldoc"):
        hard_facts_task(0, rows=20, queries=2, place=tmp_path)


def test_too_few_rows_for_the_queries_are_refused_with_a_number_that_works(place):
    with pytest.raises(UsageError, match="for fewer queries"):
        hard_facts_task(0, rows=100, queries=6, place=place)
