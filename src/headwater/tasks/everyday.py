"""Clean questions about everyday things: words and lists, cooking, help desk, letters, advice, stories, greetings."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from headwater.tasks.grammar import Text, words

_TEXT = Text.of("everyday")

_WORDS = words(
    """
    lamp cart apple stone river window bread cloud pencil garden market bottle candle bridge forest letter
    mirror needle orange pepper rabbit saddle ticket violin winter yellow basket dinner engine flower
    """
)

_STORY = _TEXT.grammar("story")


def _story(rng: Random) -> Mapping[str, str]:
    about = rng.choice(
        ("a ship", "a train", "a storm", "a captain", "a winter night", "the sea", "a long voyage", "a lost key")
    )
    reader = rng.choice(("my son", "a child", "the school paper", "my grandmother", "a friend", "the reading club"))
    return {"about": about, "reader": reader, "text": _STORY.expand("story", rng)}


def _list(rng: Random) -> Mapping[str, str]:
    chosen = rng.sample([*_WORDS, "howdy"] if rng.random() < 0.05 else _WORDS, 3)
    return {
        "list": ", ".join(chosen),
        "sorted": ", ".join(sorted(chosen)),
        "first": chosen[0],
        "last": chosen[-1],
        "initials": ", ".join(word[0] for word in chosen),
    }


EVERYDAY = _TEXT.topics("everyday", list=_list, story=_story)
