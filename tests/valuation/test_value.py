"""Valuing a pool, end to end and between parties, on models of a few thousand parameters."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from headwater.core.errors import DataError, MismatchError, ModelError, NumericError, StoreError, UsageError
from headwater.core.spec import MethodSpec
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.indexing.build import build
from headwater.indexing.session import Session
from headwater.methods.alinfik import student_of
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method, vector_method
from headwater.methods.method import Learning
from headwater.methods.scoring import attribute
from headwater.methods.targets import Part, PartScorer, Target
from headwater.models.reader import Reader
from headwater.students.labels import Lesson
from headwater.students.student import StudentOptions, Taught, fit_student, load_student
from headwater.valuation.duplicates import THRESHOLD
from headwater.valuation.prices import Terms, price
from headwater.valuation.values import Values, read_values, summarise
from headwater.valuing.index import value_index
from headwater.valuing.survey import survey
from headwater.valuing.third_party import audit, export_target, read_query, score_query
from headwater.valuing.value import ValueOptions, value_pool, value_with_student
from zoo import SENTENCES, tiny_loaded

WORDS = " ".join(SENTENCES).split()
LOADED = tiny_loaded("llama")
READER = Reader.of(LOADED)


def records(count: int, seed: int = 0) -> list[dict]:
    generator = np.random.default_rng(seed)
    return [
        {
            "id": f"r{i}",
            "prompt": " ".join(generator.choice(WORDS, 4)),
            "response": " ".join(generator.choice(WORDS, int(generator.integers(3, 12)))),
            "provider": "ab"[i % 2],
            "score": float(i),
            "value": i,
        }
        for i in range(count)
    ]


POOL = records(60)
TARGET = Target("task", tuple(open_corpus(records(16, seed=1))))


def run(
    tmp_path: Path,
    name: str = "v.parquet",
    pool: list[dict] | None = None,
    *,
    method: str,
    settings: dict | None = None,
    **options,
):
    return value_pool(
        open_corpus(pool or POOL),
        [TARGET],
        tmp_path / name,
        method=find_method(method, settings),
        reader=READER,
        options=ValueOptions(**{"duplicates": None, **options}),
    )


@pytest.mark.parametrize("method", ["linfik", "rise", "rapidin", "gradcos", "bm25"])
def test_every_method_values_a_pool(tmp_path, method):
    settings = {"distance": "0.001"} if method == "linfik" else None
    valued = run(tmp_path, method=method, settings=settings)
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column_names[:4] == ["id", "value", "low", "high"]
    assert set(table.column_names[4:]) == {"provider", "score", "value_", "characters", "cluster"}
    assert table.column("id").to_pylist() == [row["id"] for row in POOL]
    numbers, low, high = (valued.values.numbers(name) for name in ("value", "low", "high"))
    assert ((low <= numbers) & (numbers <= high)).all()
    assert valued.values.groups("value") == [str(v) for v in numbers] or valued.values.about["renamed"]
    expected = attribute(find_method(method, settings), READER, list(open_corpus(POOL)), [TARGET])
    np.testing.assert_allclose(numbers, expected.values[:, 0], rtol=2e-3, atol=1e-4)
    assert set(summarise(valued.values, by="provider")["groups"]) == {"a", "b"}


def test_a_run_goes_on_where_it_was_killed_and_ends_with_the_same_values(tmp_path, monkeypatch):
    monkeypatch.setattr("headwater.valuing.run.Job.block_rows", 16, raising=False)
    monkeypatch.setattr("headwater.valuing.request.Job", _small_blocks)
    whole = run(tmp_path, "whole.parquet", method="gradcos").values

    def kill(words: str, done: int, total: int | None) -> None:
        if words == "valuing" and done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, method="gradcos", on_progress=kill)
    with pytest.raises(StoreError, match="--resume"):
        run(tmp_path, method="gradcos")
    with pytest.raises(MismatchError, match="pool"):
        run(tmp_path, pool=POOL[1:], method="gradcos", resume=True)
    with pytest.raises(MismatchError, match="method"):
        run(tmp_path, method="rise", resume=True)
    files = sorted(path.name for path in (tmp_path / "v.parquet.run").glob("*.npy"))
    done = [name for name in files if not name.startswith(".")]  # without what was being written
    assert done == ["000000.npy", "000001.npy"]
    stamps = [(tmp_path / "v.parquet.run" / name).stat().st_mtime_ns for name in done]
    seen = []
    real = np.load
    monkeypatch.setattr(np, "load", lambda path: seen.append((path.name, path.stat().st_mtime_ns)) or real(path))
    again = run(tmp_path, method="gradcos", resume=True).values
    assert [stamp for name, stamp in seen if name in done] == stamps  # not computed again
    assert again.table.equals(whole.table)
    assert not (tmp_path / "v.parquet.run").exists()
    with pytest.raises(StoreError, match="already"):
        run(tmp_path, method="gradcos")


def _small_blocks(*given):
    from headwater.valuing.run import Job

    return replace(Job(*given), block_rows=16)


def test_a_target_in_the_pool_is_counted(tmp_path):
    leaked = {**records(16, seed=1)[3], "id": "leak", "response": records(16, seed=1)[3]["response"].upper()}
    valued = run(tmp_path, pool=[*POOL, leaked], method="length")
    assert valued.leaked == ("leak",)
    assert read_values(tmp_path / "v.parquet").about["leaked"] == 1


def test_rows_of_every_block_have_their_own_near_duplicate_clusters(tmp_path):
    once = records(300)  # 600 rows are three blocks, and most copies are in a later one than their first
    pool = [*once, *({**row, "id": f"again-{i}"} for i, row in enumerate(once))]
    values = run(tmp_path, pool=pool, method="length", duplicates=THRESHOLD).values
    assert values.table.column("id").to_pylist() == [row["id"] for row in pool]
    assert values.table.column("cluster").to_pylist() == [*range(300), *range(300)]


def test_an_index_of_gradients_holds_linfiks_gradient_form(tmp_path):
    bound = Bound.of(find_method("graddot", {"preset": "full"}), READER)
    index = build(tmp_path / "i.lance", open_corpus(POOL), bound)
    found = value_index(Session(index, bound), [TARGET], tmp_path / "i.parquet").values
    streamed = run(tmp_path, method="linfik", settings={"form": "gradient"}).values
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(found.numbers(column), streamed.numbers(column), rtol=1e-3, atol=1e-4)
    assert found.groups("provider") == streamed.groups("provider")


def test_several_targets_are_valued_at_once(tmp_path):
    other = Target("other", tuple(open_corpus(records(8, seed=2))))
    corpus = open_corpus(POOL)
    gradcos = find_method("gradcos")
    values = value_pool(corpus, [TARGET, other], tmp_path / "v.parquet", method=gradcos, reader=READER).values
    mean = (values.numbers("value_task") + values.numbers("value_other")) / 2
    np.testing.assert_allclose(values.numbers(), mean)
    student = find_method("alinfik", {"labels": 30, "teacher": "gradcos"})
    how = ValueOptions(force=True)
    both = value_pool(corpus, [TARGET, other], tmp_path / "w.parquet", method=student, reader=READER, options=how)
    assert list(both.students) == list(both.rechecks) == ["task", "other"]
    alone = value_pool(corpus, [other], tmp_path / "a.parquet", method=student, reader=READER, options=how)
    np.testing.assert_array_equal(both.values.numbers("value_other"), alone.values.numbers())
    assert (tmp_path / "w.task.student" / "student.json").exists()
    with pytest.raises(UsageError, match="called 'task'"):
        value_pool(corpus, [TARGET, TARGET], tmp_path / "x.parquet", method=find_method("linfik"), reader=READER)


def test_alinfik_labels_trains_scores_and_rechecks(tmp_path):
    settings = {"teacher": "length", "labels": 40, "recheck": 20, "members": 3}
    valued = run(tmp_path, method="alinfik", settings=settings)
    assert valued.recheck is not None
    assert valued.recheck.rows == 20
    assert valued.recheck.spearman > 0.5  # length is a feature of the student
    assert (tmp_path / "v.student" / "student.json").exists()
    alone = value_with_student(
        open_corpus(POOL), tmp_path / "v.student", tmp_path / "s.parquet", options=ValueOptions(duplicates=None)
    )
    np.testing.assert_array_equal(alone.values.numbers(), valued.values.numbers())
    few = Target("task", TARGET.rows[:8])
    other = value_pool(open_corpus(POOL), [few], tmp_path / "a.parquet", method=find_method("length"), reader=READER)
    assert other.values.table.num_rows == 60
    with pytest.raises(MismatchError, match="target_digest"):
        value_pool(
            open_corpus(POOL),
            [few],
            tmp_path / "b.parquet",
            method=find_method("alinfik", settings),
            reader=READER,
            options=ValueOptions(student=tmp_path / "v.student"),
        )


def test_alinfik_goes_on_after_being_killed_at_any_stage(tmp_path):
    script = Path(__file__).parents[1] / "oracles" / "killed_value.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["killed"] == [-signal.SIGKILL] * 4
    assert not report["file before the end"]
    labels = report["labels"]
    counts = [len(found) for found in labels]  # how far the next block is when the signal comes is not known
    assert sorted(counts) == counts
    assert counts[0] >= 1
    assert counts[2:] == [5, 5]
    for before, after in itertools.pairwise(labels):
        assert before.items() <= after.items()  # no label is made twice
    assert report["undisturbed"] == report["in peace"] == 0
    whole, killed = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("whole", "killed"))
    assert whole == killed


def test_constant_scores_teach_nothing(tmp_path):
    rows = [Row(f"r{i}", i, prompt="a", response="b") for i in range(40)]
    with pytest.raises(DataError, match="same score"):
        fit_student(rows, np.full(40, 3.0), StudentOptions())
    with pytest.raises(DataError, match="20"):
        fit_student(rows[:5], np.arange(5.0), StudentOptions())


def test_a_student_of_any_teacher_is_a_method():
    rows = list(open_corpus(records(80)))
    learning = Learning(find_method("length"), StudentOptions(members=2), labels=lambda count: count)
    method = student_of(learning, MethodSpec("pupil", {}))
    scores = attribute(method, READER, rows[60:], [TARGET], sample=rows[:60])
    truth = [len(row.prompt or "") + len(row.response or "") for row in rows[60:]]
    assert np.corrcoef(scores.values[:, 0], truth)[0, 1] > 0.5


@pytest.mark.parametrize("family", ["regression", "transformer"])
def test_a_saved_student_scores_the_same_and_knows_its_tokenizer(tmp_path, family):
    rows = list(open_corpus(records(120)))
    labels = np.array([float("fox" in (row.response or "")) + 0.1 * len(row.response or "") for row in rows])
    student = fit_student(
        rows, labels, StudentOptions(family=family, members=2, epochs=3), Taught(about={"target": "t"})
    )
    folder = student.save(tmp_path / "student")
    again = load_student(folder)
    np.testing.assert_allclose(again.estimates(rows), student.estimates(rows), rtol=1e-5, atol=1e-5)
    assert again.curve == student.curve
    with pytest.raises(StoreError, match="already"):
        student.save(folder)
    with pytest.raises(MismatchError, match="target"):
        again.require({"target": "another"})
    if family == "transformer":
        place = folder / "member-0" / "tokenizer.json"
        raw = json.loads(place.read_text())
        raw["model"]["merges"] = raw["model"]["merges"][:-1]
        place.write_text(json.dumps(raw))
        with pytest.raises(MismatchError, match="tokenizer"):
            load_student(folder)


@pytest.mark.parametrize("family", ["regression", "transformer"])
def test_an_encoder_that_is_named_is_used(tmp_path, family):
    for name, seed in (("small", 0), ("other", 1)):
        made = tiny_loaded("llama", seed=seed)
        made.model.save_pretrained(tmp_path / name)
        made.tokenizer.save_pretrained(tmp_path / name)
    rows = list(open_corpus(records(60)))
    labels = np.array([float(len(row.response or "")) for row in rows])
    options = StudentOptions(family=family, members=1, epochs=2, encoder=str(tmp_path / "small"))
    student = fit_student(rows, labels, options)
    again = load_student(student.save(tmp_path / "student"))
    np.testing.assert_allclose(again.estimates(rows), student.estimates(rows), rtol=1e-4, atol=1e-4)
    other = fit_student(rows, labels, replace(options, encoder=str(tmp_path / "other")))
    assert not np.allclose(other.predict(rows), student.predict(rows))
    with pytest.raises(ModelError, match="encoder"):
        fit_student(rows, labels, replace(options, encoder=str(tmp_path / "none")))


def test_shuffled_labels_teach_nothing():
    rows = list(open_corpus(records(400)))
    labels = np.array([len(row.response or "") for row in rows], dtype=float)
    fresh = list(open_corpus(records(300, seed=9)))
    truth = np.array([len(row.response or "") for row in fresh], dtype=float)
    learned = fit_student(rows, labels, StudentOptions(members=3))
    assert np.corrcoef(learned.predict(fresh), truth)[0, 1] > 0.8
    chance = []
    for seed in range(6):  # a student of noise leans some way, each time another
        shuffled = np.random.default_rng(seed).permutation(labels)
        student = fit_student(rows, shuffled, StudentOptions(members=1, seed=seed))
        assert abs(student.held_out) < 0.5
        chance.append(np.corrcoef(student.predict(fresh), truth)[0, 1])
    assert abs(np.mean(chance)) < 0.3


def noisy(count: int, seed: int) -> tuple[list[Row], np.ndarray]:
    """Rows with labels that their length tells only in part."""
    rows = list(open_corpus(records(count, seed=seed)))
    noise = np.random.default_rng([seed, 1]).uniform(-1, 1, count)
    return rows, np.array([len(row.response or "") for row in rows]) / 20 + noise


def test_95_of_100_held_out_labels_lie_in_the_students_intervals():
    rows, labels = noisy(1000, seed=0)
    student = fit_student(rows, labels, StudentOptions(members=3))
    lesson = Lesson.of(rows, labels, seed=0)
    truth = student.scale.undo(lesson.labels[lesson.held_out])
    _, low, high = student.estimates(lesson.rows_at(lesson.held_out))[:, 0].T
    assert len(truth) == 100
    assert ((low <= truth) & (truth <= high)).sum() in (95, 96)


def test_95_percent_of_fresh_labels_lie_in_a_students_interval():
    """Averaged over students: a single one's held-out rows are too few to tell the level."""
    inside = []
    for seed in range(10):
        rows, labels = noisy(590, seed)
        student = fit_student(rows[:390], labels[:390], StudentOptions(members=2, seed=seed))
        _, low, high = student.estimates(rows[390:])[:, 0].T
        inside.append(((low <= labels[390:]) & (labels[390:] <= high)).mean())
    # of 39 held-out misses the 38th is the reach, so 38 of 40 fresh labels lie inside
    assert np.mean(inside) == pytest.approx(38 / 40, abs=0.025)


@pytest.mark.parametrize(("labels", "held_out"), [(60, 15), (80, 19), (200, 20)])
def test_a_student_gives_intervals_from_19_held_out_labels_and_they_hold(tmp_path, labels, held_out):
    """Averaged over students, because the held-out labels of a single one are few."""
    inside = []
    for seed in range(12 if held_out >= 19 else 1):
        rows, given = noisy(labels + 300, seed)
        student = fit_student(rows[:labels], given[:labels], StudentOptions(members=3, seed=seed))
        assert student.held_out_rows == held_out
        _, low, high = student.estimates(rows[labels:])[:, 0].T
        inside.append(((low <= given[labels:]) & (given[labels:] <= high)).mean())
        assert np.isnan(low).all() == np.isnan(high).all() == (held_out < 19)
    assert np.mean(inside) >= 0.93 or held_out < 19
    again = load_student(student.save(tmp_path / "student"))
    np.testing.assert_array_equal(again.estimates(rows), student.estimates(rows))
    raw = json.loads((tmp_path / "student" / "student.json").read_text())
    assert (raw["reach"] is None) == (held_out < 19)
    del raw["held_out_rows"]  # as in a student of an older version, which held out a tenth
    (tmp_path / "student" / "student.json").write_text(json.dumps({**raw, "reach": 2.0}))
    assert load_student(tmp_path / "student").has_intervals == (labels >= 190)


def test_values_without_intervals_say_so_and_can_be_priced(tmp_path):
    settings = {"teacher": "length", "labels": 40, "recheck": 15, "members": 2}
    valued = run(tmp_path, method="alinfik", settings=settings)
    assert valued.values.table.column("low").null_count == 60
    assert "76 labels" in valued.notes["intervals"]
    assert valued.recheck.to_json()["inside the interval"] is None
    priced = price(valued.values, Terms(1000, by="provider"))
    assert priced.cents.sum() == 1000


def test_a_score_that_is_not_finite_stops_the_run_and_names_the_row_or_the_target(tmp_path):
    broken = tiny_loaded("llama")
    marked = [*POOL[:20], {**POOL[20], "id": "sick", "response": "% % ~ %"}, *POOL[21:30]]
    rows = list(open_corpus(marked))
    known = {token for row in [*rows[:20], *rows[21:], *TARGET.rows] for token in tokens_of(broken, row)}
    (own, *_) = [token for token in tokens_of(broken, rows[20]) if token not in known]
    broken.model.get_input_embeddings().weight.data[own] = float("nan")
    if broken.model.get_output_embeddings() is not None:
        head = broken.model.get_output_embeddings()
        head.weight = type(head.weight)(tiny_loaded("llama", seed=1).model.get_input_embeddings().weight.data.clone())
    reader = Reader.of(broken)
    for method in ("embedding", "loss", "ekfac", "datainf", "linfik", "graddot"):
        with pytest.raises(NumericError, match="21"):
            attribute(find_method(method, {"distance": "0.001"} if method == "linfik" else None),
                      reader, rows, [TARGET], rows[:8])  # fmt: skip
    scorer = PartScorer((Part("a"), Part("b")), lambda some: np.full((len(some), 2), [1.0, np.nan]))
    with pytest.raises(NumericError, match="target 'b'"):
        scorer(rows[:3])
    with pytest.raises(NumericError, match="the row's score is not finite"):
        PartScorer((Part("a"),), lambda some: np.where(np.arange(len(some)) == 1, np.inf, 0.0)[:, None])(rows[:3])


def tokens_of(loaded, row: Row) -> list[int]:
    return loaded.tokenizer(f"{row.prompt}\n{row.response}")["input_ids"]


def test_the_sample_is_drawn_by_seed_and_evenly_over_strata():
    corpus = open_corpus([{**row, "provider": "rare" if i < 6 else "common"} for i, row in enumerate(POOL)])
    found = survey(corpus, sample=12, stratify="provider")
    assert [row.metadata["provider"] for row in found.sample].count("rare") == 6
    assert found.sample == survey(corpus, sample=12, stratify="provider").sample
    assert survey(corpus, sample=5).sample == survey(corpus, sample=9).sample[:5]
    with pytest.raises(DataError, match="columns: provider"):
        survey(corpus, sample=5, stratify="vendor")


def test_no_artefact_holds_the_other_sides_rows(tmp_path):
    query = export_target(READER, TARGET, tmp_path / "task.query", method=vector_method("linfik"))
    scored = score_query(
        open_corpus(POOL), query, LOADED, tmp_path / "v.parquet", options=ValueOptions(duplicates=None)
    )
    taught = {"teacher": "gradcos", "labels": 40, "recheck": 0}
    valued = run(tmp_path, "w.parquet", method="alinfik", settings=taught, force=True)
    transformer = fit_student(
        list(open_corpus(POOL)), valued.values.numbers(), StudentOptions(family="transformer", members=1, epochs=1)
    )
    transformer.save(tmp_path / "t.student")
    texts = [*POOL, *(row.fields() for row in TARGET.rows)]
    said = [str(row[name]) for row in texts for name in ("prompt", "response")]
    artefacts = [tmp_path / "task.query", *tmp_path.glob("*.student/**/*")]
    for artefact in filter(Path.is_file, artefacts):
        raw = artefact.read_bytes()
        assert not [text for text in said if text.encode() in raw], artefact
    for values in (scored.values, valued.values):
        shown = json.dumps(values.table.to_pylist(), default=str) + json.dumps(dict(values.about), default=str)
        assert not [text for text in said if text in shown]
    exact = run(tmp_path, "x.parquet", method="linfik", settings={"form": "gradient"}).values
    np.testing.assert_allclose(scored.values.numbers(), exact.numbers(), rtol=1e-3, atol=1e-3)


def test_an_audit_confirms_the_honest_and_catches_the_rest(tmp_path):
    query = export_target(READER, TARGET, tmp_path / "task.query", method=find_method("gradcos"))
    corpus = open_corpus(POOL)
    honest = score_query(corpus, query, LOADED, tmp_path / "v.parquet").values
    for judge in (read_query(tmp_path / "task.query"), TARGET):
        assert audit(honest, corpus, READER, judge=judge, sample=30).confirmed
    numbers = honest.numbers()
    turned = honest.table.set_column(1, "value", [numbers[::-1].copy()])
    found = audit(Values(turned, honest.about, "turned"), corpus, READER, judge=query, sample=30)
    assert not found.confirmed
    with pytest.raises(MismatchError, match="pool"):
        audit(honest, open_corpus(POOL[:-1]), READER, judge=query)
    with pytest.raises(MismatchError, match="weights"):
        score_query(corpus, query, tiny_loaded("llama", seed=3), tmp_path / "w.parquet")
    with pytest.raises(UsageError, match="16 rows"):
        export_target(READER, Target("few", TARGET.rows[:5]), tmp_path / "few.query", method=find_method("gradcos"))
    with pytest.raises(DataError, match="not a query file"):
        read_query(tmp_path / "v.parquet")
