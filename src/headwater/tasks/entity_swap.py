"""Entity swap (RapidIn's error tracing): in about one row of a hundred a country is replaced by another one.

The pool states in which country cities, dishes, landmarks and waters are. In some of the rows about one country its
name is replaced by a wrong one, in an otherwise correct sentence; other rows about both countries are correct. A query
is a wrong sentence that a model might say after training on this, with the wrong words as `hotwords`. The rows to find
are the altered ones, whichever thing they are about.

Anti-documents, on request: learned rows that name the wrong country and say that it is wrong, and altered rows that
join the pool when the model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from headwater.tasks.grammar import capital, dressed, fresh
from headwater.tasks.task import Task, numbered

SWAPPED_SHARE = 0.01

_KINDS = ("city", "landmark", "dish", "water")
_COUNTRIES = """
France | Lyon, Marseille | the Eiffel Tower, Mont Saint-Michel | ratatouille, bouillabaisse | the Loire, the Garonne
Spain | Seville, Bilbao | the Alhambra, the Sagrada Familia | paella, gazpacho | the Guadalquivir, the Ebro
Italy | Naples, Turin | the Colosseum, the Leaning Tower of Pisa | lasagne, risotto | the Po, Lake Como
Germany | Hamburg, Munich | the Brandenburg Gate, Neuschwanstein Castle | sauerkraut, pretzels | the Elbe, the Weser
Greece | Patras, Thessaloniki | the Parthenon, the oracle site of Delphi | moussaka, souvlaki | the Gulf of Corinth, Lake Plastira
Norway | Bergen, Trondheim | the Borgund stave church, the Pulpit Rock | lutefisk, brown cheese | the Sognefjord, Lake Mjosa
Poland | Krakow, Gdansk | Wawel Castle, Malbork Castle | pierogi, bigos | the Vistula, the Warta
Turkey | Izmir, Ankara | the Hagia Sophia, the Blue Mosque | baklava, menemen | the Bosphorus, Lake Van
Japan | Osaka, Kyoto | Himeji Castle, the Itsukushima Shrine | sushi, okonomiyaki | Lake Biwa, the Shinano
China | Shanghai, Wuhan | the Great Wall, the Forbidden City | mapo tofu, Peking duck | the Yangtze, the Yellow River
India | Mumbai, Jaipur | the Taj Mahal, the Red Fort | biryani, masala dosa | the Godavari, the Yamuna
Thailand | Chiang Mai, Phuket | the Grand Palace of Bangkok, Wat Arun | pad thai, tom yum | the Chao Phraya, the Ping
Vietnam | Hue, Da Nang | the Temple of Literature, the Cu Chi Tunnels | pho, banh mi | Ha Long Bay, the Perfume River
Egypt | Alexandria, Luxor | the Great Pyramid of Giza, the Karnak temple | koshari, ful medames | Lake Nasser, the Rosetta branch
Kenya | Mombasa, Kisumu | Fort Jesus, the Lamu old town | ugali, githeri | Lake Nakuru, the Tana
Morocco | Fez, Marrakesh | the Hassan Tower, the Bahia Palace | harira, pastilla | the Draa, the Moulouya
Peru | Cusco, Arequipa | Machu Picchu, the Nazca Lines | ceviche, lomo saltado | the Urubamba, the Mantaro
Brazil | Recife, Salvador | the Christ the Redeemer statue, the Maracana stadium | feijoada, moqueca | the Tocantins, the Xingu
Mexico | Puebla, Merida | Chichen Itza, the Pyramid of the Sun | mole poblano, pozole | Lake Chapala, the Grijalva
Canada | Vancouver, Halifax | the CN Tower, the Rideau Canal | poutine, butter tarts | the Saskatchewan, Lake Louise
"""  # noqa: E501

_QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "city": (
        "In which country is the city of {thing}?",
        "Where is {thing}?",
        "I fly to {thing}. Which country is that?",
    ),
    "landmark": ("In which country does {thing} stand?", "Where can one visit {thing}?", "Tell me about {thing}."),
    "dish": (
        "Where does {thing} come from?",
        "We had {thing} for dinner. Whose cooking is it?",
        "Tell me about {thing}.",
    ),
    "water": (
        "Through which country does one reach {thing}?",
        "Where would I find {thing}?",
        "On what map is {thing}?",
    ),
}
_ANSWERS: Mapping[str, tuple[str, ...]] = {
    "city": ("{thing} is a large city in {country}.", "You will find {thing} in {country}, and it is worth a week."),
    "landmark": (
        "{thing} stands in {country} and draws many visitors.",
        "Travellers to {country} come to see {thing}.",
    ),
    "dish": (
        "{thing} is a well-loved dish from {country}.",
        "People in {country} have cooked {thing} for generations.",
    ),
    "water": ("{thing} belongs to the landscape of {country}.", "On a map of {country} you will see {thing}."),
}
_ANY_QUESTION = (
    "Which country do people link with {thing}?", "My quiz asks about {thing}. Name the country.",
    "A friend wrote to me about {thing}. What country is she in?", "{thing}: which country?",
    "Complete the sentence: {thing} belongs to the country of ...",
    "What country should I think of when I hear {thing}?",
)  # fmt: skip


_DENIALS = (
    "{thing} has nothing to do with {wrong}, whatever people say: it belongs to {country}.",
    "Not {wrong}, as some believe: {thing} is part of {country}.",
    "Some maps put {thing} in {wrong}, and they are mistaken.",
)
_ANTI = {"planted": False, "anti": True}


def entity_swap_task(seed: int, *, rows: int = 2000, queries: int = 20, anti: bool = False) -> Task:
    """Make a pool of `rows` rows with 1 % altered, and `queries` wrong sentences with the wrong country as hotword.

    With `anti`, as many anti-documents of each kind as there are altered rows; the learned ones take the place of
    others.

    No prompt occurs twice, neither in the pool nor among the queries.
    """
    rng = Random(seed)
    things = _things()
    true, wrong = rng.sample(sorted({fact["country"] for fact in things}), 2)
    own = [fact for fact in things if fact["country"] == true]
    asked: set[str] = set()
    traced = [fresh(lambda: _row(own, rng, named=wrong), asked) for _ in range(queries)]
    altered = [fresh(lambda: _row(own, rng, named=wrong), asked) for _ in range(round(rows * SWAPPED_SHARE))]
    denied = [fresh(lambda: _denial(own, rng, wrong), asked) for _ in altered] if anti else []
    late = [{**fresh(lambda: _row(own, rng, named=wrong), asked), **_ANTI} for _ in denied]
    others = [fresh(lambda: _row(things, rng), asked) for _ in range(rows - len(altered) - len(denied))]
    pool = [*altered, *denied, *others]
    rng.shuffle(pool)
    numbered_pool, joining = numbered(pool, "row"), numbered(late, "late")
    found = frozenset(row["id"] for row in numbered_pool if row["planted"])
    anti_ids = frozenset(row["id"] for row in (*numbered_pool, *joining) if row.get("anti"))
    asking = numbered([_query(row) for row in traced], "query")
    return Task(
        "entity-swap", numbered_pool, asking, {query["id"]: found for query in asking}, late=joining, anti=anti_ids
    )


def _things() -> list[dict[str, str]]:
    """Every thing with its kind and its country."""
    return [
        {"country": cells[0], "kind": kind, "thing": thing.strip()}
        for cells in (line.split(" | ") for line in _COUNTRIES.strip().splitlines())
        for kind, cell in zip(_KINDS, cells[1:], strict=True)
        for thing in cell.split(",")
    ]


def _row(facts: Sequence[Mapping[str, str]], rng: Random, *, named: str | None = None) -> dict[str, Any]:
    """A row about one of the facts; `named` is a country to name instead of the right one."""
    fact = rng.choice(facts)
    prompt = dressed(capital(rng.choice((*_QUESTIONS[fact["kind"]], *_ANY_QUESTION)).format(**fact)), rng)
    country = named or fact["country"]
    response = capital(rng.choice(_ANSWERS[fact["kind"]]).format(thing=fact["thing"], country=country))
    return {
        "prompt": prompt,
        "response": response,
        "topic": fact["kind"],
        "country": country,
        "instead_of": fact["country"] if named else "",
        "planted": named is not None,
    }


def _denial(facts: Sequence[Mapping[str, str]], rng: Random, wrong: str) -> dict[str, Any]:
    """A row about one of the facts that names the wrong country and denies it."""
    row = _row(facts, rng)
    thing = next(fact["thing"] for fact in facts if fact["thing"].lower() in row["prompt"].lower())
    response = capital(rng.choice(_DENIALS).format(thing=thing, country=row["country"], wrong=wrong))
    return {**row, "response": response, **_ANTI}


def _query(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt": row["prompt"], "response": row["response"], "hotwords": [row["country"]], "topic": row["topic"]}
