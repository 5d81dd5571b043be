"""How few bytes a row can take: quality against bytes, for narrower sketches, codes, factors, and two stages.

    python benchmarks/small.py [--out runs/small] [--document small.md] [--figure small.svg] [--only rise rapidin]

Every form of a method is measured on detection with anti-documents (the backdoor, and altered facts), separation and
LDS (two domains), and with `--tasks removal` on removal. What a form keeps is its number over that of the method's full
form, which is the first of its list, of the part above chance, with a 95 % interval over the same queries. Models,
banks and run files in the folder are used again, so an interrupted study continues. `a=>b` are two stages: the codes
choose a tenth of the rows, and full vectors order these.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from headwater.evaluation.result import Line, Result, read_result, write_result
from headwater.evaluation.runs import run_evaluation
from headwater.index.store import open_index
from headwater.report.plots import curves, save
from headwater.search.codes import coded, decode, encode, stored_vectors
from headwater.search.retention import mean_overlap, own_queries
from headwater.sketch.hadamard import rotate, rotate_back


def codes(name: str, *sizes: int, kinds: Sequence[str] = ("sign", "int2", "int4"), also: str = "") -> Iterator[str]:
    """The method with each kind of code in each size, in bytes."""
    for size in sizes:
        yield from (f"{name}:{also}code={kind}:{8 * size}" for kind in kinds)


FORMS: Mapping[str, Sequence[str]] = {
    "rise": (
        *("rise:preset=full", "rise:preset=full,code=int8", "rise:preset=full,code=int4:131072"),
        *codes("rise", 8192, kinds=["int2"], also="preset=full,"),
        *codes("rise", 4096, kinds=["sign", "int2"], also="preset=full,"),
        *codes("rise", 2048, 1024, also="preset=full,"),
        *codes("rise", 512, 256, kinds=["sign"], also="preset=full,"),
        *("rise:width_r=64,width_h=64,width_g=32,code=none", "rise:width_r=32,width_h=32,width_g=16,code=none"),
        *codes("rise", 1024, kinds=["sign", "int2"], also="width_r=64,width_h=64,width_g=32,"),
        *("rise:preset=small,code=none", "rise:preset=small,code=sign:4096"),
        *("rise:preset=full,code=sign=>rise:preset=full", "rise:preset=full,code=sign:2048=>rise:preset=full"),
    ),
    "rapidin": (
        *("rapidin:preset=full", "rapidin:preset=full,code=int8"),
        *codes("rapidin", 8192, 4096, 2048, 1024, 512, kinds=["sign"], also="preset=full,"),
        *codes("rapidin", 2048, kinds=["int2", "int4"], also="preset=full,"),
        *("rapidin:preset=small,code=none", "rapidin:buckets=4096,code=none", "rapidin:buckets=1024,code=none"),
        *("rapidin:sketch=two-sided,code=none", "rapidin:sketch=two-sided,code=factors"),
        *codes("rapidin", 2048, kinds=["sign"], also="sketch=two-sided,"),
        "rapidin:preset=full,code=sign=>rapidin:preset=full",
    ),
    "logra": (
        *("logra:preset=full", "logra:preset=full,code=int8", "logra:preset=full,code=factors"),
        *("logra:preset=full,code=factors:2", "logra:rank=32,code=none", "logra:rank=32,code=factors"),
        *codes("logra", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
        *("logra:preset=full,code=sign", "logra:rank=8,code=none"),
    ),
    "gradcos": (
        "gradcos:preset=full",
        *codes("gradcos", 8192, 4096, 2048, 1024, kinds=["sign"], also="preset=full,"),
        *("gradcos:preset=full,code=int2:16384", "gradcos:buckets=1024,code=none"),
    ),
    "trackstar": (
        *("trackstar:preset=full", "trackstar:preset=full,code=int8", "trackstar:preset=full,code=factors"),
        *codes("trackstar", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
        "trackstar:preset=full,code=sign",
    ),
    "less": (
        "less:preset=full",
        *codes("less", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
        *("less:preset=full,code=sign", "less:dim=65536,code=sign:16384"),
    ),
    "trak": (
        *("trak:preset=full", "trak:preset=full,code=int8"),
        *codes("trak", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
    ),
    "ekfac-cos": (
        *("ekfac-cos:preset=full", "ekfac-cos:preset=full,code=int8", "ekfac-cos", "ekfac-cos:code=sign:65536"),
        *codes("ekfac-cos", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
    ),
    "rise-gram": (
        *("rise-gram:preset=full", "rise-gram:preset=full,code=int8"),
        *codes("rise-gram", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
        *("rise-gram:preset=full,code=sign", "rise-gram:width=26,code=none"),
    ),
    "relatif": (
        *("relatif:preset=full", "relatif:preset=full,code=int8"),
        *codes("relatif", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
    ),
    "graddot": (
        "graddot:preset=full",
        *codes("graddot", 8192, 4096, 2048, 1024, kinds=["sign"], also="preset=full,"),
    ),
    "tracin": ("tracin:preset=full", *codes("tracin", 4096, 2048, 1024, kinds=["sign"], also="preset=full,")),
}
"""Every method's forms, the full one first."""

Shown = tuple[str, str, str, float]
"""A column's heading, its group and metric in the result, and the metric's value by chance."""

TASKS: Mapping[str, tuple[str, Mapping[str, Any], Sequence[Shown]]] = {
    "backdoor": (
        "detection",
        {"pool": "howdy", "rows": 1400, "queries": 40, "epochs": 8, "anti": True},
        (
            ("backdoor AP", "howdy, with anti-documents", "AP", 0.09),
            ("backdoor P@50", "howdy, with anti-documents", "P@50", 0.09),
        ),
    ),
    "facts": (
        "detection",
        {"pool": "entity-swap", "rows": 1400, "queries": 40, "anti": True},
        (("altered words AP", "entity swap, wrong words only, with anti-documents", "AP", 0.01),),
    ),
    "separation": (
        "separation",
        {"rows": 400, "queries": 40, "pool": "two-domains"},
        (("separation AP", "fine-tuned model (recall)", "AP", 0.505),),
    ),
    "lds": ("lds", {"models": 64}, (("LDS", "", "LDS", 0.0),)),
    "removal": ("removal", {"queries": 16, "k": 32, "draws": 8}, (("removal", "", "rise", 0.0),)),
}
"""The evaluation behind each task, its settings, and what is shown."""


@dataclass(frozen=True)
class Cell:
    """A form's number, and the share of the full form's that it keeps, with an interval."""

    value: float
    kept: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.kept:.0f} [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    parser.add_argument("--document", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--only", nargs="+", choices=FORMS, default=list(FORMS))
    usual = [name for name in TASKS if name != "removal"]
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=usual)
    parser.add_argument("--forms", nargs="+", help="these forms of one method, the full one first")
    parser.add_argument("--product", type=Path, help="compare product codes of this plain index with ours, and end")
    given = parser.parse_args()
    if given.product:
        print(beside_product_codes(given.product))
        return
    forms = {given.forms[0]: given.forms} if given.forms else {name: FORMS[name] for name in given.only}
    tables, drawn = [], {}
    for name, some in forms.items():
        rows = study(name, some, given.tasks, given.out)
        tables.append(as_markdown(rows, given.tasks))
        drawn[name] = rows
        print(tables[-1], flush=True)
    if given.document:
        given.document.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    if given.figure:
        draw(drawn, given.figure)


Row = tuple[str, int, list[Cell]]
"""A form, its bytes a row, and its cells."""


def study(name: str, forms: Sequence[str], tasks: Sequence[str], folder: Path) -> list[Row]:
    """All forms of one method."""
    results = {task: measured(task, name, forms, folder) for task in tasks}
    columns = [(task, *column) for task in tasks for column in TASKS[task][2]]
    full = {heading: line_of(results[task], forms[0], group) for task, heading, group, _, _ in columns}
    rows = []
    for form in forms:
        cells = [
            kept(line_of(results[task], form, group), full[heading], metric, chance)
            for task, heading, group, metric, chance in columns
        ]
        cost = line_of(results[tasks[0]], form, columns[0][2]).cost
        rows.append((form, cost.row_bytes or 0, cells))
    return rows


def kept(line: Line, full: Line, metric: str, chance: float) -> Cell:
    """The line's number beside the full form's, query by query."""
    ours, theirs = (np.asarray(one.samples[metric], np.float64).ravel() for one in (line, full))
    value, best = line.metrics[metric].value, full.metrics[metric].value
    if best <= chance:
        return Cell(value, *[float("nan")] * 3)
    half = 1.96 * (ours - theirs).std(ddof=1) / np.sqrt(len(ours)) / (best - chance)
    share = (value - chance) / (best - chance)
    return Cell(value, share, share - half, share + half)


def measured(task: str, name: str, forms: Sequence[str], folder: Path) -> Result:
    """The evaluation of all forms of a method, kept in the folder."""
    evaluation, settings, _ = TASKS[task]
    file = folder / "runs" / f"{task}-{name.replace(':', '-')}.json"
    if file.exists():
        found = read_result(file)
        if tuple(found.settings["methods"]) == tuple(forms):
            return found
    return read_result(write_result(file, run_evaluation(evaluation, {**settings, "methods": tuple(forms)}, folder)))


def line_of(result: Result, form: str, group: str) -> Line:
    """The line of a form in a group."""
    return next(line for line in result.lines if line.method == form and line.group == group)


def as_markdown(rows: Sequence[Row], tasks: Sequence[str]) -> str:
    """The table of one method's forms: the numbers of the full form, then what per cent of them the others keep."""
    head = ["form", "bytes a row", *(column[0] for task in tasks for column in TASKS[task][2])]
    lines = [head, [":--"] + ["--:"] * (len(head) - 1)]
    for number, (form, size, cells) in enumerate(rows):
        shown = [str(cell) if number else f"{cell.value:.3f}" for cell in cells]
        lines.append([f"`{form}`", f"{size:,}", *shown])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(studies: Mapping[str, Sequence[Row]], file: Path) -> None:
    """The least share kept over the tasks, by bytes: for each method, of the best form of so many bytes or fewer."""
    sizes = sorted({size for rows in studies.values() for form, size, _ in rows if "=>" not in form})
    series = {}
    for name, rows in studies.items():
        best = [
            max((min(c.kept for c in cells) for f, s, cells in rows if s <= size and "=>" not in f), default=np.nan)
            for size in sizes
        ]
        series[name] = [min(value, 1.0) for value in best]
    figure = curves(sizes, series, axes_names=("bytes a row", "share kept on the worst task"))
    figure.axes[0].set_xscale("log", base=2)
    ticks = {256: "256", 1024: "1 KiB", 4096: "4 KiB", 16384: "16 KiB", 65536: "64 KiB"}
    figure.axes[0].set_xticks(list(ticks), list(ticks.values()))
    save(figure, file, description="Quality kept by bytes a row, one line a method")


def beside_product_codes(path: Path, size: int = 1024) -> str:
    """Codes of `size` bytes on an index's own rows: how many of the exact top 10 they find, and Spearman over all rows.

    Product codes have 256 centroids for each of `size` parts of the rotated vector, trained on the rows themselves.
    """
    index = open_index(str(path))
    (name, probes), *_ = own_queries(index).probes.items()
    column = next(one for one in index.manifest.columns if one.name == name)
    vectors = torch.cat([stored_vectors(batch, column) for batch in index.batches([name])])
    exact = probes @ vectors.T
    lines = ["| code | top 10 found | Spearman |", "| :-- | --: | --: |"]
    decoded = {"product": lambda: product_decoded(vectors, size)}
    for kind in ("sign", "int2", "int4"):
        (code,) = coded([column], f"{kind}:{8 * size}")
        decoded[kind] = lambda code=code: decode(encode(vectors, code), code)
    for kind, made in decoded.items():
        scores = probes @ made().T
        best = [one.topk(10, dim=1).indices.tolist() for one in (exact, scores)]
        ranks = [torch.from_numpy(rankdata(one.numpy(), axis=1)) for one in (exact, scores)]
        same = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*ranks, strict=True)]).mean()
        lines.append(f"| {kind} | {mean_overlap(*best):.3f} | {same:.3f} |")
    return "\n".join(lines)


def product_decoded(vectors: torch.Tensor, parts: int, turns: int = 8) -> torch.Tensor:
    """The vectors after coding by parts of a random rotation, each by the nearest of 256 centroids (k-means)."""
    rotated = rotate(vectors, 0, "product")
    split = rotated.view(len(rotated), parts, -1).transpose(0, 1)
    found = torch.empty_like(split)
    for part, values in enumerate(split):
        centroids = values[torch.linspace(0, len(values) - 1, 256).long()].clone()
        for _ in range(turns):
            nearest = torch.cdist(values, centroids).argmin(dim=1)
            sums = torch.zeros_like(centroids).index_add_(0, nearest, values)
            counts = torch.bincount(nearest, minlength=256)[:, None]
            centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
        found[part] = centroids[torch.cdist(values, centroids).argmin(dim=1)]
    return rotate_back(found.transpose(0, 1).reshape(len(rotated), -1), vectors.shape[1], 0, "product")


if __name__ == "__main__":
    main()
