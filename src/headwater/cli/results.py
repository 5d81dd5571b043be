"""What each command prints with `--json`: the one home of the fields' names, types and meanings.

`headwater.cli.schemas` makes a JSON Schema of each; mypy checks that commands fill in what is written here. A number
that is NaN or infinite is null in JSON. Keys of a `dict` are data: names of metrics, columns, providers.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from headwater.cli.index_results import (
    AddedRows,
    CompactedIndex,
    DeletedRows,
    IndexFacts,
    Number,
    Quantised,
    Retained,
    RowBytes,
    ShardComputed,
    VectorIndex,
    Verified,
)

Meaning = Annotated[str, "What a value means, and its sign."]


class Interval(TypedDict):
    """An estimate with its 95 % interval."""

    value: Annotated[Number, "The estimate."]
    low: Annotated[Number, "The interval's lower end; null without an interval."]
    high: Annotated[Number, "The interval's upper end; null without an interval."]


class Tokens(TypedDict):
    """A number for each token, in reading order; null where a token has none."""

    tokens: list[str]
    values: list[Number]


class Grid(TypedDict):
    """Influence of each of the row's tokens (lines) on each of the query's (columns)."""

    row_tokens: list[str]
    query_tokens: list[str]
    values: list[list[Number]]


class HitFound(TypedDict):
    """A row that was found."""

    rank: Annotated[int, "1 is the first."]
    id: str
    score: Number
    row: Annotated[dict[str, str], "Readable text: prompt and response, or text."]
    metadata: dict[str, Any]
    row_tokens: Annotated[Tokens | None, "Null without --tokens."]
    query_tokens: Annotated[Tokens | None, "Null without --tokens."]
    grid: Grid | None
    record: Annotated[dict[str, Any], "The row as it was given."]
    modules: Annotated[dict[str, float] | None, "Module to its part of the score; null without --by-module."]


class QueryFound(TypedDict):
    """A query and the rows behind it."""

    id: str
    prompt: str | None
    response: str
    losses: Annotated[Tokens | None, "Loss of each token in nats; null without --tokens."]
    hits: list[HitFound]
    generated: Annotated[bool, "Whether the model made the response."]
    turns: Annotated[list[list[str]], "A chat's messages, each as role and text; empty for other queries."]


class GroupFound(TypedDict):
    """What leaving out a whole group of rows does to a query."""

    query: str
    group: str
    rows: int
    effect: Annotated[Number, "How much the query's loss would rise without the group."]
    summed: Annotated[Number, "The same for each row left out alone, added up."]
    interaction: Annotated[Number, "effect − summed."]


class Traced(TypedDict):
    """The rows behind each query."""

    method: str
    about: Annotated[dict[str, str], "Index, model, coverage, sign and order, in words."]
    queries: list[QueryFound]
    groups: Annotated[list[GroupFound], "Empty without --group-by."]
    rarity: Annotated[dict[str, float], "How rare words are in the index; empty without --tokens."]


class ScoresWritten(TypedDict):
    """A file of scores."""

    out: Annotated[str, "The Parquet file."]
    rows: Annotated[int, "Rows of the index, a line each."]
    queries: Annotated[int, "Queries, a column each."]


class Summary(TypedDict):
    """Values of some rows."""

    rows: int
    mean: Number
    low: Annotated[Number, "Lower end of the mean's 95 % interval over rows."]
    high: Number
    least: Number
    median: Number
    most: Number
    helpful: NotRequired[Annotated[Number, "Share of rows above 0; only of values that have a sign."]]


class ValuesMade(Summary):
    """A file of values."""

    out: str
    leaked: Annotated[int, "Candidates with the same text as a target row."]
    meaning: Meaning
    warnings: Annotated[list[str], "Reasons to doubt the values."]
    notes: Annotated[dict[str, Any], "What the method chose or measured, by field name."]
    plots: Annotated[list[str], "Figures that were saved."]
    by: NotRequired[Annotated[str, "The column of --by."]]
    groups: NotRequired[Annotated[dict[str, Summary], "The same for each group of --by."]]


class TargetExported(TypedDict):
    """A query file."""

    out: str
    method: str
    rows: int
    vectors: Annotated[dict[str, list[int]], "Column to the shape of its vectors."]


class Audited(TypedDict):
    """How well values agree with a third party's scores."""

    rows: Annotated[int, "Rows that were scored again."]
    spearman: Number
    inside: Annotated[Number, "Share of new scores inside the values' intervals; null without intervals."]
    largest_id: Annotated[str, "The row with the largest difference."]
    largest_difference: Annotated[Number, "In standard deviations of the new scores."]
    threshold: float
    confirmed: bool
    changeable: Annotated[
        dict[str, float] | None,
        "Provider to the probability that other labels would change its pay by over 10 %; null without --budget.",
    ]


class Selected(TypedDict):
    """A file of chosen rows."""

    out: str
    rows: int
    pool: Annotated[int, "Rows of the pool."]
    mean_chosen: Annotated[Number, "Mean value of the chosen rows."]
    mean_pool: Annotated[Number, "Mean value of the pool."]
    least_chosen: Annotated[Number, "Least value of the chosen rows."]
    ids: Annotated[list[str], "The chosen rows, best first."]


class Priced(TypedDict):
    """A ledger."""

    out: str
    budget: Annotated[str, "The amount that was divided."]
    currency: str
    only_certain: Annotated[bool, "Whether rows that cannot be told from zero are left unpaid."]
    paid: Annotated[dict[str, str], "Provider to its amount."]
    paid_rows: int
    uncertain_rows: Annotated[int | None, "Paid rows whose interval reaches zero; null if there are no intervals."]
    uncertain_amount: Annotated[str | None, "What they are paid; null if there are no intervals."]
    changeable: Annotated[
        dict[str, float] | None,
        "Provider to the probability that other labels would change its pay by over 10 %; null without intervals.",
    ]
    warnings: Annotated[list[str], "Reasons to doubt the values, as `value` found them."]


class Answers(TypedDict):
    """A prompt, and what the model answers before and after."""

    kind: Annotated[str, "Where it comes from: forget, retain or asked."]
    prompt: str
    before: str
    after: str


class Forgotten(TypedDict):
    """A run of unlearning."""

    summary: Annotated[dict[str, Any], "Numbers and settings of the run, by field name."]
    outcome: Annotated[str, "forgotten, or what stopped the run before that."]
    warnings: list[str]
    samples: list[Answers]
    files: Annotated[dict[str, str], "What was written: model, card, account, report."]


class Spent(TypedDict):
    """What a method's scores cost."""

    build_seconds: Number
    row_bytes: int | None
    query_seconds: Number


class MethodNumbers(TypedDict):
    """The numbers of one method."""

    method: str
    metrics: Annotated[dict[str, Interval], "Metric to its estimate."]
    cost: Spent
    group: Annotated[str, "The table within the evaluation; empty if there is one."]


class Evaluated(TypedDict):
    """A finished evaluation, as in its run file."""

    format: Annotated[int, "Version of the run file."]
    task: str
    title: str
    settings: Annotated[dict[str, Any], "Enough to run it again."]
    shown: Annotated[list[str], "The metrics of the tables."]
    lines: list[MethodNumbers]
    notes: list[str]
    about: Annotated[dict[str, Any], "Versions, machine, date, seconds."]
    files: NotRequired[Annotated[dict[str, str], "What was written."]]


class Leaderboard(TypedDict):
    """All evaluations of the leaderboard."""

    results: list[Evaluated]
    document: str
    page: str


class MethodFacts(TypedDict):
    """A method."""

    name: str
    summary: str
    reads: str
    stores: str
    cost: str
    source: str
    capabilities: list[str]
    meaning: Annotated[str, "What a score means."]
    signed: bool
    index: Annotated[bool, "Whether it can fill an index."]
    presets: Annotated[dict[str, dict[str, Any]], "Preset to its options."]


class Catalog(TypedDict):
    """All methods."""

    methods: list[MethodFacts]


class Planned(TypedDict):
    """What a build takes."""

    rows: int
    tokens: Annotated[int, "About how many tokens the model reads."]
    probed_rows: Annotated[int, "Rows that were measured."]
    bytes_per_row: RowBytes
    disk: Annotated[int, "Bytes of the finished index."]
    code: Annotated[str, "How vectors are stored, as --code says it."]
    kept: Annotated[float | None, "Share of the full vectors' quality that the code kept; null: not measured."]
    disk_by_code: Annotated[dict[str, int], "Code to the bytes of the finished index."]
    memory: Annotated[int, "Bytes at the peak, of the whole process."]
    seconds: Annotated[float, "Time to read and store all rows."]
    tokens_per_batch: int


class PlannedByShapes(TypedDict):
    """What a build takes, from shapes alone."""

    seen: Annotated[int, "Parameters that the method reads."]
    total: Annotated[int, "Parameters of the model."]
    rows: int
    tokens: Annotated[int, "About how many tokens the model reads."]
    bytes_per_row: RowBytes
    disk: Annotated[int, "Bytes of the finished index."]
    code: Annotated[str, "How vectors are stored, as --code says it."]
    kept: Annotated[float | None, "Share of the full vectors' quality that the code kept; null: not measured."]
    disk_by_code: Annotated[dict[str, int], "Code to the bytes of the finished index."]
    memory: Annotated[dict[str, int], "Part to its bytes at the peak of one worker."]
    flops: float
    seconds: Annotated[float | None, "Time with all workers; null without a device."]
    assumptions: Annotated[list[str], "What the figures rest on."]


class DemoShown(TypedDict):
    """A finished demo."""

    seed: int
    rows: int
    prevalence: Annotated[float, "Share of planted rows."]
    attack_success: float
    false_alarms: float
    measured: Annotated[dict[str, dict[str, Interval]], "Scores to metric to estimate."]
    seconds: Annotated[dict[str, float], "Seconds of each step."]
    report: str


class Opened(TypedDict):
    """The app, once it can be opened."""

    url: str


class Bundled(TypedDict):
    """The app's pages as static files."""

    start: Annotated[str, "The start page."]
    pages: int


EVALUATIONS = (
    *("detection", "separation", "lds", "forgetting", "removal", "sanity", "selection", "replay"),
    *("lasting", "protocol"),
)

RESULTS: dict[str, Any] = {
    "demo": DemoShown,
    "plan": Planned,
    "plan without weights": PlannedByShapes,
    "methods": Catalog,
    "index build": IndexFacts,
    "index build shard": ShardComputed,
    "index commit": IndexFacts,
    "index info": IndexFacts,
    "index add": AddedRows,
    "index delete": DeletedRows,
    "index compact": CompactedIndex,
    "index verify": Verified,
    "index quantise": Quantised,
    "index retention": Retained,
    "index ann": VectorIndex,
    "trace": Traced,
    "score": ScoresWritten,
    "value": ValuesMade,
    "value export-target": TargetExported,
    "value score": ValuesMade,
    "value audit": Audited,
    "select": Selected,
    "price": Priced,
    "unlearn": Forgotten,
    "view open": Opened,
    "view bundle": Bundled,
    **{f"eval {name}": Evaluated for name in EVALUATIONS},
    "eval leaderboard": Leaderboard,
}
"""Command to the type of what it prints with `--json`."""
