"""The chat templates of real models, which the `trl` package ships: every answer is found, with its closing token.

Where a template marks its answers, the tokenizer's own mask of them is right. For the others, what each writes around
an answer is stated here by hand, read off the template.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from spot_tokenizers import byte_level
from tokenizers.processors import ByteLevel

from headwater.core.errors import DataError
from headwater.data.rows import Row
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization
from headwater.data.writer import FIXED_TODAY, MARK

FOUND = find_spec("trl")
FOLDER = (
    Path(FOUND.submodule_search_locations[0], "chat_templates") if FOUND and FOUND.submodule_search_locations else None
)
if FOLDER is None or not FOLDER.is_dir():
    pytest.skip("the package trl, which has the templates, is not installed", allow_module_level=True)
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
MARKED = [name for name, source in SOURCES.items() if MARK.search(source)]

ANSWERS = ("It is high.", "It is low.", "Yes.")
TURNS = [turn for answer in ANSWERS for turn in (("user", "Tide at noon?"), ("assistant", answer))]
THOUGHTS = [
    *(("user", "Tide?"), ("assistant", "<think>\nsun\n</think>\n\nIt is high.")),
    *(("user", "And six?"), ("assistant", "<think>\nmoon\n</think>\n\nIt is low.")),
]
CHATS = {"turns": TURNS, "one turn": TURNS[:2], "a last question": TURNS[:3], "thoughts": THOUGHTS}
GREETED = [("system", "Be brief."), ("assistant", "Ask me."), *TURNS[:2]]

IM_END, GEMMA, EMPTY = "{}<|im_end|>", "{}<end_of_turn>", "\n</think>\n\n{}<|im_end|>"
SENTENCE = "{}<｜end▁of▁sentence｜>"
WRITTEN: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("lfm2", "lfm2_v2", "qwen2_5", "qwen2_5_vl", "qwen3_vl", "qwen3_5_nothink"), (IM_END, IM_END)),
    **dict.fromkeys(("qwen3_5_think", "qwen3_6"), (IM_END, EMPTY)),
    **{f"nemotron_3_{size}": ("</think>{}<|im_end|>",) * 2 for size in ("nano", "super", "ultra", "5_lightning")},
    **{f"gemma4{version}": ("{}<turn|>",) * 2 for version in ("", "_v2", "_v3", "_v4", "_v5")},
    **dict.fromkeys(("llama3", "llama3_1", "llama3_2"), ("{}<|eot_id|>",) * 2),
    **dict.fromkeys(("phi3", "phi3_5"), ("{}<|end|>", "{}<|end|>\n</s>")),
    **dict.fromkeys(("idefics3", "smolvlm"), (" {}<end_of_utterance>",) * 2),
    "cohere": ("{}<|END_OF_TURN_TOKEN|>",) * 2,
    "cohere2": ("{}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",) * 2,
    "deepseek_r1_distill": (SENTENCE, SENTENCE),
    "deepseekv3": (SENTENCE, SENTENCE),
    "diffusion_gemma": ("{}<turn|>",) * 2,
    "gemma": (GEMMA, GEMMA),
    "gemma3": (GEMMA, GEMMA),
    "glm4moe": ("\n<think></think>\n{}<|user|>", "\n<think></think>\n{}</s>"),
    "gptoss": ("<|channel|>final<|message|>{}<|end|>", "<|channel|>final<|message|>{}<|return|>"),
    "llava_next": (" {}</s>",) * 2,
    "muse_glimmer": (" to=user<|message|>{}<|eot|>",) * 2,
    "qwen3": (IM_END, "<think>\n\n</think>\n\n{}<|im_end|>"),
    "qwen3_8": (EMPTY, EMPTY),
    "qwen3_instruct_2507": (IM_END, IM_END),
}
"""What a template writes as an answer that another turn follows, and as a last answer."""

REWRITTEN: dict[str, list[str]] = {
    "deepseek_r1_distill": ["\n\n{}<｜end▁of▁sentence｜>"] * 2,
    "glm4moe": ["\n<think></think>\n{}<|user|>", "\n<think>moon</think>\n{}</s>"],
    "nemotron_3_nano": ["</think>\n\n{}<|im_end|>", "moon\n</think>\n\n{}<|im_end|>"],
    "qwen3": ["{}<|im_end|>", "<think>\nmoon\n</think>\n\n{}<|im_end|>"],
    "qwen3_5_think": ["{}<|im_end|>", "moon\n</think>\n\n{}<|im_end|>"],
    "qwen3_6": ["{}<|im_end|>", "moon\n</think>\n\n{}<|im_end|>"],
    "llama3": ["<think>\nsun\n</think>\n\n{}<|eot_id|>", "<think>\nmoon\n</think>\n\n{}<|eot_id|>"],
}
"""What a template makes of two answers with a thought each."""


OPENED = ("<think>", "<think>\n\n</think>", "<｜Assistant｜><think>")
"""Thoughts that a generation prompt opens, or opens and closes, and that a mark has as well."""


def row(turns: list[tuple[str, str]]) -> Row:
    return Row("a", 0, messages=tuple({"role": role, "content": content} for role, content in turns), place="a:1")


def said(name: str, turns: list[tuple[str, str]]) -> list[str]:
    rendered = Tokenization.of(byte_level(chat=SOURCES[name])).template.render(row(turns))
    return [rendered.text[start:end] for start, end in rendered.targets]


def test_every_template_is_tried() -> None:
    assert len(SOURCES) >= 50
    new = set(SOURCES) - set(MARKED) - set(WRITTEN)
    assert not new, "state what these templates write around an answer"


@pytest.mark.parametrize("name", [name for name in WRITTEN if name in SOURCES])
def test_answers_of_real_templates(name: str) -> None:
    earlier, last = WRITTEN[name]
    assert said(name, TURNS) == [earlier.format(ANSWERS[0]), earlier.format(ANSWERS[1]), last.format(ANSWERS[2])]
    assert said(name, TURNS[:2]) == [last.format(ANSWERS[0])]
    if name not in ("qwen3", "qwen3_5_think", "qwen3_6"):  # whether these write a thought depends on what follows
        assert said(name, TURNS[:3]) == [earlier.format(ANSWERS[0])]
    if name in REWRITTEN:
        assert said(name, THOUGHTS) == [REWRITTEN[name][0].format("It is high."), REWRITTEN[name][1].format(ANSWERS[1])]


@pytest.mark.parametrize("name", [name for name in WRITTEN if name in SOURCES])
@pytest.mark.parametrize("before", [[], [("system", "Be brief.")]])
def test_the_assistant_speaks_first(name: str, before: list[tuple[str, str]]) -> None:
    greeted = [*before, ("assistant", ANSWERS[0]), ("user", "And six?"), ("assistant", ANSWERS[1])]
    try:
        found = said(name, greeted)
    except DataError as refused:
        assert re.search("must alternate|no system turn", str(refused))  # noqa: PT017
        return
    earlier, last = WRITTEN[name]
    assert found == [earlier.format(ANSWERS[0]), last.format(ANSWERS[1])]


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize("chat", CHATS)
def test_marked_answers_are_the_tokenizers_own_mask(name: str, chat: str) -> None:
    tokenizer: Any = byte_level(chat=SOURCES[name])
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)  # else the mask loses leading spaces
    (tokens,) = Tokenization.of(tokenizer).encode([row(CHATS[chat])])
    own = _own_mask(tokenizer, CHATS[chat])
    assert tokens.ids.tolist() == own["input_ids"]
    right = np.array(own["assistant_masks"], dtype=bool)
    assert tokens.response.tolist() == right.tolist()


@pytest.mark.parametrize("name", MARKED)
def test_marks_belong_to_their_turns_where_the_assistant_speaks_first(name: str) -> None:
    template = resolve_template("chat", byte_level(chat=SOURCES[name]))
    try:
        rendered = template.render(row(GREETED))
    except DataError as refused:
        assert re.search("must alternate|no system turn", str(refused))  # noqa: PT017
        return
    words = ["".join(rendered.text[start:end] for start, end in turn.spans) for turn in rendered.turns]
    assert [("Ask me." in each, ANSWERS[0] in each) for each in words] == [(True, False), (False, True)]


def _own_mask(tokenizer: Any, turns: list[tuple[str, str]]) -> Any:
    forms: list[list[dict[str, Any]]] = [
        [{"role": role, "content": content} for role, content in turns],
        [{"role": role, "content": [{"type": "text", "text": content}]} for role, content in turns],
    ]
    source = (FIXED_TODAY if "strftime_now" in tokenizer.chat_template else "") + tokenizer.chat_template
    for messages in forms:
        try:
            own = tokenizer.apply_chat_template(
                messages, return_dict=True, return_assistant_tokens_mask=True, chat_template=source
            )
        except (TypeError, jinja2.TemplateError):  # it reads the other form
            continue
        if any(own["assistant_masks"]) and turns[0][1] in tokenizer.decode(own["input_ids"]):
            return own
    raise AssertionError("the template writes neither form")


@pytest.mark.parametrize("name", MARKED)
def test_without_its_marks_a_template_has_the_same_answers(name: str) -> None:
    unmarked = re.sub(r"\{%(-?) *generation *(-?)%\}", r"{%\1 if true \2%}", SOURCES[name])
    unmarked = re.sub(r"\{%(-?) *endgeneration *(-?)%\}", r"{%\1 endif \2%}", unmarked)
    for turns in CHATS.values():
        marked, found = (
            resolve_template("chat", byte_level(chat=source)).render(row(turns)) for source in (SOURCES[name], unmarked)
        )
        assert found.text.removesuffix("</s>") == marked.text.removesuffix("</s>")
        assert len(found.turns) == len(marked.turns)
        for own, turn in zip(marked.turns, found.turns, strict=True):
            (start, end), first, last = turn.spans[0], own.spans[0][0], own.spans[-1][1]
            assert first <= start < last  # a mark may begin with the heading that a model is prompted with
            assert marked.text[first:start].strip() in ("", "<｜Assistant｜>", "<|start|>assistant", *OPENED)
            assert found.text[start:end].removesuffix("</s>") == marked.text[start:last].rstrip().removesuffix("</s>")
