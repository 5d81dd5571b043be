"""Arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import typer

from headwater.core.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
IndexPath = Annotated[str, typer.Argument(help="The index: a folder or object-store URI.")]
Data = Annotated[str, typer.Option(help="JSONL, CSV or Parquet file, saved data set folder, or hub name.")]
ModelName = Annotated[str, typer.Option("--model", help="Local folder or hub name of a causal language model.")]
OtherModel = Annotated[
    str | None, typer.Option("--model", help="Where the index's model is now, if not where the index says.")
]
Adapter = Annotated[str | None, typer.Option("--adapter", help="PEFT adapter to load around the model.")]
Merge = Annotated[bool, typer.Option("--merge", help="Fold the adapter into the weights.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16, float64 or auto (as saved).")]
MaxMemory = Annotated[str | None, typer.Option(help="Most memory the process may take: 8GiB.")]
MaxDisk = Annotated[str | None, typer.Option(help="Most disk the index may take: 100GB.")]
ScanMemory = Annotated[str | None, typer.Option("--max-memory", help="Memory for blocks and scores: 2GiB.")]
Code = Annotated[str | None, typer.Option(help="Store codes: int8, sign (1 KiB a row) or sign:BITS.")]
MethodName = Annotated[str, typer.Option("--method", help="A name from `headwater methods`.")]
Template = Annotated[str | None, typer.Option(help="chat, plain, alpaca, or a format with {prompt}.")]
Limit = Annotated[int | None, typer.Option(help="Only the first rows.")]
Split = Annotated[str, typer.Option(help="Split of a hub data set.")]
Streaming = Annotated[bool, typer.Option("--streaming", help="Stream a hub data set.")]
MaxTokens = Annotated[int, typer.Option(help="Tokens kept of a row.")]
TokensPerBatch = Annotated[int, typer.Option(help="Padded tokens in one forward pass.")]
NoText = Annotated[bool, typer.Option("--no-text", help="Leave the rows' text out of the index.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ... or auto.")]
DeviceMap = Annotated[str | None, typer.Option(help="Spread a large model over devices: auto, balanced, ...")]
Quantization = Annotated[str | None, typer.Option(help="Load the weights in 4bit or 8bit (needs bitsandbytes).")]
Settings = Annotated[list[str], typer.Option("--set", help="A method option, name=value; preset=NAME is one. Repeats.")]
Columns = Annotated[list[str], typer.Option("--column", help="A data column, role=name: prompt=ask. Repeats.")]
By = Annotated[str | None, typer.Option(help="Vector columns to rank by: embedding, rise+embedding.")]


class ModelChoice(TypedDict):
    """How to load a model, apart from its name."""

    adapter: str | None
    merge: bool
    dtype: str
    device: str
    device_map: str | None
    quantization: Any


def pairs(given: list[str], option: str) -> dict[str, str]:
    """`name=value` texts as a dictionary.

    Raises:
        UsageError: one has no `=`.
    """
    parsed = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"'{text}' is not name=value", where=option, remedy=f"for example {option} seed=1")
        parsed[name.strip()] = value.strip()
    return parsed


def parse_bytes(text: str | None, *, where: str) -> int | None:
    """`1.5GiB`, `800M`, `2 GB` or a number of bytes, as bytes; KB, MB, GB and TB are powers of 1000.

    Raises:
        UsageError: it is none of these, or not positive.
    """
    if text is None:
        return None
    number = text.strip().rstrip("BbIiKkMmGgTt ")
    unit = text.strip()[len(number) :].strip().lower().removesuffix("b")
    powers = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
    try:
        base = 1000 if text.strip().lower().endswith("b") and unit in powers and unit else 1024
        size = int(float(number) * base ** powers[unit.removesuffix("i")])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"'{text}' is no number of bytes", where=where, remedy="for example 1.5GiB or 800MB")
    return size
