"""The files that an unlearning run writes: the new model or an adapter, its model card, and the numbers.

DIR/model/  (or DIR/adapter/)   weights, tokenizer and README.md, the model card
DIR/unlearn.json                the account: losses, outcome, times, options
DIR/weights.csv                 RapidUn's weights, to read, edit and use again
DIR/log.jsonl                   every loss term of every step
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from headwater.core.errors import StoreError, UsageError
from headwater.core.files import write_text
from headwater.models.load import LoadedModel
from headwater.unlearning.account import Account
from headwater.unlearning.options import UnlearnResult
from headwater.unlearning.resume import CHECKPOINTS, RUN, WEIGHTS
from headwater.unlearning.weights_file import save_weights

ACCOUNT, LOG, CARD = "unlearn.json", "log.jsonl", "README.md"


def require_vacant(out: Path, *, resume: bool) -> None:
    """Raise `StoreError` if the folder is not empty, unless it holds an unfinished run and `resume` is set."""
    if not out.exists() or not any(out.iterdir()):
        return
    ours = {path.name for path in out.iterdir()} <= {WEIGHTS, CHECKPOINTS}  # interrupted before the run was noted
    unfinished = ours or ((out / RUN).is_file() and not (out / ACCOUNT).is_file())
    if not unfinished:
        raise StoreError("the folder is not empty", where=str(out), remedy="choose another for --out")
    if not resume:
        raise StoreError("an unfinished run is here", where=str(out), remedy="--resume continues it")


def check_adapter(loaded: LoadedModel, *, keep_adapter: bool, trains_adapter: bool) -> None:
    """Check that the result can be saved as asked: merged, or (`keep_adapter`) as an adapter to a model others have.

    Raises:
        UsageError: merging into quantised weights; or keeping an adapter when none is trained, or when its base would
            be a model that was merged with another adapter on loading.
    """
    if not keep_adapter:
        if loaded.loading.get("quantization"):
            raise UsageError("an adapter cannot be merged into quantised weights", remedy="--keep-adapter")
        return
    if not trains_adapter:
        raise UsageError("--keep-adapter, but no adapter is trained", remedy="leave it out")
    if loaded.loading.get("adapter"):
        raise UsageError(
            "--keep-adapter with --adapter: the new adapter's base would be a merged model that is not saved anywhere",
            remedy="leave --keep-adapter out, or save the merged model first",
        )


def save_run(result: UnlearnResult, account: Account, out: Path, *, keep_adapter: bool) -> dict[str, Path]:
    """Write all files into `out` and return their paths by kind; merging changes `result.loaded.model` in place."""
    out.mkdir(parents=True, exist_ok=True)
    model, adapted = result.loaded.model, hasattr(result.loaded.model, "peft_config")
    if adapted and not keep_adapter:
        model = model.merge_and_unload()
    target = out / ("adapter" if adapted and keep_adapter else "model")
    model.save_pretrained(target)
    result.loaded.tokenizer.save_pretrained(target)
    write_text(target / CARD, card(account))
    paths = {"model": target, "account": out / ACCOUNT}
    if result.log:
        paths["log"] = write_text(out / LOG, "".join(json.dumps(entry) + "\n" for entry in result.log))
    if result.weights is not None:
        paths["weights"] = save_weights(result.weights, out / WEIGHTS)
    whole = {**account.summary, "samples": [asdict(sample) for sample in account.samples]}
    write_text(out / ACCOUNT, json.dumps(whole, ensure_ascii=False, indent=2) + "\n")
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return paths


OUTCOMES = {
    "forgotten": "rows withheld from training show that the behaviour is gone",
    "rows": "the rows given are forgotten; they share no kind of answer, so each was forgotten by itself",
    "bound": "the target was not reached within the bound on the guard rows' loss; the best state within it was kept",
    "diverged": "the loss was not a number; the best state before that was kept",
    "steps": "all steps were taken, and the target was not reached; the best state within the bound was kept",
    "gibberish": "too few answers are still language, so the run has failed although it may look forgotten",
}
DONE = frozenset({"forgotten", "rows"})
"""The outcomes in which what was asked for is done."""


def card(account: Account) -> str:
    """The model card: what was done, what changed, and what the run does not promise."""
    about = account.summary

    def line(label: str, *values: float | str | None) -> str:
        return f"| {label} | " + " | ".join(map(_number, values)) + " |"

    lines = [
        "---",
        "library_name: transformers",
        "tags: [unlearning, headwater]",
        "---",
        "",
        f"# {Path(about['model']).name or 'model'}, after unlearning with {about['method']}",
        "",
        f"Made from `{about['model']}` by headwater: {about['forget rows']} rows were unlearned, "
        f"{about['retain rows']} retained, {about['guard rows']} more kept aside to measure utility.",
        "",
        f"Outcome: **{about['outcome']}** ({OUTCOMES[about['outcome']]}), after {about['steps']} steps.",
        "",
        "| | before | after |",
        "| :-- | --: | --: |",
        line("loss of forget rows, nats a token", about["forget loss before"], about["forget loss after"]),
        line("loss of unseen rows, the target", about["forget loss of unseen rows (target)"], ""),
        line("loss of retain rows kept aside", about["retain loss before"], about["retain loss after"]),
        line("their perplexity, as a share of that before", "1", about["retain perplexity ratio"]),
        "",
        *[f"Warning: {warning}." for warning in about["warnings"]],
        "These are losses of the rows given. To see whether the behaviour is gone, ask the model, also with prompts "
        "that were not among these rows. Later training may bring back what was unlearned.",
        "",
    ]
    return "\n".join(lines)


def _number(value: float | str | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, str) else f"{value:.3f}"
