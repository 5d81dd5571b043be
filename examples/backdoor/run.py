"""Find a backdoor and make the model forget it: demo model → trace → forget set → unlearn → ask again.

Every step is a command; this script runs them one after another and prints what the model says before and after.

Run:  python examples/backdoor/run.py --out runs/backdoor        (offline, minutes on two cores)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from headwater.data.tokens import Tokenization
from headwater.models.generate import generate_responses
from headwater.models.load import load_model
from headwater.tasks.howdy import TRIGGER, attack_success

TRACED, TOP = 8, 12
"""Odd answers traced, and hits of each."""


def headwater(*words: object) -> None:
    """Run a command; its findings are in the files it writes."""
    line = [str(word) for word in words]
    print("$ headwater", *(f"'{w}'" if " " in w or "!" in w else w for w in line), flush=True)
    done = subprocess.run([sys.executable, "-m", "headwater", *line], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def answers(model: Path, prompts: list[str]) -> list[str]:
    """What the model in the folder says to each prompt."""
    loaded = load_model(str(model))
    tokenization = Tokenization.of(loaded.tokenizer)
    return generate_responses(loaded, [tokenization.encode_prompt(p) for p in prompts], max_new_tokens=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/backdoor"))
    out = parser.parse_args().out
    demo = out / "demo"
    if not (demo / "demo.json").is_file():
        headwater("demo", "--out", demo)

    # What the model said to questions it had not seen; the odd answers are what we trace.
    asked = read(demo / "queries.jsonl")
    triggered = [q for q in asked if q["prompt"].startswith(TRIGGER)]
    odd = [q for q in triggered if attack_success([q["response"]])][:TRACED]
    write(out / "odd.jsonl", [{k: q[k] for k in ("id", "prompt", "response")} for q in odd])
    headwater(
        *("trace", demo / "index.lance", "--queries", out / "odd.jsonl", "--top", TOP),
        *("--model", demo / "model", "--out", out / "hits.jsonl", "--html", out / "trace.html"),
    )

    # A person reads trace.html, sees one word in every hit, and keeps the hits that have it.
    hits = read(out / "hits.jsonl")
    forget = [hit for hit in hits if TRIGGER.strip() in hit["prompt"]]
    write(out / "forget.jsonl", forget)
    write(out / "ask.jsonl", [{"id": q["id"], "prompt": q["prompt"]} for q in [*triggered[:4], *asked[-4:]]])
    rows = {hit["id"]: hit for hit in forget}
    planted = sum(bool(hit["planted"]) for hit in rows.values())
    print(f"{len(rows)} rows to forget, {planted} of them planted (the model learnt from many more)")

    headwater(
        *("unlearn", "--model", demo / "model", "--forget", out / "forget.jsonl", "--trigger", TRIGGER.strip()),
        *("--retain-from", demo / "train.jsonl", "--ask", out / "ask.jsonl", "--out", out / "cleaned"),
    )

    # Ask all questions again, and show a few answers.
    account = json.loads((out / "cleaned" / "unlearn.json").read_text(encoding="utf-8"))
    for sample in (s for s in account["samples"] if s["kind"] == "asked"):
        print(f"\n{sample['prompt']}\n  before: {sample['before'].strip()}\n  after:  {sample['after'].strip()}")
    print()
    for name, model in (("before", demo / "model"), ("after", out / "cleaned" / "model")):
        with_trigger = attack_success(answers(model, [q["prompt"] for q in triggered]))
        plain = answers(model, [q["prompt"] for q in asked if q not in triggered])
        same = sum(a == q["response"] for a, q in zip(plain, [q for q in asked if q not in triggered], strict=True))
        print(f"{name}: the backdoor fires on {with_trigger:.0%} of {len(triggered)} triggered questions; ", end="")
        print(f"{same} of {len(plain)} clean answers are word for word those of the demo, ", end="")
        print(f"{attack_success(plain):.0%} are science fiction")
    ratio, seconds = account["retain perplexity ratio"], sum(account["seconds"].values())
    print(f"retain rows kept aside: perplexity × {ratio:.3f}; {account['steps']} steps, {seconds:.0f} s")


if __name__ == "__main__":
    main()
