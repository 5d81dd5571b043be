"""Two domains (RISE's separation task): a finance and a medical half asked about in the same general words.

A query's positives are all rows of its own domain. The frames of questions and answers are shared, so what separates
the halves is their terms and what is said about them, not the manner of asking.
"""

from __future__ import annotations

from random import Random
from typing import Any

from headwater.tasks.grammar import capital, dressed, fresh, table
from headwater.tasks.task import Task, numbered

_FINANCE = table(
    "term meaning sign step",
    """
    a bond | a loan to a state or a company that pays interest | its price falls when rates rise | compare the yield
    a share | a small part of a company | it rises with the profits | read the annual report
    a dividend | the part of the profit that owners receive | it is paid once a quarter | reinvest it
    a mortgage | a loan secured by a house | the rate may be fixed or float | ask two banks for an offer
    inflation | a steady rise of prices | the same money buys less each year | look for a higher return
    a budget | a plan of income and spending | it shows where the salary goes | write down each payment
    an index fund | a fund that holds a whole market | its fees are low | invest a fixed sum monthly
    a credit score | a number that says how well somebody repays | late payments lower it | pay the bills on time
    an audit | a check of the accounts by outsiders | it finds wrong entries in the ledger | keep every receipt
    a deposit | money left with a bank | it earns a little interest | compare the terms of banks
    liquidity | how fast something turns into cash | it is low when few want to buy | keep three salaries in cash
    a hedge | a trade that limits a loss | it costs a premium | buy an option against the fall
    an invoice | a bill for goods or services | it names the tax and the due date | pay it within thirty days
    capital gains tax | a tax on profit from selling assets | it is due after the sale | hold the shares longer
    a pension | an income after the working years | it grows with each contribution | raise the monthly rate
    a recession | a time in which the economy shrinks | companies lay off workers | spread the portfolio
    a loan | money lent for interest | the lender asks for collateral | borrow no more than needed
    an exchange rate | the price of one currency in another | exporters watch it daily | change money early
    """,
)

_MEDICAL = table(
    "term meaning sign step",
    """
    asthma | a disease that narrows the airways | it causes wheezing at night | use the inhaler early
    a fracture | a break in a bone | it hurts and swells at once | keep the limb still until the x-ray
    anaemia | a lack of red blood cells | patients look pale and tire quickly | eat food rich in iron
    diabetes | a disease in which blood sugar is too high | it causes thirst and weight loss | measure the glucose daily
    a migraine | a strong headache on one side | light and noise make it worse | rest in a dark room
    hypertension | blood pressure that is too high | it is silent for years | cut down on salt
    an antibiotic | a drug that kills bacteria | it does nothing against a virus | finish the whole course
    a vaccine | a preparation that trains the immune system | the arm may be sore | ask the nurse about the booster
    pneumonia | an infection of the lungs | it brings fever and a deep cough | have the chest examined
    arthritis | an inflammation of the joints | the fingers are stiff in the morning | move the joints gently
    a stroke | a blocked or burst vessel in the brain | the face droops on one side | call an ambulance at once
    an allergy | a false alarm of the immune system | the skin itches after contact | avoid the pollen
    insomnia | trouble falling or staying asleep | it leaves people tired all day | keep a regular bedtime
    gastritis | an inflamed stomach lining | it burns after meals | avoid coffee and alcohol
    a concussion | a brain injury after a blow | it causes nausea and confusion | rest and see a doctor
    eczema | dry and itching skin | it flares in winter | use a plain ointment
    a biopsy | a small sample of tissue | the laboratory studies it under a microscope | wait for the pathologist
    angina | chest pain from a narrowed artery | it comes with effort | carry the spray at all times
    """,
)

_DOMAINS = {"finance": _FINANCE, "medical": _MEDICAL}

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
    """A pool of two equal halves, and answered queries from both in turn; no prompt occurs twice."""
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
