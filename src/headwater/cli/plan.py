"""`headwater plan`: estimate the disk, memory and time of a build, measured on some of the rows."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import TYPE_CHECKING

from headwater.cli.console import emit_json, emit_pairs
from headwater.cli.options import BuildOptions, Json, with_groups
from headwater.cli.progress import progress

if TYPE_CHECKING:
    from headwater.indexing.plan import BuildPlan


@with_groups
def plan(options: BuildOptions, as_json: Json = False) -> None:
    """Estimate what `headwater index build` with the same options needs, and find settings that fit.

    Example:  headwater plan --model my-model --data train.jsonl --method rise --max-memory 8GiB
    """
    from headwater.api.indexing import plan as plan_build

    with progress("measuring"):
        found = plan_build(**options.arguments())
    if as_json:
        emit_json("plan", asdict(found))
    else:
        emit_pairs(_lines(found))


def _lines(found: BuildPlan) -> dict[str, str]:
    from headwater.indexing.plan import readable_bytes

    by_code = ", ".join(f"{code} {readable_bytes(size)}" for code, size in found.disk_by_code.items())
    split = ", ".join(f"{kind} {size:,.0f}" for kind, size in found.bytes_per_row.items())
    took = datetime.timedelta(seconds=round(found.seconds))
    return {
        "rows": f"{found.rows:,}, about {found.tokens:,} tokens",
        "disk": f"{readable_bytes(found.disk)}  (bytes a row: {split})",
        "disk by --code": by_code,
        "memory": f"{readable_bytes(found.memory)} at the peak, with --tokens-per-batch {found.tokens_per_batch}",
        "time": f"{took}  ({found.rows / max(found.seconds, 1e-9):,.1f} rows a second)",
        "measured on": f"{found.probed_rows:,} rows",
    }
