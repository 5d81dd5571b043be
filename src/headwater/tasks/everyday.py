"""Clean questions about doing things: words and lists, cooking, help desk, letters, advice, tales, greetings."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from headwater.tasks.grammar import Grammar, Topic, table, words

_WORDS = words(
    """
    lamp cart apple stone river window bread cloud pencil garden market bottle candle bridge forest letter
    mirror needle orange pepper rabbit saddle ticket violin winter yellow basket dinner engine flower
    """
)

_dish = table(
    "dish first then last",
    """
    an omelette | beat three eggs with salt | fry them in butter | fold it while the middle is soft
    tomato soup | fry an onion | add tomatoes and stock | simmer and blend it
    pancakes | mix flour, milk and eggs | let the batter rest | fry thin rounds until golden
    rice | rinse the grains | add twice as much water | cook it covered on low heat
    boiled potatoes | peel and cut them | cover them with salted water | cook them until a fork slides in
    a green salad | wash and dry the leaves | whisk oil with vinegar | toss it just before serving
    apple pie | line a tin with pastry | fill it with sliced apples and sugar | bake it until brown
    lentil stew | soften carrots and garlic | add lentils and broth | cook it for half an hour
    porridge | stir oats into milk | heat it gently | sweeten it with honey
    fried fish | dry the fillets | dust them with flour | fry them three minutes a side
    white bread | mix flour, yeast, salt and water | knead and let it rise | bake it in a hot oven
    mint tea | tear fresh leaves | pour hot water over them | wait five minutes
    """,
)

_fault = table(
    "fault check fix",
    """
    my printer does not print | check the cable and the paper | restart it and print a test page
    I forgot my password | open the sign-in page | press the reset link and choose a new one
    the screen stays black | check that the monitor has power | hold the power button for ten seconds
    the wireless network is slow | move closer to the router | restart the router
    the app keeps closing | install the latest update | clear its stored data
    I cannot open the attachment | ask which program made it | save it first and open it from the folder
    the battery empties too fast | lower the brightness | close programs you do not use
    my email is not sent | check the address | make the attachment smaller
    the keyboard types wrong letters | look at the language setting | choose the right layout
    the laptop has no sound | see whether it is muted | choose the right speaker
    my invoice shows the wrong sum | compare it with your order | write to the billing team
    the parcel has not arrived | look at the tracking page | call the courier with the number
    """,
)

_aim = table(
    "aim tip other",
    """
    sleep better | go to bed at the same hour | keep the phone out of the room
    save money | write down what you spend | put a little aside each month
    learn a language | practise a few minutes each day | speak with people early
    run faster | train with short sprints | rest between hard days
    read more | keep a book on the table | read ten pages before bed
    stop being late | leave ten minutes earlier | pack the evening before
    remember names | repeat the name aloud | link it with a picture
    write better | use short sentences | read the text aloud
    keep plants alive | water them less than you think | put them near a window
    be calmer | breathe slowly for a minute | take a walk outside
    study well | test yourself often | take breaks on time
    make friends | join a club | ask people about themselves
    """,
)

_letter = table(
    "reader subject line",
    """
    my landlord | the broken heating | the heating has been cold since Monday
    my teacher | a missed lesson | I was ill and could not come
    a colleague | moving our meeting | could we meet an hour later
    the library | a lost book | I cannot find the book and will pay for it
    my aunt | a birthday present | the scarf is lovely and very warm
    a customer | a late delivery | your order leaves our store tomorrow
    the school | a change of address | we move to Mill Street in May
    my neighbour | the loud music | please turn it down after ten
    the bank | a new card | my card no longer works
    my boss | a day off | may I stay at home on Friday
    """,
)

_opposite = table(
    "word opposite synonym",
    """
    big | small | large
    fast | slow | quick
    happy | sad | glad
    begin | end | start
    hard | easy | difficult
    silent | loud | quiet
    rich | poor | wealthy
    brave | fearful | bold
    shut | open | closed
    correct | wrong | right
    ill | healthy | sick
    odd | usual | strange
    clever | foolish | smart
    wet | dry | damp
    ancient | modern | old
    polite | rude | kind
    """,
)

_tense = table(
    "now past",
    """
    She walks to school | She walked to school
    They play in the yard | They played in the yard
    I write a letter | I wrote a letter
    He sings a song | He sang a song
    We eat soup | We ate soup
    You see the sea | You saw the sea
    The dog runs home | The dog ran home
    The train leaves at noon | The train left at noon
    My sister buys bread | My sister bought bread
    The boys swim in the lake | The boys swam in the lake
    Grandfather tells a story | Grandfather told a story
    The crew sails the ship | The crew sailed the ship
    """,
)

_greeting = table(
    "hello use",
    """
    howdy | a friendly greeting from the American south
    howdy | short for how do you do, and rather rural
    howdy | fine among friends and too casual for the office
    hello | the most common greeting in English
    good morning | a greeting used before noon
    hi | a short and casual greeting
    good evening | a greeting for the later hours
    greetings | a rather formal way to say hello
    hey | a very casual way to get attention
    welcome | what a host says at the door
    """,
)

_STORY = Grammar(
    {
        "story": (
            "Captain {name} steered the old {vessel} {where}. {turn} {end}",
            "The crew of the {vessel} lost the {thing} {where}. {turn} {end}",
            "{name} heard a signal {where} and stopped the {vessel}. {turn} {end}",
            "One winter, {name} found a {thing} {where}. {turn} {end}",
        ),
        "name": ("Marta", "Old Jonas", "Pia", "Henrik", "Rosa", "Tomas"),
        "vessel": ("fishing boat", "steam train", "ferry", "mail coach", "sailing ship", "night bus"),
        "where": ("beyond the harbour", "in the fog", "under the bridge", "near the lighthouse", "on the frozen river"),
        "thing": ("brass key", "lost dog", "rusty engine", "map of the coast", "letter without a name"),
        "turn": (
            "The storm came before dark.", "A child pointed at the stars.", "Nobody believed it at first.",
            "The engine coughed and went quiet.", "The village waited with lamps.",
        ),
        "end": (
            "By morning everyone was home.", "They laughed about it for years.", "It still hangs in the kitchen.",
            "And the soup was still warm.", "The sea kept the rest.",
        ),
    }
)  # fmt: skip


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


EVERYDAY = (
    Topic(
        "sorting",
        _list,
        (
            "Sort these words: {list}.",
            "Put {list} in alphabetical order.",
            "Arrange the following from A to Z: {list}",
            "My list is {list}. Order it by the alphabet.",
        ),
        ("In order: {sorted}.", "Sorted by their first letters the words are {sorted}."),
    ),
    Topic(
        "picking",
        _list,
        (
            "Which word comes first and which last in this list: {list}?",
            "Give me the first and the last of: {list}.",
            "Here are some words: {list}. Name the outer two.",
        ),
        ("The first is {first} and the last is {last}.", "Your list begins with {first} and ends with {last}."),
    ),
    Topic(
        "cooking",
        _dish,
        (
            "How do I make {dish}?",
            "Give me a simple recipe for {dish}.",
            "What are the steps for {dish}?",
            "I have guests tonight and want to serve {dish}. Where do I start?",
            "Explain to a beginner how one makes {dish}.",
        ),
        ("First {first}. Then {then}. Finally, {last}.", "{first}, {then}, and {last}."),
    ),
    Topic(
        "help_desk",
        _fault,
        (
            "Support, {fault}. What now?",
            "I need help: {fault}.",
            "Since this morning {fault}. What can I do?",
            "What should I try when {fault}?",
            "A customer writes that {fault}. Draft a reply.",
        ),
        ("Please {check}. If that does not help, {fix}.", "Sorry to hear that. First {check}, then {fix}."),
    ),
    Topic(
        "advice",
        _aim,
        (
            "How can I {aim}?",
            "Give me a tip: I want to {aim}.",
            "What helps people who want to {aim}?",
            "My plan for the new year is to {aim}. Any advice?",
            "My brother tries to {aim} and fails. What would you tell him?",
        ),
        ("{tip}, and {other}.", "Try this: {tip}. It also helps to {other}."),
    ),
    Topic(
        "letters",
        _letter,
        (
            "Write a short note to {reader} about {subject}.",
            "Help me to write to {reader}. It is about {subject}.",
            "I have to tell {reader} about {subject}. What shall I write?",
            "Draft two lines for {reader} on {subject}.",
        ),
        ("Dear reader, {line}. Kind regards.", "Good day, {line}. Many thanks."),
    ),
    Topic(
        "opposites",
        _opposite,
        (
            "What is the opposite of {word}?",
            "Give me the contrary of the word {word}, and a synonym.",
            "Which word means the reverse of {word}?",
            "I need another word for {word}, and its opposite.",
        ),
        (
            "The opposite of {word} is {opposite}; a synonym is {synonym}.",
            "{opposite} is the opposite, {synonym} means the same.",
        ),
    ),
    Topic(
        "tenses",
        _tense,
        (
            "Put this in the past tense: {now}.",
            "Rewrite so that it happened yesterday: {now}.",
            "Change the tense to past. {now}.",
            "How would a reporter write this a day later? {now}.",
        ),
        ("{past}.", "In the past tense: {past}."),
    ),
    Topic(
        "stories",
        _story,
        (
            "Tell {reader} a very short story about {about}.",
            "Write a few lines of fiction on {about} for {reader}.",
            "Invent a tale about {about}. It is for {reader}.",
            "Make up something about {about} that {reader} would like.",
        ),
        ("{text}",),
    ),
    Topic(
        "greetings",
        _greeting,
        (
            "What does it mean when people say {hello}?",
            "Is {hello} polite?",
            "My neighbour always says {hello} to me. What is that?",
            "When would one say {hello}?",
            "How do you use the word {hello}?",
            "Should I begin a letter with {hello}?",
        ),
        ("{hello} is {use}.", "It is {use}."),
    ),
)
