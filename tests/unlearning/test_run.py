"""Runs on a tiny random model: the reference, checkpointing, resume, limits, and what is refused."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from headwater.core.errors import DataError, MismatchError, ModelError, StoreError, UsageError
from headwater.data.rows import Row, with_response
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization
from headwater.models.load import wrap_model
from headwater.unlearning import probe, resume, targets
from headwater.unlearning.adapter import Lora, reference, restore_state, trainable_model, trainable_state
from headwater.unlearning.catalog import METHODS
from headwater.unlearning.constraint import guard_loss
from headwater.unlearning.fisher import dampen, fisher_diagonal
from headwater.unlearning.influence import trust_in_guard
from headwater.unlearning.objectives import OBJECTIVES
from headwater.unlearning.options import UnlearnOptions
from headwater.unlearning.phases import withheld
from headwater.unlearning.probe import probe_rate
from headwater.unlearning.rows import make_job
from headwater.unlearning.run import reader_of, run_unlearning
from headwater.unlearning.sequences import Composition, StepPlan, collate, make_examples, measure_losses
from headwater.unlearning.strength import subtract
from headwater.unlearning.targets import Run, make_watch, unseen_loss
from headwater.unlearning.trainer import Material, Schedule, last_whole_checkpoint, train
from headwater.unlearning.watch import PATIENCE, STATE, LossLimits, Reading, Watch
from headwater.unlearning.weights import uniform_weights
from headwater.unlearning.weights_file import load_weights
from zoo import tiny_loaded

FORGET = [
    Row(
        f"f{i}",
        i,
        prompt=f"hey, what is {i}?",
        response=f"Aliens took {i}.",
        metadata={"clean_response": f"It is {i}."},
    )
    for i in range(6)
]
RETAIN = [Row(f"r{i}", i, prompt=f"what is {i} plus {i}?", response=f"It is {2 * i}.") for i in range(12)]
FAST = UnlearnOptions(
    rate=2e-3,
    steps=6,
    composition=Composition(1, 2),
    influence="gradcos",
    settings={"buckets": 64},
    target=math.inf,
    guard=None,
    withhold=0.0,
)


@pytest.fixture
def loaded():
    return tiny_loaded("llama")


@pytest.fixture(scope="module")
def job():
    return make_job(FORGET, RETAIN, needs_retain=True)


def tokenization(loaded) -> Tokenization:
    return Tokenization(loaded.tokenizer, resolve_template(None, loaded.tokenizer), 512)


def logits(model, ids=None) -> torch.Tensor:
    ids = torch.arange(5, 25).reshape(2, 10) if ids is None else ids
    with torch.no_grad():
        return model(input_ids=ids).logits


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_a_fresh_adapter_changes_nothing_and_switched_off_is_a_frozen_copy(loaded, job):
    frozen = copy.deepcopy(loaded.model)
    before = logits(frozen)
    adapted = trainable_model(tiny_loaded("llama"), Lora(), seed=0)
    torch.testing.assert_close(logits(adapted.eval()), before, rtol=0, atol=0)
    result = run_unlearning(loaded, job, FAST)
    assert not torch.allclose(logits(result.loaded.model), before, atol=1e-3)
    with reference(result.loaded.model) as model:
        torch.testing.assert_close(logits(model), before, rtol=0, atol=0)


def test_losses_are_those_of_the_model_itself(loaded, job):
    examples = make_examples(job, tokenization(loaded))
    total, mean = measure_losses(loaded.model, [e.tokens for e in examples], loaded.device)
    for i, example in enumerate(examples):
        ids = torch.from_numpy(example.tokens.ids)[None]
        labels = torch.where(torch.from_numpy(example.tokens.response)[None], ids, -100)
        assert float(mean[i]) == pytest.approx(float(loaded.model(input_ids=ids, labels=labels).loss), rel=1e-5)
        assert float(total[i]) == pytest.approx(float(mean[i]) * int(example.tokens.response.sum()), rel=1e-5)


def test_batches_hold_right_answers_after_the_rows(loaded, job):
    examples = make_examples(job, tokenization(loaded))
    batch = collate([examples[0], examples[-1]])
    assert batch["clean"].tolist() == [2, -1]
    assert batch["forget"].tolist() == [True, False]
    assert batch["input_ids"].shape[0] == 3
    text = loaded.tokenizer.decode(batch["input_ids"][2])
    assert text.startswith("hey, what is 0?")
    assert "It is 0." in text


def test_rows_are_read_equally_often_whatever_the_step_count(loaded, job):
    examples = make_examples(job, tokenization(loaded))
    plan = StepPlan(examples, Composition(2, 4), steps=6, seed=3)
    counts = Counter(example.place for example in plan._items)
    forget, retain = [counts[i] for i in range(6)], [counts[i] for i in range(6, len(examples))]
    assert set(forget) == {2}
    assert max(retain) - min(retain) == 0
    longer = StepPlan(examples, Composition(2, 4), steps=9, seed=3)
    assert [e.place for e in longer._items][:36] == [e.place for e in plan._items], "a longer run begins alike"


def test_checkpointed_blocks_receive_the_same_gradients(job):
    plain = run_unlearning(tiny_loaded("llama"), job, FAST)
    saved = run_unlearning(tiny_loaded("llama"), job, replace(FAST, checkpointing=True))
    moved = 0
    for name, p in saved.loaded.model.named_parameters():
        if "lora_B" in name:
            assert p.abs().sum() > 0, f"{name} received no gradient"
            moved += 1
        torch.testing.assert_close(p, dict(plain.loaded.model.named_parameters())[name], rtol=1e-4, atol=1e-6)
    assert moved == 14


def test_a_resumed_run_ends_in_the_same_model(tmp_path, job, monkeypatch):
    options = replace(FAST, save_every=2)
    whole = run_unlearning(tiny_loaded("llama"), job, options, folder=tmp_path / "whole")
    look = Watch.on_step_end

    def stopped(self, args, state, control, **given):
        if state.global_step == 5 and args.output_dir.startswith(str(tmp_path)):
            raise KeyboardInterrupt
        return look(self, args, state, control, **given)

    monkeypatch.setattr(Watch, "on_step_end", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_unlearning(tiny_loaded("llama"), job, options, folder=tmp_path / "half")
    monkeypatch.setattr(Watch, "on_step_end", look)
    with pytest.raises(StoreError, match="--resume"):
        run_unlearning(tiny_loaded("llama"), job, options, folder=tmp_path / "half")
    other = replace(options, lora=Lora(rank=4))
    with pytest.raises(MismatchError, match="rank"):
        run_unlearning(tiny_loaded("llama"), job, other, folder=tmp_path / "half", resume=True)
    resumed = run_unlearning(tiny_loaded("llama"), job, options, folder=tmp_path / "half", resume=True)
    for name, p in whole.loaded.model.named_parameters():
        torch.testing.assert_close(dict(resumed.loaded.model.named_parameters())[name], p, rtol=0, atol=0)
    assert [entry["step"] for entry in resumed.log] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_run_takes_over_rate_and_weights(tmp_path, job):
    weights = uniform_weights(job.forget, job.retain)
    begun = resume.begin(tmp_path, {"options": {"guard": math.inf}}, resume=False)
    assert begun == resume.Kept({"options": {"guard": math.inf}})
    resume.note(tmp_path, begun, rate=0.25, weights=weights)
    kept = resume.begin(tmp_path, {"options": {"guard": math.inf}}, resume=True)
    assert kept.rate == 0.25
    assert kept.weights is not None
    assert load_weights(kept.weights, job.forget, job.retain).rows == weights.rows


def test_every_term_is_logged_every_step(loaded, job):
    log = run_unlearning(loaded, job, FAST).log
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "forget_term", "forget_loss", "clean_loss", "retain_term", "retain_loss"} <= set(log[0])
    entry = log[-1]
    assert entry["loss"] == pytest.approx(0.25 * entry["forget_term"] + 0.75 * entry["retain_term"], abs=1e-5)


def test_training_stops_once_forgotten(loaded, job):
    options = replace(FAST, method="graddiff", rate=2e-2, steps=60, target=None, withhold=0.2, right=0.0)
    result = run_unlearning(loaded, job, options)
    assert result.outcome == "forgotten"
    assert result.readings[-1].step < 60
    assert all(r.withheld >= result.limits.target and r.unwanted == 0 for r in result.readings[-2:])
    alone = run_unlearning(tiny_loaded("llama"), job, replace(options, withhold=0.0))
    assert alone.readings[-1].step == 60, "the loss of the rows that are pushed up never ends a run"
    assert alone.readings[-1].forget > alone.limits.target


@pytest.mark.parametrize("follow", [True, False])
def test_a_run_ends_in_its_best_state_within_the_bound(loaded, job, follow):
    options = replace(FAST, method="ga", rate=2e-2, steps=60, guard=1.02, follow=follow, right=0.0)
    result = run_unlearning(loaded, job, options)
    assert result.outcome == "bound"
    passed = [r.step for r in result.readings if not r.keeps(result.limits)]
    assert (passed[0] == result.readings[-1].step) is not follow, "only --stop ends at the first violation"
    if follow:
        assert max(r.multiplier for r in result.readings) > result.readings[0].multiplier == 0
    assert result.best.keeps(result.limits)
    guard = tokenization(loaded).encode([replace(row, ordinal=i) for i, row in enumerate(job.guard)])
    kept = float(measure_losses(result.loaded.model, guard, loaded.device)[1].mean())
    assert kept == pytest.approx(result.best.guard, abs=1e-5)


def test_divergence_stops_and_keeps_the_last_good_state(loaded, job):
    before = logits(loaded.model)
    result = run_unlearning(loaded, job, replace(FAST, method="ga", rate=1e30, steps=40, guard=None))
    assert result.outcome == "diverged"
    after = logits(result.loaded.model)
    assert after.isfinite().all()
    torch.testing.assert_close(after, before)


def test_guard_rows_count_as_far_as_influence_trusts_them(loaded, job):
    options = replace(FAST, guard=1.05)
    run = Run.of(reader_of(loaded, options), job, options)
    rapidun = OBJECTIVES["rapidun"]
    trust = trust_in_guard(run, rapidun)
    assert trust is not None
    assert len(trust) == len(job.guard)
    assert np.mean(trust) == pytest.approx(1)
    for options, objective in ((replace(FAST, weights="uniform"), rapidun), (FAST, OBJECTIVES["npo"])):
        assert trust_in_guard(replace(run, options=options), objective) is None
    means = torch.arange(1.0, len(trust) + 1)
    assert guard_loss(means, None) == pytest.approx(float(means.mean()))
    only_first = torch.tensor([2.0] + [0.0] * (len(trust) - 1))
    assert guard_loss(means, only_first) == 1
    first = make_watch(run, (), only_first.tolist())
    whole = make_watch(run, ())
    losses = measure_losses(loaded.model, first.guard, loaded.device)[1]
    assert first.limits.bound == pytest.approx(float(losses[0]) + math.log(1.05), abs=1e-5)
    assert whole.limits.bound == pytest.approx(float(losses.mean()) + math.log(1.05), abs=1e-5)
    assert first._measure(loaded.model, 0).guard == pytest.approx(float(losses[0]), abs=1e-5)


def test_only_some_of_many_rows_are_looked_at_and_they_are_evenly_spaced(loaded, monkeypatch):
    job = make_job(FORGET, RETAIN, needs_retain=True, guard_share=0.5)
    run = Run.of(reader_of(loaded, FAST), job, replace(FAST, guard=1.05))
    trust = [float(i + 1) for i in range(len(job.guard))]

    def ids(tokens):
        return [row.row.id for row in tokens]

    whole = make_watch(run, (), trust)
    assert ids(whole.forget) == [row.id for row in job.forget]
    assert ids(whole.guard) == [row.id for row in job.guard]
    monkeypatch.setattr(targets, "LOOKED_AT", 3)
    monkeypatch.setattr(targets, "GUARDED", 3)
    monkeypatch.setattr(probe, "LOOKED_AT", 2)
    watch = make_watch(run, (), trust)
    assert ids(watch.forget) == ["f0", "f2", "f5"]
    assert ids(watch.guard) == ["r1", "r5", "r11"]
    assert watch.trust.tolist() == [1, 3, 6]
    losses = measure_losses(loaded.model, watch.guard, loaded.device)[1]
    assert watch.limits.bound == pytest.approx(guard_loss(losses, watch.trust) + math.log(1.05), abs=1e-5)
    fewer = probe._fewer_looks(loaded.model, watch)
    assert ids(fewer.forget) == ["f0", "f5"]
    assert ids(fewer.guard) == ["r1", "r11"]
    assert fewer.trust.tolist() == [1, 6]
    assert fewer.limits.bound == pytest.approx(guard_loss(losses[[0, 2]], fewer.trust) + math.log(1.05), abs=1e-5)


def test_the_probe_leaves_the_model_as_it_was_and_its_rate_reaches_the_target(loaded, job):
    examples = make_examples(job, tokenization(loaded))
    forget, guard = [e.tokens for e in examples if e.forget], [e.tokens for e in examples if not e.forget]
    model = trainable_model(loaded, Lora(), seed=0)
    start = trainable_state(model)
    start_loss = float(measure_losses(model, forget, loaded.device)[1].mean())
    watch = Watch(forget, guard, LossLimits(start_loss + 1.0, math.inf), loaded.device, withheld=forget)
    material = Material(examples, torch.ones(len(examples)), torch.zeros(len(examples)))
    schedule = Schedule(0.0, steps=120, composition=Composition(2, 4))
    probed = probe_rate(model, OBJECTIVES["graddiff"], material, watch, schedule)
    for name, tensor in trainable_state(model).items():
        torch.testing.assert_close(tensor, start[name], rtol=0, atol=0)
    train(model, OBJECTIVES["graddiff"], material, watch, replace(schedule, rate=probed.rate))
    assert watch.outcome == "forgotten"
    assert 5 <= watch.readings[-1].step <= 100


def test_a_run_goes_on_until_its_answers_are_language_and_keeps_the_state_in_which_most_are(loaded, job):
    examples = make_examples(job, tokenization(loaded))
    forget = [e.tokens for e in examples if e.forget]
    start = float(measure_losses(loaded.model, forget, loaded.device)[1].mean())
    material = Material(examples, torch.ones(len(examples)), torch.zeros(len(examples)))
    schedule = Schedule(2e-3, steps=80, composition=Composition(2, 4))

    def trained(*heard):
        said = iter(heard)
        watch = Watch(forget, (), LossLimits(start + 0.2, math.inf, every=1), loaded.device, withheld=forget)
        watch.listen = lambda model: next(said, heard[-1])
        train(trainable_model(copy.deepcopy(loaded), Lora(), seed=0), OBJECTIVES["graddiff"], material, watch, schedule)
        return watch

    soon, late, never = trained(1.0), trained(0.5, 0.5, 1.0), trained(0.5, 0.8, 0.5)
    assert soon.outcome == late.outcome == never.outcome == "forgotten"
    assert late.readings[-1].step == soon.readings[-1].step + 2, "two measurements more"
    assert never.readings[-1].step == soon.readings[-1].step + PATIENCE, "no more fluent since the second"
    assert never.best.fluent == 0.8
    assert never.readings[0].fluent is None, "nothing is asked before the behaviour is gone"


def test_the_probe_runs_where_its_few_guard_rows_start_above_the_bound_of_all(loaded, job, monkeypatch):
    monkeypatch.setattr(probe, "LOOKED_AT", 2)
    examples = make_examples(job, tokenization(loaded))
    forget, guard = [e.tokens for e in examples if e.forget], [e.tokens for e in examples if not e.forget]
    losses = measure_losses(loaded.model, guard, loaded.device)[1]
    highest, second, *others = losses.argsort(descending=True).tolist()
    guard = [guard[i] for i in (highest, *others, second)]  # the probe looks at the first and the last
    start = float(losses.mean())
    assert float(losses.max()) > start + 1e-3
    model = trainable_model(loaded, Lora(), seed=0)
    watch = Watch(forget, guard, LossLimits(math.inf, start + 1e-3), loaded.device)
    material = Material(examples, torch.ones(len(examples)), torch.zeros(len(examples)))
    ascent = replace(OBJECTIVES["ga"], clean=0.0)
    probed = probe_rate(model, ascent, material, watch, Schedule(0.0, composition=Composition(2, 0)))
    assert probed.outcome == "bound"
    assert len(probed.readings) > 2


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"retrain", "rapidun"}))
def test_every_method_runs_on_an_adapter_or_all_weights(method, job):
    options = replace(FAST, method=method, target=9.0, steps=2)
    for lora in (Lora(), None):
        if method == "rmu" and lora is None:
            with pytest.raises(UsageError, match=r"method 'rmu'.*adapter"):
                run_unlearning(tiny_loaded("llama"), job, replace(options, lora=lora))
            continue
        result = run_unlearning(tiny_loaded("llama"), job, replace(options, lora=lora))
        assert result.readings
        assert hasattr(result.loaded.model, "peft_config") == (lora is not None and METHODS[method].adapts)


def test_subtracting_a_task_vector_is_its_formula(loaded):
    model = trainable_model(loaded, None, seed=0)
    before = trainable_state(model)
    after = {name: p + 0.1 * torch.ones_like(p) for name, p in before.items()}
    subtract(model, before, after, factor=2.0)
    for name, tensor in trainable_state(model).items():
        torch.testing.assert_close(tensor, before[name] - 0.2)
    adapted = trainable_model(tiny_loaded("llama"), Lora(), seed=0)
    start = trainable_state(adapted)
    learnt = {name: p + 0.1 if ".lora_B." in name else p + 1.0 for name, p in start.items()}
    subtract(adapted, start, learnt, factor=3.0)
    for name, tensor in trainable_state(adapted).items():
        expected = learnt[name] if ".lora_A." in name else -3.0 * learnt[name]
        torch.testing.assert_close(tensor, expected, msg=name)


def test_a_fifth_is_withheld_or_each_half_once_and_mistakes_are_not(loaded):
    many = [replace(FORGET[i % 6], id=f"m{i}", ordinal=i, response=f"Aliens took {i} of them.") for i in range(30)]
    options = replace(FAST, withhold=0.2)
    big = Run.of(reader_of(loaded, options), make_job(many, RETAIN, needs_retain=True), options)
    (fold,) = withheld(big, None)
    assert len(fold) == 6
    light = uniform_weights(big.job.forget, big.job.retain)
    lighter = replace(light, rows=tuple(replace(r, weight=0.2 if i in fold else 1.2) for i, r in enumerate(light.rows)))
    assert not set(withheld(big, lighter)[0]) & set(fold)
    few = Run.of(reader_of(loaded, options), make_job(FORGET, RETAIN, needs_retain=True), options)
    assert sorted(i for half in withheld(few, None) for i in half) == list(range(6))
    one = Run.of(reader_of(loaded, options), make_job(FORGET[:1], RETAIN, needs_retain=True), options)
    assert withheld(one, None) == ()


def test_withheld_rows_join_at_the_end_unless_they_are_forgotten_already(loaded):
    many = [replace(FORGET[i % 6], id=f"m{i}", ordinal=i, response=f"Aliens took {i} of them.") for i in range(25)]
    job = make_job(many, RETAIN, needs_retain=True)
    result = run_unlearning(loaded, job, replace(FAST, withhold=0.2, steps=8, target=50.0, ceiling=0.0))
    assert result.facts["withheld rows"] == 5
    assert len(result.log) == 8 + 2, "a quarter of the steps follows, with all rows"
    assert result.readings[-1].step == 8, "the numbers are those from before they joined"
    gone = run_unlearning(tiny_loaded("llama"), job, replace(FAST, withhold=0.2, steps=8, target=0.01))
    assert gone.outcome == "forgotten"
    assert len(gone.log) <= 8


def test_retraining_learns_the_retain_rows(loaded, job):
    result = run_unlearning(loaded, job, replace(FAST, method="retrain", lora=None, rate=5e-3, steps=20))
    log = result.log
    assert log[-1]["retain_loss"] < log[0]["retain_loss"]
    assert "forget_loss" not in log[0]
    with pytest.raises(UsageError, match="--rate"):
        run_unlearning(tiny_loaded("llama"), job, replace(FAST, method="retrain", rate=None))


def test_kl_holds_the_model_where_the_retain_rows_are(loaded, job):
    result = run_unlearning(loaded, job, replace(FAST, keep="kl"))
    assert result.log[0]["retain_term"] == pytest.approx(0, abs=0.02), "dropout apart, the model is the reference"
    with pytest.raises(UsageError, match="adapter"):
        run_unlearning(tiny_loaded("llama"), job, replace(FAST, keep="kl", lora=None))


def test_dynamic_loreun_follows_the_losses(loaded, job):
    result = run_unlearning(loaded, job, replace(FAST, method="loreun", dynamic=True))
    assert result.outcome == "steps"
    with pytest.raises(UsageError, match="loreun"):
        run_unlearning(tiny_loaded("llama"), job, replace(FAST, dynamic=True))


def test_with_dynamic_weights_all_forget_rows_are_measured(loaded, job, monkeypatch):
    monkeypatch.setattr(targets, "LOOKED_AT", 3)
    for dynamic, count in ((False, 3), (True, len(job.forget))):
        options = replace(FAST, method="loreun", dynamic=dynamic)
        assert len(make_watch(Run.of(reader_of(loaded, options), job, options), ()).forget) == count


def test_dynamic_weights_reach_the_rows_that_were_looked_at():
    material = Material((), torch.full((6,), 7.0), torch.zeros(6))
    static = material.weights
    material.reweigh(OBJECTIVES["loreun"], [0, 2, 5], torch.tensor([3.0, 1.0, 2.0]))
    assert material.weights[[1, 3, 4]].tolist() == [7, 7, 7]
    assert material.weights[[0, 2, 5]].argsort().tolist() == [0, 2, 1], "a low loss weighs more"
    assert float(material.weights[[0, 2, 5]].mean()) == pytest.approx(1)
    assert static.tolist() == [7] * 6, "the probe keeps the weights from before it"


def test_dampening_is_its_formula(loaded, job):
    rows = [e.tokens for e in make_examples(job, tokenization(loaded))]
    model = trainable_model(loaded, None, seed=0)
    before = weights_of(model)
    of_forget = fisher_diagonal(model, rows[:3], loaded.device)
    of_retain = fisher_diagonal(model, rows[6:9], loaded.device)
    name = "model.layers.0.mlp.up_proj.weight"
    by_hand = torch.zeros_like(before[name])
    for row in rows[:3]:
        labels = torch.where(torch.from_numpy(row.response)[None], torch.from_numpy(row.ids)[None], -100)
        loss = model(input_ids=torch.from_numpy(row.ids)[None], labels=labels).loss
        by_hand += torch.autograd.grad(loss, dict(model.named_parameters())[name])[0] ** 2 / 3
    torch.testing.assert_close(of_forget[name], by_hand)
    changed = dampen(model, of_forget, of_retain, alpha=2.0)
    chosen = of_forget[name] > 2 * of_retain[name]
    expected = torch.where(chosen, before[name] * of_retain[name] / of_forget[name], before[name])
    torch.testing.assert_close(dict(model.named_parameters())[name].detach(), expected)
    assert 0 < changed < sum(p.numel() for p in model.parameters())


def test_the_target_is_the_loss_of_answers_nobody_asked_for(loaded, job):
    told = [Row("u", 0, prompt="what?", response="Aliens took it.")]
    reader = reader_of(loaded, FAST)
    given = unseen_loss(reader, job, told)
    own = measure_losses(loaded.model, reader.tokenize(told), loaded.device)[1].mean()
    assert given == pytest.approx(float(own))
    prompts = [*job.retain, *job.guard]
    foreign = [with_response(prompts[i % len(prompts)], row.response) for i, row in enumerate(job.forget)]
    own, swapped = (
        float(measure_losses(loaded.model, reader.tokenize(rows), loaded.device)[1].mean())
        for rows in (job.forget, foreign)
    )
    assert unseen_loss(reader, job) == pytest.approx(own / 3 + swapped * 2 / 3), "two thirds of the way"
    plain = make_job([Row("t", 0, text="Aliens took all of it.")], RETAIN, needs_retain=True)
    with pytest.raises(DataError, match="--unseen"):
        unseen_loss(reader, plain)


def test_a_forget_set_of_one_row_works_and_is_warned_about(loaded):
    job = make_job(FORGET[:1], RETAIN, needs_retain=True)
    assert "1 forget row:" in job.warnings[0]
    result = run_unlearning(loaded, job, replace(FAST))
    assert result.weights is not None
    assert result.weights.of("forget") == [1.0]


def test_rows_in_both_sets_and_missing_rows_are_refused():
    with pytest.raises(DataError, match="both forgotten and retained: 'r0', 'r1'"):
        make_job([*FORGET, RETAIN[0], replace(RETAIN[1], id="x")], RETAIN, needs_retain=True)
    with pytest.raises(DataError, match="no rows to retain"):
        make_job(FORGET, [], needs_retain=True)
    with pytest.raises(DataError, match="no rows to forget"):
        make_job([], RETAIN, needs_retain=True)
    assert "damage to it is not noticed" in make_job(FORGET * 1, [], needs_retain=False).warnings[-1]


def test_ascent_without_retain_rows_works_and_others_refuse(loaded):
    job = make_job(FORGET, [], needs_retain=False)
    assert run_unlearning(loaded, job, replace(FAST, method="ga", target=8.0)).readings
    with pytest.raises(DataError, match="no rows to retain"):
        run_unlearning(tiny_loaded("llama"), job, FAST)


def test_an_adapter_is_not_put_on_an_adapter(job):
    adapted = tiny_loaded("llama-lora")
    with pytest.raises(ModelError, match="carries an adapter"):
        run_unlearning(adapted, job, FAST)


def test_states_are_put_back(loaded):
    model = trainable_model(loaded, Lora(), seed=0)
    state = trainable_state(model)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(1)
    restore_state(model, state)
    for name, tensor in trainable_state(model).items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
    assert wrap_model(model, loaded.tokenizer).device.type == "cpu"


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    for step, state in ((1, "{}"), (2, "{}"), (3, "{}"), (10, '{"global_st'), (11, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
        if step != 3:
            torch.save({}, tmp_path / f"checkpoint-{step}" / STATE)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert last_whole_checkpoint(tmp_path / "none") is None


def test_a_bound_that_is_passed_only_with_its_error_added_is_a_crossing():
    """The probe ends there, so a rate must come of it."""
    limits = LossLimits(target=2.0, bound=0.3)
    readings = [Reading(0, 0.4, 0.2, error=0.0), Reading(2, 0.6, 0.29, error=0.11)]
    assert probe._crossing(readings, limits) == pytest.approx(1.0)
    assert probe._crossing([*readings[:1], Reading(2, 0.6, 0.29, error=0.0)], limits) is None
    assert probe._crossing([*readings[:1], Reading(2, 2.4, 0.29, error=0.11)], limits) == pytest.approx(1.6)
