"""Checkpoints are recorded by the user's own training run, read back, and summed with their learning rates."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import Trainer, TrainingArguments

from headwater.core.errors import DataError
from headwater.data.batches import Window, plan_batches
from headwater.features.exact import exact_scores
from headwater.methods.catalog import find_method
from headwater.models.checkpoints import LIST, read_checkpoints
from headwater.models.load import load_model
from headwater.training.recorder import Recorder
from oracles.gradient_oracles import random_rows
from zoo import tiny_tokenizer, zoo


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(8)]
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 2, "learning_rate": 1e-3, "report_to": []}
    trainer = Trainer(
        model=zoo()["llama"]().train(),
        args=TrainingArguments(str(folder / "out"), use_cpu=True, save_strategy="no", disable_tqdm=True, **settings),
        train_dataset=data,
        processing_class=tiny_tokenizer(),
        callbacks=[Recorder(folder / "seen", every=3)],
    )
    trainer.train()
    return folder / "seen"


def test_a_run_is_recorded(recorded):
    found = read_checkpoints(recorded)
    assert [c.step for c in found] == [3, 6, 8]
    assert found[0].learning_rate > found[1].learning_rate > found[2].learning_rate > 0


def test_tracin_is_the_weighted_sum_over_checkpoints(recorded):
    loaded = load_model(read_checkpoints(recorded)[0].path)
    encoder = find_method("tracin", {"sketch": "identity", "checkpoints": str(recorded)}).require_vectors().bind(loaded)
    (batch,) = plan_batches(random_rows((9, 14, 6)), Window(64))
    vectors = encoder.encode(batch, "train").vectors
    found = sum(c.weight * vectors[c.name] @ vectors[c.name].T for c in encoder.columns)
    truth = sum(
        c.learning_rate * exact_scores(load_model(c.path), [batch], [batch], normalize="none")
        for c in read_checkpoints(recorded)
    )
    torch.testing.assert_close(found, truth, rtol=1e-3, atol=1e-6)
    scores = encoder.token_scores(batch, "train", vectors)
    for row, one in enumerate(scores):
        total = sum(c.weight * one.values[c.name].sum(0) for c in encoder.columns)
        torch.testing.assert_close(total, truth[row], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("weights", ["rate", "equal"])
def test_rapidin_sums_normalised_scores_over_checkpoints(recorded, weights):
    loaded = load_model(read_checkpoints(recorded)[0].path)
    settings = {"sketch": "identity", "checkpoints": str(recorded), "weights": weights}
    encoder = find_method("rapidin", settings).require_vectors().bind(loaded)
    (batch,) = plan_batches(random_rows((9, 14, 6)), Window(64))
    vectors = encoder.encode(batch, "train").vectors
    found = sum(c.weight * vectors[c.name] @ vectors[c.name].T for c in encoder.columns)
    truth = sum(
        (c.learning_rate if weights == "rate" else 1 / 3) * exact_scores(load_model(c.path), [batch], [batch])
        for c in read_checkpoints(recorded)
    )
    torch.testing.assert_close(found, truth, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(encoder.exact_scores([batch], [batch]), truth, rtol=1e-4, atol=1e-6)


def test_lists_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(DataError, match="no list of checkpoints"):
        read_checkpoints(tmp_path)
    (tmp_path / LIST).write_text('{"steps": 3}')
    with pytest.raises(DataError, match="not a list of checkpoints"):
        read_checkpoints(tmp_path)
    (tmp_path / LIST).write_text('[{"path": "step-1", "step": Infinity, "learning_rate": 0.1}]')
    with pytest.raises(DataError, match="not a list of checkpoints"):
        read_checkpoints(tmp_path)
    (tmp_path / LIST).write_text(json.dumps([{"path": "step-1", "step": 1, "learning_rate": 0.1}]))
    with pytest.raises(DataError, match="step-1' is gone"):
        read_checkpoints(tmp_path)


@pytest.mark.parametrize("rate", ["NaN", "Infinity", "-0.001"])
def test_a_rate_that_no_run_had_is_refused(rate, tmp_path):
    (tmp_path / "step-1").mkdir()
    listed = f'[{{"path": "step-1", "step": 1, "learning_rate": {rate}}}]'
    (tmp_path / "checkpoints.json").write_text(listed)
    with pytest.raises(DataError, match=r"checkpoints.json: the checkpoint of step 1 has.*rate (nan|inf|-)"):
        read_checkpoints(tmp_path)
    (tmp_path / "checkpoints.json").write_text(listed.replace(rate, "0"))
    assert read_checkpoints(tmp_path)[0].learning_rate == 0


def test_two_checkpoints_of_one_step_are_two(recorded, tmp_path):
    first = read_checkpoints(recorded)[0]
    listed = [{"path": str(tmp_path / name), "step": 3, "learning_rate": 0.5} for name in ("left", "right")]
    for entry in listed:
        shutil.copytree(first.path, entry["path"])
    (tmp_path / LIST).write_text(json.dumps(listed))
    loaded = load_model(first.path)
    two = find_method("tracin", {"checkpoints": str(tmp_path), "buckets": "64"}).require_vectors().bind(loaded)
    assert [column.name for column in two.columns] == ["gradient@left", "gradient@right"]
    one = find_method("graddot", {"buckets": "64"}).require_vectors().bind(loaded)
    (batch,) = plan_batches(random_rows((9, 14, 6)), Window(64))
    once = one.encode(batch, "train").vectors["gradient"]
    vectors = two.encode(batch, "train").vectors
    found = sum(c.weight * vectors[c.name] @ vectors[c.name].T for c in two.columns)
    torch.testing.assert_close(found, once @ once.T, rtol=1e-3, atol=1e-6)
