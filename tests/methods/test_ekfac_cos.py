"""ekfac-cos against EK-FAC itself: its cosines are those of whole gradients, and an index keeps what was fitted."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.errors import DataError, MismatchError, UsageError
from headwater.data.batches import Window
from headwater.data.corpus import open_corpus
from headwater.features.exact import whole_gradients
from headwater.features.parameters import select_linear
from headwater.indexing.build import build
from headwater.indexing.prepared import prepared_beside
from headwater.indexing.session import open_session
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.methods.ekfac import EkfacOptions, fit_ekfac
from headwater.methods.scoring import attribute
from headwater.methods.targets import each
from headwater.models.checkpoints import Checkpoint, midway
from headwater.models.reader import Reader
from zoo import SENTENCES, tiny_loaded

ROWS = [{"id": f"r{i}", "text": f"{text} {i}"} for i, text in enumerate(SENTENCES * 3)]
SMALL = {"dim": 4096, "damping": 0.3}


def cosines(loaded, rows, queries) -> np.ndarray:
    """⟨g, (F + λI)⁻¹ q⟩ over the roots of both with themselves, from gradients that are held whole."""
    reader, selection = Reader.of(loaded), select_linear(loaded.model)
    fitted = fit_ekfac(loaded, selection, reader.batches(rows, Window(2048)), EkfacOptions(damping=0.3))
    flat = []
    for some, role in ((rows, "train"), (queries, "query")):
        whole = whole_gradients(loaded, selection, reader.batches(some, Window(2048), role), len(some))
        solved = fitted.solve(whole)
        flat.append([torch.cat([part[name].flatten(1) for name in whole], 1) for part in (whole, solved)])
    (g, g_solved), (q, q_solved) = flat
    norms = (g * g_solved).sum(1).sqrt()[:, None] * (q * q_solved).sum(1).sqrt()
    return (g @ q_solved.T / norms).numpy()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_scores_are_the_cosines_under_the_inverse_curvature(family):
    loaded = tiny_loaded(family)
    rows = list(open_corpus(ROWS))
    method = find_method("ekfac-cos", {"damping": 0.3, "sketch": "identity", "dim": 0})
    found = attribute(method, Reader.of(loaded), rows, each(rows[:3])).values
    np.testing.assert_allclose(found, cosines(loaded, rows, rows[:3]), atol=2e-4)


def built(tmp_path, loaded):
    corpus, reader = open_corpus(ROWS), Reader.of(loaded)
    out = tmp_path / "runs" / "mine.lance"
    method = prepared_beside(find_method("ekfac-cos", SMALL), reader, corpus, str(out))
    return build(out, corpus, Bound.of(method, reader))


def hits(session):
    return [(hit.id, hit.score) for hit in hw.trace(session, queries=ROWS[:1], top=4).queries[0].hits]


def test_an_index_keeps_its_curvature_beside_it_and_moves_with_it(tmp_path):
    loaded = tiny_loaded("llama")
    index = built(tmp_path, loaded)
    kept = tmp_path / "runs" / "mine.curvature.safetensors"
    assert index.manifest.method.options["curvature"] == str(kept)
    first = hits(open_session(index, loaded))
    assert first[0] == ("r0", pytest.approx(1, abs=0.01))
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    assert hits(open_session(tmp_path / "moved" / "mine.lance", loaded)) == first
    (tmp_path / "moved" / "mine.curvature.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(DataError, match=r"no factors of EK-FAC.*build the index again"):
        hits(open_session(tmp_path / "moved" / "mine.lance", loaded))


def test_an_index_and_its_curvature_are_renamed_together(tmp_path):
    loaded = tiny_loaded("llama")
    first = hits(open_session(built(tmp_path, loaded), loaded))
    runs = tmp_path / "runs"
    shutil.move(runs / "mine.lance", runs / "other.lance")
    shutil.move(runs / "mine.curvature.safetensors", runs / "other.curvature.safetensors")
    assert hits(open_session(runs / "other.lance", loaded)) == first


def test_names_with_dots_have_files_of_their_own(tmp_path):
    loaded = tiny_loaded("llama")
    how = {"model": loaded, "data": ROWS, "method": "ekfac-cos"}
    made = [hw.build(tmp_path / f"mine.v{n}", **how, settings={**SMALL, "damping": n}) for n in (1, 2)]
    files = [index.manifest.method.options["curvature"] for index in made]
    assert files == [str(tmp_path / f"mine.v{n}.curvature.safetensors") for n in (1, 2)]


def test_the_curvature_of_an_index_that_was_removed_is_not_used(tmp_path):
    loaded = tiny_loaded("llama")
    how = {"model": loaded, "data": ROWS, "method": "ekfac-cos"}
    hw.build(tmp_path / "a.lance", **how, settings={**SMALL, "damping": 10})
    shutil.rmtree(tmp_path / "a.lance")
    again = hw.build(tmp_path / "a.lance", **how, settings=SMALL, resume=True)
    fresh = hw.build(tmp_path / "b.lance", **how, settings=SMALL)
    assert hits(open_session(again, loaded)) == hits(open_session(fresh, loaded))


def test_curvature_of_another_model_is_refused(tmp_path):
    index = built(tmp_path, tiny_loaded("llama"))
    file, other = index.manifest.method.options["curvature"], tiny_loaded("llama", seed=1)
    bound = Bound.of(find_method("ekfac-cos", {**SMALL, "curvature": file}), Reader.of(other))
    with pytest.raises(MismatchError, match="fitted on another model"):
        bound.encode(list(open_corpus(ROWS[:2])), "train")


def test_what_cannot_be_kept_or_was_not_fitted_is_said_in_one_line(tmp_path):
    loaded = tiny_loaded("llama")
    method = find_method("ekfac-cos", SMALL)
    with pytest.raises(UsageError, match="cannot be on an object store"):
        prepared_beside(method, Reader.of(loaded), open_corpus(ROWS), "s3://bucket/mine.lance")
    with pytest.raises(UsageError, match="not fitted yet"):
        Bound.of(method, Reader.of(loaded)).encode(list(open_corpus(ROWS[:2])), "train")


def test_build_and_plan_by_the_library_fit_it_and_leave_nothing_else(tmp_path):
    loaded = tiny_loaded("llama")
    planned = hw.plan(model=loaded, data=ROWS, method="ekfac-cos", settings=SMALL)
    assert planned.rows == len(ROWS)
    out = tmp_path / "mine.lance"
    index = hw.build(out, model=loaded, data=ROWS, method="ekfac-cos", settings=SMALL, code="sign:4096")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.lance", "mine.curvature.safetensors"}
    assert sum(column.row_bytes for column in index.manifest.columns if column.name == "gradient") < 600
    assert planned.disk > (tmp_path / "mine.curvature.safetensors").stat().st_size, "the file counts"
    usual = hw.build(tmp_path / "usual.lance", model=loaded, data=ROWS, method="ekfac-cos", settings=SMALL)
    assert [column.dtype for column in usual.manifest.columns] == ["sign"], "what is fitted leaves the code as it is"
    more = [{"id": "new", "text": "A new row of the river."}]
    assert hw.add(index, more, model=loaded).rows == 1


def test_a_run_is_found_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = find_method("ekfac-cos", {"checkpoints": "run"}).spec.options
    assert options["checkpoints"] == str(tmp_path / "run")
    assert find_method("ekfac-cos").spec.options["checkpoints"] == ""


def test_the_checkpoint_is_the_one_at_half_of_the_learning():
    rates = [1e-3, 9e-4, 5e-4, 1e-4, 0.0]
    run = [Checkpoint(f"step-{i}", 100 * (i + 1), rate) for i, rate in enumerate(rates)]
    assert midway(run).step == 100  # spent: .1, .19, .24, .25, .25
    even = [replace(checkpoint, learning_rate=1e-3) for checkpoint in run]
    assert midway(even).step in (200, 300)
    assert midway(run[:1]).step == 100
