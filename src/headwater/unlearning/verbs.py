"""`unlearn` as one Python call: names, paths or values in; a folder with the new model and its account out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headwater.core.errors import DataError
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.unlearning.account import Account, make_account, observe
from headwater.unlearning.drawing import draw_retain
from headwater.unlearning.objectives import OBJECTIVES
from headwater.unlearning.options import Options, Result
from headwater.unlearning.output import check_adapter, require_vacant, save_run
from headwater.unlearning.rows import CLEAN_COLUMN, Source, make_job, read_forget
from headwater.unlearning.run import reader_of, run_unlearning
from headwater.unlearning.weights import row_digest

ANSWER_TOKENS = 128
"""Tokens of the model's own right answers."""


@dataclass(frozen=True)
class GivenRows:
    """The rows of a run as they are given.

    Attributes:
        forget: rows with the unwanted answers, or the hits `headwater trace --out` wrote.
        retain: clean rows.
        retain_from: training data from which `draw` retain rows are drawn, near the forget rows and at random.
        draw: how many.
        unseen: rows the model has not seen, whose loss is the target.
        asked: prompts to ask before and after.
        clean_column: column of the forget rows that holds the right answer.
        trigger: words of the forget rows' prompts that set the behaviour off. A forget row without a right answer is
            given the one the model itself has for its prompt without these words.
    """

    forget: Source
    retain: Source | None = None
    retain_from: Source | None = None
    draw: int = 120
    unseen: Source | None = None
    asked: Source | None = None
    clean_column: str = CLEAN_COLUMN
    trigger: str | None = None


@dataclass(frozen=True)
class Unlearned:
    """What a run left: the account, the result, and files by kind (empty without a folder)."""

    account: Account
    result: Result
    files: dict[str, Path]


def unlearn(
    model: str | LoadedModel,
    given: GivenRows,
    options: Options | None = None,
    *,
    out: str | Path | None = None,
    keep_adapter: bool = False,
    resume: bool = False,
) -> Unlearned:
    """Make a model forget, and keep the account.

    Args:
        model: folder or hub name; a loaded model is changed in place. For `retrain`: the base from before.
        given: the rows.
        options: how; the defaults are RapidUn's as measured.
        out: folder for the new model and its account.
        keep_adapter: save the adapter alone instead of a merged model.
        resume: go on with an unfinished run in `out`.

    Raises:
        StoreError: something is in `out` already.
        Otherwise as `make_job` and `run_unlearning`.
    """
    options, folder = options or Options(), None if out is None else Path(out)
    if folder is not None:
        require_vacant(folder, resume=resume)
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    reader = reader_of(loaded, options)
    forget = read_forget(given.forget)
    retain = _retain_rows(given, forget, options)
    if given.trigger is not None:
        forget = own_answers(reader, forget, given.trigger, column=given.clean_column)
    needs_retain = options.method == "fisher" or (
        options.method in OBJECTIVES and OBJECTIVES[options.method].retain_share > 0
    )
    job = make_job(forget, retain, needs_retain=needs_retain, clean_column=given.clean_column)
    asked = list(open_corpus(given.asked, need_response=False)) if given.asked is not None else []
    unseen = list(open_corpus(given.unseen)) if given.unseen is not None else []
    trains_adapter = options.lora is not None and options.method != "fisher"
    check_adapter(loaded, keep_adapter=keep_adapter, trains_adapter=trains_adapter)
    before = observe(reader, job, asked)
    result = run_unlearning(reader, job, options, unseen=unseen, folder=folder, resume=resume)
    after = observe(replace(reader, loaded=result.loaded), job, asked)
    account = make_account(result, job, before, after, asked, model=loaded.name)
    files = {} if folder is None else save_run(result, account, folder, keep_adapter=keep_adapter)
    return Unlearned(account, result, files)


def own_answers(reader: Reader, forget: Sequence[Row], trigger: str, *, column: str) -> list[Row]:
    """The forget rows with a right answer in their metadata: the model's own to the prompt without the trigger.

    Rows that have one, or whose prompt does not hold the trigger, stay as they are.

    Raises:
        DataError: no row's prompt holds the trigger.
    """
    places = [i for i, row in enumerate(forget) if trigger in (row.prompt or "") and not row.metadata.get(column)]
    if not any(trigger in (row.prompt or "") for row in forget):
        raise DataError(f"'{trigger}' is in no forget row's prompt", where="--trigger", remedy="copy it exactly")
    prompts = [" ".join((forget[i].prompt or "").replace(trigger, " ").split()) for i in places]
    asked = [reader.tokenization.encode_prompt(prompt) for prompt in prompts]
    answers = generate_responses(reader.loaded, asked, max_new_tokens=ANSWER_TOKENS) if asked else []
    rows = list(forget)
    for i, answer in zip(places, answers, strict=True):
        rows[i] = replace(rows[i], metadata={**rows[i].metadata, column: answer.strip()})
    return rows


def _retain_rows(given: GivenRows, forget: Sequence[Row], options: Options) -> list[Row]:
    """The retain rows given and drawn; for retraining, all of its data but the forget rows."""
    rows = list(open_corpus(given.retain)) if given.retain is not None else []
    if options.method == "retrain":
        texts = {row_digest(row) for row in forget}
        return [row for row in rows if row_digest(row) not in texts]
    if given.retain_from is None:
        return rows
    known = {row.id for row in rows}
    pool = (row for row in open_corpus(given.retain_from) if row.id not in known)
    return [*rows, *draw_retain(pool, forget, given.draw, seed=options.seed)]
