"""Is what is read of every family of causal language models autograd's? A tiny model of each, two rows in one batch.

Run:  python benchmarks/families.py [--out runs/families] [--document docs/families.md] [--only llama gpt2]

Every family that the installed transformers can build as a causal language model is built from its configuration, as
small as it goes, with random weights. RISE, gradients of all parameters and gradients of a LoRA on all linear layers
are read of two padded rows, and compared with one autograd backward pass for each row by itself. Each family runs in a
process of its own with a limit of time; its result is kept in --out, and is not computed again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiny_families import build

SECONDS = 90
"""Longest time a family may take by default."""

LARGEST = 100_000_000
"""Most parameters of a family that counts as built small."""

TOLERANCE, FLOOR = 2e-3, 1e-5
"""Largest difference from autograd: as a share of the tensor's gradient, and of the largest tensor's."""

METHODS = ("rise", "gradients", "lora")


@dataclass(frozen=True)
class Verdict:
    """`exact`, `partly`, `refused` or `wrong`, and what is not seen, why it is refused or what is wrong."""

    status: str
    note: str = ""


# --- the comparison --------------------------------------------------------------------------------------------------


def two_rows(vocab: int) -> Any:
    """A padded batch of a row of 13 tokens and one of 8; the first tokens are prompts."""
    import numpy as np

    from headwater.data.batches import Window, plan_batches
    from headwater.data.rows import Row
    from headwater.data.tokens import TokenRow

    generator = np.random.default_rng(0)
    rows = []
    for i, n in enumerate((13, 8)):
        ids, targets, offsets = generator.integers(5, vocab, n), np.arange(n) > 3, np.zeros((n, 2), np.int64)
        rows.append(TokenRow(Row(f"r{i}", i, text="x"), "x", ids, targets, offsets, 0, str(i)))
    (batch,) = plan_batches(rows, Window(64), tokens_per_batch=1000)
    return batch


def row_gradient(model: Any, row: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Autograd's gradient of the mean loss of one row, alone and unpadded, at these tensors."""
    import torch

    ids = torch.from_numpy(row.ids)[None]
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
    targets = torch.from_numpy(row.response)[1:]
    loss = torch.nn.functional.cross_entropy(logits[targets], ids[0, 1:][targets])
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), found, strict=True)}


def compare_gradients(model: Any, globs: str = "") -> Verdict:
    """Per-row gradients in a padded batch against autograd on each row alone.

    A difference that float64 removes is rounding, which deep recurrences of random weights enlarge.
    """
    verdict = _compared(model, globs)
    if verdict.status != "wrong":
        return verdict
    model.config.get_text_config()._experts_implementation = "eager"  # the grouped product has no float64
    return _compared(model.double(), globs)


def _compared(model: Any, globs: str) -> Verdict:
    import torch

    from headwater.features.capture import visit_gradients
    from headwater.features.parameters import parameter_names, select_parameters
    from headwater.sketch.products import dense

    model.requires_grad_(False)
    batch = two_rows(model.get_input_embeddings().weight.shape[0])
    selection = select_parameters(model, globs)
    read: dict[str, Any] = {}
    visit_gradients(model, selection, batch, lambda g: read.__setitem__(g.name, dense(g)))
    names = parameter_names(model, globs)
    parameters = {n: p.requires_grad_() for n, p in model.named_parameters() if n in names}
    true = [row_gradient(model, row, parameters) for row in batch.rows]
    model.requires_grad_(False)
    largest = max(float(g.norm()) for row in true for g in row.values())
    worst, where = 0.0, ""
    for name in selection.shapes:
        base, _, expert = name.partition("[")
        for i, row in enumerate(true):
            truth = row[base][int(expert[:-1])] if expert else row[base]
            got = read[name][i].reshape(truth.shape) if name in read else torch.zeros_like(truth)
            error = float((got - truth).norm()) / max(float(truth.norm()), FLOOR / TOLERANCE * largest)
            if not error <= worst:
                worst, where = error, name
    if not worst <= TOLERANCE:
        return Verdict("wrong", f"{where} differs from autograd by {worst:.2g} of its norm")
    seen = {name.partition("[")[0] for name in selection.shapes}
    unseen = [name for name in names if name not in seen]
    if not unseen:
        stacks = _grouped(stacks_run_again(selection))
        return Verdict("exact", f"while small: {', '.join(stacks)}" if stacks else "")
    mass = sum(float(row[n].square().sum()) for row in true for n in unseen)
    whole = sum(float(g.square().sum()) for row in true for g in row.values())
    what = f"{', '.join(_grouped(unseen))}: {100 * mass / whole:.2g} % of the squared gradient"
    return Verdict("partly", what)


def stacks_run_again(selection: Any) -> list[str]:
    """Stacks of matrices that are read by running their module again, which is done only while they are small."""
    from headwater.features.replay import Replay

    found = []
    for site in selection.sites:
        for local in site.wanted if isinstance(site.kind, Replay) else ():
            shape = site.module.get_parameter(local).shape
            if len(shape) > 2 and min(shape[-2:]) > 7:
                found.append(site.names[local])
    return found


def _grouped(names: list[str]) -> list[str]:
    """Names without the layers' numbers, once each."""
    return list(dict.fromkeys(".".join("*" if p.isdigit() else p for p in name.split(".")[-3:]) for name in names))


def compare_rise(model: Any) -> Verdict:
    """The readout's gradient r ⊗ h of two padded rows against autograd's by the head's weight, tied or not."""
    import torch

    from headwater.features.readout_sketch import Channels, ReadoutSketch
    from headwater.features.residuals import Support
    from headwater.models.load import wrap_model
    from headwater.models.readout import find_readout

    loaded = wrap_model(model, tokenizer())
    readout = find_readout(loaded)
    batch = two_rows(model.get_input_embeddings().weight.shape[0])
    encoder = ReadoutSketch(
        readout,
        Channels(1.0, 0.0, 0.0, 0, 0, 0),
        Support(),
        {"train": "response", "query": "response"},
        pooling="none",
        normalize_factors=False,
        normalize_sample=False,
    )
    vectors = encoder.encode(batch, "train").vectors["rise"].double()
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    for i, row in enumerate(batch.rows):
        truth = row_gradient(model, row, {"head": head.weight})["head"].double() * int(row.response[1:].sum())
        error = float((vectors[i].view_as(truth) - truth).norm() / truth.norm())
        if not error <= TOLERANCE:
            return Verdict("wrong", f"differs from autograd by {error:.2g} of its norm")
    return Verdict("exact")


def compare_lora(kind: str) -> Verdict:
    """Gradients of a LoRA on all linear layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    model = build(kind)
    head = model.get_output_embeddings()
    layers = [n for n, m in model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not head]
    layers = [name for name in layers if "router" not in name]  # which PEFT cannot wrap: some give several outputs
    if any(name.endswith(".conv1d") for name, _ in model.named_modules()):  # PEFT refuses a mixer's last layer
        layers = [name for name in layers if not name.endswith("out_proj")] or layers
    torch.manual_seed(1)
    adapter = LoraConfig(r=2, target_modules=layers, init_lora_weights=False)
    return compare_gradients(get_peft_model(model, adapter).eval())


def tokenizer() -> Any:
    """The smallest fast tokenizer: rows are made of ids here, so it only has to exist."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<end>": 0, "<pad>": 1, "a": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="a")), eos_token="<end>", pad_token="<pad>"
    )


def measure(kind: str) -> dict[str, Verdict]:
    """The verdict of each method on one family; `built` alone if the family cannot be built small."""
    try:
        size = sum(parameter.numel() for parameter in build(kind).parameters())
    except Exception as error:  # a configuration may refuse in any way
        return {"built": Verdict("refused", _brief(error))}
    if size > LARGEST:
        return {"built": Verdict("refused", f"its configuration stays large: {size:,} parameters")}
    checks: dict[str, Callable[[], Verdict]] = {
        "rise": lambda: compare_rise(build(kind)),
        "gradients": lambda: compare_gradients(build(kind)),
        "lora": lambda: compare_lora(kind),
    }
    found = {}
    for method, check in checks.items():
        try:
            found[method] = check()
        except Exception as error:  # shown in the table
            found[method] = Verdict("refused", _brief(error))
    return found


def _brief(error: BaseException) -> str:
    from headwater.core.errors import HeadwaterError

    what = error.what if isinstance(error, HeadwaterError) else f"{type(error).__name__}: {error}"
    return " ".join(what.split())[:200]


# --- the table -------------------------------------------------------------------------------------------------------


def families() -> list[str]:
    """Every model type that the installed transformers builds as a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def keep(kind: str, kept: Path) -> None:
    """Measure one family and write its result."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed with the process
    found = {method: asdict(verdict) for method, verdict in measure(kind).items()}
    kept.with_suffix(".part").write_text(json.dumps(found) + "\n", encoding="utf-8")
    kept.with_suffix(".part").rename(kept)


def run(kind: str, out: Path, seconds: int = SECONDS) -> dict[str, Any]:
    """One family in a process of its own, or what an earlier run kept of it."""
    kept = out / f"{kind}.json"
    if not kept.exists():
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        process = multiprocessing.get_context(method).Process(target=keep, args=(kind, kept))
        process.start()
        process.join(seconds)
        died = f"more than {seconds} seconds" if process.is_alive() else f"the process died ({process.exitcode})"
        process.kill()
        process.join()
        if not kept.exists():
            kept.write_text(json.dumps({"built": asdict(Verdict("refused", died))}) + "\n", encoding="utf-8")
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def write_table(document: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace what stands between the page's two marks."""
    import transformers

    built = {kind: found for kind, found in results.items() if "built" not in found}
    whole = sum(all(found[m]["status"] == "exact" for m in METHODS) for found in built.values())
    lines = [
        f"transformers {transformers.__version__}: {len(results)} families, {len(built)} of them built small, "
        f"{whole} exact in every column.",
        "",
        "| family | RISE | gradients | LoRA |",
        "|-|-|-|-|",
        *(f"| `{kind}` | {' | '.join(map(_cell, (found[m] for m in METHODS)))} |" for kind, found in built.items()),
        "",
        "Not built small, and so not tried:",
        "",
        *(f"- `{kind}`: {_plain(found['built']['note'])}" for kind, found in results.items() if "built" in found),
    ]
    text = document.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    document.write_text(before + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + after, encoding="utf-8")


BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def _cell(verdict: Mapping[str, str]) -> str:
    note = _plain(verdict["note"])
    return verdict["status"] + (f": {note}" if note else "")


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    for mark in ("|", "<", ">", "*", "_", "[", "]"):
        text = text.replace(mark, f"\\{mark}")
    return text


def main() -> None:
    """Measure the families and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/families"), help="folder of results by family")
    parser.add_argument("--document", type=Path, help="the page whose table is rewritten")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="longest time a family may take")
    parser.add_argument("--only", nargs="+", help="these families alone")
    options = parser.parse_args()
    tokenizer()  # imports what every family needs, once for all of their processes
    build("llama")
    options.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for kind in options.only or families():
        results[kind] = run(kind, options.out, options.seconds)
        print(kind, "  ".join(f"{m}: {v['status']} {v['note']}".strip() for m, v in results[kind].items()), flush=True)
    if options.document:
        write_table(options.document, results)
    if any(verdict["status"] == "wrong" for found in results.values() for verdict in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
