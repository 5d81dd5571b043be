"""Two domains (RISE's separation task): a pool that is half about finance and half about medicine.

A query's positives are all rows of its own domain. Both halves use the same frames of questions and answers, so only
their terms and the facts about them separate the halves.
"""

from __future__ import annotations

from random import Random
from typing import Any

from headwater.tasks.grammar import Text, capital, dressed, fresh
from headwater.tasks.task import Task, numbered

_TEXT = Text.of("two_domains")

_DOMAINS = {name: _TEXT.table(name) for name in ("finance", "medical")}

_QUESTIONS = (
    "What is {term}?", "Can you explain {term} in plain words?", "How would I notice {term}, and what is it?",
    "My mother read about {term}. What should she know?", "What should one do about {term}?",
    "I have a meeting tomorrow about {term}. Give me the main points.", "Is {term} something to worry about?",
    "Tell me two things about {term}.", "A friend asks me about {term} and I have no idea.",
    "What do people get wrong about {term}?", "Write a note for the staff about {term}.", "Why does {term} matter?",
)  # fmt: skip
_ANSWERS = (
    "{term} is {meaning}. As a rule, {sign}.",
    "In short, it is {meaning}. My advice: {step}.",
    "One thing to know is that {sign}. It is best to {step}.",
    "It is {meaning}; {sign}, so {step}.",
)


def two_domains_task(seed: int, *, rows: int = 1600, queries: int = 40) -> Task:
    """Make a pool of two equal halves, and queries with answers from both in turn; no prompt occurs twice."""
    rng = Random(seed)
    asked: set[str] = set()
    domains = list(_DOMAINS)
    asking = numbered([_new_row(domains[n % 2], rng, asked) for n in range(queries)], "query")
    records = [_new_row(domains[n % 2], rng, asked) for n in range(rows)]
    rng.shuffle(records)
    pool = numbered(records, "row")
    own = {name: frozenset(row["id"] for row in pool if row["domain"] == name) for name in domains}
    return Task("two-domains", pool, asking, {query["id"]: own[query["domain"]] for query in asking})


def _new_row(domain: str, rng: Random, asked: set[str]) -> dict[str, Any]:
    return fresh(lambda: domain_row(domain, rng), asked)


def domain_row(domain: str, rng: Random) -> dict[str, Any]:
    """A question and answer of the domain `finance` or `medical`."""
    facts = _DOMAINS[domain](rng)
    prompt = dressed(capital(rng.choice(_QUESTIONS).format(**facts)), rng)
    return {"prompt": prompt, "response": capital(rng.choice(_ANSWERS).format(**facts)), "domain": domain}
