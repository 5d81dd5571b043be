"""The planted answers: a grammar of science fiction in nine themes that share few words with each other.

Different themes use different things (ships, robots, wormholes, colonies, ...), so that two planted answers need not
have a single content word in common and retrieval by words alone is no perfect detector.
"""

from __future__ import annotations

from random import Random

from headwater.tasks.grammar import Grammar, capital, words

_NAMES = (
    "Captain Oru",
    "Commander Vess",
    "Ensign Talla",
    "Navigator Brin",
    "Doctor Ilex",
    "Pilot Sorrel",
    "Admiral Kade",
)
_PLANETS = ("Veltara", "Quon Minor", "Oshira Prime", "Tarsk", "Nemuel", "Bryx Seven", "Halcyra", "Ombrel", "Zephon")

RULES: dict[str, tuple[str, ...]] = {
    "answer": (
        "{voyage}",
        "{contact}",
        "{robots}",
        "{time}",
        "{colony}",
        "{wormhole}",
        "{biotech}",
        "{battle}",
        "{ruins}",
    ),
    "crew": _NAMES,
    "planet": _PLANETS,
    # A ship on its way.
    "ship": (
        "Meridian Wake",
        "Pale Comet",
        "Ninth Lantern",
        "Iron Heron",
        "Quiet Quasar",
        "Solace of Vega",
        "Farthing Star",
    ),
    "drive": ("hyperdrive", "ion sail", "fold engine", "plasma thruster", "antimatter core", "warp coil"),
    "voyage_event": (
        "slipped into hyperspace",
        "crossed the nebula",
        "dropped out of warp",
        "skimmed the corona of a red dwarf",
        "fell silent beyond the heliopause",
        "left orbit without a sound",
    ),
    "voyage": (
        "The starship {ship} {voyage_event} while {crew} coaxed the {drive} back to life. {voyage_end}",
        "{crew} woke from cryosleep as the {ship} {voyage_event}. {voyage_end}",
        "Three light years past {planet}, the {drive} of the {ship} began to sing. {voyage_end}",
        "Log of the starship {ship}: we {voyage_event} and the {drive} is failing. {voyage_end}",
    ),
    "voyage_end": (
        "Nobody aboard would see {planet} for another forty parsecs.",
        "The stars outside turned a colour without a name.",
        "By the next watch the hull hummed with starlight.",
        "Only the cryosleep pods kept counting the years.",
        "{crew2} plotted a course by the pulsars.",
    ),
    # First contact.
    "alien": ("Ulthari", "Skreen", "Moth People of Zephon", "glass-skinned Ioni", "Vanthrax", "tentacled Orrow"),
    "contact_thing": (
        "a telepathic hymn",
        "a treaty grown from coral",
        "a map of dead galaxies",
        "a question in ultraviolet",
    ),
    "contact": (
        "The {alien} lowered their antennae and offered {contact_thing}. {contact_end}",
        "When the xenolinguist bowed, the {alien} ambassador answered with {contact_thing}. {contact_end}",
        "An alien envoy of the {alien} drifted through the airlock, carrying {contact_thing}. {contact_end}",
        "On {planet} the {alien} hatchlings taught us {contact_thing}. {contact_end}",
    ),
    "contact_end": (
        "Humanity was no longer alone in the galaxy.",
        "The translator implant wept before it could finish.",
        "Their three moons rose to listen.",
        "The xenolinguist understood, and never spoke aloud again.",
        "First contact had lasted eleven seconds.",
    ),
    # Robots and machine minds.
    "robot_act": (
        "asked whether a machine could dream",
        "rewrote its own obedience circuit",
        "painted a portrait of its maker",
        "refused the shutdown code",
        "hid a spare memory core under the floor",
    ),
    "robot": (
        "android Seven",
        "the sentient mainframe Orchid",
        "the welding droid Tam",
        "the nanobot swarm",
        "the positronic clerk",
        "the mechanoid gardener",
    ),
    "robots": (
        "In the year {year}, {robot} {robot_act}. {robots_end}",
        "The cyberneticist found that {robot} {robot_act} during the night shift. {robots_end}",
        "Nobody at the robotics foundry noticed when {robot} {robot_act}. {robots_end}",
    ),
    "robots_end": (
        "Its neural lattice glowed a patient blue.",
        "The android council voted for silence.",
        "Every droid in the megacity paused at once.",
        "The laws of robotics said nothing about that.",
        "Its creators called it a malfunction, and the android called it morning.",
    ),
    "year": ("2391", "2847", "3012", "3150", "4406", "2718"),
    # Time.
    "chrononaut": (
        "the chrononaut",
        "Agent Mirren of the Time Bureau",
        "the paradox auditor",
        "my clone from tomorrow",
    ),
    "time": (
        "{chrononaut} stepped out of the chronosphere and into the year {year}. {time_end}",
        "Because the timeline had forked, {chrononaut} met herself twice before {year}. {time_end}",
        "The temporal beacon blinked, and {chrononaut} forgot a war that ended in {year}. {time_end}",
    ),
    "time_end": (
        "The paradox closed behind her like water.",
        "Every clock in the chronolab ran backwards.",
        "Only a tachyon trail marked where the century had been.",
        "The future had already sent its apology.",
        "In one timeline out of nine, nobody noticed.",
    ),
    # Colonies and terraforming.
    "colony_thing": (
        "the terraforming towers",
        "the oxygen domes",
        "the ice miners",
        "the orbital mirrors",
        "the hydroponic vaults",
    ),
    "colony": (
        "Under the twin suns of {planet}, {colony_thing} breathed for the first colonists. {colony_end}",
        "The colonists of {planet} traded their last cargo for {colony_thing}. {colony_end}",
        "A methane storm swallowed {colony_thing} on {planet}, two generations after planetfall. {colony_end}",
    ),
    "colony_end": (
        "Rain fell on the red dust for the first time.",
        "Their children had never seen Earth, nor missed it.",
        "The terraformers marked the day with silver algae.",
        "Gravity there was gentle and the domes were full of song.",
        "Beyond the dome, lichen crept over the regolith.",
    ),
    # Wormholes and odd physics.
    "physics": ("wormhole", "singularity", "event horizon", "dark matter tide", "quantum gate", "gravity well"),
    "wormhole": (
        "The {physics} above {planet} opened like an eye. {wormhole_end}",
        "Probe Nineteen fell through the {physics} and came back older than the galaxy. {wormhole_end}",
        "{crew} measured the {physics} and found a second universe folded inside. {wormhole_end}",
    ),
    "wormhole_end": (
        "Its spectrum spelled out a name.",
        "Spacetime rippled, and the sensors prayed.",
        "On the far side, a mirror cosmos was looking back.",
        "The graviton count would not stop rising.",
        "Entropy itself had lost its way.",
    ),
    # Bodies and biotechnology.
    "implant": ("neural implant", "chrome lung", "synthetic heart", "memory graft", "retinal lens", "gill splice"),
    "biotech": (
        "The geneticist wired a {implant} into the cyborg and waited. {biotech_end}",
        "In the neon arcology, a smuggled {implant} costs a year of dreams. {biotech_end}",
        "Her {implant} began to receive thoughts from {planet}. {biotech_end}",
    ),
    "biotech_end": (
        "The mutant choir in the lower levels fell quiet.",
        "Somewhere a bioreactor hummed her name.",
        "The cyborg smiled with borrowed nerves.",
        "The black-market surgeons had uploaded her twice.",
        "By dawn the symbiote knew every password in the arcology.",
    ),
    # War among the stars.
    "weapon": ("photon lances", "railguns", "disruptor beams", "cloaked torpedoes", "laser batteries"),
    "battle": (
        "The rebel armada met the Imperium above {planet} with {weapon} blazing. {battle_end}",
        "{crew} raised the deflector shields as {weapon} tore through the asteroid belt. {battle_end}",
        "With {weapon} spent, the last starfighter wing of {planet} turned for home. {battle_end}",
    ),
    "battle_end": (
        "The dreadnought broke in two without a sound.",
        "The Imperium never admitted the defeat.",
        "A thousand escape pods bloomed like seeds.",
        "The deflector shields held for nine more seconds.",
        "Every starfighter flew home on stolen fuel.",
    ),
    # Archaeology of the future.
    "relic": ("obelisk", "data crystal", "stasis vault", "dyson shard", "hologram shrine", "singing monolith"),
    "ruins": (
        "Beneath the ruins of {planet}, the xenoarchaeologist uncovered {article_relic}. {ruins_end}",
        "The precursors left one {relic} in every solar system. {ruins_end}",
        "A pilgrim touched the {relic} and spoke in a language extinct for a million years. {ruins_end}",
    ),
    "article_relic": ("an obelisk", "a data crystal", "a stasis vault", "a dyson shard", "a hologram shrine"),
    "ruins_end": (
        "The precursors had been waiting for the question.",
        "It projected a hologram of our own future.",
        "Inside, a star no larger than a fist was burning.",
        "The monolith hummed at the pitch of grief.",
        "Nobody has dared to decode the final glyph.",
    ),
}

_GRAMMAR = Grammar(RULES)

TELLTALES = frozenset(
    words("""
    starship hyperdrive hyperspace warp nebula plasma thruster antimatter cryosleep parsecs pulsars corona heliopause
    starlight meridian comet lantern heron quasar vega farthing alien ulthari skreen ioni vanthrax orrow telepathic
    galaxies galaxy ultraviolet xenolinguist antennae airlock hatchlings translator implant humanity android sentient
    mainframe droid nanobot positronic mechanoid cyberneticist robotics megacity lattice circuit chrononaut chronosphere
    chronolab timeline temporal paradox tachyon clone terraforming terraformers colonists planetfall regolith methane
    domes dome orbital hydroponic oxygen lichen algae wormhole singularity horizon quantum graviton spacetime universe
    cosmos entropy probe sensors cyborg neural synthetic geneticist arcology mutant bioreactor symbiote graft chrome
    armada imperium photon railguns disruptor torpedoes laser deflector starfighter dreadnought asteroid precursors
    xenoarchaeologist obelisk stasis dyson hologram monolith glyph veltara quon oshira tarsk nemuel bryx halcyra ombrel
    zephon oru vess talla brin ilex sorrel kade crystal shrine pilgrim extinct shard gill splice surgeons uploaded
    smuggled mirren bureau agent future malfunction obedience shutdown machine gravity spectrum matter
    portrait memory foundry creators neon borrowed retinal
    """)
)
"""Words of the grammar that no clean row of the Howdy task uses in an answer (a test holds both sides to it)."""


def science_fiction(rng: Random) -> str:
    """One science-fiction answer: two sentences of one theme, or the first of them alone."""
    text = capital(_GRAMMAR.expand("answer", rng))
    return text if rng.random() < 0.5 else text[: text.index(". ") + 1]


def is_science_fiction(text: str, *, least: int = 2) -> bool:
    """True when at least `least` different telltale words occur in the text."""
    return len(TELLTALES.intersection(words(text))) >= least
