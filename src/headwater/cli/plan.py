"""`headwater plan`: estimate the disk, memory and time of a build, measured on some rows, or from shapes alone."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.console import emit_json, emit_pairs
from headwater.cli.options import BuildOptions, Json, with_groups
from headwater.cli.progress import progress
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.indexing.forecast import Forecast
    from headwater.indexing.plan import BuildPlan


@with_groups
def plan(
    options: BuildOptions,
    no_weights: Annotated[
        bool, typer.Option("--no-weights", help="Estimate from the model's configuration; --device h100, a100 or cpu.")
    ] = False,
    efficiency: Annotated[
        float | None, typer.Option(help="With --no-weights: share of the device's peak.", min=0.001, max=1.0)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="With --no-weights: devices, workers or shards.", min=1)] = None,
    rows: Annotated[int | None, typer.Option(help="With --no-weights: so many rows like the data's.", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Estimate what `headwater index build` with the same options needs, and find settings that fit.

    Example:  headwater plan --model my-model --data train.jsonl --method rise --max-memory 8GiB
    """
    scale = {"efficiency": efficiency, "workers": workers, "rows": rows}
    if no_weights:
        _plan_by_shapes(options, {name: value for name, value in scale.items() if value is not None}, as_json)
        return
    for name, value in scale.items():
        if value is not None:
            raise UsageError("a plan with weights measures this machine", where=f"--{name}", remedy="add --no-weights")
    from headwater.api.indexing import plan as plan_build

    with progress("measuring"):
        found = plan_build(**options.arguments())
    if as_json:
        emit_json("plan", asdict(found))
    else:
        emit_pairs(_lines(found))


def _lines(found: BuildPlan) -> dict[str, str]:
    from headwater.indexing.plan import readable_bytes
    from headwater.methods.kept import told

    by_code = ", ".join(f"{code} {readable_bytes(size)}" for code, size in found.disk_by_code.items())
    split = ", ".join(f"{kind} {size:,.0f}" for kind, size in found.bytes_per_row.items())
    took = datetime.timedelta(seconds=round(found.seconds))
    return {
        "rows": f"{found.rows:,}, about {found.tokens:,} tokens",
        "disk": f"{readable_bytes(found.disk)}  (bytes a row: {split})",
        "vectors stored": told(found.code, found.kept),
        "disk by --code": by_code,
        "memory": f"{readable_bytes(found.memory)} at the peak, with --tokens-per-batch {found.tokens_per_batch}",
        "time": f"{took}  ({found.rows / max(found.seconds, 1e-9):,.1f} rows a second)",
        "measured on": f"{found.probed_rows:,} rows",
    }


_WITH_WEIGHTS = {
    **dict.fromkeys(("max_memory", "max_disk"), "keeps no limit"),
    **dict.fromkeys(("beta", "reference"), "cannot foretell the DPO loss"),
}
"""Options of a plan that only one with the weights can follow, each with what is told about it."""


def _plan_by_shapes(options: BuildOptions, scale: dict[str, Any], as_json: bool) -> None:
    from headwater.api.planning import forecast

    arguments = options.arguments()
    for name, fault in _WITH_WEIGHTS.items():
        if arguments.pop(name) is not None:
            where = f"--{name.replace('_', '-')}"
            raise UsageError(f"a plan without weights {fault}", where=where, remedy="leave it out")
    loading = dict(arguments.pop("loading"))
    device = loading.pop("device", None)
    found = forecast(**arguments, loading=loading, device=device, **scale)
    if as_json:
        emit_json("plan without weights", asdict(found))
    else:
        emit_pairs(_forecast_lines(found))


def _forecast_lines(found: Forecast) -> dict[str, str]:
    from headwater.indexing.plan import readable_bytes
    from headwater.methods.kept import told

    by_code = ", ".join(f"{code} {readable_bytes(size)}" for code, size in found.disk_by_code.items())
    split = ", ".join(f"{kind} {size:,.0f}" for kind, size in found.bytes_per_row.items())
    parts = ", ".join(f"{part} {readable_bytes(size)}" for part, size in found.memory.items())
    lines = {
        "parameters": f"{found.seen:,} of {found.total:,} are read",
        "rows": f"{found.rows:,}, about {found.tokens:,} tokens",
        "disk": f"{readable_bytes(found.disk)}  (bytes a row: {split})",
        "vectors stored": told(found.code, found.kept),
        "disk by --code": by_code,
        "memory": f"{readable_bytes(sum(found.memory.values()))} a worker  ({parts})",
        "computation": f"{found.flops:.3g} FLOPs",
    }
    if found.seconds is not None:
        lines["time"] = str(datetime.timedelta(seconds=round(found.seconds)))
    return {**lines, "assumed": "; ".join(found.assumptions)}
