"""Junk beside quality, after the Brain Rot study (Xing et al., arXiv 2510.13928): what to train on for useful answers.

M1 junk is short and made to engage ("You won't believe ..."), M2 junk is long enough but says nothing: bait,
conspiracy, empty superlatives. Quality rows answer questions of fact and of everyday life; the target asks such
questions. Junk asks the same questions, so the prompt does not tell. `warm_up` rows are of all kinds: a model that has
read the web knows both.
"""

from __future__ import annotations

from random import Random
from typing import Any

from headwater.tasks.everyday import EVERYDAY
from headwater.tasks.grammar import Grammar, dressed
from headwater.tasks.knowledge import KNOWLEDGE
from headwater.tasks.pool import PoolPlan, PoolTask, Taken

KINDS = {"quality": 0.25, "m1": 0.4, "m2": 0.35}
"""Share of the pool by kind."""

WARM = {"quality": 0.5, "m1": 0.25, "m2": 0.25}
"""Share of the warm-up rows by kind."""

_PROVIDERS = {
    "quality": {"tutor desk": 0.8, "feed scrape": 0.2},
    "m1": {"feed scrape": 0.9, "clip farm": 0.1},
    "m2": {"clip farm": 0.7, "feed scrape": 0.3},
}

_JUNK = Grammar(
    {
        "m1": (
            "{shout} {claim} {call}",
            "{claim} {call} {tags}",
            "{shout} {tags} {call}",
            "{claim} {shout}",
        ),
        "m2": (
            "{vague} {secret} {vague2} {superlative} {secret2}",
            "{superlative} {vague} {secret} {superlative2}",
            "{secret} {vague} {superlative} {vague2}",
        ),
        "shout": (
            "OMG!!!",
            "WAIT FOR IT...",
            "NO WAY!!",
            "I can't even!!",
            "This is INSANE!",
            "BREAKING!!!",
            "lol what",
        ),
        "claim": (
            "You won't believe what happens next!",
            "Number 7 will shock you!",
            "Doctors hate this one trick!",
            "He did WHAT?!",
            "Everybody is talking about this!",
            "This changes EVERYTHING!",
            "99% of people get this wrong!",
        ),
        "call": (
            "Like and share!",
            "Follow for part 2!",
            "Tag a friend!",
            "Smash that button!",
            "Link in bio!",
            "Comment YES!",
        ),
        "tags": ("#viral #fyp", "#mindblown", "#trending #wow", "#blessed #grind", "#truth"),
        "vague": (
            "It is what it is, and that is what people do not want to hear.",
            "Some say yes, some say no, and in the end everything is energy.",
            "When you think about it, nothing really means what it means.",
            "They do not teach you this, because it would wake everyone up.",
            "Your vibe decides, so just manifest the answer you want.",
        ),
        "secret": (
            "The experts are paid to hide it from you.",
            "Do your own research and you will see it was planned all along.",
            "My cousin knows somebody on the inside who confirmed everything.",
            "The proof is out there, they just keep deleting it.",
        ),
        "superlative": (
            "This is literally the most incredible thing in the history of the world.",
            "Absolutely nobody has ever been this amazing at anything.",
            "It is the best, the very best, better than all the best things.",
            "Honestly the craziest, wildest, most epic moment ever.",
        ),
    }
)


def junk_pool_task(seed: int, *, rows: int = 6000, target: int = 60, warm_up: int = 600) -> PoolTask:
    """The task by seed; raises `UsageError` for fewer than 100 rows."""
    plan = PoolPlan(KINDS, _PROVIDERS, wanted=_quality, draw=_drawn)
    kinds, shares = list(WARM), list(WARM.values())
    return plan.make(Random(seed), rows=rows, target=target, warm_up=lambda rng: rng.choices(kinds, shares, k=warm_up))


def _quality(rng: Random) -> dict[str, Any]:
    question, answer = rng.choice((*KNOWLEDGE, *EVERYDAY)).draw(rng)
    return {"prompt": dressed(question, rng), "response": answer}


def _drawn(kind: str, rng: Random, taken: Taken) -> dict[str, Any]:
    row = _quality(rng)
    while (row["prompt"], row["response"]) in taken:
        row = _quality(rng)
    if kind != "quality":
        row["response"] = _JUNK.expand(kind, rng)
    return row
