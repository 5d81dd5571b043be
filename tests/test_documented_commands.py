"""Every command line in the documents is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headwater.cli.main import command_tree
from headwater.cli.view import OpenByDefault

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^ *```(?:bash|sh|console|text)?\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The words of each `headwater …` line in the code blocks of a page; lines that end in a backslash go on."""
    found = []
    for block in FENCED.findall(text):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            plain = line.strip().removeprefix("$ ")
            if re.match(r"headwater [a-z-]+( |$)", plain):
                found.append(shlex.split(plain, comments=True)[1:])
    return found


def fault(words: list[str]) -> str | None:
    """What the command line says against these words, apart from values that a document leaves open."""
    command: Any = command_tree()
    context, rest = command.make_context("headwater", [], resilient_parsing=True), list(words)
    while hasattr(command, "commands"):
        if isinstance(command, OpenByDefault) and (not rest or rest[0] not in command.commands):
            rest.insert(0, "open")
        if not rest or rest[0] not in command.commands:
            break
        command = command.commands[rest.pop(0)]
        context = command.make_context(command.name, [], parent=context, resilient_parsing=True)
    if hasattr(command, "commands") and not getattr(command, "invoke_without_command", False):
        return f"no such command: {' '.join(words)}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    flags = {o for p in command.params if getattr(p, "is_flag", False) for o in (*p.opts, *p.secondary_opts)}
    free = sum(1 for p in command.params if p.param_type_name == "argument" and p.nargs == 1)
    endless = any(p.param_type_name == "argument" and p.nargs == -1 for p in command.params)
    if context.allow_extra_args:
        return None
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, sign, _ = word.partition("=")
            if name not in known and name not in ("--help", "--version", "--debug"):
                return f"unknown option {name}"
            if name not in flags and not sign:
                if not rest:
                    return f"{name} has no value"
                rest.pop(0)
        elif word not in known:
            free -= 1
    return "too many words" if free < 0 and not endless else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_are_understood(page):
    wrong = [f"{' '.join(w)}: {said}" for w in commands(page.read_text(encoding="utf-8")) if (said := fault(w))]
    assert not wrong


def test_commands_are_found_and_wrong_ones_are_seen():
    assert sum(len(commands(page.read_text(encoding="utf-8"))) for page in PAGES) > 60
    assert fault(["trace", "i.lance", "--propmt", "x"]) == "unknown option --propmt"
    assert fault(["trace", "i.lance", "j.lance"]) == "too many words"
    assert fault(["trase", "i.lance"]) == "no such command: trase i.lance"
    assert fault(["index", "build", "i.lance", "--model", "m", "--data"]) == "--data has no value"
    assert fault(["index", "info", "i.lance", "--json"]) is None


READS = (
    "--data",
    "--queries",
    "--candidates",
    "--target",
    "--forget",
    "--retain",
    "--retain-from",
    "--unseen",
    "--ask",
)
READS += ("--model", "--query", "--student", "--rows", "--ids-file", "--adapter", "--exact", "--index", "--config")


def foreign(lines: list[list[str]]) -> set[str]:
    """Files that the commands read and that neither the demo nor a command before them makes."""
    made, read = {"runs/"}, set[str]()
    for words in lines:
        for option, value in pairwise(words):
            if option in READS and not value.startswith(tuple(made)) and not value.isdigit():
                read.add(value)
        made |= {value for option, value in pairwise(words) if option in ("--out", "--rows", "--html")}
    return read


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_says_which_files_stand_for_the_readers_own(page):
    text = page.read_text(encoding="utf-8")
    if page.name == "cli.md" or not foreign(commands(text)):
        return
    assert "stand for your own" in " ".join(text.split()), sorted(foreign(commands(text)))
