"""What the model's thread does for one question: open the session once, let the model answer, trace the answer.

The libraries that read models take seconds to load. So they are loaded with the first question, and not when the app
starts: rows can be read at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headwater.core.errors import ModelError, UsageError
from headwater.core.trace import Trace
from headwater.index.store import Index, open_index
from headwater.view.jobs import Inquiry, KeptTrace, ModelJob
from headwater.view.kept_results import KeptResults
from headwater.view.shelf import nameless
from headwater.view.snapshots import Snapshots

if TYPE_CHECKING:
    from headwater.indexing.session import Session
    from headwater.models.generate import Answer
    from headwater.models.load import LoadedModel

BM25, SIDES = "bm25", "*"
"""Values of `by` besides vector columns: shared words; and all methods side by side."""
ANSWERS = 200
"""Generated answers that are kept with their token ids, so that words of them are traced as the model wrote them."""


def ways_of(index: Index) -> dict[str, str]:
    """How rows can be ranked: the value of `by` to words for people; the method's own score is first."""
    columns = index.manifest.columns
    own = [c.name for c in columns if c.weight]
    found = {"": index.manifest.method.name} if own else {}
    for column in (c.name for c in columns if not c.weight):
        found[column] = column
        if own:
            found[f"{own[0]}+{column}"] = f"{own[0]} + {column}"
    return {**found, BM25: "BM25 (words)"} if index.manifest.keeps_text else found


class Models:
    """The models of indices, each loaded once; used by one thread.

    Args:
        snapshots: the open indices.
        model: where the indices' model is now; None takes the place that each index names.
        loading: options of `load_model`.
        allowed: False answers nothing and traces nothing that needs a model.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        *,
        model: str | None = None,
        loading: Mapping[str, Any] | None = None,
        allowed: bool = True,
    ) -> None:
        self.snapshots, self.allowed = snapshots, allowed
        self._model, self._loading = model, dict(loading or {})
        self._sessions: dict[str, Session] = {}
        self._loaded: dict[str, LoadedModel] = {}
        self._answers: KeptResults[Answer] = KeptResults(ANSWERS)

    def run(self, job: ModelJob, tell: Callable[[str, float], None], hear: Callable[[str], None]) -> KeptTrace:
        """Answer and trace a job's question; `tell` and `hear` raise to end it."""
        question = job.question
        if question.by == BM25 and question.response is not None:
            return self._by_words(job, tell)
        if not self.allowed:
            what = "the app runs without a model"
            raise UsageError(
                what, where="ask", remedy="start it without --no-model, or give the answer and choose BM25"
            )
        job.state = "loading the model"
        tell("loading the model", 0.0)
        session = self._session(job)
        said: str | Answer | None = question.response
        known = self._answers.get(_asked(question))
        if said is None:
            from headwater.api.tracing import answer

            job.state = "answering"
            said = known or answer(session, _prompt(question), max_new_tokens=question.max_new_tokens, on_text=hear)
            self._answers.put(_asked(question), said)
            if not said.text.strip():
                raise UsageError("the model answered nothing", where="ask", remedy="give the answer yourself")
        elif known is not None and known.text == said:
            said = known
        job.text = said if isinstance(said, str) else said.text
        answered = replace(question, response=job.text)
        job.state, started = "tracing", time.perf_counter()
        if question.by != SIDES:
            found = self._traced(session, answered, said, job, tell)
            return KeptTrace(answered, found, int(session.index.dataset.version), time.perf_counter() - started)
        others = {
            by: self._traced(session, replace(answered, by=by), said, job, tell)
            for by in ways_of(session.index)
            if not (question.lowest and by == BM25)
        }
        version, seconds = int(session.index.dataset.version), time.perf_counter() - started
        return KeptTrace(answered, next(iter(others.values())), version, seconds, others)

    def _traced(
        self, session: Session, question: Inquiry, said: str | Answer, job: ModelJob, tell: Callable[[str, float], None]
    ) -> Trace:
        """One ranking of the rows behind an answer, with token maps if it is the only one asked for."""
        from headwater.api.tracing import trace

        if question.by == BM25:
            return self._words(session.index.path, question, job, tell, generated=not isinstance(said, str))
        found = trace(
            session,
            prompt=_prompt(question),
            response=said,
            span=list(question.spans) or None,
            by=question.by or None,
            where=question.where or None,
            lowest=question.lowest,
            top=question.top,
            tokens=job.question.by != SIDES,
            on_progress=tell,
        )
        return shown(found, job.item.title)

    def _by_words(self, job: ModelJob, tell: Callable[[str, float], None]) -> KeptTrace:
        job.state = "tracing"
        index, started = open_index(job.item.path), time.perf_counter()
        found = self._words(index, job.question, job, tell, generated=False)
        return KeptTrace(job.question, found, int(index.dataset.version), time.perf_counter() - started)

    def _words(
        self, index: Any, question: Inquiry, job: ModelJob, tell: Callable[[str, float], None], *, generated: bool
    ) -> Trace:
        from headwater.api.tracing import trace_words

        found = trace_words(
            index,
            _prompt(question),
            question.response or "",
            span=list(question.spans) or None,
            where=question.where or None,
            top=question.top,
            generated=generated,
            on_progress=tell,
        )
        return shown(found, job.item.title)

    def _session(self, job: ModelJob) -> Session:
        from headwater.indexing.session import open_session

        key = job.item.path
        if key not in self._sessions:
            index = self.snapshots.of(job.item)
            place = self._model or str(index.manifest.model["name"])
            known = self._loaded.get(place)
            # A session moves its index to the latest version; so it gets one of its own.
            try:
                opened = open_session(key, known or self._model, None if known else self._loading)
            except ModelError as error:
                remedy = f"{error.remedy or 'check the model'}, or start the app with --model and the model's place"
                raise ModelError(error.what, where=error.where, remedy=remedy) from error
            self._loaded[place] = opened.bound.reader.loaded
            self._sessions[key] = opened
        return self._sessions[key]


def shown(found: Trace, title: str) -> Trace:
    """The trace, in whose description no path of this machine stands."""
    about = {name: nameless(value) for name, value in found.about.items()}
    rows = found.about.get("index", "").rsplit(", ", 1)[-1]
    return replace(found, about={**about, "index": f"{title}, {rows}"} if "index" in about else about)


def _prompt(question: Inquiry) -> Any:
    return question.prompt if isinstance(question.prompt, str) else [dict(message) for message in question.prompt]


def _asked(question: Inquiry) -> tuple[Any, ...]:
    """What an answer depends on."""
    return question.index, repr(question.prompt), question.max_new_tokens
