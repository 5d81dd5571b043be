"""Preference pairs: one record with a better and a worse answer, read as two rows.

| written as | rows |
|---|---|
| prompt, chosen, rejected | the prompt with each answer |
| prompt, chosen, rejected, which are lists of messages | the chat with each answer |
| chosen, rejected, which are whole chats | each chat; what they have in common is context |

With `--pairs rows` a pair's rows are `ID:chosen` and `ID:rejected`, with the metadata `preference` (which of the two)
and `pair` (ID). With `--pairs dpo` the pair is one row, `ID`, and its loss compares the two answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from headwater.core.errors import DataError, unknown_name
from headwater.core.fingerprints import digest
from headwater.core.plain import whole_number, without_nan
from headwater.data.messages import Message, as_context, is_chat, read_messages, require_text
from headwater.data.rows import BESIDE, Row

SIDES = ("chosen", "rejected")

PAIRS = ("rows", "dpo")
"""Ways to read preference pairs: as two rows, or as one row whose loss is that of direct preference optimisation."""

BETA = 0.1
"""Default of DPO's β, as in the paper and in trl."""

_QUESTIONS = ("question", "instruction", "query", "input", "ask", "user")
"""Names that data sets give the column with the prompt of a pair, the likeliest first."""

Parts = list[tuple[Mapping[str, Any], Mapping[str, str]]]
"""Records, each with its mapping from role to column."""


def check_pairs(pairs: str | None) -> None:
    """Raise `UsageError` for a way to read pairs that there is not."""
    if pairs is not None and pairs not in PAIRS:
        raise unknown_name("way to read pairs", pairs, PAIRS, where="--pairs")


def is_pair(record: Mapping[str, Any], mapping: Mapping[str, str]) -> bool:
    """Whether the record has a chosen and a rejected answer."""
    return all(record.get(mapping.get(side, side)) is not None for side in SIDES)


def question_column(record: Mapping[str, Any], mapping: Mapping[str, str]) -> str:
    """The column that a pair without a prompt probably has its prompt in; empty if there is none."""
    answers = [record.get(mapping.get(side, side)) for side in SIDES]
    if record.get(mapping.get("prompt", "prompt")) is not None or all(map(is_chat, answers)):
        return ""
    return next((name for name in _QUESTIONS if isinstance(record.get(name), str)), "")


def split_pair(
    record: Mapping[str, Any], mapping: Mapping[str, str], where: str, *, unused: Callable[[str], str]
) -> Parts:
    """The two records of a preference pair, to be read as rows; raises `DataError` if it cannot be read.

    `unused` is given the name made from the contents of a pair without id, and returns one that no earlier pair has.
    """
    columns = {role: mapping.get(role, role) for role in ("id", "prompt", *SIDES)}
    rest = {name: value for name, value in record.items() if name not in columns.values()}
    prompt, answers = record.get(columns["prompt"]), [record[columns[side]] for side in SIDES]
    given = without_nan(whole_number(record.get(columns["id"])))
    pair = str(given) if given not in (None, "") else unused(digest([prompt, answers])[:16])
    parts: Parts = []
    sides = _answered(prompt, answers, columns, where, asked=question_column(record, mapping))
    for side, (role, contents) in zip(SIDES, sides, strict=True):
        ours = {"id": f"{pair}:{side}", "preference": side, "pair": pair, **contents}
        kept = {f"{name}_" if name in ours else name: value for name, value in rest.items()}
        extras = {name: column for name, column in mapping.items() if name in ("tools", "system", "hotwords")}
        parts.append(({**kept, **ours}, {**extras, role: role}))
    return parts


def as_pair(chosen: Row, rejected: Row) -> Row:
    """The two rows of a pair as one, which has the pair's id."""
    ours = ("preference", "pair")
    own = {f"{name}_": name for name in ours}  # what `split_pair` renamed
    kept = {own.get(name, name): value for name, value in chosen.metadata.items() if name not in ours}
    beside = {name: kept[name] for name in BESIDE if name in kept}
    return replace(
        chosen,
        id=chosen.metadata["pair"],
        metadata=kept,
        rejected=replace(rejected, id="", ordinal=0, metadata=beside),
    )


def _answered(
    prompt: Any, answers: Sequence[Any], columns: Mapping[str, str], where: str, *, asked: str
) -> list[tuple[str, dict[str, Any]]]:
    """For each side, the role that tells its shape, and its columns."""
    if isinstance(prompt, str) and not any(map(is_chat, (prompt, *answers))):
        texts = [_text(answer, columns[side], where) for side, answer in zip(SIDES, answers, strict=True)]
        return [("response", {"prompt": prompt, "response": text}) for text in texts]
    if prompt is None and not all(map(is_chat, answers)):
        if asked:
            what = f"a preference pair without a column '{columns['prompt']}'"
            raise DataError(what, where=where, remedy=f"--column prompt={asked} reads the prompt from '{asked}'")
        remedy = "give the prompt as a column of its own, or both answers as lists of messages"
        raise DataError("a preference pair of texts without a prompt", where=where, remedy=remedy)
    sides = [_chat(answer, columns[side], where) for side, answer in zip(SIDES, answers, strict=True)]
    if all(side[0]["role"] == "assistant" for side in sides) and prompt is not None:
        before = _chat(prompt, columns["prompt"], where, speaker="user")
    else:  # whole chats: the prompt is what they have in common
        before = []
        while all(len(side) > 1 for side in sides) and sides[0][0] == sides[1][0]:
            before.append(sides[0][0])
            sides = [side[1:] for side in sides]
    context = as_context(before)
    return [("messages", {"messages": [*context, *side]}) for side in sides]


def _text(value: Any, column: str, where: str) -> str:
    text = require_text(value, column, where)
    if not text.strip():
        raise DataError(f"no text: '{column}' is empty", where=where, remedy="fill it in or drop the row")
    return text


def _chat(value: Any, column: str, where: str, *, speaker: str = "assistant") -> list[Message]:
    if isinstance(value, str) and not is_chat(value):
        return [{"role": speaker, "content": require_text(value, column, where)}]
    return list(read_messages(value, column, where))
