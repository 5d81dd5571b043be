"""The multiplier's law, the standard error of the guard, and which state a run ends in."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headwater.unlearning.adapter import trainable_state
from headwater.unlearning.constraint import Multiplier, standard_error
from headwater.unlearning.strength import draw_back
from headwater.unlearning.watch import LossLimits, Reading, Watch


def test_the_multiplier_rises_above_the_aim_and_falls_below_it():
    multiplier = Multiplier(0.75, step=0.25)
    aim = 1.05  # halfway from 1.0 to the bound of 1.1
    assert multiplier.follow(aim, before=1.0, bound=1.1) == pytest.approx(0.75)
    assert multiplier.follow(1.1, before=1.0, bound=1.1) == pytest.approx(0.75 + 0.25)
    assert multiplier.follow(1.0, before=1.0, bound=1.1) == pytest.approx(0.75)
    assert multiplier.follow(9.0, before=1.0, bound=1.1) == pytest.approx(0.75 + 4 * 0.25), (
        "one reading moves it by 4 ρ"
    )
    assert multiplier.follow(1.0, before=1.0, bound=1.1, times=4.0) == pytest.approx(1.75 - 4 * 0.25)
    for _ in range(20):
        multiplier.follow(0.5, before=1.0, bound=1.1)
    assert multiplier.value == 0
    assert Multiplier(0.3, step=1.0).follow(9.0, before=1.0, bound=math.inf) == 0.3
    assert Multiplier(0.3, step=1.0, most=0.5).follow(9.0, before=1.0, bound=1.1) == 0.5


def test_the_multiplier_rises_for_the_sake_of_language_from_its_least_value_on():
    multiplier = Multiplier(0.0, step=0.25, most=2.0, least=0.75)
    assert multiplier.speak(0.95, aim=0.95) == 0, "fluent enough"
    assert multiplier.speak(0.9, aim=0.95) == pytest.approx(0.75 + 0.25)
    assert multiplier.speak(0.0, aim=0.95) == pytest.approx(2.0), "by 4 ρ, and never above the most"


def test_the_standard_error_is_that_of_a_mean_of_changes():
    changes = torch.tensor([0.1, 0.3, -0.2, 0.6])
    assert standard_error(changes, None) == pytest.approx(float(changes.std()) / 2)
    assert standard_error(changes, torch.ones(4)) == pytest.approx(standard_error(changes, None))
    first_two = standard_error(changes, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert first_two > 0
    assert standard_error(changes[:1], None) == math.inf


LIMITS = LossLimits(target=2.0, bound=1.0)


def test_only_withheld_rows_and_answers_say_that_the_behaviour_is_gone():
    assert not Reading(5, forget=9.0, guard=0.5).reaches(LIMITS), "the known rows' loss alone never ends a run"
    assert Reading(5, forget=0.1, guard=0.5, withheld=2.1, unwanted=0.0).reaches(LIMITS)
    assert not Reading(5, forget=9.0, guard=0.5, withheld=2.1, unwanted=0.125).reaches(LIMITS)
    assert not Reading(5, forget=9.0, guard=0.5, withheld=1.9, unwanted=0.0).reaches(LIMITS)


def test_a_run_ends_only_where_its_answers_are_still_language():
    gone = {"forget": 0.1, "guard": 0.5, "withheld": 2.1, "unwanted": 0.0}
    assert Reading(5, **gone).ends(LIMITS), "nothing could be asked"
    assert Reading(5, **gone, fluent=0.95).ends(LIMITS)
    assert not Reading(5, **gone, fluent=0.9).ends(LIMITS)
    assert Reading(5, **gone, fluent=0.9).reaches(LIMITS), "the behaviour is gone nevertheless"
    assert not Reading(5, **{**gone, "guard": 1.1}, fluent=1.0).ends(LIMITS)


def test_a_state_keeps_the_bound_with_its_standard_error():
    assert Reading(1, 1.0, guard=0.95, error=0.04).keeps(LIMITS)
    assert not Reading(1, 1.0, guard=0.95, error=0.06).keeps(LIMITS)
    assert Reading(1, 1.0, guard=0.95, error=math.inf).keeps(LIMITS), "one guard row has no standard error"
    assert not Reading(1, math.nan, guard=0.5).keeps(LIMITS)


def test_the_best_state_is_the_most_forgotten_one_and_of_equal_ones_the_least_harmful():
    def rank(**given):
        return Reading(1, **{"forget": 1.0, "guard": 0.5, "withheld": 1.0, "unwanted": 0.0, **given}).rank(LIMITS)

    assert rank(withheld=1.5) > rank()
    assert rank(unwanted=0.0, withheld=1.0) > rank(unwanted=0.25, withheld=1.9, forget=1.9)
    assert rank(withheld=2.5, forget=3.0, guard=0.4) > rank(withheld=9.0, forget=9.0, guard=0.5)
    assert rank(withheld=2.5, fluent=0.9) > rank(withheld=2.5, forget=3.0, fluent=0.8)
    assert rank(withheld=2.5, fluent=0.5) > rank(withheld=1.9, forget=3.0), "not gone: its fluency was not measured"
    assert rank(withheld=2.5, fluent=1.2, guard=0.4) > rank(withheld=2.5, fluent=1.3, guard=0.5)


class _OneWeight(Watch):
    """Measures a model of one weight: harm is its square, and the behaviour is gone from 0.45 on."""

    def _measure(self, model: Any, step: int) -> Reading:
        weight = float(model.weight)
        gone = weight >= 0.45
        self.readings.append(Reading(step, 9.0 * gone, weight**2, withheld=9.0 * gone, unwanted=float(not gone)))
        return self.readings[-1]


def test_a_run_measures_seldom_while_both_target_and_bound_are_far():
    first = Reading(0, forget=0.1, guard=0.5, withheld=0.4)
    assert first.far(first, LIMITS)
    assert Reading(5, 9.0, guard=0.74, withheld=0.79).far(first, LIMITS), "a quarter of the way to 2.0 is 0.8"
    assert not Reading(5, 9.0, guard=0.5, withheld=0.8).far(first, LIMITS)
    assert not Reading(5, 0.1, guard=0.74, error=0.02, withheld=0.4).far(first, LIMITS), "halfway to the bound"
    assert Reading(5, 0.1, guard=9.0, withheld=0.4).far(first, LossLimits(2.0, math.inf)), "there is no bound"
    assert not first.far(first, LossLimits(math.inf, 1.0)), "there is no target"
    assert not Reading(0, forget=0.1, guard=0.5).far(first, LIMITS), "no rows are withheld"

    def measured(seldom: int) -> list[int]:
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(model.weight)
        watch = _OneWeight((), (), LossLimits(2.0, 1.0, seldom=seldom), torch.device("cpu"))
        watch.look(model, 0)
        for step in range(1, 31):
            torch.nn.init.constant_(model.weight, 0.9 if step > 20 else 0.0)
            state, control = (
                SimpleNamespace(global_step=step, max_steps=30),
                SimpleNamespace(should_training_stop=False),
            )
            watch.on_step_end(None, state, control, model=model)
        return [reading.step for reading in watch.readings]

    assert measured(seldom=4) == [0, 20, 30], "the next measurement after 20 is at 40, and the last step is one"
    assert measured(seldom=2) == [0, 10, 20, 30]
    assert measured(seldom=1) == [0, 5, 10, 15, 20, 25, 30]


@pytest.mark.parametrize(("trained", "share"), [(1.0, 0.5), (1.9, 0.3)])
def test_a_training_beyond_the_bound_is_drawn_back_until_the_behaviour_would_return(trained, share):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    start = trainable_state(model)
    multiplier = Multiplier(0.75, step=0.25)
    watch = _OneWeight((), (), LossLimits(2.0, 0.5), torch.device("cpu"), multiplier=multiplier)
    watch.look(model, 0)
    torch.nn.init.constant_(model.weight, trained)
    watch.look(model, 5)
    watch.finish(model)
    assert watch.outcome == "bound"
    assert float(model.weight) == 0
    assert draw_back(model, start, watch) == share
    assert float(model.weight) == pytest.approx(share * trained)
    assert watch.outcome == "forgotten"
    assert watch.best is not None
    assert watch.best.guard == pytest.approx((share * trained) ** 2)
    assert watch.multiplier is multiplier
    assert multiplier.value == 0.75
