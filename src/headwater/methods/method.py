"""What a method is: a value that says how text is windowed and which encoder reads it off a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from headwater.core.errors import UsageError, unknown_name
from headwater.core.spec import MethodSpec, Role
from headwater.curvature.gram import Metric
from headwater.data.windows import Window
from headwater.features.encoder import Encoder
from headwater.models.load import LoadedModel

Options = TypeVar("Options")
"""A frozen dataclass of a method's options; every field is a JSON scalar."""


@dataclass(frozen=True)
class Method:
    """A method with its options settled.

    Attributes:
        spec: name and resolved options, as written into an index's manifest.
        windows: how a row's tokens are cut, for index rows and for queries.
        bind: gives the encoder that reads the method's vectors off a model.
        metrics: by column, the metric that makes a score of two vectors; it is fitted on an index's rows and applied to
            the query, so an index holds plain vectors. A column without one has plain inner products.
    """

    spec: MethodSpec
    windows: Mapping[Role, Window]
    bind: Callable[[LoadedModel], Encoder]
    metrics: Callable[[Encoder], Mapping[str, Metric]] = lambda encoder: {}


@dataclass(frozen=True)
class MethodEntry(Generic[Options]):
    """A line of the catalog: what `headwater methods` prints, and how a name with options becomes a method.

    Attributes:
        name: what users type.
        summary: one sentence.
        reads: what is read off the model ("forward pass", "per-row gradients", "text").
        stores: bytes a row of its index under the default preset.
        cost: cost a row, relative to a forward pass.
        source: paper.
        presets: named settings; `default` is one of them.
        make: options to method.
        choices: the values an option of text may have, where not any will do.
    """

    name: str
    summary: str
    reads: str
    stores: str
    cost: str
    source: str
    presets: Mapping[str, Options]
    make: Callable[[Options], Method]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def resolve(self, settings: Mapping[str, Any]) -> Method:
        """The method with `settings` (option name to value, text values parsed) over the named or default preset."""
        return self.make(settle(settings, self.presets, self.choices, where=self.name))


def settle(
    settings: Mapping[str, Any], presets: Mapping[str, Options], choices: Mapping[str, Sequence[str]], *, where: str
) -> Options:
    """The options that `settings` (option name to value, text values parsed) make of the named or default preset.

    Raises:
        UsageError: an unknown preset, option or choice, or a value that does not fit; `where` is the method's name.
    """
    given = dict(settings)
    preset = str(given.pop("preset", "default"))
    if preset not in presets:
        raise unknown_name("preset", preset, presets, where=where)
    base: Any = presets[preset]
    known = {f.name: f for f in dataclasses.fields(base)}
    for name in given:
        if name not in known:
            raise unknown_name("option", name, [*known, "preset"], where=where)
    parsed = {
        name: parse_option(value, like=getattr(base, name), where=f"{where}.{name}") for name, value in given.items()
    }
    for name in parsed.keys() & choices.keys():
        if parsed[name] not in choices[name]:
            raise unknown_name("choice", parsed[name], choices[name], where=f"{where}.{name}")
    settled: Options = dataclasses.replace(base, **parsed)
    return settled


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_option(value: Any, *, like: Any, where: str) -> Any:
    """`value` as the type of `like` (bool, int, float or str); text is parsed, what does not fit is refused."""
    if isinstance(like, str):
        return str(value)
    text = str(value).strip().lower()
    try:
        return _BOOLEANS[text] if isinstance(like, bool) else type(like)(text)
    except (KeyError, ValueError):
        kind = type(like).__name__
        remedy = f"for example {like!r}"
        raise UsageError(f"'{value}' is not a value of type {kind}", where=where, remedy=remedy) from None
