"""Every command, walked: no option twice, every model can be named whole, and the same words mean the same thing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from headwater.cli.main import command_tree

MODEL_OPTIONS = {"--adapter", "--tokenizer", "--revision", "--device", "--device-map", "--quantization", "--dtype"}


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that can be typed, with its words."""
    children = getattr(command, "commands", {})
    if words and (not children or getattr(command, "invoke_without_command", False)):
        yield " ".join(words), command
    for name, child in children.items():
        yield from walk(child, (*words, name))


COMMANDS = dict(walk(command_tree()))


def options(command: Any) -> list[str]:
    return [option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]]


def test_the_walk_sees_the_commands():
    assert {"index build", "index quantise", "trace", "value", "value audit", "eval lds", "run", "plan"} <= set(
        COMMANDS
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_declared_twice_in_a_command(name):
    twice = [option for option, count in Counter(options(COMMANDS[name])).items() if count > 1]
    assert not twice


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("run", "schema")])
def test_every_command_takes_a_config_file_and_json(name):
    assert {"--config", "--json"} <= set(options(COMMANDS[name]))


@pytest.mark.parametrize("name", COMMANDS)
def test_wherever_a_model_is_loaded_it_can_be_named_whole(name):
    given = set(options(COMMANDS[name]))
    if "--model" in given and not name.startswith("eval"):
        assert given >= MODEL_OPTIONS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_ends_with_an_example(name):
    words = " ".join((COMMANDS[name].help or "").split())
    assert f"Example: headwater {name}" in words


def test_a_plan_differs_from_a_build_by_nothing_but_what_it_does():
    build, plan = (set(options(COMMANDS[name])) for name in ("index build", "plan"))
    ray = {"--engine", "--address", "--gpus-per-worker", "--cpus-per-worker"}
    assert build - plan == {"out", "--resume", "--shard", *ray}
    assert plan - build == {"--no-weights", "--efficiency", "--rows"}


def test_a_word_has_one_help_text_wherever_it_is_an_option_of_the_same_kind():
    texts: dict[str, set[str]] = {}
    for command in COMMANDS.values():
        for parameter in command.params:
            for option in parameter.opts:
                if option in MODEL_OPTIONS | {"--set", "--json", "--resume", "--template", "--config"}:
                    texts.setdefault(option, set()).add(str(parameter.help))
    assert {option: seen for option, seen in texts.items() if len(seen) > 1} == {}


def started(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, as a shell starts it."""
    command = [sys.executable, "-c", "from headwater.cli.main import run; run()", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("words", [(), ("index",), ("eval",)])
def test_without_arguments_the_help_is_laid_out(words):
    done = started(*words, COLUMNS="80")
    assert done.returncode == 2
    shown = done.stderr.splitlines()
    assert shown[0].startswith("Usage: headwater")
    assert "Commands:" in shown
    assert max(map(len, shown)) <= 80


def test_the_shell_completes_commands_and_options():
    asked = {"_HEADWATER_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    assert "--tokens" in started(**asked, COMP_WORDS="headwater trace --to").stdout.split()
