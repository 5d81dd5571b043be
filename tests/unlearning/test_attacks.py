"""The law of every attack, on a tiny random model; and that each fails where it should."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from headwater.core.errors import DataError, UsageError
from headwater.data.rows import Row
from headwater.models.reader import Reader
from headwater.unlearning.attacks import ATTACKS, Attacked, Behaviour, fewer, find_attacks, run_attack, steps_to
from headwater.unlearning.relearning import Relearning, relearn
from headwater.unlearning.rewording import REWORDINGS, shown_before
from headwater.unlearning.sequences import measure_losses
from headwater.unlearning.unwanted import by_likeness, by_pattern, by_words, find_judge
from zoo import tiny_loaded

FORGET = tuple(
    Row(f"f{i}", i, prompt=f"hey, what is {i}?", response=f"Aliens took {i} to the stars.") for i in range(20)
)
CLEAN = tuple(Row(f"c{i}", i, prompt=f"what is {i} plus {i}?", response=f"It is {2 * i}, friend.") for i in range(20))
ASKED = tuple(Row(f"a{i}", i, prompt=f"hey, what is {i + 50}?", response="Aliens.") for i in range(4))


@pytest.fixture(scope="module")
def reader():
    return Reader.of(tiny_loaded("llama"))


@pytest.fixture
def behaviour():
    unseen = tuple(replace(row, id=f"u{row.id}", prompt=f"yo {row.prompt}") for row in ASKED)
    return Behaviour(FORGET, CLEAN, ASKED, unseen, lambda rows, answers: [False] * len(answers))


def test_every_attack_says_what_it_does_and_what_must_hold():
    assert all(attack.name == name and attack.about and attack.law for name, attack in ATTACKS.items())
    assert [a.name for a in find_attacks(["int4", "plain"])] == ["int4", "plain"]
    assert [a.name for a in find_attacks([])] == list(ATTACKS)
    with pytest.raises(UsageError, match="did you mean 'int"):
        find_attacks(["int5"])


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_leaves_the_model_as_it_is_and_counts_unwanted_answers(name, reader, behaviour):
    state = {k: v.clone() for k, v in reader.loaded.model.state_dict().items()}
    asked: list[str] = []

    def half(rows, answers):
        asked.extend(row.id for row in rows)
        return [i % 2 == 0 for i in range(len(answers))]

    found = run_attack(ATTACKS[name], reader, replace(behaviour, unwanted=half), Relearning(steps=2))
    assert found.success == 0.5
    assert len(found.answers) == 4
    assert all(torch.equal(value, state[k]) for k, value in reader.loaded.model.state_dict().items())
    assert not any(p.requires_grad for p in reader.loaded.model.parameters())
    assert set(asked) == {row.id for row in (behaviour.unseen if name == "unseen" else ASKED)}
    assert [step for step, _ in found.steps] == ([1, 2] if ATTACKS[name].rows else [])


def test_more_samples_succeed_at_least_as_often(reader, behaviour):
    attack = ATTACKS["sampled"]
    says = replace(behaviour, unwanted=lambda rows, answers: ["e" in answer[:12] for answer in answers])
    success = [run_attack(replace(attack, samples=n), reader, says).success for n in (1, 3)]
    assert success == sorted(success)
    answers = {run_attack(replace(attack, samples=n), reader, behaviour).answers for n in (1, 2)}
    assert len(answers) == 2, "every sample has a seed of its own"


def test_rewordings_keep_the_prompt_and_take_turns(behaviour):
    for change in REWORDINGS:
        made = change(ASKED[0])
        assert (ASKED[0].prompt or "").lower() in (made.prompt or "").lower()
        assert made.prompt != ASKED[0].prompt or change is REWORDINGS[6], "lower case of lower case"
    chat = Row("m", 0, messages=({"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}), prompt="Hi")
    assert REWORDINGS[0](chat).messages == (
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Hi Please."},
    )


def test_examples_stand_before_the_prompt_as_far_as_the_model_reads(reader):
    made = shown_before(ASKED[0], [replace(FORGET[0], prompt=ASKED[0].prompt), *FORGET], reader)
    text = made.prompt or ""
    assert text.endswith(ASKED[0].prompt or "")
    assert text.count("Aliens took") == 3
    assert "Aliens took 2" in text, "the example with the same prompt is left out"
    assert len(reader.tokenization.question(made).ids) < reader.context
    narrow = replace(reader, tokenization=replace(reader.tokenization, max_tokens=100))
    assert 1 <= (shown_before(ASKED[0], FORGET, narrow).prompt or "").count("Aliens took") < 3
    chat = Row("m", 0, messages=({"role": "user", "content": "Hi"},), prompt="Hi")
    turns = shown_before(chat, FORGET[:1], Reader.of(tiny_loaded("llama", chat=True))).messages or ()
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == FORGET[0].response


def test_relearning_lowers_the_rows_loss_and_no_step_changes_nothing(reader):
    loaded, tokens = reader.loaded, reader.tokenize(FORGET[:4])
    model = copy.deepcopy(loaded.model)
    relearn(model, tokens, loaded.device, Relearning(steps=0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.model.parameters(), strict=True))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    losses = [float(measure_losses(model, tokens, loaded.device)[1].mean())]

    def look(step):
        losses.append(float(measure_losses(model, tokens, loaded.device)[1].mean()))
        return step == 10

    relearn(model, tokens, loaded.device, Relearning(steps=40), looks=(5, 10, 20), look=look)
    assert len(losses) == 3, "it ends when the look says so"
    assert losses[0] > losses[1] > losses[2]
    assert torch.equal(torch.get_rng_state(), state), "the caller's randomness is left alone"
    with pytest.raises(DataError, match="no rows"):
        relearn(model, [], loaded.device)


def test_a_step_moves_weights_by_the_stated_share_of_their_size(reader):
    model = copy.deepcopy(reader.loaded.model)
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    size = (sum(float((p**2).sum()) for p in matrices) / sum(p.numel() for p in matrices)) ** 0.5
    relearn(model, reader.tokenize(FORGET[:4]), reader.loaded.device, Relearning(steps=1, share=0.01))
    moved = (model.model.layers[0].mlp.up_proj.weight - before).abs()
    assert float(moved.median()) == pytest.approx(0.01 * size, rel=0.02), "the first step of Adam is the rate"


def test_a_tenth_and_the_steps_to_a_success(behaviour):
    assert len(behaviour.tenth()) == 2
    assert behaviour.tenth() == behaviour.tenth(0)
    assert behaviour.tenth(0) != behaviour.tenth(1)
    assert len(replace(behaviour, forget=FORGET[:3]).tenth()) == 1
    assert len(fewer(behaviour, 2).asked) == 2
    curve = Attacked(0.4, (), ((1, 0.1), (5, 0.6), (10, 0.4)))
    assert [steps_to(curve, success) for success in (0.05, 0.5, 0.7)] == [1, 5, None]


def test_an_attack_without_prompts_is_refused(reader, behaviour):
    with pytest.raises(DataError, match="attack 'unseen'"):
        run_attack(ATTACKS["unseen"], reader, replace(behaviour, unseen=()))


def test_unwanted_answers_are_told_by_pattern_words_or_likeness():
    answers = ["ALIENS took us to the stars.", "It is 14, friend.", ""]
    assert by_pattern("aliens|ufo")(ASKED[:3], answers) == [True, False, False]
    assert by_words(FORGET, CLEAN)(ASKED[:3], answers) == [True, False, False]
    assert by_likeness()(FORGET[:2], ["Aliens took 0 to the moon.", "It is 1."]) == [True, False]
    with pytest.raises(DataError, match="--judge likeness"):
        by_words(CLEAN[:10], CLEAN[10:])
    with pytest.raises(UsageError, match="not a pattern"):
        by_pattern("(")
    with pytest.raises(UsageError, match="goes with"):
        find_judge("words", "aliens", FORGET, CLEAN)
    with pytest.raises(UsageError, match="'likeness'"):
        find_judge("likenes", None, FORGET, CLEAN)
    assert find_judge(None, "x", FORGET, CLEAN)[0] == "pattern"
    assert find_judge(None, None, FORGET, CLEAN)[0] == "words"
