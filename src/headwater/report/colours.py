"""Colour scales of the page: each value gets a CSS class, and its colour depends on the reader's theme.

There are `2 · STEPS + 1` classes instead of a colour for each value. So light, dark and print need no script, and the
contrast of every possible colour can be tested. People with any common colour blindness can distinguish orange from
blue. Violet is for losses alone, so that the two kinds of number are never confused.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 8
"""Shades on each side of neutral."""

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Theme:
    """Colours of one theme, `#rrggbb`; the last three are the ends of scales that start at `card`."""

    page: str
    card: str
    ink: str
    muted: str
    line: str
    link: str
    strong_positive: str
    strong_negative: str
    positive: str
    negative: str
    loss: str

    def shade(self, end: str, step: int) -> str:
        """The colour `step` / `STEPS` of the way from `card` to `end`."""
        low, high = _rgb(self.card), _rgb(end)
        mixed = (round(a + (b - a) * step / STEPS) for a, b in zip(low, high, strict=True))
        return "#" + "".join(f"{channel:02x}" for channel in mixed)

    def heat(self) -> dict[str, str]:
        """Background of every heat class: `p1`…`p8` positive, `n1`…`n8` negative, `l1`…`l8` loss."""
        ends = {"p": self.positive, "n": self.negative, "l": self.loss}
        return {f"{sign}{step}": self.shade(end, step) for sign, end in ends.items() for step in range(1, STEPS + 1)}


LIGHT = Theme(
    page="#f5f5f2", card="#ffffff", ink="#1b1d21", muted="#5c626b", line="#d9dadd", link="#0b5cad",
    strong_positive="#b3530b", strong_negative="#1f5fa6", positive="#f59a3c", negative="#74aef0", loss="#b9a0ee",
)  # fmt: skip
DARK = Theme(
    page="#111317", card="#1a1d23", ink="#eceef1", muted="#a2a9b4", line="#363b45", link="#86bdff",
    strong_positive="#f5a04c", strong_negative="#7fb4f2", positive="#a8520c", negative="#1f62ad", loss="#6a4bb0",
)  # fmt: skip


def signed_class(value: float | None, scale: float) -> str:
    """Heat class of a signed value on a scale of ±`scale`; `z` is neutral, `m` a token without a number."""
    if value is None:
        return "m"
    step = _step(abs(value), scale)
    return "z" if step == 0 else f"{'p' if value > 0 else 'n'}{step}"


def loss_class(value: float | None, scale: float) -> str:
    """Heat class of a loss in nats on a scale from 0 to `scale`; a negative loss is a rounding error, so neutral."""
    if value is None:
        return "m"
    step = _step(max(value, 0.0), scale)
    return "z" if step == 0 else f"l{step}"


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two `#rrggbb` colours, 1 to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def stylesheet() -> str:
    """CSS custom properties of both themes, a rule for every heat class and width of a bar; print is always light.

    Colours and widths are classes, so that no element needs a style of its own, which a strict policy forbids.
    """
    rules = "\n".join(f".{name}{{background-color:var(--{name})}}" for name in LIGHT.heat())
    widths = "".join(f".bar .w{percent}{{width:{percent}%}}" for percent in range(1, 101))
    return (
        f":root{{color-scheme:light dark;{_properties(LIGHT)}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_properties(DARK)}}}}}\n{rules}\n{widths}\n"
    )


def _properties(theme: Theme) -> str:
    named = {name.replace("_", "-"): value for name, value in vars(theme).items()}
    return "".join(f"--{name}:{value};" for name, value in {**named, **theme.heat()}.items())


def _step(magnitude: float, scale: float) -> int:
    return round(STEPS * min(1.0, magnitude / scale)) if scale > 0 else 0


def _rgb(colour: str) -> Rgb:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
