"""The ceiling foretells how another target would rank, and what is noise is told or not written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_value import POOL, records, run

from headwater.core.errors import DataError
from headwater.core.statistics import spearman
from headwater.data.corpus import open_corpus
from headwater.data.tokens import Tokenization
from headwater.methods.targets import Part
from headwater.models.load import wrap_model
from headwater.models.reader import Reader
from headwater.training.fitting import fit
from headwater.training.tiny import Recipe, new_model, train_tokenizer
from headwater.valuation.values import read_values
from headwater.valuing.trust import Ceiling, Doubts, Familiar, ceilings, familiar, help_for, require_strong
from headwater.valuing.value import ValueOptions, value_with_student


@pytest.mark.parametrize("noise", [0.5, 2.0, 6.0])
@pytest.mark.parametrize("parts", [2, 4, 5, 12])
def test_the_ceiling_is_the_agreement_with_another_target_of_the_same_size(noise, parts):
    """Every target row sees the signal with noise of its own; both targets have 24 rows."""
    generator = np.random.default_rng(parts)
    signal = generator.normal(0, 1, (3000, 1))
    one, other = (signal + noise * generator.normal(0, 1, (3000, 24)) for _ in range(2))
    folds = np.array_split(np.arange(24), parts)
    scores = np.stack([one[:, fold].mean(axis=1) for fold in folds], axis=1)
    (found,) = ceilings(scores.astype(np.float32), [Part("t", len(fold)) for fold in folds])
    assert found.stepped_up == pytest.approx(spearman(one.mean(axis=1), other.mean(axis=1)), abs=0.07)
    assert found.target_rows == 24
    if noise > 1:
        more = found.rows_for(0.9)
        large = [(signal + noise / more**0.5 * generator.normal(0, 1, (3000, 1)))[:, 0] for _ in range(2)]
        assert spearman(*large) == pytest.approx(0.9, abs=0.04)


def test_no_ceiling_without_parts_or_rows():
    assert ceilings(np.zeros((50, 1), np.float32), [Part("t", 9)]) == []
    assert ceilings(np.zeros((5, 2), np.float32), [Part("t"), Part("t")]) == []
    two = ceilings(np.random.default_rng(0).random((50, 4)).astype(np.float32), [Part(n) for n in "aabb"])
    assert [found.target for found in two] == ["a", "b"]
    assert Ceiling("t", 8, 50, -0.2).rows_for(0.9) is None
    assert "nothing in common" in str(Ceiling("t", 8, 50, -0.2).warning())
    assert Ceiling("t", 8, 50, 0.8).warning() is None


@pytest.mark.parametrize(("epochs", "warned"), [(1, False), (60, True)])
def test_a_model_that_has_trained_on_the_pool_is_told(epochs, warned):
    """Pool and target are of one kind, sequences of random words, so that only training tells them apart."""
    rows, others, target = (list(open_corpus(records(size, seed=seed))) for size, seed in ((60, 0), (60, 7), (20, 8)))
    tokenizer = train_tokenizer([" ".join(row.fields().values()) for row in rows], 300)
    recipe = Recipe(vocabulary=300, layers=1, width=64, heads=2, epochs=epochs, tokens_per_batch=512)
    tokenization = Tokenization.of(tokenizer, max_tokens=recipe.context)
    model = new_model(tokenizer, recipe, seed=0)
    fit(model, tokenization.encode(rows), recipe.training, context=recipe.context, seed=0)
    reader = Reader(wrap_model(model.eval(), tokenizer), tokenization)
    found = familiar(reader, rows, target)
    assert (found is not None) == warned
    assert familiar(reader, others, target) is None
    if found is not None:
        doubts = Doubts([], seen=found)
        assert found.grave
        assert doubts.notes == {"warnings": [found.warning()], "not for prices": [found.warning()]}
        assert "before it trained on these candidates" in help_for(None, 500, seen=found)
        half = Doubts([], seen=Familiar(3.0, 4.0))  # it knows something of the rows, and they can still teach much
        assert half.warnings
        assert not half.grave


def test_a_student_of_noise_writes_no_values_unless_it_is_forced_to(tmp_path):
    settings = {"teacher": "random", "labels": 40, "recheck": 20, "members": 2}
    with pytest.raises(DataError, match=r"correlation of -?0\.\d\d only, below 0\.50.*--resume --force"):
        run(tmp_path, method="alinfik", settings=settings)
    assert not (tmp_path / "v.parquet").exists()
    valued = run(tmp_path, method="alinfik", settings=settings, resume=True, force=True)
    assert any("only, below 0.50" in warning for warning in valued.warnings)
    kept = read_values(tmp_path / "v.parquet").about["notes"]
    assert kept["ceiling"] < 0.6
    assert kept["warnings"] == list(valued.warnings)
    with pytest.raises(DataError, match=r"train one on more labels"):
        value_with_student(open_corpus(POOL), tmp_path / "v.student", tmp_path / "s.parquet")
    forced = ValueOptions(force=True, duplicates=None)
    alone = value_with_student(open_corpus(POOL), tmp_path / "v.student", tmp_path / "s.parquet", options=forced)
    assert alone.warnings


def test_the_ceiling_is_kept_and_a_small_target_is_told(tmp_path):
    valued = run(tmp_path, method="gradcos")
    kept = read_values(tmp_path / "v.parquet").about["notes"]
    assert 0 <= kept["ceiling"] == valued.notes["ceiling"] <= 1
    assert kept["ceilings"]["task"]["rows"] == 60
    learned = run(tmp_path, "w.parquet", method="alinfik", settings={"teacher": "length", "labels": 40, "recheck": 20})
    assert learned.notes["ceiling"] == pytest.approx(1)
    assert learned.notes["share of the ceiling"] == pytest.approx(
        (20 * learned.recheck.spearman + 10 * learned.student.held_out) / 30
    )
    assert not learned.warnings


def test_the_remedy_names_what_is_missing():
    small = Ceiling("t", 10, 200, 0.3)
    assert f"give about {small.rows_for(0.9)} target rows" in help_for(small, 500)
    assert "label more than 500 rows" in help_for(None, 500)
    assert "--method linfik, which has scored all 500 rows" in help_for(None, 500, all_by="linfik")
    assert "label more" not in help_for(None, 500, all_by="linfik")
    assert "reads model (--student-cost 1/2)" in help_for(None, 500, ["model"])
    with pytest.raises(DataError, match="more rows"):
        require_strong(0.1, small, remedy="more rows", force=False)
    assert require_strong(0.6, small, remedy="more rows", force=False) is None
    assert replace(small, halves=0.9).warning() is None
