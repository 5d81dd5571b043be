"""Texts on a page: labelled, shaded by a token map if there is one, folded if they are long, cut if they are very long.

User text stays plain here; the page's environment escapes it on output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headwater.core.trace import TokenMap
from headwater.report.colours import loss_class, signed_class
from headwater.report.detail import Detail
from headwater.report.tables import number_text, signed_text
from headwater.report.texts import left_out
from headwater.report.tokens import Piece, checked, over_fields, strongest_passage

LONG_TEXT = 900
"""A text with more characters is folded."""
WHOLE = "text as the model saw it"
"""Label of a token map that does not contain the row's texts word for word."""
PASSAGE = 60
"""How many tokens of a folded text are visible: its strongest passage."""


@dataclass(frozen=True)
class Shaded:
    """One piece on the page: text, CSS class, exact value; `lead` is its leading space, which is not shaded."""

    text: str
    css: str
    title: str
    lead: str = ""


@dataclass(frozen=True)
class Field:
    """A text under a label.

    Attributes:
        label: what the text is.
        text: the text, if it has no `tokens`.
        tokens: the text as shaded pieces.
        excerpt: the pieces that are visible before a long text is opened.
        cut: whether text precedes what is visible at first, and whether text follows it.
        size: how long the whole text is, for a folded text.
        note: a sentence about what is not on the page.
    """

    label: str
    text: str
    tokens: tuple[Shaded, ...] = ()
    excerpt: tuple[Shaded, ...] = ()
    cut: tuple[bool, bool] = (False, False)
    size: str = ""
    note: str = ""


class Layout:
    """Lays the maps of one trace over their texts, each once."""

    def __init__(self) -> None:
        self._laid: dict[int, dict[str, tuple[Piece, ...]]] = {}

    def lay(self, texts: Mapping[str, str], tokens: TokenMap, *, where: str) -> dict[str, tuple[Piece, ...]]:
        """The map's pieces by the labels of the texts if it fits them, else all under `WHOLE`."""
        if id(tokens) not in self._laid:
            pieces = checked(tokens, where=where)
            present = {label: text for label, text in texts.items() if text}
            parts = over_fields(pieces, list(present.values()))
            self._laid[id(tokens)] = {WHOLE: pieces} if parts is None else dict(zip(present, parts, strict=True))
        return self._laid[id(tokens)]


@dataclass(frozen=True)
class Painter:
    """How the numbers of one page become colours, and how much of a text is shown.

    Attributes:
        scale: the value with the strongest shade.
        detail: the page's limits.
        whole: where the whole text is, for the sentence about text left out.
        layout: the maps as they lie over the texts.
        loss: the numbers are losses in nats, not signed influence.
        bare: a text that is too long to shade is shown by its strongest passage alone.
    """

    scale: float
    detail: Detail
    whole: str
    layout: Layout
    loss: bool = False
    bare: bool = False

    def fields(self, texts: Mapping[str, str], tokens: TokenMap | None, *, where: str) -> tuple[Field, ...]:
        """The texts, shaded by the map if it fits them; a map that does not fit becomes a field of its own."""
        laid = self.layout.lay(texts, tokens, where=where) if tokens else {}
        plain = tuple(self._plain(label, text) for label, text in texts.items() if text and label not in laid)
        return (*plain, *(self._shaded(label, pieces) for label, pieces in laid.items()))

    def _plain(self, label: str, text: str) -> Field:
        most = self.detail.characters
        if len(text) <= min(LONG_TEXT, most):
            return Field(label, text)
        head = Shaded(text[: min(LONG_TEXT, most) // 3], "", "")
        size, note = f"{len(text):,} characters", left_out(len(text) - most, self.whole)
        return Field(label, text[:most], excerpt=(head,), cut=(False, True), size=size, note=note)

    def _shaded(self, label: str, pieces: Sequence[Piece]) -> Field:
        """A shaded text; the template's own tokens are drawn only if they have a number and the page shows all."""
        framed = self.detail.whole
        pieces = [piece for piece in pieces if not piece.framing or (framed and piece.value is not None)]
        most, length = self.detail.characters, sum(len(piece.text) for piece in pieces)
        if len(pieces) > self.detail.tokens or length > most:
            return self._passage(label, pieces)
        tokens = tuple(self._shade(piece) for piece in pieces)
        if len(pieces) <= 2 * PASSAGE and length <= LONG_TEXT:
            return Field(label, "", tokens)
        start, stop = strongest_passage(pieces, PASSAGE)
        cut, size = (start > 0, stop < len(tokens)), _count(pieces)
        return Field(label, "", tokens, excerpt=tokens[start:stop], cut=cut, size=size)

    def _passage(self, label: str, pieces: Sequence[Piece]) -> Field:
        """A text too long for the page to shade: only its strongest passage has values, and its ends may be cut."""
        most = self.detail.characters
        start, stop = strongest_passage(pieces, min(PASSAGE, self.detail.tokens))
        strongest = [replace(piece, text=piece.text[:most]) for piece in pieces[start:stop]]
        shaded = tuple(self._shade(piece) for piece in strongest)
        cut = (start > 0, stop < len(pieces))
        if self.bare:
            return Field(label, "", shaded, cut=cut)
        before, after = ("".join(piece.text for piece in some) for some in (pieces[:start], pieces[stop:]))
        room = max(most - sum(len(piece.text) for piece in strongest), 0)
        lead = before[max(len(before) - max(room // 3, room - len(after)), 0) :]
        tail = after[: room - len(lead)]
        tokens = (Shaded(lead, "", ""), *shaded, Shaded(tail, "", ""))
        missing = sum(len(piece.text) for piece in pieces) - len(lead) - len(tail) - (most - room)
        ends, note = (len(lead) < len(before), len(tail) < len(after)), left_out(missing, self.whole)
        if most <= LONG_TEXT:
            return Field(label, "", tokens, cut=ends, note=note)
        return Field(label, "", tokens, excerpt=shaded, cut=cut, size=_count(pieces), note=note)

    def _shade(self, piece: Piece) -> Shaded:
        css = loss_class(piece.value, self.scale) if self.loss else signed_class(piece.value, self.scale)
        if not self.detail.whole and css == "z" and piece.text:
            return Shaded(piece.text, "", "")
        if piece.framing:
            css += " framing"
        if piece.text == "":
            css += " empty"
        elif "\n" in piece.text:
            css += " newline"
        text = piece.text.lstrip(" ") or piece.text
        return Shaded(text, css, self._title(piece), piece.text.removesuffix(text))

    def _title(self, piece: Piece) -> str:
        """The exact value, and in brackets those of its tokens, if the piece has several."""
        if piece.value is None:
            return ""
        parts = " ".join(self._exact(value, 3) for value in piece.parts) if self.detail.whole else ""
        return self._exact(piece.value, 6 if self.detail.whole else 3) + (f" ({parts})" if parts else "")

    def _exact(self, value: float | None, digits: int) -> str:
        if value is None:
            return "–"
        return number_text(value, digits=digits) if self.loss else signed_text(value, digits=digits)


def _count(pieces: Sequence[Piece]) -> str:
    return f"{sum(max(1, len(piece.parts)) for piece in pieces):,} tokens"
