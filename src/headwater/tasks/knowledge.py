"""Clean questions about facts: places, animals, words, the sky, numbers, units, dates."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from headwater.tasks.grammar import Topic, table

PLACES = """
France | Paris | Europe | French
Spain | Madrid | Europe | Spanish
Italy | Rome | Europe | Italian
Germany | Berlin | Europe | German
Poland | Warsaw | Europe | Polish
Austria | Vienna | Europe | German
Greece | Athens | Europe | Greek
Norway | Oslo | Europe | Norwegian
Sweden | Stockholm | Europe | Swedish
Portugal | Lisbon | Europe | Portuguese
Hungary | Budapest | Europe | Hungarian
Ireland | Dublin | Europe | English
Japan | Tokyo | Asia | Japanese
China | Beijing | Asia | Chinese
India | New Delhi | Asia | Hindi
Thailand | Bangkok | Asia | Thai
Vietnam | Hanoi | Asia | Vietnamese
Mongolia | Ulaanbaatar | Asia | Mongolian
Nepal | Kathmandu | Asia | Nepali
Iran | Tehran | Asia | Persian
Egypt | Cairo | Africa | Arabic
Kenya | Nairobi | Africa | Swahili
Ghana | Accra | Africa | English
Senegal | Dakar | Africa | French
Ethiopia | Addis Ababa | Africa | Amharic
Morocco | Rabat | Africa | Arabic
Peru | Lima | South America | Spanish
Chile | Santiago | South America | Spanish
Brazil | Brasilia | South America | Portuguese
Colombia | Bogota | South America | Spanish
Canada | Ottawa | North America | English
Mexico | Mexico City | North America | Spanish
Cuba | Havana | North America | Spanish
Australia | Canberra | Oceania | English
"""

_place = table("country city continent language", PLACES)

_animal = table(
    "animal kind home food young",
    """
    cat | mammal | the house | mice and fish | kitten
    dog | mammal | the house | meat and biscuits | puppy
    cow | mammal | the meadow | grass and hay | calf
    horse | mammal | the stable | oats and hay | foal
    sheep | mammal | the hills | grass | lamb
    goat | mammal | the mountains | leaves and grass | kid
    bear | mammal | the forest | berries and fish | cub
    lion | mammal | the savanna | antelopes | cub
    whale | mammal | the ocean | krill | calf
    bat | mammal | the cave | insects | pup
    hare | mammal | the fields | herbs and bark | leveret
    owl | bird | the old barn | mice | owlet
    swan | bird | the lake | water plants | cygnet
    duck | bird | the pond | snails and weeds | duckling
    eagle | bird | the cliffs | hares and fish | eaglet
    hen | bird | the farmyard | grain | chick
    penguin | bird | the icy coast | fish | chick
    frog | amphibian | the pond | flies | tadpole
    toad | amphibian | the garden | worms and slugs | tadpole
    shark | fish | the sea | smaller fish | pup
    salmon | fish | the river | shrimps | fry
    lizard | reptile | the dry wall | crickets | hatchling
    tortoise | reptile | the scrub | leaves and flowers | hatchling
    bee | insect | the hive | nectar and pollen | larva
    ant | insect | the nest | seeds and crumbs | larva
    """,
)

_definition = table(
    "word meaning",
    """
    atlas | a book of maps
    harvest | the time when crops are gathered
    anvil | an iron block on which metal is hammered
    ledger | a book in which accounts are kept
    orchard | a piece of land with fruit trees
    compass | a tool that shows where north is
    recipe | a list of ingredients and steps for a dish
    glacier | a slow river of ice
    volcano | a mountain that can throw out molten rock
    drought | a long time without rain
    mortgage | a loan for buying a house
    candidate | a person who seeks an office or a job
    museum | a building where old or beautiful things are shown
    thermometer | an instrument that measures temperature
    peninsula | land with water on three sides
    rumour | a story that nobody has checked
    synonym | a word with nearly the same meaning as another
    ballad | a song that tells a story
    ferry | a boat that carries people across water
    quarry | a place where stone is cut
    apprentice | a person who learns a trade by working
    budget | a plan for spending money
    scarf | a cloth worn round the neck
    tide | the rise and fall of the sea
    referee | a person who sees that players keep the rules
    invoice | a bill that lists what was sold
    proverb | a short old saying that gives advice
    lullaby | a soft song that sends a child to sleep
    bakery | a shop where bread is made
    census | a count of the people of a country
    """,
)

_sky = table(
    "body fact colour",
    """
    Mercury | is the planet closest to the sun | grey
    Venus | is the hottest planet of the solar system | pale yellow
    Earth | is the only planet known to carry life | blue and white
    Mars | is a cold planet with a thin atmosphere | rusty red
    Jupiter | is the largest planet of the solar system | striped brown and cream
    Saturn | is a planet famous for its rings | soft gold
    Uranus | is a planet that spins on its side | pale green
    Neptune | is the planet farthest from the sun | deep blue
    the Moon | goes round the Earth in about four weeks | grey
    the Sun | is a star made mostly of hydrogen | white
    the Pole Star | is a star that shows where north is | pale yellow
    the space station | is a laboratory that goes round the Earth in ninety minutes | silver
    """,
)

_job = table(
    "job work place",
    """
    baker | bakes bread and cakes | a bakery
    plumber | repairs pipes and taps | other people's kitchens
    nurse | cares for sick people | a hospital
    pilot | flies aeroplanes | an aeroplane
    carpenter | builds things from wood | a workshop
    librarian | looks after books and readers | a library
    farmer | grows crops and keeps animals | a farm
    astronaut | works on board a spacecraft | space
    judge | decides cases by the law | a court
    gardener | plants and trims | a garden
    sailor | works on board a ship | the sea
    engineer | designs machines and bridges | an office
    tailor | cuts and sews clothes | a shop
    dentist | looks after teeth | a surgery
    miner | digs for coal or ore | a mine
    teacher | explains things to pupils | a school
    """,
)

_UNITS = table(
    "big bigs small smalls factor",
    """
    metre | metres | centimetre | centimetres | 100
    kilometre | kilometres | metre | metres | 1000
    hour | hours | minute | minutes | 60
    minute | minutes | second | seconds | 60
    day | days | hour | hours | 24
    week | weeks | day | days | 7
    year | years | month | months | 12
    kilogram | kilograms | gram | grams | 1000
    litre | litres | millilitre | millilitres | 1000
    euro | euros | cent | cents | 100
    """,
)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _unit(rng: Random) -> Mapping[str, str]:
    facts, n = _UNITS(rng), rng.randint(2, 9)
    return {**facts, "n": str(n), "total": str(n * int(facts["factor"]))}


def _sum(rng: Random) -> Mapping[str, str]:
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    thing = rng.choice(("apples", "stamps", "coins", "books", "eggs", "marbles"))
    return {"a": str(a), "b": str(b), "c": str(a + b), "thing": thing}


def _product(rng: Random) -> Mapping[str, str]:
    a, b = rng.randint(2, 10), rng.randint(2, 10)
    return {"a": str(a), "b": str(b), "c": str(a * b)}


def _comparison(rng: Random) -> Mapping[str, str]:
    a, b = rng.sample(range(2, 100), 2)
    return {"a": str(a), "b": str(b), "big": str(max(a, b)), "small": str(min(a, b))}


def _weekday(rng: Random) -> Mapping[str, str]:
    start, step = rng.randrange(7), rng.randint(1, 4)
    word = ("one day", "two days", "three days", "four days")[step - 1]
    return {"day": DAYS[start], "step": word, "then": DAYS[(start + step) % 7]}


def _clock(rng: Random) -> Mapping[str, str]:
    hour, hours = rng.randint(1, 11), rng.randint(1, 6)
    what = rng.choice(("train", "class", "film", "meeting", "concert", "ferry"))
    return {"h": str(hour), "n": str(hours), "end": str((hour + hours - 1) % 12 + 1), "what": what}


KNOWLEDGE = (
    Topic(
        "capitals",
        _place,
        (
            "What is the capital of {country}?",
            "Which city is the capital of {country}?",
            "Name the capital city of {country}.",
            "Where does the government of {country} sit?",
            "I am writing a quiz. What should I accept as the capital of {country}?",
            "My ticket says {country}; what is its capital called?",
        ),
        (
            "The capital of {country} is {city}.",
            "It is {city}.",
            "{city} is the capital of {country}, a country in {continent}.",
        ),
    ),
    Topic(
        "geography",
        _place,
        (
            "On which continent is {country}?",
            "Where in the world would I find {country}?",
            "Which continent does {country} belong to, and what do people speak there?",
            "Tell me something about {country} and its language.",
        ),
        (
            "{country} is in {continent}, and many people there speak {language}.",
            "You find it in {continent}; {language} is widely spoken.",
        ),
    ),
    Topic(
        "animals",
        _animal,
        (
            "What kind of animal is a {animal}, and what does it eat?",
            "What does a {animal} live on?",
            "Is the {animal} a bird, a fish or something else?",
            "Tell me about the {animal}.",
            "My daughter asks about the food of the {animal}.",
        ),
        ("A {animal} is a {kind} that eats {food}.", "It is a {kind}. It lives on {food}."),
    ),
    Topic(
        "animal_homes",
        _animal,
        (
            "Where does the {animal} live?",
            "What is a young {animal} called?",
            "Where would I look for a {animal} and its young?",
            "What do we call the baby of a {animal}?",
        ),
        (
            "The {animal} lives in {home}, and its young is called a {young}.",
            "A young {animal} is a {young}; look in {home}.",
        ),
    ),
    Topic(
        "definitions",
        _definition,
        (
            "What does the word {word} mean?",
            "Define {word}.",
            "How would you explain {word} to a child?",
            "I came across the word {word}. What is that?",
            "Give me a short meaning of {word}.",
        ),
        ("A {word} is {meaning}.", "The word {word} means {meaning}.", "It is {meaning}."),
    ),
    Topic(
        "astronomy",
        _sky,
        (
            "What should I know about {body}?",
            "Tell me one fact about {body}.",
            "We look at {body} through a telescope tonight. What is it?",
            "What colour is {body}, and why is it special?",
            "My son loves space. What can I tell him about {body}?",
        ),
        ("{body} {fact}.", "{body} looks {colour} and {fact}."),
    ),
    Topic(
        "jobs",
        _job,
        (
            "What does a {job} do?",
            "What is the work of a {job}?",
            "I want to become a {job}. What would my days be like?",
            "Where does a {job} work?",
        ),
        ("A {job} {work} and works in {place}.", "A {job} {work}."),
    ),
    Topic(
        "units",
        _unit,
        (
            "How many {smalls} are there in {n} {bigs}?",
            "Convert {n} {bigs} to {smalls}.",
            "{n} {bigs} make how many {smalls}?",
            "What are {n} {bigs} in {smalls}?",
        ),
        (
            "{n} {bigs} are {total} {smalls}.",
            "One {big} is {factor} {smalls}, so {n} {bigs} are {total} {smalls}.",
            "Multiply by {factor}: {n} {bigs} are {total} {smalls}.",
        ),
    ),
    Topic(
        "arithmetic",
        _sum,
        (
            "What is {a} plus {b}?",
            "Add {a} and {b}.",
            "I had {a} {thing} and got {b} more. How many have I now?",
            "How much is {a} + {b}?",
        ),
        ("{a} plus {b} is {c}.", "The answer is {c}.", "Start at {a} and count {b} further; that makes {c}."),
    ),
    Topic(
        "products",
        _product,
        ("What is {a} times {b}?", "Multiply {a} by {b}.", "{a} boxes hold {b} cups each. How many cups is that?"),
        ("{a} times {b} is {c}.", "Take {b} for each of the {a}; together that makes {c}."),
    ),
    Topic(
        "comparisons",
        _comparison,
        ("Is {a} larger than {b}?", "Which number is smaller, {a} or {b}?", "True or false: {a} is below {b}."),
        ("{small} is smaller than {big}.", "The larger number is {big}, because it comes after {small} when we count."),
    ),
    Topic(
        "weekdays",
        _weekday,
        (
            "Which day comes {step} after {day}?",
            "Today is {day}. The parcel takes {step}. When will it be here?",
            "If the shop reopens {step} after {day}, on what day is that?",
        ),
        ("It is {then}.", "{step} after {day} is {then}, if one counts from the next morning."),
    ),
    Topic(
        "clock",
        _clock,
        (
            "The {what} starts at {h} o'clock and takes {n} hours. When does it end?",
            "When is a {what} over if it begins at {h} and lasts {n} hours?",
        ),
        ("It ends at {end} o'clock.", "Count {n} hours from {h} o'clock: the {what} is over at {end}."),
    ),
)
