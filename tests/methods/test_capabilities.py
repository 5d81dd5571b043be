"""What the catalog says a method can do, it can do, and what it does not say, it cannot: for every entry and preset."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.core.errors import DataError, UsageError
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.features.encoder import ExactEncoder, GridEncoder
from headwater.indexing.build import build
from headwater.indexing.session import Session
from headwater.methods.bound import Bound
from headwater.methods.catalog import CATALOG, find_method, vector_method
from headwater.methods.method import Method
from headwater.methods.preparing import prepared
from headwater.methods.scoring import prepare
from headwater.methods.targets import Scorer, Target, each, mean_over_parts
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.tasks import howdy_task
from headwater.tracing.trace import ADDITIVE, RELATIVE, TraceOptions, trace_rows
from headwater.training.recorder import Recorder
from headwater.training.tiny import Recipe, train_tiny

RECIPE = Recipe(vocabulary=400, layers=1, width=32, heads=2, epochs=2, tokens_per_batch=512, learning_rate=1e-2)
RECORDS = [{k: row[k] for k in ("id", "prompt", "response")} for row in howdy_task(0, rows=40, queries=2).rows]
FILES = ("checkpoints", "adam", "run")
"""Options that name something in the folder of the recorded run."""

Variant = tuple[str, dict[str, Any]]
VARIANTS: list[Variant] = [
    *((name, {**entry.recorded, "preset": preset}) for name, entry in CATALOG.items() for preset in entry.presets),
    ("rapidin", {"checkpoints": "."}),
    ("rapidin", {"normalize": "row", "tokens": "row"}),
    ("trak", {"checkpoints": "."}),
    ("less", {"checkpoints": "."}),
]
VECTORS = [(name, given) for name, given in VARIANTS if find_method(name, given).vectors]
NO_INDEX = [(name, given) for name, given in VARIANTS if not (v := find_method(name, given).vectors) or not v.of_index]
QUICK = [(name, given) for name, given in NO_INDEX if name != "alinfik" or given["preset"] == "default"]

ROW_BY_ROW = [v for v in QUICK if find_method(*v).vectors or v[0] not in ("linfik", "alinfik")]
"""Methods that score a target's rows one by one; the others take them together."""


def called(variant: Variant) -> str:
    return f"{variant[0]}:{','.join(f'{k}={v}' for k, v in variant[1].items())}"


class Case:
    """A tiny trained model whose training was recorded, a pool and two queries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        recorder = Recorder(folder / "recorded", wanted=lambda step, steps: step in (steps // 2, steps))
        train_tiny(RECORDS, out=folder / "model", seed=0, recipe=RECIPE, recorder=recorder)
        self.reader = Reader.of(load_model(str(folder / "model")))
        self.rows = list(open_corpus(RECORDS))
        self.queries = [self.rows[3], self.rows[8]]

    def method(self, variant: Variant, **changes: Any) -> Method:
        name, given = variant
        files = {k: str(self.folder / "recorded" / given[k]) for k in FILES if given.get(k)}
        return find_method(name, {**given, **files, **changes})

    def bound(self, variant: Variant, **changes: Any) -> Bound:
        method, file = self.method(variant, **changes), self.folder / f"{called(variant)}.fitted".replace("/", "-")
        return Bound.of(prepared(method, self.reader, lambda: self.rows, file), self.reader)

    def scorer(self, variant: Variant) -> Scorer:
        return prepare(self.method(variant), self.reader, each(self.queries), self.rows)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("capabilities"))


def products(bound: Bound, rows: list[Row], queries: list[Row]) -> torch.Tensor:
    weights = {column.name: column.weight for column in bound.encoder.columns}
    left, right = bound.encode(rows, "train").vectors, bound.encode(queries, "query").vectors
    return sum(weight * left[name] @ right[name].mT for name, weight in weights.items() if weight)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-3) -> bool:
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize("name", CATALOG)
def test_an_entry_can_be_resolved_and_said(name):
    entry = CATALOG[name]
    method = entry.typical()
    assert method.spec.name == name == entry.name
    assert (method.vectors is None) != (method.scoring is None)
    assert find_method(name, method.spec.options).spec == method.spec
    assert {f.name for f in fields(entry.presets["default"])} == method.spec.options.keys()
    assert entry.choices.keys() | entry.recorded.keys() | entry.as_vectors.keys() <= method.spec.options.keys()
    assert ("index" in method.capabilities()) == (method.vectors is not None)
    assert ("no model" in method.capabilities()) == (not method.reads_model)
    if method.vectors or entry.as_vectors:
        assert vector_method(name, dict(entry.recorded)).vectors is not None
    else:
        with pytest.raises(UsageError, match="gives no vectors"):
            vector_method(name, dict(entry.recorded))


@pytest.mark.parametrize("variant", VECTORS, ids=called)
def test_exact_scores_are_there_where_they_are_declared_and_nowhere_else(case, variant):
    bound = case.bound(variant)
    assert bound.form.exact == (
        isinstance(bound.encoder, ExactEncoder) and bound.form.metrics is None and works(case, bound)
    )
    if not bound.form.exact:
        with pytest.raises(UsageError, match="no scores but those of its vectors"):
            bound.exact_scores(case.rows[:2], case.queries)
        return
    rows = case.rows[:6]
    whole = case.bound(variant, sketch="identity")
    assert close(products(whole, rows, case.queries), whole.exact_scores(rows, case.queries))
    assert close(bound.exact_scores(rows, case.queries), whole.exact_scores(rows, case.queries))


def works(case: Case, bound: Bound) -> bool:
    """Whether an encoder that has exact scores by name gives any."""
    rows, queries = (bound.batches(bound.tokenize(case.rows[:1], role), role) for role in ("train", "query"))
    try:
        return bound.encoder.exact_scores(rows, queries).shape == (1, 1)
    except UsageError:
        return False


@pytest.mark.parametrize("variant", VECTORS, ids=called)
def test_grids_are_there_where_they_are_declared_and_nowhere_else(case, variant):
    bound = case.bound(variant)
    row, query = case.rows[0], case.queries[0]
    found = bound.token_grid(row, query)
    assert bound.form.grids == (isinstance(bound.encoder, GridEncoder) and bound.form.metrics is None)
    assert (found is not None) == bound.form.grids
    if found is None:
        return
    left, right, grid = found
    assert grid.shape == (len(left.ids), len(right.ids))
    assert (grid[~left.response] == 0).all()
    assert (grid[:, ~right.response] == 0).all()
    assert (grid[left.response][:, right.response] != 0).all()
    assert close(grid.sum(), products(bound, [row], [query])[0, 0]) == bound.form.additive


@pytest.mark.parametrize("variant", VECTORS, ids=called)
def test_token_values_sum_to_the_score_where_they_are_said_to_and_nowhere_else(case, variant, tmp_path):
    """Of both sides, through a real index: metrics and rounding included."""
    bound = case.bound(variant)
    index = build(tmp_path / "i.lance", open_corpus(RECORDS[:12]), bound, code="none")
    trace = trace_rows(Session(index, bound), case.queries, TraceOptions(top=6, tokens=True, grids=0))
    hits = [hit for query in trace.queries for hit in query.hits]
    scores = np.array([hit.score for hit in hits])
    for side in ("row_tokens", "query_tokens"):
        sums = np.array([sum(v for v in getattr(hit, side).values if v is not None) for hit in hits])
        off = np.abs(sums - scores).max() / np.abs(scores).max()
        if bound.form.additive:
            assert off < 5e-3, side
        elif side == "row_tokens":
            assert off > 5e-2, side
    assert trace.about["token values"] == (ADDITIVE if bound.form.additive else RELATIVE)


def test_which_methods_are_additive_is_as_the_pages_say():
    found = {called(variant): find_method(*variant).require_vectors().additive for variant in VECTORS}
    relative = {name for name, additive in found.items() if not additive}
    assert relative == {
        "rapidin:preset=default",
        "rapidin:preset=full",
        "rapidin:preset=small",
        "rapidin:preset=mlp",
        "rapidin:checkpoints=.",
        "less:adam=adam.safetensors,preset=default",
        "less:adam=adam.safetensors,preset=full",
        "less:checkpoints=.",
    }


@pytest.mark.parametrize("variant", QUICK, ids=called)
def test_a_row_is_scored_by_itself_unless_the_method_needs_the_whole_pool(case, variant):
    scorer = case.scorer(variant)
    assert [part.target for part in scorer.parts] == sorted(
        (part.target for part in scorer.parts), key=[q.id for q in case.queries].index
    )
    whole, some = scorer(case.rows), scorer(case.rows[:7])
    assert whole.shape == (len(case.rows), len(scorer.parts))
    assert whole.dtype == np.float32
    whole_pool = case.method(variant).whole_pool
    alone = np.allclose(some, whole[:7], rtol=2e-3, atol=2e-3 * np.abs(whole).max())
    assert alone != whole_pool


@pytest.mark.parametrize("variant", QUICK, ids=called)
def test_only_methods_that_read_no_model_do_without_a_reader(case, variant):
    method = case.method(variant)
    if method.reads_model:
        with pytest.raises(UsageError, match="reads a model and was given none"):
            prepare(method, None, each(case.queries), case.rows)
        return
    found = prepare(method, None, each(case.queries), case.rows)(case.rows)
    np.testing.assert_array_equal(found, case.scorer(variant)(case.rows))


@pytest.mark.parametrize("variant", QUICK, ids=called)
def test_only_methods_that_are_fitted_on_rows_ask_for_some(case, variant):
    method = case.method(variant)
    reader = case.reader if method.reads_model else None
    if method.fit_rows:
        with pytest.raises(DataError, match="fitted on rows of the pool"):
            prepare(method, reader, each(case.queries))
    else:
        assert prepare(method, reader, each(case.queries))(case.rows[:2]).shape == (2, 2)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in NO_INDEX], ids=called)
def test_a_metric_and_weights_are_fitted_on_an_index(case, variant):
    bound = case.bound(variant)
    columns = {column.name for column in bound.encoder.columns}
    if bound.form.metrics is not None:
        assert bound.form.metrics(bound.encoder).keys() == columns
    if bound.form.agreement is not None:
        assert set(bound.form.agreement.columns) < columns
    with pytest.raises(UsageError, match="needs an index"):
        prepare(case.method(variant), case.reader, each(case.queries), case.rows)


@pytest.mark.parametrize("variant", ROW_BY_ROW, ids=called)
def test_a_target_is_the_mean_of_its_rows(case, variant):
    """However the method parts a target."""
    method, reader = case.method(variant), case.reader
    together = prepare(method, reader, [Target("both", tuple(case.queries))], case.rows)
    apart = case.scorer(variant)(case.rows)
    found = mean_over_parts(together(case.rows), together.parts)
    np.testing.assert_allclose(found[:, 0], apart.mean(1), rtol=1e-3, atol=1e-3 * np.abs(apart).max())


def test_scoring_leaves_the_model_as_it_was(case):
    before = copy.deepcopy(case.reader.loaded.model.state_dict())
    for variant in QUICK:
        case.scorer(variant)(case.rows[:3])
    for name, tensor in case.reader.loaded.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
