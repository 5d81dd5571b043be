"""Batches hold every window once, count every target once, keep to the budget, and shift as the model does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spot_tokenizers import byte_level
from transformers import LlamaConfig, LlamaForCausalLM

from headwater.core.errors import DataError, UsageError
from headwater.data.batches import CONTEXT, HALF, TokenBatch, Window, plan_batches
from headwater.data.readings import RowReading
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization, TokenRow
from oracles.window_oracle import counted_targets

QUICK = settings(max_examples=40, deadline=None)


def token_row(ordinal: int, targets: list[bool]) -> TokenRow:
    """A row whose ids say where they are from; its second token is always a target."""
    size = len(targets)
    response = np.array([False, True, *targets[2:]])
    ids = np.arange(size, dtype=np.int64) + 1000 * (ordinal + 1)
    row = Row(id=f"r{ordinal}", ordinal=ordinal, text="x" * size, place=f"rows.jsonl:{ordinal + 1}")
    offsets = np.stack([np.arange(size), np.arange(size) + 1], axis=1).astype(np.int64)
    return TokenRow(row, row.text or "", ids, response, offsets, 0, f"{ordinal:032x}")


ROWS = st.lists(st.lists(st.booleans(), min_size=2, max_size=40), max_size=7).map(
    lambda rows: [token_row(i, targets) for i, targets in enumerate(rows)]
)
WINDOWS = st.integers(2, 20).flatmap(
    lambda size: st.builds(Window, st.sampled_from([size, CONTEXT]), st.integers(HALF, size - 1), st.booleans())
)
BUDGETS = st.integers(1, 200)


def item_content(batch: TokenBatch, i: int) -> dict[str, list[int]]:
    length = int(batch.attention[i].sum())
    return {
        name: getattr(batch, name)[i, :length].tolist()
        for name in ("input_ids", "attention", "targets", "valid", "response")
    } | {"start": [int(batch.start[i])]}


def by_row(batches: list[TokenBatch]) -> dict[str, list[dict[str, list[int]]]]:
    found: dict[str, list[dict[str, list[int]]]] = {}
    for batch in batches:
        assert len({row.row.id for row in batch.rows} & found.keys()) == 0, "a row is in one batch"
        for i, row in enumerate(batch.item_row.tolist()):
            found.setdefault(batch.rows[row].row.id, []).append(item_content(batch, i))
    return found


@QUICK
@given(rows=ROWS, window=WINDOWS, budget=BUDGETS)
@example(rows=[token_row(0, [True] * 9)], window=Window(4, 3), budget=8)
@example(rows=[], window=Window(4, 3), budget=8)
def test_items_are_the_windows_and_every_target_counts_once(rows: list[TokenRow], window: Window, budget: int) -> None:
    found = by_row(plan_batches(rows, window, tokens_per_batch=budget))
    assert found.keys() == {row.row.id for row in rows}
    for row in rows:
        cuts = window.cuts(row.response)
        positions, counted_in = counted_targets(cuts, row.response.tolist())
        items = found[row.row.id]
        assert [(item["start"][0], item["start"][0] + len(item["input_ids"])) for item in items] == cuts
        for item, (start, end), response in zip(items, cuts, positions, strict=True):
            ids = row.ids[start:end].tolist()
            assert item["input_ids"] == ids
            assert item["attention"] == [True] * len(ids)
            assert item["targets"] == [*ids[1:], 0]
            assert item["valid"] == [True] * (len(ids) - 1) + [False]
            assert item["response"] == response
        if window.overlap or not window.size:
            assert counted_in.keys() == set(np.flatnonzero(row.response).tolist())


@QUICK
@given(rows=ROWS, window=WINDOWS)
def test_a_rows_reading_counts_what_its_windows_predict(rows: list[TokenRow], window: Window) -> None:
    for row in rows:
        cuts = window.cuts(row.response)
        _, counted_in = counted_targets(cuts, row.response.tolist())
        late = sum(cuts[number][0] > 0 for number in counted_in.values())
        whole = replace(row, cut=3, cut_targets=2)
        assert window.reading(whole) == RowReading(3, len(cuts), int(row.response.sum()) - len(counted_in) + 2, late)


@QUICK
@given(rows=ROWS, size=st.integers(2, 20), everything=st.booleans())
def test_each_target_has_half_a_window_before_it_and_a_short_answer_as_much_as_fits(
    rows: list[TokenRow], size: int, everything: bool
) -> None:
    for row in rows:
        cuts = Window(size, HALF, everything).cuts(row.response)
        _, counted_in = counted_targets(cuts, row.response.tolist())
        assert set(np.flatnonzero(row.response).tolist()) == counted_in.keys()
        for token, number in counted_in.items():
            start, end = cuts[number]
            assert start == 0 or (token - start >= size // 2 and end - start == size)
        if everything and len(row.ids) > 1:
            assert set().union(*(range(*cut) for cut in cuts)) == set(range(len(row.ids)))
        answer = np.arange(50) >= 45  # behind a prompt longer than the window: one window, and all of it is used
        assert size < 10 or Window(size).cuts(answer) == [(50 - size, 50)]


def test_a_window_is_no_longer_than_the_models_context() -> None:
    assert Window().within(30) == Window(30)
    assert Window(100, 20).within(30) == Window(30, 20)
    assert Window(20, 5).within(30) == Window(20, 5)
    assert Window(100, 50).within(30) == Window(30, 29)


@QUICK
@given(rows=ROWS, window=WINDOWS, budget=BUDGETS)
def test_budget_and_padding(rows: list[TokenRow], window: Window, budget: int) -> None:
    batches = plan_batches(rows, window, tokens_per_batch=budget)
    for batch in batches:
        assert batch.input_ids.numel() <= budget or len(batch.rows) == 1
        assert not batch.input_ids[~batch.attention].any()
        assert not (batch.valid | batch.response)[~batch.attention].any()
        assert not (batch.response & ~batch.valid).any()
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True)
    read = sum(end - start for row in rows for start, end in window.cuts(row.response))
    assert sum(int(batch.attention.sum()) for batch in batches) == read


@QUICK
@given(rows=ROWS, window=WINDOWS, budget=BUDGETS, shuffled=st.randoms(use_true_random=False))
def test_same_rows_same_batches_and_any_order_the_same_items(
    rows: list[TokenRow], window: Window, budget: int, shuffled: object
) -> None:
    batches = plan_batches(rows, window, tokens_per_batch=budget)
    again = plan_batches(rows, window, tokens_per_batch=budget)
    assert [[row.row.id for row in batch.rows] for batch in batches] == [
        [row.row.id for row in batch.rows] for batch in again
    ]
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(batches, again, strict=True))
    other = list(rows)
    shuffled.shuffle(other)  # type: ignore[attr-defined]
    assert by_row(plan_batches(other, window, tokens_per_batch=budget)) == by_row(batches)


def test_rows_of_one_length_keep_their_order() -> None:
    rows = [token_row(i, [True] * (6 + i % 2)) for i in range(60)]
    batches = plan_batches(rows, Window(8), tokens_per_batch=21)
    assert [row.row.ordinal for batch in batches for row in batch.rows] == [*range(1, 60, 2), *range(0, 60, 2)]
    assert {len(batch.rows) for batch in batches} == {3}


def test_budget_is_filled() -> None:
    batches = plan_batches([token_row(i, [True] * 8) for i in range(8)], Window(8), tokens_per_batch=32)
    assert [tuple(batch.input_ids.shape) for batch in batches] == [(4, 8), (4, 8)]


def test_a_row_none_of_whose_targets_is_predicted_is_refused() -> None:
    row = token_row(0, [False] * 8)
    row.response[:] = [False, False, False, False, True, False, False, False]
    assert len(plan_batches([row], Window(4, overlap=1))) == 1
    with pytest.raises(DataError) as caught:
        plan_batches([row], Window(4, 0))
    message = "rows.jsonl:1: every target stands first in a window, where nothing predicts it (let windows overlap)"
    assert str(caught.value) == message


@pytest.mark.parametrize(("size", "overlap"), [(1, 0), (4, 4), (4, -2)])
def test_windows_that_never_end_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(UsageError) as caught:
        Window(size, overlap)
    remedy = "(a size of at least 2, or 0 for the model's context; an overlap below the size, or -1 for half a window)"
    assert str(caught.value) == f"window: windows of {size} tokens that share {overlap} {remedy}"


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="tokens_per_batch: 0 tokens a batch"):
        plan_batches([], Window(4), tokens_per_batch=0)


def test_batch_moves_with_everything() -> None:
    (batch,) = plan_batches([token_row(0, [True] * 4)], Window(8))
    moved = batch.to("meta")
    names = ("input_ids", "attention", "targets", "valid", "response", "item_row", "start")
    assert all(getattr(moved, name).device.type == "meta" for name in names)
    assert moved.rows is batch.rows


def test_loss_is_the_models_own() -> None:
    """The mean over `response` of the loss against `targets` is `model(input_ids, labels=...)`'s, row by row."""
    tokenizer = byte_level(bos=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config).eval()
    rows = [
        Row(id="a", ordinal=0, prompt="What is the capital of France?", response="Paris, of course."),
        Row(id="b", ordinal=1, prompt="One", response="two three four five six"),
        Row(id="c", ordinal=2, text="The cat sat on the mat."),
    ]
    encoded = Tokenization.of(tokenizer, "Q: {prompt}\\nA: {response}").encode(rows)
    (batch,) = plan_batches(encoded, Window(256))
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention.long()).logits
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets, reduction="none")
        for i, token_row in enumerate(batch.rows):
            ours = losses[i][batch.response[i]].mean()
            ids = torch.from_numpy(token_row.ids)
            labels = torch.where(torch.from_numpy(token_row.response), ids, -100)
            theirs = model(input_ids=ids[None], labels=labels[None]).loss
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_answers_behind_prompts_longer_than_the_window_are_counted_in_every_row_of_a_batch() -> None:
    rows = [token_row(i, [False] * length) for i, length in enumerate((40, 40, 30))]
    for row in rows:
        row.response[:] = np.arange(len(row.ids)) >= len(row.ids) - 4
    (batch,) = plan_batches(rows, Window(10), tokens_per_batch=100)
    assert batch.target_counts.tolist() == [4, 4, 4]
    assert batch.start.tolist() == [30, 30, 20]
