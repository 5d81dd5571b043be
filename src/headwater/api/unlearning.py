"""Make a model forget rows.

hw.unlearn("my-model", "bad.jsonl", retain="good.jsonl", out="runs/cleaned", settings={"steps": 200})
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headwater.api.sources import Model, Rows, corpus_of, model_of
from headwater.core.arguments import named
from headwater.core.errors import UsageError, unknown_name
from headwater.core.files import filling_folder
from headwater.core.tables import Tabular
from headwater.data.corpus import Corpus
from headwater.data.hits import open_rows_or_hits
from headwater.data.inspection import require_usable
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization
from headwater.models.beforehand import tokenization_beforehand
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.unlearning.account import Account, judge_language, make_account, observe
from headwater.unlearning.answers import Trigger, behind_triggers, found_answers, own_answers
from headwater.unlearning.capabilities import UnlearningMethod
from headwater.unlearning.catalog import METHODS, find_unlearning
from headwater.unlearning.language import Language
from headwater.unlearning.options import UnlearnOptions, UnlearnResult
from headwater.unlearning.output import check_adapter, require_vacant, save_run
from headwater.unlearning.rows import CLEAN_COLUMN, GUARD_SHARE, draw_retain, make_job, read_forget
from headwater.unlearning.run import reader_of, run_unlearning
from headwater.unlearning.targets import require_unlearnt
from headwater.unlearning.weights import row_digest

AUTO, NONE = "auto", "none"
"""What `trigger` may say besides words: find them, or leave rows without a right answer as they are."""


@dataclass(frozen=True)
class Unlearned(Tabular):
    """A model after unlearning, with its measurements.

    Attributes:
        loaded: the model afterwards.
        account: losses, answers before and after, and the cost of the run.
        result: the outcome, with all readings and weights.
        files: the files by kind; empty if no folder was given.
    """

    loaded: LoadedModel
    account: Account
    result: UnlearnResult
    files: dict[str, Path]

    def records(self) -> list[dict[str, Any]]:
        """One record a prompt: its kind, the prompt, and the answers before and after."""
        return [vars(sample) for sample in self.account.samples]


def unlearn(
    model: Model,
    forget: Rows,
    *,
    out: str | Path | None = None,
    retain: Rows | None = None,
    retain_from: Rows | None = None,
    draw: int = 120,
    unseen: Rows | None = None,
    asked: Rows | None = None,
    clean_column: str = CLEAN_COLUMN,
    trigger: str = AUTO,
    method: str = "rapidun",
    base: Model | None = None,
    settings: Mapping[str, Any] | UnlearnOptions | None = None,
    loading: Mapping[str, Any] | None = None,
    keep_adapter: bool = False,
    skip_unusable: bool = False,
    resume: bool = False,
) -> Unlearned:
    """Make a model forget rows, and measure its answers and losses before and after.

    Args:
        model: folder or hub name; a loaded model is changed in place.
        forget: rows with the unwanted answers, or the hits that `headwater trace --out` wrote.
        out: folder for the new model and its account; None changes the model in memory alone.
        retain: clean rows, to keep the model's other behaviour.
        retain_from: training data to draw further retain rows from: half near the forget rows, half at random.
        draw: how many rows to draw from it.
        unseen: rows that the model has not seen; their loss is the target.
        asked: prompts to ask before and after.
        clean_column: column of the forget rows that holds the right answer.
        trigger: words of the forget rows' prompts that set the behaviour off. A forget row without a right answer then
            gets the model's own answer to its prompt without these words. `auto` looks for such words, and `none` does
            not.
        method: a name in `headwater.unlearning.catalog.METHODS`.
        base: the model as it was before it learned the rows; for methods that start from it (`retrain`).
        settings: options of the method by name (`rate`, `steps`, `guard`, `seed`, ...), or an `UnlearnOptions`.
        loading: options of `load_model`, for a model given by name.
        keep_adapter: save the adapter alone instead of a merged model.
        skip_unusable: leave out rows that cannot be used, and say how many, instead of raising an error.
        resume: continue an unfinished run in `out`.

    Raises:
        StoreError: something is in `out` already.
        UsageError: an unknown method or option, or options that do not go together.
        DataError: rows that cannot be used, or that are both to be forgotten and to be retained.
        NumericError: the probe found no learning rate.
    """
    options, folder = options_of(method, settings), None if out is None else Path(out)
    if folder is not None:
        require_vacant(folder, resume=resume)
    chosen = find_unlearning(options.method)
    usable = _Usable(_tokenization(model, loading, options), skip_unusable)
    rows = read_forget(usable(open_rows_or_hits(forget)))
    columns = sorted({name for row in rows for name in row.metadata})
    if clean_column not in (CLEAN_COLUMN, *columns):
        raise unknown_name("column of the forget rows", clean_column, columns, where="--clean-column")
    kept = _retain_rows(
        rows,
        options,
        retain=None if retain is None else usable(corpus_of(retain)),
        retain_from=None if retain_from is None else usable(corpus_of(retain_from)),
        draw=draw,
        learnt=chosen.from_base,
    )
    reader = reader_of(model_of(model, loading), options)
    if chosen.from_base or base is not None:
        started = _base_reader(chosen, base, loading, reader)
        require_unlearnt(started, reader, rows, kept)
        reader = started
    rows, found = _answered(reader, rows, kept, trigger, column=clean_column, seed=options.seed, method=chosen)
    share = 0.0 if chosen.from_base else GUARD_SHARE
    job = make_job(rows, kept, needs_retain=chosen.needs_retain, clean_column=clean_column, guard_share=share)
    job = behind_triggers(job, found)
    job = replace(job, warnings=(*job.warnings, *usable.notes(), *_cut_rows(reader, [*rows, *kept])))
    prompts = [] if asked is None else list(corpus_of(asked, need_response=False))
    unseen_rows = [] if unseen is None else list(corpus_of(unseen))
    check_adapter(reader.loaded, keep_adapter=keep_adapter, trains_adapter=options.lora is not None and chosen.adapts)
    before, language = observe(reader, job, prompts), Language.of(reader, job)
    with filling_folder(folder or "", again="run the same command with --resume"):
        result = run_unlearning(reader, job, options, unseen=unseen_rows, folder=folder, resume=resume)
        result = replace(result, facts={**result.facts, "triggers": [vars(t) for t in found]})
        after = observe(replace(reader, loaded=result.loaded), job, prompts)
        fluency = judge_language(language, reader, result, (before.answers, after.answers))
        account = make_account(result, job, before, after, prompts, model=reader.loaded.name, fluency=fluency)
        files = {} if folder is None else save_run(result, account, folder, keep_adapter=keep_adapter)
    return Unlearned(result.loaded, account, result, files)


def _base_reader(
    method: UnlearningMethod, base: Model | None, loading: Mapping[str, Any] | None, like: Reader
) -> Reader:
    """The reader of the base model, for a method that starts from it; it reads rows as `like` does.

    Raises:
        UsageError: the method starts from the base and none is given, or the reverse.
    """
    if not method.from_base:
        remedy = f"leave it out; it is for {', '.join(m.name for m in METHODS.values() if m.from_base)}"
        raise UsageError(f"--base with method '{method.name}'", remedy=remedy)
    if base is None:
        what = f"method '{method.name}' trains the model as it was before it learned the rows, and there is no --base"
        raise UsageError(what, remedy="give that model with --base")
    plain = {name: value for name, value in (loading or {}).items() if name not in ("adapter", "merge")}
    return replace(like, loaded=model_of(base, plain or None))


def _answered(
    reader: Reader, forget: Sequence[Row], retain: Sequence[Row], trigger: str, **about: Any
) -> tuple[list[Row], list[Trigger]]:
    """The forget rows with right answers where the model can give them, and the triggers that were found for that."""
    method, column, seed = about["method"], about["column"], about["seed"]
    if trigger == NONE or method.from_base:
        return list(forget), []
    if trigger != AUTO:
        carrying = sum(trigger in (row.prompt or "") for row in forget)
        return own_answers(reader, forget, retain, trigger, column=column), [Trigger(trigger, carrying, carrying)]
    return found_answers(reader, forget, retain, column=column, seed=seed)


@dataclass
class _Usable:
    """Checks that rows can be used before the model is loaded, and counts those that are left out."""

    tokenization: Tokenization | None
    skip: bool
    left_out: int = 0

    def __call__(self, rows: Corpus) -> Corpus:
        before = len(rows.left_out)
        found = require_usable(replace(rows, skip_unusable=self.skip or rows.skip_unusable), self.tokenization)
        self.left_out += len(found.left_out) - before
        return found

    def notes(self) -> list[str]:
        """A sentence about the rows that were left out, if there are any."""
        if self.left_out == 1:
            return ["1 row was left out: it cannot be used"]
        return [f"{self.left_out:,} rows were left out: they cannot be used"] if self.left_out else []


def _tokenization(model: Any, loading: Mapping[str, Any] | None, options: UnlearnOptions) -> Tokenization | None:
    """How rows will become tokens; None if only the model, once it is loaded, can tell."""
    if isinstance(model, LoadedModel):
        return reader_of(model, options).tokenization
    if not isinstance(model, str | Path):
        return None
    reading = {"template": options.template, "max_tokens": options.max_tokens, "targets": options.targets}
    return tokenization_beforehand(str(model), named(loading, where="loading", example={"device": "cpu"}), **reading)


def _cut_rows(reader: Reader, rows: Sequence[Row]) -> list[str]:
    """A sentence about rows that are too long to be read whole, if there are any."""
    cut = [row for row in reader.tokenize(rows) if row.cut]
    if not cut:
        return []
    ends = f"the last {sum(row.cut for row in cut):,} tokens, {sum(row.cut_targets for row in cut):,} of them targets"
    are = "1 row is" if len(cut) == 1 else f"{len(cut):,} rows are"
    return [f"{are} longer than {reader.tokenization.max_tokens:,} tokens: {ends}, are not read"]


def options_of(method: str, settings: Mapping[str, Any] | UnlearnOptions | None) -> UnlearnOptions:
    """The options of a method; raises `UsageError` for an unknown name and suggests the nearest."""
    if isinstance(settings, UnlearnOptions):
        if method not in (settings.method, "rapidun"):
            what = f"the method is '{method}', but the options are of '{settings.method}'"
            raise UsageError(what, where="unlearn", remedy="name the method once")
        return settings
    known = {f.name for f in dataclasses.fields(UnlearnOptions)} - {"method"}
    given = named(settings, where="settings", example={"steps": 100})
    for name in given:
        if name not in known:
            raise unknown_name("option", name, known, where=method)
    return UnlearnOptions(method=method, **given)


def _retain_rows(
    forget: Sequence[Row],
    options: UnlearnOptions,
    *,
    retain: Rows | None,
    retain_from: Rows | None,
    draw: int,
    learnt: bool,
) -> list[Row]:
    """The retain rows, given and drawn; if they are to be `learnt` anew, the given rows without the forget rows."""
    rows = [] if retain is None else list(corpus_of(retain))
    if learnt:
        texts = {row_digest(row) for row in forget}
        return [row for row in rows if row_digest(row) not in texts]
    if retain_from is None:
        return rows
    known = {row.id for row in rows}
    pool = (row for row in corpus_of(retain_from) if row.id not in known)
    return [*rows, *draw_retain(pool, forget, draw, seed=options.seed)]
