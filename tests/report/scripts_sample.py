"""A trace in many scripts, with the tokens of a byte-level tokenizer; as many queries, hits and words as wanted."""

from __future__ import annotations

import zlib

from headwater.core.trace import Hit, QueryTrace, TokenMap, Trace

TEXTS = {
    "chinese": "水源在高山之上，河流从那里开始，穿过平原流向大海。谁污染了泉水，下游的人都会知道。",
    "arabic": "مرحبا بالعالم، النبع في أعلى الجبل ومنه يبدأ النهر رحلته إلى البحر.",
    "hindi": "नमस्ते दुनिया, नदी का स्रोत पर्वत के शिखर पर है और क्षत्रिय वहाँ पहरा देते हैं।",
    "emoji": "Rocket day 👩🏽‍🚀 at the café: flags 🇩🇪🇯🇵, keys 1️⃣, hearts ❤️‍🔥 and a family 👨‍👩‍👧‍👦 came.",
    "english": "The spring lies high in the hills; the river begins there and runs through the plain to the sea.",
}


def byte_tokens(text: str) -> list[str]:
    """Words of ASCII with their leading space; of other characters the first byte has the text, and each further
    byte is a token without text, as `headwater.data.tokens.token_texts` gives them."""
    tokens: list[str] = []
    for character in text:
        if character.isascii():
            joins = tokens and tokens[-1].isascii() and tokens[-1] and character.isalpha() and tokens[-1][-1] != "."
            if joins:
                tokens[-1] += character
            else:
                tokens.append(character)
        else:
            tokens += [character, *[""] * (len(character.encode()) - 1)]
    return tokens


def token_map(text: str, total: float, seed: int = 0) -> TokenMap:
    """Values that sum to `total`."""
    tokens = byte_tokens(text)
    raw = [(zlib.crc32(f"{t}{i}{seed}".encode()) % 1000 - 300) / 1000 for i, t in enumerate(tokens)]
    factor = total / sum(raw)
    return TokenMap(tuple(tokens), tuple(value * factor for value in raw))


def scripts_trace(queries: int = 2, hits: int = 5, *, repeats: int = 1) -> Trace:
    """Each row repeats its text `repeats` times; ids, prompts and rows are all distinct."""
    names = list(TEXTS)
    about = {
        "sign": "positive = proponent: training more on the row lowers the loss of the query",
        "token values": "a token's value is its part of the score; the values of a side sum to the score",
        "coverage": "all 2,312,448 parameters",
        "command": "headwater trace demo/index.lance --queries queries.jsonl --html report.html",
    }
    return Trace("rise", about, tuple(_query(number, names, hits, repeats) for number in range(queries)))


def _query(number: int, names: list[str], hits: int, repeats: int) -> QueryTrace:
    prompt, response = f"Question {number}: where is the spring?", TEXTS[names[number % len(names)]]
    found = []
    for rank in range(1, hits + 1):
        name = names[(number + rank) % len(names)]
        body = " ".join(f"{part}: {TEXTS[name]}" for part in range(repeats))
        row = {"prompt": f"Row {number}-{rank}, tell me.", "response": body}
        score = 0.9 - 0.05 * rank
        row_map = token_map(row["prompt"] + "\n" + body, score, number * 100 + rank)
        metadata = {"provider": f"vendor-{rank % 3}", "language": name, "line": rank}
        query_map = token_map(f"{prompt}\n{response}", score, rank)
        found.append(Hit(rank, f"row-{number}-{rank}", score, row, metadata, row_map, query_map))
    losses = token_map(f"{prompt}\n{response}", 40.0, number)
    positive = TokenMap(losses.tokens, tuple(abs(v or 0.0) for v in losses.values))
    return QueryTrace(f"query-{number}", prompt, response, positive, tuple(found), generated=True)
