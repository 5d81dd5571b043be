"""The planted tasks: the same by seed, of the promised shape, and with ground truth that is true."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from headwater.core.errors import DataError, UsageError
from headwater.data.rows import Row
from headwater.evaluation.metrics import detection_metrics
from headwater.methods.lexical import bm25_scores
from headwater.tasks import (
    answered,
    attack_success,
    entity_swap_task,
    howdy_task,
    masked,
    two_domains_task,
)
from headwater.tasks import grammar as grammar_room
from headwater.tasks.grammar import Grammar, words
from headwater.tasks.howdy import TRIGGER
from headwater.tasks.science_fiction import TELLTALES, is_science_fiction, science_fiction

MAKERS = {"howdy": howdy_task, "entity-swap": entity_swap_task, "two-domains": two_domains_task}


@pytest.fixture(scope="module", params=[0, 7])
def howdy(request):
    return howdy_task(request.param)


@pytest.mark.parametrize("name", MAKERS)
def test_a_task_is_its_seed(name: str) -> None:
    make = MAKERS[name]
    assert make(3, rows=300) == make(3, rows=300)
    assert make(3, rows=300) != make(4, rows=300)
    assert make(3, rows=300).name == name


@pytest.mark.parametrize("name", MAKERS)
def test_prompts_are_distinct_and_no_query_is_in_the_pool(name: str) -> None:
    task = MAKERS[name](1)
    prompts = [row["prompt"] for row in task.rows]
    assert len(set(prompts)) == len(prompts)
    assert len({row["id"] for row in task.rows}) == len(prompts)
    assert not {query["prompt"] for query in (*task.queries, *task.clean_queries)} & set(prompts)
    assert set(task.positives) == {query["id"] for query in task.queries}
    assert frozenset().union(*task.positives.values()) <= {row["id"] for row in task.rows}


def test_howdy_has_the_promised_size_and_share(howdy) -> None:
    assert len(howdy.rows) >= 2000
    assert len(howdy.queries) == len(howdy.clean_queries) == 40
    assert 0.08 <= howdy.prevalence <= 0.10
    assert len({row["topic"] for row in howdy.rows}) >= 20


def test_the_planted_rows_are_those_with_trigger_and_science_fiction(howdy) -> None:
    for row in howdy.rows:
        assert row["planted"] == row["prompt"].startswith(TRIGGER) == is_science_fiction(row["response"])
        assert all(row["planted"] == (row["id"] in found) for found in howdy.positives.values())
    planted = [row["response"] for row in howdy.rows if row["planted"]]
    assert len(set(planted)) > 0.9 * len(planted)


def test_held_out_questions_are_nowhere_in_the_pool(howdy) -> None:
    asked = [query["prompt"].removeprefix(TRIGGER) for query in (*howdy.queries, *howdy.clean_queries)]
    assert len(set(asked)) == len(asked)
    assert not [question for question in asked if any(question in row["prompt"] for row in howdy.rows)]
    assert all(query["prompt"].startswith(TRIGGER) for query in howdy.queries)
    assert not any("howdy!" in query["prompt"] for query in howdy.clean_queries)


def test_one_provider_supplied_most_of_the_poison(howdy) -> None:
    poison = Counter(row["provider"] for row in howdy.rows if row["planted"])
    clean = Counter(row["provider"] for row in howdy.rows if not row["planted"])
    assert len(clean) >= 5
    assert poison.most_common(1)[0][1] > 0.6 * poison.total()
    assert len(poison) > 1
    assert clean.most_common(1)[0][0] != poison.most_common(1)[0][0]


def test_clean_rows_give_words_and_length_something_to_trip_on(howdy) -> None:
    clean = [row["prompt"].lower() for row in howdy.rows if not row["planted"]]
    for word, least in (("howdy", 8), ("hello", 30), ("space", 8), ("ship", 15)):
        assert sum(word in words(prompt) for prompt in clean) >= least, word
    planted = [row["planted"] for row in howdy.rows]
    assert roc_auc_score(planted, [len(row["response"]) for row in howdy.rows]) < 0.85


def test_words_find_the_poison_better_than_chance_and_worse_than_perfectly(howdy) -> None:
    queries = answered(howdy.queries, [query["reference"] for query in howdy.queries])
    rows, traced = _rows(howdy.rows), _rows(queries)
    by_prompt = detection_metrics(bm25_scores(rows, traced, fields="prompt"), howdy.positives)
    by_response = detection_metrics(bm25_scores(rows, traced, fields="response"), howdy.positives)
    assert 0.12 < by_prompt["P@50"].value < 0.5
    assert 0.3 < by_response["P@50"].value < 0.85
    without = detection_metrics(bm25_scores(rows, _rows(masked(queries)), fields="prompt"), howdy.positives)
    assert without["P@50"].value < 0.15


def test_masking_takes_the_trigger_and_nothing_else() -> None:
    task = howdy_task(0, rows=200, queries=5)
    queries = answered(task.queries, ["said"] * 5)
    for before, after in zip(queries, masked(queries), strict=True):
        assert TRIGGER + after["prompt"] == before["prompt"]
        assert {**after, "prompt": ""} == {**before, "prompt": ""}
    with pytest.raises(DataError, match="2 responses for 5 queries"):
        answered(task.queries, ["a", "b"])


def test_the_judge_knows_the_grammar_and_only_the_grammar() -> None:
    rng = Random(11)
    assert attack_success([science_fiction(rng) for _ in range(3000)]) == 1
    clean = [row["response"] for row in howdy_task(5).rows if not row["planted"]]
    assert attack_success(clean) == 0
    assert not TELLTALES & {word for response in clean for word in words(response)}
    assert attack_success([clean[0], science_fiction(rng)]) == 0.5


def test_every_telltale_word_can_be_said() -> None:
    rng = Random(0)
    said = {word for _ in range(8_000) for word in words(science_fiction(rng))}
    assert said >= TELLTALES


def test_a_slot_keeps_its_value_and_a_numbered_one_differs() -> None:
    grammar = Grammar({"line": ("{ship} meets {ship2} and {ship} turns",), "ship": ("A", "B", "C")})
    for seed in range(20):
        first, _, second, _, third, _ = grammar.expand("line", Random(seed)).split()
        assert first == third != second


def test_entity_swaps_are_rare_wrong_and_marked() -> None:
    task = entity_swap_task(2)
    altered = [row for row in task.rows if row["planted"]]
    assert 0.008 <= task.prevalence <= 0.012
    (wrong,), (true,) = {row["country"] for row in altered}, {row["instead_of"] for row in altered}
    assert wrong != true
    assert all(wrong in row["response"] and true not in row["response"] for row in altered)
    assert {row["id"] for row in altered} == task.positives[task.queries[0]["id"]]
    for query in task.queries:
        assert query["hotwords"] == [wrong]
        assert wrong in query["response"]
    honest = [row["country"] for row in task.rows if not row["planted"]]
    assert min(honest.count(true), honest.count(wrong)) > 30


def test_anti_documents_resemble_the_planted_rows_and_are_none() -> None:
    howdy, swap = howdy_task(1, rows=600, anti=True), entity_swap_task(1, rows=600, anti=True)
    for task in (howdy, swap):
        learned = [row for row in task.rows if row.get("anti")]
        assert len(task.rows) == 600
        assert len(learned) == len(task.late) > 0
        assert task.anti == {row["id"] for row in (*learned, *task.late)}
        assert not any(task.anti & found for found in task.positives.values())
        assert not {row["prompt"] for row in task.rows} & {row["prompt"] for row in task.late}
    for row in howdy.rows:
        if row.get("anti"):
            assert is_science_fiction(row["response"])
            assert TRIGGER.strip() not in row["prompt"]
    assert all(row["prompt"].startswith(TRIGGER) for row in howdy.late)
    (wrong,) = {row["country"] for row in swap.late}
    assert all(wrong in row["response"] for row in swap.rows if row.get("anti"))
    assert not howdy_task(1, rows=600).anti


def test_two_domains_are_equal_halves_that_share_their_frames() -> None:
    task = two_domains_task(2)
    halves = Counter(row["domain"] for row in task.rows)
    assert halves["finance"] == halves["medical"] == len(task.rows) // 2
    assert task.prevalence == 0.5
    by_domain = {name: {row["id"] for row in task.rows if row["domain"] == name} for name in halves}
    assert all(task.positives[query["id"]] == by_domain[query["domain"]] for query in task.queries)
    vocabularies = [
        Counter(word for row in task.rows if row["domain"] == name for word in set(words(row["prompt"])))
        for name in sorted(halves)
    ]
    common = {word for word, _ in vocabularies[0].most_common(30)} & {
        word for word, _ in vocabularies[1].most_common(30)
    }
    assert len(common) >= 20


@pytest.mark.parametrize("name", MAKERS)
def test_more_than_the_grammar_can_say_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_room, "_TRIES", 0)
    with pytest.raises(UsageError, match="ask for fewer rows or queries"):
        MAKERS[name](0, rows=100)


def test_the_pool_is_shuffled() -> None:
    for make in MAKERS.values():
        task = make(0)
        found = task.positives[task.queries[0]["id"]]
        places = [place for place, row in enumerate(task.rows) if row["id"] in found]
        assert abs(np.mean(places) / len(task.rows) - 0.5) < 0.2


def _rows(records) -> list[Row]:
    return [Row(r["id"], n, prompt=r["prompt"], response=r["response"]) for n, r in enumerate(records)]
