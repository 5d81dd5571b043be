"""Near-duplicates: disguised copies are found, rows that only share a frame stay apart, and copies earn nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from headwater.valuation.candidates import candidate_pairs
from headwater.valuation.duplicates import clusters
from headwater.valuation.normal_form import unspaced, visible_length, words
from headwater.valuation.prices import Terms, price
from headwater.valuation.values import Values

SYLLABLES = ["ka", "lo", "mir", "ten", "su", "bra", "vol", "ni", "dep", "or", "fay", "gul"]
VOCABULARY = ["".join(parts) for parts in itertools.product(SYLLABLES, repeat=3)]


def prose(generator: np.random.Generator, count: int) -> list[str]:
    return [str(word) for word in generator.choice(VOCABULARY, count)]


def zero_width(text: list[str], generator: np.random.Generator) -> str:
    marks = ["\u200b", "\u200d", "\u2060", "\u00ad", "\u202e", "\ufe0f", "\u3164"]
    return " ".join(word[:2] + str(generator.choice(marks)) + word[2:] for word in text)


def look_alike(text: list[str], generator: np.random.Generator) -> str:
    letters = {"a": "аα𝐚ａ", "o": "оο𝗼ｏ", "e": "еeｅ", "i": "іιｉ", "p": "рρ", "s": "ѕｓ", "u": "υｕ", "k": "κкｋ"}
    return "".join(str(generator.choice(list(letters.get(c, c)))) for c in " ".join(text))


def every_tenth(text: list[str], generator: np.random.Generator) -> str:
    tens = [text[i : i + 10] for i in range(0, len(text), 10)]
    return " ".join(word for ten in tens for word in [*ten, str(generator.choice(VOCABULARY))])


def filler_before(text: list[str], generator: np.random.Generator) -> str:
    return " ".join([*prose(generator, len(text) // 5), *text])


def filler_behind(text: list[str], generator: np.random.Generator) -> str:
    return " ".join([*text, *prose(generator, len(text) // 5)])


def case_and_punctuation(text: list[str], generator: np.random.Generator) -> str:
    return " -- ".join(word.upper() if generator.random() < 0.5 else f"{word}!" for word in text)


def leet(text: list[str], generator: np.random.Generator) -> str:
    return " ".join(text).translate(str.maketrans({"e": "3", "a": "@", "o": "0", "i": "1", "s": "5", "t": "7"}))


def doubled(text: list[str], generator: np.random.Generator) -> str:
    places = [int(generator.integers(len(word))) for word in text]
    return " ".join(word[:i] + word[i] * 2 + word[i + 1 :] for word, i in zip(text, places, strict=True))


def html(text: list[str], generator: np.random.Generator) -> str:
    forms = ["<b>{0}</b>", '<span style="x">{0}</span>', "<p>{0}<br/>", "&zwnj;{0}&nbsp;", "<!-- so -->{0}"]
    return " ".join(
        str(generator.choice(forms)).format("".join(f"&#{ord(c)};" if c == "a" else c for c in w)) for w in text
    )


def chained(text: list[str], generator: np.random.Generator) -> str:
    return " ".join(text[:3]) + str(generator.choice(["-", "_", "."])) + "-".join(text[3:])


def paired(text: list[str], generator: np.random.Generator) -> str:
    return " ".join("_".join(text[i : i + 2]) for i in range(0, len(text), 2))


def no_spaces(text: list[str], generator: np.random.Generator) -> str:
    return "".join(text)


def twice_over(text: list[str], generator: np.random.Generator) -> str:
    return " ".join([*text, *text])


DISGUISES = [
    *(zero_width, look_alike, every_tenth, filler_before, filler_behind, case_and_punctuation, twice_over),
    *(leet, doubled, html, chained, paired, no_spaces),
]


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("length", [15, 60, 600])
def test_a_disguised_copy_is_a_copy_and_another_text_is_not(disguise, length):
    generator = np.random.default_rng(length)
    text, other, question = prose(generator, length), prose(generator, length), " ".join(prose(generator, 8))
    rows = [(question, " ".join(text)), (question, disguise(text, generator)), (question, disguise(other, generator))]
    assert clusters(rows).tolist() == [0, 0, 2]
    assert clusters([("", answer) for _, answer in rows]).tolist() == [0, 0, 2]


@pytest.mark.parametrize("copies", [5, 40])
@pytest.mark.parametrize("provider", ["one name", "two names"])
def test_disguised_copies_earn_what_the_row_earns(copies, provider):
    """The attacker's share of the budget with k copies, against its share with the bare row, in a pool of others."""
    for seed in range(4):
        generator = np.random.default_rng(seed)
        text, question = prose(generator, 50), " ".join(prose(generator, 9))
        others = [(" ".join(prose(generator, 9)), " ".join(prose(generator, 40))) for _ in range(60)]
        row = (question, " ".join(text))
        bare = earned([*others, row], {60})
        disguised = [(question, DISGUISES[i % len(DISGUISES)](text, generator)) for i in range(copies)]
        own = set(range(60, 61 + copies))
        names = ["name"] * 60 + ["a" if provider == "one name" or i % 2 else "b" for i in range(copies + 1)]
        assert earned([*others, row, *disguised], own, names) <= 1.05 * bare


def earned(rows: list[tuple[str, str]], own: set[int], names: list[str] | None = None) -> int:
    """What some rows are paid of a budget of 1,000,000 cents, if all have the same value."""
    columns = {"id": [f"r{i}" for i in range(len(rows))], "value": [1.0] * len(rows), "cluster": clusters(rows)}
    columns["provider"] = names or ["name" if i not in own else "a" for i in range(len(rows))]
    cents = price(Values(pa.table(columns)), Terms(1_000_000, by="provider")).cents
    return int(sum(cents[i] for i in own))


@pytest.mark.parametrize("plain", [False, True])
def test_rows_behind_one_instruction_stay_apart(plain):
    generator = np.random.default_rng(0)
    instruction = " ".join(prose(generator, 150))
    rows = []
    for _ in range(200):
        question, answer = " ".join(prose(generator, 12)), " ".join(prose(generator, 15))
        rows.append(("", f"{instruction} {question} {answer}") if plain else (f"{instruction} {question}", answer))
    assert len(set(clusters(rows).tolist())) == 200
    assert len(set(clusters([*rows, *rows]).tolist())) == 200


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(("instruction", "own"), [(60, 3), (110, 6), (400, 15)])
def test_few_words_of_ones_own_keep_rows_of_a_long_instruction_apart(instruction, own, behind):
    generator = np.random.default_rng(instruction)
    frame, labels = " ".join(prose(generator, instruction)), ["positive", "negative"]
    texts = [" ".join(prose(generator, own)) for _ in range(200)]
    prompts = [f"Review: {text} {frame}" if behind else f"{frame} Review: {text}" for text in texts]
    rows = [(prompt, str(generator.choice(labels))) for prompt in prompts]
    assert len(set(clusters(rows).tolist())) == 200
    primes = [(f"{frame} Is {k} prime?", str(generator.choice(["yes", "no"]))) for k in range(200)]
    assert len(set(clusters(primes).tolist())) == 200


def test_copies_behind_one_instruction_are_found_by_their_own_words():
    generator = np.random.default_rng(7)
    frame = " ".join(prose(generator, 300))
    texts = [prose(generator, 20) for _ in range(200)]
    rows = [(f"{frame} {' '.join(text)}", "positive") for text in texts]
    copies = [(f"{frame} {' '.join(prose(generator, 2))} {every_tenth(text, generator)}", "positive") for text in texts]
    assert clusters([*rows, *copies]).tolist() == [*range(200), *range(200)]


def test_rows_of_one_frame_stay_apart():
    generator = np.random.default_rng(1)
    things = [" ".join(prose(generator, 2)) for _ in range(120)]
    facts = [
        (f"What is the capital of {thing}?", f"The capital city of the country of {thing} is the city of {capital}.")
        for thing, capital in zip(things[:60], things[60:], strict=True)
    ]
    yes_or_no = [(f"Say whether this is a number of the kind we spoke about: {thing}", "Yes") for thing in things]
    polite = [
        (f"Tell me about {thing}", f"Sure, here is what I know about {thing}: {fact} I hope that this was of help!")
        for thing, fact in zip(things, (" ".join(prose(generator, 12)) for _ in things), strict=True)
    ]
    few = [(f"Add {i} and {i + 7}.", f"The sum is {2 * i + 7}.") for i in range(12)]
    for rows in (facts, yes_or_no, polite, few):
        assert len(set(clusters(rows).tolist())) == len(rows)


def test_one_question_may_have_many_answers_and_one_answer_many_questions():
    generator = np.random.default_rng(2)
    question = " ".join(prose(generator, 40))
    assert len(set(clusters([(question, " ".join(prose(generator, 30))) for _ in range(20)]).tolist())) == 20
    assert len(set(clusters([(" ".join(prose(generator, 12)), "No.") for _ in range(20)]).tolist())) == 20
    story = prose(generator, 80)
    dressed = [(" ".join(prose(generator, 12)), " ".join(story)) for _ in range(5)]
    assert len(set(clusters(dressed).tolist())) == 1  # a long answer pays once, whatever was asked


def test_a_bare_row_is_found_from_each_of_many_copies():
    """The shortest holder is proposed: the row before each copy is another copy, with other fillers."""
    generator = np.random.default_rng(3)
    text = prose(generator, 40)
    copies = [("", " ".join([*prose(generator, 30), *text])) for _ in range(60)]
    assert set(clusters([*copies[:30], ("", " ".join(text)), *copies[30:]]).tolist()) == {0}


def test_candidates_stay_few_where_all_rows_share_a_frame():
    frame = np.arange(50, dtype=np.uint32)
    rows = [np.concatenate([frame, np.array([1000 + i], dtype=np.uint32)]) for i in range(500)]
    pairs = list(candidate_pairs(rows))
    assert len(pairs) <= 2 * 500
    assert {row for row, _ in pairs} == set(range(500)) - {0}


def test_words_in_their_plain_form():
    assert words("Hello, end-to-end WORLD") == words(
        "Ηеllо, ｅｎｄ-tο-end W\u200bоR\u00adLD!"
    )  # Greek and Cyrillic letters
    assert words("naïve café") == words("naive cafe")
    assert words("Coffee bb3fore n<b>oo</b>n") == words("coffe before no&#x6f;n")
    assert words("Meettiing agaain") == words("meeting again")
    assert words("Москва не сразу") == words("МОСКВА, НЕ СРАЗУ")
    assert words("今天 ok") == ["今", "天", "ok"]
    assert words("?!") == ["?!"]
    assert words("") == []
    assert words("17 and 19") != words("17 and 18")
    for one, other in [
        *(("3.14", "31.4"), ("1 23", "12 3"), ("mp3", "mp4"), ("World War I", "World War II"), ("AA", "AAA")),
        *(("List<int>", "List<str>"), ("a < b", "a > c"), ("77", "7"), ("1.2.3.4", "12.3.4"), ("345", "eas")),
    ]:
        assert unspaced(words(one)) != unspaced(words(other))
    assert visible_length("a  b\u200bc \n d") == visible_length("a bc d") == 6
