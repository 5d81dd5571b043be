"""`--method auto`: each branch of the rule, and what it refuses."""

from __future__ import annotations

import logging
import time

import pytest

import headwater as hw
from headwater.core.errors import StoreError, UsageError
from headwater.indexing import choosing
from headwater.training.recorder import Recorder
from headwater.training.tiny import Recipe, train_tiny
from zoo import SENTENCES, tiny_loaded

ROWS = [{"id": f"r{i}", "text": f"{text} {i}"} for i, text in enumerate(SENTENCES)]


@pytest.fixture(scope="module")
def loaded():
    return tiny_loaded("llama")


def test_a_plan_counts_the_time_of_what_is_fitted_first(loaded, monkeypatch):
    """The fit takes long here, so the plan does."""
    real = choosing.prepared_beside

    def slow(*given, **how):
        time.sleep(1)
        return real(*given, **how)

    monkeypatch.setattr(choosing, "prepared_beside", slow)
    assert hw.plan(model=loaded, data=ROWS, method="ekfac-cos").seconds > 1


def test_without_a_run_gradients_are_read(tmp_path, loaded, caplog):
    with caplog.at_level(logging.WARNING):
        index = hw.build(tmp_path / "a.lance", model=loaded, data=ROWS, method="auto")
    assert index.manifest.method.name == "ekfac-cos"
    assert "the method is ekfac-cos, because gradients can be read, and no training run was given" in caplog.text


def test_with_a_recorded_run_it_is_read_midway(tmp_path):
    recorder, recipe = Recorder(tmp_path / "run", every=1), Recipe(layers=1, width=16, heads=2, context=64, epochs=1)
    train_tiny(ROWS, out=tmp_path / "model", seed=0, recipe=recipe, recorder=recorder)
    settings = {"checkpoints": str(tmp_path / "run")}
    where = {"model": str(tmp_path / "model"), "data": ROWS, "method": "auto", "settings": settings}
    assert hw.plan(**where).bytes_per_row["vectors"] < 5_000
    spec = hw.build(tmp_path / "a.lance", **where).manifest.method
    assert (spec.name, spec.options["checkpoints"]) == ("ekfac-cos", settings["checkpoints"])


def test_where_gradients_do_not_fit_it_is_forward_passes(tmp_path, loaded, monkeypatch):
    real = choosing.plan_build

    def small_machine(corpus, bound, **given):
        if bound.form.backward:
            raise StoreError("even the smallest batches need more memory")
        return real(corpus, bound, **given)

    monkeypatch.setattr(choosing, "plan_build", small_machine)
    index = hw.build(tmp_path / "a.lance", model=loaded, data=ROWS, method="auto", max_disk="1GB")
    assert index.manifest.method.name == "rise"
    monkeypatch.setattr(choosing, "plan_build", lambda *_, **__: (_ for _ in ()).throw(StoreError("too small")))
    with pytest.raises(StoreError, match="too small"):
        hw.build(tmp_path / "b.lance", model=loaded, data=ROWS, method="auto", max_disk="1GB")


def test_an_unusual_readout_does_not_matter(tmp_path):
    loaded = tiny_loaded("llama")
    forward = loaded.model.forward

    def bent(*given, **named):
        found = forward(*given, **named)
        found.logits = found.logits + 0.3 * found.logits.sin()
        return found

    loaded.model.forward = bent
    index = hw.build(tmp_path / "a.lance", model=loaded, data=ROWS, method="auto")
    assert index.manifest.method.name == "ekfac-cos"


def test_a_resumed_build_keeps_its_method(tmp_path, loaded):
    index = hw.build(tmp_path / "a.lance", model=loaded, data=ROWS, method="rise")
    again = hw.build(tmp_path / "a.lance", model=loaded, data=ROWS, method="auto", resume=True)
    assert again.manifest.method == index.manifest.method


def test_an_option_of_one_method_is_refused(tmp_path, loaded):
    with pytest.raises(UsageError, match="'buckets' is an option of a method, and the method is yet to be chosen"):
        hw.build(tmp_path / "a.lance", model=loaded, data=ROWS, method="auto", settings={"buckets": 4096})
