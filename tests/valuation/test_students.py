"""Students: what they read, what that costs, which labels they get, and what their folder holds."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_value import LOADED, POOL, READER, TARGET, records, run

from headwater.core.errors import DataError, MismatchError, UsageError
from headwater.core.statistics import spearman
from headwater.data.corpus import open_corpus
from headwater.methods.catalog import find_method
from headwater.methods.scoring import attribute
from headwater.methods.targets import Target
from headwater.students import choice, student
from headwater.students.choice import to_share
from headwater.students.labels import Lesson
from headwater.students.regression import applied, chosen_shares, fit_regression, left_out_errors, read_blocks
from headwater.students.sources import Sketches, Words
from headwater.students.student import StudentOptions, Taught, fit_student, load_student
from headwater.training.tiny import Recipe, train_tiny
from headwater.valuing.distil import doubled
from headwater.valuing.labelling import evenly_over
from headwater.valuing.value import ValueOptions, value_pool, value_with_student

TINY = Recipe(vocabulary=300, layers=1, width=32, heads=2, epochs=1, context=64)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory) -> Path:
    """A small model with a tokenizer of its own."""
    return train_tiny(records(60, seed=3), out=tmp_path_factory.mktemp("proxies") / "small", seed=1, recipe=TINY)


def lesson_of(count: int, seed: int = 0) -> Lesson:
    rows = list(open_corpus(records(count, seed=seed)))
    labels = np.array([len(row.response or "") + 3.0 * ("fox" in (row.response or "")) for row in rows])
    return Lesson.of(rows, labels + np.random.default_rng(seed).normal(size=count), seed=seed)


def test_a_left_out_error_is_that_of_a_fit_without_the_row():
    dice = np.random.default_rng(0)
    features, labels = dice.normal(size=(12, 5)), dice.normal(size=12)
    kernel = features @ features.T + 2.0
    for place, error in enumerate(left_out_errors(kernel, labels)):
        rest = np.delete(np.arange(12), place)
        dual = np.linalg.solve(kernel[np.ix_(rest, rest)] + np.eye(11), labels[rest])
        assert error == pytest.approx(labels[place] - kernel[place, rest] @ dual)


def test_the_weights_of_the_blocks_give_what_the_kernels_give():
    lesson = lesson_of(80)
    blocks = read_blocks([Words()], lesson.rows)
    fitted = fit_regression(lesson, blocks, [Words()], members=1, seed=0)
    labels = lesson.labels[lesson.train]
    kernels = {}
    for name, block in blocks.items():
        part = np.asarray(block[lesson.train].todense() if hasattr(block, "todense") else block[lesson.train], float)
        if part.shape[1] <= 256:
            sd = part.std(axis=0)
            part = np.divide(part - part.mean(axis=0), sd, out=np.zeros_like(part), where=sd > 1e-6)
        kernels[name] = part @ part.T / max(np.trace(part @ part.T) / len(part), 1e-30)
    shares = chosen_shares(kernels, labels)
    whole = sum(shares[name] * kernel for name, kernel in kernels.items()) + shares["intercept"]
    expected = whole @ np.linalg.solve(whole + np.eye(len(labels)), labels)
    own = {name: block[lesson.train] for name, block in blocks.items()}
    np.testing.assert_allclose(applied(fitted.weights, own, len(labels))[:, 0], expected, atol=2e-3)
    assert fitted.left_out == pytest.approx(spearman(labels - left_out_errors(whole, labels), labels), abs=0.02)


def test_sketches_of_the_model_see_what_words_do_not():
    """A score of the model itself, of rows of random words."""
    rows = list(open_corpus(records(200, seed=4)))
    labels = attribute(find_method("loss"), READER, rows, [TARGET]).values[:, 0].astype(np.float64)
    found = {}
    for name in ("words", "model"):
        learned = fit_student(rows[:120], labels[:120], StudentOptions(sources=name, members=1), Taught(READER))
        assert list(learned.choice["left-out Spearman of each student"]) == [name]
        found[name] = spearman(learned.predict(rows[120:]), labels[120:])
    assert found["model"] > 0.9 > found["words"] + 0.05


def test_a_source_that_costs_too_much_is_not_read_and_that_is_said(monkeypatch):
    rows, labels = list(open_corpus(records(60))), np.arange(60.0)
    monkeypatch.setattr(choice, "seconds_a_row", lambda read, _rows: 0.5 if "Sketches" in repr(read) else 0.1)
    dear = fit_student(rows, labels, StudentOptions(members=1, cost="1/20"), Taught(READER, teacher_seconds=10.0))
    assert dear.choice["student reads"] == "words (1/100 of the teacher's time)"
    assert dear.choice["not read"] == ["model: 1/20 of the teacher's time, more than --student-cost allows"]
    cheap = fit_student(rows, labels, StudentOptions(members=1, cost="0.06"), Taught(READER, teacher_seconds=10.0))
    assert set(cheap.choice["left-out Spearman of each student"]) == {"words", "model", "words+model"}
    assert not cheap.choice["not read"]
    named = StudentOptions(members=1, sources="model")
    assert (
        fit_student(rows, labels, named, Taught(READER, 10.0)).choice["student's share of the teacher's time"] == 0.05
    )
    for wrong in ("0", "-1/20", "a half", "1/0"):
        with pytest.raises(UsageError, match="--student-cost"):
            to_share(wrong)
    with pytest.raises(UsageError, match="cannot read 'proxy'"):
        fit_student(rows, labels, StudentOptions(sources="proxy"))


def test_what_is_quick_is_timed_on_many_rows_and_what_is_slow_on_few(monkeypatch):
    read, a_row = [], 0.001
    monkeypatch.setattr(choice, "seconds_a_row", lambda _, rows: read.append(len(rows)) or a_row)
    rows = list(open_corpus(records(80)))
    assert choice.steady_seconds_a_row(len, rows) == 0.001
    assert read == [16, 64, 80]
    read, a_row = [], 1.0
    choice.steady_seconds_a_row(len, rows)
    choice.steady_seconds_a_row(len, rows[:5])
    assert read == [16, 5]


def test_a_dearer_student_is_taken_where_the_usual_one_is_poor_and_that_is_said(monkeypatch):
    """What the model has learned of a row is in its loss, which no word tells."""
    rows, share = list(open_corpus(records(90, seed=2))), 0.1
    known = Sketches.of(READER, "model").read(rows)["loss"][:, 0].astype(float)
    monkeypatch.setattr(choice, "seconds_a_row", lambda read, _rows: share if "Sketches" in repr(read) else 0.01)
    taught = Taught(READER, teacher_seconds=1.0)
    found = fit_student(rows, known, StudentOptions(members=1), taught).choice
    assert "model" in found["student reads"]
    assert "--student-cost 1/20 keeps to that" in found["dearer than usual"]
    for kept in (StudentOptions(members=1, cost="1/20"), StudentOptions(members=1, sources="words")):
        assert "dearer than usual" not in fit_student(rows, known, kept, taught).choice
    share = 0.3
    assert "model" not in fit_student(rows, known, StudentOptions(members=1), taught).choice["student reads"]


def test_a_proxy_reads_as_much_of_a_row_as_its_cost_allows(tmp_path, monkeypatch, proxy):
    """The beginning of the response and the end of the prompt; a prompt of any length leaves the response its place."""
    rows = [replace(row, prompt="so " * 700 + (row.prompt or "")) for row in open_corpus(records(60))]
    labels = np.array([float("fox" in (row.response or "")) + 0.01 * row.ordinal for row in rows])
    times = {2000: 0.45, 480: 0.3, 240: 0.03, 120: 0.01}
    monkeypatch.setattr(
        choice, "seconds_a_row", lambda read, _rows: times.get(getattr(read.__self__, "characters", 0), 0.001)
    )
    for share, characters in (("1/2", 480), ("1/20", 240), ("1/80", 120)):
        options = StudentOptions(members=1, proxy=str(proxy), cost=share)
        read = fit_student(rows, labels, options, Taught(None, teacher_seconds=1.0))
        assert not read.choice["not read"]
        sources = [s for s in read.ensemble.sources if s.name == "proxy"]
        assert [s.characters for s in sources] in ([], [characters])  # the words alone may foretell better
        if sources:
            assert f"{characters} characters a row" in read.choice["student reads"]
    source = Sketches.load(str(proxy), "proxy", characters=120)
    short = [replace(row, prompt=row.prompt[-60:], response=row.response[:120]) for row in rows]
    plain = Sketches.load(str(proxy), "proxy", characters=0)
    for name, block in source.read(rows).items():
        np.testing.assert_allclose(block, plain.read(short)[name], rtol=1e-5, atol=1e-6)
    only = fit_student(rows, labels, StudentOptions(members=1, proxy=str(proxy), sources="proxy"))
    kept = load_student(only.save(tmp_path / "s"))
    assert kept.ensemble.sources[0].characters == 2000
    np.testing.assert_allclose(kept.predict(rows), only.predict(rows), rtol=1e-4, atol=1e-5)


def test_a_provider_values_with_the_proxy_alone(tmp_path, proxy):
    """No large model, no target, no row in the folder; the proxy's tokenizer is its own, and it may be elsewhere."""
    taught = {
        "teacher": "length",
        "labels": 40,
        "recheck": 0,
        "members": 2,
        "proxy": str(proxy),
        "sources": "words+proxy",
    }
    valued = run(tmp_path, method="alinfik", settings=taught)
    assert "proxy" in valued.notes["student reads"] or "words" in valued.notes["student reads"]
    only = find_method("alinfik", {**taught, "sources": "proxy"})
    how = ValueOptions(force=True, duplicates=None)
    valued = value_pool(open_corpus(POOL), [TARGET], tmp_path / "p.parquet", method=only, reader=READER, options=how)
    assert valued.notes["tokenizer of the proxy"].startswith("another than the model's")
    folder = tmp_path / "p.student"
    said = [str(row[name]) for row in POOL for name in ("prompt", "response")]
    said += [text for row in TARGET.rows for text in row.fields().values()]
    for artefact in filter(Path.is_file, folder.glob("**/*")):
        raw = artefact.read_bytes()
        assert not [text for text in said if text.encode() in raw], artefact
    moved = tmp_path / "moved"
    shutil.copytree(proxy, moved)
    alone = value_with_student(open_corpus(POOL), folder, tmp_path / "a.parquet", options=how, proxy=str(moved))
    kept = load_student(folder, proxy=str(moved))
    np.testing.assert_allclose(alone.values.numbers(), kept.predict(list(open_corpus(POOL))), rtol=1e-5)
    other = train_tiny(records(60, seed=3), out=tmp_path / "other", seed=2, recipe=TINY)
    with pytest.raises(MismatchError, match="proxy"):
        load_student(folder, proxy=str(other))


def test_a_student_of_the_models_sketches_needs_the_model_again(tmp_path):
    rows, labels = list(open_corpus(records(60))), np.arange(60.0)
    learned = fit_student(rows, labels, StudentOptions(members=1, sources="model"), Taught(READER))
    folder = learned.save(tmp_path / "m.student")
    with pytest.raises(UsageError, match="--model"):
        load_student(folder)
    np.testing.assert_array_equal(load_student(folder, reader=READER).predict(rows), learned.predict(rows))
    template = replace(READER.tokenization, max_tokens=7)
    again = load_student(folder, reader=replace(READER, tokenization=template))
    np.testing.assert_array_equal(again.predict(rows), learned.predict(rows))  # it reads as it did, whatever the reader


def test_several_targets_read_their_rows_once(monkeypatch):
    rows, reads = list(open_corpus(records(60))), []
    labels = np.stack([np.arange(60.0), np.arange(60.0)[::-1] ** 2], axis=1)
    students = student.fit_students(rows, labels, StudentOptions(members=2, sources="words"))
    read = Words.read
    monkeypatch.setattr(Words, "read", lambda self, some: reads.append(len(some)) or read(self, some))
    found = student.estimates_of(students)(rows)
    assert reads == [60]
    assert found.shape == (60, 2, 3)
    for place, one in enumerate(students):
        np.testing.assert_allclose(found[:, place], one.estimates(rows)[:, 0])


def test_labels_go_where_they_are_wanted(tmp_path):
    base = {"teacher": "length", "labels": 32, "recheck": 6, "members": 2}
    plain = run(tmp_path, "a.parquet", method="alinfik", settings=base)
    active = run(tmp_path, "b.parquet", method="alinfik", settings={**base, "labels": 24, "active": 0.25}, force=True)
    assert plain.notes["labelled rows"] == 32
    assert active.student.rows == 24
    timed = run(tmp_path, "c.parquet", method="alinfik", settings={**base, "seconds": 1e-9}, force=True)
    assert timed.notes["labelled rows"] == 20  # the fewest that teach
    many = run(tmp_path, "d.parquet", method="alinfik", settings={**base, "labels": 500, "recheck": 0}, force=True)
    assert "500 labels are asked for and the pool has 60 rows" in many.warnings[-1]
    with pytest.raises(UsageError, match="active"):
        find_method("alinfik", {"active": 1.0})


def test_held_out_rows_are_of_the_random_part():
    rows, labels = list(open_corpus(records(100))), np.arange(100.0)
    lesson = Lesson.of(rows, labels, seed=0, random=60)
    assert lesson.held_out.max() < 60
    assert sorted([*lesson.train, *lesson.held_out]) == list(range(100))


def test_an_even_sample_is_even_over_the_cheap_score():
    rows = list(open_corpus([{"id": f"r{i}", "text": "fox " * (i % 4) + f"w{i} end here"} for i in range(80)]))
    target = Target("t", tuple(open_corpus([{"text": "fox fox fox"}])))
    found = evenly_over(rows, target.rows, 20)
    assert len(found) == 80
    assert {row.id for row in found} == {row.id for row in rows}
    counts = [sum((row.text or "").count("fox") == n for row in found[:20]) for n in range(4)]
    assert max(counts) - min(counts) <= 1


def test_a_target_of_one_row_is_told(tmp_path):
    one = Target("task", TARGET.rows[:1])
    how = ValueOptions(duplicates=None)
    method = find_method("linfik", {"distance": "0.01"})
    valued = value_pool(open_corpus(POOL), [one], tmp_path / "v.parquet", method=method, reader=READER, options=how)
    assert any("has one row" in warning for warning in valued.warnings)


def test_equal_labels_are_refused(tmp_path):
    same = [{"id": f"r{i}", "prompt": "a", "response": "b"} for i in range(60)]
    method = find_method("alinfik", {"teacher": "length", "labels": 40})
    with pytest.raises(DataError, match="same score"):
        value_pool(open_corpus(same), [TARGET], tmp_path / "v.parquet", method=method, reader=READER)


def test_what_twice_the_labels_would_bring():
    curve = [(n, 1 - 2 * n**-0.5) for n in (25, 50, 100, 200, 400)]
    assert doubled(curve) == pytest.approx(1 - 2 * 800**-0.5)
    assert doubled([(100, 0.5), (200, 0.5), (400, 0.4)]) is None
    assert doubled(curve[:2]) is None


def test_the_residual_sketch_is_the_mean_gradient_of_the_head():
    """Inner products of the sketches against autograd's, on average over rows."""
    import torch

    rows = list(open_corpus(records(12, seed=6)))
    blocks = Sketches.of(READER, "model").read(rows)
    head = LOADED.model.get_output_embeddings().weight
    exact = []
    for row in rows:
        (batch,) = READER.batches([row], student_window())
        with torch.enable_grad():
            weight = head.detach().clone().requires_grad_(True)
            hidden = LOADED.model.model(input_ids=batch.input_ids).last_hidden_state[batch.response].detach()
            loss = torch.nn.functional.cross_entropy(hidden @ weight.T, batch.targets[batch.response])
        exact.append(torch.autograd.grad(loss, weight)[0].flatten())
    truth = torch.stack(exact) @ torch.stack(exact).T
    found = blocks["residual"] @ blocks["residual"].T
    assert np.corrcoef(found.ravel(), truth.numpy().ravel())[0, 1] > 0.97
    np.testing.assert_allclose(np.trace(found), np.trace(truth.numpy()), rtol=0.15)


def student_window() -> object:
    from headwater.data.batches import Window

    return Window(512)
