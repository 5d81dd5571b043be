"""`headwater plan` beside the build it speaks of: disk, peak memory and time, each in a process of its own.

    python benchmarks/plan.py --model runs/demo/model --data runs/demo/train.jsonl [--method rise] [--rows 5000]

With `--random-llama WIDTH` a random Llama of that width is made around the model's tokenizer and used instead. With
`--no-weights` the plan is made from the configuration alone, for a build with `--tokens-per-batch 2048`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/demo/model")
    parser.add_argument("--data", default="runs/demo/train.jsonl")
    parser.add_argument("--method", default="rise")
    parser.add_argument(
        "--rows", type=int, default=5000, help="the data's rows are repeated, a word changed, to so many"
    )
    parser.add_argument("--random-llama", type=int)
    parser.add_argument("--no-weights", action="store_true")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        print(json.dumps(build(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = multiplied(Path(options.data), Path(folder) / "rows.jsonl", options.rows)
        model = options.model if options.random_llama is None else str(random_llama(options, Path(folder) / "model"))
        given = ["--model", model, "--data", str(data), "--method", options.method]
        more = ["--no-weights", "--device", "cpu", "--tokens-per-batch", "2048"] if options.no_weights else []
        planned = run([sys.executable, "-m", "headwater", "plan", *given, *more, "--json"])
        if options.no_weights:
            planned |= {"memory": sum(planned["memory"].values()), "parameters": planned["seen"]}
        given += ["--no-weights"] if options.no_weights else []
        found = run([sys.executable, __file__, *given, "--build", f"{folder}/i.lance"])
    names = ("disk", "memory", "seconds", *(("parameters",) if options.no_weights else ()))
    ratios = {name: round(planned[name] / found[name], 3) for name in names}
    print(json.dumps({"planned": {n: planned[n] for n in names}, "found": found, "planned : found": ratios}, indent=1))


def run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def build(options: argparse.Namespace) -> dict[str, float]:
    import headwater as hw
    from headwater.index.info import disk_bytes
    from headwater.indexing.probe import peak_bytes

    loaded = hw.load_model(options.model)
    began = time.perf_counter()
    how = {"tokens_per_batch": 2048} if options.no_weights else {}
    index = hw.build(options.build, model=loaded, data=options.data, method=options.method, **how)
    seconds = time.perf_counter() - began
    found = {"disk": disk_bytes(str(options.build)) or 0, "memory": peak_bytes(), "seconds": seconds}
    return {**found, "parameters": index.manifest.coverage.seen}


def multiplied(data: Path, out: Path, rows: int) -> Path:
    given = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    with out.open("w", encoding="utf-8") as file:
        for i in range(rows):
            row = given[i % len(given)]
            file.write(json.dumps({**row, "id": f"r{i}", "prompt": f"{row['prompt']} ({i})"}) + "\n")
    return out


def random_llama(options: argparse.Namespace, out: Path) -> Path:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    width = options.random_llama
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=6,
        num_attention_heads=width // 64,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


if __name__ == "__main__":
    main()
