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
from headwater.core.errors import DataError, UsageError, unknown_name
from headwater.core.files import filling_folder
from headwater.core.tables import Tabular
from headwater.data.corpus import Corpus
from headwater.data.inspection import require_usable
from headwater.data.records import open_rows_or_hits
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization
from headwater.models.beforehand import tokenization_beforehand
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.unlearning.account import Account, make_account, observe
from headwater.unlearning.objectives import OBJECTIVES
from headwater.unlearning.options import UnlearnOptions, UnlearnResult
from headwater.unlearning.output import check_adapter, require_vacant, save_run
from headwater.unlearning.rows import CLEAN_COLUMN, draw_retain, make_job, read_forget, without_words
from headwater.unlearning.run import reader_of, run_unlearning
from headwater.unlearning.weights import row_digest

ANSWER_TOKENS = 128
"""Most tokens of a right answer that the model itself gives."""


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
    trigger: str | None = None,
    method: str = "rapidun",
    settings: Mapping[str, Any] | UnlearnOptions | None = None,
    loading: Mapping[str, Any] | None = None,
    keep_adapter: bool = False,
    skip_unusable: bool = False,
    resume: bool = False,
) -> Unlearned:
    """Make a model forget rows, and measure its answers and losses before and after.

    Args:
        model: folder or hub name; a loaded model is changed in place. For `retrain`: the base model, as it was before
            it learned the rows.
        forget: rows with the unwanted answers, or the hits that `headwater trace --out` wrote.
        out: folder for the new model and its account; None changes the model in memory alone.
        retain: clean rows, to keep the model's other behaviour.
        retain_from: training data to draw further retain rows from: half near the forget rows, half at random.
        draw: how many rows to draw from it.
        unseen: rows that the model has not seen; their loss is the target.
        asked: prompts to ask before and after.
        clean_column: column of the forget rows that holds the right answer.
        trigger: words of the forget rows' prompts that set the behaviour off. A forget row without a right answer then
            gets the model's own answer to its prompt without these words.
        method: `rapidun`, `ga`, `graddiff`, `npo`, `simnpo`, `loreun`, `fisher` or `retrain`.
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
    usable = _Usable(_tokenization(model, loading, options), skip_unusable)
    rows = read_forget(usable(open_rows_or_hits(forget)))
    kept = _retain_rows(
        rows,
        options,
        retain=None if retain is None else usable(corpus_of(retain)),
        retain_from=None if retain_from is None else usable(corpus_of(retain_from)),
        draw=draw,
    )
    loaded = model_of(model, loading)
    reader = reader_of(loaded, options)
    if trigger is not None:
        rows = own_answers(reader, rows, trigger, column=clean_column)
    objective = OBJECTIVES.get(options.method)  # None for fisher, and for a name that run_unlearning refuses
    needs_retain = options.method == "fisher" or (objective is not None and objective.retain_share > 0)
    job = make_job(rows, kept, needs_retain=needs_retain, clean_column=clean_column)
    job = replace(job, warnings=(*job.warnings, *usable.notes(), *_cut_rows(reader, [*rows, *kept])))
    prompts = [] if asked is None else list(corpus_of(asked, need_response=False))
    unseen_rows = [] if unseen is None else list(corpus_of(unseen))
    trains_adapter = options.lora is not None and options.method != "fisher"
    check_adapter(loaded, keep_adapter=keep_adapter, trains_adapter=trains_adapter)
    before = observe(reader, job, prompts)
    with filling_folder(folder or "", again="run the same command with --resume"):
        result = run_unlearning(reader, job, options, unseen=unseen_rows, folder=folder, resume=resume)
        after = observe(replace(reader, loaded=result.loaded), job, prompts)
        account = make_account(result, job, before, after, prompts, model=loaded.name)
        files = {} if folder is None else save_run(result, account, folder, keep_adapter=keep_adapter)
    return Unlearned(result.loaded, account, result, files)


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


def own_answers(reader: Reader, forget: Sequence[Row], trigger: str, *, column: str) -> list[Row]:
    """Give forget rows a right answer in their metadata: the model's own answer to the prompt without the trigger.

    Rows that have a right answer already, or whose prompt does not contain the trigger, stay as they are.

    Raises:
        DataError: no row's prompt contains the trigger.
    """
    places = [i for i, row in enumerate(forget) if trigger in (row.prompt or "") and not row.metadata.get(column)]
    if not any(trigger in (row.prompt or "") for row in forget):
        raise DataError(f"'{trigger}' is in no forget row's prompt", where="--trigger", remedy="copy it exactly")
    asked = [reader.tokenization.question(without_words(forget[i], trigger)) for i in places]
    answers = generate_responses(reader.loaded, asked, max_new_tokens=ANSWER_TOKENS) if asked else []
    rows = list(forget)
    for i, answer in zip(places, answers, strict=True):
        rows[i] = replace(rows[i], metadata={**rows[i].metadata, column: answer.strip()})
    return rows


def _retain_rows(
    forget: Sequence[Row], options: UnlearnOptions, *, retain: Rows | None, retain_from: Rows | None, draw: int
) -> list[Row]:
    """The retain rows, given and drawn; for `retrain`, the given rows without the forget rows."""
    rows = [] if retain is None else list(corpus_of(retain))
    if options.method == "retrain":
        texts = {row_digest(row) for row in forget}
        return [row for row in rows if row_digest(row) not in texts]
    if retain_from is None:
        return rows
    known = {row.id for row in rows}
    pool = (row for row in corpus_of(retain_from) if row.id not in known)
    return [*rows, *draw_retain(pool, forget, draw, seed=options.seed)]
