"""What an unlearning run leaves: a folder `from_pretrained` loads, or an adapter, with its card and its numbers.

DIR/model/  (or DIR/adapter/)   weights, tokenizer and README.md, the model card
DIR/unlearn.json                the account: losses, outcome, times, options
DIR/weights.json                RapidUn's weights, to read, edit and use again
DIR/log.jsonl                   every loss term of every step
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from headwater.core.errors import StoreError, UsageError
from headwater.core.files import write_text
from headwater.models.load import LoadedModel
from headwater.unlearning.account import Account
from headwater.unlearning.options import UnlearnResult
from headwater.unlearning.resume import RUN, WEIGHTS, forget_checkpoints
from headwater.unlearning.trainer import write_log
from headwater.unlearning.weights import save_weights

ACCOUNT, LOG, CARD = "unlearn.json", "log.jsonl", "README.md"


def require_vacant(out: Path, *, resume: bool) -> None:
    """Refuse a folder with something in it, unless it holds an unfinished run to resume.

    Raises:
        StoreError: it is not empty.
    """
    if not out.exists() or not any(out.iterdir()):
        return
    unfinished = (out / RUN).is_file() and not (out / ACCOUNT).is_file()
    if not unfinished:
        raise StoreError("the folder is not empty", where=str(out), remedy="choose another for --out")
    if not resume:
        raise StoreError("an unfinished run is here", where=str(out), remedy="--resume goes on with it")


def check_adapter(loaded: LoadedModel, *, keep_adapter: bool, trains_adapter: bool) -> None:
    """Refuse to keep an adapter there is none of, or whose base model nobody else has.

    Raises:
        UsageError: all weights are changed, or the model was merged with an adapter on loading.
    """
    if not keep_adapter and loaded.loading.get("quantization"):
        raise UsageError("an adapter cannot be merged into quantised weights", remedy="--keep-adapter")
    if not keep_adapter:
        return
    if not trains_adapter:
        raise UsageError("--keep-adapter where no adapter is trained", remedy="leave it out")
    if loaded.loading.get("adapter"):
        raise UsageError(
            "--keep-adapter with --adapter: the new adapter's base would be a merged model that is nowhere saved",
            remedy="leave --keep-adapter out, or save the merged model first",
        )


def save_run(result: UnlearnResult, account: Account, out: Path, *, keep_adapter: bool) -> dict[str, Path]:
    """Write everything into `out` and return the paths by kind; merging changes `result.loaded.model` in place."""
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
        write_log(result.log, out / LOG)
        paths["log"] = out / LOG
    if result.weights is not None:
        paths["weights"] = save_weights(result.weights, out / WEIGHTS)
    whole = {**account.summary, "samples": [asdict(sample) for sample in account.samples]}
    write_text(out / ACCOUNT, json.dumps(whole, ensure_ascii=False, indent=2) + "\n")
    forget_checkpoints(out)
    return paths


OUTCOMES = {
    "forgotten": "the forget rows' loss reached that of unseen rows",
    "guarded": "stopped before utility fell below its bound; the last state within it was kept",
    "diverged": "the loss was no number; the last good state was kept",
    "steps": "all steps were taken; the forget rows' loss did not reach that of unseen rows",
}


def card(account: Account) -> str:
    """The model card: what was done, what it changed, what it does not promise."""
    about = account.summary
    ratio = about["retain perplexity ratio"]
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
        f"| loss of forget rows, nats a token | {_number(about['forget loss before'])} | "
        f"{_number(about['forget loss after'])} |",
        f"| loss of unseen rows, the target | {_number(about['forget loss of unseen rows (target)'])} | |",
        f"| loss of retain rows kept aside | {_number(about['retain loss before'])} | "
        f"{_number(about['retain loss after'])} |",
        f"| their perplexity, as a share of that before | 1 | {_number(ratio)} |",
        "",
        *[f"Warning: {warning}." for warning in about["warnings"]],
        "These losses are of the rows given. Whether the behaviour is gone must be measured by asking the model, under "
        "prompts that were not among these rows too; what was unlearned may be brought back by training.",
        "",
    ]
    return "\n".join(lines)


def _number(value: float | str | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, str) else f"{value:.3f}"
