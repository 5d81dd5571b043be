"""Scores of a pool that are kept: nothing is computed twice, and a stopped run goes on."""

import numpy as np
import pytest

from headwater.evaluation import choosing
from headwater.evaluation.choosing import Chooser
from headwater.methods.catalog import find_method
from headwater.methods.scoring import attribute
from headwater.methods.targets import Target
from headwater.models.reader import Reader
from headwater.training.tiny import task_rows
from zoo import SENTENCES, tiny_loaded

WORDS = " ".join(SENTENCES).split()


def records(count: int, seed: int) -> list[dict]:
    dice = np.random.default_rng(seed)
    return [
        {"id": f"r{seed}-{i}", "prompt": " ".join(dice.choice(WORDS, 3)), "response": " ".join(dice.choice(WORDS, 5))}
        for i in range(count)
    ]


READER = Reader.of(tiny_loaded("llama"))
ROWS, TARGET = tuple(task_rows(records(60, 0))), Target("words", tuple(task_rows(records(16, 1))))


def chooser(folder, **more):
    return Chooser(folder, READER, ROWS, TARGET, **more)


def test_a_stopped_run_goes_on_and_ends_with_the_methods_own_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "BLOCK_ROWS", 16)
    blocks: list[int] = []

    def stop(done: int, _: int) -> None:
        blocks.append(done)
        if len(blocks) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chooser(tmp_path, on_rows=stop).scores("rise", seed=0, labels=0)
    again: list[tuple[int, int]] = []
    found = chooser(tmp_path, on_rows=lambda *at: again.append(at)).scores("rise", seed=0, labels=0)
    assert again == [(16, 28), (28, 28)]  # 32 of the 60 rows were kept
    expected = attribute(find_method("rise"), READER, ROWS, [TARGET]).values[:, 0]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)
    assert found.seconds > 0


def test_a_teachers_scores_teach_the_student_and_are_not_computed_again(tmp_path, monkeypatch):
    label, labels = "alinfik:teacher=rise,members=1,sources=words", 40
    apart = chooser(tmp_path / "apart")
    alone = apart.scores(label, seed=3, labels=labels)
    assert np.isfinite(alone.values).all()
    kept = chooser(tmp_path / "shared")
    kept.scores("rise", seed=0, labels=0)
    monkeypatch.setattr(choosing, "prepare", lambda *_: pytest.fail("a row was scored again"))
    np.testing.assert_allclose(kept.scores(label, seed=3, labels=labels).values, alone.values, rtol=1e-3, atol=1e-6)
    assert (kept.scores(label, seed=4, labels=labels).values != alone.values).any()


def test_scores_of_another_target_are_not_taken(tmp_path):
    first = chooser(tmp_path).scores("rise", seed=0, labels=0)
    other = Target("words", tuple(task_rows(records(16, 2))))
    second = Chooser(tmp_path, READER, ROWS, other).scores("rise", seed=0, labels=0)
    assert (first.values != second.values).any()
