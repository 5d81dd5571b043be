"""Laws of a plan without weights: its parameters, columns and disk are those of the model, and it reads no weight."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import headwater as hw
from headwater.api.indexing import plan
from headwater.api.planning import forecast
from headwater.cli.main import run
from headwater.core.errors import ModelError, UsageError
from headwater.data.corpus import open_corpus
from headwater.indexing.forecast import PEAKS
from headwater.indexing.live_bytes import LiveBytes
from headwater.methods.bound import Bound
from headwater.methods.catalog import vector_method
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.models.weightless import shapes_of_model
from zoo import tiny_tokenizer, zoo

ROWS = [{"id": f"r{i}", "prompt": f"question {i}?", "response": "so " * (i % 9) + str(i * i)} for i in range(60)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    zoo()["qwen3"]().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["rise", "rapidin", "logra", "trak"])
def test_columns_and_parameters_are_those_of_the_model(place: Path, name: str) -> None:
    shapes, real = (
        Bound.of(vector_method(name), Reader.of(loaded)).encoder
        for loaded in (shapes_of_model(str(place)), load_model(str(place)))
    )
    assert shapes.coverage == real.coverage
    assert shapes.columns == real.columns


def test_a_forecast_is_near_the_plan(place: Path) -> None:
    given = {"data": ROWS, "method": "rapidin", "settings": {"preset": "small"}, "tokens_per_batch": 1024}
    found, real = forecast(model=str(place), **given), plan(model=place, **given)
    assert found.disk == pytest.approx(real.disk, rel=0.05)
    assert (found.rows, found.tokens) == (real.rows, real.tokens)
    assert sum(found.memory.values()) == pytest.approx(real.memory, rel=0.3)
    assert found.memory["weights"] == 4 * found.total + 2 * 4 * 4  # and the two buffers of rotations
    assert found.seconds is None


@pytest.mark.parametrize("name", ["ekfac-cos", "concord"])
def test_what_is_fitted_first_is_counted(place: Path, tmp_path: Path, name: str) -> None:
    given = {"data": ROWS, "method": name, "columns": {}}
    found, plain = forecast(model=str(place), **given), forecast(model=str(place), **{**given, "method": "graddot"})
    hw.build(tmp_path / "x.lance", model=place, **given)
    size = (tmp_path / "x.curvature.safetensors").stat().st_size
    assert found.memory["fitted"] == pytest.approx(size, rel=0.05)
    assert found.disk == pytest.approx(plan(model=place, **given).disk, rel=0.05)
    assert found.flops > 3 * plain.flops, "nine passes for each row that is fitted on"
    assert "fitted" not in plain.memory
    assert any("what is fitted first takes" in told for told in found.assumptions)
    given_file = {**given, "settings": {"curvature": str(tmp_path / "x.curvature.safetensors")}}
    assert "fitted" not in forecast(model=str(place), **given_file).memory, "nothing is fitted"
    one, many = (forecast(model=str(place), **given, device="h100", workers=n).seconds for n in (1, 1000))
    assert many > 0.5 * one, "most of this small build is the fit, which is not shared"


def test_a_recorded_run_is_planned_without_its_weights(place: Path, tmp_path: Path) -> None:
    entries = [{"path": f"step-{i}", "step": i, "learning_rate": 0.1} for i in (1, 2)]
    for entry in entries:
        shutil.copytree(place, tmp_path / str(entry["path"]))
    (tmp_path / "checkpoints.json").write_text(json.dumps(entries))
    how = {"model": str(place), "data": ROWS, "settings": {"checkpoints": str(tmp_path)}}
    once = forecast(**{**how, "settings": {}}, method="ekfac-cos")
    both = forecast(**how, method="ekfac-cos")
    assert both.memory["fitted"] == 2 * once.memory["fitted"], "one reading of two models each"
    tracin, single = forecast(**how, method="tracin"), forecast(**{**how, "settings": {}}, method="tracin")
    assert tracin.bytes_per_row["vectors"] == 2 * single.bytes_per_row["vectors"]
    (tmp_path / "step-2" / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"without weights .leave --no-weights out"):
        forecast(**how, method="tracin")


def test_no_weight_is_read_and_size_does_not_matter(place: Path, tmp_path: Path) -> None:
    config = (place / "config.json").read_text(encoding="utf-8").replace('"hidden_size": 32', '"hidden_size": 16384')
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    tiny_tokenizer().save_pretrained(tmp_path)
    how = {"model": str(tmp_path), "data": ROWS, "device": "h100", "loading": {"dtype": "bfloat16"}}
    found = forecast(**how)
    assert found.total > 10_000_000
    assert found.seconds == pytest.approx(found.flops / (PEAKS["h100"][torch.bfloat16] * 0.35))
    wide = forecast(**how, workers=4, rows=6000, efficiency=0.7)
    assert wide.seconds == pytest.approx(100 * found.seconds / 8)
    assert wide.disk > 50 * found.disk
    assert wide.tokens == pytest.approx(100 * found.tokens)


def test_what_no_configuration_says_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown device 'h200'"):
        forecast(model=str(place), data=ROWS, device="h200")
    with pytest.raises(UsageError, match=r"--adapter.*plan with the weights"):
        forecast(model=str(place), data=ROWS, loading={"adapter": "x"})
    pairs = open_corpus([{"prompt": "a", "chosen": "b", "rejected": "c"}], pairs="dpo")
    with pytest.raises(UsageError, match=r"cannot foretell the DPO loss.*plan with the weights"):
        forecast(model=str(place), data=pairs)
    with pytest.raises(ModelError):
        forecast(model=str(tmp_path), data=ROWS)


def test_the_command_plans_with_no_weights(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    words = ["plan", "--no-weights", "--model", str(place), "--data", str(rows), "--device", "a100"]
    with pytest.raises(SystemExit, match="0"):
        run(words)
    assert "of the peak of an A100" in capsys.readouterr().out
    for option in (["--beta", "0.2"], ["--reference", str(place)], ["--max-disk", "1GB"]):
        with pytest.raises(SystemExit, match="2"):
            run([*words, *option])
        assert f"{option[0]}: a plan without weights" in capsys.readouterr().err


def test_live_bytes_are_those_that_are_alive() -> None:
    with LiveBytes() as live:
        kept = torch.zeros(1000)
        for _ in range(5):
            kept = kept + 1
        assert live.now == 4000
        view = kept.view(10, 100)
        assert live.now == 4000
        del kept, view
    assert live.peak == 8000
    assert live.now == 0
