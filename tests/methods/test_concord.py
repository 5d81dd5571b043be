"""concord against its parts: the score of ekfac-cos, and of the added columns what the index's own rows agree on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.errors import UsageError
from headwater.core.spec import Column, code_of
from headwater.indexing.session import open_session
from headwater.methods.catalog import find_method
from headwater.search.agreement import added_weight
from headwater.search.codes import coded
from zoo import SENTENCES, tiny_loaded, zoo

ROWS = [{"id": f"r{i}", "text": f"{text} {i}"} for i, text in enumerate(SENTENCES * 2)]
SMALL = {"dim": 512, "damping": 0.3}
ASKED = ROWS[3:6]


@pytest.fixture(scope="module")
def loaded():
    return tiny_loaded("llama")


@pytest.fixture(scope="module")
def run(tmp_path_factory, loaded):
    """The folder of a run whose middle is another model than `loaded`."""
    folder = tmp_path_factory.mktemp("run")
    listed = []
    for step, seed in ((10, 3), (20, 0)):
        zoo()["llama"](seed=seed).save_pretrained(folder / f"step-{step}")
        loaded.tokenizer.save_pretrained(folder / f"step-{step}")
        listed.append({"path": f"step-{step}", "step": step, "learning_rate": 1e-3})
    (folder / "checkpoints.json").write_text(json.dumps(listed))
    return folder


@pytest.fixture(scope="module")
def session(tmp_path_factory, loaded, run):
    settings = {"checkpoints": str(run), "readings": "both", "preset": "full"}
    return session_of(tmp_path_factory.mktemp("index"), loaded, "concord", **settings)


def session_of(folder, loaded, method, **settings):
    settings = {**SMALL, **settings} if method != "rise" else settings
    hw.build(folder / f"{method}.lance", model=loaded, data=ROWS, method=method, settings=settings)
    return open_session(folder / f"{method}.lance", loaded)


def scores(session, **how) -> torch.Tensor:
    """Scores by `headwater.score`, [queries, rows]."""
    return torch.from_numpy(hw.score(session, queries=ASKED, **how).values.T.copy())


def test_its_columns_are_those_of_ekfac_cos_and_rise(session, tmp_path, loaded, run):
    cosines = session_of(tmp_path, loaded, "ekfac-cos", checkpoints=str(run), preset="full")
    for by in ("gradient@halfway", "gradient@end"):
        own = next(column.weight for column in session.index.manifest.columns if column.name == by)
        np.testing.assert_allclose(scores(session, by=by) / own, scores(cosines, by=by) * 2, atol=1e-3)
    readout = session_of(tmp_path, loaded, "rise", preset="full")
    for by in ("rise", "embedding"):
        np.testing.assert_allclose(scores(session, by=by), scores(readout, by=by), atol=1e-3)


def test_what_agrees_is_added_to_the_cosines(session):
    own = scores(session, by="gradient@halfway+gradient@end")
    others = [scores(session, by=by) for by in ("rise", "embedding")]
    added = sum(2.5 * added_weight(own, other)[:, None] * other for other in others)
    assert added.std() > 0.05, "something is added here"
    np.testing.assert_allclose(scores(session), own + added, atol=1e-4)


def test_tokens_of_both_sides_add_up_to_the_score(session):
    traced = hw.trace(session, queries=ASKED, top=3, tokens=True)
    for query in traced.queries:
        for hit in query.hits:
            for side in (hit.row_tokens, hit.query_tokens):
                total = sum(value for value in side.values if value is not None)
                assert total == pytest.approx(hit.score, abs=0.02)


def test_a_contrast_is_the_difference_of_two_scores(session):
    one, other = scores(session)[:2]
    traced = hw.trace(session, queries=ASKED[:1], against=ASKED[1:2], top=len(ROWS))
    found = {hit.id: hit.score for hit in traced.queries[0].hits}
    np.testing.assert_allclose([found[row["id"]] for row in ROWS], one - other, atol=1e-4)


def test_a_row_takes_four_kibibytes_however_many_readings():
    readout = [Column("rise", 24576, share=0.25), Column("embedding", 4096, share=0.0625)]
    single = [Column("gradient", 32768, share=1.5)]
    double = [Column("gradient@halfway", 32768), Column("gradient@end", 32768, share=0.5)]
    for gradients in (single, double):
        stored = coded([*gradients, *readout], "sign:17408")
        assert sum(column.row_bytes for column in stored) <= 4096
        assert {column.code for column in stored} == {"sign:17408"}, "which opens an index for more rows"


@pytest.mark.parametrize("by", ["gradient@halfway", "gradient@end+rise"])
def test_tokens_add_up_when_ranked_by_one_reading(session, by):
    hit = hw.trace(session, queries=ASKED[:1], top=1, tokens=True, by=by).queries[0].hits[0]
    for side in (hit.row_tokens, hit.query_tokens):
        assert sum(value for value in side.values if value is not None) == pytest.approx(hit.score, abs=0.02)


def test_no_sign_is_promised_because_what_is_added_is_not_centred(session):
    assert (scores(session) > 0).float().mean() > 0.9, "nearly every row is positive"
    assert not session.bound.method.meaning.signed
    assert "positive" not in hw.trace(session, queries=ASKED[:1], top=1).about["sign"]


def test_what_varies_only_as_rounding_does_adds_nothing():
    own = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    flat = torch.full((1, 50), 0.73)
    flat[0, own.argmax()] += 2e-7
    assert added_weight(own, flat).item() == 0
    assert added_weight(own, flat.clone().index_fill_(1, own.argmax(), 0.8)).item() > 0


def test_a_damaged_row_leaves_the_weight_out_so_that_the_search_names_it():
    own = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    damaged = own.clone().index_fill_(1, torch.tensor([7]), torch.nan)
    assert added_weight(own, damaged).item() == 0


def test_plans_count_the_forward_passes_of_every_reading():
    settings = [{}, *({"checkpoints": "run", "readings": readings} for readings in ("both", "halfway"))]
    passes = {
        name: [find_method(name, chosen).require_vectors().passes for chosen in settings]
        for name in ("ekfac-cos", "concord")
    }
    assert passes == {"ekfac-cos": [3, 6, 3], "concord": [5, 8, 5]}


@pytest.mark.parametrize("code", ["sign:8", "sign:1000", "int4:1000"])
def test_a_build_with_any_code_goes_on(tmp_path, loaded, code):
    how = {"model": loaded, "data": ROWS, "method": "concord", "settings": SMALL}
    begun = hw.build(tmp_path / "a.lance", **how, code=code).manifest
    assert code_of(begun.columns) == code
    assert hw.build(tmp_path / "a.lance", **how, resume=True).manifest == begun


@pytest.mark.parametrize(
    ("option", "value"),
    [("strength", -1), ("strength", "nan"), ("damping", -0.1), ("damping", "inf"), ("fit_rows", 0), ("dim", -3)],
)
def test_a_number_out_of_range_is_refused_before_a_row_is_read(option, value):
    with pytest.raises(UsageError, match=rf"concord\.{option}: .*for example"):
        find_method("concord", {option: value})


def test_rows_can_be_added_and_an_index_is_needed(tmp_path, loaded):
    how = {"model": loaded, "data": ROWS, "method": "concord", "settings": SMALL}
    index = hw.build(tmp_path / "a.lance", **how, code="sign:2048")
    bits = {column.name: column.bits for column in index.manifest.columns if column.coded}
    assert bits == {"gradient": 3072, "rise": 512, "embedding": 128}, "their shares"
    assert hw.add(index, [{"id": "new", "text": "A new row of the river."}], model=loaded).rows == 1
    with pytest.raises(UsageError, match="needs an index"):
        hw.value(ROWS, model=loaded, target=ASKED, method="concord")
