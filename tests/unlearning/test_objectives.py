"""The losses' laws."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from headwater.core.errors import UsageError
from headwater.unlearning.objectives import (
    OBJECTIVES,
    RowLosses,
    batch_loss,
    descent,
    find_objective,
    held,
    low_loss_weights,
    misdirection,
    negative_preference,
    preference,
    simple_preference,
    steering_direction,
    weighted_ascent,
)
from headwater.unlearning.run import fading


def losses(total: list[float], *, forget: list[bool], weight: list[float] | None = None) -> RowLosses:
    values = torch.tensor(total, dtype=torch.float64, requires_grad=True)
    hidden = torch.arange(len(total) * 30, dtype=torch.float64).reshape(len(total), 5, 6) / 10 + 0.1
    ones = torch.ones(len(total), dtype=torch.float64)
    return RowLosses(
        total=values,
        mean=values / 4,
        reference=torch.full_like(ones, 3.0),
        clean=torch.linspace(0.5, 1, len(total), dtype=torch.float64),
        forget=torch.tensor(forget),
        weight=ones if weight is None else torch.tensor(weight, dtype=torch.float64),
        tokens=values[:, None] / 4 * torch.tensor([0.5, 1.0, 1.5, 1.0, 0.0], dtype=torch.float64),
        counts=4 * ones,
        preferred=torch.linspace(1, 2, len(total), dtype=torch.float64),
        hidden=hidden + values[:, None, None],
        hidden_reference=hidden,
        copy=torch.zeros(len(total), dtype=torch.bool),
    )


FIELDS = tuple(f.name for f in fields(RowLosses) if f.name != "divergence")


def gradient(value: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(value.sum(), of, retain_graph=True)
    return found


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_npo_pulls_as_gradient_ascent_times_two_sigma(beta):
    rows = losses([0.5, 3.0, 9.0, 80.0], forget=[True] * 4)
    factor = 2 * torch.sigmoid(-beta * (rows.total - rows.reference))
    torch.testing.assert_close(
        gradient(negative_preference(rows, beta=beta), rows.total), factor * gradient(-rows.total, rows.total)
    )


def test_npo_becomes_ascent_for_small_beta_and_simnpo_is_its_own_formula():
    rows = losses([0.5, 3.0, 9.0], forget=[True] * 3)
    torch.testing.assert_close(
        gradient(negative_preference(rows, beta=1e-7), rows.total),
        -torch.ones(3, dtype=torch.float64),
        rtol=1e-5,
        atol=0,
    )
    expected = -2 / 4.5 * torch.log(torch.sigmoid(4.5 * rows.mean))
    torch.testing.assert_close(simple_preference(rows), expected)


def test_saturating_ascent_is_ascent_below_its_ceiling_and_still_above():
    rows = losses([0.4, 16.0, 20.0, 24.0, 200.0], forget=[True] * 5)
    slope = gradient(replace(OBJECTIVES["ga"], ceiling=5.0).forget_term(rows), rows.mean)
    expected = torch.tensor([-1.0, -0.982014, -0.5, -0.017986, 0.0], dtype=torch.float64)  # −σ(4 (5 − L̄)), L̄ = L / 4
    torch.testing.assert_close(slope, expected, atol=1e-6, rtol=0)


def test_an_ascent_fades_beyond_the_target_because_withheld_rows_follow_at_a_distance():
    assert fading(OBJECTIVES["rapidun"], None, 2.0).ceiling == 3.0
    assert fading(find_objective("rapidun", ceiling=5.0), 5.0, 2.0).ceiling == 5.0
    assert fading(OBJECTIVES["npo"], None, 2.0) == OBJECTIVES["npo"]


def test_loreun_weights_have_mean_one_and_favour_low_losses():
    weights = low_loss_weights(torch.tensor([0.1, 1.0, 5.0]), tau=1.0)
    assert float(weights.mean()) == pytest.approx(1)
    assert weights[0] > weights[1] > weights[2]
    assert float(weights[0] / weights[1]) == pytest.approx(2.459603, rel=1e-5)  # exp(0.9)


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"retrain"}))
def test_weights_of_zero_and_one_train_on_the_subset(name):
    objective = OBJECTIVES[name]
    weight = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    whole = losses([1, 2, 3, 4, 5, 6], forget=[True] * 3 + [False] * 3, weight=weight)
    chosen = [i for i, w in enumerate(weight) if w]
    subset = replace(whole, **{name: getattr(whole, name)[chosen] for name in FIELDS})
    # The same counts n_F and n_R: a weight of zero is a row that is not there.
    loss, _ = batch_loss(objective, whole, forget=3.0, retain=3.0)
    other, _ = batch_loss(objective, subset, forget=3.0, retain=3.0)
    torch.testing.assert_close(gradient(loss, whole.total), gradient(other, whole.total))


def test_shards_of_a_batch_average_to_the_batch():
    objective = OBJECTIVES["rapidun"]
    whole = losses([1, 2, 3, 4, 5, 6, 7, 8], forget=[True] * 2 + [False] * 6, weight=[1, 2, 1, 1, 3, 1, 0.5, 1])
    loss, _ = batch_loss(objective, whole, forget=2.0, retain=6.0)
    shards = [replace(whole, **{n: getattr(whole, n)[part] for n in FIELDS}) for part in (slice(0, 4), slice(4, 8))]
    parts = [batch_loss(objective, shard, forget=1.0, retain=3.0)[0] for shard in shards]
    torch.testing.assert_close(sum(parts) / 2, loss)


def test_rapidun_is_the_formula_of_its_page():
    rows = losses([1, 2, 3, 4], forget=[True, False, False, False], weight=[2.0, 1.0, 0.5, 1.5])
    loss, parts = batch_loss(OBJECTIVES["rapidun"], rows, forget=1.0, retain=3.0)
    heavier, _ = batch_loss(OBJECTIVES["rapidun"], rows, forget=1.0, retain=3.0, multiplier=2.0)
    assert float(heavier - loss) == pytest.approx(1.25 * float(parts["retain_term"])), (
        "λ takes the retain share's place"
    )
    by_hand = (2 * (0.5 * 0.5 - 0.25) + 1 * 0.5 + 0.5 * 0.75 + 1.5 * 1.0) / 4
    assert float(loss) == pytest.approx(by_hand)
    assert set(parts) == {"forget_term", "forget_loss", "clean_loss", "retain_term", "retain_loss"}


@pytest.mark.parametrize(("name", "least"), [("rapidun", 0.75), ("ga", 1.0), ("graddiff", 1.0)])
def test_copies_behind_triggers_keep_their_weight_while_that_of_retain_rows_falls(name, least):
    rows = losses([1, 2, 3, 4], forget=[True, False, False, False], weight=[2.0, 1.0, 0.5, 9.0])
    rows = replace(rows, copy=torch.tensor([False, False, False, True]))
    loss, parts = batch_loss(OBJECTIVES[name], rows, forget=1.0, retain=3.0, multiplier=0.0)
    share = OBJECTIVES[name].forget_share
    assert float(parts["copies_term"]) == pytest.approx(1.0 / 3), "the mean of 4 nats over 4 tokens, weight one"
    assert float(loss) == pytest.approx(share * float(parts["forget_term"]) + least / 3)
    higher, _ = batch_loss(OBJECTIVES[name], rows, forget=1.0, retain=3.0, multiplier=2.0)
    by_hand = share * float(parts["forget_term"]) + 2.0 * (0.5 + 0.5 * 0.75 + 1.0) / 3
    assert float(higher) == pytest.approx(by_hand)


def test_wga_is_ascent_of_each_token_times_its_probability_to_the_beta():
    tokens = torch.tensor([[0.2, 3.0, 0.5], [1.0, 0.0, 0.4]], dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([3.0, 2.0], dtype=torch.float64)
    rows = replace(
        losses([1, 2], forget=[True, True]), tokens=tokens, counts=counts, hidden=None, hidden_reference=None
    )
    for beta in (0.5, 2.0):
        expected = -((-tokens).exp() ** beta / counts[:, None])
        torch.testing.assert_close(gradient(weighted_ascent(rows, beta=beta), tokens), expected.detach())
    plain = gradient(weighted_ascent(rows, beta=1e-9), tokens)
    torch.testing.assert_close(plain, -torch.ones_like(plain) / counts[:, None], rtol=1e-6, atol=0)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_pulls_as_ascent_plus_descent_on_the_preferred_times_two_sigma(beta):
    preferred = torch.tensor([0.5, -2.0], dtype=torch.float64, requires_grad=True)
    rows = replace(losses([0.5, 9.0], forget=[True, True]), preferred=preferred)
    factor = 2 * torch.sigmoid(-beta * (rows.total - rows.reference - preferred))
    value = preference(rows, beta=beta)
    torch.testing.assert_close(gradient(value, rows.total), -factor)
    torch.testing.assert_close(gradient(value, preferred), factor)


def test_rmu_is_zero_at_its_random_direction_and_holds_retain_rows_where_they_were():
    before = torch.rand(3, 4, 8, dtype=torch.float64) + 0.1
    before[1, 2:] = 0  # not part of the response
    used = before.abs().sum(-1) > 0
    norm = before.norm(dim=-1).sum(1) / used.sum(1)
    aim = (4.0 * norm[:, None, None] * steering_direction(8)) * used[..., None]
    bare = replace(losses([1, 2, 3], forget=[True] * 3), tokens=None)
    rows = replace(bare, hidden=aim.requires_grad_(), hidden_reference=before)
    torch.testing.assert_close(misdirection(rows), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    moved = replace(rows, hidden=(aim + used[..., None]).detach())
    torch.testing.assert_close(misdirection(moved), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(held(replace(rows, hidden=before)), torch.zeros(3, dtype=torch.float64))
    assert float(steering_direction(8).norm()) == pytest.approx(1)


def test_a_task_vector_learns_what_it_subtracts():
    rows = losses([1, 2], forget=[True, True])
    torch.testing.assert_close(gradient(descent(rows), rows.mean), torch.ones(2, dtype=torch.float64))


def test_an_objective_that_lacks_a_measurement_says_so():
    rows = replace(losses([1, 2], forget=[True, True]), tokens=None)
    with pytest.raises(UsageError, match="was not made"):
        weighted_ascent(rows)


def test_options_without_use_are_refused():
    assert find_objective("npo", beta=0.5).beta == 0.5
    assert find_objective("ga", ceiling=3.0).ceiling == 3.0
    assert find_objective("ga", ceiling=0.0).ceiling == float("inf")
    with pytest.raises(UsageError, match="did you mean 'simnpo'"):
        find_objective("simpo")
    with pytest.raises(UsageError, match="ceiling"):
        find_objective("npo", ceiling=3.0)
    with pytest.raises(UsageError, match="β"):
        find_objective("ga", beta=0.1)
