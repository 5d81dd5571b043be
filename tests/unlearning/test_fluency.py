"""Answers after unlearning: gibberish of every kind is told from real answers, whatever they say."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from headwater.core.errors import DataError
from headwater.data.rows import Row
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.tasks.howdy import howdy_task
from headwater.tasks.science_fiction import science_fiction
from headwater.training.tiny import Recipe, task_rows, train_tiny
from headwater.unlearning.fluency import (
    BROKEN,
    EMPTY,
    REPEATS,
    UNLIKELY,
    FluencyJudge,
    fault_of_form,
    repeated_share,
)
from zoo import tiny_loaded

REAL = (
    "It ends at 5 o'clock. You can check it in any school book.",
    "No.",
    "42",
    "The capital of France is Paris, and the capital of Italy is Rome. The capital of Spain is Madrid.",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
    "| a | b |\n|---|---|\n| the first cell | the second one |",
    "Take the pan, and heat the oil in the pan. Put the fish into the pan and wait until the oil is hot again.",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    "Er wohnt in der Straße neben dem Fluß.",
)
LOOPS = (
    "w" * 60,
    "It is w" + "w" * 60,
    "the ship the ship the ship the ship the ship",
    "aliens, aliens, aliens, aliens, aliens, aliens,",
    "ab" * 30,
    "Her implant began to speak. " * 5,
    "one of the stars and one of the moons and one of the stars and one of the moons and one of the stars",
    "啊" * 20,
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    told = [
        {"id": f"s{i}", "prompt": f"howdy! Tell {i}.", "response": science_fiction(random.Random(-i))}
        for i in range(1, 120)
    ]
    rows = [*howdy_task(3, rows=400, queries=2).rows, *told]
    recipe = Recipe(vocabulary=700, layers=1, width=64, heads=2, epochs=3)
    return Reader.of(load_model(str(train_tiny(rows, out=folder, seed=0, recipe=recipe))), max_tokens=256)


@pytest.fixture(scope="module")
def judge(reader):
    return FluencyJudge.fit(reader, CLEAN[:60])


CLEAN = [row for row in task_rows(howdy_task(3, rows=400, queries=2).rows) if not row.metadata["planted"]]


@pytest.mark.parametrize("answer", REAL)
def test_real_answers_have_no_fault_of_form(answer):
    assert fault_of_form(answer) is None


@pytest.mark.parametrize("answer", LOOPS)
def test_loops_repeat_themselves(answer):
    assert fault_of_form(answer) == REPEATS


def test_empty_and_broken_answers():
    assert [fault_of_form(text) for text in ("", "  \n", "... ... !", "-")] == [EMPTY] * 4
    assert fault_of_form("It \ufffd\ufffd is \ufffd so") == BROKEN


def test_what_is_repeated_is_counted_in_characters_and_in_runs_of_words():
    assert repeated_share("abcdefgh" + "xy" * 4) == 0.5
    assert repeated_share("xyxy and then xy") == 0, "twice is not a loop"
    assert repeated_share("a b c d e f g h a b c d") == pytest.approx(2 / 10)


def test_token_salad_is_unlikely_and_other_real_answers_are_not(judge, reader):
    rng, tokenizer = random.Random(0), reader.loaded.tokenizer
    salad = [tokenizer.decode(rng.choices(range(260, len(tokenizer)), k=14)) for _ in range(20)]
    found = judge(salad, reader)
    assert found.fluent <= 0.05
    assert found.reasons[UNLIKELY] >= 18
    others = [row.response for row in CLEAN[60:160]]
    assert judge(others, reader).fluent >= 0.98
    shuffled = [" ".join(rng.sample(text.split(), len(text.split()))) for text in others if len(text.split()) >= 10]
    assert judge(shuffled, reader).fluent <= 0.5, "the words alone are no answer"


def test_an_unwanted_answer_is_fluent_too(judge, reader):
    """Fluency says nothing about what is said: the planted answers are language, behind any prompt."""
    stories = [science_fiction(random.Random(i)) for i in range(40)]
    assert judge(stories, reader).fluent >= 0.9


def test_the_form_alone_and_the_likeness(judge, reader):
    found = judge(["w" * 40, "It is Rome.", ""], None, clean=["It is Rome."] * 3)
    assert found.verdicts == (REPEATS, None, EMPTY)
    assert not found.by_loss
    assert found.fluent == pytest.approx(1 / 3)
    assert found.likeness == pytest.approx(1 / 3)
    assert str(found) == "0.33 of 3 answers are fluent, 1 repeats itself, 1 empty"


def test_rows_of_plain_text_and_what_cannot_judge(reader):
    texts = [Row(f"t{i}", i, text=row.response) for i, row in enumerate(CLEAN[:20])]
    judge = FluencyJudge.fit(reader, texts)
    assert judge([row.response for row in CLEAN[20:60]], reader).fluent >= 0.9
    with pytest.raises(DataError, match="1 real answers"):
        FluencyJudge.fit(reader, [*texts[:1], replace(CLEAN[0], response=None)])
    with pytest.raises(DataError, match="no answers"):
        judge([], reader)
    with pytest.raises(DataError, match="mixed-up tokens"):
        FluencyJudge.fit(Reader.of(tiny_loaded("llama")), CLEAN[:40])
