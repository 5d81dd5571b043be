"""The model's queue: one worker thread answers and traces, one request after the other, with progress and an end.

A model is loaded once, when the first question for it comes. Whoever waits sees the answer grow and the share of the
trace that is done, and may cancel: a job that waits is taken out, one that runs is ended at its next token or block of
rows. What was traced is kept for a while, so that its URL shows it to everybody who has it.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from headwater.core.errors import HeadwaterError, UsageError, shortage
from headwater.core.fingerprints import digest
from headwater.core.trace import Trace
from headwater.view.shelf import Item, nameless

State = Literal["waiting", "loading the model", "answering", "tracing", "done", "failed", "cancelled"]
FINAL: tuple[State, ...] = ("done", "failed", "cancelled")

WAITING = 32
"""Most jobs that wait."""
KEPT = 200
"""Jobs and traces that are kept."""
LONGEST_PROMPT, LONGEST_ANSWER, MOST_TOP, MOST_TOKENS = 20_000, 20_000, 200, 1024


class CancelledError(Exception):
    """Raised inside a trace to end it."""


@dataclass(frozen=True)
class Inquiry:
    """What is asked of an index.

    Attributes:
        index: the index's key.
        prompt: a text, or a chat's messages.
        response: the model's answer; None has it generated.
        spans: words of the answer to trace; none traces all of it.
        by: vector columns to rank by, `bm25`, or empty for the method's own score.
        where: SQL condition on the rows.
        lowest: the lowest scores instead of the highest.
        top: hits.
        max_new_tokens: most tokens of a generated answer.
    """

    index: str
    prompt: str | tuple[Mapping[str, Any], ...]
    response: str | None = None
    spans: tuple[str, ...] = ()
    by: str = ""
    where: str = ""
    lowest: bool = False
    top: int = 20
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        length = len(self.prompt) if isinstance(self.prompt, str) else sum(len(str(m)) for m in self.prompt)
        if not length:
            raise UsageError("the prompt is empty", where="ask", remedy="type a question")
        if length > LONGEST_PROMPT or len(self.response or "") > LONGEST_ANSWER:
            what = f"{max(length, len(self.response or '')):,} characters"
            raise UsageError(what, where="ask", remedy=f"at most {LONGEST_PROMPT:,}; use `headwater trace` for more")
        if not 1 <= self.top <= MOST_TOP or not 1 <= self.max_new_tokens <= MOST_TOKENS:
            remedy = f"1 to {MOST_TOP} hits, 1 to {MOST_TOKENS} tokens"
            raise UsageError(f"{self.top} hits, {self.max_new_tokens} tokens", where="ask", remedy=remedy)

    @property
    def name(self) -> str:
        """A short name that says the same for the same question, in URLs; how long an answer may be that is there
        already does not matter.
        """
        prompt = self.prompt if isinstance(self.prompt, str) else [dict(message) for message in self.prompt]
        told = {**vars(self), "prompt": prompt, "spans": list(self.spans)}
        return digest(told if self.response is None else {**told, "max_new_tokens": 0})[:16]

    def parameters(self) -> dict[str, Any]:
        """The parameters of the address that asks this question."""
        chat = None if isinstance(self.prompt, str) else json.dumps([dict(m) for m in self.prompt], ensure_ascii=False)
        most = self.max_new_tokens
        return {
            "prompt": self.prompt if chat is None else None,
            "messages": chat,
            "response": self.response,
            "span": list(self.spans),
            "by": self.by,
            "where": self.where,
            "lowest": self.lowest,
            "top": self.top if self.top != Inquiry.top else None,
            "max_new_tokens": most if self.response is None and most != Inquiry.max_new_tokens else None,
        }


@dataclass(frozen=True)
class KeptTrace:
    """A finished trace: the question with its answer, the result, the index's version, and the seconds it took.

    If all methods were asked for, `others` has the trace of each.
    """

    question: Inquiry
    trace: Trace
    version: int
    seconds: float
    others: Mapping[str, Trace] = field(default_factory=dict)


@dataclass
class ModelJob:
    """One question on its way; `text` is the answer so far, `share` the part of `step` that is done."""

    question: Inquiry
    item: Item
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: State = "waiting"
    step: str = ""
    share: float = 0.0
    text: str = ""
    error: str = ""
    traced: KeptTrace | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    ended: Future[None] = field(default_factory=Future)

    def told(self) -> dict[str, Any]:
        """What a page or a program is told of it, JSON-ready."""
        found = {"id": self.id, "state": self.state, "step": self.step, "share": round(self.share, 3)}
        result = self.traced.question.name if self.traced else None
        return {**found, "text": self.text, "error": self.error, "trace": result}


Run = Callable[[ModelJob, Callable[[str, float], None], Callable[[str], None]], KeptTrace]
"""Answers and traces a job's question; told are the step and its share, and the answer so far."""


class Jobs:
    """The queue, its one thread, and what it has traced."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._queue: queue.Queue[ModelJob] = queue.Queue(WAITING)
        self._jobs: OrderedDict[str, ModelJob] = OrderedDict()
        self._traced: OrderedDict[str, KeptTrace] = OrderedDict()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, question: Inquiry, item: Item) -> ModelJob:
        """Queue a question; what has been traced at the same version is not traced again by the runner.

        Raises:
            UsageError: too many wait already.
        """
        job = ModelJob(question, item)
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            remedy = "wait until some are done"
            raise UsageError(f"{WAITING} questions wait already", where="ask", remedy=remedy) from None
        with self._lock:
            self._jobs[job.id] = job
            _shrink(self._jobs)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="headwater-model", daemon=True)
                self._thread.start()
        return job

    def get(self, job_id: str) -> ModelJob | None:
        """The job with this id, if it is still known."""
        with self._lock:
            return self._jobs.get(job_id)

    def asked(self, name: str) -> ModelJob | None:
        """The latest job for the question with this name."""
        with self._lock:
            return next((job for job in reversed(self._jobs.values()) if job.question.name == name), None)

    def ahead(self, job: ModelJob) -> int:
        """How many jobs are done before this one."""
        with self._lock:
            waiting = [j for j in self._jobs.values() if j.state not in FINAL]
        return waiting.index(job) if job in waiting else 0

    def cancel(self, job: ModelJob) -> None:
        """End a job: at once if it waits, else at its next token or block of rows."""
        job.stop.set()
        if job.state == "waiting":
            _end(job, "cancelled")

    def traced(self, name: str) -> KeptTrace | None:
        """The trace with this name (`Inquiry.name`), if it is still known."""
        with self._lock:
            return self._traced.get(name)

    def names(self) -> list[str]:
        """The names of the traces that are known, the latest first; of one that has two, the one with the answer."""
        return [found.question.name for found in self.all_traced()]

    def all_traced(self) -> list[KeptTrace]:
        """Every trace that is known, the latest first."""
        with self._lock:
            return list(reversed({id(found): found for found in self._traced.values()}.values()))

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            if not job.stop.is_set():
                self._do(job)

    def _do(self, job: ModelJob) -> None:
        def tell(step: str, share: float) -> None:
            if job.stop.is_set():
                raise CancelledError
            job.step, job.share = step, min(share, 1.0)

        def hear(text: str) -> None:
            tell("the model is answering", 0.0)
            job.text = text

        started = time.perf_counter()
        try:
            job.traced = self._run(job, tell, hear)
        except CancelledError:
            _end(job, "cancelled")
        except HeadwaterError as error:
            job.error = nameless(str(error))
            _end(job, "failed")
        except Exception as error:  # a fault of headwater or of the model; the app goes on
            short = shortage(error)
            said = str(short) if short is not None else f"{type(error).__name__}: {' '.join(str(error).split())}"
            job.error = nameless(said)[:400]
            _end(job, "failed")
        else:
            with self._lock:
                for name in {job.question.name, job.traced.question.name}:
                    self._traced[name] = job.traced
                _shrink(self._traced)
            job.step = f"traced in {time.perf_counter() - started:.1f} s"
            _end(job, "done")


async def ended(job: ModelJob, seconds: float) -> bool:
    """Wait for a job without holding a thread; whether it has ended within so many seconds."""
    await asyncio.wait([asyncio.wrap_future(job.ended)], timeout=seconds)
    return job.ended.done()


def _end(job: ModelJob, state: State) -> None:
    """The job's last state; a job that is cancelled while it ends keeps the state that came first."""
    with _ENDING:
        if not job.ended.done():
            job.state = state
            job.ended.set_result(None)


_ENDING = threading.Lock()


def _shrink(kept: OrderedDict[str, Any]) -> None:
    while len(kept) > KEPT:
        kept.popitem(last=False)
