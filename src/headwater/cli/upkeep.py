"""`headwater index add|delete|compact|verify`: an index grows, shrinks and is checked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.arguments import (
    Columns,
    Data,
    Device,
    DeviceMap,
    IndexPath,
    Json,
    Limit,
    OtherModel,
    Split,
    Streaming,
    pairs,
)
from headwater.cli.console import emit_json, progress, say
from headwater.core.errors import DataError


def add(
    index: IndexPath,
    data: Data,
    columns: Columns = [],
    limit: Limit = None,
    split: Split = "train",
    streaming: Streaming = False,
    model: OtherModel = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    as_json: Json = False,
) -> None:
    """Add rows the index does not have yet; the data may be the old file grown. Run it again after an interruption.

    Example:  headwater index add runs/mine.lance --data more.jsonl
    """
    from headwater.api import care
    from headwater.data.corpus import open_corpus
    from headwater.index.store import open_index

    opened = open_index(index)
    corpus = open_corpus(
        data, mapping=pairs(columns, "--column") or None, limit=limit, split=split, streaming=streaming
    )
    with progress("reading rows", quiet=as_json) as advance:
        done = care.add(
            opened,
            corpus,
            model=model,
            placement={"device": device, "device_map": device_map},
            progress=lambda done, total, tokens: advance(done, total, f"{tokens:,} tokens"),
        )
    if as_json:
        emit_json({"index": index, "added": done.rows, "duplicates": done.duplicates, "rows": opened.count})
    else:
        print(f"{index}: {done.rows:,} rows added, {done.duplicates:,} were there already; {opened.count:,} in all")


def delete(
    index: IndexPath,
    ids: Annotated[list[str], typer.Option("--id", help="Id of a row. Repeats.")] = [],
    ids_file: Annotated[Path | None, typer.Option(help="Text file of ids, one a line.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition: \"provider = 'a'\".")] = None,
    rows: Annotated[Path | None, typer.Option(help="File of rows: those of equal text go, whatever their id.")] = None,
    as_json: Json = False,
) -> None:
    """Take rows out of every search; `headwater index compact` then takes them out of the files.

    Example:  headwater index delete runs/mine.lance --where "provider = 'a'"
    """
    from headwater.api import care
    from headwater.index.store import open_index

    opened = open_index(index)
    given = [*ids, *([] if ids_file is None else _read_ids(ids_file))]
    gone = care.delete(opened, ids=given if given or ids_file else None, where=where, rows=rows)
    if as_json:
        emit_json({"index": index, "deleted": gone, "rows": opened.count})
    else:
        print(f"{index}: {gone:,} rows deleted, {opened.count:,} left; headwater index compact takes them off the disk")


def compact(index: IndexPath, as_json: Json = False) -> None:
    """Rewrite the index without its deleted rows and drop every earlier version, for good.

    Example:  headwater index compact runs/mine.lance
    """
    from headwater.api import care

    done = care.compact(index)
    if as_json:
        emit_json({"index": index, **asdict(done)})
        return
    sizes = "" if done.bytes_before is None else f", {done.bytes_before:,} bytes before, {done.bytes_after:,} now"
    print(f"{index}: {done.rows:,} rows{sizes}")


def verify(
    index: IndexPath,
    model: Annotated[str | None, typer.Option(help="Read some rows again with this model.")] = None,
    recompute: Annotated[
        int | None, typer.Option(help="How many rows to read again (16 with --model), by the index's model.", min=1)
    ] = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    as_json: Json = False,
) -> None:
    """Look for every fault: damage, edits, gaps, vectors of another model. Exit code 1 and a list if there are any.

    Example:  headwater index verify runs/mine.lance --recompute 16
    """
    from headwater.api import care

    placement = {"device": device, "device_map": device_map}
    faults = care.verify(index, model=model, recompute=recompute, placement=placement)
    if as_json:
        emit_json({"index": index, "sound": not faults, "faults": [asdict(fault) for fault in faults]})
    else:
        for fault in faults:
            print(fault)
        say(f"{index}: {len(faults):,} faults" if faults else f"{index}: sound")
    if faults:
        raise typer.Exit(1)


def _read_ids(path: Path) -> list[str]:
    """The ids of a text file, empty lines passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the ids cannot be read: {error}", where=str(path), remedy="one id a line, UTF-8") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError("there is no id in the file", where=str(path), remedy="one id a line")
    return ids
