"""Does everything run on a GPU, are its numbers the CPU's, and what do they cost beside the passes they are made of?

    python benchmarks/device.py [--device cuda] [--sections agreement speed ...] [--minutes 9] [--out DIR]

One script of at most ten minutes on one GPU. It installs and fetches nothing: models are random, made from shapes, and
rows are made here. A section that fails is reported with its error, and the others go on; a section that would begin
after `--minutes` is left out and named. With `--device cpu --small` the whole script runs on a laptop, as a test of
itself. It writes `device.json` and `device.md` into `--out`.

  agreement  a tiny Llama, trained on the spot; every method of the catalog scores the same rows on the CPU and on the
             device, in float32 without TF32. Says the largest difference relative to the largest score, how many of the
             CPU's ten best rows are among the device's ten best, and whether the device gives the same bits twice.
  speed      RISE beside a bare forward pass with logits, RapidIn and LoGra beside a forward and backward pass with the
             weights' gradients, on models of 135M, 1B (Pythia) and 8B (Llama 3.1) parameters in bfloat16. Every token
             is a target. Medians over repeats; ratios are of medians.
  adapter    gradients of a rank-16 LoRA on the queries' and values' projections of the 8B shape, beside a training step
             of the same adapter without its optimizer.
  search     the product of a million stored rows with 100 queries and the running best 20, for float16 rows of 512
             numbers and sign codes of 1 KiB, from host memory (as a scan of an index does) and resident on the device.
  codes      every kind of code: whether rows coded on the device have the bytes they have on the CPU, and whether the
             same codes, multiplied with the same queries, have the same best 50 and the same scores on both.
  pipeline   whole builds on the 135M shape in bfloat16, from rows of text to an index on disk, and queries: tokens a
             second, milliseconds a query, and the share of rows that find themselves first. Rows are random words, as
             long as chats are.
  profile    which operations take the device's time in RISE, RapidIn and LoGra on the 135M shape; only if named.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

import headwater as hw
from headwater.core.spec import Column
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.methods.bound import Bound
from headwater.methods.catalog import CATALOG, find_method
from headwater.methods.preparing import prepared
from headwater.methods.scoring import attribute
from headwater.methods.targets import each
from headwater.models.load import LoadedModel, load_model, wrap_model
from headwater.models.reader import Reader
from headwater.search.codes import coded, encode
from headwater.search.products import product
from headwater.tasks import howdy_task
from headwater.training.recorder import Recorder
from headwater.training.tiny import Recipe, task_rows, train_tiny, train_tokenizer

TOLERANCE = 2e-3
"""Largest difference from the CPU's score, relative to the largest score, that counts as the same in float32."""

SHAPES: dict[str, Callable[[], Any]] = {
    "tiny": lambda: _llama(512, 64, 192, 2, num_attention_heads=4, num_key_value_heads=2),
    "135M": lambda: _llama(
        49152, 576, 1536, 30, num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True
    ),
    "1B": lambda: GPTNeoXConfig(
        vocab_size=50304, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=8
    ),
    "8B": lambda: _llama(128256, 4096, 14336, 32, num_attention_heads=32, num_key_value_heads=8),
}


def _llama(vocabulary: int, width: int, inner: int, layers: int, **more: Any) -> Any:
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    return LlamaConfig(**sizes, **more)


# ------------------------------------------------------------------------------------------------ agreement


def agreement(device: torch.device, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Every method on the CPU and on the device."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    task = howdy_task(0, rows=120 if given.small else 400)
    with tempfile.TemporaryDirectory() as folder:
        place, run = Path(folder) / "model", Path(folder) / "run"
        recipe = Recipe(vocabulary=512, layers=2, width=96, heads=4, epochs=2)
        train_tiny(task.rows, out=place, seed=0, recipe=recipe, recorder=Recorder(run, every=20))
        rows, queries = task_rows(task.rows)[:64], task_rows(task.rows)[-8:]
        readers = [Reader.of(load_model(str(place), device=str(d))) for d in ("cpu", device)]
        return [_agree(name, run, readers, rows, queries) for name in given.methods]


def _agree(name: str, run: Path, readers: list[Reader], rows: list[Row], queries: list[Row]) -> dict[str, Any]:
    """The scores of one method by both readers; a method that needs an index is compared by its vectors' products."""
    try:
        entry = CATALOG[name]
        settings = {option: str(run / file) for option, file in entry.recorded.items()}
        if name == "alinfik":
            settings["labels"] = "32"
        method = find_method(name, settings)
        method = prepared(method, readers[0], lambda: rows, run / f"{name}.fitted")  # one file, as beside an index
        plain = method.vectors is None or (method.vectors.metrics is None and method.vectors.of_index is None)
        score = attribute if plain else _products
        mine, theirs = (np.asarray(score(method, reader, rows, each(queries)).values) for reader in readers)
        again = np.asarray(score(method, readers[1], rows, each(queries)).values)
    except Exception as error:  # a method that fails is a finding, and the others go on
        return {"method": name, "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()[-1500:]}
    apart = float(np.abs(mine - theirs).max() / max(float(np.abs(mine).max()), 1e-30))
    best = [set(np.argsort(-of, kind="stable")[:10]) for of in (*mine.T, *theirs.T)]
    common = statistics.mean(len(a & b) / 10 for a, b in zip(best[: len(queries)], best[len(queries) :], strict=True))
    return {
        "method": name,
        "relative_difference": apart,
        "same": apart <= TOLERANCE,
        "top10_in_common": common,
        "bit_equal_twice": bool((theirs == again).all()),
    }


def _products(method: Any, reader: Reader, rows: list[Row], targets: Any) -> Any:
    """Inner products of the method's vectors, without its metric."""
    bound = Bound.of(method, reader)
    device = reader.loaded.device
    left = bound.encode(rows, "train", device=device).vectors
    right = bound.encode([row for target in targets for row in target.rows], "query", device=device).vectors
    values = sum(left[name] @ right[name].mT for name in left)
    return argparse.Namespace(values=torch.as_tensor(values).cpu().numpy())


# ---------------------------------------------------------------------------------------------------- speed


def made(shape: str, device: torch.device) -> LoadedModel:
    """A random model of the shape, in bfloat16 on the device."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(SHAPES[shape](), dtype=torch.bfloat16)
    finally:
        torch.set_default_dtype(torch.float32)
    model.eval().requires_grad_(False)
    return LoadedModel(shape, model, None, None, device, {})


def batch_of(rows: int, tokens: int, vocabulary: int, device: torch.device) -> TokenBatch:
    """Rows of random tokens, each of which is a target."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(rows):
        ids = generator.integers(0, vocabulary, tokens)
        nowhere = np.zeros((tokens, 2), np.int64)
        found.append(TokenRow(Row(f"r{number}", number, text="x"), "x", ids, np.arange(tokens) >= 1, nowhere, 0, ""))
    (batch,) = plan_batches(found, Window(tokens), tokens_per_batch=rows * tokens)
    return batch.to(device)


def speed(device: torch.device, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Costs beside the passes the methods are made of."""
    plan = [("tiny", 4, 64)] if given.small else [("135M", 64, 256), ("1B", 32, 256), ("8B", 16, 256)]
    return [found for shape, rows, tokens in plan for found in _speed_of(shape, rows, tokens, device)]


def _speed_of(shape: str, rows: int, tokens: int, device: torch.device) -> list[dict[str, Any]]:
    loaded = made(shape, device)
    batch = batch_of(rows, tokens, loaded.model.config.vocab_size, device)
    arms: dict[str, Callable[[], object]] = {
        "forward": lambda: bare(loaded.model, batch),
        "rise": Encoding(loaded, batch, "rise", {}),
        "rise small": Encoding(loaded, batch, "rise", {"preset": "small"}),
    }
    if shape != "8B":
        arms["forward+backward"] = lambda: step(loaded.model, batch)
        arms["rapidin"] = Encoding(loaded, batch, "rapidin", {})
        arms["logra"] = Encoding(loaded, batch, "logra", {})
    return measured(shape, rows * tokens, arms, {"rise": "forward", "rise small": "forward"}, "forward+backward")


def adapter(device: torch.device, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Gradients of a LoRA adapter on the largest shape."""
    from peft import LoraConfig, get_peft_model

    shape, rows, tokens = ("tiny", 4, 64) if given.small else ("8B", 16, 256)
    loaded = made(shape, device)
    chosen = LoraConfig(r=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights="gaussian")
    model = get_peft_model(loaded.model, chosen).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # PEFT begins with zeros, through which no gradient of A passes
            torch.nn.init.normal_(parameter, std=0.01)
    batch = batch_of(rows, tokens, model.config.vocab_size, device)
    trainable = [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False)
    tuned = LoadedModel(shape, model, None, "adapter", device, {})
    arms = {
        "LoRA step": lambda: step(model, batch, trainable),
        "rapidin": Encoding(tuned, batch, "rapidin", {}),
        "graddot": Encoding(tuned, batch, "graddot", {}),
    }
    return measured(f"{shape} LoRA", rows * tokens, arms, {}, "LoRA step")


class Encoding:
    """Vectors of one batch by a method, which is bound at the first call."""

    def __init__(self, loaded: LoadedModel, batch: TokenBatch, name: str, settings: Mapping[str, str]) -> None:
        self.loaded, self.batch, self.method = loaded, batch, find_method(name, settings)
        self.encoder: Any = None

    def __call__(self) -> object:
        if self.encoder is None:
            self.encoder = self.method.require_vectors().bind(self.loaded)
        return self.encoder.encode(self.batch, "train")


@torch.no_grad()
def bare(model: Any, batch: TokenBatch) -> None:
    """A forward pass with logits."""
    _ = model(batch.input_ids, attention_mask=batch.attention, use_cache=False).logits


def step(model: Any, batch: TokenBatch, parameters: list[Any] | None = None) -> None:
    """Forward and backward pass; the gradients are dropped."""
    chosen = parameters if parameters is not None else list(model.parameters())
    for parameter in chosen:
        parameter.requires_grad_(True)
    loss = model(batch.input_ids, labels=batch.input_ids, use_cache=False).loss
    loss.backward()
    for parameter in chosen:
        parameter.grad = None
        parameter.requires_grad_(False)


def measured(
    shape: str, tokens: int, arms: Mapping[str, Callable[[], object]], against: Mapping[str, str], default: str
) -> list[dict[str, Any]]:
    """Median seconds, tokens a second, the ratio to the arm each is measured against, and peak memory."""
    found: dict[str, dict[str, Any]] = {}
    for name, run in arms.items():
        try:
            found[name] = {"model": shape, "arm": name, **_timed(run)}
            if isinstance(run, Encoding):
                found[name]["reads"] = str(run.encoder.coverage)
        except Exception as error:  # out of memory, most likely: the other arms go on
            found[name] = {"model": shape, "arm": name, "error": f"{type(error).__name__}: {error}"}
            _forget()
    for name, figures in found.items():
        base = found.get(against.get(name, default), {})
        if "seconds" in figures:
            figures["tokens_per_second"] = round(tokens / figures["seconds"])
        if "seconds" in figures and "seconds" in base:
            figures["ratio"] = figures["seconds"] / base["seconds"]
            figures["ratio_to"] = base["arm"]
    return list(found.values())


def _timed(run: Callable[[], object], repeats: int = 7) -> dict[str, Any]:
    for _ in range(2):
        run()
    _forget()
    before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    times = []
    for _ in range(repeats):
        _wait()
        started = time.perf_counter()
        run()
        _wait()
        times.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    spread = [min(times), max(times)]
    return {"seconds": statistics.median(times), "range": spread, "peak_gib": peak / 2**30, "held_gib": before / 2**30}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _forget() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# --------------------------------------------------------------------------------------------------- search


def search(device: torch.device, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Products and the running best rows, block by block."""
    rows, queries, top = (20_000 if given.small else 1_000_000), 100, 20
    generator = torch.Generator().manual_seed(0)
    found = []
    for name, column, stored in (
        ("float16, 512 numbers", Column("v", 512), torch.randn(8192, 512, generator=generator).half()),
        ("sign codes, 1 KiB", _coded(), torch.randint(0, 256, (8192, 1024), generator=generator, dtype=torch.uint8)),
    ):
        probes = torch.randn(queries, column.dim, generator=generator).to(device)
        for where, block in (("host", stored), ("device", stored.to(device))):
            multiply = product(probes, column)

            def scan(multiply: Any = multiply, block: torch.Tensor = block) -> torch.Tensor:
                best = torch.full((queries, top), -math.inf, device=device)
                for _ in range(math.ceil(rows / len(block))):
                    best = torch.cat([best, multiply(block)], dim=1).topk(top, dim=1).values
                return best

            figures = {"rows": name, "from": where, "queries": queries, **_timed(scan, repeats=3)}
            found.append({**figures, "million_rows_seconds": figures["seconds"] * 1e6 / rows})
    return found


def _coded() -> Column:
    return Column("v", 8192, dtype="sign", bits=8192)


# ---------------------------------------------------------------------------------------------------- codes


def codes(device: torch.device, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The same codes and the same ranks on both devices."""
    generator = torch.Generator().manual_seed(0)
    rows, queries = torch.randn(2_000 if given.small else 50_000, 1536, generator=generator), 100
    probes = torch.randn(queries, 1536, generator=generator)
    found = []
    for code in ("int8", "sign:8192", "sign:2048", "int2:8192", "int4:8192"):
        (column,) = coded((Column("v", 1536, "float32"),), code)
        stored, theirs = encode(rows, column), encode(rows.to(device), column)
        scores = [product(probes.to(d), column)(torch.from_numpy(stored["v"])).cpu() for d in ("cpu", device)]
        scales = torch.from_numpy(np.array(stored[str(column.scale)]))
        ranks = [(some * scales).topk(50, dim=1) for some in scores]
        shared = [len(set(a.tolist()) & set(b.tolist())) / 50 for a, b in zip(*(r.indices for r in ranks), strict=True)]
        figures = {
            "code": code,
            "bytes_alike": float((stored["v"] == theirs["v"]).mean()),
            "scores_equal": bool((scores[0] == scores[1]).all()),
            "same_order": bool((ranks[0].indices == ranks[1].indices).all()),
            "top50_in_common": statistics.mean(shared),
        }
        found.append(figures)
    return found


# ------------------------------------------------------------------------------------------------- pipeline


def pipeline(device: torch.device, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Builds from text and queries, timed whole."""
    count = 60 if given.small else 3000
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefghijklmnoprstuvw"), draw.integers(2, 9))) for _ in range(5000)]
    lengths = np.clip(draw.lognormal(4.6, 0.7, count), 8, 400).astype(int)
    texts = [" ".join(words[i] for i in draw.zipf(1.3, length) % len(words)) for length in lengths]
    rows = [{"id": f"r{i}", "prompt": t[: len(t) // 3], "response": t[len(t) // 3 :]} for i, t in enumerate(texts)]
    loaded = made("tiny" if given.small else "135M", device)
    loaded = wrap_model(loaded.model, train_tokenizer(texts[:2000], 300 if given.small else 8000))
    found = []
    for name in ("rise", "logra", "rapidin"):
        with tempfile.TemporaryDirectory() as folder:
            tokens, started = [0], time.perf_counter()
            counted: Any = lambda done, total, read, tokens=tokens: tokens.append(read)  # noqa: E731
            index = hw.build(f"{folder}/x.lance", model=loaded, data=rows, method=name, on_progress=counted)
            built = time.perf_counter() - started
            started = time.perf_counter()
            first = hw.trace(index, rows[:32], model=loaded, top=20)
            asked = time.perf_counter() - started
            right = statistics.mean(query.hits[0].id == f"r{i}" for i, query in enumerate(first.queries))
        figures = {"method": name, "rows": count, "tokens": max(tokens), "build_s": built, "found_itself": right}
        found.append({**figures, "tokens_per_second": round(max(tokens) / built), "ms_a_query": 1000 * asked / 32})
    return found


# -------------------------------------------------------------------------------------------------- profile


def profile(device: torch.device, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The operations that take most of the device's time."""
    shape, rows, tokens = ("tiny", 4, 64) if given.small else ("135M", 64, 256)
    loaded = made(shape, device)
    batch = batch_of(rows, tokens, loaded.model.config.vocab_size, device)
    kind = "cuda" if device.type == "cuda" else "cpu"
    found = []
    for name in ("rise", "rapidin", "logra"):
        run = Encoding(loaded, batch, name, {})
        run()
        with torch.profiler.profile() as recorded:
            run()
            _wait()
        events = [e for e in recorded.key_averages() if getattr(e, f"self_{_TIME[kind]}") > 0]
        events.sort(key=lambda e: -getattr(e, f"self_{_TIME[kind]}"))
        for event in events[:14]:
            millis = getattr(event, f"self_{_TIME[kind]}") / 1000
            found.append({"method": name, "operation": event.key[:70], "calls": event.count, "ms": millis})
    return found


_TIME = {"cuda": "device_time_total", "cpu": "cpu_time_total"}


# --------------------------------------------------------------------------------------------------- report


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, with the columns that any row has."""
    hidden = {"trace", "range", "held_gib"}
    names = list(dict.fromkeys(name for row in rows for name in row if name not in hidden))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [f"{row[name]:.4g}" if isinstance(row.get(name), float) else str(row.get(name, "")) for name in names]
        lines.append("| " + " | ".join(cell.replace("\n", " ")[:120] for cell in cells) + " |")
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[torch.device, argparse.Namespace], list[dict[str, Any]]]] = {
    "agreement": agreement,
    "speed": speed,
    "adapter": adapter,
    "search": search,
    "codes": codes,
    "pipeline": pipeline,
    "profile": profile,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS)[:-1], choices=list(SECTIONS))
    parser.add_argument("--methods", nargs="+", default=list(CATALOG), help="of the section agreement")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--small", action="store_true", help="tiny models and few rows: a test of this script")
    parser.add_argument("--out", type=Path, default=Path("."))
    options = parser.parse_args()
    device, begun = torch.device(options.device), time.perf_counter()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    found: dict[str, Any] = {"card": card, "torch": torch.__version__, "python": platform.python_version()}
    texts = [f"{card}, PyTorch {torch.__version__}"]
    for name in options.sections:
        started = time.perf_counter()
        if started - begun > 60 * options.minutes:
            found[name] = "left out: no time"
            continue
        try:
            found[name] = SECTIONS[name](device, options)
            texts += [f"\n## {name}\n", table(found[name])]
        except Exception:  # reported; the other sections go on
            found[name] = traceback.format_exc()
            texts += [f"\n## {name}\n", "```", found[name], "```"]
        texts.append(f"\n{time.perf_counter() - started:.0f} s")
        _forget()
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "device.json").write_text(json.dumps(found, indent=1))
        (options.out / "device.md").write_text("\n".join(texts) + "\n")
    print("\n".join(texts))


if __name__ == "__main__":
    main()
