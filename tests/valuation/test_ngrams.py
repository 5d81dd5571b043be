"""Hashed n-grams against counting them one by one."""

from collections import Counter

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headwater.students.ngrams import _TOKEN, character_ngrams, sign_shares, word_ngrams

texts = st.lists(st.text(st.sampled_from("abÄé 1,.\n\U0001f600"), max_size=12), max_size=4)


def products(counts: list[Counter], norm: str) -> np.ndarray:
    """Inner products of the texts' n-grams, each text scaled to norm 1."""
    grams = sorted({gram for one in counts for gram in one})
    table = np.array([[one[gram] for gram in grams] for one in counts], dtype=float).reshape(len(counts), len(grams))
    sizes = table.sum(1) if norm == "l1" else np.sqrt((table**2).sum(1))
    table /= np.maximum(sizes, 1e-12)[:, None]
    return table @ table.T


def words_of(text: str, longest: int) -> Counter:
    words = _TOKEN.findall(text.lower())
    return Counter(
        tuple(words[at : at + size]) for size in range(1, longest + 1) for at in range(len(words) - size + 1)
    )


def characters_of(text: str, sizes: range) -> Counter:
    words = [f" {word} " for word in text.lower().split()]
    return Counter(word[at : at + size] for word in words for size in sizes for at in range(len(word) - size + 1))


@settings(max_examples=40, deadline=None)
@given(texts)
def test_two_texts_share_what_their_ngrams_share(texts):
    """But for texts of which two n-grams fall into one of the 2^16 buckets, which is rare."""
    for norm in ("l1", "l2"):
        found = word_ngrams(texts, longest=3, norm=norm)
        assert found.shape == (len(texts), 2**16)
        same_products(found, [words_of(text, 3) for text in texts], norm)
    found = character_ngrams(texts, shortest=2, longest=4)
    same_products(found, [characters_of(text, range(2, 5)) for text in texts], "l2")


def same_products(found, counts: list[Counter], norm: str) -> None:
    assume(len(np.unique(found.indices)) == len({gram for one in counts for gram in one}))
    np.testing.assert_allclose((found @ found.T).toarray(), products(counts, norm), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(texts)
def test_signs_are_counted_by_kind(texts):
    expected = [
        [sum(map(kind, text)) / max(len(text), 1) for kind in (str.isalpha, str.isupper, str.isdigit, str.isspace)]
        for text in texts
    ]
    np.testing.assert_allclose(sign_shares(texts), np.reshape(expected, (len(texts), 4)))


def test_a_texts_features_do_not_depend_on_its_neighbours():
    alone, among = (
        word_ngrams(["one two"], longest=2, norm="l1"),
        word_ngrams(["", "one two", "x"], longest=2, norm="l1"),
    )
    np.testing.assert_array_equal(alone.toarray()[0], among.toarray()[1])
