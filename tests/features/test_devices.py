"""Laws of devices: every step of a batch stays where its tensors are, on one accelerator and on two.

The accelerators are labels on CPU tensors (`oracles.logical_devices`), which fail where real ones would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.core.errors import ModelError
from headwater.curvature.gram import Metric, fit_metric
from headwater.data.batches import Window
from headwater.data.corpus import open_corpus
from headwater.features.totals import Totals
from headwater.methods import magic
from headwater.methods.bound import Bound
from headwater.methods.catalog import vector_method
from headwater.models import heads
from headwater.models.reader import Reader
from headwater.search.scan import top_k
from oracles.fake_method import fake_build, records
from oracles.logical_devices import Devices, MixedDevicesError
from zoo import tiny_loaded

ROWS = [{"id": f"r{i}", "prompt": f"question {i}?", "response": "so " * (i % 4 + 1) + str(i)} for i in range(3)]
METHODS = {"rise": {"preset": "small"}, "rapidin": {"buckets": 4096}, "logra": {}}
ALLOWED = {"methods/gathered.py", "search/codes.py", "features/proof.py"}
"""Where numbers leave the device: vectors and losses as they are stored, and once what proves the model's gradients."""


def stored(name: str, put: Callable[[Devices, Any], None] | None = None) -> tuple[Any, set[str]]:
    """The vectors of the rows, and which files moved something to the CPU."""
    loaded, method, devices = tiny_loaded("llama"), vector_method(name, METHODS[name]), Devices()

    def read() -> Any:
        bound = Bound.of(method, Reader.of(loaded))
        return bound.stored(bound.tokenize(list(open_corpus(ROWS)), "train"), bound.encoder.columns)[0]

    if put is None:
        return read(), set()
    with devices:
        put(devices, loaded.model)
        loaded = replace(loaded, device=torch.device("cuda:0"))
        return read(), devices.moves


def on_one(devices: Devices, model: Any) -> None:
    devices.put(model, "cuda:0", moves=False)


def on_two(devices: Devices, model: Any) -> None:
    first, second = model.model.layers
    for part in (model.model.embed_tokens, model.model.rotary_emb, first):
        devices.put(part, "cuda:0")
    devices.put(second, "cuda:1")
    for part in (model.model.norm, model.lm_head):  # they follow the last layer
        devices.put(part, "cuda:1", moves=False)


@pytest.mark.parametrize("name", METHODS)
def test_the_vectors_are_those_of_the_cpu_and_leave_the_device_once(name: str) -> None:
    plain, _ = stored(name)
    for put in (on_one, on_two):
        found, moves = stored(name, put)
        for column, values in plain.items():
            assert np.allclose(values.astype(float), found[column].astype(float), atol=2e-3), (column, put)
        assert moves <= ALLOWED


def planted(monkeypatch: pytest.MonkeyPatch, place: str, change: Callable[[Any], Any]) -> None:
    """Have a function of headwater give its result changed."""
    module, _, name = place.rpartition(".")
    real = getattr(__import__(module, fromlist=[name]), name)
    monkeypatch.setattr(place, lambda *given, **how: change(real(*given, **how)))


FEATURES, SKETCH = "headwater.features.readout_sketch.count_sketch_matrix", "headwater.sketch.two_sided._projection"


@pytest.mark.parametrize(
    ("name", "place"), [("rise", FEATURES), ("rapidin", "headwater.sketch.shift.unit_scale"), ("logra", SKETCH)]
)
@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_planted_move_is_caught(name: str, place: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(result: Any) -> Any:
        return tuple(t.to(device) for t in result) if isinstance(result, tuple) else result.to(device)

    planted(monkeypatch, place, moved)
    with pytest.raises((MixedDevicesError, ModelError), match="of tensors on"):
        stored(name, on_one)


@pytest.mark.parametrize(("name", "place"), [("rise", FEATURES), ("logra", SKETCH)])
def test_a_move_there_and_back_is_caught(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(tensor: Any) -> Any:
        return tensor.cpu().to(tensor.device)

    planted(monkeypatch, place, lambda found: tuple(map(waits, found)) if isinstance(found, tuple) else waits(found))
    assert not stored(name, on_one)[1] <= ALLOWED


def test_a_head_that_runs_in_parts_stays_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = stored("rapidin")
    monkeypatch.setattr(heads, "LOGITS_BYTES", dict.fromkeys(heads.LOGITS_BYTES, 4 * 3 * 4 * 300))
    for put in (on_one, on_two):
        found, moves = stored("rapidin", put)
        for column, values in plain.items():
            assert np.allclose(values.astype(float), found[column].astype(float), atol=2e-3), (column, put)
        assert moves <= ALLOWED
    real = heads.Head.logits
    monkeypatch.setattr(heads.Head, "logits", lambda self, states: real(self, states).cpu())
    assert "models/heads.py" in stored("rapidin", on_one)[1]


def fitted_on(devices: Devices) -> None:
    """A metric is fitted on a device and applied to rows and queries there."""
    vectors = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)).to("cuda:0")
    metric = fit_metric(Metric(0.1, row_norm="metric", query_norm="step", uncertain=True), vectors.split(5))
    scaled = metric.probes(vectors) * metric.row_scale(vectors, torch.ones(12).to("cuda:0"))[:, None]
    assert {str(one.device) for one in (scaled, *metric.factors)} == {"cuda:0"}
    assert not devices.moves


def test_a_metric_stays_where_its_vectors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with Devices() as devices:
        fitted_on(devices)
    for device in ("cpu", "cuda:1"):
        with monkeypatch.context() as patch, Devices() as devices:
            planted(patch, "headwater.curvature.gram._factor", lambda found, to=device: (found[0].to(to), found[1]))
            with pytest.raises((MixedDevicesError, AssertionError)):
                fitted_on(devices)


def test_sums_of_two_devices_in_one_place_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Totals.on
    monkeypatch.setattr(Totals, "on", lambda self, device, dtype=torch.float32: real(self, self.home, dtype))
    with pytest.raises(MixedDevicesError):
        stored("rapidin", on_two)


def test_a_search_is_computed_where_the_queries_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = fake_build(tmp_path / "a.lance", records(20))
    probes = {"vector": torch.randn(2, 24, generator=torch.Generator().manual_seed(0))}
    plain = top_k(index, probes, 3)
    with Devices() as devices:
        far = {name: probe.to("cuda:0") for name, probe in probes.items()}
        assert [[hit.address for hit in hits] for hits in top_k(index, far, 3)] == [
            [h.address for h in p] for p in plain
        ]
        assert devices.moves <= {"search/scan.py"}
    for device in ("cpu", "cuda:1"):
        with monkeypatch.context() as patch:
            planted(
                patch, "headwater.search.scan.product", lambda multiply, to=device: lambda rows: multiply(rows).to(to)
            )
            with Devices(), pytest.raises(MixedDevicesError):
                top_k(index, {name: probe.to("cuda:0") for name, probe in probes.items()}, 3)


def test_queries_of_a_repeated_training_are_where_the_model_is() -> None:
    loaded = tiny_loaded("llama")
    with Devices() as devices:
        devices.put(loaded.model, "cuda:0", moves=False)
        reader = Reader.of(replace(loaded, device=torch.device("cuda:0")))
        (batch,) = magic._single(reader, list(open_corpus(ROWS[:1])), Window(64))
        assert {str(batch.input_ids.device), str(batch.targets.device)} == {"cuda:0"}
