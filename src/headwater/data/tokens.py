"""Turning rows into tokens by a checked tokenizer, and finding the tokens that are targets of the loss.

A token is a target if it holds a character of a target span. So a token that covers both the end of the prompt and the
start of the response is a target, because predicting it needs the response. A token without characters of its own is a
target if it lies inside a span.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from headwater.core.errors import DataError, ModelError, UsageError, unknown_name
from headwater.core.fingerprints import digest
from headwater.core.spec import Role
from headwater.data.contrasts import JOINT, Contrast
from headwater.data.questions import Question, Speech, Spoken, said_after
from headwater.data.rows import TARGETS, Rendered, Row, Span, Template, Turn, target_spans, word_spans
from headwater.data.templates import resolve_template, restore_template

NOT_LEARNED = frozenset({"pad_token"})
"""Special tokens left out of the digest: they change no token of a row, since batches mask their padding."""


def bare_backend(tokenizer: Any) -> Tokenizer:
    """A copy that does not truncate, pad, add special tokens or trim white space off the offsets.

    Post-processing only adds special tokens and trims offsets. Without it, the tokens are those of the tokenizer called
    with `add_special_tokens=False`, and their offsets cover every character that was read.
    """
    backend = _stateless_copy(tokenizer)
    backend.post_processor = None
    return backend


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of everything that decides a row's tokens: the backend, the special tokens, the chat template.

    Truncation, padding and the pad token are left out. Raises `ModelError` for a tokenizer that is not a fast one.
    """
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if name not in NOT_LEARNED}
    return digest(_stateless_copy(tokenizer).to_str(), special, {"chat_template": tokenizer.chat_template})


def opening_tokens(tokenizer: Any) -> tuple[list[int], str]:
    """The special tokens (ids, text) the tokenizer puts before plain text by default; usually one or none."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    count = next((i for i, added in enumerate(encoded["special_tokens_mask"]) if not added), 0)
    ids: list[int] = encoded["input_ids"][:count]
    return ids, "".join(tokenizer.convert_ids_to_tokens(ids))


def _stateless_copy(tokenizer: Any) -> Tokenizer:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(tokenizer).__name__} is not a fast tokenizer: it does not say which characters a token covers",
            where="tokenizer",
            remedy="save a tokenizer.json for it with AutoTokenizer.from_pretrained(...).save_pretrained(...)",
        )
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


MAX_TOKENS = 8192
"""Default number of tokens after which a row is cut: as many as one forward pass reads by default."""
ANSWER = "what stands here is an answer"
"""Stands for an answer where only the text around it matters."""

ENCODED_AT_ONCE = 512
"""Rows tokenised in one call; bounds the memory of the tokenizer's results."""


@dataclass(frozen=True)
class TokenRow:
    """One row as tokens.

    Attributes:
        row: the row.
        text: the exact text of the tokens, including opening special tokens that the tokenizer adds.
        ids: int64 `[tokens]`.
        response: bool `[tokens]`; True where the token is a target of the loss (for a text row: every token but the
            first). `response[0]` is always False, because nothing predicts the first token.
        offsets: int64 `[tokens, 2]`, (start, end) of each token's characters in `text`. Tokens that each hold
            some bytes of one character have the same offsets.
        cut: how many tokens were cut off at the end.
        digest: hash of the row's content, the template and the tokenizer.
        cut_targets: how many of the tokens that were cut off were targets.
        contrast: for a preference pair, whose tokens are those of two texts, how they are compared; else None.
    """

    row: Row
    text: str
    ids: NDArray[np.int64]
    response: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    cut: int
    digest: str
    cut_targets: int = 0
    contrast: Contrast | None = None

    @property
    def split(self) -> int:
        """The token at which a second text begins, before which nothing of it is read; 0 if there is only one."""
        return 0 if self.contrast is None else self.contrast.split


def token_texts(row: TokenRow) -> list[str]:
    """Each token's text, for display; joined, they are the row's text up to where it was cut.

    A character that several tokens share goes to the first of them; characters of no token go to the next token.
    """
    ends = np.maximum.accumulate(row.offsets[:, 1])
    if not row.cut:
        ends[-1] = len(row.text)
    starts = np.concatenate([[0], ends[:-1]])
    return [row.text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


@dataclass(frozen=True)
class Tokenization:
    """How rows become tokens.

    The tokenizer adds its opening special tokens, as it does for plain text, unless the template writes them. No token
    is added at the end, because templates write the end-of-text token.

    Attributes:
        tokenizer: a fast `transformers` tokenizer.
        template: how rows are written as text.
        max_tokens: rows longer than this are cut at the end.
        targets: what the loss is over, a name of `TARGETS`; None for all of a text, else the assistant's turns.
        asked: what of a query is asked about, a name of `TARGETS`; None for the same as in training.
        vocabulary: how many tokens the model's embedding has; a larger token id is refused. None if not known.
        beta: β of the DPO loss, for rows that are preference pairs; None refuses them.
    """

    tokenizer: Any
    template: Template
    max_tokens: int = MAX_TOKENS
    targets: str | None = None
    asked: str | None = None
    vocabulary: int | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        if self.beta is not None and not 0 < self.beta < math.inf:
            raise UsageError(f"a beta of {self.beta}", where="--beta", remedy="a positive number, such as 0.1")
        for chosen in (self.targets, self.asked):
            if chosen is not None and chosen not in TARGETS:
                raise unknown_name("targets", chosen, TARGETS, where="--targets")
        if self.max_tokens < 2:
            raise UsageError(f"rows of {self.max_tokens} tokens", where="--max-tokens", remedy="at least 2")
        _ = self._backend  # raises an error for a tokenizer that cannot be used

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        template: str | None = None,
        max_tokens: int = MAX_TOKENS,
        *,
        targets: str | None = None,
        beta: float | None = None,
    ) -> Tokenization:
        """The tokenisation of a tokenizer; see `resolve_template` for the names of templates and the default."""
        return cls(tokenizer, resolve_template(template, tokenizer), max_tokens, targets, beta=beta)

    @classmethod
    def like(cls, tokenizer: Any, fingerprint: Mapping[str, Any]) -> Tokenization:
        """A tokenisation with the settings that an earlier one's fingerprint names, for a tokenizer that may differ."""
        template = restore_template(fingerprint["template"], tokenizer)
        most, targets = int(fingerprint["max_tokens"]), fingerprint.get("targets")
        return cls(tokenizer, template, most, targets, beta=fingerprint.get("beta"))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that rows' tokens depend on, JSON-ready."""
        return {
            "tokenizer": self.tokenizer_digest,
            "template": dict(self.template.fingerprint),
            "max_tokens": self.max_tokens,
            **({} if self.targets is None else {"targets": self.targets}),
            **({} if self.beta is None else {"beta": self.beta}),
        }

    @cached_property
    def tokenizer_digest(self) -> str:
        """The digest of the tokenizer, computed once."""
        return tokenizer_digest(self.tokenizer)

    def encode(self, rows: Sequence[Row], role: Role = "train") -> list[TokenRow]:
        """The rows as tokens, in order.

        A query is about what was said, so `targets="all"` counts for training rows alone; `asked` chooses for queries.
        The targets of a query with hotwords are the tokens of these words alone, wherever they occur in its response.
        Raises `DataError` naming the row's place if no token would be a target, or if the model's embedding has no row
        for a token, or for a preference pair if there is no β. A pair's texts are each cut at `max_tokens`.
        """
        if any(row.rejected is not None for row in rows):
            return self._encode_pairs(rows, role)
        encoded: list[TokenRow] = []
        for start in range(0, len(rows), ENCODED_AT_ONCE):
            part = rows[start : start + ENCODED_AT_ONCE]
            said = [None if row.said is None else self._read_said(row, row.said) for row in part]
            renderings = [
                self.template.render(row) if own is None else own[0] for row, own in zip(part, said, strict=True)
            ]
            encodings = self._backend.encode_batch([rendered.text for rendered in renderings])
            for row, rendered, encoding, own in zip(part, renderings, encodings, said, strict=True):
                encoded.append(self._token_row(row, rendered, encoding if own is None else own[1], role))
        return encoded

    def _encode_pairs(self, rows: Sequence[Row], role: Role) -> list[TokenRow]:
        """Rows among which are preference pairs: both texts of a pair, one behind the other."""
        sides = [replace(row, rejected=None) for row in rows]
        worse = [replace(row.rejected, place=row.where) for row in rows if row.rejected is not None]
        chosen, rejected = self.encode(sides, role), iter(self.encode(worse, role))
        return [
            one if row.rejected is None else self._pair(row, one, next(rejected))
            for row, one in zip(rows, chosen, strict=True)
        ]

    def _pair(self, row: Row, chosen: TokenRow, rejected: TokenRow) -> TokenRow:
        if self.beta is None:
            what = "a preference pair under the DPO loss, which is read by an index of such pairs alone"
            raise DataError(what, where=row.where, remedy="--pairs rows reads its answers as two rows")
        shift = len(chosen.text) + len(JOINT)
        return TokenRow(
            row=row,
            text=chosen.text + JOINT + rejected.text,
            ids=np.concatenate([chosen.ids, rejected.ids]),
            response=np.concatenate([chosen.response, rejected.response]),
            offsets=np.concatenate([chosen.offsets, rejected.offsets + shift]),
            cut=chosen.cut + rejected.cut,
            digest=digest([chosen.digest, rejected.digest]),
            cut_targets=chosen.cut_targets + rejected.cut_targets,
            contrast=Contrast(len(chosen.ids), self.beta),
        )

    def question(self, row: Row) -> Question:
        """What a model is asked with, to answer the row's prompt or chat anew; an answer that it has is left out.

        Its tokens are those before the answer in a training row, so far as no answer changes them.
        """
        text = self.template.question_text(row)
        opening, opening_text = self._opening_of(text, self._prompt_opened)
        places = _opening_offsets(len(opening), len(opening_text)).tolist()
        own = Spoken(tuple(opening), opening_text, tuple((start, end) for start, end in places))
        asked = self._speech.question(text, own, self.template.joint)
        self._require_embedded(np.array(asked.ids, dtype=np.int64), row.where)
        return replace(asked, ends=self._ends)

    def _require_embedded(self, ids: NDArray[np.int64], where: str) -> None:
        """Raise `DataError` if the model's embedding has no row for a token."""
        if self.vocabulary is None or not len(ids) or ids.max() < self.vocabulary:
            return
        token = int(ids[int((ids >= self.vocabulary).argmax())])
        text = self.tokenizer.convert_ids_to_tokens(token)
        what = f"token {token} ('{text}') is beyond the model's embedding, which has {self.vocabulary:,} rows (0 to"
        remedy = "give the tokenizer or template the model was trained with, or a model whose embedding was grown"
        raise DataError(f"{what} {self.vocabulary - 1})", where=where, remedy=remedy)

    def _asked(self, rendered: Rendered, row: Row) -> tuple[Span, ...]:
        """The spans of a query that are asked about; its last turn also if a training row would not learn it."""
        if self.asked == "last" and rendered.turns:
            return rendered.turns[-1].spans
        choice = None if self.targets == "all" else self.targets
        return target_spans(rendered, (self.asked if rendered.turns else None) or choice, row.where)

    def _read_said(self, row: Row, said: Sequence[int]) -> tuple[Rendered, Spoken]:
        """The row's question and the tokens that a model said to it."""
        question = self.question(row)
        answer = self._speech.spoken(said)
        whole = said_after(question, answer)
        span = (len(question.text) + question.before_answer(answer.text), len(whole.text))
        return Rendered(whole.text, (span,), opened=True, turns=(Turn((span,)),)), whole

    @cached_property
    def _backend(self) -> Tokenizer:
        return bare_backend(self.tokenizer)

    @cached_property
    def _speech(self) -> Speech:
        return Speech(self._backend, len(self.tokenizer))

    @cached_property
    def _opening(self) -> tuple[list[int], str]:
        return opening_tokens(self.tokenizer)

    @cached_property
    def _prompt_opened(self) -> bool:
        return self.template.render(Row(id="", ordinal=0, prompt="a", response="a")).opened

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """The added token that the template writes behind an answer as the first target there, if it does."""
        row = Row(id="", ordinal=0, prompt=ANSWER, response=ANSWER)
        (tokens,) = Tokenization(self.tokenizer, self.template, self.max_tokens, "last").encode([row])
        end = tokens.text.rfind(ANSWER) + len(ANSWER)
        behind = tokens.response & (tokens.offsets[:, 0] >= end)
        first = tokens.ids[behind][:1].tolist()
        return tuple(token for token in first if token in self.tokenizer.added_tokens_decoder)

    @cached_property
    def _digest(self) -> str:
        return digest(dict(self.template.fingerprint), self.tokenizer_digest)

    def _opening_of(self, text: str, opened: bool) -> tuple[list[int], str]:
        """The special tokens to put before `text`: none if the template wrote them or the text begins with them."""
        return ([], "") if opened or text.startswith(self._opening[1]) else self._opening

    def _token_row(self, row: Row, rendered: Rendered, encoding: Encoding | Spoken, role: Role) -> TokenRow:
        opening, opening_text = self._opening_of(rendered.text, rendered.opened)
        words = row.hotwords if role == "query" else ()
        spans = target_spans(rendered, self.targets, row.where) if role == "train" else self._asked(rendered, row)
        spans = word_spans(row, rendered, words, spans) if words else spans
        whole = len(opening) + len(encoding.ids)
        ids = np.array([*opening, *encoding.ids][: self.max_tokens], dtype=np.int64)
        self._require_embedded(ids, row.where)
        flat = np.fromiter(chain.from_iterable(encoding.offsets), dtype=np.int64, count=2 * len(encoding.ids))
        offsets = np.concatenate(
            [_opening_offsets(len(opening), len(opening_text)), flat.reshape(-1, 2) + len(opening_text)]
        )
        response = _inside(offsets, spans, shift=len(opening_text))
        response[:1] = False
        _require_targets(row, response, max_tokens=self.max_tokens)
        return TokenRow(
            row=row,
            text=opening_text + rendered.text,
            ids=ids,
            response=response[: self.max_tokens],
            offsets=offsets[: self.max_tokens],
            cut=max(whole - self.max_tokens, 0),
            cut_targets=int(response[self.max_tokens :].sum()),
            digest=digest(_content(row, words), self._digest),
        )


def _opening_offsets(count: int, length: int) -> NDArray[np.int64]:
    """Offsets of the opening tokens; the first holds all of their text."""
    offsets = np.full((count, 2), length, dtype=np.int64)
    offsets[:1, 0] = 0
    return offsets


def _inside(offsets: NDArray[np.int64], spans: Sequence[tuple[int, int]], *, shift: int) -> NDArray[np.bool_]:
    """Which tokens hold a character of a span moved by `shift`, or lie inside it without characters of their own."""
    starts, ends = offsets[:, 0], np.maximum(offsets[:, 1], offsets[:, 0] + 1)
    inside = np.zeros(len(offsets), dtype=np.bool_)
    for start, end in spans:
        inside |= (starts < end + shift) & (ends > start + shift)
    return inside


def _require_targets(row: Row, response: NDArray[np.bool_], *, max_tokens: int) -> None:
    """Raise `DataError` unless a target is left after the cut; `response` covers all tokens, as before the cut."""
    if len(response) < 2:
        raise DataError(f"a row of {len(response)} tokens has none to predict", where=row.where, remedy="drop the row")
    if not response.any():
        raise DataError("no token of the response is predicted", where=row.where, remedy="drop the row")
    if not response[:max_tokens].any():
        first = int(response.argmax())
        what = f"the first target is token {first + 1} and rows are cut after {max_tokens}"
        remedy = f"raise --max-tokens above {first} if the model reads that many; else leave the row out"
        raise DataError(what, where=row.where, remedy=remedy)


def _content(row: Row, words: Sequence[str]) -> dict[str, Any]:
    content: dict[str, Any] = dict(row.fields())
    if row.messages is not None:
        content["messages"] = [dict(message) for message in row.messages]
    if row.tools:
        content["tools"] = row.tools
    if row.settings:
        content["settings"] = row.settings
    return {**content, "hotwords": list(words)} if words else content
